"""Models of one layer, in every layout that weights come in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnxprune.data.source import BatchSource, open_source
from onnxprune.data.specs import input_specs
from onnxprune.graph.layers import find_layers
from onnxprune.model.load import parse
from onnxprune.model.model import Model
from onnxprune.model.save import to_proto
from onnxprune.pruning.plan import LayerPlan, apply_plan, make_plan


@dataclass(frozen=True)
class Case:
    """One node with a stored weight "w" and data "x" [samples, ...].

    `views` lead from "w" to "v", which the node reads. Without `bias` the node has none; one is
    added where that is possible.
    """

    name: str
    op: str
    weight: tuple[int, ...]
    data: tuple[int, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    bias: tuple[int, ...] | None = None
    left: bool = False
    views: tuple[NodeProto, ...] = ()
    constant_node: bool = False
    opset: int = 17

    def proto(self, seed: int = 0) -> onnx.ModelProto:
        random = np.random.default_rng(seed)
        weight = random.standard_normal(self.weight).astype(np.float32)
        tensor = numpy_helper.from_array(weight, "w")
        tensors, nodes = [tensor], list(self.views)
        if self.constant_node:
            nodes.insert(0, helper.make_node("Constant", [], ["w"], value=tensor))
            tensors = []
        seen = "v" if self.views else "w"
        inputs = [seen, "x"] if self.left else ["x", seen]
        out = "y"
        if self.bias is not None:
            tensors.append(
                numpy_helper.from_array(random.standard_normal(self.bias).astype(np.float32), "b")
            )
            if self.op == "MatMul":
                out = "z"
            else:
                inputs.append("b")
        nodes.append(helper.make_node(self.op, inputs, [out], name="layer", **self.attributes))
        if out == "z":
            nodes.append(helper.make_node("Add", ["z", "b"], ["y"]))
        graph = helper.make_graph(
            nodes, "one",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            tensors,
        )  # fmt: skip
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8
        )

    @property
    def shape(self) -> list[Any]:
        """Declared shape of the data: the first axis is open unless the layer needs it fixed."""
        return list(self.data) if self.fixed else ["N", *self.data[1:]]

    @property
    def fixed(self) -> bool:
        return self.left or bool(self.attributes.get("transA")) or len(self.weight) > 2

    def samples(self, seed: int = 1) -> np.ndarray:
        data = np.random.default_rng(seed).standard_normal(self.data).astype(np.float32)
        return data + np.float32(0.3)  # means that a bias has to make up for


def view(op: str, source: str, result: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, [source], [result], **attributes)


CASES = (
    Case("conv", "Conv", (4, 3, 3, 3), (6, 3, 8, 7), {"pads": [1, 1, 1, 1]}, (4,)),
    Case("conv without bias", "Conv", (4, 3, 3, 2), (8, 3, 7, 7)),
    Case("conv strided", "Conv", (4, 2, 3, 3), (9, 2, 9, 8),
         {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}, (4,)),
    Case("conv grouped", "Conv", (6, 2, 3, 3), (8, 4, 6, 6), {"group": 2}, (6,)),
    Case("conv depthwise", "Conv", (4, 1, 3, 3), (8, 4, 6, 6), {"group": 4, "pads": [1] * 4}, (4,)),
    Case("conv same upper", "Conv", (3, 2, 3, 4), (8, 2, 7, 6),
         {"auto_pad": "SAME_UPPER", "strides": [2, 1]}, (3,)),
    Case("conv same lower", "Conv", (3, 2, 4, 3), (8, 2, 7, 6),
         {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, (3,)),
    Case("conv valid 1d", "Conv", (3, 2, 3), (9, 2, 11), {"auto_pad": "VALID"}, (3,)),
    Case("conv 3d", "Conv", (3, 2, 2, 2, 2), (6, 2, 4, 4, 4), {}, (3,)),
    Case("transposed", "ConvTranspose", (3, 4, 3, 3), (6, 3, 5, 4), {}, (4,)),
    Case("transposed strided", "ConvTranspose", (3, 4, 3, 3), (6, 3, 5, 4),
         {"strides": [2, 3], "pads": [1, 0, 0, 2], "dilations": [1, 2],
          "output_padding": [1, 0]}, (4,)),
    Case("transposed grouped", "ConvTranspose", (4, 2, 2, 3), (8, 4, 5, 4),
         {"group": 2, "strides": [2, 2]}),
    Case("transposed to a shape", "ConvTranspose", (3, 2, 3, 3), (8, 3, 5, 5),
         {"strides": [2, 2], "output_shape": [10, 9]}, (2,)),
    Case("transposed same upper", "ConvTranspose", (3, 2, 4, 3), (8, 3, 5, 5),
         {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, (2,)),
    Case("gemm", "Gemm", (8, 5), (40, 8), {}, (5,)),
    Case("gemm transB", "Gemm", (5, 8), (40, 8), {"transB": 1, "alpha": 0.5, "beta": 2.0}, (1, 5)),
    Case("gemm transA", "Gemm", (8, 5), (8, 40), {"transA": 1, "transB": 0}, (5,)),
    Case("gemm without bias", "Gemm", (8, 5), (40, 8)),
    Case("gemm left", "Gemm", (5, 8), (8, 40), {}, (5, 1), left=True),
    Case("gemm left transposed", "Gemm", (8, 5), (40, 8), {"transA": 1, "transB": 1}, (5, 1), True),
    Case("matmul", "MatMul", (8, 5), (40, 8), {}, (5,)),
    Case("matmul no bias", "MatMul", (8, 5), (40, 8)),
    Case("matmul batched data", "MatMul", (8, 5), (9, 2, 6, 8), {}, (5,)),
    Case("matmul left", "MatMul", (5, 8), (4, 8, 9), {}, (5, 1), left=True),
    Case("matmul batched weight", "MatMul", (3, 8, 5), (3, 20, 8)),
    Case("matmul batched weight of one", "MatMul", (1, 8, 5), (3, 20, 8)),
    Case("matmul broadcast weight", "MatMul", (3, 8, 5), (4, 3, 20, 8)),
    Case("matmul two batch axes", "MatMul", (2, 3, 8, 5), (4, 2, 3, 20, 8)),
    Case("matmul vector", "MatMul", (8,), (40, 8)),
    Case("through Transpose", "MatMul", (5, 8), (40, 8), {}, (5,),
         views=(view("Transpose", "w", "v", perm=[1, 0]),)),
    Case("through a chain", "Conv", (36, 3), (6, 3, 8, 7), {}, (4,),
         views=(view("Transpose", "w", "t", perm=[1, 0]), view("Identity", "t", "i"),
                helper.make_node("Constant", [], ["s"], value_ints=[3, 4, 3, 3]),
                helper.make_node("Reshape", ["i", "s"], ["r"]),
                view("Transpose", "r", "v", perm=[1, 0, 2, 3]))),
    Case("in a Constant node", "Gemm", (8, 5), (40, 8), {}, (5,), constant_node=True),
)  # fmt: skip


def opened(proto: onnx.ModelProto) -> Model:
    return parse(memoryview(proto.SerializeToString()))


def pruned(model: Model, sparsity: float) -> tuple[Model, tuple[LayerPlan, ...]]:
    plans = make_plan(model, find_layers(model), sparsity=sparsity)
    return apply_plan(model, plans), plans


def data(model: Model, *arrays: np.ndarray) -> BatchSource:
    specs = input_specs(model.proto)
    given = {spec.name: array for spec, array in zip(specs, arrays, strict=True)}
    return open_source(given, specs, labelled=False)


def run(model: Model, *arrays: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    return list(session.run(None, dict(zip(names, arrays, strict=True))))


def tensor(model: Model, name: str) -> np.ndarray:
    """A stored tensor by name."""
    found = [t for address, t in model.tensors.items() if address.name == name]
    return model.array(found[0])


Build = Callable[[], onnx.ModelProto]
