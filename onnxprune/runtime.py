"""The only place that opens onnxruntime sessions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import ModelProto

from .errors import OnnxPruneError
from .model.demand import demand, demand_of

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "RUN_SECONDS",
    "CannotRun",
    "Feeds",
    "TooSlow",
    "cause",
    "check_demand",
    "first_run",
    "open_session",
    "open_size",
    "random_feeds",
    "run",
    "runtime_name",
    "training_session",
]

Feeds = Mapping[str, Any]
#: Values whose sizes count before a model is opened.
Claims = Literal["constants", "all"]

#: onnxruntime's names of tensor types, as numpy types.
ELEMENTS: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.str_,
}
#: Sizes tried, in turn, for every axis whose size the model leaves open.
OPEN_SIZES = (1, 4, 16, 64, 224, 512, 4096)


#: Bytes of one value that a small model may fill, and how many times its own size a large one may.
MOST_BYTES, MOST_TIMES = 2**28, 8
#: Seconds that a run on random inputs may take.
RUN_SECONDS = 5.0


class CannotRun(OnnxPruneError):
    """onnxruntime is absent, rejects the model, or fails while running it."""


class TooSlow(CannotRun):
    """A run was ended, as it took too long."""


def open_session(
    model: Path | bytes,
    *,
    light: bool = False,
    threads: int = 0,
    claims: Claims | None = "constants",
) -> onnxruntime.InferenceSession:
    """An onnxruntime CPU session.

    Args:
        model: Path of a model file, or its bytes.
        light: Skip graph optimization and weight packing: quicker to open, for one run.
        threads: Threads of a run; 0 for all. Only on one do equal models always give equal bits.
        claims: What is looked at before, see `check_demand`; None: nothing, as of a part of a model
            that was looked at.

    Raises:
        CannotRun: onnxruntime is not installed or does not accept the model, or it claims far too
            much memory.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise CannotRun(f"onnxruntime is not installed ({error})") from error
    if claims is not None:
        check_demand(model, claims)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    # Its threads must not keep busy while another session, such as that of a training, runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if light:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
    source = str(model) if isinstance(model, Path) else model
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many unrelated types
        raise CannotRun(f"onnxruntime does not load it: {cause(error)}") from error


