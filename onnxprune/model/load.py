"""Reading a model file: memory-mapped, checked, its tensors' bytes left where they are."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import FunctionProto, GraphProto, ModelProto, TensorProto

from ..errors import ModelError
from .domain import plain_domain
from .dtypes import storage_dtype
from .external_data import ExternalFiles, map_file
from .functions import check_functions
from .gap_fold import fold_gaps
from .model import (
    Model,
    Origin,
    check_tensor,
    checked_storage,
    payload_key,
    set_payload_key,
    size_error,
)
from .payload import MappedPayload, Payload
from .sparse import check_expansion, densify_sparse
from .tensors import all_tensors, walk_graphs, walk_tensors
from .varint import VarintPayload
from .wire import SMALLEST_PAYLOAD, Slice, split

__all__ = ["load", "parse"]


def load(path: Path) -> Model:
    """Read an ONNX model from a file.

    Args:
        path: The ``.onnx`` file; external data is looked for in its folder.

    Raises:
        ModelError: No such file, not an ONNX model, damaged, or external data missing or unsafe.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(f"cannot read '{path}' ({reason}); check the path") from None
    except ValueError:
        raise ModelError(f"{str(path)!r} is no path; check its name") from None
    if stat.S_ISDIR(mode):
        raise ModelError(f"'{path}' is a folder; name the .onnx file inside it")
    if not stat.S_ISREG(mode):
        raise ModelError(f"'{path}' is not a regular file; copy the model to a file first")
    buffer = map_file(path)
    if len(buffer) == 0:
        raise ModelError(f"'{path}' is empty; export or copy the model again")
    try:
        return parse(buffer, folder=path.parent, path=path)
    except ModelError as error:
        raise ModelError(f"'{path}': {error}") from error


def parse(
    buffer: memoryview,
    *,
    folder: Path | None = None,
    path: Path | None = None,
    known: Mapping[str, Payload] | None = None,
    smallest: int = SMALLEST_PAYLOAD,
) -> Model:
    """A model from the bytes of a ModelProto; tensors stay views of `buffer`.

    Args:
        buffer: The serialised model.
        folder: Where its external data files are; None when there can be none.
        path: The file that `buffer` was read from, if any.
        known: Payloads that the message refers to already.
        smallest: Tensors of fewer bytes stay inside the message.

    Raises:
        ModelError: Not an ONNX model, damaged, or external data missing or unsafe.
    """
    skeleton, slices = split(buffer, smallest)
    proto = ModelProto()
    try:
        proto.ParseFromString(skeleton)
    except DecodeError:
        raise ModelError("the file is not an ONNX model; export it again as ONNX") from None
    if not proto.HasField("graph"):
        raise ModelError("the file holds no graph, so it is not an ONNX model; export it again")
    if not proto.graph.node:
        raise ModelError("the graph has no nodes, so there is nothing to prune; export it again")
    external = ExternalFiles(folder)
    _check_names(proto)
    _check_opsets(proto)
    check_functions(proto)
    payloads = dict(known or {})
    payloads.update(_payloads(proto, buffer, slices, external, payloads))
    for _, _, tensor in walk_tensors(proto):
        check_tensor(tensor)
    if slices.keys() - payloads.keys():
        # Tensors in places that nothing here knows stay in the message, however big they are.
        return parse(buffer, folder=folder, path=path, known=known, smallest=len(buffer) + 1)
    sparse = densify_sparse(proto, payloads) | fold_gaps(Model(proto, payloads), payloads)
    file_bytes = len(buffer) + sum(file.stat().st_size for file in external.paths)
    held = sum(payload.nbytes for payload in (known or {}).values())
    check_expansion(Model(proto, payloads), sparse, file_bytes + held)
    origin = Origin(
        path=path,
        file_bytes=file_bytes,
        data_files=external.paths,
        sparse=frozenset(sparse),
    )
    model = Model(proto, payloads, origin)
    _check_cycles(proto)
    return model


