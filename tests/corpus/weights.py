"""Which tensors of a model are weights and what a quality leaves of them, counted a second time.

A plain reading of the rule, with numpy in float64 on whole arrays, apart from the product's code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto

from .constants import Body, Constant, Key, Scope, bodies_of, constants

__all__ = ["Count", "counted", "expected", "weight_keys"]

#: Inputs that are weights, for operators with float weights.
OPERANDS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "DeformConv": (1,),
    "CausalConvWithState": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "Einsum": tuple(range(8)),
    "FusedMatMul": (0, 1),
    "FusedGemm": (0, 1),
    "FusedConv": (1,),
    "Attention": (1,),
}
#: Operators of onnxruntime's domain among these.
MICROSOFT = frozenset(("FusedMatMul", "FusedGemm", "FusedConv", "Attention"))
#: Operators that show their first input, or parts of it, with the same values; Concat shows all.
VIEWS = frozenset(
    (
        "Identity",
        "Cast",
        "Transpose",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Slice",
        "Split",
    )
)
FLOATS = frozenset((1, 10, 11, 16))


@dataclass
class _Place:
    """A body being read: its scope, what makes each of its values, and the body around it."""

    scope: Scope
    body: Body
    outer: _Place | None
    makers: dict[str, NodeProto] = field(default_factory=dict)
    callers: list[tuple[_Place, NodeProto]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.makers = {name: node for node in self.body.node for name in node.output if name}


def _places(proto: ModelProto) -> list[_Place]:
    roots = [_Place((), proto.graph, None)]
    roots += [_Place((f"{f.domain}:{f.name}:{f.overload}",), f, None) for f in proto.functions]
    found: list[_Place] = []
    pending = list(roots)
    while pending:
        place = pending.pop()
        found.append(place)
        for node in place.body.node:
            pending += [_Place((*place.scope, n), g, place) for n, g in bodies_of(node)]
    for function in roots[1:]:
        body = function.body
        for place in found:
            for node in place.body.node:
                if (node.domain, node.op_type) == (getattr(body, "domain", ""), body.name):
                    function.callers.append((place, node))
    return found


def _sources(place: _Place, name: str, known: Mapping[Key, Constant]) -> Iterator[Key]:
    """Constants that a value shows, through views, outer scopes and calls of functions."""
    if (place.scope, name) in known:
        yield place.scope, name
    elif name in place.makers:
        node = place.makers[name]
        if not node.domain and (node.op_type in VIEWS or node.op_type == "Concat"):
            for source in node.input if node.op_type == "Concat" else node.input[:1]:
                yield from _sources(place, source, known)
    elif isinstance(place.body, FunctionProto) and name in place.body.input:
        index = list(place.body.input).index(name)
        for caller, node in place.callers:
            if index < len(node.input) and node.input[index]:
                yield from _sources(caller, node.input[index], known)
    elif isinstance(place.body, GraphProto) and any(name == i.name for i in place.body.input):
        return
    elif place.outer is not None:
        yield from _sources(place.outer, name, known)


def weight_keys(proto: ModelProto) -> dict[Key, Constant]:
    """Float constants that some node multiplies as a weight (each once)."""
    known = constants(proto)
    found: dict[Key, Constant] = {}
    for place in _places(proto):
        for node in place.body.node:
            own = "com.microsoft" if node.op_type in MICROSOFT else ""
            for index in OPERANDS.get(node.op_type, ()) if node.domain == own else ():
                if index < len(node.input) and node.input[index]:
                    for key in _sources(place, node.input[index], known):
                        if _is_weight(known[key], index, place, node, known):
                            found[key] = known[key]
    return found


def _is_weight(
    constant: Constant, index: int, place: _Place, node: NodeProto, known: Mapping[Key, Constant]
) -> bool:
    if constant.data_type not in FLOATS or not constant.array.ndim:
        return False
    if node.op_type == "Einsum":
        return constant.array.ndim > 1
    # A constant vector before a constant matrix is what the matrix multiplies.
    is_fed = index == 0 and any(True for _ in _sources(place, node.input[1], known))
    return constant.array.ndim > 1 or not is_fed


@dataclass(frozen=True)
class Count:
    """Weights of a tensor: all, those not zero before, and those not zero after."""

    size: int
    alive: int
    kept: int


def expected(constant: Constant, quality: float) -> tuple[np.ndarray, Count]:
    """A weight as it should be after pruning, and its count."""
    array = constant.array
    values = array.astype(np.float64)
    alive = values[values != 0]
    count = Count(array.size, alive.size, alive.size)
    if alive.size < 2 or np.all(alive == alive[0]) or quality == 0:
        return array, count
    # In real numbers no standard deviation is above the largest magnitude; in float64 it can be.
    gone = np.abs(values) < quality * min(np.std(alive), np.max(np.abs(alive)))
    if not np.any(gone & (values != 0)):
        return array, count  # a tensor that loses nothing keeps its bytes, zeros of both signs
    pruned = array.copy()
    pruned[gone] = 0
    return pruned, Count(array.size, alive.size, int(np.count_nonzero(pruned)))


def counted(proto: ModelProto, quality: float) -> dict[Key, tuple[np.ndarray, Count]]:
    """Every weight of a model as it should be, with its count."""
    return {key: expected(constant, quality) for key, constant in weight_keys(proto).items()}
