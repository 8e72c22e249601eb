"""The most pruning within a bound on real models, and what it loses on samples of its own.

    python -m benchmarks.max_drop [--max-drop 1] [--only NAME ...] [--plain]

The search sees the first half of the test set (and 512 training inputs without labels, unless
--plain); the second half decides nothing. Needs the folder of models and data that ONNXPRUNE_ZOO
names.
"""

from __future__ import annotations

import argparse
import time

import onnxprune

from .zoo_data import PAIRS, Pair

CALIBRATION = 512
#: The search sees at most so many samples, and as many others are left.
MOST = 2000
HEADINGS = ("model", "unpruned", "zeros", "lost", "lost on others", "error", "trials", "seconds")


def measure(pair: Pair, max_drop: float, *, plain: bool) -> tuple[str, ...]:
    """One row."""
    test = pair.arrays("test")
    half = min(len(test["labels"]) // 2, MOST)
    seen = {name: array[:half] for name, array in test.items()}
    others = {name: array[half : 2 * half] for name, array in test.items()}
    inputs = None if plain else pair.arrays("train")[pair.input][:CALIBRATION]
    started = time.perf_counter()
    calibrate = None if inputs is None else {pair.input: inputs}
    result = onnxprune.prune(pair.path, max_drop=max_drop, val=seen, calibrate=calibrate)
    seconds = time.perf_counter() - started
    search = result.report.search
    assert search is not None
    compared = onnxprune.evaluate([pair.path, result.to_proto()], val=others, runs=0).metric
    assert compared is not None
    assert compared.values[0] is not None
    assert compared.values[1] is not None
    zeros = 1 - result.report.kept / result.report.weights
    return (
        pair.model,
        f"{100 * search.dense:.2f} %",
        f"{100 * zeros:.1f} %",
        f"{100 * search.drop:.2f}",
        f"{100 * (compared.values[0] - compared.values[1]):.2f}",
        f"{100 * (search.drop_error or 0):.2f}",
        f"{len(search.trials)}",
        f"{seconds:.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", default=list(PAIRS))
    parser.add_argument("--plain", action="store_true", help="prune without calibration")
    given = parser.parse_args()
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}", flush=True)
    for name in given.only:
        row = measure(PAIRS[name], given.max_drop, plain=given.plain)
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
