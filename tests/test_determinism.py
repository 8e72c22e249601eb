"""Two runs of one command give one file, whatever the hash seed; threads change no mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.builders import mlp, saved
from tests.determinism import COMMANDS, masks, run

BYTES = ("gaps", "channels", "calibrated", "trained")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of several layers, and samples."""
    place = tmp_path_factory.mktemp("determinism")
    saved(mlp((24, 64, 64, 10)), place / "m.onnx")
    random = np.random.default_rng(0)
    samples = random.standard_normal((96, 24)).astype(np.float32)
    np.savez(place / "data.npz", x=samples, labels=random.integers(0, 10, 96))
    return place


@pytest.mark.parametrize("name", BYTES)
def test_the_same_command_gives_the_same_bytes(name: str, folder: Path) -> None:
    first = run(folder, COMMANDS[name], "o.onnx", hash_seed=1, threads=1)
    assert run(folder, COMMANDS[name], "o.onnx", hash_seed=2, threads=1) == first


@pytest.mark.parametrize("line", ["-q 1", "--sparsity 0.6 --calibrate data.npz"])
def test_threads_change_no_mask(line: str, folder: Path) -> None:
    found = []
    for threads in (1, 2):
        name = f"{threads}.onnx"
        run(folder, f"{line} --format dense", name, hash_seed=0, threads=threads)
        found.append(masks(folder / name))
    assert found[0] == found[1]
