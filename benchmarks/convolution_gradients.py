"""Forms of the two gradients of a convolution, timed against PyTorch's, shape by shape.

    python benchmarks/convolution_gradients.py [--rounds 6] [--threads 2 | --cpu] [SHAPE ...]

Weights are inputs at run time, as in training. Both engines live in processes of their own and
take turns; numbers are medians, as ratios to PyTorch's backward of the same convolution towards
the same operand (to the rule's own choice where PyTorch is not installed). "chosen" is what the
gradient rule appends by itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from convolution_candidates import Shape, feeds, models

SHAPES = {
    # LeNet-5 of Caffe and of PyTorch's tutorials
    "LeNet 1-20 5x5": Shape(64, 1, 28, 20, 5),
    "LeNet 20-50 5x5": Shape(64, 20, 12, 50, 5),
    "LeNet 1-6 5x5": Shape(64, 1, 28, 6, 5, pad=2),
    "LeNet 6-16 5x5": Shape(64, 6, 14, 16, 5),
    # a ResNet-8 on 32x32
    "ResNet 3-16": Shape(32, 3, 32, 16, 3, pad=1),
    "ResNet 16-16": Shape(32, 16, 32, 16, 3, pad=1),
    "ResNet 16-32 /2": Shape(32, 16, 32, 32, 3, 2, 1),
    "ResNet 32-32": Shape(32, 32, 16, 32, 3, pad=1),
    "ResNet 32-64 /2": Shape(32, 32, 16, 64, 3, 2, 1),
    "ResNet 64-64": Shape(32, 64, 8, 64, 3, pad=1),
    "shortcut 16-32 /2": Shape(32, 16, 32, 32, 1, 2),
    "shortcut 32-64 /2": Shape(32, 32, 16, 64, 1, 2),
    # larger ones
    "64-64 at 56": Shape(8, 64, 56, 64, 3, pad=1),
    "128-128 at 28": Shape(8, 128, 28, 128, 3, pad=1),
    "256-256 at 14": Shape(8, 256, 14, 256, 3, pad=1),
    "512-512 at 7": Shape(8, 512, 7, 512, 3, pad=1),
    "64-64 at 112": Shape(4, 64, 112, 64, 3, pad=1),
    "512-512 at 28": Shape(2, 512, 28, 512, 3, pad=1),
    "3-64 7x7 /2": Shape(8, 3, 64, 64, 7, 2, 3),
    "3-64 11x11 /4": Shape(8, 3, 128, 64, 11, 4, 2),
    # unequal channels
    "16-32 at 16": Shape(32, 16, 16, 32, 3, pad=1),
    "16-64 at 16": Shape(32, 16, 16, 64, 3, pad=1),
    "64-16 at 16": Shape(32, 64, 16, 16, 3, pad=1),
    # pointwise
    "32-192 1x1": Shape(32, 32, 16, 192, 1),
    "192-64 1x1": Shape(32, 192, 8, 64, 1),
    "512-512 1x1 at 7": Shape(8, 512, 7, 512, 1),
    # groups
    "4 groups": Shape(32, 64, 16, 64, 3, pad=1, group=4),
    "depthwise 96": Shape(32, 96, 16, 96, 3, pad=1, group=96),
    "depthwise 96 /2": Shape(32, 96, 16, 96, 3, 2, 1, 96),
    "depthwise 192": Shape(32, 192, 8, 192, 3, pad=1, group=192),
}
#: Runs in a row, and how many of them before are not counted.
BURST, WARM_UP = 6, 2
Worker = Callable[[Shape, str], dict[str, Callable[[], np.ndarray]]]


def onnxruntime_forms(threads: int) -> Worker:
    """Candidates as onnxruntime sessions."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")

    def load(shape: Shape, towards: str) -> dict[str, Callable[[], np.ndarray]]:
        values = {name: ort.OrtValue.ortvalue_from_numpy(v) for name, v in feeds(shape).items()}
        found: dict[str, Callable[[], np.ndarray]] = {}
        for name, model in models(shape, towards).items():
            session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            binding = session.io_binding()
            for info in session.get_inputs():
                binding.bind_ortvalue_input(info.name, values[info.name])
            binding.bind_output(session.get_outputs()[0].name)

            def run(session=session, binding=binding) -> np.ndarray:  # type: ignore[no-untyped-def]
                session.run_with_iobinding(binding)
                result: np.ndarray = binding.get_outputs()[0]
                return result

            found[name] = run
        return found

    return load


