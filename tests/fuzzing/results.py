"""What a long run found so far: counts, and every kind of problem once; kept in a file."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzzing.cases import case

__all__ = ["Results"]

#: Cases kept for one kind of problem.
EXAMPLES = 5


@dataclass
class Results:
    """Counts of a run.

    Attributes:
        finished: Cases below this number are done.
        seconds: Time that the run took so far, over all its parts.
        cases: How many.
        outcomes: By kind: a success, a refusal and its exit code, a death.
        refusals: By sentence, without names and numbers.
        mutations: By mutation: cases, and those with problems.
        commands: The same by command line.
        problems: By kind and signature: how many, and which cases first.
        slowest: Seconds of processor time of the slowest case, and its number.
        largest: Bytes of growth of the largest case, and its number.
    """

    finished: int = 0
    seconds: float = 0.0
    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    mutations: dict[str, list[int]] = field(default_factory=dict)
    commands: dict[str, list[int]] = field(default_factory=dict)
    seeds: Counter[str] = field(default_factory=Counter)
    problems: dict[str, dict[str, Any]] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, 0)
    largest: tuple[int, int] = (0, 0)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Those of a file; empty ones where there is none."""
        if not path.exists():
            return cls()
        stored = json.loads(path.read_text())
        for name in ("outcomes", "refusals", "seeds"):
            stored[name] = Counter(stored[name])
        for name in ("slowest", "largest"):
            stored[name] = tuple(stored[name])
        return cls(**stored)

    def write(self, path: Path) -> None:
        """Replace the file."""
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(self.__dict__, indent=1, ensure_ascii=True))
        os.replace(beside, path)

    def add(self, outcome: Mapping[str, Any], *, corpus: bool = True) -> list[str]:
        """Count one outcome; returns the kinds of problems that are new."""
        number, problems = outcome["number"], outcome["problems"]
        given = case(number, corpus)
        self.cases += 1
        self.outcomes["success" if outcome["code"] == 0 else f"exit {outcome['code']}"] += 1
        if outcome["code"]:
            self.refusals[outcome["said"][:160]] += 1
        self.seeds[given.seed.name.split("/")[0] if "/" in given.seed.name else "made"] += 1
        for table, keys in (
            (self.mutations, set(given.mutations)),
            (self.commands, {given.command.line}),
        ):
            for key in keys:
                row = table.setdefault(key, [0, 0])
                row[0] += 1
                row[1] += bool(problems)
        self.slowest = max(self.slowest, (outcome["seconds"], number))
        self.largest = max(self.largest, (outcome["grown"], number))
        return [title for kind, text in problems if self._note(title := f"{kind}: {text}", number)]

    def _note(self, title: str, number: int) -> bool:
        """Count a problem; whether it is the first of its kind."""
        row = self.problems.setdefault(title, {"count": 0, "cases": []})
        row["count"] += 1
        if len(row["cases"]) < EXAMPLES:
            row["cases"].append(number)
        return bool(row["count"] == 1)
