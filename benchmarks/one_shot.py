"""Accuracy after pruning without retraining: ours, and every method that onnxsim offers.

    python -m benchmarks.one_shot                      all cells that are not in the results yet
    python -m benchmarks.one_shot --models NAME ... --ways onnxprune --sparsities 0.9 0.95
    python -m benchmarks.one_shot --table              what docs/results.md shows

Every method gets the same file and the same 512 unlabelled calibration inputs. Nothing is chosen on
test data: they serve for the printed number alone. Each method runs in processes of its own, whose
memory and time are limited. The table shows processor seconds, which other work on the machine
changes little, and the memory that a pruning adds to a process that has loaded its libraries. Cells
are kept in benchmarks/results/one_shot.json as soon as they are done, and a run that was stopped
goes on where it was. Models and data: one_shot_trials.py.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.one_shot_trials import MODELS, trials
from benchmarks.one_shot_ways import OURS, PEERS, WAYS

RESULTS = Path(__file__).parent / "results" / "one_shot.json"
SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
DENSE = "dense"
#: Seconds and bytes that a process may take.
TIMEOUT, MEMORY = 1200, 16 * 2**30
#: Points of accuracy within which two methods are as good as each other.
TIE = 0.2
#: How far a pruning may fall short of the zeros that were asked for, to be compared at all.
SHORT = 0.02

Cells = dict[str, dict[str, Any]]


def main() -> None:
    """Fill in the cells that are missing, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS], metavar="WAY")
    parser.add_argument("--sparsities", nargs="+", type=float, default=SPARSITIES)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="measure cells that are there, too")
    parser.add_argument("--table", action="store_true", help="print the table and do nothing else")
    given = parser.parse_args()
    if given.table:
        print(table(_read(given.results)))
        return
    for model in given.models:
        wanted = [(DENSE, 0.0), *product(given.ways, given.sparsities)]
        cells = _read(given.results)
        missing = [
            (way, sparsity)
            for way, sparsity in wanted
            if _key(model, way, sparsity) not in cells or (given.again and way != DENSE)
        ]
        if missing:
            _measure(model, missing, given.results)


def _measure(model: str, wanted: list[tuple[str, float]], results: Path) -> None:
    """Measure cells of one model and keep them."""
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder)
        written = [vars(trial) for trial in trials(model, given)]
        (given / "test.pickle").write_bytes(pickle.dumps([t.pop("test") for t in written]))
        (given / "trials.pickle").write_bytes(pickle.dumps(written))
        del written
        for way in dict.fromkeys(way for way, _ in wanted):
            missing = [sparsity for name, sparsity in wanted if name == way]
            while missing:
                for cell in _cells(given, way, missing):
                    cells = _read(results)
                    cells[_key(model, way, missing[0])] = cell
                    results.parent.mkdir(exist_ok=True)
                    results.write_text(json.dumps(cells, indent=1, sort_keys=True) + "\n")
                    print(f"{model} {way} {missing[0]:g}: {_shown(cell)}", flush=True)
                    del missing[0]


def _cells(given: Path, way: str, sparsities: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Cells in this order, as far as one process gets, and last why it got no further."""
    command = [sys.executable, "-m", "benchmarks.one_shot_cell", given, way, MEMORY, *sparsities]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        done, late = 0, threading.Event()
        while True:
            timer = threading.Timer(TIMEOUT, lambda: (late.set(), process.kill()))
            timer.start()
            line = process.stdout.readline()
            timer.cancel()
            if not line:
                break
            done += 1
            yield json.loads(line)
        process.wait()
        if done < len(sparsities):
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [f"exit status {process.returncode}"])[-1]
            yield {"failure": f"not done after {TIMEOUT} s" if late.is_set() else last[:200]}


def _shown(cell: dict[str, Any]) -> str:
    if "failure" in cell:
        return str(cell["failure"])
    return f"{_accuracy(cell):.2f} % in {_mean(cell, 'seconds'):.1f} s, {cell['peak_mb']:.0f} MB"


def _read(path: Path) -> Cells:
    return json.loads(path.read_text()) if path.exists() else {}


def _key(model: str, way: str, sparsity: float) -> str:
    return f"{model} {way} {sparsity:g}"


def _mean(cell: dict[str, Any], name: str) -> float:
    return statistics.fmean(cell[name])


def _accuracy(cell: dict[str, Any]) -> float:
    return 100 * _mean(cell, "accuracy")


def table(cells: Cells) -> str:
    """Markdown: accuracies by model and sparsity, ours against the best of the others."""
    names = [OURS, *PEERS]
    head = ["model", "zeros", "dense", *names, "lead", "", "CPU s", "SparseGPT's", "MB"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for model, sparsity in product(MODELS, SPARSITIES):
        found = {name: cells.get(_key(model, name, sparsity)) for name in names}
        dense, ours = cells.get(_key(model, DENSE, 0.0)), found[OURS]
        if dense is None or not any(found.values()):
            continue
        row = [model, f"{sparsity:.0%}", f"{_accuracy(dense):.2f}"]
        row += [_percent(found[name], sparsity) for name in names]
        row += _verdict(found, sparsity)
        row += [_number(each, "cpu_seconds") for each in (ours, found["SparseGPT"])]
        row.append(_peak(cells, model))
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _peak(cells: Cells, model: str) -> str:
    """Most memory that our prunings of a model took: later ones find what earlier ones left."""
    peaks = [cells.get(_key(model, OURS, s), {}).get("peak_mb") for s in SPARSITIES]
    known = [peak for peak in peaks if peak is not None]
    return f"{max(known):.0f}" if known else "-"


def _percent(cell: dict[str, Any] | None, sparsity: float) -> str:
    if cell is None:
        return "-"
    if "failure" in cell:
        return "failed"
    return f"{_accuracy(cell):.2f}" if _kept(cell, sparsity) else "not pruned"


def _kept(cell: dict[str, Any] | None, sparsity: float) -> bool:
    """Whether a cell has the zeros that were asked for."""
    return bool(cell) and "zeros" in cell and _mean(cell, "zeros") > sparsity - SHORT


def _number(cell: dict[str, Any] | None, name: str) -> str:
    return "-" if cell is None or name not in cell else f"{_mean(cell, name):.1f}"


def _verdict(found: dict[str, dict[str, Any] | None], sparsity: float) -> list[str]:
    """Points ahead of the best peer, and whether that is a win, a tie or a loss."""
    accuracies = {
        name: _accuracy(cell) for name, cell in found.items() if cell and _kept(cell, sparsity)
    }
    ours = accuracies.pop(OURS, None)
    if ours is None or not accuracies:
        return ["-", "-"]
    lead = round(ours - max(accuracies.values()), 2)
    return [f"{lead:+.2f}", "win" if lead > TIE else "tie" if lead >= -TIE else "loss"]


if __name__ == "__main__":
    main()