def training_session(model: bytes, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session for training steps.

    Denormal numbers stay what they are: onnxruntime can have its threads take them for zero, but
    not the calling thread where another session was there first, and which thread computes what
    differs from run to run.

    Args:
        model: A graph whose weights are inputs.
        threads: Threads of a run; 0 for all cores.

    Raises:
        CannotRun: onnxruntime does not accept the graph.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many unrelated types
        raise CannotRun(f"onnxruntime does not load a training graph: {cause(error)}") from error


def check_demand(model: Path | bytes | ModelProto, claims: Claims = "constants") -> None:
    """Refuse a model that fills far more memory than it takes on disk.

    Args:
        model: Path of a model file, its bytes, or the message, which may lack those of tensors.
        claims: Which values count: ``constants``, which onnxruntime computes as soon as it opens
            the model, or ``all``, where nobody asked for a run but a check.

    Raises:
        CannotRun: Which value is too large.
    """
    constants = claims == "constants"
    if isinstance(model, ModelProto):
        found = demand_of(model, constants=constants)
    else:
        found = demand(model, constants=constants)
    if found.bytes > max(MOST_BYTES, MOST_TIMES * found.stored):
        raise CannotRun(
            f"running it takes too much memory: '{found.value}' alone has {found.bytes:,} bytes"
        )


def run(
    session: onnxruntime.InferenceSession, feeds: Feeds, seconds: float | None = None
) -> list[Any]:
    """All outputs for one set of inputs.

    Args:
        session: The model.
        feeds: Inputs by name.
        seconds: How long it may take; as long as it likes where left out.

    Raises:
        CannotRun: onnxruntime fails.
        TooSlow: It took too long.
    """
    if seconds is None:
        return _run(session, feeds, None)
    import onnxruntime

    options = onnxruntime.RunOptions()
    timer = Timer(seconds, setattr, (options, "terminate", True))
    timer.daemon = True
    timer.start()
    try:
        return _run(session, feeds, options)
    except CannotRun as error:
        if options.terminate:
            raise TooSlow(f"a run did not end within {seconds:g} s") from error
        raise
    finally:
        timer.cancel()


def _run(session: onnxruntime.InferenceSession, feeds: Feeds, options: Any) -> list[Any]:
    try:
        more = () if options is None else (options,)
        return list(session.run(None, dict(feeds), *more))
    except Exception as error:  # onnxruntime raises many unrelated types
        raise CannotRun(f"onnxruntime does not run it: {cause(error)}") from error


def runtime_name() -> str:
    """The runtime and what it runs on: ``onnxruntime 1.32.0 on the CPU``."""
    import onnxruntime  # the package may be onnxruntime-gpu or another one

    return f"onnxruntime {onnxruntime.__version__} on the CPU"


def random_feeds(
    session: onnxruntime.InferenceSession, seed: int = 0, *, batch: int = 1
) -> Iterator[Feeds]:
    """Seeded random inputs, once for every guess at the sizes that the model leaves open.

    Args:
        session: The model.
        seed: Start of the random numbers.
        batch: Size of batch axes.

    Raises:
        CannotRun: An input is not a tensor (a sequence, a map, an optional).
    """
    try:
        inputs = session.get_inputs()
    except UnicodeDecodeError:
        raise CannotRun("the name of an input is not UTF-8") from None
    strange = [value.name for value in inputs if value.type not in ELEMENTS]
    if strange:
        raise CannotRun(f"input '{strange[0]}' is not a plain tensor")
    # An open first axis is a batch, and so is every axis of its name.
    batches = {value.shape[0] for value in inputs if value.shape and _is_open(value.shape[0])}
    is_open = any(_is_open(size) for value in inputs for size in value.shape)
    for open_size in OPEN_SIZES if is_open else OPEN_SIZES[:1]:
        random = np.random.default_rng(seed)
        shapes = [_shape(value.shape, batches, batch, open_size) for value in inputs]
        _check_feeds(inputs, shapes)
        yield {
            value.name: _sample(random, value.type, shape)
            for value, shape in zip(inputs, shapes, strict=True)
        }


def open_size(session: onnxruntime.InferenceSession, feeds: Feeds) -> int | None:
    """The size that these inputs give to open axes other than batches; None without such axes."""
    inputs = session.get_inputs()
    batches = {value.shape[0] for value in inputs if value.shape and _is_open(value.shape[0])}
    sizes = (
        int(feeds[value.name].shape[axis])
        for value in inputs
        for axis, size in enumerate(value.shape)
        if axis and _is_open(size) and not (size and size in batches)
    )
    return next(sizes, None)


def _check_feeds(inputs: Sequence[Any], shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuse inputs that no array can hold, or no small computer; raises CannotRun."""
    for value, shape in zip(inputs, shapes, strict=True):
        size = math.prod(shape) * np.dtype(ELEMENTS[value.type]).itemsize
        if min(shape, default=0) < 0 or size > MOST_BYTES:
            raise CannotRun(f"input '{value.name}' has {size:,} bytes, too many to try")


def _is_open(size: object) -> bool:
    """Whether an axis has a name, or nothing, instead of a size."""
    return not isinstance(size, int)


def _shape(shape: list[Any], batches: set[Any], batch: int, open_size: int) -> tuple[int, ...]:
    """Concrete shape: axes of one name get one size."""

    def size_of(axis: int, size: Any) -> int:
        if not _is_open(size):
            return int(size)
        return batch if axis == 0 or (size and size in batches) else open_size

    return tuple(size_of(axis, size) for axis, size in enumerate(shape))


def _sample(random: np.random.Generator, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random values that most models accept: floats around 0, whole numbers 0 and 1."""
    dtype = np.dtype(ELEMENTS[kind])
    if dtype.kind == "f":  # drawn in four bytes: eight would take twice the memory of a large input
        return random.standard_normal(shape, np.float32).astype(dtype, copy=False)
    if dtype.kind == "U":
        return np.full(shape, "a")
    return random.integers(0, 2, shape, dtype)


#: Wrapping that onnxruntime puts around the cause: error codes, and C++ source locations.
WRAPPING = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : |^\S*\.(?:cc|h):\d+ \S.*?\) (?=\S)")


def cause(error: Exception) -> str:
    """The innermost cause that an onnxruntime message tells, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    inner = text.rsplit("Status Message: ", 1)[-1]
    previous = ""
    while previous != inner:
        previous, inner = inner, WRAPPING.sub("", inner)
    return inner.strip()


def first_run(session: Any, seconds: float = RUN_SECONDS) -> tuple[Feeds, list[Any]]:
    """Random inputs that a model runs on, and its outputs.

    Args:
        session: The model.
        seconds: How long a run may take.

    Raises:
        CannotRun: It runs on none of the inputs that were tried, or for too long.
    """
    failure = CannotRun("there are no inputs to try")
    for feeds in random_feeds(session):
        try:
            return feeds, run(session, feeds, seconds)
        except TooSlow:
            raise
        except CannotRun as error:
            failure = error
    raise failure
