"""Dead neurons of every real model: removed after pruning, outputs compared with those before.

For a table of all models, in the repository: ``python -m tests.corpus.shrink`` (see ``--help``).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

import onnxprune
from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from onnxprune.structure.config import BLOCK
from onnxprune.structure.dead import Shrunk, shrink
from onnxprune.structure.macs import count_parameters
from tests.corpus.comparing import relative_difference
from tests.corpus.feeds import feeds_of
from tests.corpus.running import session_of
from tests.corpus.zoo import models

__all__ = ["QUALITIES", "Outcome", "check"]

QUALITIES = (0.5, 1.0, 1.5, 2.0)
TOLERANCE, TOLERANCE_HALF = 1e-5, 1e-2


@dataclass
class Outcome:
    """What became of one model at one quality.

    Attributes:
        said: Why it was not pruned, or nothing was removed.
        error: Largest difference of an output, relative to its largest element; None where
            onnxruntime does not run the model.
        problems: What should not be.
    """

    model: str
    quality: float
    said: str = ""
    removed: int = 0
    left: int = 0
    biases: int = 0
    parameters: tuple[int, int] = (0, 0)
    error: float | None = None
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def check(path: Path, quality: float, align: int = BLOCK) -> Outcome:
    """Prune one model, remove what is dead, and compare the two models.

    Args:
        path: The model.
        quality: As for `onnxprune.prune`.
        align: As for `shrink`.
    """
    outcome = Outcome(path.stem, quality)
    try:
        pruned = onnxprune.prune(path, quality=quality, shrink=False).to_proto()
    except onnxprune.OnnxPruneError as error:
        outcome.said = f"refused: {error}"
        return outcome
    started = time.perf_counter()
    try:
        done = shrink(read(pruned), align=align)
    except Exception as error:  # whatever it is, the table should show it
        outcome.problems.append(f"{type(error).__name__}: {error}")
        return outcome
    outcome.seconds = time.perf_counter() - started
    smaller = to_proto(done.model)
    _facts(outcome, done, pruned, smaller)
    if done.reason:
        if smaller.SerializeToString() != pruned.SerializeToString():
            outcome.problems.append("changed although nothing went")
        return outcome
    if _valid(pruned) and not _valid(smaller):
        outcome.problems.append("the checker rejects it")
    _compare(outcome, path, pruned, smaller)
    return outcome


def _facts(outcome: Outcome, done: Shrunk, pruned: ModelProto, smaller: ModelProto) -> None:
    outcome.said, outcome.removed = done.reason, done.removed
    outcome.left = done.left
    outcome.biases = len(done.absorbed.existing) + len(done.absorbed.made)
    outcome.parameters = count_parameters(pruned), count_parameters(smaller)
    if not done.reason and outcome.parameters[0] <= outcome.parameters[1]:
        outcome.problems.append("has not become smaller")


def _valid(proto: ModelProto) -> bool:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception:  # the checker raises unrelated types
        return False
    return True


def _compare(outcome: Outcome, path: Path, pruned: ModelProto, smaller: ModelProto) -> None:
    try:
        reference = session_of(pruned)
    except Exception:  # onnxruntime raises many unrelated types
        return
    inputs = [(i.name, i.type, i.shape) for i in reference.get_inputs()]
    half = any(t.data_type == TensorProto.FLOAT16 for t in pruned.graph.initializer)
    outcome.error = 0.0
    try:
        session = session_of(smaller)
        for feeds in feeds_of(path.parent, path.stem, inputs):
            want, have = reference.run(None, dict(feeds)), session.run(None, dict(feeds))
            outcome.error = max(outcome.error, *map(relative_difference, want, have))
    except Exception as error:
        outcome.problems.append(f"does not run: {error}")
        return
    if not outcome.error <= (TOLERANCE_HALF if half else TOLERANCE):
        outcome.problems.append(f"outputs differ by {outcome.error:.1e}")


def _row(outcome: Outcome) -> str:
    before, after = outcome.parameters
    share = 1 - after / before if before else 0.0
    error = "not run" if outcome.error is None else f"{outcome.error:.1e}"
    return (
        f"{outcome.model:38} {outcome.quality:3g} {outcome.removed:6,} {outcome.left:5} "
        f"{outcome.biases:6} {before:9,} {after:9,} {share:6.1%} {error:>8} "
        f"{outcome.seconds:5.1f} {outcome.said[:60]}"
        + "".join(f"\n    PROBLEM {problem}" for problem in outcome.problems)
    )


def _totals(quality: float, outcomes: Sequence[Outcome]) -> str:
    shrunk = [outcome for outcome in outcomes if outcome.removed]
    before, after = (sum(o.parameters[i] for o in outcomes if not o.said) for i in range(2))
    errors = [outcome.error for outcome in shrunk if outcome.error is not None]
    return (
        f"q {quality:g}: {len(outcomes)} models, {len(shrunk)} got smaller, {before:,} -> "
        f"{after:,} parameters in these; largest error {max(errors, default=0):.1e}; "
        f"{sum(bool(outcome.problems) for outcome in outcomes)} with problems"
    )


def main() -> int:
    """Check all models and print the table; 1 where there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quality", action="append", type=float, help="default: 0.5, 1, 1.5, 2")
    parser.add_argument("--align", type=int, default=BLOCK, help="1: no dead channel stays")
    parser.add_argument("--only", default="", help="part of the names to check")
    given = parser.parse_args()
    paths = [path for path in models() if given.only in path.stem]
    if not paths:
        print("no models (set ONNXPRUNE_ZOO)")
        return 1
    print(
        f"{'model':38} {'q':>3} {'gone':>6} {'left':>5} {'biases':>6} {'params':>9} {'after':>9} "
        f"{'less':>6} {'error':>8} {'s':>5} said"
    )
    totals, problems = [], False
    for quality in given.quality or QUALITIES:
        outcomes = []
        for path in paths:
            outcomes.append(check(path, quality, given.align))
            print(_row(outcomes[-1]), flush=True)
        totals.append(_totals(quality, outcomes))
        problems |= any(outcome.problems for outcome in outcomes)
    print("\n".join(totals))
    return int(problems)


if __name__ == "__main__":
    sys.exit(main())
