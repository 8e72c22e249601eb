"""The same command gives the same bytes: ``python -m tests.determinism`` for every model at hand.

Each command runs in processes of its own: twice with other hash seeds, and once on two threads.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

__all__ = ["COMMANDS", "digest", "masks", "run"]

REPOSITORY = Path(__file__).resolve().parent.parent

#: Commands by name; data.npz is beside the model.
COMMANDS: dict[str, str] = {
    "sparse": "-q 1",
    "constant": "-q 1 --format constant",
    "gaps": "-q 1 --format gaps",
    "dense": "--sparsity 0.7 --format dense",
    "pattern": "--pattern 2:4",
    "channels": "--channels 0.5 --align 1",
    "calibrated": "--sparsity 0.6 --calibrate data.npz",
    "sparsegpt": "--sparsity 0.6 --criterion sparsegpt --calibrate data.npz",
    "calibrated channels": "--channels 0.5 --align 1 --importance activation --calibrate data.npz",
    "trained": "-q 1 --train data.npz --epochs 2 --batch-size 16",
    "searched": "--max-drop 5 --trials 4 --val data.npz",
}


def run(folder: Path, line: str, name: str, *, hash_seed: int, threads: int) -> bytes:
    """Prune ``m.onnx`` of a folder into a file of this name, and give back its bytes."""
    command = [sys.executable, "-m", "onnxprune", "m.onnx", *line.split(), "-o", name]
    count = str(threads)
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONHASHSEED": str(hash_seed),
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), count),
    }
    command += ["--overwrite", "--quiet", "--no-latency"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{line}: {done.stderr}")
    data = (folder / f"{name}.data").read_bytes() if (folder / f"{name}.data").exists() else b""
    return (folder / name).read_bytes() + data


def digest(data: bytes) -> str:
    """A short name for bytes."""
    return hashlib.blake2b(data, digest_size=6).hexdigest()


def masks(path: Path) -> dict[str, bytes]:
    """Which elements of every dense constant are not zero."""
    graph = onnx.load(path).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return {name: np.packbits(array != 0).tobytes() for name, array in arrays.items()}


def compared(folder: Path, lines: Sequence[str]) -> int:
    """Print what is equal for every command; returns how many are not."""
    unequal = 0
    for name in lines:
        line = COMMANDS[name]
        first, second = (run(folder, line, "o.onnx", hash_seed=seed, threads=1) for seed in (1, 2))
        same = first == second
        plain = f"{line} --format dense" if "--format" not in line else line
        for threads in (1, 2):
            run(folder, plain, f"threads{threads}.onnx", hash_seed=0, threads=threads)
        one, two = (masks(folder / f"threads{threads}.onnx") for threads in (1, 2))
        unequal += not same or one != two
        said = "same bytes" if same else "OTHER BYTES"
        agreed = "same masks" if one == two else "OTHER MASKS"
        print(f"{name:20} {digest(first)} {said}, {agreed} on 1 and 2 threads", flush=True)
    return unequal


def main() -> int:
    """Compare a model of the repository, with its own data; 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=REPOSITORY / "models" / "digits_cnn.onnx")
    parser.add_argument("--data", type=Path, default=REPOSITORY / "models" / "digits_test.npz")
    parser.add_argument("commands", nargs="*", default=list(COMMANDS), help="names of commands")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "m.onnx").write_bytes(given.model.read_bytes())
        (folder / "data.npz").write_bytes(given.data.read_bytes())
        return bool(compared(folder, given.commands))


if __name__ == "__main__":
    sys.exit(main())
