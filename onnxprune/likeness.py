"""Whether two models compute the same up to rounding: one run of both on random inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from .model.model import Model
from .model.save import serialised
from .runtime import first_run, open_session, run

__all__ = ["TOLERANCES", "difference", "outputs_differ"]

#: Largest difference of an output, relative to its largest element, that rounding explains, by the
#: bytes of an element: sums of a changed length are rounded in another order, layer after layer.
TOLERANCES = {2: 2e-2, 4: 1e-4, 8: 1e-9}


def outputs_differ(before: Model, after: Model) -> float | None:
    """How far a model's outputs are from another's on random inputs.

    Args:
        before: What the outputs should be.
        after: A model with the same inputs and outputs.

    Returns:
        The largest difference of an element, relative to the largest element of its output; None
        where it is more than rounding explains.

    Raises:
        CannotRun: onnxruntime is absent, or one of the models does not run.
    """
    first, second = (
        open_session(
            b"".join(serialised(m.proto, m.payloads).blocks()), light=True, threads=1, claims="all"
        )
        for m in (before, after)
    )
    feeds, want = first_run(first)
    have = run(second, feeds)
    found = 0.0
    for one, two in zip(want, have, strict=True):
        worst = difference(one, two)
        limit = TOLERANCES.get(one.dtype.itemsize, 0.0) if _is_float(one) else 0.0
        if not worst <= limit:
            return None
        found = max(found, worst)
    return found


def difference(want: Any, have: Any) -> float:
    """Largest difference of an element relative to the largest of `want`; infinity if unlike."""
    if not _is_float(want):
        return 0.0 if _same(want, have) else np.inf
    if not isinstance(have, np.ndarray) or (want.shape, want.dtype) != (have.shape, have.dtype):
        return np.inf
    one, two = want.astype(np.float64), have.astype(np.float64)
    finite = np.isfinite(one)
    if not np.array_equal(one[~finite], two[~finite], equal_nan=True):
        return np.inf
    scale = np.abs(one[finite]).max(initial=0.0)
    gap = np.abs(one[finite] - two[finite]).max(initial=0.0)
    return float(gap / scale) if scale else float(gap and np.inf)


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


def _same(want: Any, have: Any) -> bool:
    """Whether outputs of other kinds are equal: integers, text, sequences and maps of anything."""
    if isinstance(want, np.ndarray):
        return isinstance(have, np.ndarray) and bool(np.array_equal(want, have))
    if isinstance(want, (list, tuple)):
        return len(want) == len(have) and all(map(_same, want, have))
    if isinstance(want, dict):
        return want.keys() == have.keys() and all(_same(want[key], have[key]) for key in want)
    if isinstance(want, float):
        return bool(abs(want - have) <= TOLERANCES[4] * max(1.0, abs(want)))
    return bool(want == have)
