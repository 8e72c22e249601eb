"""The long run: ``python -m tests.fuzzing --hours 1 --jobs 2 --results FILE``; goes on where it
was stopped. ``--case N --keep FOLDER`` runs one case, leaves its files, and says what happened."""

from __future__ import annotations

import argparse
import json
import select
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.fuzzing.cases import case, write_case
from tests.fuzzing.drive import drive
from tests.fuzzing.job import Job
from tests.fuzzing.results import Results
from tests.fuzzing.seeds import seeds

#: Cases of one batch: one life of a process.
BATCH = 1000


def long_run(given: argparse.Namespace) -> int:
    """Run batches until the time is over; 1 where there are problems."""
    path: Path = given.results
    results = Results.read(path)
    seeds()
    started, before = time.monotonic(), results.seconds
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        jobs = [Job(Path(scratch, f"job{number}")) for number in range(given.jobs)]
        while time.monotonic() - started < 3600 * given.hours:
            for place, job in enumerate(jobs):
                first = results.finished + BATCH * place
                job.begin(range(first, first + BATCH))
            while any(job.busy for job in jobs):
                _take(jobs, results, path.parent)
            results.finished += BATCH * len(jobs)
            results.seconds = before + time.monotonic() - started
            results.write(path)
            rate, kinds = results.cases / results.seconds, len(results.problems)
            print(f"{results.cases:,} cases, {rate:.1f}/s, {kinds} kinds of problems", flush=True)
    return bool(results.problems)


def _take(jobs: list[Job], results: Results, folder: Path) -> None:
    """Count what has come; say what is new and keep its files."""
    busy = {job.pipe: job for job in jobs if job.busy}
    ready, _, _ = select.select(list(busy), [], [], 1.0)
    for pipe in ready:
        for outcome in busy[pipe].read():
            for title in results.add(outcome):
                label = case(outcome["number"]).label
                print(f"NEW {title}\n    {label}", flush=True)
                keep(outcome["number"], folder / "found" / str(outcome["number"]))
    for job in jobs:
        job.check()


def keep(number: int, folder: Path) -> None:
    """Write the files of a case where they can be looked at."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_case(case(number), folder)


def main() -> int:
    """Read the arguments and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path("build/fuzzing/results.json"))
    parser.add_argument("--scratch", help="folder for the cases' files; best in memory")
    parser.add_argument("--case", type=int, help="one case, by its number")
    parser.add_argument("--keep", type=Path, help="folder for the files of --case")
    given = parser.parse_args()
    if given.case is None:
        given.results.parent.mkdir(parents=True, exist_ok=True)
        return long_run(given)
    print(case(given.case).label)
    folder = given.keep or Path(tempfile.mkdtemp())
    outcome = drive(given.case, folder)
    print(json.dumps(asdict(outcome), indent=1))
    return bool(outcome.problems)


if __name__ == "__main__":
    sys.exit(main())
