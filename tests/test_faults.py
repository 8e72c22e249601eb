"""Full disks, forbidden folders, killed and interrupted processes: the old file or the new one."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto

from onnxprune.cli import main
from tests.builders import chain, mlp, saved
from tests.refusal import refused, state

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux signals, limits and mounts")

KILLS = 10  # for each of one file and two


def big() -> ModelProto:
    """About 40 MB of weights."""
    return chain(10, 1024)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The big model as one file (inline.onnx) and as two (external.onnx), to be read only."""
    folder = tmp_path_factory.mktemp("sources")
    saved(big(), folder / "inline.onnx")
    saved(big(), folder / "external.onnx", external=True)
    return folder


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "onnxprune", *map(str, arguments)]


def fingerprint(path: Path) -> int:
    """A hash over all weights of a model that loads and is whole."""
    onnx.checker.check_model(str(path))
    model = onnx.load(path)
    return hash(tuple(tensor.raw_data for tensor in model.graph.initializer))


#: Writes the same output over and over at changing qualities, and says when it starts to.
WRITER = """
import itertools, sys
from onnxprune.cli import main
print("ready", flush=True)
for quality in itertools.cycle(["1.5", "1.0", "0.5"]):
    assert main(sys.argv[1:] + ["-q", quality]) == 0
"""


@pytest.mark.parametrize("kind", ["inline", "external"])
def test_a_killed_process_leaves_the_old_model_or_the_new_one(
    kind: str, sources: Path, tmp_path: Path
) -> None:
    target, possible = tmp_path / "out.onnx", set()
    more = ["--format", "dense", "--no-check", "--overwrite", "--quiet"]
    arguments = [str(sources / f"{kind}.onnx"), "-o", str(target), *more]
    for quality in ("1.5", "1.0", "0.5"):
        started = time.monotonic()
        assert main([*arguments, "-q", quality]) == 0
        seconds = time.monotonic() - started
        possible.add(fingerprint(target))
    assert len(possible) == 3
    chance = random.Random(kind)
    for _ in range(KILLS):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.random() * 2 * seconds)
        process.kill()
        process.communicate()
        assert fingerprint(target) in possible
    # What the killed ones left behind does not disturb the next run.
    assert main([*arguments, "-q", "1.0"]) == 0
    assert fingerprint(target) in possible


def writing(folder: Path) -> bool:
    """Whether a staging folder holds a file that has begun to grow."""
    with_files = [path for path in folder.glob(".*/*") if path.is_file()]
    return any(path.stat().st_size > 0 for path in with_files if path.exists())


@pytest.mark.parametrize("kind", ["inline", "external"])
def test_an_interrupted_process_leaves_nothing_behind(
    kind: str, sources: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"the old file")
    arguments = command(sources / f"{kind}.onnx", "-o", target, "--overwrite", "--format", "dense")
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while process.poll() is None and not writing(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "onnxprune: interrupted"
    assert "Traceback" not in said
    assert state(tmp_path) == {"out.onnx": b"the old file"}


def test_leftovers_of_a_killed_process_do_not_disturb(tmp_path: Path) -> None:
    source, target = saved(mlp((24, 40, 10)), tmp_path / "m.onnx"), tmp_path / "out.onnx"
    leftover = tmp_path / ".out.onnx.abc123"
    leftover.mkdir()
    (leftover / "out.onnx").write_bytes(b"half a mod")
    assert main([str(source), "-o", str(target), "--quiet"]) == 0
    onnx.checker.check_model(str(target))
    assert (leftover / "out.onnx").read_bytes() == b"half a mod"


def limited(size: int) -> Callable[[], None]:
    """Make every write beyond `size` bytes of a file fail, as on a full disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


@pytest.mark.parametrize("kind", ["inline", "external"])
@pytest.mark.parametrize("size", [0, 1000, 5_000_000])
def test_a_file_that_cannot_grow(kind: str, size: int, sources: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"the old file")
    done = subprocess.run(
        command(sources / f"{kind}.onnx", "-o", target, "--overwrite", "--format", "dense"),
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=limited(size),
    )
    assert done.returncode == 1
    assert done.stderr.startswith("onnxprune: cannot write")
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert state(tmp_path) == {"out.onnx": b"the old file"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    arguments = [mount or "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(arguments, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a small file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("external", [False, True])
def test_a_full_disk(
    small_disk: Path, tmp_path: Path, external: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(mlp((500, 700, 10)), tmp_path / "m.onnx", external=external)
    target = small_disk / "out.onnx"
    target.write_bytes(b"the old file")
    for form in ("dense", "sparse"):
        arguments = [str(source), "-o", str(target), "--overwrite", "-q", "0.1", "--format", form]
        sentence = refused(arguments, small_disk, capsys)
        assert "No space left on device" in sentence
    assert main([str(source), "-o", str(target), "--overwrite", "-q", "4"]) == 0


def test_a_full_disk_for_the_report(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(mlp((24, 40, 10)), tmp_path / "m.onnx")
    with (small_disk / "filler").open("wb") as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(bytes(65536))
            filler.flush()
    arguments = [str(source), "--dry-run", "--json", str(small_disk / "r.json")]
    assert "No space left on device" in refused(arguments, small_disk, capsys)


def test_a_read_only_disk(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(mlp((24, 40, 10)), tmp_path / "m.onnx")
    (small_disk / "out.onnx").write_bytes(b"the old file")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for option in ("-o", "--json"):
        arguments = [str(source), option, str(small_disk / "out.onnx"), "--overwrite"]
        more = ["--dry-run"] if option == "--json" else []
        assert "Read-only file system" in refused([*arguments, *more], small_disk, capsys)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_without_rights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(mlp((24, 40, 10)), tmp_path / "m.onnx")
    tmp_path.chmod(0o500)
    try:
        assert "Permission denied" in refused([str(source)], tmp_path, capsys)
    finally:
        tmp_path.chmod(0o700)
