"""An empty training graph to append to, and running what was appended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, helper

from onnxprune.training.builder import TRAINING_OPSET, GraphBuilder


def empty_graph() -> tuple[ModelProto, GraphBuilder]:
    """A model without nodes and its builder."""
    opsets = [helper.make_opsetid("", TRAINING_OPSET)]
    proto = helper.make_model(
        helper.make_graph([], "g", [], []), opset_imports=opsets, ir_version=10
    )
    return proto, GraphBuilder(proto)


class Runner:
    """Runs a model; what is asked for becomes its outputs."""

    def __init__(self, b: GraphBuilder, proto: ModelProto, outputs: Sequence[str]) -> None:
        self.outputs = list(outputs)
        for name in outputs:
            info = helper.make_tensor_value_info(name, b.dtype(name), b.shape(name))
            proto.graph.output.append(info)
        onnx.checker.check_model(proto, full_check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return list(self.session.run(self.outputs, dict(feeds)))
