"""Every backend test of the onnx package, pruned: a valid model or a clear refusal, and no change
of outputs at quality 0.

For the counts, in the repository: ``python -m tests.corpus.backend`` (see ``--help``).
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

import onnxprune
from onnxprune.config import Format
from tests.corpus.cases import Case, collect, frozen
from tests.corpus.comparing import differences
from tests.corpus.constants import with_values
from tests.corpus.made import made
from tests.corpus.quantized import expected_codes
from tests.corpus.running import same, session_of
from tests.corpus.weights import counted

__all__ = ["Finding", "examine", "examine_case", "examine_made"]

FORMATS: tuple[Format, ...] = ("sparse", "constant", "gaps", "dense")


@dataclass
class Finding:
    """What became of one model at one quality in one format.

    Attributes:
        outcome: "pruned", or "refused: " and the class of the refusal.
        run: How outputs compare, or why there are none to compare.
        operators: Those whose weights lost something.
        problems: What should not be.
    """

    name: str
    group: str
    quality: float
    form: str
    outcome: str = ""
    run: str = ""
    layers: int = 0
    lost: int = 0
    operators: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"{self.name} [{self.group}] q={self.quality:g} {self.form}"


def examine_case(case: Case, *, own_check: bool) -> list[Finding]:
    """A test as it is and with constants for inputs; in all formats where there are layers."""
    findings = [examine(case, quality, "sparse", own_check=own_check) for quality in (0.0, 1.0)]
    for variant in frozen(case):
        for quality in (0.0, 1.0):
            first = examine(variant, quality, "sparse", own_check=own_check)
            findings.append(first)
            if quality and first.layers:
                findings += [
                    examine(variant, quality, form, own_check=own_check) for form in FORMATS[1:]
                ]
    return findings


def examine_made(case: Case, *, own_check: bool) -> list[Finding]:
    """A model that has weights: at quality 0, and pruned in every format."""
    first = examine(case, 0.0, "sparse", own_check=own_check)
    return [first, *(examine(case, 1.0, form, own_check=own_check) for form in FORMATS)]


def examine(case: Case, quality: float, form: Format, *, own_check: bool) -> Finding:
    """Prune one model through the Python door, write it, and compare."""
    finding = Finding(case.name, case.group, quality, form)
    given = case.model.SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "model.onnx")
        try:
            result = onnxprune.prune(
                case.model, quality=quality, format=form, check=own_check, shrink=False
            )
            report = result.save(target)
        except onnxprune.OnnxPruneError as error:
            finding.outcome = f"refused: {_class(str(error))}"
            if "\n" in str(error) or not str(error).strip():
                finding.problems.append(f"the refusal is not one line: {error}")
            return finding
        except Exception as error:  # any other exception is what this looks for
            finding.problems.append(f"{type(error).__name__}: {error}"[:300])
            return finding
        finding.outcome, finding.layers = "pruned", len(report.layers)
        rows = [row for row in report.layers if row.kept < row.alive_before]
        finding.operators = tuple(sorted({name for row in rows for name in row.operators}))
        finding.lost = report.alive_before - report.kept
        if case.model.SerializeToString() != given:
            finding.problems.append("the model given was changed")
        try:
            _compare(finding, case, onnx.load(target), target, report)
        except Exception as error:  # a defect of this comparison, to be seen as well
            finding.problems.append(f"comparison: {type(error).__name__}: {error}"[:300])
    return finding


def _class(message: str) -> str:
    """A refusal without the names and numbers in it."""
    return re.sub(r"\d[\d,.]*", "N", re.sub(r"'[^']*'", "'*'", message))[:90]


def _compare(
    finding: Finding, case: Case, after: ModelProto, target: Path, report: onnxprune.Report
) -> None:
    before = case.model
    wanted: dict[Any, np.ndarray] = {}
    kept = None
    if finding.quality:
        counts = {**counted(before, finding.quality), **expected_codes(before, finding.quality)}
        wanted = {key: array for key, (array, _) in counts.items()}
        kept = sorted((c.size, c.alive, c.kept) for _, c in counts.values())
    said = sorted((row.weights, row.alive_before, row.kept) for row in report.layers)
    if kept is not None and said != kept:
        finding.problems.append(f"reported (size, alive, kept) {said}, counted {kept}")
    finding.problems += differences(before, after, wanted, ratios=finding.quality > 0)
    if _valid(before) and not _valid(str(target)):
        finding.problems.append("the checker rejects the result")
    reference = with_values(before, wanted) if wanted else before
    finding.run, problem = _run(case, target, reference)
    if problem:
        finding.problems.append(problem)


def _valid(model: ModelProto | str) -> bool:
    try:
        onnx.checker.check_model(model)
    except Exception:  # the checker raises unrelated types
        return False
    return True


def _run(case: Case, target: Path, reference: ModelProto) -> tuple[str, str]:
    """How the outputs of a written model compare with those of its reference, and a problem."""
    needed = {v.name for v in case.model.graph.input} - {
        t.name for t in case.model.graph.initializer
    }
    if not needed <= case.feeds.keys() and case.group != "light":
        return "no inputs", ""
    for how, optimised in (("identical", True), ("unoptimised", False)):
        try:
            session = session_of(reference, optimised=optimised)
        except Exception:  # onnxruntime raises many unrelated types
            return "not loaded", ""
        feeds = case.feeds if case.group != "light" else _noise(session)
        try:
            want, again = session.run(None, feeds), session.run(None, feeds)
        except Exception:
            return "not run", ""
        try:
            have = session_of(target, optimised=optimised).run(None, feeds)
        except Exception as error:
            return "fails", f"does not run: {error}"[:300]
        if same(have, want):
            return how, ""
        if not same(again, want):
            return "random", ""
    return "different", "outputs differ"


def _noise(session: Any) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        i.name: random.standard_normal([s if isinstance(s, int) else 1 for s in i.shape]).astype(
            np.float32
        )
        for i in session.get_inputs()
    }


def _print(findings: Sequence[Finding], cases: int, seconds: float) -> None:
    print(f"{cases} backend tests, {len(findings)} runs in {seconds:.0f} s")
    print("tests by group:", dict(Counter(f.group for f in findings if f.quality == 0)))
    for quality in (0.0, 1.0):
        for label, chosen in (
            ("as they are", [f for f in findings if f.group not in ("frozen", "made")]),
            ("with inputs as constants", [f for f in findings if f.group == "frozen"]),
            ("made for operators that are left out", [f for f in findings if f.group == "made"]),
        ):
            mine = [f for f in chosen if f.quality == quality]
            pruned = [f for f in mine if f.outcome == "pruned"]
            print(f"\nq {quality:g}, {label}: {len(mine)} runs, {len(pruned)} written, of these")
            print(
                f"  {sum(f.layers > 0 for f in pruned)} with layers, "
                f"{sum(f.lost > 0 for f in pruned)} lost weights"
            )
            print("  outputs:", dict(Counter(f.run for f in pruned).most_common()))
            for text, number in Counter(f.outcome for f in mine).most_common():
                if text.startswith("refused"):
                    print(f"  {number:5} {text}")
    losing = Counter(name for f in findings for name in f.operators)
    print("\nruns in which weights of an operator went:", dict(losing.most_common()))
    failures = [finding for finding in findings if finding.problems]
    print(f"\nfailures: {len(failures)}")
    for finding in failures:
        print(f"  {finding.label}: {'; '.join(finding.problems)[:400]}")


def main() -> int:
    """Examine all tests, print the counts; 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="only so many, seeded")
    parser.add_argument("--only", default="", help="part of the names to examine")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--no-own-check", action="store_true", help="as onnxprune's --no-check")
    given = parser.parse_args()
    started = time.perf_counter()
    cases = [case for case in collect(given.sample) if given.only in case.name]
    work = partial(examine_case, own_check=not given.no_own_check)
    if given.processes > 1:
        with ProcessPoolExecutor(given.processes) as pool:
            findings = [f for group in pool.map(work, cases, chunksize=16) for f in group]
    else:
        findings = [finding for case in cases for finding in work(case)]
    for case in made():
        if given.only in case.name:
            findings += examine_made(case, own_check=not given.no_own_check)
    _print(findings, len(cases), time.perf_counter() - started)
    return int(any(finding.problems for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
