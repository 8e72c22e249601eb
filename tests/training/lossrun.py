"""Running a loss and its gradients in onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import ModelProto, helper, parser

from onnxprune.training.backward import backward
from onnxprune.training.builder import GraphBuilder
from onnxprune.training.loss.append import Labels, LossConfig, LossValues, append_loss

HEAD = '<ir_version: 10, opset_import: ["": 23, "ai.onnx.ml": 3]> g'


@dataclass(frozen=True)
class Result:
    """Values of a loss on data, and the gradients of wanted inputs."""

    names: LossValues
    loss: float
    correct: float | None
    gradients: dict[str, np.ndarray]


def model(text: str) -> ModelProto:
    return parser.parse_model(f"{HEAD} {text}")


def labels_of(array: np.ndarray) -> Labels:
    return Labels(array.dtype, array.shape[1:])


def append(
    proto: ModelProto | str,
    labels: np.ndarray | None = None,
    config: LossConfig | None = None,
    output: str | None = None,
) -> LossValues:
    """Only the appending, where its words and refusals are what matters."""
    given = None if labels is None else labels_of(labels)
    proto = model(proto) if isinstance(proto, str) else proto
    return append_loss(GraphBuilder(proto), config or LossConfig(), given, output=output)


def run(
    proto: ModelProto | str,
    feeds: dict[str, np.ndarray],
    labels: np.ndarray | None = None,
    config: LossConfig | None = None,
    *,
    teacher: np.ndarray | None = None,
    output: str | None = None,
    wanted: tuple[str, ...] = ("x",),
) -> Result:
    """Append a loss and its gradients, and run all on data."""
    proto = model(proto) if isinstance(proto, str) else proto
    b = GraphBuilder(proto)
    given = None if labels is None else labels_of(labels)
    names = append_loss(b, config or LossConfig(), given, output=output)
    gradients = backward(b, names.loss, wanted)
    fetched = [names.loss, *([names.correct] if names.correct else []), *gradients.values()]
    del proto.graph.output[:]
    for name in fetched:
        info = helper.make_tensor_value_info(name, b.dtype(name), b.shape(name))
        proto.graph.output.append(info)
    feeds = dict(feeds)
    if names.label_input:
        feeds[names.label_input] = labels
    for name in names.teachers:
        feeds[name] = teacher
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    found = dict(zip(fetched, session.run(fetched, feeds), strict=True))
    for name in (names.loss, names.correct):
        if name is not None:
            assert found[name].shape == ()
            assert found[name].dtype == np.float32
    return Result(
        names,
        float(found[names.loss]),
        float(found[names.correct]) if names.correct else None,
        {key: found[name] for key, name in gradients.items()},
    )
