"""Gradients of convolutions and transposed convolutions."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.training.backward import pull_back
from onnxprune.training.builder import GraphBuilder
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


CONVOLUTIONS = {
    "1-d": lambda: conv((2, 2, 6), (3, 2, 3), bias=True),
    "1-d kernel 1": lambda: conv((2, 3, 4), (2, 3, 1), bias=True),
    "1-d stride, rest": lambda: conv((2, 2, 8), (3, 2, 3), strides=[3], pads=[1, 0]),
    "2-d": lambda: conv((2, 2, 4, 5), (3, 2, 3, 3), bias=True, pads=[1, 1, 1, 1]),
    "2-d pads": lambda: conv((1, 2, 4, 3), (2, 2, 3, 2), pads=[2, 0, 1, 2], dilations=[1, 2]),
    "2-d stride": lambda: conv((2, 2, 5, 6), (2, 2, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
    "2-d stride 3": lambda: conv((1, 2, 8, 7), (2, 2, 2, 3), strides=[3, 2], pads=[0, 1, 2, 1]),
    "pointwise": lambda: conv((2, 3, 2, 3), (4, 3, 1, 1), bias=True),
    "pointwise stride": lambda: conv((2, 3, 4, 3), (2, 3, 1, 1), strides=[2, 2]),
    "pointwise pads": lambda: conv((1, 2, 2, 2), (2, 2, 1, 1), pads=[1, 0, 0, 1]),
    "3-d": lambda: conv((1, 2, 3, 2, 3), (2, 2, 2, 1, 2), pads=[1, 0, 0, 0, 1, 1]),
    "3-d stride": lambda: conv((1, 1, 4, 3, 4), (2, 1, 2, 2, 3), strides=[2, 1, 2]),
    "groups": lambda: conv((2, 4, 3, 4), (6, 2, 2, 2), group=2, bias=True, pads=[0, 1, 0, 0]),
    "depthwise": lambda: conv((2, 3, 4, 3), (3, 1, 3, 3), group=3, pads=[1, 1, 1, 1]),
    "depthwise stride": lambda: conv((1, 2, 5, 4), (4, 1, 3, 2), group=2, strides=[2, 3]),
    "groups 1-d": lambda: conv((2, 4, 5), (2, 2, 3), group=2, dilations=[2], pads=[1, 1]),
    "groups pointwise": lambda: conv((2, 4, 3), (4, 2, 1), group=2),
    # the products of single samples (many positions), of the whole batch, and the convolution
    "by sample": lambda: conv((2, 5, 12), (1, 5, 2), bias=True),
    "by tap": lambda: conv(
        (2, 6, 2, 3), (2, 6, 2, 2), kernel_shape=[2, 2], pads=[1, 0, 0, 0], modes=EVERY
    ),
    "by tap stride": lambda: conv((2, 5, 4, 3), (1, 5, 3, 2), strides=[2, 2], pads=[1, 1, 1, 0]),
    "many taps": lambda: conv((2, 1, 6, 6), (2, 1, 5, 5), pads=[2, 0, 1, 1]),
    "many taps stride": lambda: conv((1, 1, 8, 6), (2, 1, 5, 5), strides=[3, 2]),
    "many taps dilated": lambda: conv((1, 1, 34), (1, 1, 25), dilations=[1], strides=[2]),
    "many taps steps": lambda: conv(
        (1, 2, 10, 5), (1, 2, 5, 5), strides=[3, 1], dilations=[2, 1], pads=[1, 1, 0, 0]
    ),
    # the weight's shape is unknown too
    "unknown weight": lambda: conv(
        (2, 2, 4, 3), (3, 2, 2, 2), kernel_shape=[2, 2], strides=[2, 1], bias=True, modes=EVERY
    ),
    "unknown many": lambda: conv((1, 1, 30), (2, 1, 26), kernel_shape=[26], modes=EVERY),
    "unknown pointwise": lambda: conv((2, 2, 3), (3, 2, 1), kernel_shape=[1], modes=EVERY),
    "VALID": lambda: conv((1, 2, 5, 4), (2, 2, 3, 2), auto_pad="VALID", strides=[2, 1]),
    "SAME_UPPER": lambda: conv(
        (1, 2, 4, 5), (2, 2, 2, 3), auto_pad="SAME_UPPER", pads=[0, 1, 1, 1]
    ),
    "SAME_LOWER": lambda: conv(
        (1, 2, 4, 5), (2, 2, 2, 3), auto_pad="SAME_LOWER", pads=[1, 1, 0, 1]
    ),
    "SAME_UPPER stride": lambda: conv(
        (1, 2, 6, 5), (2, 2, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2], pads=[0, 1, 1, 1]
    ),
    "SAME_LOWER stride": lambda: conv(
        (1, 2, 6, 5), (2, 2, 3, 3), auto_pad="SAME_LOWER", strides=[2, 2], pads=[1, 1, 0, 1]
    ),
    "SAME_UPPER mixed": lambda: conv(
        (2, 5, 4, 7), (1, 5, 2, 4), auto_pad="SAME_UPPER", strides=[1, 3], pads=[0, 1, 1, 2]
    ),
    "SAME_UPPER small": lambda: conv(
        (1, 2, 7), (2, 2, 1), auto_pad="SAME_UPPER", strides=[3], pads=[0, 0]
    ),
    "SAME_LOWER many": lambda: conv(
        (1, 1, 6, 5), (1, 1, 5, 5), auto_pad="SAME_LOWER", strides=[2, 1], pads=[2, 2, 1, 2]
    ),
    "SAME groups": lambda: conv(
        (1, 2, 4, 4),
        (2, 1, 3, 3),
        auto_pad="SAME_UPPER",
        strides=[2, 2],
        group=2,
        pads=[0, 0, 1, 1],
    ),
}
TRANSPOSED = {
    "1-d": lambda: conv_transpose((2, 2, 4), (2, 3, 3), bias=True),
    "kernel 1": lambda: conv_transpose((2, 3, 4), (3, 2, 1), bias=True),
    "2-d stride": lambda: conv_transpose((1, 2, 3, 2), (2, 2, 2, 2), strides=[2, 2], bias=True),
    "pads": lambda: conv_transpose(
        (1, 2, 3, 3), (2, 2, 3, 4), strides=[2, 1], pads=[1, 0, 0, 2], output_padding=[1, 0]
    ),
    "dilations": lambda: conv_transpose((1, 2, 3, 2), (2, 1, 2, 3), dilations=[2, 1]),
    "groups": lambda: conv_transpose(
        (1, 4, 3, 2), (4, 2, 2, 2), group=2, strides=[1, 2], bias=True, pads=[0, 1, 0, 0]
    ),
    "depthwise": lambda: conv_transpose((2, 3, 3), (3, 1, 3), group=3, strides=[2]),
    "3-d": lambda: conv_transpose((1, 2, 2, 2, 2), (2, 2, 2, 1, 2), strides=[2, 1, 1]),
    "many taps": lambda: conv_transpose(
        (1, 2, 2, 2), (2, 1, 5, 5), strides=[2, 2], pads=[1, 1, 2, 2], output_padding=[1, 0]
    ),
    "by tap": lambda: conv_transpose((2, 2, 2, 2), (2, 6, 2, 2), strides=[1, 2]),
    "unknown weight": lambda: conv_transpose(
        (1, 2, 3, 2), (2, 2, 2, 2), kernel_shape=[2, 2], strides=[2, 1], bias=True, modes=EVERY
    ),
    "VALID": lambda: conv_transpose((1, 2, 3), (2, 2, 2), auto_pad="VALID", strides=[2]),
    "SAME_UPPER": lambda: conv_transpose(
        (1, 2, 3, 2), (2, 2, 3, 3), auto_pad="SAME_UPPER", strides=[2, 1], pads=[0, 1, 1, 1]
    ),
    "SAME_LOWER": lambda: conv_transpose(
        (1, 2, 3, 2), (2, 2, 3, 4), auto_pad="SAME_LOWER", strides=[2, 1], pads=[1, 2, 0, 1]
    ),
    "SAME small kernel": lambda: conv_transpose(
        (1, 1, 4), (1, 2, 1), auto_pad="SAME_LOWER", strides=[3], pads=[0, 0]
    ),
    "output_shape": lambda: conv_transpose(
        (1, 2, 3, 3), (2, 2, 3, 3), strides=[2, 2], output_shape=[6, 4], pads=[1, 2, 0, 1]
    ),
    "output_shape upper": lambda: conv_transpose(
        (1, 2, 3, 3),
        (2, 2, 3, 3),
        strides=[2, 2],
        output_shape=[6, 5],
        auto_pad="SAME_UPPER",
        pads=[0, 1, 1, 1],
    ),
    "output_shape more": lambda: conv_transpose(
        (1, 2, 3), (2, 2, 3), strides=[2], output_shape=[8], pads=[0, 0], more=[1]
    ),
    "output_shape all": lambda: conv_transpose(
        (1, 1, 3), (1, 1, 4), strides=[2], output_shape=[7], output_padding=[1], pads=[1, 1]
    ),
}


@pytest.mark.parametrize("make", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_conv(make):
    make().check()


@pytest.mark.parametrize("make", TRANSPOSED.values(), ids=TRANSPOSED)
def test_conv_transpose(make):
    make().check()


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


@settings(max_examples=30, deadline=None, derandomize=True)
@given(geometries(), st.data())
def test_any_conv(geometry, data):
    kernel, attributes, inner, outer = geometry
    group, rank = attributes["group"], len(kernel)
    sizes = []
    for axis, width in enumerate(kernel):
        pads = attributes["pads"][axis] + attributes["pads"][axis + rank]
        reach = (width - 1) * attributes["dilations"][axis] + 1
        least = max(reach - pads, 1)
        sizes.append(data.draw(st.integers(least, least + (4 if rank < 3 else 1))))
    batch = 2 if math.prod(sizes) * inner * group < 25 else 1
    weight = (outer * group, inner, *kernel)
    conv((batch, inner * group, *sizes), weight, bias=True, **attributes).check()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(geometries(), st.data())
def test_any_conv_transpose(geometry, data):
    kernel, attributes, inner, outer = geometry
    group, rank = attributes["group"], len(kernel)
    steps = attributes["strides"]
    attributes["output_padding"] = [data.draw(st.integers(0, step - 1)) for step in steps]
    sizes = []
    for axis, width in enumerate(kernel):
        pads = attributes["pads"][axis] + attributes["pads"][axis + rank]
        reach = (width - 1) * attributes["dilations"][axis] + 1
        least = max(math.ceil((pads + 1 - reach) / steps[axis]) + 1, 1)
        sizes.append(data.draw(st.integers(least, least + (2 if rank < 3 else 1))))
    weight = (inner * group, outer, *kernel)
    conv_transpose((2, inner * group, *sizes), weight, bias=True, **attributes).check()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.sampled_from(("SAME_UPPER", "SAME_LOWER")),
    st.lists(
        st.tuples(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3)), min_size=1, max_size=2
    ),
)
def test_any_same_padding(auto, axes):
    sizes, kernel, strides = (list(values) for values in zip(*axes, strict=True))
    totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in axes]
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    pads = less + more if auto == "SAME_UPPER" else more + less
    conv((1, 2, *sizes), (2, 2, *kernel), auto_pad=auto, strides=strides, pads=pads).check()


# ---- which form --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "w", "group", "expected"),
    [
        ((8, 16, 32, 32), (16, 16, 3, 3), 1, {"MatMul": 9, "Slice": 9, "ReduceSum": 1}),
        ((8, 64, 8, 8), (64, 64, 3, 3), 1, {"Gemm": 9, "Slice": 9}),
        ((8, 3, 8, 8), (16, 3, 3, 3), 1, {"Gemm": 1, "Slice": 9}),
        ((8, 1, 8, 8), (16, 1, 5, 5), 1, {"Conv": 1}),
        ((8, 16, 8, 8), (16, 16, 5, 5), 1, {"Conv": 1}),
        ((8, 16, 8, 8), (16, 1, 3, 3), 16, {"MatMul": 9, "Slice": 9, "ReduceSum": 1}),
        ((8, 64, 8, 8), (128, 64, 1, 1), 1, {"Gemm": 1}),
    ],
)
def test_form_of_the_weight_gradient(x, w, group, expected):
    pads = [w[-1] // 2] * 4
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="node", pads=pads, group=group)
    infos = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", x), ("w", w))]
    graph = helper.make_graph([node], "g", infos, [])
    builder = GraphBuilder(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]))
    pull_back(builder, {"y": "y"}, ["w"])
    made = [node.op_type for node in builder.graph.node[1:]]
    work = {kind: made.count(kind) for kind in ("MatMul", "Gemm", "Conv", "Slice", "ReduceSum")}
    assert {kind: count for kind, count in work.items() if count} == expected


def test_form_of_the_input_gradient():
    for kernel, expected in ((1, ["MatMul"]), (3, ["ConvTranspose"])):
        node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[kernel // 2] * 4)
        shapes = (("x", ["N", 4, "H", "W"]), ("w", [4, 4, kernel, kernel]))
        infos = [helper.make_tensor_value_info(n, 1, s) for n, s in shapes]
        graph = helper.make_graph([node], "g", infos, [])
        builder = GraphBuilder(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
        )
        pull_back(builder, {"y": "y"}, ["x"])
        shapely = ("Conv", "Reshape", "Shape", "Flatten", "Transpose")
        made = [node.op_type for node in builder.graph.node if node.op_type not in shapely]
        assert made == expected  # nothing is padded, cut or measured at run time


# ---- FusedConv ---------------------------------------------------------------------------------

ACTIVATIONS = {
    "": ([], lambda z: z),
    "Relu": ([], lambda z: np.maximum(z, 0)),
    "LeakyRelu": ([0.25], lambda z: np.where(z > 0, z, 0.25 * z)),
    "Clip": ([-0.5, 1.5], lambda z: np.clip(z, -0.5, 1.5)),
    "HardSigmoid": ([0.3, 0.4], lambda z: np.clip(0.3 * z + 0.4, 0, 1)),
    "Sigmoid": ([], lambda z: 1 / (1 + np.exp(-z))),
    "Tanh": ([], np.tanh),
}


def fused(kind, parameters, function, *, bias=True, addend=False):
    shapes = [(1, 2, 4, 3), (2, 2, 3, 2), (2,) if bias else None, (1, 2, 4, 2) if addend else None]
    values = draw(shapes, seed=11)
    names = [f"x{i}" if shape else "" for i, shape in enumerate(shapes)]
    while not names[-1]:
        names.pop()
    attributes = {"activation": kind, "activation_params": parameters} if kind else {}
    if kind and not parameters:
        del attributes["activation_params"]
    node = helper.make_node(
        "FusedConv",
        names,
        ["y0"],
        name="node",
        domain="com.microsoft",
        pads=[1, 0, 1, 0],
        **attributes,
    )

    def reference(x, w, *rest):
        z = convolve(x, w, rest[0] if bias else None, pads=[1, 0, 1, 0])
        return function(z + rest[-1] if addend else z)

    return ConvolutionCheck(
        [node], values, ["y0"], reference=reference, modes=("static", "weights")
    )


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_fused_conv(kind):
    fused(kind, *ACTIVATIONS[kind]).check()


def test_fused_conv_with_addend():
    fused("Relu", *ACTIVATIONS["Relu"], addend=True).check()
    fused("Relu", *ACTIVATIONS["Relu"], bias=False, addend=True).check()


def test_fused_conv_with_another_activation():
    with pytest.raises(ModelError, match="FusedConv 'node' has the activation 'Softplus'"):
        fused("Softplus", [], np.tanh).gradients("static")


# ---- what is refused ---------------------------------------------------------------------------


def test_unknown_kernel():
    check = conv((1, 2, 4), (2, 2, 3))
    with pytest.raises(ModelError, match="the kernel of Conv 'node' has no known size"):
        check.gradients("symbolic")


def test_groups_of_unknown_weight():
    check = conv((1, 2, 4), (2, 1, 3), group=2, kernel_shape=[3])
    with pytest.raises(ModelError, match=r"Conv 'node' has groups.*fixed shape"):
        check.gradients("symbolic")
    found = check.gradients("symbolic", ["x0"])
    assert found["x0"].shape == (1, 2, 4)


def test_same_with_dilations():
    check = conv((1, 2, 6), (2, 2, 3), auto_pad="SAME_UPPER", dilations=[2], pads=[2, 2])
    with pytest.raises(ModelError, match="Conv 'node' has auto_pad and dilations"):
        check.gradients("static")