def pytorch_forms(threads: int) -> Worker:
    """PyTorch's own backward."""
    import torch

    torch.set_num_threads(threads)

    def load(shape: Shape, towards: str) -> dict[str, Callable[[], np.ndarray]]:
        x, dy, w = (torch.tensor(value) for value in feeds(shape).values())
        given = [shape.stride] * 2, [shape.pad] * 2, [1, 1], False, [0, 0], shape.group
        mask = [towards == "x", towards == "w", False]
        backward = torch.ops.aten.convolution_backward
        return {"PyTorch": lambda: backward(dy, x, w, None, *given, mask)["xw".index(towards)]}

    return load


def serve(pipe: Connection, make: Callable[[int], Worker], threads: int, cpu: bool) -> None:
    """Answer ("load", shape, towards) with names and results, ("run", name) with seconds."""
    load, forms = make(threads), {}
    clock = time.thread_time if cpu else time.perf_counter
    while (message := pipe.recv()) is not None:
        if message[0] == "load":
            forms = load(*message[1:])
            pipe.send({name: np.array(as_array(run())) for name, run in forms.items()})
            continue
        seconds = []
        for _ in range(BURST + WARM_UP):
            started = clock()
            forms[message[1]]()
            seconds.append(clock() - started)
        pipe.send(seconds[WARM_UP:])


def as_array(value: object) -> np.ndarray:
    """A result of either engine."""
    return value.numpy()  # type: ignore[attr-defined,no-any-return]


def measure(pipes: list[Connection], shape: Shape, towards: str, rounds: int) -> dict[str, float]:
    """Median milliseconds of every form, all of which must agree."""
    owners: dict[str, Connection] = {}
    results: dict[str, np.ndarray] = {}
    for pipe in pipes:
        pipe.send(("load", shape, towards))
        made = pipe.recv()
        owners |= dict.fromkeys(made, pipe)
        results |= made
    expected = results["chosen"]
    for name, result in results.items():
        error = np.abs(result - expected).max() / np.abs(expected).max()
        if result.shape != expected.shape or error > 1e-4:
            raise SystemExit(f"{name} differs from the others for {shape}: {error:.1e}")
    seconds: dict[str, list[float]] = {name: [] for name in owners}
    for _ in range(rounds):
        for name, pipe in owners.items():
            pipe.send(("run", name))
            seconds[name] += pipe.recv()
    return {name: 1e3 * statistics.median(runs) for name, runs in seconds.items()}


def show(label: str, towards: str, found: dict[str, float]) -> None:
    """Print one line: the base in milliseconds, the others as ratios to it, fastest first."""
    base = "PyTorch" if "PyTorch" in found else "chosen"
    others = sorted((ms / found[base], name) for name, ms in found.items() if name != base)
    ratios = "  ".join(f"{name} {ratio:.2f}" for ratio, name in others)
    print(f"{label:18} d{towards}  {base} {found[base]:6.2f} ms | {ratios}", flush=True)


def main() -> None:
    """Measure all shapes, or those named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--cpu", action="store_true", help="processor time of one thread: for a busy machine"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    makers = [onnxruntime_forms]
    if importlib.util.find_spec("torch") is not None:
        makers.append(pytorch_forms)
    pipes = []
    for make in makers:
        here, there = context.Pipe()
        threads = 1 if options.cpu else options.threads
        arguments = (there, make, threads, options.cpu)
        context.Process(target=serve, args=arguments, daemon=True).start()
        pipes.append(here)
    table: dict[str, dict[str, float]] = {}
    for label in options.shapes or SHAPES:
        shape = SHAPES[label]
        for towards in ("w", "x") if shape.inputs > 3 else ("w",):  # no first layer needs dx
            found = measure(pipes, shape, towards, options.rounds)
            table[f"{label} d{towards}"] = found
            show(label, towards, found)
    for pipe in pipes:
        pipe.send(None)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
