"""Runs tests on a changed module, in a process of its own."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import Any

import hypothesis
import numpy as np
import onnx.reference
import onnxruntime
import pytest

from .changes import Mutant

__all__ = ["Reach", "survives", "trace"]

ROOT = Path(__file__).resolve().parent.parent.parent
LOADED = (hypothesis, np, onnx.reference, onnxruntime)  # before the forks, to save time
Trace = Callable[[FrameType, str, Any], Any]


@dataclass
class Reach:
    """Which lines of the module each test runs, and how many seconds the test takes."""

    lines: dict[str, set[int]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def tests(self, lines: frozenset[int]) -> list[str]:
        """Tests that run one of these lines, the quickest first; all that run the module if none.

        What runs while the module is imported is not traced: any test may notice it.
        """
        found = [test for test, seen in self.lines.items() if seen & lines]
        found = found or [test for test, seen in self.lines.items() if seen]
        return sorted(found, key=self.seconds.__getitem__)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the mutant in the place of the module."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self._name, self._path, self._code = name, path, code

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


class _Tracer:
    """A plugin of pytest that notes which lines of the module each test runs."""

    def __init__(self, path: Path) -> None:
        self._path, self._lines, self.reach = str(path), set[int](), Reach()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._lines, start = set(), time.perf_counter()
        sys.settrace(self._enter)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.reach.lines[item.nodeid] = self._lines
            self.reach.seconds[item.nodeid] = time.perf_counter() - start

    def _enter(self, frame: FrameType, event: str, value: object) -> Trace | None:
        return self._line if frame.f_code.co_filename == self._path else None

    def _line(self, frame: FrameType, event: str, value: object) -> Trace:
        self._lines.add(frame.f_lineno)
        return self._line


def _pytest(arguments: Sequence[str], *plugins: object) -> int:
    options = ["-x", "-q", "--tb=no", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    return int(pytest.main([*options, *arguments], plugins=plugins))


def _forked(work: Callable[[], bytes], limit: float) -> bytes | None:
    """What a function returns in a process of its own; None after so many seconds."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1), os.dup2(silence, 2)
        try:
            answer = work()
        except BaseException as error:  # whatever a mutant does to the process
            answer = repr(error).encode()
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(answer)
        os._exit(0)
    os.close(writer)
    parts, end = [], time.monotonic() + limit
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(reader, 1 << 16)
        if not part:
            break
        parts.append(part)
    else:
        os.killpg(child, signal.SIGKILL)
        parts = []
    os.close(reader)
    os.waitpid(child, 0)
    return b"".join(parts) or None


def trace(path: Path, tests: Sequence[str]) -> Reach:
    """Run the tests once, unchanged; they have to pass."""

    def work() -> bytes:
        tracer = _Tracer(path)
        status = _pytest(tests, tracer)
        return pickle.dumps((status, tracer.reach))

    answer = _forked(work, 3600)
    status, reach = pickle.loads(answer or b"")
    if status:
        raise SystemExit("the tests fail as it is")
    assert isinstance(reach, Reach)
    return reach


def survives(mutant: Mutant, path: Path, tests: Sequence[str], limit: float) -> bool:
    """Whether these tests pass with the mutant."""

    def work() -> bytes:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        code = compile(mutant.source, str(path), "exec")
        sys.meta_path.insert(0, _Finder(name, path, code))
        return str(_pytest(tests)).encode()

    return _forked(work, limit) == b"0"
