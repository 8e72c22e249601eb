"""The models that the repository ships do what their README says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

MODELS = Path(__file__).resolve().parent.parent / "models"
ROW = re.compile(
    r"^\| `(?P<model>\w+\.onnx)` \| (?P<parameters>[\d,]+) \| "
    r"(?P<train>[\d.]+) % \| (?P<test>[\d.]+) % \|$",
    re.MULTILINE,
)
STATED = {row["model"]: row for row in ROW.finditer((MODELS / "README.md").read_text("utf-8"))}


def measured_accuracy(model: str, data: str) -> float:
    arrays = np.load(MODELS / data)
    session = onnxruntime.InferenceSession(MODELS / model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": arrays["image"]})
    return 100 * float(np.mean(logits.argmax(axis=1) == arrays["labels"]))


def test_readme_states_every_model() -> None:
    assert set(STATED) == {path.name for path in MODELS.glob("*.onnx")} != set()


@pytest.mark.parametrize("model", STATED)
@pytest.mark.parametrize("part", ["train", "test"])
def test_accuracy_is_as_stated(model: str, part: str) -> None:
    stated = float(STATED[model][part])
    assert measured_accuracy(model, f"digits_{part}.npz") == pytest.approx(stated, abs=0.1)


@pytest.mark.parametrize("model", STATED)
def test_model_is_valid_and_as_large_as_stated(model: str) -> None:
    proto = onnx.load(MODELS / model)
    onnx.checker.check_model(proto, full_check=True)
    parameters = sum(
        int(np.prod(tensor.dims))
        for tensor in proto.graph.initializer
        if not tensor.name.endswith(".ratio")
    )
    assert f"{parameters:,}" == STATED[model]["parameters"]


@pytest.mark.parametrize("model", STATED)
def test_dropout_stays_in_the_graph_in_inference_form(model: str) -> None:
    dropouts = [node for node in onnx.load(MODELS / model).graph.node if node.op_type == "Dropout"]
    assert dropouts
    assert all(len(node.input) == 2 for node in dropouts)  # no training_mode input: false


@pytest.mark.parametrize("part", ["train", "test"])
def test_data_fits_both_models(part: str) -> None:
    arrays = np.load(MODELS / f"digits_{part}.npz")
    assert set(arrays) == {"image", "labels"}
    assert arrays["image"].dtype == np.float32
    assert arrays["image"].shape == (len(arrays["labels"]), 1, 8, 8)
    assert arrays["image"].min() == 0 and arrays["image"].max() == 1
    assert arrays["labels"].dtype == np.int64


def test_no_test_image_was_trained_on() -> None:
    train, test = (np.load(MODELS / f"digits_{part}.npz")["image"] for part in ("train", "test"))
    seen = {image.tobytes() for image in train}
    assert not any(image.tobytes() in seen for image in test)
