from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from onnxprune.data.source import open_source
from onnxprune.data.specs import session_specs
from onnxprune.errors import DataError
from onnxprune.evaluation import Meter, agreement, evaluate, evaluate_session
from onnxprune.model.model import Model
from onnxprune.model.save import write_pair
from onnxprune.model.sources import read
from onnxprune.runtime import open_session

Batch = int | str


def identity(batch: Batch = "N", *, dtype: int = TensorProto.FLOAT, width: int = 5) -> ModelProto:
    """The output is the input."""
    return one_node("Identity", batch, width, dtype=dtype)


def one_node(
    operator: str, batch: Batch, width: int, *, dtype: int = TensorProto.FLOAT, **attributes: Any
) -> ModelProto:
    node = helper.make_node(operator, ["x"], ["y"], **attributes)
    kind = TensorProto.INT64 if operator == "ArgMax" else dtype
    inputs = [helper.make_tensor_value_info("x", dtype, [batch, width])]
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    graph = helper.make_graph([node], "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def argmax(batch: Batch = "N") -> ModelProto:
    return one_node("ArgMax", batch, 5, axis=1, keepdims=0)


RANDOM = np.random.default_rng(0)
SCORES = RANDOM.standard_normal((130, 5)).astype(np.float32)
LABELS = SCORES.argmax(1)
LABELS[:13] = (LABELS[:13] + 1) % 5
PARTS = [(SCORES[i : i + 50], LABELS[i : i + 50]) for i in range(0, 130, 50)]


@pytest.fixture
def val(tmp_path: Path) -> Path:
    np.savez(tmp_path / "val.npz", x=SCORES, labels=LABELS)
    return tmp_path / "val.npz"


@pytest.mark.parametrize("model", [identity(), identity(1), identity(7), argmax(), argmax(7)])
@pytest.mark.parametrize("form", ["npz", "arrays", "batches"])
def test_top1(val: Path, model: ModelProto, form: str) -> None:
    given: Any = {"npz": val, "arrays": (SCORES, LABELS), "batches": PARTS}[form]
    meter = Meter(given)
    assert (meter.metric, meter.samples, meter.description) == ("accuracy", 0, "")
    for _ in range(2):
        assert meter(read(model)) == 117 / 130
    assert (meter.metric, meter.samples) == ("top-1 accuracy", 130)
    assert (meter.better, meter.share) == ("higher", True)
    assert meter.description.endswith("labelled")


def test_models_over_two_gigabytes_go_through_a_file(
    val: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def write(model: Model, path: Path) -> None:
        write_pair(model, path)
        written.append(path)

    monkeypatch.setattr("onnxprune.evaluation.INLINE_LIMIT", 0)
    monkeypatch.setattr("onnxprune.evaluation.write_pair", write)
    assert Meter(val)(read(identity())) == 117 / 130
    assert len(written) == 1
    assert not written[0].exists()


@pytest.mark.parametrize("batch", ["N", 7])
def test_mean_squared_error(batch: Batch) -> None:
    targets = RANDOM.standard_normal((130, 5))
    meter = Meter((SCORES, targets))
    wanted = np.square(SCORES - targets).mean()
    assert meter(read(identity(batch))) == pytest.approx(wanted)
    assert (meter.metric, meter.better, meter.share) == ("mean squared error", "lower", False)


def test_one_value_is_yes_or_no_by_the_last_operator() -> None:
    x = np.array([[-1], [0.2], [0.4], [0.6]], np.float32)
    answers = np.array([0, 0, 1, 1])
    meter = Meter((x, answers))
    assert meter(read(identity(width=1))) == 3 / 4
    assert meter.metric == "accuracy at logit 0"
    assert meter(read(one_node("Sigmoid", "N", 1))) == 3 / 4
    assert meter.metric == "accuracy at 0.5"
    assert meter(read(one_node("HardSigmoid", "N", 1, alpha=1.0, beta=0.0))) == 3 / 4


def test_an_open_session() -> None:
    session = open_session(identity().SerializeToString())
    source = open_source((SCORES, LABELS), session_specs(session))
    assert evaluate_session(session, source) == 117 / 130
    assert Meter((SCORES, LABELS)).measure(session) == 117 / 130
    with pytest.raises(DataError, match="the data has no labels"):
        evaluate_session(session, open_source(SCORES, session_specs(session)))


def test_data_of_a_float16_model_feeds_its_float32_copy() -> None:
    half = open_session(identity(dtype=TensorProto.FLOAT16).SerializeToString())
    source = open_source((SCORES.astype(np.float16), LABELS), session_specs(half))
    wanted = (SCORES.astype(np.float16).argmax(1) == LABELS).mean()
    for session in (half, open_session(identity().SerializeToString())):
        assert evaluate_session(session, source) == wanted


@pytest.mark.parametrize("batch", ["N", 7])
def test_agreement_with_the_unpruned_model(batch: Batch) -> None:
    lowest = one_node("Neg", batch, 5)
    for data in (SCORES, [SCORES[:50], SCORES[50:]]):
        meter = Meter(data, reference=read(identity(batch)))
        assert meter(read(identity(batch))) == 1
        assert meter(read(lowest)) == 0
        assert (meter.metric, meter.samples) == ("agreement with the unpruned model", 130)
    sessions = [open_session(m.SerializeToString()) for m in (identity(), one_node("Abs", "N", 5))]
    source = open_source(SCORES, session_specs(sessions[0]))
    wanted = (SCORES.argmax(1) == abs(SCORES).argmax(1)).mean()
    assert 0 < agreement(*sessions, source) == wanted < 1


def test_labels_go_before_the_unpruned_model(val: Path) -> None:
    meter = Meter(val, reference=read(one_node("Neg", "N", 5)))
    assert meter(read(identity())) == 117 / 130
    assert meter.metric == "top-1 accuracy"


def test_values_agree_by_their_distance() -> None:
    x = SCORES[:, :1]
    meter = Meter(x, reference=read(identity(width=1)))
    assert meter(read(one_node("Neg", "N", 1))) == pytest.approx(np.square(2 * x).mean())
    assert meter.metric == "mean squared error against the unpruned model"
    sides = Meter(x, reference=read(one_node("Sigmoid", "N", 1)))
    assert sides(read(one_node("Sigmoid", "N", 1))) == 1
    assert sides.metric == "agreement with the unpruned model"


def test_refusals(val: Path) -> None:
    with pytest.raises(DataError, match="no array 'labels'"):
        Meter(SCORES)(read(identity()))
    with pytest.raises(
        DataError, match=r"'labels' in the data is 5 for sample 129 .*has 5 classes"
    ):
        Meter((SCORES, np.append(LABELS[:-1], 5)))(read(identity()))
    with pytest.raises(DataError, match="is -1 for sample 3 "):
        Meter((SCORES[:4], np.array([0, 0, 0, -1])))(read(identity()))
    with pytest.raises(DataError, match="1 rows for 64 samples"):
        Meter(val)(read(one_node("ReduceSum", "N", 5)))
    with pytest.raises(DataError, match="1 rows for 7 samples"):
        Meter(val)(read(one_node("ReduceSum", 7, 5)))
    with pytest.raises(DataError, match="0 rows for 64 samples"):
        Meter(val)(read(one_node("ReduceSum", "N", 5, keepdims=0)))
    once = Meter(part for part in PARTS)
    assert once(read(identity())) == 117 / 130
    with pytest.raises(DataError, match="only once"):
        once(read(identity()))


def test_anything_that_predicts_can_be_measured() -> None:
    specs = session_specs(open_session(identity(3).SerializeToString()))
    sizes = []

    def predict(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        sizes.append(len(feeds["x"]))
        return [feeds["x"]]

    measured = evaluate(predict, specs, open_source(PARTS, specs))
    assert (measured.value, measured.samples) == (117 / 130, 130)
    assert sizes == [3] * (17 + 17 + 10)
    sizes.clear()
    evaluate(predict, specs, open_source((SCORES, LABELS), specs))
    assert sizes == [3] * 44


def test_outputs_of_the_unpruned_model_are_kept_for_arrays_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = []

    def count(*arguments: Any, **more: Any) -> Any:
        opened.append(arguments)
        return open_session(*arguments, **more)

    monkeypatch.setattr("onnxprune.evaluation.open_session", count)
    reference, other = read(identity()), read(one_node("Abs", "N", 5))
    wanted = (SCORES.argmax(1) == abs(SCORES).argmax(1)).mean()
    for data, sessions in ((SCORES, 4), ([SCORES[:50], SCORES[50:]], 6)):
        opened.clear()
        meter = Meter(data, reference=reference)
        assert [meter(model) for model in (reference, other, other)] == [1, wanted, wanted]
        assert len(opened) == sessions
    opened.clear()
    monkeypatch.setattr("onnxprune.runner.KEPT_BYTES", 2000)
    meter = Meter(SCORES, reference=reference)
    assert [meter(model) for model in (reference, other)] == [1, wanted]
    assert len(opened) == 4, "what does not fit is computed again"


def test_inputs_that_samples_share() -> None:
    """A scalar beside samples of a fixed batch size goes along as it is."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [7, 5])
    scale = helper.make_tensor_value_info("scale", TensorProto.FLOAT, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node("Mul", ["x", "scale"], ["y"])
    model = helper.make_model(
        helper.make_graph([node], "g", [scale, x], [y]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    data = {"x": SCORES, "scale": np.float32(-1), "labels": LABELS}
    assert Meter(data)(read(model)) == (SCORES.argmin(1) == LABELS).mean()


def test_the_error_of_a_mean() -> None:
    meter = Meter((SCORES, LABELS))
    meter(read(identity()))
    share = 117 / 130
    assert meter.measured is not None
    assert meter.measured.error == pytest.approx((share * (1 - share) / 129) ** 0.5)
