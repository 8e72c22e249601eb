"""What users may give, and the sentence for what they may not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.data.source import BatchSource, open_source
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError

F32 = np.dtype(np.float32)
SPEC = [InputSpec("x", F32, (None, 3))]
TWO = [*SPEC, InputSpec("z", F32, (None, 2))]
X = np.arange(12, dtype=np.float32).reshape(4, 3)
Z = np.ones((4, 2), np.float32)
LABELS = np.arange(4)


def batches(source: BatchSource) -> list[dict[str, np.ndarray]]:
    return list(source.epoch(0, 64, seed=None))


@pytest.mark.parametrize("name", ["x", "anything"])
@pytest.mark.parametrize("form", ["npz", "folder", "dict"])
def test_the_only_input_may_have_any_name(tmp_path: Path, name: str, form: str) -> None:
    given: Any = {name: X, "labels": LABELS}
    if form == "npz":
        np.savez(tmp_path / "set.npz", **given)
        given = str(tmp_path / "set.npz")
    elif form == "folder":
        for key, array in given.items():
            np.save(tmp_path / f"{key}.npy", array)
        given = tmp_path
    (batch,) = batches(open_source(given, SPEC, labelled=True))
    assert set(batch) == {"x", "labels"}


def test_inputs_whose_names_no_file_can_have(tmp_path: Path) -> None:
    specs = [InputSpec("in/x:0", F32, (None, 3)), InputSpec("z", F32, (None, 2))]
    np.save(tmp_path / "in_x_0.npy", X)
    np.save(tmp_path / "z.npy", Z)
    (batch,) = batches(open_source(tmp_path, specs))
    np.testing.assert_array_equal(batch["in/x:0"], X)


def test_a_single_unlabelled_array(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", X)
    for given in (X, (X,), tmp_path / "set.npy"):
        source = open_source(given, SPEC)
        assert source.labels is None
        assert source.description.endswith("4 samples, unlabelled")
        (batch,) = batches(source)
        assert set(batch) == {"x"}


@pytest.mark.parametrize("given", [(X, LABELS), {"x": X, "labels": LABELS}, [(X, LABELS)]])
def test_labels_can_be_ignored(given: Any) -> None:
    source = open_source(given, SPEC, labelled=False)
    assert source.labels is None
    assert [set(batch) for batch in batches(source)] == [{"x"}]


def test_a_source_is_returned_as_it_is() -> None:
    source = open_source((X, LABELS), SPEC)
    assert open_source(source, SPEC, labelled=True) is source
    with pytest.raises(DataError, match="no array 'labels'"):
        open_source(open_source(X, SPEC), SPEC, labelled=True)


class Boom:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("name", ["set.npz", "set.npy", "folder"])
def test_no_pickle_is_ever_loaded(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trap = np.array([Boom()], object)
    Path("folder").mkdir()
    np.savez("set.npz", x=trap)
    np.save("set.npy", trap)
    np.save("folder/x.npy", trap)
    with pytest.raises(DataError, match="text or pickled objects"):
        open_source(name, SPEC)
    assert not Path("unpickled").exists()


REFUSED: dict[str, tuple[Any, list[InputSpec], str]] = {
    "no labels": ({"x": X}, SPEC, r"no array 'labels' \(it has: 'x'\)"),
    "no input": ({"labels": LABELS}, SPEC, "no array for the model's input 'x'"),
    "other names": ({"a": X, "b": X, "labels": LABELS}, SPEC, "it has: 'a', 'b', 'labels'"),
    "one name of two": ({"x": X, "labels": LABELS}, TWO, "no array for the model's input 'z'"),
    "extra": (
        {"x": X, "y": LABELS, "id": LABELS, "labels": LABELS},
        SPEC,
        "no input of the model: 'y', 'id'; its inputs are 'x'",
    ),
    "too few": ((X,), TWO, "has 1 arrays; the model's inputs are 'x', 'z'"),
    "too many": ((X, Z, LABELS, LABELS), TWO, "has 4 arrays"),
    "fewer labels": ((X, LABELS[:2]), SPEC, "4 samples in 'x' but 2 labels"),
    "fewer of one": ((X, Z[:3], LABELS), TWO, "4 samples in 'x' but 3 in 'z'"),
    "text as labels": ((X, np.array(list("abcd"))), SPEC, "'labels' in the data is <U1"),
    "a number as labels": ((X, np.array(1)), SPEC, "'labels' in the data is int64 of shape ()"),
    "NaN in targets": ((X, LABELS * np.nan), SPEC, "'labels' in the data holds NaN"),
    "targets beyond float32": ((X, LABELS + 1e39), SPEC, "'labels' in the data holds NaN or inf"),
    "no samples": ((X[:0], LABELS[:0]), SPEC, "holds no samples"),
    "another type": (
        (X.astype(float), LABELS),
        SPEC,
        "'x' in the data is float64 of shape 4x3; the model wants float32 of shape .x3; convert "
        r"it with astype\('float32'\)",
    ),
    "another width": (
        (X[:, :2], LABELS),
        SPEC,
        r"is float32 of shape 4x2; the model wants float32 of shape \?x3; give it",
    ),
    "another rank": ((X[:, :, None], LABELS), SPEC, r"is float32 of shape 4x3x1; the model"),
    "a number": ({"x": np.array(1, np.float32), "labels": LABELS}, SPEC, r"of shape \(\); the"),
    "objects": (({"x": [[1, 2, 3], [None] * 3], "labels": LABELS}), SPEC, "is object of shape 2x3"),
    "ragged": (
        {"x": [[1, 2, 3], [4]], "labels": LABELS},
        SPEC,
        "type list, which numpy cannot read",
    ),
    "NaN": (
        (np.where(X == 7, np.nan, X), LABELS),
        SPEC,
        "holds NaN or infinity, first in sample 2",
    ),
    "nothing": (None, SPEC, "the given NoneType cannot be iterated"),
    "an input named labels": (X, [InputSpec("labels", F32, (None, 3))], "an input named 'labels'"),
    "no inputs": (X, [], "has no inputs"),
}
REFUSED["NaN"] = (REFUSED["NaN"][0][0].astype(np.float32), LABELS), *REFUSED["NaN"][1:]


@pytest.mark.parametrize("case", REFUSED)
def test_arrays_that_are_refused(case: str) -> None:
    given, specs, match = REFUSED[case]
    with pytest.raises(DataError, match=match):
        open_source(given, specs, labelled=True)


# ---- functions -----------------------------------------------------------------------------

MODULE = """
import numpy as np

