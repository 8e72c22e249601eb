"""Small layered models that lose neurons, and what they compute."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper, parser

from tests.builders import mlp
from tests.structure.proof import run

SIZES = (24, 64, 48, 10)


def samples(n: int = 64, size: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, size)).astype(np.float32)


def dying(sizes: tuple[int, ...] = SIZES, **more: Any) -> ModelProto:
    """Layers of which two neurons read nothing and one is not read, whatever is pruned."""
    model = mlp(sizes, **more)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name == "fc0.weight":
            array[[3, 5]] = 0
        elif tensor.name == "fc1.weight":
            array[:, 7] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def outputs(proto: ModelProto, x: np.ndarray) -> np.ndarray:
    return run(proto, {"x": x})[0]


def with_functions(inside: bool) -> ModelProto:
    """Two layers by a function; the first one's weights are in the graph, or `inside` one."""
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        graph (float[N, 24] x) => (float[N, 4] y) {
            g = own.layer(x, a)
            y = own.layer(g, b)
        }
        <domain: "own", opset_import: ["" : 17]>
        layer (i, j) => (d) { c = MatMul(i, j)  d = Sigmoid(c) }
        """
    )
    random = np.random.default_rng(0)
    first, second = (random.standard_normal(s).astype(np.float32) for s in ((24, 40), (40, 4)))
    first[:, 4] = 0
    model.graph.initializer.append(numpy_helper.from_array(second, "b"))
    if not inside:
        model.graph.initializer.append(numpy_helper.from_array(first, "a"))
        return model
    inner = model.functions.add()
    inner.CopyFrom(model.functions[0])
    inner.name = "inner"
    del inner.input[1]
    value = numpy_helper.from_array(first, "j")
    inner.node.insert(0, helper.make_node("Constant", [], ["j"], value=value))
    model.graph.node[0].op_type = "inner"
    del model.graph.node[0].input[1]
    return model
