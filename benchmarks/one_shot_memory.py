"""Memory and time of pruning with calibration where activations are large.

    python -m benchmarks.one_shot_memory [--images 512] [--size 128] [--sparsity 0.9]

A convolutional network with random weights on random images: unfolded, the inputs of its
convolutions at all positions of 512 images of 128 x 128 would take 0.9, 4.8 and 2.4 GB, and the
Gram matrix of its first matrix product, with 16,384 inputs, 2.1 GB.
"""

from __future__ import annotations

import argparse
import resource
import time
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnxprune

CHANNELS = (3, 64, 128, 256)
HIDDEN, CLASSES = 256, 10


def network(size: int) -> onnx.ModelProto:
    """Three convolutions, the later ones of stride 2, a pooling to 8 x 8, two matrix products."""
    random = np.random.default_rng(0)
    nodes, tensors, value = [], [], "x"

    def layer(op: str, name: str, shape: tuple[int, ...], **attributes: object) -> str:
        scale = (2 / np.prod(shape[1:])) ** 0.5
        weight = (random.standard_normal(shape) * scale).astype(np.float32)
        bias = np.zeros(shape[0], np.float32)
        names = f"{name}.weight", f"{name}.bias"
        tensors.extend(map(numpy_helper.from_array, (weight, bias), names))
        nodes.append(helper.make_node(op, [value, *names], [name], **attributes))
        return name

    for number, (before, after) in enumerate(pairwise(CHANNELS)):
        strides = [1, 1] if number == 0 else [2, 2]
        shape = (after, before, 3, 3)
        made = layer("Conv", f"conv{number}", shape, strides=strides, pads=[1, 1, 1, 1])
        value = f"relu{number}"
        nodes.append(helper.make_node("Relu", [made], [value]))
    pool = size // 4 // 8
    nodes.append(
        helper.make_node("AveragePool", [value], ["p"], kernel_shape=[pool] * 2, strides=[pool] * 2)
    )
    nodes.append(helper.make_node("Flatten", ["p"], ["flat"]))
    value = "flat"
    hidden = layer("Gemm", "fc0", (HIDDEN, CHANNELS[-1] * 64), transB=1)
    nodes.append(helper.make_node("Relu", [hidden], ["h"]))
    value = "h"
    layer("Gemm", "fc1", (CLASSES, HIDDEN), transB=1)
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CHANNELS[0], size, size])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, ["N", CLASSES])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--sparsity", type=float, default=0.9)
    given = parser.parse_args()
    shape = (given.images, CHANNELS[0], given.size, given.size)
    images = np.random.default_rng(1).standard_normal(shape, np.float32)
    model = network(given.size)
    started, used = time.perf_counter(), time.process_time()
    onnxprune.prune(model, sparsity=given.sparsity, calibrate={"x": images})
    seconds, busy = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GB with libraries and {images.nbytes / 2**30:.2f} GB of images")
    print(f"{seconds:.1f} s, {busy:.1f} processor seconds")


if __name__ == "__main__":
    main()
