"""Time of the structure analysis against the number of nodes, on generated graphs.

    python benchmarks/structure_analysis.py [--nodes 250 500 1000 ...] [--only NAME] [--rounds 3]

Seconds of CPU time are the least of the rounds. The analysis is to take under two seconds for a
graph of 1,000 nodes, and to be linear in nodes: the last column is the exponent of the growth from
the second largest graph to the largest (1 is linear, 2 quadratic).
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.structure.analysis import analyse
from onnxprune.structure.groups import find_barriers, find_groups

NODES = (250, 500, 1000, 2000, 4000)


class Network:
    """A graph while it is generated: nodes are appended, each with one result."""

    def __init__(self, shape: tuple[int | str, ...]) -> None:
        self.nodes: list[NodeProto] = []
        self.tensors: list[TensorProto] = []
        self.shape = shape

    def op(self, name: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(name, list(inputs), names, **attributes))
        return names[0]

    def weight(self, *shape: int) -> str:
        return self._stored(np.zeros(shape, np.float32))

    def ints(self, *values: int) -> str:
        return self._stored(np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        return self._stored(np.array(value, np.int64))

    def _stored(self, array: np.ndarray) -> str:
        name = f"t{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def model(self, last: str) -> ModelProto:
        self.nodes[-1].output[0] = "y"
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "generated", inputs, outputs, self.tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


Block = Callable[[Network, str], str]


def bottleneck(groups: int, width: int = 256, middle: int = 128) -> Block:
    """A residual block of ResNet (one group) or ResNeXt: ten nodes."""

    def block(net: Network, x: str) -> str:
        y = x
        for outputs, inputs, count in (
            (middle, width, 1), (middle, middle, groups), (width, middle, 1),
        ):  # fmt: skip
            y = net.op("Conv", y, net.weight(outputs, inputs // count, 1, 1), group=count)
            vectors = [net.weight(outputs) for _ in range(4)]
            y = net.op("BatchNormalization", y, *vectors)
            y = net.op("Relu", y) if outputs == middle else y
        return net.op("Relu", net.op("Add", x, y))

    return block


def grouped(net: Network, x: str) -> str:
    """Two convolutions of 1,024 channels in 32 groups around a residual: four nodes."""
    y = net.op("Conv", x, net.weight(1024, 32, 1, 1), net.weight(1024), group=32)
    y = net.op("Conv", net.op("Relu", y), net.weight(1024, 32, 1, 1), group=32)
    return net.op("Add", x, y)


def inverted(net: Network, x: str) -> str:
    """MobileNetV2's block: six nodes."""
    y = net.op("Conv", x, net.weight(384, 64, 1, 1), net.weight(384))
    y = net.op("Clip", y)
    y = net.op("Conv", y, net.weight(384, 1, 3, 3), group=384, pads=[1, 1, 1, 1])
    y = net.op("Clip", y)
    return net.op("Add", x, net.op("Conv", y, net.weight(64, 384, 1, 1)))


def shuffled(net: Network, x: str) -> str:
    """ShuffleNetV2's unit: halves, three convolutions, a shuffle."""
    net.nodes.append(helper.make_node("Split", [x], [f"{x}_a", f"{x}_b"], axis=1))
    y = net.op("Conv", f"{x}_b", net.weight(64, 64, 1, 1))
    y = net.op("Conv", net.op("Relu", y), net.weight(64, 1, 3, 3), group=64, pads=[1, 1, 1, 1])
    y = net.op("Relu", net.op("Conv", y, net.weight(64, 64, 1, 1)))
    y = net.op("Reshape", net.op("Concat", f"{x}_a", y, axis=1), net.ints(0, 2, 64, 8, 8))
    y = net.op("Transpose", y, perm=[0, 2, 1, 3, 4])
    return net.op("Reshape", y, net.ints(0, 128, 8, 8))


def dense(net: Network, x: str) -> str:
    """A layer of DenseNet inside a window of eight: concatenations grow, then are cut back."""
    parts = [x]
    for number in range(8):
        joined = net.op("Concat", *parts, axis=1) if number else x
        y = net.op("Conv", net.op("Relu", joined), net.weight(16, 64 + 16 * number, 1, 1))
        parts.append(y)
    return net.op("Conv", net.op("Concat", *parts, axis=1), net.weight(64, 192, 1, 1))


