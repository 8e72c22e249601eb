"""What onnxruntime-training 1.19.2 differentiates, and what it would compute wrongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnx import NodeProto, helper

from ....errors import UsageError
from ....model.domain import plain_domain
from ....model.tensors import node_label, subgraphs
from ...backward import reads
from ...builder import GraphBuilder
from ...values import FLOATS

__all__ = ["Path", "check"]

_DIFFERENTIABLE = """
    Abs Add Cast Clip Concat Conv Cos Div Erf Exp Expand Flatten Gather
    GatherElements GatherND Gelu Gemm GlobalAveragePool Identity LayerNormalization LeakyRelu
    Log LogSoftmax MatMul Max MaxPool Min Mul Neg Pad Pow Reciprocal ReduceL2 ReduceLogSumExp
    ReduceMean ReduceSum Relu Reshape ScatterElements ScatterND Sigmoid Sin Slice Softmax Split
    Sqrt Squeeze Sub Tanh Tile TopK Transpose Trilu Unsqueeze Where
"""
#: Standard operators with a gradient that runs on the CPU.
DIFFERENTIABLE = frozenset(_DIFFERENTIABLE.split())
#: Those of onnxruntime's own domain.
CONTRIBUTED = frozenset(("BiasGelu", "FastGelu", "Gelu", "QuickGelu"))
# Inputs that its gradient builder does not follow: STOP_GRADIENT_EDGES of
# orttraining/core/framework/gradient_graph_builder.h. An operator that has no gradient is no
# obstacle where only such inputs lead to it.
_STOPPED = {
    (0,): "ConstantOfShape IsInf IsNaN NonZero Not Shape Size Where",
    (0, 1): "And Equal Greater GreaterOrEqual Less LessOrEqual Or Xor",
    (0, 1, 2): "OneHot Range",
    (1,): """
        Expand Gather GatherElements GatherND Pow ReduceSum Reshape ScatterElements ScatterND
        Split Squeeze Tile TopK Unsqueeze
    """,
    (1, 2): "Clip",
    (1, 2, 3, 4): "Slice",
}
#: The same by operator.
STOPS = {op_type: stops for stops, names in _STOPPED.items() for op_type in names.split()}


@dataclass(frozen=True)
class Path:
    """The way of gradients from the loss to trained weights.

    Attributes:
        nodes: Positions of the nodes that onnxruntime-training differentiates.
        varying: Values that depend on trained weights, as far as gradients go.
        carried: Values that its builder brings a gradient to, and the loss.
    """

    nodes: tuple[int, ...]
    varying: frozenset[str]
    carried: frozenset[str]

    @classmethod
    def find(cls, nodes: Sequence[NodeProto], trainable: Sequence[str], loss: str) -> Path:
        """The nodes between trainable weights and the loss."""
        varying = set(trainable)
        for node in nodes:
            if not varying.isdisjoint(_followed(node)):
                varying.update(name for name in node.output if name)
        carried, found = {loss}, []
        for index in range(len(nodes) - 1, -1, -1):
            node = nodes[index]
            followed = varying.intersection(_followed(node))
            if followed and not carried.isdisjoint(node.output):
                found.append(index)
                carried.update(followed)
        return cls(tuple(reversed(found)), frozenset(varying), frozenset(carried))


def check(b: GraphBuilder, path: Path) -> None:
    """Refuse what would fail or come out wrong.

    Args:
        b: The graph; every node of it leads to the loss.
        path: Its path.

    Raises:
        UsageError: The message names the first such node and says why.
    """
    on_path = set(path.nodes)
    for index, node in enumerate(b.graph.node):
        reason = _left_out(b, path, node) or (_problem(b, path, node) if index in on_path else None)
        if reason:
            raise UsageError(
                "the engine onnxruntime-training cannot train through "
                f"{node.op_type} '{node_label(node, index)}': {reason}; "
                "use the default engine for this model or keep the weights before it frozen"
            )


def _followed(node: NodeProto) -> list[str]:
    """Inputs through which onnxruntime-training looks for weights."""
    stops = STOPS.get(node.op_type, ())
    names = [name for index, name in enumerate(node.input) if name and index not in stops]
    return names + (reads(node, 0)[len(names) :] if _has_body(node) else [])


def _has_body(node: NodeProto) -> bool:
    return next(subgraphs(node, 0), None) is not None


def _left_out(b: GraphBuilder, path: Path, node: NodeProto) -> str | None:
    """Which input should get a gradient and gets none, None where that is right."""
    if not any(b.values.dtype(name) in FLOATS for name in node.output):
        return None
    for index in STOPS.get(node.op_type, ()):
        name = node.input[index] if index < len(node.input) else ""
        if name in path.varying and b.values.dtype(name) in FLOATS:
            return f"it leaves out the gradient of input {index} ('{name}')"
    return None


def _problem(b: GraphBuilder, path: Path, node: NodeProto) -> str | None:
    """Why a node on the path cannot be trained, None where it can."""
    known = DIFFERENTIABLE if not plain_domain(node.domain) else CONTRIBUTED
    if node.op_type not in known:
        return "it has no gradient there"
    special = _CHECKS.get(node.op_type) if not plain_domain(node.domain) else None
    return special(b, path, node) if special else None


# ---- single operators ----------------------------------------------------------------------

Check = Callable[[GraphBuilder, Path, NodeProto], str | None]


def _cast(b: GraphBuilder, path: Path, node: NodeProto) -> str | None:
    types = b.values.dtype(node.input[0]), b.values.dtype(node.output[0])
    return None if FLOATS.issuperset(types) else "it passes a gradient through whole numbers"


def _all_outputs(b: GraphBuilder, path: Path, node: NodeProto) -> str | None:
    """The gradient of Split is the concatenation of the outputs' gradients: none may be missing."""
    unused = [name for name in node.output if name not in path.carried]
    return f"its gradient is wrong where an output is unused ('{unused[0]}')" if unused else None


