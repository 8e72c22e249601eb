"""The process's handling, with stand-ins for the worker."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import ModelError
from onnxprune.training.engines.onnxruntime_training import process
from onnxprune.training.engines.onnxruntime_training.process import Worker
from onnxprune.training.engines.onnxruntime_training.training_worker.protocol import Message

FOLDER = Path(process.__file__).parent
PROLOGUE = f"""
import os, signal, sys
sys.path.append({str(FOLDER)!r})
from training_worker.protocol import Message, read, write
requests, answers = sys.stdin.buffer, sys.stdout.buffer
"""


def stand_in(body: str) -> list[str]:
    return [sys.executable, "-c", PROLOGUE + body]


ECHO = """
from training_worker.protocol import Closed
try:
    while True:
        request = read(requests)
        write(answers, Message("echo", request.fields, request.arrays))
except Closed:
    pass
"""


def test_requests_and_answers() -> None:
    worker = Worker(stand_in(ECHO))
    big = np.random.default_rng(0).normal(size=(300, 400))
    for step in range(3):
        answer = worker.ask(Message("step", {"number": step}, {"big": big}))
        assert answer.fields == {"number": step}
        np.testing.assert_array_equal(answer.arrays["big"], big)
    worker.close()
    worker.close()
    assert worker._process.returncode == 0


def test_the_worker_leaves_no_folder() -> None:
    worker = Worker(stand_in(ECHO))
    folder = Path(worker._folder.name)
    assert folder.is_dir()
    worker.close()
    assert not folder.exists()


def test_a_failure_is_told() -> None:
    body = 'read(requests); write(answers, Message("error", {"reason": "no kernel\\nfor Foo"}))'
    worker = Worker(stand_in(body))
    with pytest.raises(ModelError, match="failed in 'start': no kernel for Foo; use the default"):
        worker.ask(Message("start"))
    worker.close()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("read(requests); os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV in 'step'"),
        (
            "read(requests); print('out of memory', file=sys.stderr); sys.exit(3)",
            r"ended with code 3 in 'step' \(out of memory\)",
        ),
        ("read(requests); print('hello, world'); sys.exit()", "ended with code 0 in 'step'"),
    ],
)
def test_a_death_is_one_clear_error(body: str, said: str) -> None:
    worker = Worker(stand_in(body))
    with pytest.raises(ModelError, match=said):
        worker.ask(Message("step", {}, {"x": np.ones(3)}))
    assert worker._process.poll() is not None
    assert not Path(worker._folder.name).exists()


def test_onnxruntimes_log_is_left_out() -> None:
    log = "2026-01-01 [W:onnxruntime:, graph.cc:1] unused"
    worker = Worker(stand_in(f"print({log!r}, file=sys.stderr); print('bus', file=sys.stderr)"))
    with pytest.raises(ModelError, match=r"\(bus\)"):
        worker.ask(Message("step"))


def test_a_command_that_does_not_exist() -> None:
    with pytest.raises(ModelError, match="cannot be started"):
        Worker(["/nowhere/python"])


@pytest.mark.skipif(os.name == "nt", reason="the parent's death is watched on POSIX")
@pytest.mark.parametrize("pipe_held", [False, True])
def test_the_worker_dies_with_its_parent(tmp_path: Path, pipe_held: bool) -> None:
    # The parent starts the real worker, says its number, and is gone without a word. Where a
    # child it forked holds the pipe, the worker sees no end of its requests.
    hold = "if os.fork() == 0: time.sleep(20); os._exit(0)" if pipe_held else ""
    script = f"""
import os, sys, time
from onnxprune.training.engines.onnxruntime_training.process import Worker, worker_command
worker = Worker(worker_command(sys.executable))
print(worker.pid, flush=True)
{hold}
os._exit(0)
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "TMPDIR": str(tmp_path)},
    )
    assert done.stdout is not None
    pid = int(done.stdout.readline())
    done.wait()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and _alive(pid):
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody waited for does not."""
    status = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
