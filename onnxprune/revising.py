"""Pruning while training: weights go as the threshold rises, and with splicing they come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .config import PruneConfig, Scope
from .errors import UsageError
from .finetune import FineTune
from .graph.layer import LayerScan
from .model.model import Model
from .model.tensors import TensorAddress
from .pruning.once import PrunedOnce, finished, recounted
from .pruning.plan import LayerPlan
from .pruning.revision import GRADUAL, SPLICING, Aim, Hysteresis, revised, weighed
from .pruning.statistics import LayerStatistics
from .training.setup import RoundSetup, Teaching, set_up
from .training.timetable import Timetable
from .training.trainer import Trainer

__all__ = ["Revising", "begun", "check_use", "ended"]

_HYSTERESIS: Mapping[str, Hysteresis] = {"gradual": GRADUAL, "splicing": SPLICING}


class Revising:
    """Decides on the masks of a training while it goes on.

    Args:
        engine: The training.
        aim: What is to be left in the end, by names of parameters.
        settings: How to retrain.
    """

    def __init__(self, engine: Trainer, aim: Aim, settings: FineTune) -> None:
        self._engine, self._aim, self._seed = engine, aim, settings.seed
        self._hysteresis, self._saliency = _HYSTERESIS[settings.method], settings.saliency
        self._candidates = engine.masks()
        self._timetable = Timetable(
            settings.height, settings.ramp, 1 - settings.settle, falls=settings.method == "splicing"
        )
        if not settings.ramp:
            self._revise(1.0)

    def after_step(self, step: int, before: float, after: float) -> None:
        """Decide again where it is time; arguments as for `Timetable.looks`."""
        if self._timetable.looks(step, before, after, self._seed):
            self._revise(self._timetable.height(after))

    def _revise(self, height: float) -> None:
        engine = self._engine
        weights = engine.beneath()
        if self._saliency == "fisher":
            weights = weighed(self._aim, weights, engine.squared_gradients())
        masks = revised(
            self._aim, height, self._hysteresis, weights, engine.masks(), self._candidates
        )
        engine.revise(masks)


def check_use(settings: FineTune, config: PruneConfig, *, calibration: str, known: bool) -> None:
    """Refuse what has no sense together with pruning while training.

    Args:
        settings: How to retrain.
        config: What to prune, and how hard.
        calibration: What repairs the pruned model; empty where nothing does.
        known: Whether the number of batches is known before the training.

    Raises:
        UsageError: Something has none.
    """
    method = settings.method
    if method == "iterative":
        return
    if config.pattern is not None:
        raise UsageError(
            f"method {method} decides on single weights, and pattern {config.pattern} on groups"
            " of them: leave out the pattern, or choose method iterative"
        )
    if settings.saliency != "magnitude" and config.sparsity is None:
        raise UsageError(
            f"saliency {settings.saliency} ranks weights for a share of zeros, and a quality is a"
            " threshold of magnitudes: give a sparsity, or leave out the saliency"
        )
    if calibration:
        raise UsageError(
            f"calibration repairs what pruning at once has left, and method {method} prunes while"
            " it trains: leave out calibrate, or choose method iterative"
        )
    if not known and settings.epochs == 1:
        raise UsageError(
            f"method {method} spreads pruning over the training, and the length of this data is"
            " known after one epoch: give at least 2 epochs"
        )


def begun(
    model: Model, pruned: PrunedOnce, teaching: Teaching, *, scope: Scope, number: int
) -> tuple[RoundSetup, Revising]:
    """A training that starts with all weights and prunes them on its way.

    Args:
        model: The model with its weights as they are.
        pruned: The same, pruned at once as far as it is to be in the end: says what goes where,
            prunes layers that are not trained, and has the dropout ratios to train with.
        teaching: Data and settings.
        scope: What meets a target share together.
        number: The round.

    Raises:
        ModelError, UsageError, DataError: As for `onnxprune.training.setup.set_up`.
    """
    going = [plan for plan in pruned.plans if plan.changes]
    setup = _set_up(model, pruned, going, teaching, number)
    trained = _trained(setup)
    if len(left := [plan for plan in going if plan.layer.address in trained]) < len(going):
        setup.engine.close()
        setup = _set_up(model, pruned, left, teaching, number)
    assert isinstance(setup.engine, Trainer)  # the settings allow no other
    return setup, Revising(setup.engine, _aim(left, _trained(setup), scope), teaching.settings)


def ended(
    model: Model,
    scan: LayerScan,
    pruned: PrunedOnce,
    trained: Model,
    before: Mapping[TensorAddress, LayerStatistics],
) -> PrunedOnce:
    """What became of each layer.

    Args:
        model: The model as it was before.
        scan: Its layers.
        pruned: The same, pruned at once.
        trained: The model with its trained weights.
        before: Statistics of each layer in the source model.
    """
    plans = tuple(
        replace(plan, threshold=None, keep=None) if plan.quality is None and plan.changes else plan
        for plan in pruned.plans
    )
    return finished(model, scan, recounted(plans, trained), trained, before)


def _set_up(
    model: Model,
    pruned: PrunedOnce,
    revised: Sequence[LayerPlan],
    teaching: Teaching,
    number: int,
) -> RoundSetup:
    """A training of the pruned model in which some layers have all their weights."""
    places = [plan.layer.address for plan in revised]
    whole = pruned.model.with_payloads({a: model.payload(model.tensors[a]) for a in places})
    layers = [plan.layer.address for plan in pruned.plans]
    return set_up(whole, layers, teaching, number=number, revised=places)


def _trained(setup: RoundSetup) -> dict[TensorAddress, str]:
    """Parameters by their places in the model."""
    return {setup.forward.addresses[name]: name for name in setup.graphs.spliced}


def _aim(plans: Sequence[LayerPlan], names: Mapping[TensorAddress, str], scope: Scope) -> Aim:
    """Thresholds and numbers of weights as the plans have them."""
    own = [plan for plan in plans if plan.quality is not None]
    pool = [plan for plan in plans if plan.quality is None]
    shared = [[plan] for plan in pool] if scope == "layer" else [pool]
    return Aim(
        {names[plan.layer.address]: plan.threshold or 0.0 for plan in own},
        tuple(
            (tuple(names[plan.layer.address] for plan in some), sum(plan.kept for plan in some))
            for some in shared
            if some
        ),
    )
