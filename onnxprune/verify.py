"""Proof that a written file is the model it should be, before it takes the target's place."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from .errors import ModelError, OutputError
from .model.inlining import inlined
from .model.load import load
from .model.model import Model, payload_key
from .model.save import serialised, write_pair
from .model.tensors import TensorAddress, all_tensors
from .report.report import CheckResult
from .runtime import RUN_SECONDS, CannotRun, Feeds, TooSlow, first_run, open_session, run

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["check_format", "check_runtime", "check_weights", "structure_failure", "without_bytes"]

#: Above this size sessions are opened without optimization, and the checker reads the structure.
LARGE = 64 * 2**20
#: Above this size the outputs of a second, in-memory copy of the model are not computed.
HUGE = 2**30
#: With more nodes than this, sessions are opened without optimization too.
MANY_NODES = 10_000
#: With more nodes than this a file is not run: onnxruntime's time to open it grows with their
#: square, to minutes.
MOST_NODES = 50_000


def check_weights(path: Path, expected: Model) -> CheckResult:
    """Read the file back: every constant tensor has the bytes that it should have.

    Args:
        path: The written file.
        expected: The pruned model in memory.

    Raises:
        OutputError: A tensor is missing or differs.
    """
    try:
        written = load(path)
    except ModelError as error:
        raise OutputError(
            f"the written file cannot be read back ({_without_path(error, path)}); nothing was "
            "kept: try --format dense, and please report this"
        ) from error
    count = 0
    for address, tensor in expected.tensors.items():
        if tensor.data_type == TensorProto.STRING:
            continue
        count += 1
        if not _equal_bytes(written, expected, address, tensor):
            raise OutputError(
                f"the written file differs from the pruned model at tensor '{address}'; nothing "
                "was kept: try --format dense, and please report this"
            )
    return CheckResult("weights", "passed", f"{count} tensors read back bit for bit")


def _without_path(error: ModelError, path: Path) -> str:
    """The error's message without the name of the temporary file."""
    return str(error).removeprefix(f"'{path}': ")


def _equal_bytes(
    written: Model, expected: Model, address: TensorAddress, tensor: TensorProto
) -> bool:
    want, found = expected.payload(tensor), written.tensors.get(address)
    if found is None:
        return False
    if (found.data_type, list(found.dims)) != (tensor.data_type, list(tensor.dims)):
        return False
    have = written.payload(found)
    pairs = itertools.zip_longest(have.chunks(), want.chunks())
    return have.nbytes == want.nbytes and all(_same_bytes(a, b) for a, b in pairs)


def _same_bytes(have: np.ndarray, want: np.ndarray) -> bool:
    """Whether two flat arrays hold the same bytes; eight at a time where their size allows."""
    if have.nbytes != want.nbytes:
        return False
    word = np.uint64 if have.nbytes % 8 == 0 else np.uint8
    return bool((have.view(word) == want.view(word)).all())


def check_format(path: Path, size: int, original: Model) -> CheckResult:
    """Pass the file through the ONNX checker.

    Raises:
        OutputError: Only the result fails it.
        ModelError: So does the input, once its functions are in the place of their calls.
    """
    failure = _checker_failure(path, size)
    if failure is None:
        detail = "valid" if size <= LARGE else "valid structure (weights are checked on their own)"
        return CheckResult("onnx checker", "passed", detail)
    path_before = original.origin.path
    before = (
        structure_failure(original) if path_before is None else _checker_failure(path_before, size)
    )
    if before is None and (hidden := _behind_calls(original)):
        raise ModelError(
            f"the model's functions do not fit their calls ({hidden}); export the model again"
        )
    if before is not None:
        return CheckResult("onnx checker", "skipped", f"the input itself fails it: {before}")
    raise OutputError(
        f"the written file fails the ONNX checker ({failure}); nothing was kept: try "
        "--format dense, and please report this"
    )


def _behind_calls(model: Model) -> str | None:
    """What the checker says of what function calls stand for, at which it does not look itself."""
    if not model.proto.functions:
        return None
    return structure_failure(replace(model, proto=inlined(model.proto)))


def _checker_failure(path: Path, size: int) -> str | None:
    if size > LARGE:
        return structure_failure(load(path))
    return _failure(os.fspath(path))


def structure_failure(model: Model) -> str | None:
    """What the checker says of the graph; big tensors stand in as empty ones."""
    proto = without_bytes(model)
    for tensor in all_tensors(proto):
        if payload_key(tensor) is not None:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.dims[:] = [0] * len(tensor.dims)
            tensor.raw_data = b""
    return _failure(proto)


def without_bytes(model: Model) -> ModelProto:
    """A copy of the message alone: big tensors refer to bytes that are elsewhere."""
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    return proto


