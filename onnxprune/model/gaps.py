"""The gap code: a sparse weight in operators that every runtime has.

The distances between kept elements are bytes. Their running sum gives the positions, and the kept
values are scattered there into zeros:

    gaps (uint8) -> Cast -> CumSum -> positions
    ConstantOfShape(size) -> zeros -> ScatterElements(positions, values) -> Reshape -> weight

The first distance is the first position itself, so it may be 0; every other one is at least 1. A
distance over 255 is bridged by entries of distance 255 that write an explicit zero. A weight
without kept elements gets one such entry at position 0, as OpenVINO refuses to scatter nothing.
Operators: https://onnx.ai/onnx/operators/ (all since opset 11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import (
    NodeProto,
    TensorProto,
    defs,
    helper,
    numpy_helper,
)

from .dtypes import storage_dtype, type_name
from .housekeeping import FreshNames
from .occupancy import LONGEST_GAP, KeptPart, Occupancy, kept_elements
from .payload import Payload
from .sparse import hold, without_data
from .tensors import TensorAddress

__all__ = [
    "ConstantKey",
    "Constants",
    "GapCode",
    "GapValuesPayload",
    "GapsPayload",
    "gap_code",
    "refusal",
]

#: CumSum and ScatterElements exist from here on.
FIRST_OPSET = 11
#: Operators that carry the weight's own type, and the name of that type in their schemas.
CARRYING = {"ConstantOfShape": "T2", "ScatterElements": "T", "Reshape": "T"}


# --- Payloads ------------------------------------------------------------------------------------


class GapsPayload(KeptPart):
    """The distances of the gap code."""

    @property
    def dtype(self) -> np.dtype:
        """Bytes."""
        return np.dtype(np.uint8)

    @property
    def size(self) -> int:
        """Number of entries."""
        return _entries(self.occupancy)

    def pieces(self) -> Iterator[np.ndarray]:
        """Distances to the kept elements of every chunk."""
        last = 0
        for positions, _ in kept_elements(self.source):
            if positions.size == 0:
                continue
            distances = np.diff(positions, prepend=last)
            last = int(positions[-1])
            fillers, ends = _fillers(distances)
            if ends is None:
                yield distances.astype(np.uint8)
            else:
                gaps = np.full(int(ends[-1]) + 1, LONGEST_GAP, np.uint8)
                gaps[ends] = distances - LONGEST_GAP * fillers
                yield gaps
        if self.occupancy.kept == 0:
            yield np.zeros(1, np.uint8)


class GapValuesPayload(KeptPart):
    """The values of the gap code: kept elements, and zeros where a long distance is bridged."""

    @property
    def dtype(self) -> np.dtype:
        """Storage type of the weight."""
        return self.source.dtype

    @property
    def size(self) -> int:
        """Number of entries."""
        return _entries(self.occupancy)

    def pieces(self) -> Iterator[np.ndarray]:
        """Values of the entries of every chunk."""
        last = 0
        for positions, kept in kept_elements(self.source):
            if positions.size == 0:
                continue
            _, ends = _fillers(np.diff(positions, prepend=last))
            last = int(positions[-1])
            if ends is None:
                yield kept
            else:
                values = np.zeros(int(ends[-1]) + 1, kept.dtype)
                values[ends] = kept
                yield values
        if self.occupancy.kept == 0:
            yield np.zeros(1, self.dtype)


def _entries(occupancy: Occupancy) -> int:
    return max(1, occupancy.kept + occupancy.fillers)


def _fillers(distances: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Fillers before each entry, and the entries' places among them (None: no fillers)."""
    fillers = np.maximum(distances - 1, 0) // LONGEST_GAP
    if not fillers.any():
        return fillers, None
    return fillers, np.cumsum(fillers + 1) - 1


# --- Nodes ---------------------------------------------------------------------------------------


#: Shape and bytes of a small int64 constant.
ConstantKey = tuple[tuple[int, ...], bytes]
#: Names of a graph's small constants: its gap-coded weights share them.
Constants = Mapping[ConstantKey, str]