def _payloads(
    proto: ModelProto,
    buffer: memoryview,
    slices: Mapping[str, Slice],
    external: ExternalFiles,
    known: Mapping[str, Payload],
) -> Iterator[tuple[str, Payload]]:
    """Payload of every tensor whose bytes are in the file's slices or in external files."""
    for number, tensor in enumerate(all_tensors(proto)):
        key = payload_key(tensor)
        if tensor.data_location != TensorProto.EXTERNAL or key in known:
            continue
        if key is not None and key in slices:
            piece, expected = slices[key], checked_storage(tensor)
            if piece.varints:
                varints = VarintPayload.of(buffer, piece.offset, piece.length)
                if varints.nbytes != expected:
                    raise size_error(tensor, varints.nbytes, expected)
                yield key, varints
                continue
            if piece.length != expected:
                raise size_error(tensor, piece.length, expected)
            dtype = storage_dtype(tensor.data_type)
            yield key, MappedPayload(buffer, piece.offset, dtype, piece.length // dtype.itemsize)
        else:
            payload = external.payload(tensor)
            key = f"external{number}"
            set_payload_key(tensor, key)
            yield key, payload


def _check_names(proto: ModelProto) -> None:
    """Refuse names that are not UTF-8: protobuf hands those out as bytes, or fails."""
    try:
        strange = next((name for name in _names(proto) if not isinstance(name, str)), None)
    except UnicodeDecodeError as error:
        strange = error.object
    if strange is not None:
        raise ModelError(
            f"the name {strange!r} in the model is not UTF-8; the file is damaged, export it again"
        )


def _check_opsets(proto: ModelProto) -> None:
    """Refuse operator sets in two versions: readers disagree on which one counts."""
    roots: list[ModelProto | FunctionProto] = [proto, *proto.functions]
    for root in roots:
        versions: dict[str, int] = {}
        for entry in root.opset_import:
            domain = plain_domain(entry.domain)
            first = versions.setdefault(domain, entry.version)
            if first != entry.version:
                raise ModelError(
                    f"the operator set '{domain or 'ai.onnx'}' is imported in versions {first} and "
                    f"{entry.version}; export the model again"
                )


def _names(proto: ModelProto) -> Iterator[object]:
    """Every name in a model that may be shown, matched or written."""
    yield proto.producer_name
    yield proto.producer_version
    yield from (opset.domain for opset in proto.opset_import)
    for _, graph in walk_graphs(proto):
        yield graph.name
        yield from graph.input if isinstance(graph, FunctionProto) else _value_names(graph)
        for node in graph.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
            yield from (attribute.name for attribute in node.attribute)
    yield from (tensor.name for tensor in all_tensors(proto))


def _value_names(graph: GraphProto) -> Iterator[object]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _producers(graph: GraphProto | FunctionProto, where: str) -> dict[str, int]:
    """Places of the nodes that compute values; refuses a value that is there already."""
    producer: dict[str, int] = {}
    there = _there_before(graph, where)
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in there:
                raise ModelError(
                    f"'{name}' is {there[name]} and computed by node '{node.name or index}' "
                    f"({node.op_type}){where}; export the model again"
                )
            if name in producer:
                both = " and ".join(
                    f"'{graph.node[place].name or place}' ({graph.node[place].op_type})"
                    for place in (producer[name], index)
                )
                raise ModelError(
                    f"'{name}' is computed by two nodes{where}, {both}; export the model again"
                )
            producer[name] = index
    return producer


def _there_before(graph: GraphProto | FunctionProto, where: str) -> dict[str, str]:
    """Values that no node has to compute, and what they are; refuses one that is stored twice."""
    if isinstance(graph, FunctionProto):
        return dict.fromkeys(graph.input, "an input")
    found = {value.name: "an input" for value in graph.input}
    stored = "stored in the model"
    for tensor in graph.initializer:
        if found.get(tensor.name) == stored:
            raise ModelError(f"'{tensor.name}' is stored twice{where}; export the model again")
        found[tensor.name] = stored
    return found


def _check_cycles(proto: ModelProto) -> None:
    """Refuse a graph in which a value depends on itself; order of the nodes does not matter."""
    for scope, graph in walk_graphs(proto):
        where = f" in {'/'.join(scope)}" if scope else ""
        producer = _producers(graph, where)
        waiting = [0] * len(graph.node)
        consumers: list[list[int]] = [[] for _ in graph.node]
        for index, node in enumerate(graph.node):
            for name in node.input:
                if name in producer:
                    waiting[index] += 1
                    consumers[producer[name]].append(index)
        ready = [index for index, count in enumerate(waiting) if count == 0]
        done = 0
        while ready:
            done += 1
            for consumer in consumers[ready.pop()]:
                waiting[consumer] -= 1
                if waiting[consumer] == 0:
                    ready.append(consumer)
        if done < len(graph.node):
            stuck = next(i for i, count in enumerate(waiting) if count > 0)
            raise ModelError(
                f"the graph has a cycle through node '{graph.node[stuck].name or stuck}' "
                f"({graph.node[stuck].op_type}){where}; export the model again"
            )
