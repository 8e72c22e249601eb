"""One case through the command line, in this process, and everything that may not happen."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from onnxprune import cli
from tests.fuzzing.cases import Case, case, write_case
from tests.fuzzing.watch import guarded

__all__ = ["MEMORY", "SECONDS", "Outcome", "drive"]

#: Limits of one case: seconds of processor time, bytes of growth.
SECONDS, MEMORY = 10.0, 2**30
#: Words of messages that own to a fault of the program.
CONFESSIONS = ("internal error", "report this", "Traceback", "Warning")
OUT_OF_MEMORY = ("out of memory", "bad_alloc", "Failed to allocate", "MemoryError")


@dataclass
class Outcome:
    """What became of a case.

    Attributes:
        number: The case.
        code: Exit code.
        said: The sentence of a refusal, without what is in quotes.
        seconds: Processor time.
        grown: Bytes that the peak of memory lay above the start.
        problems: What may not happen: a kind, and the details.
    """

    number: int
    code: int = 0
    said: str = ""
    seconds: float = 0.0
    grown: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def drive(number: int, folder: Path, corpus: bool = True) -> Outcome:
    """Run a case in `folder`, which is emptied before.

    Args:
        number: Which case.
        folder: Holds ``in`` (the working directory, with the output folder) and a file outside.
        corpus: Whether the seeds of packages and real models are among the seeds.
    """
    given, outcome = case(number, corpus), Outcome(number)
    inside = _empty(folder)
    kept = write_case(given, inside)
    out, err = io.StringIO(), io.StringIO()
    errors: list[BaseException] = []
    before = _reset_peak()
    started = time.process_time()
    with _quiet(out, err, inside, errors), guarded(folder) as trespasses:
        outcome.code = cli.main(given.command.arguments)
    outcome.seconds = time.process_time() - started
    outcome.grown = max(0, _peak() - before)
    outcome.said = _shape_of(err.getvalue())
    _judge_words(outcome, out.getvalue(), err.getvalue(), errors)
    _judge_files(outcome, given, inside, kept)
    if outcome.seconds > SECONDS:
        outcome.problems.append(("slow", f"{given.command.line}: {outcome.seconds:.0f} s"))
    if outcome.grown > MEMORY:
        outcome.problems.append(("memory", f"{given.command.line}: {outcome.grown / 2**20:.0f} MB"))
    outcome.problems += [("trespass", text) for text in trespasses]
    return outcome


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    inside = folder / "in"
    (inside / "out").mkdir(parents=True)
    (folder / "secret.bin").write_bytes(b"\x42" * 8192)
    return inside


class _Parsed:
    """The command line's application; every line is parsed once, which takes 30 ms."""

    def __init__(self) -> None:
        self.app = BUILD_APP()
        self.known: dict[tuple[str, ...], Any] = {}

    def __call__(self, tokens: list[str], **options: Any) -> Any:
        key = tuple(tokens)
        if key not in self.known:
            self.known[key] = self.app.parse_args(tokens, **options)
        command, bound, _ = self.known[key]
        return command(*bound.args, **bound.kwargs)


BUILD_APP = cli.build_app
EXPLAIN = cli.explain


@cache
def _parsed() -> _Parsed:
    return _Parsed()


@contextmanager
def _quiet(
    out: io.StringIO, err: io.StringIO, folder: Path, errors: list[BaseException]
) -> Iterator[None]:
    """Streams caught, warnings shown each time, errors kept, the case's folder the current one."""

    def explain(error: BaseException) -> tuple[str, int]:
        errors.append(error)
        return EXPLAIN(error)

    here = os.getcwd()
    os.chdir(folder)
    patched: Any = cli
    patched.build_app, patched.explain = _parsed, explain
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            for kind in (RuntimeWarning, UserWarning, FutureWarning):
                warnings.simplefilter("always", kind)
            yield
    finally:
        patched.build_app, patched.explain = BUILD_APP, EXPLAIN
        os.chdir(here)


