"""Gradients of whole networks against those of onnxruntime-training, where that is right."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from onnxprune.errors import UsageError
from onnxprune.model.sources import read
from onnxprune.training.engines.onnxruntime_training import OnnxruntimeTraining
from onnxprune.training.engines.onnxruntime_training.interpreter import VARIABLE, find_interpreter
from onnxprune.training.graphs import build_graphs, with_loss
from onnxprune.training.loss.append import LABELS, Labels, LossConfig
from onnxprune.training.preparation import SEED_INPUT, Forward, prepare
from onnxprune.training.update.optimizers import Optimizer

pytest.importorskip("torch", reason="the networks are PyTorch's")
pytest.importorskip("onnxscript", reason="PyTorch's exporters need onnxscript")

from tests.training.test_whole_models import (
    ARCHITECTURES,
    BATCH,
    UNFOLDED,
    Arrays,
    exported,
    run,
)

LOSS = LossConfig("cross-entropy")
#: Networks that it cannot train, and at which operator.
REFUSED = {
    "unet-transposed": "ConvTranspose",
    "unet-bilinear": "Resize",
    "unet-aligned": "Resize",
}
TRAINED = [name for name in ARCHITECTURES if name not in REFUSED]


@pytest.fixture(scope="module", autouse=True)
def training_python() -> None:
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} names no Python with onnxruntime-training")
    try:
        find_interpreter()
    except UsageError as error:
        pytest.skip(str(error))


def compare(name: str, proto: ModelProto) -> None:
    architecture = ARCHITECTURES[name]
    inputs, labels = architecture.batch(BATCH)
    batch = {"x": inputs.numpy(), LABELS: labels.numpy()}
    compare_steps(prepare(read(proto)), batch, Labels(np.dtype(np.int64), architecture.labels))


def compare_steps(forward: Forward, batch: Arrays, labels: Labels) -> None:
    """A step of size 1 of plain gradient descent subtracts the gradient."""
    assert forward.fixed_batch is None
    optimizer = Optimizer("sgd", momentum=0.0)
    graphs = build_graphs(forward, loss=LOSS, labels=labels, optimizer=optimizer)
    own = run(graphs.training, {**batch, **graphs.initial}, len(batch[LABELS]))
    model, values = with_loss(forward, LOSS, labels)
    engine = OnnxruntimeTraining.start(
        model,
        loss=values.loss,
        trainable=graphs.parameters,
        masks={},
        optimizer=optimizer,
        seed=0,
        threads=1,
    )
    with contextlib.closing(engine):
        loss = engine.step(batch, 1.0)
        after = engine.parameters()
    assert loss == pytest.approx(own[graphs.loss.loss], rel=1e-5)
    gradients = {key: own[f"{key}.gradient"] for key in graphs.parameters}
    largest = max(np.linalg.norm(gradient) for gradient in gradients.values())
    for key, gradient in gradients.items():
        start = graphs.initial[key]
        # The difference of float32 weights has their rounding.
        rounding = 1e-7 * np.linalg.norm(start)
        norm = max(np.linalg.norm(gradient), 1e-3 * largest)
        difference = np.linalg.norm(start - np.float64(after[key]) - gradient)
        assert difference < 1e-4 * norm + rounding, key


@pytest.mark.slow
@pytest.mark.parametrize("how", ["torchscript", "torchscript-old", "dynamo"])
@pytest.mark.parametrize("name", TRAINED)
def test_gradients_equal_those_of_onnxruntime_training(name: str, how: str) -> None:
    compare(name, exported(name, how, ARCHITECTURES[name].build()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_gradients_with_batch_normalization(name: str) -> None:
    net = ARCHITECTURES[name].build()
    compare(name, exported(name, "torchscript", net, **UNFOLDED["torchscript"]))


@pytest.mark.parametrize("name", REFUSED)
def test_networks_that_it_cannot_train_are_refused(name: str) -> None:
    proto = exported(name, "torchscript", ARCHITECTURES[name].build())
    with pytest.raises(UsageError, match=f"cannot train through {REFUSED[name]} '"):
        compare(name, proto)


@pytest.mark.slow
def test_gradients_of_squeezenet(zoo: Path) -> None:
    """A real network with float16 weights, and dropout that drops the same in both."""
    forward = prepare(read(zoo / "squeezenet_fp16.onnx"))
    random = np.random.default_rng(0)
    batch = {
        "data_0": random.standard_normal((2, 3, 224, 224), np.float32),
        LABELS: random.integers(0, 1000, 2),
    }
    assert forward.dropouts == 1
    same = {SEED_INPUT: np.array(random.integers(2**31))}
    compare_steps(forward, {**batch, **same}, Labels(np.dtype(np.int64), ()))
