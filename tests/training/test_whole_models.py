"""Gradients of whole networks, exported in several ways, against PyTorch's in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto

from onnxprune.model.sources import read
from onnxprune.training.graphs import StepGraphs, build_graphs
from onnxprune.training.loss.append import LABELS, Labels, LossConfig
from onnxprune.training.preparation import Forward, prepare
from onnxprune.training.update.optimizers import Optimizer
from tests.training.nets import model

torch = pytest.importorskip("torch", reason="the networks are PyTorch's")
pytest.importorskip("onnxscript", reason="PyTorch's exporters need onnxscript")

from tests.training.whole_models import ARCHITECTURES, Architecture, export  # noqa: E402

Arrays = dict[str, np.ndarray]
BATCH = 3
TOLERANCE = 1e-4
#: Oldest opsets that PyTorch exports these networks to.
OLDEST = {"encoder": 14, "vit": 14, "gpt": 14, "gpt-tied": 14}
EXPORTS: dict[str, dict[str, Any]] = {
    "torchscript": {"exporter": "torchscript"},
    "torchscript-old": {"exporter": "torchscript", "opset": 11},
    "torchscript-batch-of-1": {"exporter": "torchscript", "free": False},
    "dynamo": {"exporter": "dynamo"},
    "dynamo-opset-23": {"exporter": "dynamo", "opset": 23},
    "dynamo-batch-of-1": {"exporter": "dynamo", "free": False},
}
#: What keeps BatchNormalization apart from convolutions.
UNFOLDED = {
    "torchscript": {"training": torch.onnx.TrainingMode.PRESERVE},
    "dynamo": {"optimize": False},
}
WITH_STATISTICS = ["resnet", "mobilenet", "unet-bilinear"]


@pytest.fixture(scope="module", autouse=True)
def single_thread() -> Iterator[None]:
    """Threads cost more than they save on networks as small as these."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


def slow_where_dynamo(*names: str) -> list[Any]:
    """Its exports take seconds."""
    return [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("dynamo") else ())
        for name in names
    ]


def exported(name: str, how: str, net: Any, **options: Any) -> ModelProto:
    settings = {**EXPORTS[how], **options}
    if "opset" in settings:
        settings["opset"] = max(settings["opset"], OLDEST.get(name, 0))
    inputs, _ = ARCHITECTURES[name].batch(1 if settings.get("free") is False else BATCH)
    return export(net, inputs, **settings)


def prepared(proto: ModelProto, architecture: Architecture, bn: Any) -> tuple[Forward, StepGraphs]:
    forward = prepare(read(proto), bn=bn)
    labels = Labels(np.dtype(np.int64), architecture.labels)
    options = {"loss": LossConfig("cross-entropy"), "labels": labels, "optimizer": Optimizer()}
    return forward, build_graphs(forward, **options)


def run(proto: ModelProto, feeds: Arrays, size: int, part: int | None = None) -> Arrays:
    """Means of outputs over the parts of a batch of `size` that a graph takes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = {info.name for info in session.get_inputs()}
    names = [info.name for info in proto.graph.output]
    whole = {name: array for name, array in feeds.items() if name in wanted}
    sums: Arrays = {}
    step = part or size
    for start in range(0, size, step):
        chosen = {
            name: array[start : start + step] if name in ("x", LABELS) else array
            for name, array in whole.items()
        }
        for name, value in zip(names, session.run(names, chosen), strict=True):
            sums[name] = sums.get(name, 0) + np.float64(value) * step / size
    return sums


# ---- PyTorch's side ------------------------------------------------------------------------


def without_statistics(net: Any) -> Any:
    """Every BatchNormalization folded into the convolution in front of it, as exporters do."""
    net = copy.deepcopy(net)
    leaves = [(name, module) for name, module in net.named_modules() if not [*module.children()]]
    for (before, conv), (name, norm) in pairwise(leaves):
        if isinstance(norm, torch.nn.BatchNorm2d):
            fused = torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
            fused.bias.requires_grad_()
            net.set_submodule(before, fused)
            net.set_submodule(name, torch.nn.Identity())
    return net


def loss_and_gradients(net: Any, batch: tuple[Any, Any]) -> tuple[float, Arrays]:
    net = copy.deepcopy(net).double()
    inputs, labels = batch
    if inputs.is_floating_point():
        inputs = inputs.double()
    net.zero_grad()
    loss = torch.nn.functional.cross_entropy(net(inputs), labels)
    loss.backward()
    return loss.item(), {name: p.grad.numpy() for name, p in net.named_parameters()}


# ---- which constant is which parameter -----------------------------------------------------


def views(array: np.ndarray) -> Iterator[tuple[slice, tuple[int, ...], np.ndarray]]:
    """A parameter and its thirds (query, key and value), with axes in every order."""
    third = array.shape[0] // 3
    parts = [slice(None), *(slice(i * third, (i + 1) * third) for i in range(3) if third)]
    for part in parts:
        for order in permutations(range(array.ndim)):
            yield part, order, array[part].transpose(order)


def assembled(found: Arrays, initial: Mapping[str, np.ndarray], parameters: Arrays) -> Arrays:
    """Gradients of constants as gradients of the parameters that have the constants' values.

    A parameter that is stored several times has the sum of the gradients.
    """
    totals = {name: np.full(array.shape, np.nan) for name, array in parameters.items()}
    for name, gradient in found.items():
        whose, part, order, shape = owner(name, initial[name], parameters)
        back = gradient.reshape(shape).transpose(np.argsort(order))
        total = totals[whose][part]
        totals[whose][part] = np.where(np.isnan(total), 0, total) + back
    return totals


def owner(
    name: str, value: np.ndarray, parameters: Arrays
) -> tuple[str, slice, tuple[int, ...], tuple[int, ...]]:
    for whose, parameter in parameters.items():
        if value.size in (parameter.size, parameter.size / 3):
            for part, order, view in views(parameter):
                if view.size == value.size and np.allclose(
                    view.ravel(), value.ravel(), rtol=1e-5, atol=1e-7
                ):
                    return whose, part, order, view.shape
    raise AssertionError(f"'{name}' {value.shape} is trained and is no parameter of PyTorch's")


def compare(name: str, proto: ModelProto, net: Any, bn: str = "frozen") -> Forward:
    """Loss, gradients and choice of parameters, all against PyTorch's; `net` in its mode."""
    architecture = ARCHITECTURES[name]
    forward, graphs = prepared(proto, architecture, bn)
    inputs, labels = architecture.batch(BATCH)
    feeds = {"x": inputs.numpy(), LABELS: labels.numpy(), **graphs.initial}
    results = run(graphs.training, feeds, BATCH, forward.fixed_batch)
    parameters = {key: p.detach().numpy() for key, p in net.named_parameters()}
    gradients = {key: results[f"{key}.gradient"] for key in graphs.parameters}
    found = assembled(gradients, graphs.initial, parameters)
    loss, expected = loss_and_gradients(net, (inputs, labels))
    assert results[graphs.loss.loss] == pytest.approx(loss, rel=1e-5)
    largest = max(np.linalg.norm(gradient) for gradient in expected.values())
    for key, gradient in expected.items():
        assert not np.isnan(found[key]).any(), f"{key} is not trained: {graphs.selection.frozen}"
        # A bias in front of BatchNormalization has the gradient 0, up to rounding.
        norm = max(np.linalg.norm(gradient), 1e-3 * largest)
        assert np.linalg.norm(found[key] - gradient) < TOLERANCE * norm, key
    frozen_loss = loss_and_gradients(net.eval(), (inputs, labels))[0] if bn == "train" else loss
    evaluation = run(graphs.evaluation, feeds, BATCH, forward.fixed_batch)
    assert evaluation[graphs.loss.loss] == pytest.approx(frozen_loss, rel=1e-5)
    return forward


