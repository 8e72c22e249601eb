"""Results of a benchmark in a JSON file, which is whole whenever the benchmark is stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["read_results", "write_results"]


def read_results(path: Path) -> dict[str, Any]:
    """What is known so far; nothing where there is no file."""
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def write_results(path: Path, facts: Mapping[str, Any]) -> None:
    """Replace the file at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".part")
    staged.write_text(json.dumps(facts, indent=1) + "\n")
    staged.replace(path)
