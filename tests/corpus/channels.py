"""Half of each group of channels of every real model, removed: outputs are those with zeros there.

For a table of all models, in the repository: ``python -m tests.corpus.channels`` (see ``--help``).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from onnxprune.structure.analysis import Coupling, analyse
from onnxprune.structure.groups import find_barriers, find_groups, why_no_groups
from onnxprune.structure.macs import count_parameters
from onnxprune.structure.removal import remove_coupled
from tests.corpus.comparing import relative_difference
from tests.corpus.feeds import Feeds, feeds_of
from tests.corpus.running import session_of
from tests.corpus.zoo import models
from tests.structure.proof import half, masked

__all__ = ["Outcome", "check"]

TOLERANCE, TOLERANCE_HALF = 1e-5, 1e-2


@dataclass
class Outcome:
    """What became of one model.

    Attributes:
        sizes: Channels of each coupled group.
        parameters: In the model, and without half of every group.
        error: Largest difference of an output, relative to its largest element; None where
            onnxruntime does not run the model, or nothing can go.
        reasons: What keeps channels, most often first: the operator and why.
        problems: What should not be.
    """

    model: str
    sizes: tuple[int, ...] = ()
    parameters: tuple[int, int] = (0, 0)
    error: float | None = None
    seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)


def check(path: Path, *, each: bool = False) -> Outcome:
    """Remove half of all groups of a model, and compare with zeros at their places.

    Args:
        path: The model.
        each: Remove half of each group alone as well.
    """
    model, outcome = onnx.load(path), Outcome(path.stem)
    started = time.perf_counter()
    try:
        coupling = analyse(model)
        groups = find_groups(coupling)
        outcome.seconds = time.perf_counter() - started
        outcome.sizes = tuple(group.size for group in groups)
        causes = Counter(
            f"{barrier.cause.operator}: {barrier.cause.reason}"
            for barrier in find_barriers(coupling)
        )
        outcome.reasons = tuple(text for text, _ in causes.most_common())
        if not groups and not causes:
            outcome.reasons = (why_no_groups(coupling),)
        halves = [half(group, seed) for seed, group in enumerate(groups)]
        every = [atom for atoms in halves for atom in atoms]
        if not every:
            return outcome
        chosen = [every, *(atoms for atoms in halves if each and atoms)]
        for atoms in chosen:
            _prove(outcome, path, model, coupling, atoms)
        outcome.parameters = tuple(  # type: ignore[assignment]
            count_parameters(m)
            for m in (coupling.prepared.proto, remove_coupled(model, coupling, every))
        )
    except Exception as error:  # whatever it is, the table should show it
        outcome.problems.append(f"{type(error).__name__}: {error}"[:300])
    return outcome


def _prove(
    outcome: Outcome, path: Path, model: ModelProto, coupling: Coupling, atoms: Sequence[int]
) -> None:
    smaller, zeroed = remove_coupled(model, coupling, atoms), masked(coupling, atoms)
    if _valid(model) and not _valid(smaller):
        outcome.problems.append("the checker rejects it")
    try:
        reference = session_of(zeroed)
    except Exception:  # onnxruntime raises many unrelated types
        if _loads(model):
            outcome.problems.append("onnxruntime rejects the masked model")
        return
    session, errors = session_of(smaller), [0.0]
    inputs = [(i.name, i.type, i.shape) for i in reference.get_inputs()]
    for feeds in feeds_of(path.parent, path.stem, inputs):
        pair = (s.run(None, dict(feeds)) for s in (session, reference))
        errors += [relative_difference(want, have) for have, want in zip(*pair, strict=True)]
        if max(errors) > TOLERANCE:
            errors = [_against_operands(zeroed, session, feeds)]
    outcome.error = max(outcome.error or 0.0, *errors)
    half_precision = any(t.data_type == TensorProto.FLOAT16 for t in model.graph.initializer)
    if not max(errors) <= (TOLERANCE_HALF if half_precision else TOLERANCE):
        outcome.problems.append(f"outputs differ by {max(errors):.1e}")


def _against_operands(zeroed: ModelProto, session: Any, feeds: Feeds) -> float:
    """Differences relative to the operands of the nodes that make the outputs.

    Where these are large and cancel out, or a sigmoid is near 0, the last bits of the operands are
    more than the last bits of the output.
    """
    whole = ModelProto.FromString(zeroed.SerializeToString())
    names = [value.name for value in whole.graph.output]
    makers = {name: node for node in whole.graph.node for name in node.output}
    stored = {tensor.name for tensor in whole.graph.initializer}
    operands = {name: [i for i in makers[name].input if i and i not in stored] for name in names}
    asked = dict.fromkeys(i for found in operands.values() for i in found if i not in names)
    whole.graph.output.extend(map(onnx.helper.make_empty_tensor_value_info, asked))
    values = dict(zip([*names, *asked], session_of(whole).run(None, dict(feeds)), strict=True))
    values |= {name: value for name, value in feeds.items() if name not in values}
    worst = 0.0
    for name, have in zip(names, session.run(None, dict(feeds)), strict=True):
        scale = max(1.0, *(float(np.abs(values[i]).max(initial=0)) for i in operands[name]))
        worst = max(worst, float(np.abs(have - values[name]).max(initial=0)) / scale)
    return worst


def _valid(model: ModelProto) -> bool:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:  # the checker raises unrelated types
        return False
    return True


def _loads(model: ModelProto) -> bool:
    try:
        session_of(model)
    except Exception:
        return False
    return True


def _row(outcome: Outcome) -> str:
    before, after = outcome.parameters
    error = "-" if outcome.error is None else f"{outcome.error:.1e}"
    shown: Any = outcome.reasons[:2] if not outcome.sizes else ()
    return (
        f"{outcome.model:38} {len(outcome.sizes):4} {sum(outcome.sizes):6,} {before:10,} "
        f"{after:10,} {error:>8} {outcome.seconds:5.2f} {'; '.join(shown)[:150]}"
        + "".join(f"\n    PROBLEM {problem}" for problem in outcome.problems)
    )


def main() -> int:
    """Check all models and print the table; 1 where there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of the names to check")
    parser.add_argument("--each", action="store_true", help="each group alone, too")
    given = parser.parse_args()
    print(f"{'model':38} groups channels   before      after    error  analysis, s")
    outcomes = []
    for path in models():
        if given.only in path.stem:
            outcomes.append(check(path, each=given.each))
            print(_row(outcomes[-1]), flush=True)
    removable = [outcome for outcome in outcomes if outcome.sizes]
    wrong = sum(bool(outcome.problems) for outcome in outcomes)
    worst = max((o.error for o in outcomes if o.error is not None), default=0.0)
    print(
        f"{len(outcomes)} models, {len(removable)} with groups; largest error {worst:.1e}; "
        f"{wrong} with problems"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
