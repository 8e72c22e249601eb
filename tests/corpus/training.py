"""Every real model, pruned and trained: weights move, pruned weights stay zero, bit for bit.

For a table of all models, in the repository: ``python -m tests.corpus.training`` (see ``--help``).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

import onnxprune
from onnxprune.config import PruneConfig
from onnxprune.data.labels import samples_of
from onnxprune.data.source import open_source
from onnxprune.data.specs import input_specs
from onnxprune.errors import OnnxPruneError
from onnxprune.finetune import FineTune
from onnxprune.graph.layers import find_layers
from onnxprune.model.sources import read
from onnxprune.pruning.once import PrunedOnce, prune_once
from onnxprune.training.setup import RoundSetup, Teaching, set_up
from onnxprune.training.writeback import write_back
from tests.corpus.feeds import feeds_of
from tests.corpus.running import session_of
from tests.corpus.zoo import REJECTED, models

__all__ = ["SETTINGS", "Outcome", "check"]

STEPS = 100
#: Steps take seconds here: a twentieth of them is done, unless the model is named by --only.
HEAVY = ("style_candy", "onnx_light_vgg19", "onnx_light_resnet50", "onnx_light_inception_v2")
#: What moves weights most: momentum with coupled L2, moments with decoupled decay.
SETTINGS = {
    "sgd": FineTune(optimizer="sgd", nesterov=True, l2=1e-3, lr=1e-4, clip_norm=1.0),
    "adamw": FineTune(optimizer="adamw", l2=1e-2, lr=1e-4),
}


@dataclass
class Outcome:
    """What became of one model.

    Attributes:
        refusal: The one sentence with which training was refused; empty where it ran.
        trained: Tensors that were trained, and how many of them moved in the first step.
        zeros: Pruned weights that were held at zero.
        problems: What should not be.
    """

    model: str
    refusal: str = ""
    trained: int = 0
    moved: int = 0
    frozen: int = 0
    zeros: int = 0
    loss: str = ""
    first: float = 0.0
    last: float = 0.0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


def check(path: Path, settings: FineTune, *, steps: int = STEPS) -> Outcome:
    """Prune a model at q = 1, train it towards its own outputs, and look at its weights."""
    outcome = Outcome(path.stem)
    started = time.perf_counter()
    try:
        setup, pruned, feeds = _prepared(path, settings)
    except OnnxPruneError as error:
        outcome.refusal = str(error)
        if not outcome.refusal.strip() or "\n" in outcome.refusal:
            outcome.problems.append("the refusal is not one line")
        return outcome
    _train(outcome, setup, pruned, feeds, settings, steps)
    outcome.seconds = time.perf_counter() - started
    return outcome


def _prepared(
    path: Path, settings: FineTune
) -> tuple[RoundSetup, PrunedOnce, dict[str, np.ndarray]]:
    source = read(path)
    scan = find_layers(source)
    pruned = prune_once(source, scan, PruneConfig(quality=1.0))
    if path.stem in REJECTED:
        raise onnxprune.ModelError("onnxruntime does not run the model")
    session = session_of(path)
    inputs = [(i.name, i.type, i.shape) for i in session.get_inputs()]
    feeds = dict(feeds_of(path.parent, path.stem, inputs)[0])
    data = open_source(feeds, input_specs(source.proto), labelled=False)
    # One batch is all there is; models with a fixed batch take it as a whole.
    settings = replace(settings, batch_size=samples_of(feeds))
    layers = [plan.layer.address for plan in pruned.plans]
    return set_up(pruned.model, layers, Teaching(source, data, settings)), pruned, feeds


def _train(
    outcome: Outcome,
    setup: RoundSetup,
    pruned: PrunedOnce,
    feeds: dict[str, np.ndarray],
    settings: FineTune,
    steps: int,
) -> None:
    graphs, engine = setup.graphs, setup.engine
    complete = setup.complete(feeds)
    outcome.trained, outcome.frozen = len(graphs.parameters), len(graphs.selection.frozen)
    outcome.loss = graphs.loss.description
    before = engine.parameters()
    outcome.first = outcome.last = engine.step(complete, settings.rate)
    outcome.moved = _moved(before, engine.parameters())
    for _ in range(steps - 1):
        outcome.last = engine.step(complete, settings.rate)
    after = engine.parameters()
    engine.close()
    if outcome.first > 0 and (not outcome.moved or _moved(before, after) < len(before) / 2):
        outcome.problems.append("weights do not move")
    if not np.isfinite(outcome.last):
        outcome.problems.append(f"the loss becomes {outcome.last}")
    _compare(outcome, pruned, write_back(pruned.weights, after, setup.forward.addresses))


def _moved(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> int:
    return sum(not np.array_equal(before[name], after[name]) for name in before)


def _compare(outcome: Outcome, pruned: PrunedOnce, trained: object) -> None:
    """Zeros of the pruned model must be zeros, bit for bit, of the trained one."""
    for plan in pruned.plans:
        arrays = [
            model.payload(model.tensors[plan.layer.address]).array()  # type: ignore[attr-defined]
            for model in (pruned.weights, trained)
        ]
        zero = arrays[0].view(np.uint8).reshape(arrays[0].size, -1).any(axis=1) == 0
        still = arrays[1].view(np.uint8).reshape(arrays[1].size, -1)[zero]
        outcome.zeros += int(zero.sum())
        if still.any():
            outcome.problems.append(f"pruned weights of '{plan.layer.name}' came back")


def _row(outcome: Outcome) -> str:
    said = f"refused: {outcome.refusal}" if outcome.refusal else outcome.loss
    return (
        f"{outcome.model:38} {outcome.trained:4} {outcome.moved:4} {outcome.frozen:4} "
        f"{outcome.zeros:9,} {outcome.first:10.3g} {outcome.last:10.3g} {outcome.seconds:6.1f} "
        f"{said}" + "".join(f"\n    PROBLEM {problem}" for problem in outcome.problems)
    )


def main() -> int:
    """Check all models and print the table; 1 where there is a problem."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--optimizer", choices=sorted(SETTINGS), default="adamw")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", default="", help="part of the names to check")
    given = parser.parse_args()
    paths = [path for path in models() if given.only in path.stem]
    if not paths:
        print("no models (set ONNXPRUNE_ZOO)")
        return 1
    print(
        f"{'model':38} {'tens':>4} {'move':>4} {'froz':>4} {'zeros':>9} {'first':>10} {'last':>10} "
        f"{'s':>6} loss"
    )
    outcomes = []
    for path in paths:
        few = path.stem in HEAVY and not given.only
        steps = max(1, given.steps // 20) if few else given.steps
        outcome = check(path, SETTINGS[given.optimizer], steps=steps)
        outcomes.append(outcome)
        print(_row(outcome), flush=True)
    refused = sum(bool(outcome.refusal) for outcome in outcomes)
    bad = sum(bool(outcome.problems) for outcome in outcomes)
    print(
        f"{len(outcomes)} models, {len(outcomes) - refused} trained for {given.steps} steps of "
        f"{given.optimizer} ({', '.join(HEAVY)}: a twentieth), {refused} refused; {bad} with "
        f"problems; onnx {onnx.__version__}"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
