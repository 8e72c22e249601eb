"""Pruning while training, through the Python door: what is left, what is said, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune
from onnxprune.api import Result
from onnxprune.errors import UsageError
from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from tests.test_retraining import LSTM, LSTM_SHAPES
from tests.training.nets import MLP_SHAPES, batches, cnn, data, mlp, model, stored

each = pytest.mark.parametrize("method", ["gradual", "splicing"])
DROPOUT = """agraph (float[N, 6] x) => (float[N, 3] y) {
    h = Gemm <transB = 1> (x, w1, b1)
    a = Relu (h)
    r = Constant <value_float = 0.5> ()
    d = Dropout (a, r)
    y = Gemm <transB = 1> (d, w2, b2)
}"""


def run(proto: ModelProto, method: str, *, shape: tuple[int, ...] = (6,), **more: Any) -> Result:
    own = {key: more.pop(key) for key in ("train", "val", "calibrate", "pattern") if key in more}
    hard = {key: more.pop(key) for key in ("quality", "sparsity", "scope", "layers") if key in more}
    settings = {"epochs": 3, "batch_size": 4, "lr": 0.01, "method": method, **more}
    if method == "splicing":
        settings["optimizer"] = "sgd"
    train = own.pop("train", data(64, shape))
    finetune = onnxprune.FineTune(**settings)
    return onnxprune.prune(proto, **hard, **own, train=train, finetune=finetune, shrink=False)


def weights(result: Result) -> dict[str, np.ndarray]:
    return stored(result.to_proto())


def zeros(arrays: dict[str, np.ndarray], *names: str) -> int:
    return sum(int((arrays[name] == 0).sum()) for name in names)


@each
def test_the_share_of_zeros_is_met_to_the_weight(method: str) -> None:
    result = run(mlp(), method, sparsity=0.75)
    assert zeros(weights(result), "w1", "w2") == round(0.75 * (48 + 24))
    assert result.report.kept == 72 - 54
    by_layer = run(cnn(), method, shape=(2, 6, 6), sparsity=0.5, scope="layer")
    assert [zeros(weights(by_layer), name) for name in ("k", "w")] == [36, 54]


@each
def test_zeros_are_plus_zero(method: str) -> None:
    found = weights(run(mlp(), method, sparsity=0.75))["w1"]
    gone = found[found == 0]
    assert gone.size and gone.tobytes() == bytes(4 * gone.size)


@each
def test_a_quality_is_met(method: str) -> None:
    """What is left when masks settle is above the lower threshold; then it is trained on."""
    source = stored(mlp())["w1"]
    result = run(mlp(), method, quality=0.8, settle=0.0, ramp=0.0, lr=1e-3)
    after = weights(result)["w1"]
    limit = 0.8 * source.std() * (0.9 if method == "splicing" else 1.0)
    assert np.abs(after[after != 0]).min() >= limit
    row = result.report.layers[0]
    assert row.kept == np.count_nonzero(after)
    assert row.threshold == pytest.approx(0.8 * source.std(), rel=1e-6)


@each
def test_layers_of_their_own_quality_and_layers_left_alone(method: str) -> None:
    result = run(mlp(), method, sparsity=0.5, layers={"w2": None})
    found = weights(result)
    assert zeros(found, "w1") == 24 and zeros(found, "w2") == 0
    assert result.report.layers[1].quality is None
    own = weights(run(mlp(), method, sparsity=0.5, layers={"w2": 3.0}, settle=0.0, lr=1e-3))
    assert zeros(own, "w1") == 24 and zeros(own, "w2") >= 20


def test_spliced_weights_come_back() -> None:
    """With thresholds high at once, splicing ends with weights that the first cut took."""
    source = stored(mlp())
    first = stored(onnxprune.prune(mlp(), sparsity=0.75, shrink=False).to_proto())
    spliced = weights(run(mlp(), "splicing", sparsity=0.75, ramp=0.0, lr=0.05, epochs=8))
    gradual = weights(run(mlp(), "gradual", sparsity=0.75, ramp=0.0, lr=0.05, epochs=8))
    back = {"splicing": spliced, "gradual": gradual}
    count = {
        name: sum(int(((found[w] != 0) & (first[w] == 0)).sum()) for w in ("w1", "w2"))
        for name, found in back.items()
    }
    assert count["splicing"] > 0 and count["gradual"] == 0
    assert (source["w1"] != 0).all()


@each
def test_zeros_of_the_source_stay(method: str) -> None:
    proto = mlp()
    array = np.array(numpy_helper.to_array(proto.graph.initializer[0]))
    array[:, :3] = 0
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w1"))
    found = weights(run(proto, method, sparsity=0.6, lr=0.1))
    assert (found["w1"][:, :3] == 0).all()
    assert zeros(found, "w1", "w2") == round(0.6 * 72)


@each
def test_layers_that_are_not_trained_are_pruned_at_once(method: str) -> None:
    proto = model(LSTM, LSTM_SHAPES)
    at_once = stored(onnxprune.prune(proto, sparsity=0.5, shrink=False).to_proto())
    result = run(proto, method, sparsity=0.5)
    found = weights(result)
    for name in ("lw", "lr"):
        assert np.array_equal(found[name], at_once[name])
    names = ("lw", "lr", "w1", "w2")
    assert zeros(found, *names) == sum(row.weights - row.kept for row in result.report.layers)
    assert zeros(found, *names) == zeros(at_once, *names)


@each
def test_the_report_says_how_and_dropout_follows_what_is_left(method: str) -> None:
    result = run(model(DROPOUT, MLP_SHAPES), method, sparsity=0.75, val=data(30, seed=5))
    report = result.report
    assert report.training.method == (
        f"{method}: thresholds rising (cubic) over 50% of the steps, masks settled after 75% of"
        " the steps"
    )
    assert f"method {method}: thresholds" in " ".join(str(report).split())
    (row,) = report.dropouts
    first = report.layers[0]
    assert row.after == pytest.approx(0.5 * (first.kept / first.weights) ** 0.5)
    assert report.training.rounds[0].zeros == pytest.approx(0.75)
    measured = onnxprune.evaluate([result.to_proto()], val=data(30, seed=5), runs=0).metric
    assert report.accuracy.after == pytest.approx(measured.values[0])
    assert report.accuracy.after == report.training.epoch_rows[-1].metric


@each
def test_the_written_file_holds_the_zeros(method: str, tmp_path: Path) -> None:
    result = run(mlp(), method, sparsity=0.75)
    report = result.save(tmp_path / "m.onnx")
    assert not report.failed
    written = stored(to_proto(read(tmp_path / "m.onnx")))
    assert zeros(written, "w1", "w2") == 54
    assert all(np.array_equal(written[name], array) for name, array in weights(result).items())


@each
def test_a_stream_ends_as_arrays_do(method: str) -> None:
    def stream() -> Iterator[dict[str, np.ndarray]]:
        return iter(batches(20, 4))

    result = run(mlp(), method, sparsity=0.75, train=stream)
    assert result.report.kept == 18
    with pytest.raises(UsageError, match="give at least 2 epochs"):
        run(mlp(), method, sparsity=0.75, train=stream, epochs=1)


@each
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"pattern": "2:4"}, "leave out the pattern"),
        ({"calibrate": {"x": data(8)["x"]}, "sparsity": 0.5}, "leave out calibrate"),
    ],
)
def test_what_has_no_sense_is_refused(method: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        run(mlp(), method, **more)


@each
def test_one_step_is_enough(method: str) -> None:
    result = run(mlp(), method, sparsity=0.75, epochs=1, batch_size=64)
    assert (result.report.training.steps, result.report.kept) == (1, 18)


@each
def test_nothing_to_prune_is_training_alone(method: str) -> None:
    result = run(mlp(), method, quality=0.0)
    assert result.report.kept == 72


# ---- saliency ----------------------------------------------------------------------------------


def rescaled(factor: float) -> ModelProto:
    """The network with its first layer times a factor and its second by it: the same function."""
    proto = mlp()
    factors = {"w1": factor, "b1": factor, "w2": 1 / factor}
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor) * np.float32(factors.get(tensor.name, 1))
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


def left(proto: ModelProto, saliency: str) -> list[list[bool]]:
    """Which weights stay when training moves them next to nothing."""
    found = weights(run(proto, "gradual", sparsity=0.75, saliency=saliency, lr=1e-9, l2=0.0))
    return [(found[name] != 0).ravel().tolist() for name in ("w1", "w2")]


def test_fisher_does_not_depend_on_how_layers_are_scaled_and_magnitude_does() -> None:
    one, other = mlp(), rescaled(16)
    assert left(one, "fisher") == left(other, "fisher")
    assert left(one, "magnitude") != left(other, "magnitude")
    assert left(one, "fisher") != left(one, "magnitude")


def test_fisher_meets_the_share_and_is_said() -> None:
    result = run(mlp(), "gradual", sparsity=0.75, saliency="fisher")
    assert zeros(weights(result), "w1", "w2") == 54
    method = result.report.training.method
    assert method is not None and method.endswith("of the steps, saliency fisher")


def test_layers_of_their_own_quality_go_by_magnitude_beside_fisher() -> None:
    more: dict[str, Any] = {"sparsity": 0.5, "layers": {"w2": 0.8}, "settle": 0.0, "lr": 1e-9}
    found = weights(run(mlp(), "gradual", saliency="fisher", l2=0.0, **more))["w2"]
    source = stored(mlp())["w2"]
    assert np.array_equal(found != 0, np.abs(source) >= 0.8 * source.std())


def test_fisher_needs_a_share_of_zeros() -> None:
    with pytest.raises(UsageError, match=r"ranks weights for a share .*: give a sparsity"):
        run(mlp(), "gradual", quality=1.0, saliency="fisher")
