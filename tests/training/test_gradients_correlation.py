"""Forms of the gradient of convolution weights: all give the same, and which is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from onnxprune.training.builder import GraphBuilder
from onnxprune.training.gradients.correlation import FORMS, Sizes, choose_form
from onnxprune.training.gradients.windows import Window
from tests.training.convolutions import geometries, window
from tests.training.evaluate64 import evaluate
from tests.training.gradcheck import relative_error

GROUPED = ("samples", "sample taps")


def correlate(large, small, kernel, strides, dilations, pads, group):
    """The gradient of a convolution's weight in numpy, in float64."""
    rank = len(kernel)
    large = np.pad(large, [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    large = large.reshape(len(large), group, -1, *large.shape[2:]).astype(np.float64)
    left = small.reshape(len(small), group, small.shape[1] // group, -1)
    found = np.zeros((small.shape[1], large.shape[2], *kernel))
    for tap in np.ndindex(*kernel):
        part = large[(..., *window(tap, small.shape[2:], strides, dilations))]
        product = np.einsum("ngrp,ngcp->grc", left, part.reshape(*large.shape[:3], -1))
        found[(..., *tap)] = product.reshape(found.shape[:2])
    return found


def built(form, large, small, kernel, attributes, *, late=False):
    """The same by one of the forms, and what it is made of; `late`: pads known at run time only."""
    strides, dilations, pads, group = (
        attributes[name] for name in ("strides", "dilations", "pads", "group")
    )
    feeds = {"large": large, "small": small}
    infos = [helper.make_tensor_value_info(n, 1, v.shape) for n, v in feeds.items()]
    if late:
        infos.append(helper.make_tensor_value_info("pads", TensorProto.INT64, [len(pads)]))
        feeds["pads"] = np.array(pads)
    graph = helper.make_graph([], "g", infos, [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    builder = GraphBuilder(model)
    slides = Window(
        tuple(kernel), tuple(strides), tuple(dilations), "pads" if late else tuple(pads)
    )
    positions = int(np.prod(small.shape[2:]))
    sizes = Sizes(small.shape[1], large.shape[1] // group, positions, group)
    result = FORMS[form](builder, "large", "small", slides, sizes)
    model.graph.output.append(helper.make_tensor_value_info(result, 1, None))
    made = [node.op_type for node in model.graph.node]
    return evaluate(model, feeds)[result], made


@settings(max_examples=25, deadline=None, derandomize=True)
@given(geometries(), st.integers(0, 2), st.booleans())
def test_forms_agree(geometry, rest, late):
    kernel, attributes, inner, outer = geometry
    group, rank, strides = attributes["group"], len(kernel), attributes["strides"]
    sizes = []
    for axis, width in enumerate(kernel):
        reach = (width - 1) * attributes["dilations"][axis] + 1
        pads = attributes["pads"][axis] + attributes["pads"][axis + rank]
        # elements left over after the last position are less than a stride
        sizes.append(max(reach + strides[axis] + min(rest, strides[axis] - 1) - pads, 1))
    places = [
        (size + attributes["pads"][axis] + attributes["pads"][axis + rank] - reach) // step + 1
        for axis, (size, step, reach) in enumerate(
            zip(
                sizes,
                strides,
                [(k - 1) * d + 1 for k, d in zip(kernel, attributes["dilations"], strict=True)],
                strict=True,
            )
        )
    ]
    random = np.random.default_rng(3)
    large = random.uniform(-1, 1, (2, inner * group, *sizes)).astype(np.float32)
    small = random.uniform(-1, 1, (2, outer * group, *places)).astype(np.float32)
    expected = correlate(large, small, kernel, **attributes)
    for form in FORMS if group == 1 else GROUPED:
        found, _ = built(form, large, small, kernel, attributes, late=late)
        assert found.shape == expected.shape, form
        assert relative_error(found, expected) < 1e-4, form


@pytest.mark.parametrize(
    ("rows", "columns", "kernel", "group", "turned"),
    [
        (16, 3, [6], 1, True),
        (16, 2, [8], 1, True),
        (16, 3, [5], 1, False),  # the left operand is the larger one
        (15, 3, [6], 1, False),
        (17, 3, [6], 1, False),
        (32, 6, [6], 2, True),
        (16, 6, [6], 2, False),
        (32, 3, [4, 3], 1, True),
    ],
)
def test_products_of_samples(rows, columns, kernel, group, turned):
    """The products are transposed where the right operand is then small and even."""
    rank = len(kernel)
    attributes = {
        "strides": [1] * rank,
        "dilations": [1] * rank,
        "pads": [0] * 2 * rank,
        "group": group,
    }
    random = np.random.default_rng(3)
    sizes = [width + 2 for width in kernel]
    large = random.uniform(-1, 1, (2, columns, *sizes)).astype(np.float32)
    small = random.uniform(-1, 1, (2, rows, *[3] * rank)).astype(np.float32)
    found, made = built("samples", large, small, kernel, attributes)
    assert relative_error(found, correlate(large, small, kernel, **attributes)) < 1e-4
    assert made.count("Transpose") == (2 if turned else 1)


def square(kernel, stride=1, pad=0):
    return Window((kernel, kernel), (stride, stride), (1, 1), (pad,) * 4)


@pytest.mark.parametrize(
    ("sizes", "slides", "expected"),
    [
        # channels of the output and of the input, positions
        (Sizes(20, 1, 24 * 24), square(5), "samples"),
        (Sizes(50, 20, 8 * 8), square(5), "samples"),
        (Sizes(16, 16, 32 * 32), square(3, 1, 1), "samples"),
        (Sizes(64, 64, 8 * 8), square(3, 1, 1), "batch"),
        (Sizes(64, 32, 8 * 8), square(3, 2, 1), "batch"),
        (Sizes(512, 512, 7 * 7), square(3, 1, 1), "batch"),
        (Sizes(64, 3, 31 * 31), square(11, 4, 2), "convolution"),
        (Sizes(64, 1, 1000), Window((64,), (1,), (1,), (0, 0)), "samples"),
        (Sizes(64, 1, 1000), Window((65,), (1,), (1,), (0, 0)), "convolution"),
        # too much to lay out
        (Sizes(64, 64, 60 * 60), square(3, 1, 1), "samples"),
        (Sizes(64, 64, 61 * 61), square(3, 1, 1), "sample taps"),
        (Sizes(512, 512, 28 * 28), square(3, 1, 1), "batch taps"),
        # pointwise: nothing to lay out
        (Sizes(192, 32, 16 * 16), square(1), "samples"),
        (Sizes(64, 192, 8 * 8), square(1), "batch"),
        (Sizes(64, 256, 300 * 300), square(1), "samples"),
        (Sizes(64, 32, 8 * 8), square(1, 2), "samples"),
        (Sizes(64, 32, 64 * 64), square(4), "samples"),
        # equal costs
        (Sizes(5, 2, 2), square(1), "samples"),
        # groups
        (Sizes(96, 1, 16 * 16, 96), square(3, 1, 1), "samples"),
        (Sizes(96, 1, 51 * 51, 96), square(3, 1, 1), "sample taps"),
        (Sizes(96, 1, 8 * 8, 96), square(9, 1, 4), "sample taps"),
        (Sizes(512, 512, 1, 2), square(3), "samples"),
        # not all sizes known
        (Sizes(16, 16, None), square(3, 1, 1), "batch taps"),
        (Sizes(16, 16, None), square(1), "samples"),
        (Sizes(16, 2, None, 8), square(3), "sample taps"),
        (Sizes(None, 16, 64), square(3), "batch taps"),
        (Sizes(16, None, 64), square(1), "batch taps"),
        (Sizes(None, None, None), square(8), "batch taps"),
        (Sizes(None, None, None), square(9), "convolution"),
    ],
    ids=str,
)
def test_choice(sizes, slides, expected):
    assert choose_form(sizes, slides) == expected
