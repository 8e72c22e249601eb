"""A seeded sample of the onnx package's backend tests; `python -m tests.corpus.backend` for all."""

from __future__ import annotations

from collections import Counter

from tests.corpus.backend import Finding, examine_case, examine_made
from tests.corpus.cases import collect
from tests.corpus.made import made

SAMPLE = 150


def test_sample_of_backend_tests() -> None:
    findings: list[Finding] = []
    for case in collect(SAMPLE):
        findings += examine_case(case, own_check=False)
    assert not [f"{f.label}: {f.problems}" for f in findings if f.problems]
    assert all(f.outcome == "pruned" for f in findings if f.quality == 0)
    refusals = {f.outcome for f in findings if f.outcome != "pruned"}
    assert all(text.startswith("refused: nothing to prune") for text in refusals)
    # The sample must have something to show.
    runs = Counter(f.run for f in findings)
    assert runs["identical"] > 3 * SAMPLE
    assert sum(f.lost > 0 for f in findings) > SAMPLE / 2


def test_operators_that_backend_tests_leave_out() -> None:
    findings = [f for case in made() for f in examine_made(case, own_check=False)]
    assert not [f"{f.label}: {f.problems}" for f in findings if f.problems]
    assert {(f.outcome, f.run) for f in findings} == {("pruned", "identical")}
    assert all((f.lost > 0) == (f.quality > 0) for f in findings)
