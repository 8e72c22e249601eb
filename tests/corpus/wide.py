"""The wide corpus: models of every source, through every operation, in every tool.

``python -m tests.corpus.wide`` (see ``--help``) prints the counts. Results are kept, a line of JSON
for each model, and a run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

from tests.corpus.isolated import Attempts, Worker
from tests.corpus.operations import examine
from tests.corpus.rows import Row
from tests.corpus.sources import Source, backend, zoo
from tests.corpus.tallies import tables
from tests.corpus.tools import versions
from tests.corpus.versions import converted, torch_exports

__all__ = ["main"]

#: Limit of one step: an operation, or a model in one tool.
SECONDS = 120.0
SOURCES = ("zoo", "torch", "converted", "backend")


def sources(names: Sequence[str], sample: int | None) -> list[Source]:
    """Models of the chosen sources, heavy ones last; none of them is made yet."""
    makers: dict[str, Callable[[], Iterator[Source]]] = {
        "zoo": zoo,
        "torch": torch_exports,
        "converted": converted,
        "backend": partial(backend, sample),
    }
    found = chain.from_iterable(makers[name]() for name in names)
    return sorted(found, key=lambda source: source.heavy)


def read(results: Path) -> dict[str, list[Row]]:
    """Rows by model, of whole lines; a line that a killed run left half is left out."""
    found = {}
    for line in results.read_text().splitlines() if results.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        found[entry["key"]] = [Row(**row) for row in entry["rows"]]
    return found


def run(todo: Sequence[Source], results: Path, seconds: float) -> None:
    """Examine what is not in the results yet, and add it there."""

    def work(number: int, attempts: Attempts) -> list[Row]:
        return examine(todo[number], attempts)

    worker, started = Worker(work, seconds), time.monotonic()
    with results.open("a") as file:
        for number, source in enumerate(todo):
            rows = worker.run(number)
            file.write(
                json.dumps({"key": source.key, "rows": [asdict(row) for row in rows]}) + "\n"
            )
            file.flush()
            for row in rows:
                if row.outcome == "problem":
                    print(f"{row.key} {row.operation} {row.check}: {row.detail}", flush=True)
            if number % 100 == 99:
                done = time.monotonic() - started
                print(f"{number + 1} of {len(todo)} in {done:.0f} s", file=sys.stderr, flush=True)
    worker.close()


def main() -> int:
    """Examine, and print the counts over all results of the chosen sources; 1 for a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--sample", type=int, help="only so many backend tests, seeded")
    parser.add_argument("--only", default="", help="part of the names to examine")
    parser.add_argument("--results", type=Path, default=Path("wide.jsonl"))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit of one step")
    given = parser.parse_args()
    chosen = [s for s in sources(given.sources, given.sample) if given.only in s.key]
    known = read(given.results)
    run([s for s in chosen if s.key not in known], given.results, given.seconds)
    known, wanted = read(given.results), {s.key for s in chosen}
    rows = [row for key, found in known.items() if key in wanted for row in found]
    print(" ".join(f"{name} {version}" for name, version in versions().items()))
    print(tables(rows))
    return int(any(row.outcome == "problem" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
