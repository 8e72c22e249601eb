"""Disks that are full, and files that may not be written to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import mlp, saved
from tests.reliability.disk import every_size

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux mounts and users")


def may_mount(folder: Path) -> bool:
    arguments = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    if shutil.which("mount") is None:
        return False
    if subprocess.run(arguments, check=False, capture_output=True).returncode:
        return False
    subprocess.run(["umount", str(folder)], check=True)
    return True


@pytest.mark.parametrize(
    ("name", "step"), [("with data file, dense", 3), ("one file, sparse", 3), ("checkpoint", 4)]
)
def test_a_disk_of_every_size(name: str, step: int, tmp_path: Path) -> None:
    if not may_mount(tmp_path):
        pytest.skip("may not mount a small file system here")
    count = every_size(tmp_path, name, step)
    assert count.full >= 3 and count.enough == 2


AS_NOBODY = """
import os, sys
from onnxprune.cli import main
main([sys.argv[1], "--dry-run", "--quiet"])  # loads modules that nobody else may read
os.setgid(65534)
os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root alone can be another"
)
@pytest.mark.parametrize("place", ["folder", "file"])
def test_what_may_not_be_written_is_not_replaced(place: str, tmp_path: Path) -> None:
    source, folder = saved(mlp(), tmp_path / "m.onnx"), tmp_path / "out"
    folder.mkdir()
    target = folder / "out.onnx"
    target.write_bytes(b"the old file")
    for path in (tmp_path, *tmp_path.parents[:-2]):
        path.chmod(path.stat().st_mode | 0o055)
    folder.chmod(0o555 if place == "folder" else 0o777)
    target.chmod(0o444 if place == "file" else 0o666)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(source), "-o", str(target), "--overwrite"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("onnxprune: cannot write")
    assert "Permission denied" in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["out.onnx"]
    assert target.read_bytes() == b"the old file"
