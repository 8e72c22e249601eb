"""Finding the logits of a model: the values beneath its Softmax, LogSoftmax or Sigmoid."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from onnx import NodeProto

from ...errors import ModelError, UsageError
from ...model.domain import plain_domain
from ..builder import GraphBuilder
from ..values import FLOATS
from .views import axis_after, is_unchanged, is_view, replayed

__all__ = ["Link", "Scores", "chosen_output", "find_scores", "shaped"]

#: What turns logits into what a model gives.
Link = Literal["none", "softmax", "log-softmax", "sigmoid"]


@dataclass(frozen=True)
class Scores:
    """The float values by which a model is judged, and the logits beneath them.

    Attributes:
        output: The float value that the model gives: the output, or what it is computed from.
        logits: The value that the link is applied to; `output` where there is no link.
        link: What is applied to the logits.
        views: Nodes that lay the link's result out as `like`, the first one first.
        like: The value that has the shape of the scores: `output`, or the link's result where the
            class axis is lost on the way to the output.
        axis: The class axis of `like` where a softmax says it, never negative.
        where: What messages call the output.
        beneath: What messages call the logits.
    """

    output: str
    logits: str
    link: Link
    views: tuple[NodeProto, ...]
    like: str
    axis: int | None
    where: str
    beneath: str


def shaped(b: GraphBuilder, scores: Scores, logits: str) -> str:
    """Logits (the model's, or a teacher's) in the shape of the scores."""
    return replayed(b, scores.views, logits)


def find_scores(b: GraphBuilder, output: str | None = None) -> Scores:
    """Find scores and logits of an output.

    An output of class numbers or maps (ArgMax, ZipMap) stands for the float scores it is computed
    from, else for the first float output beside it.

    Args:
        b: The graph.
        output: Name of a graph output, the first one by default.

    Raises:
        UsageError: The model has no such output.
        ModelError: No float scores are found, or a softmax over values of unknown rank.
    """
    graph = _Makers(b)
    chosen = chosen_output(b, output)
    value, where = _float_scores(b, graph, chosen)
    start, views = _beneath_views(b, graph, value)
    found = _link(b, graph, start)
    if found is None:
        return Scores(value, value, "none", (), value, None, where, where)
    beneath = _described(found)
    if value != chosen:
        beneath += f" ({where})"
    if found.axis is None:
        return Scores(value, found.logits, found.link, views, value, None, where, beneath)
    axis: int | None = found.axis
    for view in views:
        axis = None if axis is None else axis_after(b, view, axis)
    if axis is None:
        return Scores(value, found.logits, found.link, (), start, found.axis, where, beneath)
    return Scores(value, found.logits, found.link, views, value, axis, where, beneath)


def chosen_output(b: GraphBuilder, output: str | None) -> str:
    """The output that is trained: the one that was named, else the first.

    Raises:
        UsageError: The model has no such output.
        ModelError: The model has no outputs.
    """
    outputs = [info.name for info in b.graph.output]
    if not outputs:
        raise ModelError("the model has no outputs, so it cannot be trained")
    if output is not None and output not in outputs:
        names = ", ".join(f"'{name}'" for name in outputs)
        raise UsageError(f"the model has no output '{output}'; it has {names}")
    return output or outputs[0]


class _Makers:
    """Which node makes a value."""

    def __init__(self, b: GraphBuilder) -> None:
        self._nodes = {name: node for node in b.graph.node for name in node.output if name}

    def any(self, name: str) -> NodeProto | None:
        """The node one of whose outputs a value is."""
        return self._nodes.get(name)

    def of(self, name: str, *op_types: str) -> NodeProto | None:
        """The standard operator that makes a value, if it is one of these."""
        node = self._nodes.get(name)
        if node is None or plain_domain(node.domain):
            return None
        return node if not op_types or node.op_type in op_types else None


# ---- scores --------------------------------------------------------------------------------

_CHOOSING = """
    ArgMax ArrayFeatureExtractor Cast Compress Equal Flatten Gather GatherElements Greater
    GreaterOrEqual Identity LabelEncoder Less LessOrEqual Reshape Round Squeeze TopK Transpose
    Unsqueeze Where ZipMap
"""
#: Operators by which classes and maps are made from scores.
_CHOOSERS = frozenset(_CHOOSING.split())


def _float_scores(b: GraphBuilder, graph: _Makers, chosen: str) -> tuple[str, str]:
    """The float value that an output is or stands for, and what to call it."""
    if _is_float(b, chosen):
        return chosen, f"output '{chosen}'"
    if beneath := _chosen_from(b, graph, chosen):
        return beneath, f"scores '{beneath}' of output '{chosen}'"
    for name in (info.name for info in b.graph.output):
        if _is_float(b, name):
            return name, f"output '{name}' beside '{chosen}', which holds no scores"
    raise ModelError(
        f"output '{chosen}' holds no float values and no scores are found beneath or beside it, "
        "so no loss can be computed from it; name another output"
    )


def _chosen_from(b: GraphBuilder, graph: _Makers, output: str) -> str | None:
    """The nearest float value from which classes or a map are made."""
    front, seen = [output], {output}
    for name in front:
        node = graph.any(name)
        if node is None or node.op_type not in _CHOOSERS:
            continue
        for source in node.input:
            if not source or source in seen:
                continue
            maker = graph.any(source)
            if _is_float(b, source) and maker is not None and maker.op_type != "Constant":
                return source
            seen.add(source)
            front.append(source)
    return None


def _is_float(b: GraphBuilder, name: str) -> bool:
    return b.values.dtype(name) in FLOATS


def _beneath_views(b: GraphBuilder, graph: _Makers, name: str) -> tuple[str, tuple[NodeProto, ...]]:
    """The value beneath views and operators without effect, and the views, the lowest first."""
    views: list[NodeProto] = []
    while (node := graph.of(name)) is not None:
        if is_view(node):
            views.append(node)
        elif not is_unchanged(b, node):
            break
        name = node.input[0]
    return name, tuple(reversed(views))


# ---- links ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A link: its logits, its node, the axis of a softmax, and whether it is several nodes."""

    link: Link
    logits: str
    node: NodeProto
    axis: int | None = None
    written_out: bool = False


