"""Random networks with random zeros: whatever is dead goes, and outputs stay what they were."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.structure.dying import damaged, prove_constants, prove_shrunk
from tests.structure.graphs import Case, Shape, built, feed

ACTIVATIONS = ["Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Identity"]
RATES = st.sampled_from([0.1, 0.3, 0.6, 0.9])


@dataclass
class Net:
    """A network while it is written: its last value has `channels` channels."""

    channels: int
    lines: list[str] = field(default_factory=list)
    weights: dict[str, Shape | np.ndarray] = field(default_factory=dict)
    last: str = "x"

    def add(self, call: str, *weights: Shape) -> None:
        """A node on the last value: ``Conv<...>({}, {}, {})`` with weights of these shapes."""
        number = len(self.lines)
        names = [f"w{number}{letter}" for letter in "abcde"[: len(weights)]]
        self.weights.update(zip(names, weights, strict=True))
        self.lines.append(f"v{number} = {call.format(self.last, *names)}")
        self.last = f"v{number}"

    def conv(self, draw: st.DrawFn, outputs: int) -> None:
        kernel, pad = draw(st.sampled_from([(1, 0), (3, 1), (3, 0)]))
        kernel, pad = (3, 1) if kernel == 3 and draw(st.booleans()) else (kernel, pad)
        bias = draw(st.booleans())
        attributes = f"kernel_shape=[{kernel},{kernel}], pads=[{pad},{pad},{pad},{pad}]"
        shape = (outputs, self.channels, kernel, kernel)
        shapes = [shape, (outputs,)] if bias else [shape]
        self.add(f"Conv<{attributes}>({{}}, {{}}{', {}' if bias else ''})", *shapes)
        self.channels = outputs

    def norm(self) -> None:
        names = [f"p{len(self.lines)}{letter}" for letter in "stmv"]
        self.weights.update(dict.fromkeys(names, (self.channels,)))
        self.add(f"BatchNormalization({{}}, {', '.join(names)})")


@st.composite
def image_nets(draw: st.DrawFn) -> Case:
    net = Net(4)
    net.conv(draw, draw(st.integers(2, 8)))
    for kind in draw(st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4)):
        _BLOCKS[kind](net, draw)
        net.add(f"{draw(st.sampled_from(ACTIVATIONS))}({{}})")
    ending = draw(st.sampled_from(["flatten", "pool", "conv"]))
    if ending == "conv":
        net.conv(draw, 3)
    else:
        net.add("GlobalAveragePool({})" if ending == "pool" else "AdaptiveMax({})")
        net.lines[-1] = net.lines[-1].replace("AdaptiveMax", "GlobalMaxPool")
        net.add("Flatten({})")
        net.add("Gemm({}, {}, {})", (net.channels, 5), (5,))
        net.add("Relu({})")
        net.add("MatMul({}, {})", (5, 2))
        net.channels = 2
    return Case("\n".join([*net.lines, f"y = Identity({net.last})"]), net.weights, [], (4, 8, 8))


def _plain(net: Net, draw: st.DrawFn) -> None:
    net.conv(draw, draw(st.integers(2, 8)))


def _normed(net: Net, draw: st.DrawFn) -> None:
    net.conv(draw, draw(st.integers(2, 8)))
    net.norm()


def _residual(net: Net, draw: st.DrawFn) -> None:
    """x + f(x), the convolution padded so that sizes stay."""
    start, channels = net.last, net.channels
    net.add("Conv<pads=[1,1,1,1]>({}, {}, {})", (channels, channels, 3, 3), (channels,))
    net.norm()
    net.add(f"Add({{}}, {start})")


def _concat(net: Net, draw: st.DrawFn) -> None:
    start, channels, more = net.last, net.channels, draw(st.integers(1, 4))
    net.add("Conv({}, {})", (more, channels, 1, 1))
    net.add(f"Concat<axis=1>({start}, {{}})")
    net.channels = channels + more


def _depthwise(net: Net, draw: st.DrawFn) -> None:
    pad = draw(st.integers(0, 1))
    net.add(
        f"Conv<group={net.channels}, pads=[{pad},{pad},{pad},{pad}]>({{}}, {{}}, {{}})",
        (net.channels, 1, 2 + pad, 2 + pad), (net.channels,),
    )  # fmt: skip


def _grouped(net: Net, draw: st.DrawFn) -> None:
    groups = 2 if net.channels % 2 == 0 else 1
    outputs = groups * draw(st.integers(1, 3))
    net.add(f"Conv<group={groups}>({{}}, {{}})", (outputs, net.channels // groups, 1, 1))
    net.channels = outputs


def _pool(net: Net, draw: st.DrawFn) -> None:
    operator = draw(st.sampled_from(["MaxPool", "AveragePool"]))
    counted = ", count_include_pad=1" if operator == "AveragePool" and draw(st.booleans()) else ""
    net.add(f"{operator}<kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1]{counted}>({{}})")


def _transposed(net: Net, draw: st.DrawFn) -> None:
    outputs = draw(st.integers(2, 6))
    net.add("ConvTranspose({}, {}, {})", (net.channels, outputs, 2, 2), (outputs,))
    net.channels = outputs


def _gate(net: Net, draw: st.DrawFn) -> None:
    """Squeeze and excitation."""
    start, channels = net.last, net.channels
    net.add("GlobalAveragePool({})")
    net.add("Conv({}, {}, {})", (3, channels, 1, 1), (3,))
    net.add("Relu({})")
    net.add("Conv({}, {}, {})", (channels, 3, 1, 1), (channels,))
    net.add(f"{draw(st.sampled_from(['Sigmoid', 'Relu']))}({{}})")
    net.add(f"Mul({{}}, {start})")


_BLOCKS = {
    "plain": _plain, "normed": _normed, "residual": _residual, "concat": _concat,
    "depthwise": _depthwise, "grouped": _grouped, "pool": _pool, "transposed": _transposed,
    "gate": _gate,
}  # fmt: skip
BLOCKS = sorted(_BLOCKS)


@settings(max_examples=60)
@given(case=image_nets(), seed=st.integers(0, 999), rate=RATES, align=st.sampled_from([1, 2, 4]))
def test_networks_on_images(case: Case, seed: int, rate: float, align: int) -> None:
    model = damaged(built(case), seed, rate)
    feeds = [feed(case, 2)]
    prove_constants(model, feeds)
    prove_shrunk(model, feeds, align=align)


@st.composite
def perceptrons(draw: st.DrawFn) -> Case:
    net = Net(6)
    for _ in range(draw(st.integers(1, 4))):
        start, inputs, outputs = net.last, net.channels, draw(st.integers(2, 9))
        form = draw(st.sampled_from(["gemm", "product", "product and bias", "residual"]))
        if form == "gemm":
            net.add("Gemm<transB=1, alpha=0.5>({}, {}, {})", (outputs, inputs), (outputs,))
        elif form == "residual":
            outputs = inputs
            net.add("MatMul({}, {})", (inputs, inputs))
            net.add(f"Add({{}}, {start})")
        else:
            net.add("MatMul({}, {})", (inputs, outputs))
            if form == "product and bias":
                net.add("Add({}, {})", (outputs,))
        net.add(f"{draw(st.sampled_from(ACTIVATIONS))}({{}})")
        net.channels = outputs
    net.add("MatMul({}, {})", (net.channels, 3))
    return Case("\n".join([*net.lines, f"y = Identity({net.last})"]), net.weights, [], (6,))


@settings(max_examples=60)
@given(case=perceptrons(), seed=st.integers(0, 999), rate=RATES)
def test_perceptrons(case: Case, seed: int, rate: float) -> None:
    model = damaged(built(case), seed, rate)
    feeds = [feed(case, 3)]
    prove_constants(model, feeds)
    prove_shrunk(model, feeds)
