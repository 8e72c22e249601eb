"""A disk that is full at every stage: file systems of every size up to what is needed.

``python -m tests.reliability.disk`` mounts one after another (as root, on Linux), from one page to
enough, and writes models in all forms, reports and checkpoints there, over an old model.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from onnxprune.cli import main as command
from tests.builders import mlp, saved
from tests.refusal import state
from tests.reliability.forked import digest

PAGE = 4096
SIZES = (64, 96, 10)


@dataclass
class Count:
    """Sizes that were too small and refused with one sentence, and those that sufficed."""

    full: int = 0
    enough: int = 0


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system at a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def said(arguments: list[str]) -> tuple[int, str]:
    """Exit code and standard error of the command."""
    stream, nowhere = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(nowhere):
        code = command(arguments)
    return code, stream.getvalue()


def cases(folder: Path, disk: Path) -> dict[str, list[str]]:
    """Commands that write to the disk in one way each."""
    random = np.random.default_rng(0)
    samples = random.standard_normal((64, SIZES[0])).astype(np.float32)
    np.savez(folder / "t.npz", x=samples, labels=random.integers(0, 10, 64))
    inline, pair = folder / "inline.onnx", folder / "pair.onnx"
    saved(mlp(SIZES), inline)
    saved(mlp(SIZES), pair, external=True)
    out, elsewhere = str(disk / "out.onnx"), str(folder / "out.onnx")
    trained = [str(inline), "--train", str(folder / "t.npz"), "--epochs", "2", "--quiet"]
    return {
        **{
            f"one file, {form}": [str(inline), "-o", out, "--format", form]
            for form in ("dense", "sparse", "gaps")
        },
        "with data file, dense": [str(pair), "-o", out, "--format", "dense"],
        "report": [str(inline), "-o", elsewhere, "--quiet", "--json", str(disk / "r.json")],
        "checkpoint": [*trained, "-o", elsewhere, "--checkpoint", str(disk / "kept")],
    }


def filled(disk: Path, options: str, arguments: list[str], old: bytes, count: Count) -> bool:
    """Whether the command succeeds on a disk of this size; where not, nothing has changed."""
    with mounted(disk, options):
        if len(old) > 0 and str(disk / "out.onnx") in arguments:
            (disk / "out.onnx").write_bytes(old)
        before = state(disk)
        code, text = said([*arguments, "--overwrite"])
        if code == 0:
            if (disk / "out.onnx").exists():
                digest(disk / "out.onnx")
            count.enough += 1
            return True
        assert code == 1 and text.count("\n") == 1 and "No space left" in text, (code, text)
        after = {name: what for name, what in state(disk).items() if not name.startswith("kept")}
        assert after == before, sorted(after)
        count.full += 1
        return False


def every_size(folder: Path, name: str, step: int = 1) -> Count:
    """Write in one way to larger and larger disks, then to ones with more and more files."""
    disk = folder / "disk"
    disk.mkdir(exist_ok=True)
    arguments, count = cases(folder, disk)[name], Count()
    old = saved(mlp((3, 4)), folder / "old.onnx").read_bytes()
    for pages in itertools.count(1, step):
        if filled(disk, f"size={pages * PAGE}", arguments, old, count):
            break
    for files in itertools.count(3):
        if filled(disk, f"size=8m,nr_inodes={files}", arguments, old, count):
            break
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=int, default=1, help="pages between two sizes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in cases(Path(folder), Path(folder) / "disk"):
            count = every_size(Path(folder), name, given.step)
            print(json.dumps({"writes": name, **asdict(count)}), flush=True)


if __name__ == "__main__":
    main()
