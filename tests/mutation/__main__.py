"""Mutation testing: a small change to the code must fail a test.

    python -m tests.mutation onnxprune/structure/rules/pooling.py tests/structure

makes every change of the table below to the module, one at a time, and runs the tests that reach
the changed statement until one fails. It prints the mutants that no test killed. `--sample 60`
takes that many of the mutants, always the same; `--lines 20-40` those of some lines.

Each mutant is run in a process of its own, forked from one in which numpy, onnx and onnxruntime
are loaded: it needs `os.fork` (Linux, macOS), and about as long as one run of pytest per mutant.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis.configuration import set_hypothesis_home_dir

from .changes import mutants
from .running import survives, trace


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("module", type=Path, help="the file whose code is changed")
    parser.add_argument("tests", nargs="+", help="files, folders or names of tests")
    parser.add_argument("--sample", type=int, help="how many mutants are tried; all by default")
    parser.add_argument("--lines", help="lines that are changed, as 20-40")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds for one mutant")
    given = parser.parse_args(arguments)
    path = given.module.resolve()
    chosen = mutants(path.read_text(encoding="utf-8"))
    if given.lines:
        first, _, last = given.lines.partition("-")
        chosen = [m for m in chosen if int(first) <= m.line <= int(last or first)]
    if given.sample and given.sample < len(chosen):
        chosen = sorted(random.Random(0).sample(chosen, given.sample), key=lambda m: m.line)
    survivors = 0
    with TemporaryDirectory() as scratch:
        set_hypothesis_home_dir(scratch)  # examples that fail here say nothing of the code as it is
        reach = trace(path, given.tests)
        for mutant in chosen:
            if survives(mutant, path, reach.tests(mutant.statement), given.limit):
                survivors += 1
                print(f"{given.module}:{mutant.line}: survived, {mutant.what}", flush=True)
    print(f"{given.module}: {len(chosen)} mutants, {len(chosen) - survivors} killed")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
