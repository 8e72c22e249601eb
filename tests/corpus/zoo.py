"""Every real model, pruned and checked against a second count of what should be left.

For a table of all models, in the repository: ``python -m tests.corpus.zoo`` (see ``--help``).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import onnx

import onnxprune
from onnxprune.config import Format
from tests.corpus.comparing import differences
from tests.corpus.constants import with_values
from tests.corpus.feeds import feeds_of
from tests.corpus.running import same_run, session_of
from tests.corpus.weights import Count, counted

__all__ = ["FORMATS", "REJECTED", "Outcome", "check", "models"]

FORMATS: tuple[Format, ...] = ("sparse", "constant", "gaps", "dense")
#: onnxruntime rejects these: custom or experimental operators, or no opset.
REJECTED = frozenset(
    [
        "melspec_wml",
        "pcb_aoi",
        "squeezenet_customop_fp16",
        "superres_ortjs",
        "superres_prepost_op18",
        "mnist_cntk_uwp_old",
        "style_candy_uwp_old",
    ]
)


def models() -> list[Path]:
    """All real models there are; none where their folder (see tests/conftest.py) is absent."""
    shared = os.environ.get("ONNXPRUNE_ZOO", Path(__file__).resolve().parents[3] / "shared")
    return sorted(Path(shared, "models").glob("*.onnx"))


@dataclass
class Outcome:
    """What became of one model.

    Attributes:
        refusal: The one sentence with which it was refused; empty where it was pruned.
        valid: "yes", or "as before" where the checker rejects the input too.
        outputs: "identical", "unoptimised", or "not run" where onnxruntime rejects the input.
        problems: What should not be.
    """

    model: str
    quality: float
    form: str
    refusal: str = ""
    valid: str = ""
    outputs: str = ""
    layers: int = 0
    weights: int = 0
    alive: int = 0
    kept: int = 0
    seconds: float = 0.0
    forms: str = ""
    problems: list[str] = field(default_factory=list)


def check(path: Path, quality: float, form: Format, folder: Path, *, own_check: bool) -> Outcome:
    """Prune one model into a folder and compare everything that can be compared.

    Args:
        path: The model.
        quality: As for `onnxprune.prune`.
        form: Storage format.
        folder: Where to write.
        own_check: Whether onnxprune runs what it wrote, too.
    """
    outcome = Outcome(path.stem, quality, form)
    target = folder / path.name
    started = time.perf_counter()
    try:
        result = onnxprune.prune(path, quality=quality, format=form, check=own_check, shrink=False)
        report = result.save(target, overwrite=True)
    except onnxprune.OnnxPruneError as error:
        outcome.refusal = str(error)
        if not outcome.refusal.strip() or "\n" in outcome.refusal:
            outcome.problems.append("the refusal is not one line")
        return outcome
    except Exception as error:  # everything else is a defect, which the table should show
        outcome.problems.append(f"{type(error).__name__}: {error}")
        return outcome
    outcome.seconds = time.perf_counter() - started
    before, after = onnx.load(path), onnx.load(target)
    wanted = counted(before, quality)
    _compare_counts(outcome, report, [(a.shape, count) for a, count in wanted.values()])
    arrays = {key: array for key, (array, _) in wanted.items()}
    outcome.problems += differences(before, after, arrays, ratios=quality > 0)
    _check_validity(outcome, path, target)
    reference: Path | onnx.ModelProto = path if not quality else with_values(before, arrays)
    _run(outcome, path, target, reference)
    return outcome


def _compare_counts(
    outcome: Outcome, report: onnxprune.Report, counts: list[tuple[tuple[int, ...], Count]]
) -> None:
    """Set the report's rows against the second count, tensor by tensor."""
    theirs = Counter((r.shape, Count(r.weights, r.alive_before, r.kept)) for r in report.layers)
    mine = Counter(counts)
    outcome.layers, outcome.weights = len(report.layers), report.weights
    outcome.alive, outcome.kept = report.alive_before, report.kept
    stored = Counter(row.stored_as for row in report.layers)
    outcome.forms = " ".join(f"{name}:{number}" for name, number in sorted(stored.items()))
    for (shape, count), number in (mine - theirs).items():
        outcome.problems.append(f"counted but not reported: {number} of {shape} {count}")
    for (shape, count), number in (theirs - mine).items():
        outcome.problems.append(f"reported but not counted: {number} of {shape} {count}")


