"""Model-local functions: who calls whom, and refusal of calls that nobody could run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from ..errors import ModelError
from .tensors import function_label, nested, node_label

__all__ = ["check_functions"]

#: Domain, name and overload.
Key = tuple[str, str, str]


def check_functions(proto: ModelProto) -> None:
    """Refuse functions that call themselves, at once or by way of others, and calls with too much.

    Raises:
        ModelError: Which function, and what is wrong.
    """
    if not proto.functions:
        return
    functions: dict[Key, FunctionProto] = {}
    for function in proto.functions:
        key = (_domain(function.domain), function.name, function.overload)
        functions.setdefault(key, function)
    for node, index in _nodes(proto):
        called = functions.get(_key(node))
        if called is not None:
            _check_call(node, index, called)
    _check_recursion(functions)


def _nodes(root: ModelProto) -> Iterator[tuple[NodeProto, int]]:
    """Every node of a model, with its position in its graph."""
    starts: tuple[GraphProto | FunctionProto, ...] = (root.graph, *root.functions)
    for start in starts:
        for _, graph in nested((), start):
            for index, node in enumerate(graph.node):
                yield node, index


def _check_call(node: NodeProto, index: int, called: FunctionProto) -> None:
    for what, given, taken in (
        ("inputs", len(node.input), len(called.input)),
        ("outputs", len(node.output), len(called.output)),
    ):
        if given > taken:
            raise ModelError(
                f"node '{node_label(node, index)}' calls {function_label(called)} with {given} "
                f"{what} where it has {taken}; export the model again"
            )


def _check_recursion(functions: Mapping[Key, FunctionProto]) -> None:
    """Take away functions that call none of the rest until none is left; cycles stay."""
    calls = {
        key: {
            _key(node)
            for _, graph in nested((), function)
            for node in graph.node
            if _key(node) in functions
        }
        for key, function in functions.items()
    }
    callers: dict[Key, list[Key]] = {key: [] for key in functions}
    for key, called in calls.items():
        for other in called:
            callers[other].append(key)
    waiting = {key: len(called) for key, called in calls.items()}
    ready = [key for key, count in waiting.items() if count == 0]
    while ready:
        for caller in callers[ready.pop()]:
            waiting[caller] -= 1
            if waiting[caller] == 0:
                ready.append(caller)
    stuck = next((key for key, count in waiting.items() if count > 0), None)
    if stuck is not None:
        raise ModelError(
            f"{function_label(functions[stuck])} calls itself, at once or by way of other "
            "functions; export the model again"
        )


def _key(node: NodeProto) -> Key:
    return (_domain(node.domain), node.op_type, node.overload)


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
