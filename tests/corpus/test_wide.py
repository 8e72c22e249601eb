"""The wide corpus in small: conversions through opsets 9 to 23, exports at some of them, a process
that may die; `python -m tests.corpus.wide` for all."""

from __future__ import annotations

import os
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from tests.corpus.cases import collect
from tests.corpus.isolated import Attempts, Lost, Worker
from tests.corpus.judging import Subject, Unseen
from tests.corpus.operations import examine
from tests.corpus.rows import Row
from tests.corpus.sources import Given, Source, of_case, similar
from tests.corpus.tallies import tables
from tests.corpus.tools import TOOLS
from tests.corpus.versions import OPSETS, converted, hand_made, opset_of, torch_exports
from tests.corpus.wide import read, run


def outcomes(source: Source) -> dict[tuple[str, str], str]:
    rows = examine(source, Attempts())
    assert not [row for row in rows if row.outcome == "problem"]
    return {(row.operation, row.check): row.outcome for row in rows}


@pytest.mark.parametrize("name", hand_made())
def test_models_converted_through_all_opsets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.corpus.tools.TOOLS", {})
    found, made = list(converted([(name, lambda: hand_made()[name])])), []
    assert len(found) == len(OPSETS) == 15
    for source in found:
        known = outcomes(source)
        if known == {("source", "made"): "source"}:
            continue
        made.append(int(source.key.rpartition("/")[2]))
        assert opset_of(source.make().model) == made[-1]
        for operation in ("sparse", "dense", "shrink", "repair"):
            assert known[operation, "onnxruntime"] == "passed"
        assert known["train", "made"] in ("passed", "refused")
        assert (known["train", "made"] == "refused") == (name == "recurrent")
    # The models are of opset 9 or 13 themselves, and the converter knows no way back for all.
    assert set(made) >= {9, 10, 11, 12} or set(made) >= set(range(13, 24))


@pytest.mark.skipif(not TOOLS, reason="onnxslim, onnxsim and OpenVINO are not installed")
def test_other_tools_take_what_is_written() -> None:
    known = outcomes(Source("perceptron", "made here", lambda: hand_made()["perceptron"]))
    for operation in ("dense", "repair", "train"):
        assert {known[operation, tool] for tool in TOOLS} <= {"passed", "rounded"}


@pytest.mark.parametrize("opset", [9, 15, 18, 23])
def test_a_network_exported_at_an_opset(opset: int) -> None:
    pytest.importorskip("torch", reason="these models are exported by torch")
    pytest.importorskip("onnxscript", reason="torch's exporters need onnxscript")
    source = next(s for s in torch_exports() if s.key == f"torch/mlp/{opset}")
    assert opset_of(source.make().model) == opset
    known = outcomes(source)
    assert known["train", "onnxruntime"] == known["shrink", "onnxruntime"] == "passed"


def test_a_backend_test_without_weights_is_kept_as_it_is() -> None:
    case = next(case for case in collect(30) if case.feeds)
    known = outcomes(Source("relu", "backend", partial(of_case, case)))
    assert known["sparse", "made"] == "refused"
    assert known["unpruned", "onnxruntime"] in ("passed", "source")


def test_judges_see_what_is_wrong() -> None:
    given = hand_made()["perceptron"]
    subject = Subject(given, Attempts())
    wrong = onnx.ModelProto.FromString(given.model.SerializeToString())
    weight = onnx.numpy_helper.to_array(wrong.graph.initializer[0]).copy()
    weight[0, 0] = np.nan
    wrong.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w1"))
    assert "other values" in subject.zeroed(given.model)
    assert "0 zeros, not 72" in subject.half_empty(given.model)
    assert "came back" in subject.masked(given.model)
    assert "differ" in subject.equal(wrong, given.model)
    assert "differ" in subject.near(wrong, given.model)
    with pytest.raises(Unseen):
        Subject(Given(given.model), Attempts()).equal(given.model, given.model)


def test_samples_are_like_what_they_come_from() -> None:
    x = np.random.default_rng(0).normal(5, 2, (4, 50)).astype(np.float16)
    ids = np.array([[3], [7], [3], [9]])
    made = similar([{"x": x, "ids": ids}])
    assert made["x"].shape == (32, 50) and made["x"].dtype == np.float16
    assert abs(made["x"].astype(float).mean() - 5) < 0.2
    assert set(made["ids"].ravel()) <= {3, 7, 9} and made["ids"].shape == (32, 1)
    assert similar([{"x": x, "scale": np.float32(2)}])["x"].shape == (4, 50)


def work(number: int, attempts: Attempts) -> list[str]:
    """Case 1 dies in its second step, case 2 hangs in it."""
    attempts.enter("first")
    try:
        attempts.enter("second")
    except Lost as lost:
        return [str(lost)]
    if number == 1:
        os._exit(7)
    if number == 2:
        time.sleep(60)
    return ["whole"]


def test_a_step_that_ends_its_process_is_left_out() -> None:
    worker = Worker(work, seconds=1.5)
    found = [worker.run(number) for number in range(4)]
    worker.close()
    assert found == [
        ["whole"], ["the process ends with 7"], ["takes more than 1.5 s"], ["whole"],
    ]  # fmt: skip


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.corpus.tools.TOOLS", {})  # their threads do not survive a fork
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Abs (x) }'

    def make() -> Given:
        return Given(parser.parse_model(text), ({"x": np.ones(2, np.float32)},))

    todo = [Source(f"abs/{n}", "made here", make) for n in range(2)]
    results = tmp_path / "wide.jsonl"
    run(todo[:1], results, 60)
    with results.open("a") as file:
        file.write('{"key": "abs/1", "ro')
    known = read(results)
    assert list(known) == ["abs/0"]
    rows = known["abs/0"]
    assert Counter(row.outcome for row in rows)["passed"] == 3
    assert "| made here | unpruned | 1 | 1 | 0 | 0 | 0 |" in tables(rows)
    wrong = Row("k", "made here", "dense", "checker", "problem", "bad")
    assert "| made here | dense | 1 | 0 | 0 | 0 | 1 |" in tables([*rows, wrong])
    assert tables([wrong]).endswith("problems: 1\nk dense checker: bad")
