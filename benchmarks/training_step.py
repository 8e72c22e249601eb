"""Time of a training step: onnxprune against PyTorch and onnxruntime-training.

    python benchmarks/training_step.py [--models mlp-b64,resnet8] [--rounds 9] [--json FILE]
        [--torch-python PYTHON] [--ort-training-python PYTHON]

Every engine has a process of its own; they take turns, a burst of steps each, and wait without
work meanwhile. All start from one ONNX file (PyTorch: from the weights it was made of), take the
same samples, use AdamW and 32-bit floats; onnxprune and onnxruntime-training hold masks on all
weight matrices. The first losses of the engines must agree, or the benchmark fails. A number of
milliseconds is the median over rounds of the median of a burst; a ratio is the median over rounds
of the ratio of two bursts, with the range in which the middle half of the rounds lies.

`--cpu` measures processor time instead, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training_step_engines import (
    CASES,
    ENGINES,
    have_models,
    prepare_data,
    prepare_lowered,
    prepare_models,
)
from training_step_table import show

#: Steps before every burst that are not counted, and those whose losses are compared.
WARM_UP, COMPARED = 2, 3
#: How far the losses may be apart, relatively.
TOLERANCE = 1e-4
BASE = "ours"
#: What each engine, and each preparation, has to import.
NEEDS = {
    "ours": "onnxprune",
    "torch": "torch",
    "torch-fused": "torch",
    "ort-training": "onnxruntime.training.api",
    "models": "torch",
    "lowered": "onnxprune",
}
PREPARATIONS = {"models": prepare_models, "lowered": prepare_lowered}


# ---- in a worker -------------------------------------------------------------------------------


def serve(engine: str, name: str, folder: Path, threads: int) -> None:
    """Answer every line of the input, a number of steps, with seconds and losses of these."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print does not get between the answers
    try:
        step = ENGINES[engine](folder, name, threads)
    except Exception as error:  # whatever it is, it goes into the table
        print(json.dumps({"failure": _one_line(error)}), file=answers, flush=True)
        return
    print(json.dumps({}), file=answers, flush=True)
    for line in sys.stdin:
        walls, processor, losses = [], [], []
        for _ in range(int(line)):
            started, spent = time.perf_counter(), time.process_time()
            losses.append(step())
            walls.append(time.perf_counter() - started)
            processor.append(time.process_time() - spent)
        answer = {"wall": walls, "cpu": processor, "losses": losses}
        print(json.dumps(answer), file=answers, flush=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


# ---- in the main process -----------------------------------------------------------------------


class Worker:
    """A process with one engine, ready for one case; `failure` says why it is not."""

    def __init__(self, python: str, engine: str, name: str, folder: Path, threads: int) -> None:
        command = [python, __file__, "--worker", engine, "--models", name]
        command += ["--folder", str(folder), "--threads", str(threads)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, text=True, env=_environment(), **pipes)  # type: ignore[call-overload]
        self.failure: str | None = self._answer().get("failure")

    def run(self, steps: int) -> dict[str, list[float]]:
        """Do steps; returns lists of wall seconds, processor seconds, and losses."""
        print(steps, file=self.process.stdin, flush=True)
        answer = self._answer()
        if "failure" in answer:
            raise SystemExit(f"{' '.join(self.process.args)}: {answer['failure']}")
        return answer

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failure": "the worker ended"}

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()


def _environment() -> dict[str, str]:
    """Workers find the package even where it is not installed."""
    root = str(Path(__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def missing(python: str | None, module: str) -> str | None:
    """Why an interpreter cannot be used, None where it can."""
    if python is None:
        return "no interpreter given"
    stub = "import sys, types; sys.modules['onnxruntime.training.optim'] = types.ModuleType('o')"
    command = [python, "-c", f"{stub}; import {module}"]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    lines = found.stderr.strip().splitlines() or ["it fails"]
    return None if found.returncode == 0 else f"not installed ({lines[-1]})"


def measure(
    name: str, pythons: Mapping[str, str], folder: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """One case: for every engine the milliseconds of every round, or the reason for none."""
    workers, failures = {}, {}
    for engine, python in pythons.items():
        worker = Worker(python, engine, name, folder, arguments.threads)
        if worker.failure is None:
            workers[engine] = worker
        else:
            worker.close()
            failures[engine] = worker.failure
    if BASE not in workers:
        raise SystemExit(f"{name}: {failures[BASE]}")
    losses = {engine: worker.run(COMPARED)["losses"] for engine, worker in workers.items()}
    require_agreement(name, losses)
    clock = "cpu" if arguments.cpu else "wall"
    rounds: dict[str, list[list[float]]] = {engine: [] for engine in workers}
    for number in range(arguments.rounds):
        order = list(workers)
        for engine in order if number % 2 else reversed(order):
            seconds = workers[engine].run(WARM_UP + arguments.steps)[clock][WARM_UP:]
            rounds[engine].append([1000 * value for value in seconds])
    for worker in workers.values():
        worker.close()
    return {"milliseconds": rounds, "losses": losses, "failures": failures}


def require_agreement(name: str, losses: Mapping[str, Sequence[float]]) -> None:
    """Fail where an engine computes something else than ours."""
    for engine, values in losses.items():
        pairs = zip(values, losses[BASE], strict=True)
        if not all(abs(value - wanted) <= TOLERANCE * abs(wanted) for value, wanted in pairs):
            raise SystemExit(f"{name}: losses differ: {engine} {values}, {BASE} {losses[BASE]}")


def prepare(pythons: Mapping[str, str], folder: Path) -> None:
    """Write what the workers read; networks that are there already stay as they are."""
    prepare_data(folder)
    exporter = next((pythons[name] for name in ("torch", "torch-fused") if name in pythons), None)
    if exporter is not None:
        _prepare(exporter, "models", folder)
    elif not have_models(folder):
        raise SystemExit(
            "the networks are exported by PyTorch: give an interpreter that has it "
            "(--torch-python), or a folder of an earlier run (--folder)"
        )
    if "ort-training" in pythons:
        _prepare(pythons[BASE], "lowered", folder)


def _prepare(python: str, kind: str, folder: Path) -> None:
    command = [python, __file__, "--worker", kind, "--folder", str(folder)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the {kind} cannot be made: {done.stderr}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--engines", default=",".join(ENGINES), help=f"of {', '.join(ENGINES)}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10, help="steps of a burst")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="measure processor time")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--folder", type=Path, help="keep the prepared files here")
    parser.add_argument("--python", default=sys.executable, help="one with onnxprune")
    parser.add_argument("--torch-python", default=sys.executable, help="one with PyTorch")
    parser.add_argument(
        "--ort-training-python",
        default=os.environ.get("ONNXPRUNE_TRAINING_PYTHON"),
        help="one with onnxruntime-training (default: ONNXPRUNE_TRAINING_PYTHON)",
    )
    parser.add_argument("--worker", choices=[*ENGINES, *PREPARATIONS], help=argparse.SUPPRESS)
    return parser.parse_args()


def usable(arguments: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """Interpreters of the engines that are there, and why others are not."""
    given = {
        "ours": arguments.python,
        "torch": arguments.torch_python,
        "torch-fused": arguments.torch_python,
        "ort-training": arguments.ort_training_python,
    }
    wanted = [BASE, *(name for name in arguments.engines.split(",") if name != BASE)]
    reasons = {name: missing(given[name], NEEDS[name]) for name in wanted}
    there = {name: given[name] for name, reason in reasons.items() if reason is None}
    if BASE not in there:
        raise SystemExit(f"onnxprune is {reasons[BASE]}")
    return there, {name: reason for name, reason in reasons.items() if reason is not None}


def main() -> None:
    """Measure, show, write."""
    arguments = parse()
    if arguments.worker in PREPARATIONS:
        PREPARATIONS[arguments.worker](arguments.folder)
        return
    if arguments.worker:
        serve(arguments.worker, arguments.models, arguments.folder, arguments.threads)
        return
    pythons, absent = usable(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        prepare(pythons, folder)
        results = {}
        for name in arguments.models.split(","):
            results[name] = measure(name, pythons, folder, arguments)
            results[name]["failures"].update(absent)
            show({name: results[name]}, [BASE, *absent, *pythons])
    print()
    show(results, list(ENGINES))
    if arguments.json:
        settings = {key: getattr(arguments, key) for key in ("threads", "rounds", "steps", "cpu")}
        arguments.json.write_text(json.dumps({**settings, "cases": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