@dataclass(frozen=True)
class GapCode:
    """What stands for one weight.

    Attributes:
        nodes: In order; the last one makes the weight.
        tensors: Its gaps, its values, and small constants that the graph does not have yet.
        payloads: Elements of the gaps and values, where they are not small.
        constants: Every small constant that the graph has with these tensors in it.
    """

    nodes: tuple[NodeProto, ...]
    tensors: tuple[TensorProto, ...]
    payloads: Mapping[str, Payload]
    constants: Constants


def refusal(data_type: int, opset: int) -> str | None:
    """Why a type can't be gap-coded at an opset, or None where it can."""
    if opset < FIRST_OPSET:
        return f"the gap code needs opset {FIRST_OPSET}, here it is {opset}"
    newest = defs.onnx_opset_version()
    if opset > newest:
        return f"opset {opset} is newer than the installed onnx package knows ({newest})"
    wanted = f"tensor({TensorProto.DataType.Name(data_type).lower()})"
    for operator, parameter in CARRYING.items():
        schema = defs.get_schema(operator, opset, "")
        allowed = next(
            constraint.allowed_type_strs
            for constraint in schema.type_constraints
            if constraint.type_param_str == parameter
        )
        if wanted not in allowed:
            return f"{operator} of opset {opset} has no {type_name(data_type)}"
    return None


def gap_code(
    tensor: TensorProto,
    address: TensorAddress,
    source: Payload,
    occupancy: Occupancy,
    fresh: FreshNames,
    constants: Constants,
) -> GapCode:
    """Nodes and tensors that compute a weight from its gap code.

    Args:
        tensor: The dense weight: its shape, type and documentation.
        address: Where it is; the nodes compute a value of this name.
        source: The weight's elements.
        occupancy: What `scan` says of them.
        fresh: Names of the graph that the nodes go to.
        constants: Small constants that this graph has already.
    """
    output, entries = address.name, [_entries(occupancy)]
    gaps_name, values_name, distances, positions, zeros, flat = (
        fresh.make(f"{output}_{part}")
        for part in ("gaps", "values", "distances", "positions", "zeros", "flat")
    )
    payloads: dict[str, Payload] = {}
    gaps = TensorProto(name=gaps_name, data_type=TensorProto.UINT8, dims=entries)
    values = without_data(tensor, entries)
    values.name = values_name
    hold(gaps, GapsPayload(source, occupancy), f"{address}:gaps", payloads)
    hold(values, GapValuesPayload(source, occupancy), f"{address}:values", payloads)
    known, tensors = dict(constants), [gaps, values]

    def constant(numbers: int | Sequence[int], wanted: str) -> str:
        array = np.array(numbers, np.int64)
        identity = (array.shape, array.tobytes())
        if identity not in known:
            known[identity] = fresh.make(wanted)
            tensors.append(numpy_helper.from_array(array, known[identity]))
        return known[identity]

    axis, size = constant(0, "gap_axis"), constant([source.size], f"{output}_size")
    shape = constant(list(tensor.dims), f"{output}_shape")
    whole = TensorProto.INT32 if source.size <= 2**31 else TensorProto.INT64
    nodes = (
        helper.make_node("Cast", [gaps_name], [distances], to=whole),
        helper.make_node("CumSum", [distances, axis], [positions]),
        helper.make_node("ConstantOfShape", [size], [zeros], value=_zero(tensor.data_type)),
        helper.make_node("ScatterElements", [zeros, positions, values_name], [flat]),
        helper.make_node("Reshape", [flat, shape], [output]),
    )
    return GapCode(nodes, tuple(tensors), payloads, known)


def _zero(data_type: int) -> TensorProto:
    """A tensor of one zero."""
    size = storage_dtype(data_type).itemsize
    return TensorProto(data_type=data_type, dims=[1], raw_data=bytes(size))