def _described(found: _Found) -> str:
    label = found.node.name or found.node.output[0]
    if found.written_out:
        return f"the logits of the {found.link} that ends in {found.node.op_type} '{label}'"
    return f"the input of {found.node.op_type} '{label}'"


def _link(b: GraphBuilder, graph: _Makers, name: str) -> _Found | None:
    """The link that makes a value."""
    node = graph.of(name, *_LINKS)
    return None if node is None else _LINKS[node.op_type](b, graph, node)


def _softmax(b: GraphBuilder, graph: _Makers, node: NodeProto) -> _Found:
    axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
    rank = b.rank(node.input[0])
    link: Link = "softmax" if node.op_type == "Softmax" else "log-softmax"
    return _Found(link, node.input[0], node, axis % max(rank, 1))


def _sigmoid(b: GraphBuilder, graph: _Makers, node: NodeProto) -> _Found:
    return _Found("sigmoid", node.input[0], node)


def _exponential(b: GraphBuilder, graph: _Makers, node: NodeProto) -> _Found | None:
    return _changed(_link(b, graph, node.input[0]), node, "log-softmax", "softmax")


def _logarithm(b: GraphBuilder, graph: _Makers, node: NodeProto) -> _Found | None:
    return _changed(_link(b, graph, node.input[0]), node, "softmax", "log-softmax")


def _changed(found: _Found | None, node: NodeProto, link: Link, to: Link) -> _Found | None:
    if found is None or found.link != link:
        return None
    return _Found(to, found.logits, node, found.axis, written_out=True)


def _quotient(b: GraphBuilder, graph: _Makers, node: NodeProto) -> _Found | None:
    """exp(x) / sum(exp(x))."""
    power, total = node.input
    exponential = graph.of(power, "Exp")
    axis = _summed_axis(b, graph, power, total, "ReduceSum")
    if exponential is None or axis is None:
        return None
    return _Found("softmax", _unshifted(b, graph, exponential.input[0], axis), node, axis, True)


def _difference(b: GraphBuilder, graph: _Makers, node: NodeProto) -> _Found | None:
    """x - log(sum(exp(x)))."""
    x, total = node.input
    axis = _summed_axis(b, graph, x, total, "ReduceLogSumExp")
    if axis is None:
        return None
    return _Found("log-softmax", _unshifted(b, graph, x, axis), node, axis, True)


def _summed_axis(b: GraphBuilder, graph: _Makers, x: str, total: str, op_type: str) -> int | None:
    """The one axis over which a reduction of x goes, whose result is laid out against x again."""
    name = total
    while (layer := graph.of(name, "Expand", "Reshape", "Unsqueeze")) is not None:
        name = layer.input[0]
    whole = graph.of(name, op_type)
    axes = b.constant_value(whole.input[1]) if whole and len(whole.input) > 1 else None
    if whole is None or whole.input[0] != x or axes is None or axes.size != 1:
        return None
    axis = int(axes.item()) % b.rank(x)
    return axis if _is_even(b, total, x, axis) else None


def _unshifted(b: GraphBuilder, graph: _Makers, x: str, axis: int) -> str:
    """x without the subtraction of what is even along the axis, which changes no softmax."""
    shift = graph.of(x, "Sub")
    if shift is None or b.shape(shift.input[0]) is None:
        return x
    return shift.input[0] if _is_even(b, shift.input[1], shift.input[0], axis) else x


def _is_even(b: GraphBuilder, name: str, x: str, axis: int) -> bool:
    """Whether a value has the axes of x, but is one along the given axis."""
    shape, sizes = b.shape(name), b.shape(x)
    if shape is None or sizes is None or len(shape) != len(sizes):
        return False
    others = [pair for place, pair in enumerate(zip(shape, sizes, strict=True)) if place != axis]
    differ = any(isinstance(m, int) and isinstance(n, int) and m != n for m, n in others)
    return shape[axis] == 1 and not differ


_LINKS: Mapping[str, Callable[[GraphBuilder, _Makers, NodeProto], _Found | None]] = {
    "Div": _quotient,
    "Exp": _exponential,
    "Log": _logarithm,
    "LogSoftmax": _softmax,
    "Sigmoid": _sigmoid,
    "Softmax": _softmax,
    "Sub": _difference,
}
