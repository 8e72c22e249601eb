"""Checks of convolutions against numpy, for the tests of their gradients."""

from __future__ import annotations

import importlib.util

import numpy as np
from hypothesis import strategies as st
from onnx import helper

from tests.training.evaluate64 import evaluate
from tests.training.gradcheck import Check, Draw, relative_error

TORCH = importlib.util.find_spec("torch") is not None
#: What is known of the sizes: all of them; all but the batch; the weights only; nothing but the
#: number of axes; not even that.
MODES = ("static", "batch", "weights")
EVERY = (*MODES, "symbolic", "unranked")


class ConvolutionCheck(Check):
    """A check that also knows inputs of which only some sizes are known."""

    def model(self, mode="static"):
        if mode not in ("batch", "weights"):
            return super().model(mode)
        model = super().model("static")
        for info in model.graph.input:
            dims = info.type.tensor_type.shape.dim
            for axis, dim in enumerate(dims if info.name in ("x0", "x3") else ()):
                if axis == 0 or (axis > 1 and mode == "weights"):
                    dim.Clear()
                    dim.dim_param = f"{info.name}_{axis}"
        return model

    def check(self):
        forward = evaluate(self.model(), {name: self.values[name] for name in self.values})["y0"]
        expected = self._forward()["y0"]
        assert forward.shape == expected.shape
        assert relative_error(forward, expected) < 1e-5, "the reference is not onnxruntime's"
        self.finite_differences()
        if TORCH and self.torch:
            self.pytorch()


def geometry(kernel, given):
    rank = len(kernel)
    return (
        given.get("strides", [1] * rank),
        given.get("dilations", [1] * rank),
        given.get("pads", [0] * 2 * rank),
        given.get("group", 1),
    )


def window(tap, sizes, strides, dilations):
    """Where a kernel element lies for every position."""
    parts = zip(tap, sizes, strides, dilations, strict=True)
    return tuple(slice(k * d, k * d + (n - 1) * s + 1, s) for k, n, s, d in parts)


def convolve(x, w, bias=None, **given):
    """Conv in numpy."""
    strides, dilations, pads, group = geometry(w.shape[2:], given)
    rank = len(strides)
    x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    parts = zip(x.shape[2:], w.shape[2:], strides, dilations, strict=True)
    sizes = [(size - (k - 1) * d - 1) // s + 1 for size, k, s, d in parts]
    weight = w.reshape(group, -1, *w.shape[1:])
    y = 0.0
    for tap in np.ndindex(*w.shape[2:]):
        part = x[(..., *window(tap, sizes, strides, dilations))]
        part = part.reshape(len(x), group, w.shape[1], -1)
        y = y + np.matmul(weight[(..., *tap)], part)
    y = y.reshape(len(x), len(w), *sizes)
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def convolve_back(x, w, bias=None, more=None, **given):
    """ConvTranspose in numpy; `more` is the output padding."""
    strides, dilations, pads, group = geometry(w.shape[2:], given)
    rank, sizes = len(strides), x.shape[2:]
    parts = zip(sizes, w.shape[2:], strides, dilations, more or [0] * rank, strict=True)
    full = [(size - 1) * s + (k - 1) * d + 1 + extra for size, k, s, d, extra in parts]
    y = np.zeros((len(x), group * w.shape[1], *full))
    weight = w.reshape(group, -1, *w.shape[1:]).swapaxes(1, 2)
    left = x.reshape(len(x), group, len(w) // group, -1)
    for tap in np.ndindex(*w.shape[2:]):
        part = np.matmul(weight[(..., *tap)], left).reshape(len(x), -1, *sizes)
        y[(..., *window(tap, sizes, strides, dilations))] += part
    cut = zip(pads[:rank], full, pads[rank:], strict=True)
    y = y[(..., *(slice(before, size - after) for before, size, after in cut))]
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def torch_conv(given):
    def run(t, x, w, bias=None):
        strides, dilations, pads, group = geometry(w.shape[2:], given)
        rank = len(strides)
        around = [pad for i in reversed(range(rank)) for pad in (pads[i], pads[i + rank])]
        function = getattr(t.nn.functional, f"conv{rank}d")
        x = t.nn.functional.pad(x, around)
        return function(x, w, bias, tuple(strides), 0, tuple(dilations), group)

    return run


def torch_conv_transpose(given, more):
    def run(t, x, w, bias=None):
        strides, dilations, pads, group = geometry(w.shape[2:], given)
        rank = len(strides)
        function = getattr(t.nn.functional, f"conv_transpose{rank}d")
        y = function(x, w, bias, tuple(strides), 0, tuple(more), group, tuple(dilations))
        around = [-pad for i in reversed(range(rank)) for pad in (pads[i], pads[i + rank])]
        return t.nn.functional.pad(y, around)

    return run


def draw(shapes, seed=3):
    random = np.random.default_rng(seed)
    return {
        f"x{i}": Draw(shape).values(random) for i, shape in enumerate(shapes) if shape is not None
    }


def shown(attributes, pads):
    """The attribute for pads, where nothing else stands for them."""
    return {"pads": pads} if pads and not {"auto_pad", "output_shape"} & set(attributes) else {}


def conv(x, w, *, bias=False, pads=None, modes=MODES, **attributes):
    """A check of Conv; with auto_pad, `pads` are those that it amounts to."""
    values = draw([x, w, (w[0],)] if bias else [x, w])
    node = helper.make_node(
        "Conv", list(values), ["y0"], name="node", **attributes, **shown(attributes, pads)
    )
    known = {**attributes, **({"pads": pads} if pads else {})}
    return ConvolutionCheck(
        [node],
        values,
        ["y0"],
        reference=lambda *given: convolve(*given, **known),
        torch=torch_conv(known),
        modes=modes,
    )


def conv_transpose(x, w, *, bias=False, pads=None, more=None, modes=MODES, **attributes):
    """A check of ConvTranspose; `pads`, `more`: also what auto_pad and output_shape amount to."""
    values = draw([x, w, (w[1] * attributes.get("group", 1),)] if bias else [x, w])
    node = helper.make_node(
        "ConvTranspose", list(values), ["y0"], name="node", **attributes, **shown(attributes, pads)
    )
    known = {**attributes, **({"pads": pads} if pads else {})}
    more = more or attributes.get("output_padding", [0] * (len(x) - 2))
    return ConvolutionCheck(
        [node],
        values,
        ["y0"],
        reference=lambda *given: convolve_back(*given, more=more, **known),
        torch=torch_conv_transpose(known, more),
        modes=modes,
    )


@st.composite
def geometries(draw_):
    """Kernel, strides, dilations, pads and groups of something small."""
    rank = draw_(st.sampled_from((1, 1, 2, 2, 3)))
    most = {1: 5, 2: 5, 3: 2}[rank]

    def each(low, high, count=rank):
        return draw_(st.lists(st.integers(low, high), min_size=count, max_size=count))

    group, inner, outer = draw_(
        st.sampled_from(
            [(1, 1, 1), (1, 2, 1), (1, 5, 2), (2, 1, 1), (2, 2, 1), (3, 1, 1), (2, 1, 2)]
        )
    )
    attributes = {
        "strides": each(1, 3),
        "dilations": each(1, 2),
        "pads": each(0, 2, 2 * rank),
        "group": group,
    }
    return each(1, most), attributes, inner, outer