def _constant_padding(b: GraphBuilder, path: Path, node: NodeProto) -> str | None:
    if _attribute(node, "mode", b"constant") != b"constant":
        return "only constant padding has a gradient"
    return "its axes are chosen" if len(node.input) > 3 and node.input[3] else None


def _forward_steps(b: GraphBuilder, path: Path, node: NodeProto) -> str | None:
    if len(node.input) < 5:
        return None
    steps = b.constant_value(node.input[4])
    known = steps is not None and bool((steps > 0).all())
    return None if known else "its steps are not known to be positive"


def _matrices(b: GraphBuilder, path: Path, node: NodeProto) -> str | None:
    return "an operand is a vector" if any(b.rank(name) < 2 for name in node.input) else None


def _no_reduction(b: GraphBuilder, path: Path, node: NodeProto) -> str | None:
    reduction = _attribute(node, "reduction", b"none")
    return None if reduction == b"none" else "its gradient ignores the reduction"


def _by_row(b: GraphBuilder, path: Path, node: NodeProto) -> str | None:
    by_column = _attribute(node, "storage_order", 0)
    return "its gradient takes indices by column for indices by row" if by_column else None


def _some_axes(b: GraphBuilder, path: Path, node: NodeProto) -> str | None:
    if not _attribute(node, "noop_with_empty_axes", 0):
        return None
    axes = b.constant_value(node.input[1]) if len(node.input) > 1 else None
    return None if axes is not None and axes.size else "without axes its gradient fails"


def _unbroadcast(b: GraphBuilder, path: Path, node: NodeProto) -> str | None:
    shape = b.shape(node.output[0])
    for name in node.input[1:]:
        if name in path.varying and (shape is None or b.shape(name) != shape):
            return f"its gradient is wrong where '{name}' is broadcast"
    return None


def _whole_scale(b: GraphBuilder, path: Path, node: NodeProto) -> str | None:
    """The scale has the normalized axes, no broadcasting."""
    shape = b.shape(node.input[0])
    if shape is not None:
        axis = _attribute(node, "axis", -1)
        wanted = shape[int(axis) :] if isinstance(axis, int) else ()
        if all(b.shape(name) == wanted for name in node.input[1:]):
            return None
    return "its scale or bias is broadcast over normalized axes"


_CHECKS: dict[str, Check] = {
    "Cast": _cast,
    "LayerNormalization": _whole_scale,
    "MatMul": _matrices,
    "MaxPool": _by_row,
    "Pad": _constant_padding,
    "ReduceL2": _some_axes,
    "ReduceLogSumExp": _some_axes,
    "ReduceMean": _some_axes,
    "ReduceSum": _some_axes,
    "ScatterElements": _no_reduction,
    "ScatterND": _no_reduction,
    "Slice": _forward_steps,
    "Split": _all_outputs,
    "Where": _unbroadcast,
}


def _attribute(node: NodeProto, name: str, default: object) -> object:
    """Value of an attribute, the default where it is absent."""
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