calls = 0
X = np.zeros((4, 3), np.float32)

def arrays():
    return {"x": X, "labels": np.arange(4)}

def generator():
    global calls
    calls += 1
    for i in range(2):
        yield X + calls, np.arange(4)

def listed():
    return [(X, np.arange(4))]

def failing():
    raise KeyError("no disk")

def number():
    return 7

class Sets:
    train = staticmethod(arrays)

value = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "our_data.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "our_data"
    sys.modules.pop("our_data", None)


@pytest.mark.parametrize("function", ["arrays", "Sets.train"])
def test_a_function_that_returns_arrays(module: str, function: str) -> None:
    source = open_source(f"{module}:{function}", SPEC, labelled=True)
    assert source.samples == 4
    assert f"our_data:{function}: 4 samples, labelled" == source.description


def test_a_function_that_returns_a_list(module: str) -> None:
    source = open_source(Path(f"{module}:listed"), SPEC)  # as the command line has it
    assert len(batches(source)) == len(batches(source)) == 1


def test_a_generator_function_is_called_for_every_epoch(module: str) -> None:
    source = open_source(f"{module}:generator", SPEC)
    first, second = batches(source), batches(source)
    assert [batch["x"][0, 0] for batch in (*first, *second)] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("no_such_module_here:train", "cannot import 'no_such_module_here' .*current directory"),
        ("our_data:absent", "'our_data' has no 'absent'"),
        ("our_data:value", "'our_data:value' is of type int"),
        ("our_data:failing", "'our_data:failing' failed with KeyError .*no disk"),
        ("our_data:number", "'our_data:number' cannot be iterated"),
        ("broken:train", r"cannot import 'broken' for 'broken:train' \(SyntaxError"),
        ("leaving:train", r"cannot import 'leaving' .*\(SystemExit: 3\)"),
        ("our data:train", "cannot read 'our data:train'"),
    ],
)
def test_functions_that_are_refused(module: str, text: str, match: str) -> None:
    Path("broken.py").write_text("def train(:")
    Path("leaving.py").write_text("raise SystemExit(3)")
    with pytest.raises(DataError, match=match) as caught:
        open_source(text, SPEC)
    assert str(caught.value).isprintable()


def test_a_file_of_that_name_comes_first(module: str) -> None:
    with Path("our_data:arrays").open("wb") as file:
        np.savez(file, x=X[:3])
    assert open_source("our_data:arrays", SPEC).samples == 3
