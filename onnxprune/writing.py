"""Writing a pruned model: stored in the form that was asked for, checked, measured, reported."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from . import verify
from .data.specs import input_specs
from .latency import latency_of
from .model.budget import store_within_limit
from .model.carriers import Stored
from .model.compressed import CompressedSize, compressed_size, file_blocks
from .model.external_data import map_file
from .model.model import Model
from .model.output import stage_model, unwritten
from .model.save import serialised
from .model.staging import check_target, staging
from .pipeline import Progress, Pruned
from .report.report import CheckResult, Latency, Report
from .reporting import Writing, summary
from .runtime import CannotRun

__all__ = ["input_gzip", "report_unwritten", "write_pruned"]

WAITING = "waiting for another run that writes the same file"


def write_pruned(
    pruned: Pruned, output: Path, *, overwrite: bool, progress: Progress | None = None
) -> Report:
    """Store a pruned model in the form that its configuration asks for, check it, report.

    Raises:
        OutputError: The target can't be written or must not be, or the written file fails a
            check; the old file, if any, is then still there.
    """
    started = time.perf_counter()
    inputs = pruned.source.origin.files
    target = check_target(output, overwrite=overwrite, inputs=inputs)
    stored, external = _stored(pruned)
    latency, notes = _latency(pruned, progress)
    with staging(target, waiting=lambda: _tell(progress, WAITING)) as stage:
        check_target(output, overwrite=overwrite, inputs=inputs)  # it may have changed by now
        _tell(progress, "writing")
        staged = stage_model(stored.model, stage, target, external=external, inputs=inputs)
        checks = _checks(staged.path, staged.bytes, pruned, progress)
        _tell(progress, "measuring")
        gzip = _gzip_sizes(pruned.source, staged.files, staged.bytes)
        written = Writing(stored, staged.bytes, *gzip, 0.0, output, checks, latency, notes)
        report = summary(pruned, written)  # before the file is there: nothing can fail after that
        staged.commit()
    return replace(report, seconds=report.seconds + time.perf_counter() - started)


def report_unwritten(pruned: Pruned, name: str = "model.onnx") -> Report:
    """The report of a pruned model that is written nowhere.

    Its bytes are what a file of this name, and its data file if it needs one, would take.
    """
    started = time.perf_counter()
    stored, external = _stored(pruned)
    size, blocks = unwritten(stored.model, name, external=external)
    gzip = input_gzip(pruned.source), compressed_size(blocks, size)
    latency, notes = _latency(pruned, None)
    seconds = time.perf_counter() - started
    return summary(pruned, Writing(stored, size, *gzip, seconds, latency=latency, notes=notes))


def _stored(pruned: Pruned) -> tuple[Stored, bool]:
    """The model in its sparse forms, and whether it needs a data file."""
    return store_within_limit(pruned.model, pruned.addresses, pruned.config.format)


def _checks(
    path: Path, size: int, pruned: Pruned, progress: Progress | None
) -> tuple[CheckResult, ...]:
    """The written file is read back and checked always, and run unless that was declined."""
    _tell(progress, "checking")
    weights = verify.check_weights(path, pruned.model)
    form = verify.check_format(path, size, pruned.source)
    held = pruned.held
    bound = () if held is None else (held.check(path, input_specs(pruned.model.proto)),)
    if not pruned.config.check:
        return weights, form, CheckResult("onnxruntime", "skipped", "--no-check"), *bound
    return weights, form, verify.check_runtime(path, size, pruned.model), *bound


def _latency(pruned: Pruned, progress: Progress | None) -> tuple[Latency | None, tuple[str, ...]]:
    """The time of a run before and after where it is wanted, or a note why it is not known."""
    wanted = pruned.structure.latency
    if wanted is None:
        wanted = pruned.config.check and pruned.shape is not None and pruned.shape.changed
    if not wanted:
        return None, ()
    _tell(progress, "timing runs")
    try:
        return latency_of(pruned.source, pruned.model), ()
    except CannotRun as error:
        return None, (f"latency is not known: {error}",)


def _gzip_sizes(
    source: Model, written: tuple[Path, ...], size: int
) -> tuple[CompressedSize, CompressedSize]:
    """Compressed bytes of the input and of the written files, side by side in two threads."""
    with ThreadPoolExecutor(2) as pool:
        before = pool.submit(input_gzip, source)
        after = pool.submit(compressed_size, file_blocks(map(map_file, written)), size)
        return before.result(), after.result()


def input_gzip(source: Model) -> CompressedSize:
    """Compressed bytes of a model's files, or of the file that it would be."""
    if files := source.origin.files:
        buffers = [map_file(file) for file in files]
        return compressed_size(file_blocks(buffers), sum(map(len, buffers)))
    joined = serialised(source.proto, source.payloads)
    return compressed_size(joined.blocks(), joined.size)


def _tell(progress: Progress | None, what: str) -> None:
    if progress is not None:
        progress(what, 0, 0)
