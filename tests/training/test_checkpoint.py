"""Checkpoints: what comes back, what is the same training, and when the old file survives."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.config import PruneConfig
from onnxprune.data.source import open_source
from onnxprune.data.specs import input_specs
from onnxprune.errors import DataError, OutputError, UsageError
from onnxprune.finetune import FineTune
from onnxprune.model.sources import read
from onnxprune.model.tensors import TensorAddress
from onnxprune.report.training import EpochRow, RoundRow
from onnxprune.training.checkpoint import (
    Checkpoint,
    Fingerprint,
    fingerprint,
    load_checkpoint,
    save_checkpoint,
    start_payloads,
)
from onnxprune.training.checkpoint_folder import FILE, PREVIOUS, held
from onnxprune.training.loop import Position, Totals
from onnxprune.training.tensor_file import read_tensors, write_tensors
from tests.training.nets import data, mlp

MODELS = Path(__file__).resolve().parent.parent.parent / "models"
EPOCH = EpochRow(1, 1, 0.1, 0.3333333333333333, None, 40, 1.5)
STATE = Checkpoint(
    round=2,
    rounds=(RoundRow(1, 0.5, None, 0.25, None, 0.75, 3),),
    history=(EPOCH,),
    totals=Totals(12, 120, 3.5, True),
    position=Position(
        epoch=1,
        batch=3,
        loss=0.1 + 0.2,
        samples=30,
        rows=[EPOCH],
        best_epoch=1,
        best={"w1": np.ones((2, 3), np.float32)},
    ),
    engine={"w1": np.zeros((2, 3), np.float32), "onnxprune.steps": np.array(5, np.int64)},
    start={TensorAddress((), "w1"): np.arange(48, dtype=np.float32)},
)


def of(proto: onnx.ModelProto | Path | None = None, **changes: Any) -> Fingerprint:
    source = read(mlp() if proto is None else proto)
    given = changes.pop("data", data(20))
    samples = open_source(given, input_specs(source.proto))
    config = changes.pop("config", PruneConfig())
    val = changes.pop("val", "")
    return fingerprint(source, config, FineTune(**changes), samples, val)


def test_everything_comes_back(tmp_path: Path) -> None:
    source = read(mlp())
    save_checkpoint(tmp_path / "new", STATE, of())
    found = load_checkpoint(tmp_path / "new", source, of())
    for name in ("round", "rounds", "history", "totals"):
        assert getattr(found, name) == getattr(STATE, name)
    assert found.position.facts() == STATE.position.facts()
    for mine, theirs in (
        (found.engine, STATE.engine),
        (found.position.best, STATE.position.best),
        (found.start, STATE.start),
    ):
        assert set(mine) == set(theirs)
        for key, array in theirs.items():
            assert mine[key].dtype == array.dtype
            assert np.array_equal(mine[key], array)
    (payload,) = start_payloads(found.start).values()
    assert np.array_equal(payload.array(), np.arange(48))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_tensors_of_every_type_come_back(dtype: Any, tmp_path: Path) -> None:
    """Addresses in functions, types that safetensors lacks."""
    proto = mlp()
    values = np.linspace(-2, 2, 48).astype(dtype)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(values.reshape(8, 6), "w1"))
    state = replace(STATE, start={TensorAddress((), "w1"): values})
    save_checkpoint(tmp_path, state, {})
    ((address, found),) = load_checkpoint(tmp_path, read(proto), {}).start.items()
    assert address == TensorAddress((), "w1")
    assert found.dtype == values.dtype
    assert found.tobytes() == values.tobytes()


def test_a_file_read_twice_is_the_same_model() -> None:
    """Big tensors have keys that differ from one reading to the next."""
    path = MODELS / "digits_mlp.onnx"
    samples = MODELS / "digits_train.npz"
    assert of(path, data=samples) == of(path, data=samples)
    proto = onnx.load(path)
    tensor = next(item for item in proto.graph.initializer if item.name == "gemm1.weight")
    changed = np.array(numpy_helper.to_array(tensor))
    changed[7, 7] += 1e-6
    tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    assert of(proto, data=samples)["model"] != of(path, data=samples)["model"]


def test_what_makes_another_training() -> None:
    other = {"x": data(20)["x"]}
    moved = {name: array.copy() for name, array in data(20).items()}
    moved["labels"][3] = (moved["labels"][3] + 1) % 3
    base = of()
    for changes in (
        {"lr": 0.5},
        {"train_layers": ("w1",)},
        {"class_weights": (1, 1, 2)},
        {"config": PruneConfig(layers=(("w1", 0.5),))},
        {"data": other},
        {"data": moved},
        {"val": "val.npz"},
        {"proto": mlp(seed=1)},
    ):
        assert of(**changes) != base, changes
    assert of(checkpoint=Path("a")) == of(checkpoint=Path("b"), resume=True) == base


def test_data_in_files_is_compared_without_reading_all(tmp_path: Path) -> None:
    for name, array in data(5000).items():
        np.save(tmp_path / f"{name}.npy", array)
    base = of(data=tmp_path)
    assert of(data=tmp_path) == base
    np.save(tmp_path / "x.npy", data(5000, seed=2)["x"])
    assert of(data=tmp_path)["samples"] != base["samples"]


def test_a_fingerprint_survives_the_file(tmp_path: Path) -> None:
    wanted = of(
        class_weights=(1, 0.1, 1 / 3),
        l2=1e-7,
        config=PruneConfig(layers=(("w*", 0.1), ("b", None)), exclude=("b*",)),
    )
    save_checkpoint(tmp_path, STATE, wanted)
    load_checkpoint(tmp_path, read(mlp()), wanted)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"lr": 0.5}, r"is of another lr \(None then, 0\.5 now\); give the same as before"),
        ({"batch_size": 7}, r"another batch-size \(64 then, 7 now\)"),
        ({"proto": mlp(seed=1)}, r"is of another model; give"),
        ({"data": data(20, seed=9)}, r"is of training data with other contents; give"),
    ],
)
def test_what_differs_is_said(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    save_checkpoint(tmp_path, STATE, of())
    with pytest.raises(UsageError, match=says):
        load_checkpoint(tmp_path, read(mlp()), of(**changes))


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, STATE, of())
    path = tmp_path / "state.safetensors"
    arrays, facts = read_tensors(path)
    for change in ({"totals": None}, {"position": {"epochs": 3}}, {"fingerprint": {}}):
        write_tensors(path, arrays, {**facts, **change})
        with pytest.raises((DataError, UsageError), match=r"another version|without --resume"):
            load_checkpoint(tmp_path, read(mlp()), of())


def test_a_failed_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, STATE, of())

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            save_checkpoint(tmp_path, replace(STATE, round=3), of())
    assert load_checkpoint(tmp_path, read(mlp()), of()).round == 2
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def twice(folder: Path) -> None:
    """The checkpoint of round 2, and that of round 1 before it."""
    save_checkpoint(folder, replace(STATE, round=1), of())
    save_checkpoint(folder, STATE, of())


def test_the_previous_checkpoint_is_kept(tmp_path: Path) -> None:
    twice(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [PREVIOUS, FILE]
    found = load_checkpoint(tmp_path, read(mlp()), of())
    assert (found.round, found.lost) == (2, "")


@pytest.mark.parametrize("harm", ["lost", "cut", "flipped", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_previous(harm: str, tmp_path: Path) -> None:
    twice(tmp_path)
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    if harm == "lost":
        path.unlink()
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes({"cut": content[:-1], "flipped": content, "empty": b""}[harm])
    found = load_checkpoint(tmp_path, read(mlp()), of())
    assert found.round == 1
    assert ("no file" if harm == "lost" else "damaged") in found.lost
    assert [item.name for item in tmp_path.iterdir()] == [FILE]
    assert load_checkpoint(tmp_path, read(mlp()), of()).lost == ""


def test_where_both_are_damaged_it_is_refused(tmp_path: Path) -> None:
    twice(tmp_path)
    for name in (FILE, PREVIOUS):
        (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(DataError, match=f"{PREVIOUS}' is damaged"):
        load_checkpoint(tmp_path, read(mlp()), of())


def test_another_training_is_refused_before_anything_moves(tmp_path: Path) -> None:
    twice(tmp_path)
    (tmp_path / FILE).unlink()
    with pytest.raises(UsageError, match="another lr"):
        load_checkpoint(tmp_path, read(mlp()), of(lr=0.5))
    assert [item.name for item in tmp_path.iterdir()] == [PREVIOUS]


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    """In the header too, which says what the bytes mean."""
    save_checkpoint(tmp_path, STATE, of())
    path = tmp_path / FILE
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    places = [*range(0, 200), *random.integers(0, len(whole), 300).tolist()]
    for place in places:
        content = bytearray(whole)
        content[place] ^= 1 << int(random.integers(8))
        path.write_bytes(content)
        with pytest.raises(DataError, match="is damaged"):
            read_tensors(path)


def test_one_training_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "er"
    with held(folder):
        with (
            pytest.raises(UsageError, match="another training keeps its checkpoints"),
            held(folder),
        ):
            pass
        part = folder / f".{FILE}.123.part"
        part.write_bytes(b"half")
        save_checkpoint(folder, STATE, of())
    with held(folder):
        assert not part.exists()
    assert [item.name for item in folder.iterdir()] == [FILE]


def test_a_folder_that_stays_empty_goes(tmp_path: Path) -> None:
    with held(tmp_path / "new"):
        pass
    with held(tmp_path / "other", make=False):
        pass
    assert not list(tmp_path.iterdir())
