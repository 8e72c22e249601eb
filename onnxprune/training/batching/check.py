"""Comparing a model with the one whose batch axis was freed, by running both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto

from ...runtime import CannotRun, Feeds, open_session, random_feeds, run
from ..upgrading.older_opset import declare_older

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = ["disagreement"]

#: How far outputs may be apart, as a share of the largest.
TOLERANCE = 1e-4
SAMPLES = 3
#: onnxruntime does not take larger models from memory.
LARGEST = 2**31 - 1


def disagreement(
    original: ModelProto, freed: ModelProto, axes: Mapping[str, int | None]
) -> str | None:
    """What differs where the freed model gets several samples at once; None where nothing does.

    None as well where onnxruntime does not run the original on random inputs.

    Args:
        original: The model as it was exported.
        freed: The model with its batch axis free.
        axes: The batch axis of every output; None for outputs that the batch does not change.
    """
    if original.ByteSize() > LARGEST or freed.ByteSize() > LARGEST:
        return None
    try:
        expected = _one_by_one(original)
    except CannotRun:
        return None
    if expected is None:
        return None
    feeds, results = expected
    try:
        found = run(_session(freed), _stacked(feeds))
    except CannotRun as error:
        return f"the model does not run with a free batch axis: {error}"
    if len(axes) != len(found):
        return "several outputs have one name"
    for (name, axis), value, parts in zip(
        axes.items(), found, zip(*results, strict=True), strict=True
    ):
        whole = parts[0] if axis is None else np.concatenate(parts, axis)
        if not _close(value, whole):
            return f"output '{name}' differs between samples one by one and all at once"
    return None


def _session(proto: ModelProto) -> InferenceSession:
    """A session over a model, in an opset that older runtimes take where that is possible."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    declare_older(copy)
    return open_session(copy.SerializeToString(), claims="all")


def _one_by_one(original: ModelProto) -> tuple[list[Feeds], list[list[Any]]] | None:
    """Inputs and outputs of several runs; None where no guess at open sizes runs."""
    session = _session(original)
    guesses = [random_feeds(session, seed) for seed in range(SAMPLES)]
    for feeds in zip(*guesses, strict=True):
        # Inputs without axes are the same for all samples.
        scalars = {name: value for name, value in feeds[0].items() if value.ndim == 0}
        together: list[Feeds] = [{**feed, **scalars} for feed in feeds]
        try:
            return together, [run(session, feed) for feed in together]
        except CannotRun:
            continue
    return None


def _stacked(feeds: Sequence[Feeds]) -> Feeds:
    first = feeds[0]
    return {
        name: np.concatenate([feed[name] for feed in feeds]) if value.ndim else value
        for name, value in first.items()
    }


def _close(found: Any, expected: Any) -> bool:
    """Whether two outputs are equal but for rounding."""
    if not isinstance(found, np.ndarray) or found.shape != expected.shape:
        return not isinstance(found, np.ndarray)
    if found.dtype.kind not in "fc":
        return bool(np.array_equal(found, expected))
    finite = np.abs(expected[np.isfinite(expected)])
    slack = TOLERANCE * float(finite.max(initial=0))
    return bool(np.allclose(found, expected, rtol=TOLERANCE, atol=slack, equal_nan=True))
