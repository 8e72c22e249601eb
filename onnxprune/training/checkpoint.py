"""The state of a training on disk: enough to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from ..config import PruneConfig
from ..data.arrays import ArraySource
from ..data.source import BatchSource
from ..errors import DataError, UsageError
from ..finetune import FineTune
from ..model.model import Model, payload_key
from ..model.payload import ArrayPayload
from ..model.tensors import TensorAddress, all_tensors
from ..report.training import EpochRow, RoundRow
from .checkpoint_folder import FILE, read_last, write_next
from .loop import Position, Totals

__all__ = [
    "Checkpoint",
    "Fingerprint",
    "fingerprint",
    "load_checkpoint",
    "save_checkpoint",
    "start_payloads",
]

#: Settings that may differ when a training goes on.
_FREE = frozenset(("checkpoint", "resume", "check", "format"))
_SAMPLES = "samples"
#: How messages call what is no setting.
_CALLED = {"model": "another model", _SAMPLES: "training data with other contents"}
#: So many rows of arrays in files are compared.
_ROWS = 1024

#: What a training is of, as names and values that JSON holds.
Fingerprint = Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stands.

    Attributes:
        round: The round, 1 for the first.
        rounds: Rows of the finished rounds.
        history: Epochs of the finished rounds.
        totals: Sums over the finished rounds.
        position: Place in the round.
        engine: State of the engine.
        start: Tensors that differ from the source model at the start of the round, before it
            prunes.
        biases: Biases that the source model lacks, by the output of their node, in the order in
            which repairs have added them.
        lost: Why it is not the last one that was written; empty where it is.
    """

    round: int
    rounds: tuple[RoundRow, ...]
    history: tuple[EpochRow, ...]
    totals: Totals
    position: Position
    engine: Mapping[str, np.ndarray]
    start: Mapping[TensorAddress, np.ndarray]
    biases: Mapping[str, np.ndarray] = field(default_factory=dict)
    lost: str = ""


def fingerprint(
    model: Model,
    config: PruneConfig,
    settings: FineTune,
    data: BatchSource,
    val: str = "",
    calibration: str = "",
) -> Fingerprint:
    """What must be the same when a training goes on: the model, the settings, the data.

    Args:
        model: The unpruned model.
        config: What to prune.
        settings: How to retrain.
        data: The training data; of arrays the contents count too.
        val: Description of the validation data, empty where there is none.
        calibration: What calibrates and how, empty where nothing does.
    """
    plain = {
        entry.name: _plain(getattr(holder, entry.name))
        for holder in (config, settings)
        for entry in fields(holder)
        if entry.name not in _FREE
    }
    return {
        "model": _contents(model),
        "train": data.description,
        _SAMPLES: _samples(data),
        "val": val,
        "calibration": calibration,
        **plain,
    }


def _contents(model: Model) -> str:
    """A digest of the model; keys of payloads differ from one reading to the next."""
    digest = hashlib.blake2b(digest_size=16)
    skeleton = ModelProto()
    skeleton.CopyFrom(model.proto)
    for tensor in all_tensors(skeleton):
        if (key := payload_key(tensor)) is not None:
            tensor.ClearField("external_data")
            for chunk in model.payloads[key].chunks():
                digest.update(np.ascontiguousarray(chunk).tobytes())
    digest.update(skeleton.SerializeToString(deterministic=True))
    return digest.hexdigest()


def _samples(data: BatchSource) -> str:
    """A digest of the data: of all of it in memory, of rows throughout it in files."""
    digest = hashlib.blake2b(digest_size=16)
    arrays: Mapping[str, np.ndarray] = {}
    if isinstance(data, ArraySource):
        labels = {} if data.label_array is None else {"labels": data.label_array}
        arrays = {**data.arrays, **labels}
        step = -(-data.samples // _ROWS) if data.mapped else 1
    for name in sorted(arrays):
        part = np.ascontiguousarray(arrays[name][::step])
        digest.update(f"{name} {part.dtype} {arrays[name].shape}".encode())
        digest.update(part.tobytes())
    return digest.hexdigest()


def _plain(value: object) -> object:
    """A setting as JSON gives it back: functions by name, tuples as lists."""
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def save_checkpoint(folder: Path, state: Checkpoint, of: Fingerprint) -> None:
    """Make this the last checkpoint of a folder; raises OutputError."""
    places = list(state.start)
    arrays = {f"engine/{name}": array for name, array in state.engine.items()}
    arrays.update((f"best/{name}", array) for name, array in state.position.best.items())
    for index, place in enumerate(places):
        # Bytes: safetensors lacks some element types.
        arrays[f"start/{index}"] = np.ascontiguousarray(state.start[place]).view(np.uint8)
    for index, values in enumerate(state.biases.values()):
        arrays[f"bias/{index}"] = np.ascontiguousarray(values).view(np.uint8)
    facts = {
        "fingerprint": dict(of),
        "round": state.round,
        "rounds": [asdict(row) for row in state.rounds],
        "history": [asdict(row) for row in state.history],
        "totals": asdict(state.totals),
        "position": state.position.facts(),
        "start": [[*place.scope, place.name] for place in places],
        "biases": [
            [output, helper.np_dtype_to_tensor_dtype(values.dtype)]
            for output, values in state.biases.items()
        ],
    }
    write_next(folder, arrays, facts)


def load_checkpoint(folder: Path, source: Model, of: Fingerprint) -> Checkpoint:
    """The checkpoint to go on from: the last one, or where that is damaged the one before.

    Raises:
        DataError: There is none, or it is damaged.
        UsageError: It is of another model, other data or other settings.
    """
    try:
        found = read_last(folder, lambda facts: _check(folder, facts["fingerprint"], of))
        return replace(_restored(found.arrays, found.facts, source), lost=found.lost)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"'{folder / FILE}' is of another version of onnxprune ({error}); train without "
            "--resume"
        ) from None


def _restored(
    arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], source: Model
) -> Checkpoint:
    start = {}
    for index, (*scope, name) in enumerate(facts["start"]):
        address = TensorAddress(tuple(scope), name)
        dtype = source.payload(source.tensors[address]).dtype
        start[address] = arrays[f"start/{index}"].view(dtype)
    biases = {
        output: arrays[f"bias/{index}"].view(helper.tensor_dtype_to_np_dtype(kind))
        for index, (output, kind) in enumerate(facts["biases"])
    }
    position = Position.of(facts["position"], _group(arrays, "best/"))
    rows = tuple(RoundRow(**row) for row in facts["rounds"])
    history = tuple(EpochRow(**row) for row in facts["history"])
    totals = Totals(**facts["totals"])
    engine = _group(arrays, "engine/")
    return Checkpoint(facts["round"], rows, history, totals, position, engine, start, biases)


def _group(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def _check(folder: Path, found: Fingerprint, wanted: Fingerprint) -> None:
    for name, value in wanted.items():
        if found.get(name) != value:
            other = f"another {name.replace('_', '-')} ({found.get(name)!r} then, {value!r} now)"
            raise UsageError(
                f"the checkpoint in '{folder}' is of {_CALLED.get(name, other)}; give the same as "
                "before, or train without --resume"
            )


def start_payloads(start: Mapping[TensorAddress, np.ndarray]) -> dict[TensorAddress, ArrayPayload]:
    """The tensors of `Checkpoint.start` for `Model.with_payloads`."""
    return {address: ArrayPayload.of(array) for address, array in start.items()}
