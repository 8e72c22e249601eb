"""What a summary says about retraining: as text, on a terminal, and as JSON."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence

import pytest
from rich.console import Console

from onnxprune.report import text
from onnxprune.report.console import print_report
from onnxprune.report.format import ASCII, clock, display_width, metric_text
from onnxprune.report.json import to_json
from onnxprune.report.report import Accuracy, Report
from onnxprune.report.summary import facts
from onnxprune.report.training import EpochRow, FrozenRow, RoundRow, Training

ROUNDS = """\
round   quality  zeros    loss  pruned  retrained  best epoch
-------------------------------------------------------------
1 of 2    0.875  85.0%  0.0876  95.00%     98.00%           3
2 of 2        1  90.8%  0.0452  93.12%     99.12%           2
"""

BLOCK = """\
accuracy      top-1 accuracy 99.17% dense, 93.12% pruned, 99.12% retrained (-0.05 points) on \
10,000 samples
training      5 of 6 epochs in 2 rounds (stopped early): 4,690 steps in 20.5 s, 16,234 samples/s, \
by onnxprune on onnxruntime 1.32.0
data          train.npz: 60,000 samples, labelled
loss          cross-entropy on the input of Softmax 'prob': 0.231 -> 0.0452 from the first to the \
last epoch
optimizer     adamw, weight decay 0.0001; learning rate 0.0001 (cosine), batches of 64
trained       405,500 parameters in 3 tensors
trained       float16 weights are trained as float32 copies
frozen        2 tensors (lstm.W, lstm.R): LSTM has no gradient rule
frozen        1 tensor (table): not matched by --train-layers
speed """


def lines_of(report: Report, label: str) -> list[str]:
    """Texts of the facts of one label."""
    return [fact.text for fact in facts(report, ASCII) if fact.label == label]


def one_round(training: Training) -> Training:
    """The second round alone, run to its end."""
    return dataclasses.replace(
        training,
        epochs=2,
        rounds=(dataclasses.replace(training.rounds[1], round=1),),
        epoch_rows=training.epoch_rows[3:],
        stopped_early=False,
    )


def test_the_whole_block(retrained: Report) -> None:
    shown = text.render(retrained)
    assert ROUNDS in shown
    assert BLOCK in shown


def test_without_training_nothing_is_said_of_it(report: Report) -> None:
    for label in ("training", "data", "loss", "optimizer", "trained", "frozen", "kept"):
        assert lines_of(report, label) == []
    assert "pruned, " not in lines_of(report, "accuracy")[0]


def test_one_round_has_no_table_but_names_its_best_epoch(
    retrained: Report, training: Training
) -> None:
    single = dataclasses.replace(retrained, training=one_round(training))
    assert "best epoch" not in text.render(single)
    assert lines_of(single, "kept") == ["epoch 2: the best top-1 accuracy, 99.12%"]
    assert lines_of(single, "training")[0].startswith("2 epochs: 4,690 steps in 20.5 s, ")
    assert lines_of(retrained, "kept") == []


def test_no_validation_data(retrained: Report, training: Training) -> None:
    rounds = tuple(
        dataclasses.replace(row, metric_pruned=None, metric_trained=None, best_epoch=None)
        for row in training.rounds
    )
    blind = dataclasses.replace(training, metric=None, rounds=rounds)
    shown = text.render(dataclasses.replace(retrained, training=blind))
    assert "round   quality  zeros    loss\n" in shown
    single = dataclasses.replace(one_round(training), metric=None)
    assert lines_of(dataclasses.replace(retrained, training=single), "kept") == []


def test_a_target_sparsity_has_its_own_column(retrained: Report, training: Training) -> None:
    rounds = tuple(dataclasses.replace(row, quality=None, sparsity=0.7) for row in training.rounds)
    sparse = dataclasses.replace(training, rounds=rounds)
    shown = text.render(dataclasses.replace(retrained, training=sparse))
    assert "round   sparsity  zeros" in shown
    assert "1 of 2       0.7  85.0%" in shown


def test_resumed(retrained: Report, training: Training) -> None:
    resumed = dataclasses.replace(training, resumed=True)
    line = lines_of(dataclasses.replace(retrained, training=resumed), "training")[0]
    assert "(resumed from a checkpoint, stopped early)" in line


def test_many_reasons_are_counted(retrained: Report, training: Training) -> None:
    frozen = tuple(FrozenRow(f"w{i}", "", "Foo", f"reason {i // 5}") for i in range(23))
    told = lines_of(
        dataclasses.replace(retrained, training=dataclasses.replace(training, frozen=frozen)),
        "frozen",
    )
    assert told == [
        "5 tensors (w0, w1, w2 and 2 more): reason 0",
        "5 tensors (w5, w6, w7 and 2 more): reason 1",
        "5 tensors (w10, w11, w12 and 2 more): reason 2",
        "8 more tensors for other reasons (see --json)",
    ]


@pytest.mark.parametrize(
    ("accuracy", "line"),
    [
        (
            Accuracy("mean squared error", 0.5, 0.75, 9, False, 2.0, "lower"),
            "mean squared error 0.5 dense, 2 pruned, 0.75 retrained (lower is better) on 9 samples",
        ),
        (
            Accuracy("error", 0.5, 0.25, 1, better="lower"),
            "error 50.00% -> 25.00% (-25.00 points, lower is better) on 1 sample",
        ),
        (Accuracy("score", 0.123456, 2, 9, share=False), "score 0.1235 -> 2 on 9 samples"),
    ],
)
def test_other_metrics(report: Report, accuracy: Accuracy, line: str) -> None:
    assert lines_of(dataclasses.replace(report, accuracy=accuracy), "accuracy") == [line]


def on_terminal(report: Report, width: int) -> list[str]:
    """Lines of a report on a colourless terminal."""
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=width, force_terminal=True, color_system=None))
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_it_fits_the_terminal(retrained: Report, width: int) -> None:
    lines = on_terminal(retrained, width)
    assert max(map(display_width, lines)) <= width
    (heading,) = (line for line in lines if line.startswith("round"))
    assert {"zeros", "pruned", "retrained"} <= set(heading.split()) or width < 40


def test_hostile_text_is_inert(retrained: Report, training: Training) -> None:
    evil = "\x1b[2J\n\u202e"
    hostile = dataclasses.replace(
        one_round(training),
        engine=evil,
        data=evil,
        loss=evil,
        optimizer=evil,
        schedule=evil,
        metric=evil,
        frozen=(FrozenRow(evil, evil, evil, evil),),
        notes=(evil,),
    )
    report = dataclasses.replace(retrained, training=hostile)
    assert text.render(report).isascii()
    assert "\x1b" not in text.render(report)
    assert "\x1b" not in "".join(on_terminal(report, 100))


def names(item: type) -> Sequence[str]:
    return [field.name for field in dataclasses.fields(item)]


def test_json_has_every_fact(retrained: Report) -> None:
    data = json.loads(to_json(retrained))
    assert data["accuracy"]["pruned"] == 0.9312
    assert data["accuracy"]["better"] == "higher"
    training = data["training"]
    assert list(training) == names(Training)
    for key, row, rows in (
        ("frozen", FrozenRow, 3),
        ("rounds", RoundRow, 2),
        ("epoch_rows", EpochRow, 5),
    ):
        assert len(training[key]) == rows
        assert all(list(item) == names(row) for item in training[key])
    assert training["rounds"][0] == {
        "round": 1,
        "quality": 0.875,
        "sparsity": None,
        "zeros": 0.85,
        "metric_pruned": 0.95,
        "metric_trained": 0.98,
        "best_epoch": 3,
    }


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00"), (59.6, "1:00"), (42.2, "0:42"), (725, "12:05"), (3723, "1:02:03")],
)
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_metric_text() -> None:
    assert metric_text(0.97123, True) == "97.12%"
    assert metric_text(0.0000123456, False) == "1.235e-05"
    assert metric_text(None, True) == metric_text(float("nan"), False) == "-"
