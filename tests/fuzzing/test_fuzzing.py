"""A short seeded run of the fuzzer; `python -m tests.fuzzing` for a long one."""

from __future__ import annotations

import faulthandler
import signal
import sys
from pathlib import Path

import pytest

from tests.fuzzing.cases import EXTERNAL, MUTATORS, case, write_case
from tests.fuzzing.drive import Outcome, drive
from tests.fuzzing.job import Job
from tests.fuzzing.mutators.wire import BYTES
from tests.fuzzing.results import Results
from tests.fuzzing.seeds import seeds

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches /proc")

CASES = range(300)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """Made seeds alone: those of the onnx package take seconds to collect."""
    folder = tmp_path_factory.mktemp("fuzz")
    return [drive(number, folder / "case", corpus=False) for number in CASES]


def test_a_short_run_has_no_problems(outcomes: list[Outcome]) -> None:
    assert not [f"{case(o.number, False).label}: {o.problems}" for o in outcomes if o.problems]


def test_it_reaches_successes_and_refusals(outcomes: list[Outcome]) -> None:
    codes = [outcome.code for outcome in outcomes]
    assert codes.count(0) > len(CASES) / 5
    assert codes.count(1) > len(CASES) / 5
    assert len({outcome.said for outcome in outcomes}) > 15


def test_a_number_says_everything(tmp_path: Path) -> None:
    for number in range(40):
        for name in ("one", "two"):
            (tmp_path / f"{name}{number}" / "in").mkdir(parents=True)
        one, two = (
            write_case(case(number, False), tmp_path / f"{name}{number}" / "in")
            for name in ("one", "two")
        )
        assert one == two


def test_every_mutation_is_drawn() -> None:
    drawn = {name for number in range(2000) for name in case(number, False).mutations}
    assert drawn >= {*MUTATORS, *BYTES, EXTERNAL}


def test_seeds_run_and_differ() -> None:
    found = seeds(corpus=False)
    assert len({seed.name for seed in found}) == len(found)
    assert sum(bool(seed.arrays) for seed in found) > 40


def test_results_survive_a_stop(tmp_path: Path) -> None:
    results = Results()
    results.add(
        {"number": 3, "code": 1, "said": "no", "seconds": 1.0, "grown": 5, "problems": []},
        corpus=False,
    )
    bad = {"number": 4, "code": 70, "said": "", "seconds": 0.1, "grown": 0,
           "problems": [["exception", "ValueError"]]}  # fmt: skip
    assert results.add(bad, corpus=False) == ["exception: ValueError"]
    assert results.add(bad, corpus=False) == []
    results.write(tmp_path / "r.json")
    again = Results.read(tmp_path / "r.json")
    assert again == results
    assert again.problems == {"exception: ValueError": {"count": 2, "cases": [4, 4]}}
    assert again.outcomes == {"exit 1": 1, "exit 70": 2}


def test_a_dying_process_is_an_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deadly(number: int, folder: Path) -> Outcome:
        if number == 1:
            faulthandler.disable()
            signal.raise_signal(signal.SIGSEGV)
        return Outcome(number)

    monkeypatch.setattr("tests.fuzzing.worker.drive", deadly)
    job, found = Job(tmp_path / "job"), []
    job.begin(range(4))
    while job.busy:
        found += job.read()
    assert [outcome["number"] for outcome in found] == [0, 1, 2, 3]
    assert [bool(outcome["problems"]) for outcome in found] == [False, True, False, False]
    assert found[1]["problems"][0][0] == "crash"
