"""The summaries as JSON: the same facts under stable snake_case keys, written whole or not at all.

The keys are the fields of the report's dataclasses, and the figures derived from them. `SCHEMA`
goes up when a key changes its meaning or goes away; new keys may come at any time. What is not
known, not a number or infinite is null.
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .document import Presentable
from .files import check_target, write_text
from .report import InspectReport, Report

__all__ = ["SCHEMA", "AnyReport", "check_json_target", "to_dict", "to_json", "write_json"]

SCHEMA = 1
#: What messages call the file.
REPORT = "the JSON report"

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
    """Refuse a place where a report cannot go; see `onnxprune.report.files.check_target`."""
    check_target(path, REPORT, overwrite=overwrite, inputs=inputs)


def write_json(report: AnyReport, path: Path) -> None:
    """Write a report; raises OutputError where that fails."""
    write_text(to_json(report), path, REPORT)