def encoder(computed: bool) -> Block:
    """A layer of a transformer, 12 heads of 16; shapes constant, or computed as exporters do."""

    def heads(net: Network, x: str) -> str:
        y = net.op("Add", net.op("MatMul", x, net.weight(192, 192)), net.weight(192))
        if computed:
            sizes = [
                net.op("Unsqueeze", net.op("Gather", net.op("Shape", y), net.scalar(axis)),
                       net.ints(0))
                for axis in (0, 1)
            ]  # fmt: skip
            shape = net.op("Concat", *sizes, net.ints(12), net.ints(16), axis=0)
        else:
            shape = net.ints(0, 0, 12, 16)
        return net.op("Transpose", net.op("Reshape", y, shape), perm=[0, 2, 1, 3])

    def normed(net: Network, x: str) -> str:
        return net.op("LayerNormalization", x, net.weight(192), net.weight(192))

    def block(net: Network, x: str) -> str:
        q, k, v = (heads(net, x) for _ in range(3))
        scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
        y = net.op("MatMul", net.op("Softmax", scores), v)
        y = net.op("Reshape", net.op("Transpose", y, perm=[0, 2, 1, 3]), net.ints(0, 0, 192))
        x = normed(net, net.op("Add", x, net.op("MatMul", y, net.weight(192, 192))))
        y = net.op("Add", net.op("MatMul", x, net.weight(192, 768)), net.weight(768))
        y = net.op("Mul", y, net.op("Erf", y))
        return normed(net, net.op("Add", x, net.op("MatMul", y, net.weight(768, 192))))

    return block


def perceptron(net: Network, x: str) -> str:
    """A layer of 512 neurons."""
    return net.op("Relu", net.op("Gemm", x, net.weight(512, 512), net.weight(512)))


#: Name, block, shape of the input.
NETWORKS: dict[str, tuple[Block, tuple[int | str, ...]]] = {
    "perceptron": (perceptron, ("N", 512)),
    "resnet": (bottleneck(1), ("N", 256, 8, 8)),
    "resnext": (bottleneck(32), ("N", 256, 8, 8)),
    "grouped 1024": (grouped, ("N", 1024, 8, 8)),
    "mobilenet": (inverted, ("N", 64, 8, 8)),
    "shufflenet": (shuffled, ("N", 128, 8, 8)),
    "densenet": (dense, ("N", 64, 8, 8)),
    "transformer": (encoder(computed=False), ("N", "S", 192)),
    "transformer, computed shapes": (encoder(computed=True), ("N", "S", 192)),
}


def generated(name: str, nodes: int) -> ModelProto:
    """Blocks between two layers whose widths are free, until there are enough nodes."""
    block, shape = NETWORKS[name]
    net = Network(shape)
    width = int(shape[-1] if len(shape) < 4 else shape[1])
    image = len(shape) == 4

    def layer(x: str, outputs: int) -> str:
        if image:
            return net.op("Conv", x, net.weight(outputs, width, 1, 1))
        return net.op("MatMul", x, net.weight(width, outputs))

    x = layer("x", width)
    while len(net.nodes) < nodes - 1:
        x = block(net, x)
    return net.model(layer(x, 10))


def seconds(model: ModelProto) -> tuple[float, int]:
    """CPU seconds of the analysis with groups and barriers, and the channels that can go."""
    start = time.process_time()
    coupling = analyse(model)
    groups = find_groups(coupling)
    find_barriers(coupling)
    return time.process_time() - start, sum(group.size for group in groups)


def rows(names: list[str], sizes: list[int], rounds: int) -> Iterator[str]:
    for name in names:
        times, channels = [], 0
        for nodes in sizes:
            model = generated(name, nodes)
            found = [seconds(model) for _ in range(rounds)]
            times.append(min(spent for spent, _ in found))
            channels = found[0][1]
        growth = ""
        if len(sizes) > 1:
            exponent = math.log(times[-1] / times[-2]) / math.log(sizes[-1] / sizes[-2])
            growth = f"{exponent:8.2f}"
        cells = "".join(f"{spent:8.2f}" for spent in times)
        yield f"{name:30}{cells}{growth:>8}{channels:10,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=list(NODES))
    parser.add_argument("--only", default="", help="part of the names of the networks")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    names = [name for name in NETWORKS if given.only in name]
    sizes = sorted(given.nodes)
    print(f"{'nodes':30}{''.join(f'{n:8,}' for n in sizes)}{'growth':>8}{'channels':>10}")
    for row in rows(names, sizes, given.rounds):
        print(row, flush=True)


if __name__ == "__main__":
    main()
