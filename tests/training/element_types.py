"""Whether the element types of a graph agree, also where no runtime computes them."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from onnxprune.training.backward import pull_back
from onnxprune.training.builder import TRAINING_OPSET, GraphBuilder


def assert_same_types(model, wanted, dtype=TensorProto.DOUBLE):
    """The gradients of a model whose float inputs become ones of `dtype` mix no types.

    Every type parameter of an operator stands for one type only.
    """
    for info in model.graph.input:
        info.type.tensor_type.elem_type = dtype
    for info in model.graph.output:
        info.type.tensor_type.elem_type = dtype
    builder = GraphBuilder(model)
    (output,) = (info.name for info in model.graph.output)
    found = pull_back(builder, {output: output}, wanted)
    assert {builder.dtype(name) for name in found.values()} == {dtype}
    for node in model.graph.node:
        schema = onnx.defs.get_schema(node.op_type, TRAINING_OPSET, node.domain)
        types = {}
        for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
            for position, name in enumerate(names):
                formal = formals[min(position, len(formals) - 1)]
                if name:
                    types.setdefault(formal.type_str, set()).add(builder.dtype(name))
        assert all(len(used) == 1 for used in types.values()), (node.op_type, types)
