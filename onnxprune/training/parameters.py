"""Which constants of a forward graph are parameters that training changes, and which are not.

An ONNX file does not say so: weights, biases, anchors and normalization constants of the input are
all float initializers. The operator that reads a constant, and the input it is read at, decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from onnx import NodeProto

from ..errors import ModelError, UsageError
from ..model.domain import plain_domain
from ..model.tensors import node_label
from .backward import Blocked, blocked, reads
from .builder import GraphBuilder
from .gradients import is_constant

__all__ = ["Parameter", "Selection", "select_parameters"]

#: Inputs at which operators read trained parameters.
_WEIGHTS: Mapping[tuple[str, str], tuple[int, ...]] = {
    ("", "Conv"): (1,),
    ("", "ConvTranspose"): (1,),
    ("", "Gemm"): (0, 1),
    ("", "MatMul"): (0, 1),
    ("", "Einsum"): (0, 1),
    ("", "Gather"): (0,),
    ("com.microsoft", "FusedConv"): (1,),
    ("com.microsoft", "FusedGemm"): (0, 1),
    ("com.microsoft", "FusedMatMul"): (0, 1),
    ("com.microsoft", "TransposeMatMul"): (0, 1),
    ("com.microsoft", "Attention"): (1,),
}
_OTHERS: Mapping[tuple[str, str], tuple[int, ...]] = {
    ("", "Conv"): (2,),
    ("", "ConvTranspose"): (2,),
    ("", "Gemm"): (2,),
    ("", "PRelu"): (1,),
    ("", "BatchNormalization"): (1, 2),
    ("", "InstanceNormalization"): (1, 2),
    ("", "LayerNormalization"): (1, 2),
    ("", "GroupNormalization"): (1, 2),
    ("", "RMSNormalization"): (1,),
    ("", "SimplifiedLayerNormalization"): (1,),
    ("com.microsoft", "FusedConv"): (2,),
    ("com.microsoft", "FusedGemm"): (2,),
    ("com.microsoft", "BiasGelu"): (1,),
    ("com.microsoft", "FastGelu"): (1,),
    ("com.microsoft", "SkipLayerNormalization"): (2, 3, 4),
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): (2, 3),
    ("com.microsoft", "Attention"): (2,),
    ("com.microsoft", "MultiHeadAttention"): (3,),
}
#: Operators that add a bias or multiply by a scale where both stand alone.
_ELEMENTWISE = frozenset(("Add", "Sub", "Mul", "Div"))
#: Operators that hand on a constant as it is, in another shape.
_VIEWS = frozenset(
    ("Cast", "Expand", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
)
#: What may stand between scores of attention and their Softmax.
_TO_SOFTMAX = _ELEMENTWISE | _VIEWS | {"Clip", "Dropout", "Where"}
#: So many parameters are named in a message.
_NAMED = 3


@dataclass(frozen=True)
class Parameter:
    """A constant that training changes; `decays`: weight decay (or L2) applies to it."""

    name: str
    decays: bool


@dataclass(frozen=True)
class Selection:
    """The parameters, and for every other candidate why it stays as it is."""

    trained: tuple[Parameter, ...]
    frozen: Mapping[str, str]


@dataclass(frozen=True)
class _Use:
    node: NodeProto
    label: str
    index: int
    view: str  # name under which the node reads the constant


def select_parameters(
    b: GraphBuilder,
    loss: str,
    candidates: Sequence[str],
    globs: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> Selection:
    """Decide which constants are trained.

    Args:
        b: The graph, which ends in the loss.
        loss: The loss.
        candidates: Names of float initializers.
        globs: Patterns on the names of constants and of the nodes that read them; where given,
            they alone decide, whatever a constant is used for.
        names: What users call constants, where that is not their name in this graph.

    Raises:
        UsageError: A pattern matches nothing.
        ModelError: An operator without a gradient lies between a parameter and the loss, or
            nothing can be trained.
    """
    uses = _uses(b.graph.node, candidates)
    if globs:
        chosen = _matching(globs, uses, names or {})
        decays = {name: _role(uses[name], _WEIGHTS) for name in chosen}
        reason = "not named by --train-layers"
    else:
        weights = [name for name in candidates if _role(uses[name], _WEIGHTS)]
        behind = _reached(b.graph.node, weights)
        readers = [use.node for name in weights for use in uses[name]]
        fed = _reached(b.graph.node, [info.name for info in b.graph.input])
        between = behind & fed & _entering(b.graph.node, readers)
        decays = {
            name: name in set(weights)
            for name in candidates
            if _role(uses[name], _WEIGHTS)
            or _role(uses[name], _OTHERS)
            or _bias_or_scale(b, name, uses[name], behind)
            or _table_or_token(b, name, uses[name], between)
        }
        reason = "no weight, bias or scale of a layer that is known; --train-layers can name it"
    decays = {name: decay and len(b.shape(name) or ()) > 1 for name, decay in decays.items()}
    reaching = _reaching(b.graph.node, loss)
    trained = [name for name in decays if name in reaching]
    if stuck := blocked(b, loss, trained):
        raise _no_gradient(stuck, trained, names or {})
    if not trained:
        raise ModelError(
            "nothing can be trained: the loss depends on no weight of Conv, Gemm, MatMul or "
            "normalization outside of loops and branches"
        )
    frozen = {name: reason for name in candidates if name not in decays}
    frozen.update(
        (name, "the loss does not depend on it") for name in decays if name not in reaching
    )
    return Selection(tuple(Parameter(name, decays[name]) for name in trained), frozen)


def _uses(nodes: Iterable[NodeProto], candidates: Sequence[str]) -> dict[str, list[_Use]]:
    """The nodes that read each constant, directly or through a view of it."""
    source = {name: name for name in candidates}
    found: dict[str, list[_Use]] = {name: [] for name in candidates}
    for number, node in enumerate(nodes):
        for index, name in enumerate(node.input):
            if name not in source:
                continue
            if node.op_type in _VIEWS and index == 0 and not plain_domain(node.domain):
                source.setdefault(node.output[0], source[name])
            else:
                found[source[name]].append(_Use(node, node_label(node, number), index, name))
    return found


def _role(uses: Sequence[_Use], table: Mapping[tuple[str, str], tuple[int, ...]]) -> bool:
    return any(use.index in table.get((use.node.domain, use.node.op_type), ()) for use in uses)


def _bias_or_scale(
    b: GraphBuilder, name: str, uses: Sequence[_Use], behind: frozenset[str]
) -> bool:
    """Whether a vector is added to, or multiplies, what comes out of layers."""
    sizes = [size for size in b.static_shape(name) or () if size != 1]
    return len(sizes) == 1 and any(
        use.node.op_type in _ELEMENTWISE
        and not behind.isdisjoint(other for other in use.node.input if other != use.view)
        for use in uses
    )


def _table_or_token(
    b: GraphBuilder, name: str, uses: Sequence[_Use], between: frozenset[str]
) -> bool:
    """Whether a table of positions is added, or a vector (a class token) is put beside others.

    `between`: values of data that come out of layers and go into layers again. A grid that is
    added to the model's last scores is not among them, nor are a mask of attention and what is
    computed from weights alone. A table of fixed positions looks like one of learned positions,
    and is trained as well.
    """
    sizes = [size for size in b.static_shape(name) or () if size != 1]
    wanted = "Concat" if len(sizes) == 1 else "Add"
    return bool(sizes) and any(
        use.node.op_type == wanted
        and not plain_domain(use.node.domain)
        and not between.isdisjoint(use.node.output)
        and any(other in between for other in use.node.input if other != use.view)
        for use in uses
    )


def _entering(nodes: Sequence[NodeProto], layers: Iterable[NodeProto]) -> frozenset[str]:
    """Values that layers are computed from, except scores of attention."""
    entering = {name for node in layers for name in node.input}
    scores: set[str] = set()
    for number in range(len(nodes) - 1, -1, -1):
        node = nodes[number]
        if is_constant(node):
            continue
        if not entering.isdisjoint(node.output):
            entering.update(reads(node, number))
        if node.op_type == "Softmax" or (
            node.op_type in _TO_SOFTMAX and not scores.isdisjoint(node.output)
        ):
            scores.update(node.input)
    return frozenset(entering - scores)


def _reached(nodes: Iterable[NodeProto], start: Iterable[str]) -> frozenset[str]:
    """Values computed from those given."""
    reached = set(start)
    for node in nodes:
        if not is_constant(node) and not reached.isdisjoint(node.input):
            reached.update(filter(None, node.output))
    return frozenset(reached)


def _reaching(nodes: Sequence[NodeProto], loss: str) -> frozenset[str]:
    """Values that the loss is computed from, bodies included."""
    needed = {loss}
    for number in range(len(nodes) - 1, -1, -1):
        node = nodes[number]
        if needed.isdisjoint(node.output) or is_constant(node):
            continue
        needed.update(reads(node, number))
    return frozenset(needed)


def _matching(
    globs: Sequence[str], uses: Mapping[str, Sequence[_Use]], names: Mapping[str, str]
) -> list[str]:
    """Constants that any pattern matches; raises UsageError for a pattern without any."""
    called = {
        name: {name, names.get(name, name), *(use.label for use in some)}
        for name, some in uses.items()
    }
    chosen: dict[str, None] = {}
    for glob in globs:
        found = [
            name
            for name, some in called.items()
            if any(text == glob or fnmatchcase(text, glob) for text in some)
        ]
        if not found:
            listed = ", ".join(f"'{name}'" for name in list(called)[:_NAMED])
            raise UsageError(
                f"--train-layers '{glob}' matches nothing that can be trained; there are for "
                f"example {listed or 'no float constants at all'}"
            )
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def _no_gradient(
    stuck: Sequence[Blocked], trained: Sequence[str], names: Mapping[str, str]
) -> ModelError:
    """The error for operators without a gradient, with what can still be trained."""
    nodes = ", ".join(f"{node.op_type} '{node.label}'" for node in stuck[:_NAMED])
    more = f" and {len(stuck) - _NAMED} more" if len(stuck) > _NAMED else ""
    behind = {name for node in stuck for name in node.wanted}
    free = [names.get(name, name) for name in trained if name not in behind]
    if not free:
        return ModelError(
            f"the model cannot be trained: no gradient passes {nodes}{more}, and every parameter "
            "is in front of it; prune it without --train"
        )
    flags = " ".join(f"--train-layers '{name}'" for name in free[:_NAMED])
    rest = f" (and {len(free) - _NAMED} more)" if len(free) > _NAMED else ""
    return ModelError(
        f"no gradient passes {nodes}{more}, so {len(behind)} parameters in front of that cannot be "
        f"trained; train the {len(free)} others: {flags}{rest}"
    )
