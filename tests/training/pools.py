"""Checks of pooling against numpy, for the tests of its gradients."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
from onnx import helper

from tests.training.evaluate64 import evaluate
from tests.training.gradcheck import Check, Draw, relative_error

TORCH = importlib.util.find_spec("torch") is not None
EVERY = ("static", "symbolic", "unranked")


def settle(kernel, given):
    """Strides, dilations and pads of a pooling node."""
    rank = len(kernel)
    return (
        given.get("strides", [1] * rank),
        given.get("dilations", [1] * rank),
        given.get("pads", [0] * 2 * rank),
    )


def count(size, width, stride, dilation, before, after, ceil):
    """Number of positions of a window along an axis."""
    room = size + before + after - (width - 1) * dilation - 1
    found = (-(-room // stride) if ceil else room // stride) + 1
    return found - 1 if ceil and (found - 1) * stride >= size + before else found


def windows(shape, kernel, given):
    """For every position, row by row: the flat indices it reads, and how many it counts."""
    strides, dilations, pads = settle(kernel, given)
    rank = len(kernel)
    axes = []
    for axis, (size, width, stride, dilation) in enumerate(
        zip(shape, kernel, strides, dilations, strict=True)
    ):
        before, after = pads[axis], pads[axis + rank]
        number = count(size, width, stride, dilation, before, after, given.get("ceil_mode", 0))
        reads = []
        for position in range(number):
            at = position * stride - before + np.arange(width) * dilation
            reads.append((at[(at >= 0) & (at < size)], int((at < size + after).sum())))
        axes.append(reads)
    sizes = [len(reads) for reads in axes]
    found = []
    for index in np.ndindex(*sizes):
        chosen = [axes[axis][place] for axis, place in enumerate(index)]
        grid = np.meshgrid(*(places for places, _ in chosen), indexing="ij")
        flat = np.ravel_multi_index([part.ravel() for part in grid], shape)
        found.append((flat, math.prod(counted for _, counted in chosen)))
    return sizes, found


def pool(function, kernel, given):
    """Pooling in numpy: `function` gets the values of a window and the number it counts."""

    def run(x):
        sizes, parts = windows(x.shape[2:], kernel, given)
        rows = x.reshape(*x.shape[:2], -1)
        y = np.stack([function(rows[..., flat], counted) for flat, counted in parts], axis=-1)
        return y.reshape(*x.shape[:2], *sizes)

    return run


def mean(with_pads):
    return lambda part, counted: part.sum(-1) / (counted if with_pads else part.shape[-1])


def norm(power):
    return lambda part, counted: (np.abs(part) ** power).sum(-1) ** (1 / power)


class PoolCheck(Check):
    def model(self, mode="static"):
        model = super().model("static" if mode == "batch" else mode)
        if mode == "batch":
            model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
        return model

    def check(self):
        forward = evaluate(self.model(), dict(self.values))["y0"]
        expected = self._forward()["y0"]
        assert forward.shape == expected.shape
        assert relative_error(forward, expected) < 1e-5, "the reference is not onnxruntime's"
        self.finite_differences()
        if TORCH and self.torch:
            self.pytorch()


def pooling(op, shape, kernel, *, pads=None, torch=None, modes=EVERY, **attributes):
    """A check of a pooling operator; with auto_pad, `pads` are those that it amounts to."""
    values = {"x0": Draw(shape, distinct=True).values(np.random.default_rng(5))}
    known = {**attributes, **({"pads": pads} if pads else {})}
    shown = {key: value for key, value in known.items() if key != "pads" or "auto_pad" not in known}
    function = {
        "MaxPool": lambda part, counted: part.max(-1),
        "AveragePool": mean(attributes.get("count_include_pad", 0)),
        "LpPool": norm(attributes.get("p", 2)),
    }[op]
    node = helper.make_node(op, ["x0"], ["y0"], name="node", kernel_shape=kernel, **shown)
    return PoolCheck(
        [node],
        values,
        ["y0"],
        reference=pool(function, kernel, known),
        torch=torch,
        modes=("batch", *modes),
    )


def torch_max(kernel, given):
    """PyTorch's, with padding of its own: any on each side."""

    def run(t, x):
        rank = len(kernel)
        strides, dilations, pads = settle(kernel, given)
        around = [pad for i in reversed(range(rank)) for pad in (pads[i], pads[i + rank])]
        function = getattr(t.nn.functional, f"max_pool{rank}d")
        x = t.nn.functional.pad(x, around, value=-1e3)
        return function(x, kernel, strides, 0, dilations, bool(given.get("ceil_mode", 0)))

    return run


def torch_average(kernel, given):
    def run(t, x):
        rank = len(kernel)
        strides, _, pads = settle(kernel, given)
        assert pads[:rank] == pads[rank:]
        function = getattr(t.nn.functional, f"avg_pool{rank}d")
        ceil, counted = (bool(given.get(n, 0)) for n in ("ceil_mode", "count_include_pad"))
        return function(x, kernel, strides, pads[:rank], ceil, counted)

    return run


def against_torch(op, shape, kernel, **given):
    function = {"MaxPool": torch_max, "AveragePool": torch_average}[op]
    return pooling(op, shape, kernel, torch=function(kernel, given), **given)
