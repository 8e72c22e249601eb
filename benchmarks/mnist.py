"""Han et al.'s table of LeNet-300-100 and LeNet-5 on MNIST, ours beside the published numbers.

    python -m benchmarks.mnist                     all cells that are not in the results
    python -m benchmarks.mnist --networks lenet_300_100 --methods han2015 longer --seeds 0
    python -m benchmarks.mnist --validate ...      on images held out, for choosing settings
    python -m benchmarks.mnist --table             the tables of docs/results.md

A seed trains a network from scratch (models/train_lenets.py; seed 0 is the one in models/), prunes
it by a method of benchmarks/mnist_methods.py and writes the result as `--format gaps` does. The
commands that --table prints take the arrays of ``models/train_lenets.py --arrays``. Training sees
the 60,000 training images; the test set is measured once, at the end. With --validate, dense and
pruned networks are trained on the first 50,000 and measured on the others.

Results are kept after every cell in benchmarks/results/mnist.json; dense networks and the state of
the training in --work: a run that was stopped, even in the middle of a training, goes on where it
was. Cells of a method with other settings than now are measured again. Needs MNIST in data/mnist of
the folder that ONNXPRUNE_ZOO names.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import onnxprune
from benchmarks.mnist_methods import METHODS, NETWORKS, Method
from benchmarks.mnist_table import tables
from benchmarks.results_file import read_results, write_results
from benchmarks.zoo_data import zoo_folder
from models.train_lenets import Arrays, held_out, mnist, trained
from onnxprune.evaluation import Meter
from onnxprune.model.sources import read

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).parent / "results" / "mnist.json"
SEEDS = (0, 1, 2)

Cells = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """What all cells are measured with.

    Attributes:
        train: What is trained on.
        meter: Measures what is decided by, or reported.
        work: Folder for dense networks and checkpoints.
        validating: Whether images of the training set are held out.
    """

    train: Arrays
    meter: Meter
    work: Path
    validating: bool

    @classmethod
    def on(cls, folder: Path, work: Path, *, validating: bool) -> Bench:
        """With the data of a folder."""
        train = mnist(folder, "train")
        train, others = held_out(train) if validating else (train, mnist(folder, "t10k"))
        return cls(train, Meter(others), work / ("held-out" if validating else "whole"), validating)

    def dense(self, network: str, seed: int) -> tuple[Path, Cells | None]:
        """The dense network, and its cell where it had to be trained."""
        stored = ROOT / "models" / f"{network}.onnx"
        if seed == 0 and not self.validating and stored.is_file():
            return stored, None
        path = self.work / f"{network}-{seed}.onnx"
        if path.is_file():
            return path, None
        self.work.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        trained(network, self.train, seed).save(path)
        return path, {"seconds": round(time.perf_counter() - started, 1)}

    def measure(self, network: str, name: str, method: Method, seed: int) -> Cells:
        """One cell."""
        path, cost = self.dense(network, seed)
        state = self.work / f"{network}-{name}-{seed}"
        going = {"checkpoint": state, "resume": (state / "state.safetensors").is_file()}
        result = onnxprune.prune(
            path,
            **method.prune,
            train=self.train,
            finetune=method.finetune(seed, **going),
            format="gaps",
        )
        output = self.work / f"{network}-{name}-{seed}.onnx"
        report = result.save(output, overwrite=True)
        shutil.rmtree(state, ignore_errors=True)
        training = report.training
        assert training is not None  # it was trained
        return {
            "command": method.command(network),
            "before": _error(self.meter, path),
            "after": _error(self.meter, output),
            "weights": report.weights,
            "kept": report.kept,
            "layers": {row.layer: [row.kept, row.weights] for row in report.layers},
            "parameters": report.parameters,
            "bytes_before": report.sizes.file_input,
            "bytes_after": report.sizes.file_output,
            "epochs": len(training.epoch_rows),
            "seconds": round(sum(row.seconds for row in training.epoch_rows), 1),
            "dense_seconds": None if cost is None else cost["seconds"],
        }


def _error(meter: Meter, path: Path) -> float:
    """Images that onnxruntime gets wrong with the model in a file, in percent."""
    return round(100 * (1 - meter(read(path))), 4)


def main() -> None:
    """Fill in the cells that are missing, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = sorted({name for methods in METHODS.values() for name in methods})
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--results", type=Path)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "mnist")
    parser.add_argument("--validate", action="store_true", help="measure images held out")
    parser.add_argument("--table", action="store_true", help="print the tables, do nothing else")
    given = parser.parse_args()
    default = RESULTS.with_stem("mnist_held_out") if given.validate else RESULTS
    results: Path = given.results or default
    cells = read_results(results)
    if not given.table:
        bench = Bench.on(zoo_folder() / "data" / "mnist", given.work, validating=given.validate)
        for seed, network, name in product(given.seeds, given.networks, given.methods):
            key = f"{network} {name} {seed}"
            if name not in METHODS[network]:
                continue
            if cells.get(key, {}).get("command") != METHODS[network][name].command(network):
                cells[key] = bench.measure(network, name, METHODS[network][name], seed)
                write_results(results, cells)
                print(key, json.dumps(cells[key]), flush=True)
    print(tables(cells))


if __name__ == "__main__":
    main()
