"""The summaries as JSON: the same facts under stable snake_case keys, written whole or not at all.

The keys are the fields of the report's dataclasses, and the figures derived from them. `SCHEMA`
goes up when a key changes its meaning or goes away; new keys may come at any time. What is not
known, not a number or infinite is null.
"""

from __future__ import annotations

import contextlib
import json
import math
import numbers
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import OutputError
from .document import Presentable
from .report import InspectReport, Report

__all__ = ["SCHEMA", "AnyReport", "check_json_target", "to_dict", "to_json", "write_json"]

SCHEMA = 1

AnyReport: TypeAlias = Report | InspectReport | Presentable


def to_dict(report: AnyReport) -> dict[str, Any]:
    """Return all facts of a report as dicts, lists, text, numbers, booleans and None."""
    return {"schema": SCHEMA, "kind": _kind(report), **_record(report)}


def _kind(report: AnyReport) -> str:
    if isinstance(report, Report):
        return "prune"
    return "inspect" if isinstance(report, InspectReport) else report.KIND


def to_json(report: AnyReport) -> str:
    """Return a report as indented ASCII JSON that ends with a line end."""
    return json.dumps(to_dict(report), indent=2, allow_nan=False) + "\n"


def _record(item: Any) -> dict[str, Any]:
    names = [entry.name for entry in fields(item)] + list(getattr(item, "DERIVED", ()))
    return {name: _plain(getattr(item, name)) for name in names}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool)):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return _record(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, numbers.Integral):  # numpy's scalars are registered as these too
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    return str(value)


def check_json_target(path: Path, *, overwrite: bool, inputs: tuple[Path, ...]) -> None:
    """Refuse a place where a report cannot go, before any work is done.

    Raises OutputError for a folder, a missing parent folder, an existing file without `overwrite`,
    and for each of the `inputs`, which are never replaced.
    """
    shown = repr(str(path))
    if path.is_dir():
        raise OutputError(f"the JSON report {shown} is a folder: give the name of a file in it")
    if any(_same_file(path, other) for other in inputs):
        raise OutputError(f"the JSON report would replace the input {shown}: give another name")
    if not path.parent.is_dir():
        raise OutputError(
            f"the JSON report cannot be written to {shown}: the folder {str(path.parent)!r}"
            " does not exist"
        )
    if path.is_file() and not overwrite:
        raise OutputError(
            f"the JSON report {shown} exists: give another name, or --overwrite to replace it"
        )


def write_json(report: AnyReport, path: Path) -> None:
    """Write a report beside its target and move it there; raises OutputError where that fails.

    A target that is no regular file, such as a pipe or a device, is written to as it is.
    """
    text = to_json(report)
    try:
        target = path.resolve()
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            target.write_text(text, encoding="ascii")
        else:
            _replace(target, text)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"the JSON report cannot be written to {str(path)!r}: {reason}"
        ) from error


def _replace(target: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".tmp"
    )
    try:
        with os.fdopen(handle, "w", encoding="ascii", newline="\n") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, _mode(target))
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _mode(target: Path) -> int:
    """Permissions of the file to replace, or those a new file gets; mkstemp's are private."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one.resolve() == other.resolve()
