"""Running models in onnxruntime, one thread, so that equal models give equal bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

__all__ = ["outputs_of", "same", "same_run", "session_of"]

Feeds = Mapping[str, Any]


def session_of(model: Path | ModelProto, *, optimised: bool = True) -> Any:
    """A session on the processor; raises what onnxruntime raises where it rejects the model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.use_deterministic_compute = True
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def outputs_of(
    model: Path | ModelProto, feeds: Sequence[Feeds], *, optimised: bool = True
) -> list[list[Any]]:
    """Outputs for each set of inputs; raises what onnxruntime raises."""
    session = session_of(model, optimised=optimised)
    return [session.run(None, dict(one)) for one in feeds]


def same(have: Any, want: Any) -> bool:
    """Whether two outputs are equal bit for bit; sequences and maps by their items."""
    if isinstance(want, np.ndarray) and want.dtype != object:
        return (
            isinstance(have, np.ndarray)
            and (have.dtype, have.shape) == (want.dtype, want.shape)
            and have.tobytes() == want.tobytes()
        )
    if isinstance(want, np.ndarray):
        return isinstance(have, np.ndarray) and have.tolist() == want.tolist()
    if isinstance(want, (list, tuple)):
        return len(have) == len(want) and all(map(same, have, want))
    if isinstance(want, dict):
        return have.keys() == want.keys() and all(same(have[k], want[k]) for k in want)
    return bool(have == want) or (type(have) is type(want) and str(have) == str(want))


def same_run(
    written: Path, reference: Path | ModelProto, feeds: Sequence[Feeds]
) -> tuple[str, list[str]]:
    """Run a written model and what it should equal on the same inputs.

    Returns:
        How they are equal ("identical", or "unoptimised" where only without graph optimization:
        with it onnxruntime may fuse more of one form than of another), and what is wrong.
    """
    for how, optimised in (("identical", True), ("unoptimised", False)):
        one = session_of(written, optimised=optimised)
        two = session_of(reference, optimised=optimised)
        if all(same(one.run(None, dict(f)), two.run(None, dict(f))) for f in feeds):
            return how, []
    return "different", ["outputs differ from the reference"]
