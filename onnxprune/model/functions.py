"""Model-local functions: who calls whom, and refusal of calls that nobody could run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from ..errors import ModelError
from .domain import plain_domain
from .tensors import function_label, nested, node_label

__all__ = ["check_functions"]

#: Nodes that a model with functions may stand for.
MOST_NODES = 2**20
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
        key = (plain_domain(function.domain), function.name, function.overload)
        functions.setdefault(key, function)
    for node, index in _nodes(proto):
        called = functions.get(_key(node))
        if called is not None:
            _check_call(node, index, called)
    _check_size(proto, functions, _in_order(functions))


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


def _in_order(functions: Mapping[Key, FunctionProto]) -> list[Key]:
    """Functions before those that call them; raises ModelError where there is a cycle."""
    calls = {key: set(_calls(function, functions)) for key, function in functions.items()}
    callers: dict[Key, list[Key]] = {key: [] for key in functions}
    for key, called in calls.items():
        for other in called:
            callers[other].append(key)
    waiting = {key: len(called) for key, called in calls.items()}
    ready = [key for key, count in waiting.items() if count == 0]
    order = []
    while ready:
        order.append(ready.pop())
        for caller in callers[order[-1]]:
            waiting[caller] -= 1
            if waiting[caller] == 0:
                ready.append(caller)
    stuck = next((key for key, count in waiting.items() if count > 0), None)
    if stuck is not None:
        raise ModelError(
            f"{function_label(functions[stuck])} calls itself, at once or by way of other "
            "functions; export the model again"
        )
    return order


def _check_size(
    proto: ModelProto, functions: Mapping[Key, FunctionProto], order: Sequence[Key]
) -> None:
    """Refuse functions that stand for more nodes than anybody could run: each calls the next twice.

    Args:
        proto: The model.
        functions: Its functions.
        order: Their keys, callers last.
    """
    sizes: dict[Key, int] = {}
    for key in order:
        sizes[key] = _size(functions[key], sizes)
    total = _size(proto.graph, sizes)
    if total > MOST_NODES:
        raise ModelError(
            f"the model's functions stand for {total:,} nodes, more than can be worked on; export "
            "the model without functions, or smaller"
        )


def _size(root: GraphProto | FunctionProto, sizes: Mapping[Key, int]) -> int:
    """Nodes of a graph and of all that it calls."""
    graphs = [graph for _, graph in nested((), root)]
    return sum(1 + sizes.get(_key(node), 0) for graph in graphs for node in graph.node)


def _calls(root: FunctionProto, functions: Mapping[Key, FunctionProto]) -> Iterator[Key]:
    """Functions that a function calls."""
    for _, graph in nested((), root):
        for node in graph.node:
            if _key(node) in functions:
                yield _key(node)


def _key(node: NodeProto) -> Key:
    return (plain_domain(node.domain), node.op_type, node.overload)
