"""Making every stored float tensor an initializer of the main graph, so that it can be trained.

Constant nodes become initializers. Those inside model-local functions become further inputs of
the function, fed at every call from one initializer: a weight that several calls share stays one
weight when the functions are inlined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from ..errors import ModelError
from ..model.domain import plain_domain
from ..model.housekeeping import FreshNames
from ..model.tensors import TensorAddress, function_label
from .values import FLOATS

__all__ = ["Hoisted", "hoisted"]

_FunctionKey = tuple[str, str, str]


@dataclass(frozen=True)
class Hoisted:
    """A model whose float constants are initializers, and where each came from."""

    proto: ModelProto
    addresses: dict[str, TensorAddress]


def hoisted(proto: ModelProto) -> Hoisted:
    """A copy of the model with the float tensors of main graph and functions as initializers.

    Tensors in bodies of If, Loop and Scan stay where they are, and so do scalars of functions.

    Args:
        proto: A model with its weights in memory; it stays as it is.

    Returns:
        The copy, and for every float initializer of its main graph the address in `proto`.
    """
    model = ModelProto()
    model.CopyFrom(proto)
    addresses = {
        tensor.name: TensorAddress((), tensor.name)
        for tensor in model.graph.initializer
        if tensor.data_type in FLOATS
    }
    for node, tensor in _take_constants(model.graph, scalars=True):
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
        addresses[tensor.name] = TensorAddress((), tensor.name)
    for name, (address, tensor) in _lift_from_functions(model).items():
        tensor.name = name
        model.graph.initializer.append(tensor)
        addresses[name] = address
    return Hoisted(model, addresses)


def _take_constants(
    graph: GraphProto | FunctionProto, *, scalars: bool
) -> Iterator[tuple[NodeProto, TensorProto]]:
    """Remove the Constant nodes with float tensors, and yield them with copies of the tensors."""
    kept: list[NodeProto] = []
    taken: list[tuple[NodeProto, TensorProto]] = []
    for node in graph.node:
        tensor = _float_constant(node)
        if tensor is None or not (scalars or tensor.dims):
            kept.append(node)
            continue
        copy = TensorProto()
        copy.CopyFrom(tensor)
        taken.append((_copied(node), copy))
    if taken:
        kept = [_copied(node) for node in kept]
        del graph.node[:]
        graph.node.extend(kept)
    yield from taken


def _float_constant(node: NodeProto) -> TensorProto | None:
    if node.op_type != "Constant" or plain_domain(node.domain) or not node.output:
        return None
    for attribute in node.attribute:
        if attribute.name == "value" and attribute.t.data_type in FLOATS:
            return attribute.t
    return None


def _copied(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


def _lift_from_functions(model: ModelProto) -> dict[str, tuple[TensorAddress, TensorProto]]:
    """Turn constants of functions into inputs of these and of all callers."""
    names = FreshNames(model.graph, *model.functions)
    lifted: dict[str, tuple[TensorAddress, TensorProto]] = {}
    wanted: dict[_FunctionKey, list[str]] = {}
    for function in _callees_first(model):
        needs = _forward_to_calls(function, wanted)
        label = function_label(function)
        nodes = []
        for node, tensor in _take_constants(function, scalars=False):
            name = names.make(f"{label}/{node.output[0]}")
            lifted[name] = TensorAddress((label,), node.output[0]), tensor
            nodes.append(helper.make_node("Identity", [name], [node.output[0]]))
            needs.append(name)
        if nodes:
            rest = [_copied(node) for node in function.node]
            del function.node[:]
            function.node.extend([*nodes, *rest])
        function.input.extend(needs)
        wanted[_key(function)] = needs
    _forward_to_calls(model.graph, wanted)
    return lifted


def _forward_to_calls(
    graph: GraphProto | FunctionProto, wanted: dict[_FunctionKey, list[str]]
) -> list[str]:
    """Feed what called functions want; returns the names that the graph itself then needs."""
    needs: list[str] = []
    for body in _with_bodies(graph):
        for node in body.node:
            extra = wanted.get((node.domain, node.op_type, node.overload))
            if extra:
                node.input.extend(extra)
                needs += [name for name in extra if name not in needs]
    return needs


def _with_bodies(root: GraphProto | FunctionProto) -> Iterator[GraphProto | FunctionProto]:
    pending: list[GraphProto | FunctionProto] = [root]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def _callees_first(model: ModelProto) -> list[FunctionProto]:
    """Every function behind those that it calls; raises ModelError for a function in itself."""
    functions = {_key(function): function for function in model.functions}
    _pad_calls(model, functions)
    calls = {
        key: {
            call
            for body in _with_bodies(function)
            for node in body.node
            if (call := (node.domain, node.op_type, node.overload)) in functions
        }
        for key, function in functions.items()
    }
    try:
        return [functions[key] for key in TopologicalSorter(calls).static_order()]
    except CycleError as error:
        name = error.args[1][0][1]
        raise ModelError(
            f"the model-local function '{name}' calls itself, so it cannot be inlined for "
            "training; export the model again"
        ) from None


def _pad_calls(model: ModelProto, functions: dict[_FunctionKey, FunctionProto]) -> None:
    """Write out optional inputs that calls leave away: more inputs come behind them."""
    roots: list[GraphProto | FunctionProto] = [model.graph, *model.functions]
    for root in roots:
        for body in _with_bodies(root):
            for node in body.node:
                called = functions.get((node.domain, node.op_type, node.overload))
                if called is not None:
                    node.input.extend([""] * (len(called.input) - len(node.input)))


def _key(function: FunctionProto) -> _FunctionKey:
    return function.domain, function.name, function.overload
