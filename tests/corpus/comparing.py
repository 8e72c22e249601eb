"""Whether a written model is the input apart from how its constants are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import FunctionProto, ModelProto, NodeProto

from .constants import Body, Constant, Key, bodies, constants, decoded_by_nodes

__all__ = ["differences", "largest", "relative_difference"]

Constants = Mapping[Key, Constant]
#: Initializers need not be graph inputs from here on, and may be overridden where they are.
INITIALIZERS_ALONE = 4


def differences(
    before: ModelProto,
    after: ModelProto,
    wanted: Mapping[Key, np.ndarray] | None = None,
    *,
    ratios: bool = False,
) -> list[str]:
    """What differs between an input and what was written for it, apart from storage, in words.

    Args:
        before: The input.
        after: The written model, in any form.
        wanted: What some constants should be; all others should be bit for bit as they were.
        ratios: Whether Dropout nodes may have other ratios.
    """
    was, have = constants(before), constants(after)
    moved = {key for key, constant in was.items() if _form(have.get(key)) != constant.form}
    problems = _tensors(after, was, have, wanted or {})
    if after.ir_version != before.ir_version and not moved:
        problems.append(f"IR version {before.ir_version} -> {after.ir_version}")
    if _bare(before) != _bare(after):
        problems.append("opsets, metadata, producer or training information differ")
    theirs = dict(bodies(after))
    crosses = before.ir_version < INITIALIZERS_ALONE <= after.ir_version
    for scope, body in bodies(before):
        if scope not in theirs:
            problems.append(f"{scope}: body gone")
            continue
        gone = {name for place, name in moved if place == scope}
        texts = _body(body, theirs[scope], gone, ratios)
        texts += _fields(body, theirs[scope], gone, crosses)
        problems += [f"{'/'.join(scope)}: {text}" for text in texts]
    return problems


def _form(constant: Constant | None) -> str:
    return "nodes" if constant is None else constant.form


def _tensors(
    after: ModelProto, was: Constants, have: Constants, wanted: Mapping[Key, np.ndarray]
) -> list[str]:
    problems = []
    for key, constant in was.items():
        target = Constant(constant.data_type, wanted.get(key, constant.array), "")
        found = have.get(key)
        if found is None:
            try:
                found = Constant(constant.data_type, decoded_by_nodes(after, *key), "nodes")
            except KeyError:
                problems.append(f"{key}: gone")
                continue
        if not found.same(target):
            problems.append(f"{key}: other values ({found.form})")
    return problems


def _bare(proto: ModelProto) -> ModelProto:
    """A model without its graph, IR version and functions' nodes."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    copy.ClearField("graph")
    copy.ClearField("ir_version")
    for function in copy.functions:
        function.ClearField("node")
    return copy


def _body(before: Body, after: Body, moved: set[str], ratios: bool) -> list[str]:
    known = {name for node in before.node for name in node.output}
    stay = known - moved
    mine = [_plain(node, ratios) for node in before.node if stay.issuperset(node.output)]
    theirs = [_plain(node, ratios) for node in after.node if stay.issuperset(node.output)]
    problems = []
    if mine != theirs:
        problems.append(f"nodes differ ({len(mine)} that stay, {len(theirs)} found)")
    new = sorted(n.op_type for n in after.node if not known.issuperset(n.output))
    if new and not moved:
        problems.append(f"nodes added: {new}")
    return problems


def _plain(node: NodeProto, ratios: bool) -> NodeProto:
    """A node without what is compared on its own: bodies, a Constant's tensor, a ratio."""
    copy = NodeProto()
    copy.CopyFrom(node)
    if ratios and node.op_type == "Dropout":
        kept = [a for a in copy.attribute if a.name != "ratio"]
        copy.ClearField("attribute")
        copy.attribute.extend(kept)
        del copy.input[1:2]
    for attribute in copy.attribute:
        attribute.ClearField("g")
        attribute.ClearField("graphs")
        if node.op_type == "Constant" and attribute.name in ("value", "sparse_value"):
            attribute.Clear()
    return copy


def _fields(before: Body, after: Body, moved: set[str], crosses: bool) -> list[str]:
    """Differences of a body's own fields. `crosses`: no initializer is an input any more."""
    if isinstance(before, FunctionProto) or isinstance(after, FunctionProto):
        return []  # `_bare` has compared them
    problems = [
        f"{name} differs"
        for name in ("name", "doc_string", "output", "value_info", "metadata_props")
        if getattr(before, name) != getattr(after, name)
    ]
    if before.quantization_annotation != after.quantization_annotation:
        problems.append("quantization_annotation differs")
    may_go = {tensor.name for tensor in before.initializer} if crosses else moved
    kept = {value.name for value in after.input}
    left = [value for value in before.input if value.name in kept]
    if list(after.input) != left or any(
        v.name not in may_go for v in before.input if v.name not in kept
    ):
        problems.append("inputs differ")
    return problems


def relative_difference(want: Any, have: Any) -> float:
    """Largest difference relative to the largest element; 1 for other kinds of outputs."""
    if not isinstance(want, np.ndarray) or want.dtype.kind != "f":
        return 0.0 if str(want) == str(have) else _of_maps(want, have)
    if want.shape != have.shape or want.dtype != have.dtype:
        return np.inf
    one, two = want.astype(np.float64), have.astype(np.float64)
    if not np.array_equal(np.isfinite(one), np.isfinite(two)):
        return np.inf
    scale = np.abs(one).max(initial=0, where=np.isfinite(one)) or 1.0
    return float(np.abs(one - two).max(initial=0, where=np.isfinite(one)) / scale)


def largest(want: Sequence[Sequence[Any]], have: Sequence[Sequence[Any]]) -> float:
    """Largest relative difference of outputs of several runs; infinite where numbers differ."""
    if [len(outputs) for outputs in want] != [len(outputs) for outputs in have]:
        return np.inf
    pairs = [pair for two in zip(want, have, strict=True) for pair in zip(*two, strict=True)]
    return max((relative_difference(*pair) for pair in pairs), default=0.0)


def _of_maps(want: Any, have: Any) -> float:
    """The same of sequences of maps (ZipMap)."""
    if not isinstance(want, list) or len(want) != len(have):
        return np.inf
    values = [np.array([list(entry.values()) for entry in side]) for side in (want, have)]
    return relative_difference(*values)
