"""The models that the repository ships do what their README says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from models.train_lenets import NETWORKS, mnist

MODELS = Path(__file__).resolve().parent.parent / "models"
ROW = re.compile(
    r"^\| `(?P<model>\w+\.onnx)` \| (?P<parameters>[\d,]+) \| "
    r"(?P<train>[\d.]+) % \| (?P<test>[\d.]+) % \|$",
    re.MULTILINE,
)
LENET = re.compile(
    r"^\| `(?P<model>lenet\w+\.onnx)` \| (?P<parameters>[\d,]+) \| (?P<error>[\d.]+) % \|$",
    re.MULTILINE,
)
README = (MODELS / "README.md").read_text("utf-8")
STATED = {row["model"]: row for row in ROW.finditer(README)}
LENETS = {row["model"]: row for row in LENET.finditer(README)}
#: What Han et al. 2015 pruned had these errors, in percent.
PUBLISHED = {"lenet_300_100.onnx": 1.64, "lenet_5.onnx": 0.80}


def measured_accuracy(model: str, data: str) -> float:
    arrays = np.load(MODELS / data)
    session = onnxruntime.InferenceSession(MODELS / model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": arrays["image"]})
    return 100 * float(np.mean(logits.argmax(axis=1) == arrays["labels"]))


def test_readme_states_every_model() -> None:
    assert {*STATED, *LENETS} == {path.name for path in MODELS.glob("*.onnx")}
    assert STATED and LENETS


@pytest.mark.parametrize("model", LENETS)
def test_error_of_a_lenet_is_as_stated(model: str, zoo: Path) -> None:
    folder = zoo.parent / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no MNIST at {folder}")
    data = mnist(folder, "t10k")
    session = onnxruntime.InferenceSession(MODELS / model, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"image": data["image"]})
    error = 100 * float(np.mean(logits.argmax(axis=1) != data["labels"]))
    assert error == pytest.approx(float(LENETS[model]["error"]), abs=0.02)
    assert error <= PUBLISHED[model]


@pytest.mark.parametrize("name", NETWORKS)
def test_an_untrained_lenet_has_the_weights_of_the_paper(name: str) -> None:
    proto = NETWORKS[name].build(0)
    again, other = NETWORKS[name].build(0), NETWORKS[name].build(1)
    assert proto == again and proto != other
    sizes = [int(np.prod(t.dims)) for t in proto.graph.initializer if len(t.dims) > 1]
    assert sum(sizes) == {"lenet_300_100": 266_200, "lenet_5": 430_500}[name]
    NETWORKS[name].finetune(3)


@pytest.mark.parametrize("model", STATED)
@pytest.mark.parametrize("part", ["train", "test"])
def test_accuracy_is_as_stated(model: str, part: str) -> None:
    stated = float(STATED[model][part])
    assert measured_accuracy(model, f"digits_{part}.npz") == pytest.approx(stated, abs=0.1)


@pytest.mark.parametrize("model", [*STATED, *LENETS])
def test_model_is_valid_and_as_large_as_stated(model: str) -> None:
    proto = onnx.load(MODELS / model)
    onnx.checker.check_model(proto, full_check=True)
    parameters = sum(
        int(np.prod(tensor.dims))
        for tensor in proto.graph.initializer
        if not tensor.name.endswith(".ratio")
    )
    assert f"{parameters:,}" == {**STATED, **LENETS}[model]["parameters"]


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