def _failure(model: ModelProto | str) -> str | None:
    try:
        with _standard_output_closed():
            onnx.checker.check_model(model)
    except Exception as error:  # the checker raises unrelated types, some of them from C++
        lines = str(error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    return None


@contextmanager
def _standard_output_closed() -> Iterator[None]:
    """Keep the checker's C++ code from printing into a user's pipe ("experimental ops")."""
    sys.stdout.flush()
    saved = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)


def check_runtime(path: Path, size: int, expected: Model) -> CheckResult:
    """Run the file in onnxruntime on random inputs; outputs equal the in-memory model's.

    Where they differ, both run again without graph optimization: a stored form may let
    onnxruntime fuse more, which rounds differently, and says nothing against the file.

    Raises:
        OutputError: The in-memory model runs and the file does not, or outputs differ.
    """
    try:
        nodes = len(expected.proto.graph.node)
        if nodes > MOST_NODES:
            return CheckResult(
                "onnxruntime", "skipped", f"it would take minutes to open {nodes:,} nodes"
            )
        if (memory := _dense_bytes(path)) > HUGE:
            held = f"its sparse weights are {memory / 1e9:.1f} GB as onnxruntime holds them, dense"
            return CheckResult("onnxruntime", "skipped", held)
        if size > HUGE:
            return _run_alone(path)
        light = size > LARGE or nodes > MANY_NODES
        result = _compare(path, expected, light=light)
        if result is None and not light:
            result = _compare(path, expected, light=True)
    except CannotRun as error:
        return CheckResult("onnxruntime", "skipped", str(error))
    if result is not None:
        return CheckResult("onnxruntime", "passed", result)
    if _is_random(expected, path.parent):
        return CheckResult("onnxruntime", "skipped", "outputs differ from run to run")
    raise OutputError(
        "the written file gives other outputs than the model in memory; nothing was kept: try "
        "--format dense, and please report this"
    )


def _compare(path: Path, expected: Model, *, light: bool) -> str | None:
    """How the outputs are equal; None where they are not."""
    feeds, want = _reference(expected, light, path.parent)
    try:
        have = run(open_session(path, light=light, threads=1, claims="all"), feeds, 4 * RUN_SECONDS)
    except TooSlow:
        raise
    except CannotRun as error:
        raise OutputError(
            f"the written file does not run ({error}) where the model in memory does; nothing "
            "was kept: try --format dense, and please report this"
        ) from error
    if not same_outputs(have, want):
        return None
    return "outputs equal on random inputs" + (", graph optimization off" if light else "")


def _is_random(model: Model, folder: Path) -> bool:
    """Whether one session gives different outputs for the same inputs."""
    session = _session(model, True, folder)
    feeds, first = first_run(session)
    return not same_outputs(first, run(session, feeds, RUN_SECONDS))


def _run_alone(path: Path) -> CheckResult:
    session = open_session(path, light=True, threads=1, claims="all")
    first_run(session, 60 * RUN_SECONDS)
    return CheckResult("onnxruntime", "passed", "runs on random inputs (over 1 GB: not compared)")


def _dense_bytes(path: Path) -> int:
    """Bytes that the sparse weights of a file are in memory: onnxruntime makes them dense."""
    if path.stat().st_size <= LARGE:
        return 0
    written = load(path)
    sparse = (written.tensors[address] for address in written.origin.sparse)
    return sum(written.payload(tensor).nbytes for tensor in sparse)


def _reference(model: Model, light: bool, folder: Path) -> tuple[Feeds, list[Any]]:
    """Inputs that the in-memory model runs on, and its outputs."""
    seconds = RUN_SECONDS if not light else 60 * RUN_SECONDS
    return first_run(_session(model, light, folder), seconds)


def _session(model: Model, light: bool, folder: Path) -> onnxruntime.InferenceSession:
    """A session over the dense model: from memory, or mapped from a copy in `folder` if large."""
    joined = serialised(model.proto, model.payloads)
    if joined.size <= LARGE:
        return open_session(b"".join(joined.blocks()), light=light, threads=1, claims="all")
    copy = folder / "reference.onnx"
    try:
        write_pair(model, copy)
    except OSError as error:
        raise CannotRun(f"no second copy of the model could be written: {error}") from error
    return open_session(copy, light=light, threads=1, claims="all")


def same_outputs(have: Any, want: Any) -> bool:
    """Whether two results of a run are equal bit for bit (NaN equals itself)."""
    if type(have) is not type(want):
        return False
    if isinstance(want, np.ndarray):
        return (
            have.dtype == want.dtype
            and have.shape == want.shape
            and (have.tolist() == want.tolist() if want.dtype == object else _same(have, want))
        )
    if isinstance(want, (list, tuple)):
        return len(have) == len(want) and all(map(same_outputs, have, want))
    if isinstance(want, dict):
        return have.keys() == want.keys() and all(same_outputs(have[k], want[k]) for k in want)
    return bool(have == want or (have != have and want != want))


def _same(have: np.ndarray, want: np.ndarray) -> bool:
    return have.tobytes() == want.tobytes()
