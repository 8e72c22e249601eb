"""Signals that ask the command to end, clocks that jump, checkpoints that are damaged."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.training.checkpoint_folder import FILE, PREVIOUS
from tests.builders import mlp, saved

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux signals and libraries")
HERE = Path(__file__).resolve().parent


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder with a model and samples."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    saved(mlp(), folder / "m.onnx")
    random = np.random.default_rng(0)
    samples = random.standard_normal((128, 24)).astype(np.float32)
    np.savez(folder / "t.npz", x=samples, labels=random.integers(0, 10, 128))
    return folder


def training(inputs: Path, output: Path, *more: str) -> list[str]:
    given = [str(inputs / "m.onnx"), "--train", str(inputs / "t.npz"), "-o", str(output)]
    return [sys.executable, "-m", "onnxprune", *given, "--batch-size", "16", *more]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_stopped_training_keeps_its_state(
    number: signal.Signals, inputs: Path, tmp_path: Path
) -> None:
    kept, output = tmp_path / "kept", tmp_path / "out.onnx"
    arguments = training(inputs, output, "--checkpoint", str(kept), "--epochs", "100000")
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (kept / FILE).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "--resume to go on" in said.splitlines()[-1]
    assert {path.name for path in kept.iterdir()} <= {FILE, PREVIOUS}
    assert {path.name for path in tmp_path.iterdir()} == {"inputs", "kept"}


def test_a_stopped_writing_leaves_nothing(inputs: Path, tmp_path: Path) -> None:
    """The signal comes while the lock of the output is waited for."""
    import fcntl

    with (tmp_path / ".out.onnx.onnxprune.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        arguments = [sys.executable, "-m", "onnxprune", str(inputs / "m.onnx")]
        process = subprocess.Popen(
            [*arguments, "-o", str(tmp_path / "out.onnx")], stderr=subprocess.PIPE, text=True
        )
        waits = Path(f"/proc/{process.pid}/wchan")
        deadline = time.monotonic() + 120
        while "lock" not in waits.read_text() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.splitlines()[-1] == "onnxprune: stopped by SIGTERM"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out.onnx.onnxprune-")]


def test_a_clock_that_jumps_changes_nothing(inputs: Path, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path / "clock.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), str(HERE / "clock.c"), "-ldl"],
        check=True,
    )
    found = []
    for name, preload in (("as it is", {}), ("jumping", {"LD_PRELOAD": str(library)})):
        folder = tmp_path / name
        folder.mkdir()
        more = ["--checkpoint", str(folder / "kept"), "--epochs", "3", "--quiet"]
        subprocess.run(
            training(inputs, folder / "out.onnx", *more), check=True, env={**os.environ, **preload}
        )
        found.append((folder / "out.onnx").read_bytes())
    assert found[0] == found[1]


def test_nothing_reads_the_wall_clock() -> None:
    package = Path(onnxprune.__file__).parent
    wall = re.compile(r"\btime\.(time|localtime|ctime|strftime)\(|\bdatetime\b|st_[amc]time\b")
    found = [path.name for path in package.rglob("*.py") if wall.search(path.read_text("utf-8"))]
    assert not found


@pytest.mark.parametrize("harm", ["lost", "cut", "flipped"])
def test_a_damaged_checkpoint_costs_an_epoch_and_no_more(
    harm: str, inputs: Path, tmp_path: Path
) -> None:
    def run(folder: Path, *, stop: int | None = None, resume: bool = False) -> onnxprune.Report:
        def told(state: onnxprune.TrainingState) -> None:
            if stop is not None and state.epoch == stop:
                raise RuntimeError("stopped")

        settings = onnxprune.FineTune(
            epochs=6, batch_size=16, checkpoint=folder / "kept", resume=resume
        )
        result = onnxprune.prune(
            inputs / "m.onnx",
            train=inputs / "t.npz",
            finetune=settings,
            training_progress=told,
        )
        return result.save(folder / "out.onnx")

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert not run(whole).warnings
    with pytest.raises(RuntimeError, match="stopped"):
        run(broken, stop=4)
    state = broken / "kept" / FILE
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 16
    if harm == "lost":
        state.unlink()
    else:
        state.write_bytes(content if harm == "flipped" else content[:-7])
    (warning,) = run(broken, resume=True).warnings
    assert "from the checkpoint before the last, after epoch 2 of round 1" in warning
    assert (broken / "out.onnx").read_bytes() == (whole / "out.onnx").read_bytes()
