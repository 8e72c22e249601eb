"""Wall time and peak anonymous memory of whole commands, run in turn so that drift cancels."""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_SECONDS = 0.005


@dataclass
class Case:
    """One command of a comparison.

    Attributes:
        name: What the table calls it.
        command: The command line; None where its tool is not installed.
        prepare: Called before every run, untimed (removes outputs, flushes the disk).
        most: The most runs of it that are made, for commands that take minutes.
        walls: Seconds of each run.
        peak: Largest anonymous memory of any run, in bytes.
        failure: The last line of its error output, if it failed.
    """

    name: str
    command: Sequence[str] | None
    prepare: Callable[[], None]
    most: int = 1000
    walls: list[float] = field(default_factory=list)
    peak: int = 0
    failure: str = ""

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.walls)


def run_in_turn(cases: Sequence[Case], runs: int) -> None:
    """Run every case once per round, a first round as warm-up; fills in what was measured."""
    for number in range(runs + 1):
        for case in cases:
            if case.command is None or case.failure or len(case.walls) >= case.most:
                continue
            case.prepare()
            seconds, peak, failure = timed(case.command)
            case.failure = failure
            if not failure and (number > 0 or case.most < runs):
                case.walls.append(seconds)
                case.peak = max(case.peak, peak)


def timed(command: Sequence[str]) -> tuple[float, int, str]:
    """Seconds, peak anonymous bytes (0 where the system does not tell), and why it failed."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    watch = _Watch(process.pid)
    watch.start()
    _, errors = process.communicate()
    seconds = time.perf_counter() - started
    watch.stop()
    lines = errors.decode(errors="replace").strip().splitlines()
    return seconds, watch.peak, (lines or ["failed"])[-1] if process.returncode else ""


class _Watch(threading.Thread):
    """Samples a process's anonymous resident memory (Linux)."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.status = Path(f"/proc/{pid}/status")
        self.peak = 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(SAMPLE_SECONDS):
            try:
                text = self.status.read_text()
            except OSError:
                return
            for line in text.splitlines():
                if line.startswith("RssAnon:"):
                    self.peak = max(self.peak, int(line.split()[1]) * 1024)

    def stop(self) -> None:
        self.done.set()
        self.join()


def flush(*outputs: Path) -> None:
    """Remove outputs and write everything to the disk, so that runs do not pay for each other."""
    for output in outputs:
        output.unlink(missing_ok=True)
    os.sync()
