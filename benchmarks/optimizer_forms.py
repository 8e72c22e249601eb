"""Forms of the optimizer step as a graph, and PyTorch's own, on the tensors of LeNet-300-100.

    python benchmarks/optimizer_forms.py [--rounds 5] [--masked] [--torch PYTHON] [--json FILE]

Every form runs in a process of its own, in turn, so that neither threads nor drift favour one.
`--torch` names an interpreter that has PyTorch; without one its rows are left out.

The forms of AdamW (12 operators for each tensor with a mask, 11 without):
  chosen    onnxprune.training.update.optimizers: scaled moments, bias corrections in two scalars
  textbook  conventional moments, which scale the gradient and its square: three operators more
  gemm      b1 * m + g as one Gemm with a 1x1 matrix
  gated     the same as com.microsoft's GatedAdd, which only new onnxruntimes have
  grouped   small tensors concatenated, updated together, split again
  flat      all gradients concatenated into one buffer, which is split for the forward pass
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SHAPES = ((784, 300), (300,), (300, 100), (100,), (100, 10), (10,))
SMALL = 4096  # elements
BETAS, EPSILON, DECAY = (0.9, 0.999), 1e-8, 0.01
THREADS = 2
STEPS = 400
GRAPHS = ("chosen", "textbook", "gemm", "gated", "grouped", "flat", "sgd", "sgd nesterov")
TORCH = ("AdamW foreach", "AdamW fused", "SGD foreach", "SGD fused")


class Step:
    """A graph under construction: a parameter's values by name, and the pairs of old and new."""

    def __init__(self, masked: bool) -> None:
        from onnx import helper

        from onnxprune.training.builder import GraphBuilder

        opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
        graph = helper.make_graph([], "step", [], [])
        self.proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        self.b = GraphBuilder(self.proto, "step")
        self.rate, self.step = self.b.input("rate", 1, []), self.b.input("step", 7, [])
        self.masked = masked
        self.pairs: list[tuple[str, str]] = []
        self.others: list[str] = []

    def given(self, name: str, shape: tuple[int, ...]) -> str:
        return self.b.input(name, 1, shape)

    def mask(self, i: int, shape: tuple[int, ...]) -> str | None:
        return self.given(f"mask{i}", shape) if self.masked and len(shape) > 1 else None

    def number(self, value: float) -> str:
        return self.b.constant(np.array(value, np.float32))

    def scalars(self) -> tuple[str, str, str]:
        """Offset, size and share kept of the chosen form."""
        from onnxprune.training.update.optimizers import Optimizer, _adamw_scalars

        offset, size = _adamw_scalars(self.b, Optimizer(), self.rate, self.step)
        kept = self.b.op("Sub", self.number(1), self.b.op("Mul", self.rate, self.number(DECAY)))
        return offset, size, kept


def library(step: Step, **fields: object) -> None:
    from onnxprune.training.update.optimizers import Optimizer, Slot, append_updates, state_names

    optimizer = Optimizer(**fields)  # type: ignore[arg-type]
    slots = []
    for i, shape in enumerate(SHAPES):
        states = tuple(step.given(f"{name}{i}", shape) for name in state_names(optimizer))
        weight, gradient = step.given(f"w{i}", shape), step.given(f"g{i}", shape)
        slots.append(Slot(weight, gradient, states, step.mask(i, shape)))
    updated = append_updates(step.b, optimizer, slots, step.rate, step.step)
    for slot, new in zip(slots, updated, strict=True):
        step.pairs += zip((slot.weight, *slot.states), (new.weight, *new.states), strict=True)


Scaled = Callable[[Step, str, str, float, tuple[int, ...]], str]


def plain_sum(step: Step, state: str, added: str, beta: float, shape: tuple[int, ...]) -> str:
    return step.b.op("Add", step.b.op("Mul", state, step.number(beta)), added)