def _check_validity(outcome: Outcome, path: Path, target: Path) -> None:
    if not _valid(path):
        outcome.valid = "as before"
    elif _valid(target):
        outcome.valid = "yes"
    else:
        outcome.problems.append("the checker rejects it")


def _valid(path: Path) -> bool:
    try:
        onnx.checker.check_model(str(path))
    except Exception:  # the checker raises unrelated types
        return False
    return True


def _run(outcome: Outcome, path: Path, target: Path, reference: Path | onnx.ModelProto) -> None:
    try:
        inputs = [(i.name, i.type, i.shape) for i in session_of(path).get_inputs()]
    except Exception:  # onnxruntime raises many unrelated types
        outcome.outputs = "not run"
        return
    try:
        outcome.outputs, problems = same_run(
            target, reference, feeds_of(path.parent, path.stem, inputs)
        )
    except Exception as error:
        problems = [f"does not run: {error}"]
    outcome.problems += problems


def _row(outcome: Outcome) -> str:
    share = 1 - outcome.kept / outcome.alive if outcome.alive else 0.0
    said = f"refused: {outcome.refusal[:90]}" if outcome.refusal else outcome.forms
    return (
        f"{outcome.model:38} {outcome.quality:3g} {outcome.form:8} {outcome.layers:3} "
        f"{outcome.weights:9,} {outcome.kept:9,} {share:7.4f} {outcome.valid:9} "
        f"{outcome.outputs:11} {outcome.seconds:5.1f} {said}"
        + "".join(f"\n    PROBLEM {problem}" for problem in outcome.problems)
    )


def _totals(outcomes: list[Outcome]) -> str:
    pruned = [outcome for outcome in outcomes if not outcome.refusal]
    first = outcomes[0]
    return (
        f"q {first.quality:g} {first.form}: {len(outcomes)} models, {len(pruned)} written, "
        f"{len(outcomes) - len(pruned)} refused; "
        f"outputs {dict(Counter(outcome.outputs for outcome in pruned))}; "
        f"{sum(outcome.layers for outcome in pruned)} layers, "
        f"{sum(outcome.weights for outcome in pruned):,} weights, "
        f"{sum(outcome.kept for outcome in pruned):,} kept; "
        f"{sum(bool(outcome.problems) for outcome in outcomes)} with problems"
    )


def main() -> int:
    """Check all models and print the table; 1 where there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", action="append", choices=FORMATS, help="default: sparse")
    parser.add_argument("--quality", action="append", type=float, help="default: 0 and 1")
    parser.add_argument("--only", default="", help="part of the names to check")
    parser.add_argument("--no-own-check", action="store_true", help="as onnxprune's --no-check")
    given = parser.parse_args()
    paths = [path for path in models() if given.only in path.stem]
    if not paths:
        print("no models (set ONNXPRUNE_ZOO)")
        return 1
    print(
        f"{'model':38} {'q':>3} {'format':8} {'lay':>3} {'weights':>9} {'kept':>9} "
        f"{'pruned':>7} {'valid':9} {'outputs':11} {'s':>5} stored as"
    )
    totals, problems = [], False
    for form in given.format or FORMATS[:1]:
        for quality in given.quality or (0.0, 1.0):
            outcomes = []
            for path in paths:
                with tempfile.TemporaryDirectory() as folder:
                    own_check = not given.no_own_check
                    outcomes.append(check(path, quality, form, Path(folder), own_check=own_check))
                print(_row(outcomes[-1]), flush=True)
            totals.append(_totals(outcomes))
            problems |= any(outcome.problems for outcome in outcomes)
    print("\n".join(totals))
    return int(problems)


if __name__ == "__main__":
    sys.exit(main())
