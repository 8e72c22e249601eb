"""Small models for tests."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def mlp(
    sizes: tuple[int, ...] = (24, 32, 10), *, seed: int = 0, opset: int = 17, ir_version: int = 8
) -> onnx.ModelProto:
    """Gemm layers (transB=1) named fc0, fc1, ... with ReLU between; input x [N, sizes[0]]."""
    random = np.random.default_rng(seed)
    nodes, tensors = [], []
    value = "x"
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        weight = random.standard_normal((outputs, inputs)).astype(np.float32)
        bias = random.standard_normal(outputs).astype(np.float32)
        tensors += [numpy_helper.from_array(weight, f"fc{i}.weight")]
        tensors += [numpy_helper.from_array(bias, f"fc{i}.bias")]
        last = i == len(sizes) - 2
        inner = "y" if last else f"h{i}"
        nodes.append(
            helper.make_node(
                "Gemm", [value, f"fc{i}.weight", f"fc{i}.bias"], [inner], name=f"fc{i}", transB=1
            )
        )
        if not last:
            nodes.append(helper.make_node("Relu", [inner], [f"a{i}"], name=f"relu{i}"))
        value = f"a{i}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", sizes[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", sizes[-1]])],
        tensors,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )


def saved(model: onnx.ModelProto, path: Path, *, external: bool = False) -> Path:
    """Write a model where a test can prune it."""
    onnx.save_model(
        model, path, save_as_external_data=external, location=f"{path.name}.bin", size_threshold=0
    ) if external else onnx.save_model(model, path)
    return path


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Initializers by name."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def chain(layers: int = 4, width: int = 160) -> onnx.ModelProto:
    """MatMul layers one after another, 400 kB of weights by default, from v0 to v{layers}."""
    values = np.random.default_rng(0).standard_normal((layers, width, width)).astype(np.float32)
    tensors = [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(values)]
    nodes = [helper.make_node("MatMul", [f"v{i}", f"w{i}"], [f"v{i + 1}"]) for i in range(layers)]
    shape: list[str | int | None] = ["N", width]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("v0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"v{layers}", TensorProto.FLOAT, shape)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