def _judge_words(outcome: Outcome, out: str, err: str, errors: list[BaseException]) -> None:
    problems = outcome.problems
    if outcome.code == 70 or outcome.code not in (0, 1, 2):
        error = errors[-1] if errors else None
        problems.append(("exception", _signature(error)))
        return
    spoken = "".join(line for line in err.splitlines(True) if not line.startswith("epoch "))
    if outcome.code and (not spoken.startswith("onnxprune: ") or spoken.count("\n") != 1):
        problems.append(("words", f"not one sentence: {err[:300]!r}"))
    if not outcome.code and spoken:
        problems.append(("words", f"a success speaks on stderr: {_shape_of(err)[-300:]}"))
    if outcome.code and out:
        problems.append(("words", f"a refusal speaks on stdout: {out[:100]!r}"))
    if not (out + err).replace("\n", "").isprintable():
        problems.append(("words", f"control characters: {_unprintable(out + err)}"))
    for word in CONFESSIONS:
        if word in out + err and word != "Warning":
            problems.append(("own check", f"{_shape_of(err or out)[:200]}"))
            break
    if any(word in out + err for word in OUT_OF_MEMORY):
        problems.append(("memory", f"{_shape_of(err)[:200] or 'a check ran out of it'}"))


def _unprintable(text: str) -> str:
    line = next(line for line in text.split("\n") if not line.isprintable())
    return repr(line)[:200]


def _signature(error: BaseException | None) -> str:
    """Type of an error and where it came from, innermost last."""
    if error is None:
        return "unknown"
    frames = [
        f"{Path(frame.filename).parent.name}/{Path(frame.filename).name}:{frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "onnxprune" in frame.filename
    ]
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f"{Path(last[0].filename).name}:{last[0].lineno}" if last else ""
    return (
        f"{type(error).__name__} {' > '.join(frames[-3:])} @ {where}: {_shape_of(str(error))[:80]}"
    )


def _shape_of(text: str) -> str:
    """A message without names and numbers."""
    import re

    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'*'", text.strip())
    return re.sub(r"-?\d[\d,.]*", "N", text)[:400]


def _judge_files(outcome: Outcome, given: Case, inside: Path, kept: dict[str, bytes]) -> None:
    for name, data in kept.items():
        path = inside / name
        if not path.is_file() or path.read_bytes() != data:
            outcome.problems.append(("files", f"input {name} changed"))
    written = {str(path.relative_to(inside)) for path in (inside / "out").rglob("*")}
    models = {name for name in written if name.endswith(".data")}
    wanted = set(given.command.writes) if outcome.code == 0 else set()
    if written - models != wanted or (models and outcome.code):
        outcome.problems.append(("files", f"exit {outcome.code} left {sorted(written)}"))
    extra = {p.name for p in inside.iterdir()} - kept.keys() - {"out", "link.bin", "loop.bin"}
    if extra - {"fifo", "folder", "link"}:
        outcome.problems.append(("files", f"beside the input: {sorted(extra)}"))
    if outcome.code == 0 and "out/o.onnx" in wanted:
        _judge_model(outcome, inside)
    if outcome.code == 0 and "out/r.json" in wanted:
        json.loads((inside / "out/r.json").read_text())


def _judge_model(outcome: Outcome, inside: Path) -> None:
    """The model that was written is valid, if the one that was read is."""
    try:
        onnx.checker.check_model(str(inside / "m.onnx"))
    except Exception:  # whatever the checker raises: the input is not valid
        return
    try:
        onnx.checker.check_model(str(inside / "out" / "o.onnx"))
    except Exception as error:
        outcome.problems.append(("invalid", _shape_of(str(error))[:200]))


def _reset_peak() -> int:
    """Start a new peak of this process's memory; returns what it has now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # the peak of the whole life stands in
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(entry: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry):
            return int(line.split()[1]) * 1024
    return 0
