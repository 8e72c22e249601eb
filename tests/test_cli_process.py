"""The command line in a process of its own: what it imports, and pipes and disks behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onnxprune.report.report import tool_version


def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, **more)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from onnxprune.cli import main; code = main(['--help']);"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'onnx_ir', 'scipy', 'ml_dtypes', 'torch'};"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = run("-c", code)
    assert (done.returncode, done.stderr.strip()) == (0, "[]")


def test_python_m_onnxprune() -> None:
    done = run("-m", "onnxprune", "--version")
    assert (done.returncode, done.stdout.strip()) == (0, tool_version())
    done = run("-m", "onnxprune")
    assert done.returncode == 2
    assert done.stderr.startswith("onnxprune: no model given")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_reader_that_goes_away() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "onnxprune", "--help"],
        check=False,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writer)
    assert done.returncode in (1, 141)  # 1 is rich's own answer
    assert done.stderr == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_behind_standard_output() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "onnxprune", "--help"],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1


def test_names_beyond_the_terminal_encoding_are_escaped(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run("-m", "onnxprune", "a", "重み.onnx", env=environment)
    assert done.returncode == 2
    assert r"\u91cd\u307f" in done.stderr
