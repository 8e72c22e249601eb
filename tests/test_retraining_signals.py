"""A training on the command line that is interrupted from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def command(folder: Path, output: str, *more: str) -> list[str]:
    """A training of about a second, of the digits."""
    models = REPOSITORY / "models"
    train, val = (str(models / f"digits_{part}.npz") for part in ("train", "test"))
    options = ["--train", train, "--val", val, "--epochs", "6", "--rounds", "2", "--no-check"]
    start = [sys.executable, "-m", "onnxprune", str(models / "digits_mlp.onnx")]
    return [*start, *options, "-o", str(folder / output), *more]


def default_interrupt() -> None:
    """Undo what background jobs of shells inherit: there Ctrl-C is ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_on_the_command_line(tmp_path: Path) -> None:
    """In the middle of a training, from outside: 130, a whole checkpoint, no output."""
    state = tmp_path / "state"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        command(tmp_path, "out.onnx", "--checkpoint", str(state)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=default_interrupt,
    )
    deadline = time.monotonic() + 60
    while not (state / "state.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "--resume to go on" in told.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert {path.name for path in state.iterdir()} <= {"state.safetensors", "previous.safetensors"}
    for arguments in (
        command(tmp_path, "out.onnx", "--checkpoint", str(state), "--resume"),
        command(tmp_path, "whole.onnx"),
    ):
        subprocess.run(arguments, env=environment, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "out.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