# ---- tests ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", slow_where_dynamo(*EXPORTS))
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_equal_those_of_pytorch(name: str, how: str) -> None:
    net = ARCHITECTURES[name].build()
    compare(name, exported(name, how, net), without_statistics(net))


@pytest.mark.parametrize("bn", ["frozen", "train"])
@pytest.mark.parametrize("how", slow_where_dynamo("torchscript", "torchscript-old", "dynamo"))
@pytest.mark.parametrize("name", WITH_STATISTICS)
def test_gradients_with_batch_normalization(name: str, how: str, bn: str) -> None:
    net = ARCHITECTURES[name].build()
    proto = exported(name, how, net, **UNFOLDED[how.partition("-")[0]])
    assert any(node.op_type == "BatchNormalization" for node in proto.graph.node)
    compare(name, proto, net.train(bn == "train"), bn)


# ---- what is no parameter ------------------------------------------------------------------

SCORES = """agraph (float[N, 4, 6] x) => (float[N, 4, 3] y) {
    c = Add (x, mean)
    a = MatMul (c, w1)
    token = Add (a, positions)
    q = MatMul (token, w2)
    t = Transpose <perm = [0, 2, 1]> (q)
    s = MatMul (q, t)
    scaled = Mul (s, scale)
    masked = Add (scaled, mask)
    p = Softmax (masked)
    m = MatMul (p, q)
    square = MatMul (w2, w2)
    moved = Add (square, identity)
    z = MatMul (m, moved)
    j = Concat <axis = 1> (z, extra)
    k = Slice (j, zero, four, one)
    l = MatMul (k, w3)
    y = Add (l, grid)
}"""
CONSTANTS = {
    "mean": (4, 6),
    "w1": (6, 5),
    "w2": (5, 5),
    "w3": (5, 3),
    "positions": (1, 4, 5),
    "scale": (1,),
    "mask": (4, 4),
    "identity": (5, 5),
    "extra": (1, 1, 5),
    "grid": (4, 3),
    **{name: np.array([at], np.int64) for name, at in {"zero": 0, "one": 1, "four": 4}.items()},
}


def test_masks_grids_and_factors_are_no_parameters() -> None:
    """A table of positions is trained where layers come before and after it."""
    proto = model(SCORES.replace("N, ", "1, "), CONSTANTS)
    graphs = build_graphs(
        prepare(read(proto)),
        loss=LossConfig("cross-entropy"),
        labels=Labels(np.dtype(np.int64), (3,)),
        optimizer=Optimizer(),
    )
    decays = {parameter.name: parameter.decays for parameter in graphs.selection.trained}
    weights = dict.fromkeys(("w1", "w2", "w3"), True)
    assert decays == {**weights, "positions": False, "extra": False}
    assert set(graphs.selection.frozen) == {"mean", "scale", "mask", "identity", "grid"}
