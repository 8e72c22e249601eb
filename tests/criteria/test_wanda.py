"""Wanda against its definition, computed by hand from activations."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.criteria.wanda import rows_kept
from tests.builders import mlp
from tests.repair.cases import CASES, Case, opened, run
from tests.repair.test_refit import with_tensors
from tests.repair.test_repair import branching
from tests.test_calibration_doors import weight

INPUTS = 24
SIZES = (INPUTS, 40, 30, 10)


def scaled(count: int = 300, width: int = INPUTS) -> np.ndarray:
    """Samples whose inputs differ in size."""
    random = np.random.default_rng(3)
    x = random.standard_normal((count, width)) * np.linspace(0.1, 3, width) + 0.5
    return x.astype(np.float32)


def pruned(proto: onnx.ModelProto, x: np.ndarray, **options: Any) -> onnx.ModelProto:
    options = {"criterion": "wanda", "repair": "none", "check": False, "shrink": False, **options}
    return onnxprune.prune(proto, calibrate=x, **options).to_proto()


def layers(proto: onnx.ModelProto) -> list[np.ndarray]:
    return [weight(proto, f"fc{i}.weight") for i in range(len(SIZES) - 1)]


def norms_of(dense: onnx.ModelProto, weights: list[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
    """Norms of the inputs of every layer of a network with these weights."""
    found, data = [], x.astype(np.float64)
    for i, w in enumerate(weights):
        found.append(np.sqrt((data**2).sum(axis=0)))
        data = np.maximum(data @ w.T + weight(dense, f"fc{i}.bias"), 0)
    return found


def test_within_every_output_on_what_earlier_layers_have_become() -> None:
    dense, x = mlp(SIZES), scaled()
    found = layers(pruned(dense, x, sparsity=0.6, scope="layer"))
    for i, w in enumerate(layers(dense)):
        # Norms of layer i depend on the layers before it as they were pruned.
        norm = norms_of(dense, [*found[:i], *layers(dense)[i:]], x)[i]
        scores = np.abs(w) * norm
        count = round(0.6 * w.shape[1])
        for row, before, score in zip(found[i], w, scores, strict=True):
            gone = np.argsort(score)[:count]
            expected = before.copy()
            expected[gone] = 0
            assert np.array_equal(row, expected)


def test_over_all_layers_norms_count_in_their_layers_root_mean_square() -> None:
    dense, x = mlp(SIZES), scaled()
    weights = layers(dense)
    norms = norms_of(dense, weights, x)
    scores = [
        np.abs(w) * norm / np.sqrt((norm**2).mean()) for w, norm in zip(weights, norms, strict=True)
    ]
    flat = np.sort(np.concatenate([s.ravel() for s in scores]))
    limit = flat[round(0.7 * flat.size) - 1]
    for found, w, score in zip(
        layers(pruned(dense, x, sparsity=0.7)), weights, scores, strict=True
    ):
        assert np.array_equal(found, np.where(score <= limit * (1 + 1e-9), 0, w))


def test_inputs_that_are_always_zero_lose_their_weights_first() -> None:
    x = scaled()
    x[:, 5:11] = 0
    for scope in ("layer", "global"):
        found = weight(pruned(mlp(SIZES), x, sparsity=0.3, scope=scope), "fc0.weight")
        assert not found[:, 5:11].any()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_layout_ranks_within_its_outputs(case: Case) -> None:
    """Norms and outputs as onnxruntime shows them: the layer's outputs with one weight at 1."""
    x = case.samples() * np.linspace(0.3, 2, case.data[-1], dtype=np.float32)
    dense, found = (
        weight(case.proto(), "w"),
        weight(pruned(case.proto(), x, sparsity=0.3, scope="layer"), "w"),
    )
    norms = np.zeros(dense.shape)
    members: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for place in np.ndindex(dense.shape):
        alone = np.zeros_like(dense)
        alone[place] = 1
        zeros = {"w": alone, **({"b": np.zeros(case.bias, np.float32)} if case.bias else {})}
        y = run(opened(with_tensors(opened(case.proto()), zeros)), x)[0]
        norms[place] = np.sqrt((y.astype(np.float64) ** 2).sum())
        members.setdefault(output_of(case, y), []).append(place)
    scores = np.abs(dense) * norms
    for places in members.values():
        ranked = sorted(places, key=lambda place: scores[place])
        gone = {place for place in places if found[place] == 0}
        assert gone == set(ranked[: round(0.3 * len(places))])


def output_of(case: Case, y: np.ndarray) -> tuple[int, ...]:
    """Which output a weight belongs to: where along these axes the outputs are not zero."""
    if "Conv" in case.op:
        axes = [1]
    elif len(case.weight) == 1:
        axes = []
    else:
        axes = [y.ndim - 2 if case.left else y.ndim - 1]
        axes += [y.ndim - len(case.weight) + at for at in range(len(case.weight) - 2)
                 if case.weight[at] > 1 and not case.views]  # fmt: skip
    where = np.argwhere(y)
    found = tuple(int(where[0, axis]) for axis in axes)
    assert (where[:, axes] == found).all()
    return found


def test_a_convolution_ranks_patches() -> None:
    random = np.random.default_rng(0)
    w = random.standard_normal((5, 3, 3, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], strides=[2, 1])
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c, h, 8])
        for n, c, h in (("x", 3, 8), ("y", 5, 4))
    ]
    graph = helper.make_graph([node], "c", infos[:1], infos[1:], [numpy_helper.from_array(w, "w")])
    dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = (random.standard_normal((70, 3, 8, 8)) * np.linspace(0.1, 2, 8)).astype(np.float32)
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)]).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2]
    norm = np.sqrt((windows**2).sum(axis=(0, 2, 3)))
    scores = (np.abs(w) * norm).reshape(5, -1)
    found = weight(pruned(dense, x, sparsity=0.5, scope="layer"), "w").reshape(5, -1)
    for row, score in zip(found, scores, strict=True):
        assert set(np.flatnonzero(row == 0)) == set(np.argsort(score)[: round(0.5 * 27)])


def test_layers_whose_inputs_are_not_seen_go_by_magnitude() -> None:
    x = np.random.default_rng(3).standard_normal((100, 8)).astype(np.float32)
    for scope in ("layer", "global"):
        proto = pruned(branching(), x, sparsity=0.5, scope=scope)
        for name in ("rnn", "outer", "again"):
            before, after = weight(branching(), name), weight(proto, name)
            gone = after == 0
            assert gone.any()
            assert np.abs(before[gone]).max() <= np.abs(before[~gone]).min()
            if scope == "layer":
                assert gone.mean() == pytest.approx(0.5, abs=1 / gone.size)


def test_rows_keep_their_best() -> None:
    scores = np.random.default_rng(0).random((2, 3, 10))
    kept = rows_kept(scores, 0.25)
    assert ((~kept).sum(axis=2) == 2).all()
    assert (np.where(kept, 1, scores).max(axis=2) == 1).all()
    assert (np.where(kept, 0, scores).max(2) <= np.where(kept, scores, 1).min(2)).all()