def gemm_sum(step: Step, state: str, added: str, beta: float, shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return plain_sum(step, state, added, beta, shape)
    one = step.b.constant(np.ones((1, 1), np.float32))
    flat = [step.b.reshape(name, [1, -1]) for name in (state, added)]
    return step.b.reshape(step.b.op("Gemm", one, *flat, alpha=beta), shape)


def gated_sum(step: Step, state: str, added: str, beta: float, shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return plain_sum(step, state, added, beta, shape)
    gates = step.b.constant(np.full((shape[0], 1), beta, np.float32))
    result = step.b.op("GatedAdd", added, state, gates, domain="com.microsoft")
    step.b.values.declare(result, state)
    return result


def adamw(
    step: Step,
    scalars: tuple[str, str, str],
    values: list[str],
    shape: tuple[int, ...],
    add: Scaled,
) -> tuple[str, str, str]:
    """New weight and moments of (weight, gradient, first, second moment)."""
    b, (offset, size, kept) = step.b, scalars
    weight, gradient, m, v = values
    m = add(step, m, gradient, BETAS[0], shape)
    v = add(step, v, b.op("Mul", gradient, gradient), BETAS[1], shape)
    change = b.op("Mul", b.op("Div", m, b.op("Add", b.op("Sqrt", v), offset)), size)
    return b.op("Sub", b.op("Mul", weight, kept), change), m, v


def tensors(step: Step, i: int, shape: tuple[int, ...]) -> tuple[list[str], list[str]]:
    """Names of the values that are updated, and the inputs of `adamw`."""
    weight, gradient, m, v = (step.given(f"{name}{i}", shape) for name in "wgmv")
    mask = step.mask(i, shape)
    masked = step.b.op("Mul", gradient, mask) if mask else gradient
    return [weight, m, v], [weight, masked, m, v]


def each(step: Step, add: Scaled) -> None:
    scalars = step.scalars()
    for i, shape in enumerate(SHAPES):
        old, values = tensors(step, i, shape)
        step.pairs += zip(old, adamw(step, scalars, values, shape, add), strict=True)


def textbook(step: Step) -> None:
    b, (offset, size, kept) = step.b, step.scalars()
    for i, shape in enumerate(SHAPES):
        old, (weight, gradient, m, v) = tensors(step, i, shape)
        scaled = [
            b.op("Mul", value, step.number(1 - beta))
            for value, beta in zip((gradient, b.op("Mul", gradient, gradient)), BETAS, strict=True)
        ]
        m = plain_sum(step, m, scaled[0], BETAS[0], shape)
        v = plain_sum(step, v, scaled[1], BETAS[1], shape)
        root = b.op("Add", b.op("Sqrt", b.op("Mul", v, size)), offset)
        change = b.op("Mul", b.op("Div", m, root), step.rate)
        new = b.op("Sub", b.op("Mul", weight, kept), change)
        step.pairs += zip(old, (new, m, v), strict=True)


def grouped(step: Step) -> None:
    b, scalars, small = step.b, step.scalars(), []
    for i, shape in enumerate(SHAPES):
        old, values = tensors(step, i, shape)
        if math.prod(shape) >= SMALL:
            step.pairs += zip(old, adamw(step, scalars, values, shape, plain_sum), strict=True)
        else:
            small.append((shape, old, values))
    joined = [
        b.op("Concat", *(b.reshape(values[k], [-1]) for _, _, values in small), axis=0)
        for k in range(4)
    ]
    sizes = b.constant([math.prod(shape) for shape, _, _ in small])
    for k, new in enumerate(adamw(step, scalars, joined, (-1,), plain_sum)):
        parts = b.ops("Split", new, sizes, outputs=len(small), axis=0)
        for (shape, old, _), part in zip(small, parts, strict=True):
            step.pairs.append((old[k], b.reshape(part, shape)))


def flat(step: Step) -> None:
    b, sizes = step.b, [math.prod(shape) for shape in SHAPES]
    gradients = [step.given(f"g{i}", shape) for i, shape in enumerate(SHAPES)]
    old = [step.given(name, (sum(sizes),)) for name in "wmv"]
    gradient = b.op("Concat", *(b.reshape(name, [-1]) for name in gradients), axis=0)
    if step.masked:
        gradient = b.op("Mul", gradient, step.given("mask", (sum(sizes),)))
    values = [old[0], gradient, *old[1:]]
    step.pairs += zip(old, adamw(step, step.scalars(), values, (-1,), plain_sum), strict=True)
    # What the forward pass would read.
    step.others = b.ops("Split", old[0], b.constant(sizes), outputs=len(sizes), axis=0)


BUILD: dict[str, Callable[[Step], None]] = {
    "chosen": lambda step: library(step, l2=DECAY),
    "textbook": textbook,
    "gemm": lambda step: each(step, gemm_sum),
    "gated": lambda step: each(step, gated_sum),
    "grouped": grouped,
    "flat": flat,
    "sgd": lambda step: library(step, name="sgd", l2=DECAY),
    "sgd nesterov": lambda step: library(step, name="sgd", nesterov=True, l2=DECAY),
}


def graph_microseconds(form: str, masked: bool) -> float:
    """Median time of a step, its values in two buffers that take turns."""
    import onnxruntime
    from onnx import helper

    step = Step(masked)
    BUILD[form](step)
    for name in [new for _, new in step.pairs] + step.others:
        info = helper.make_tensor_value_info(name, 1, step.b.static_shape(name))
        step.proto.graph.output.append(info)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(
        step.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    random = np.random.default_rng(0)
    place = onnxruntime.OrtValue.ortvalue_from_numpy
    first = {"rate": place(np.array(1e-3, np.float32)), "step": place(np.array(5, np.int64))}
    for info in session.get_inputs():
        if info.name not in first:
            value = np.abs(random.standard_normal(info.shape, np.float32))
            first[info.name] = place(
                (value > 1).astype(np.float32) if "mask" in info.name else value
            )
    second = dict(first)
    for name, _ in step.pairs:
        second[name] = place(np.zeros(step.b.static_shape(name) or (), np.float32))
    bindings = []
    for old, new in ((first, second), (second, first)):
        binding = session.io_binding()
        for name, value in old.items():
            binding.bind_ortvalue_input(name, value)
        for name, result in step.pairs:
            binding.bind_ortvalue_output(result, new[name])
        for name in step.others:
            binding.bind_output(name)
        bindings.append(binding)

    def run(number: int) -> None:
        session.run_with_iobinding(bindings[number % 2])

    return median_microseconds(run)


def torch_microseconds(form: str) -> float:
    import torch

    torch.set_num_threads(THREADS)
    kind, way = form.split()
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    fields = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(torch.optim, kind)(
        parameters, lr=1e-3, weight_decay=DECAY, **{way: True}, **fields
    )
    return median_microseconds(lambda number: optimizer.step())


def median_microseconds(run: Callable[[int], None]) -> float:
    for number in range(60):
        run(number)
    times = []
    for number in range(STEPS):
        started = time.perf_counter()
        run(number)
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def measured(python: str, kind: str, form: str, masked: bool) -> float | str:
    """Microseconds from a process of its own, or the last line of its errors."""
    command = [python, __file__, "--child", kind, form, *(["--masked"] if masked else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1][:90]
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure every form in turn; print medians of medians and their ratio to the chosen form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--masked", action="store_true", help="multiply gradients by masks")
    parser.add_argument("--torch", metavar="PYTHON", help="interpreter that has PyTorch")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, form = options.child
        graph = kind == "graph"
        print(graph_microseconds(form, options.masked) if graph else torch_microseconds(form))
        return
    rows = [(sys.executable, "graph", form) for form in GRAPHS]
    rows += [(options.torch, "torch", form) for form in TORCH if options.torch]
    results: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for python, kind, form in rows:
            found = measured(python, kind, form, options.masked)
            if isinstance(found, str):
                print(f"{kind} {form}: {found}")
            else:
                results.setdefault(f"{kind} {form}", []).append(found)
    base = statistics.median(results["graph chosen"])
    print(f"{'form':24}{'microseconds':>14}{'x chosen':>10}")
    for name, times in results.items():
        median = statistics.median(times)
        print(f"{name:24}{median:14.0f}{median / base:10.2f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
