"""What every command does with its report, and what it refuses before any work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ..config import OutputConfig
from ..report.json import AnyReport, check_json_target, to_json, write_json
from ..report.show import show

__all__ = ["check_places", "deliver"]


def check_places(places: OutputConfig, models: Sequence[Path]) -> None:
    """Refuse a bad JSON target before any work is done; the API checks the models'."""
    if places.json_file is not None:
        check_json_target(places.json_file, overwrite=places.overwrite, inputs=tuple(models))


def deliver(report: AnyReport, places: OutputConfig) -> None:
    """Write the JSON first: it must not be lost when the reader of the summary goes away."""
    if places.prints_json:
        sys.stdout.write(to_json(report))
        return
    if places.json_file is not None:
        write_json(report, places.json_file)
    if not places.quiet:
        show(report)
