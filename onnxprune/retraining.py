"""Rounds of pruning and retraining (Han et al. 2015, section 3.4), resumable at any step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .config import PruneConfig
from .data.source import BatchSource
from .evaluation import Meter
from .finetune import FineTune
from .graph.dropout import DropoutSite, rewrite_dropouts
from .graph.layer import LayerScan
from .model.model import Model, changed_tensors
from .model.tensors import TensorAddress
from .pruning.once import Prune, PrunedOnce, prune_once, statistics_of
from .pruning.plan import LayerPlan, Progress
from .pruning.statistics import LayerStatistics
from .repair.writing import added_biases, with_bias_inputs
from .report.repair import Repair
from .report.training import EpochRow, RoundRow, Training
from .revising import Revising, begun, check_use, ended
from .training.checkpoint import (
    Checkpoint,
    Fingerprint,
    fingerprint,
    load_checkpoint,
    save_checkpoint,
    start_payloads,
)
from .training.checkpoint_folder import held, refuse_old
from .training.describe import training_facts
from .training.loop import (
    Position,
    RoundResult,
    Surroundings,
    Totals,
    TrainingProgress,
    run_round,
)
from .training.setup import RoundSetup, Teaching, set_up
from .training.writeback import write_back

__all__ = ["Retrained", "retrain"]


@dataclass(frozen=True)
class Retrained:
    """A pruned and retrained model, dense.

    Attributes:
        plans: The last round's plans, with each layer's statistics before the first round.
        dropouts: Every Dropout with its new ratio.
        pruned: Metric of the last round's pruned model, before retraining.
        trained: Metric of the model; None like `pruned` without validation data.
        repair: What calibration samples did in the last round in which weights went; None without.
        warnings: What a user should know of it.
    """

    model: Model
    plans: tuple[LayerPlan, ...]
    dropouts: tuple[tuple[DropoutSite, float], ...]
    pruned: float | None
    trained: float | None
    training: Training
    repair: Repair | None = None
    warnings: tuple[str, ...] = ()


def retrain(
    source: Model,
    scan: LayerScan,
    config: PruneConfig,
    settings: FineTune,
    data: BatchSource,
    *,
    prune: Prune = prune_once,
    calibration: str = "",
    teacher: Model | None = None,
    before: Mapping[TensorAddress, LayerStatistics] | None = None,
    meter: Meter | None = None,
    progress: Progress | None = None,
    training_progress: TrainingProgress | None = None,
) -> Retrained:
    """Prune and retrain in rounds; the source model stays as it is.

    Args:
        source: The trained model, or what channels have been removed from.
        scan: Its layers.
        config: What to prune, and how hard in the last round.
        settings: How to retrain.
        data: Training data.
        prune: Prunes the model in every round, and perhaps repairs it.
        calibration: What repairs it, for a checkpoint; empty where nothing does.
        teacher: The model that is distilled; the source where left out.
        before: Statistics of each layer that thresholds and dropout ratios refer to; see
            `prune_once`. Those of the source where left out.
        meter: Measures models on validation data.
        progress: Told about pruning.
        training_progress: Told about training.

    Raises:
        ModelError, DataError: The model cannot be trained, or the data does not fit it.
        UsageError: A setting does not fit the model, the data or the checkpoint.
        Interrupted: Ctrl-C was pressed, or a signal asked the command to end.
    """
    started = time.perf_counter()
    classes = meter is not None and meter.classification
    with held(settings.checkpoint, make=not settings.resume):
        rounds = _Rounds(
            source,
            scan,
            config,
            settings,
            Teaching(teacher or source, data, settings, classes),
            prune,
            calibration,
            before,
            meter,
            progress,
            training_progress,
        )
        while rounds.number < settings.rounds:
            rounds.run()
    assert rounds.pruned is not None and rounds.setup is not None  # there is a first round
    last = rounds.rows[-1]
    return Retrained(
        rewrite_dropouts(rounds.weights, dict(rounds.pruned.dropouts)),
        _plans(rounds.pruned, rounds.before),
        rounds.pruned.dropouts,
        last.metric_pruned,
        last.metric_trained,
        training_facts(
            rounds.teaching,
            rounds.setup,
            scan,
            meter,
            rounds.rows,
            rounds.history,
            rounds.totals,
            seconds=time.perf_counter() - started,
            resumed=rounds.resumed,
        ),
        rounds.repair,
        (*rounds.lost, *rounds.warnings),
    )


def _plans(
    pruned: PrunedOnce, before: Mapping[TensorAddress, LayerStatistics]
) -> tuple[LayerPlan, ...]:
    """Plans with the statistics of the very start, in which thresholds are counted."""
    return tuple(replace(plan, statistics=before[plan.layer.address]) for plan in pruned.plans)


class _Rounds:
    """The rounds done so far.

    Attributes:
        number: The last round that was finished.
        weights: The source model with the weights that the next round starts from.
        changed: Addresses of the tensors of `weights` that differ from the source.
        before: Statistics of each layer in the source model.
        rows: Finished rounds.
        history: Their epochs.
        totals: Sums over the finished rounds.
        pruned: The last round's pruned model.
        repair: What calibration samples did in the last round in which weights went.
        warnings: What a user should know of it.
        setup: The last round's graphs.
        lost: Why the training did not go on from the last checkpoint.
    """

    def __init__(
        self,
        source: Model,
        scan: LayerScan,
        config: PruneConfig,
        settings: FineTune,
        teaching: Teaching,
        prune: Prune,
        calibration: str,
        before: Mapping[TensorAddress, LayerStatistics] | None,
        meter: Meter | None,
        progress: Progress | None,
        training_progress: TrainingProgress | None,
    ) -> None:
        self._source, self._scan, self._config, self._settings = source, scan, config, settings
        self._prune = prune
        check_use(
            settings,
            config,
            calibration=calibration,
            known=teaching.data.batches(settings.batch_size) is not None,
        )
        self._meter, self._progress, self._told = meter, progress, training_progress
        self.teaching = teaching
        self.number = 0
        self.weights = source
        self.changed: dict[TensorAddress, None] = {}
        self.rows: list[RoundRow] = []
        self.history: list[EpochRow] = []
        self.totals = Totals()
        self.pruned: PrunedOnce | None = None
        self.repair: Repair | None = None
        self.warnings: tuple[str, ...] = ()
        self.setup: RoundSetup | None = None
        self.lost: tuple[str, ...] = ()
        unpruned = PruneConfig(
            quality=0.0,
            exclude=config.exclude,
            embeddings=config.embeddings,
            allow_nonfinite=config.allow_nonfinite,
        )
        self.before = before or statistics_of(prune_once(source, scan, unpruned).plans)
        self._of: Fingerprint = {}
        self._checkpoint: Checkpoint | None = None
        if settings.checkpoint is not None:
            if not settings.resume:
                refuse_old(settings.checkpoint)
            val = meter.description if meter is not None else ""
            self._of = fingerprint(source, config, settings, teaching.data, val, calibration)
        if settings.resume and settings.checkpoint is not None:
            self._checkpoint = load_checkpoint(settings.checkpoint, source, self._of)
            self._go_on(self._checkpoint)
        self.resumed = self._checkpoint is not None

    def _go_on(self, checkpoint: Checkpoint) -> None:
        self.number = checkpoint.round - 1
        if checkpoint.lost:
            where = f"epoch {checkpoint.position.epoch} of round {checkpoint.round}"
            self.lost = (
                f"training went on from the checkpoint before the last, after {where}: "
                f"{checkpoint.lost}",
            )
        self.rows = list(checkpoint.rounds)
        self.history = list(checkpoint.history)
        self.totals = checkpoint.totals
        self.changed = dict.fromkeys(checkpoint.start)
        for output, values in checkpoint.biases.items():
            self.weights = with_bias_inputs(self.weights, {output: values})
        self.weights = self.weights.with_payloads(start_payloads(checkpoint.start))

    def run(self) -> None:
        """Prune and retrain once more."""
        number = self.number + 1
        share = self._settings.quality_share(number)
        pruned = self._prune(
            self.weights,
            self._scan,
            self._config,
            share=share,
            before=self.before,
            progress=self._progress,
        )
        metric = self._meter(pruned.model) if self._meter is not None else None
        setup, revising = self._set_up(pruned, number)
        at = Position()
        if self._checkpoint is not None:
            at = self._checkpoint.position
            setup.engine.restore(self._checkpoint.engine)
            self._checkpoint = None
        try:
            around = self._surroundings(number, pruned, setup)
            revise = None if revising is None else revising.after_step
            result = run_round(setup.engine, replace(around, revise=revise), at)
        finally:
            setup.engine.close()
        self.changed.update(dict.fromkeys(changed_tensors(self.weights, pruned.weights)))
        trained = write_back(pruned.weights, result.parameters, setup.forward.addresses)
        if revising is not None:
            pruned = ended(self.weights, self._scan, pruned, trained, self.before)
        self.weights = trained
        self.changed.update(
            dict.fromkeys(setup.forward.addresses[name] for name in result.parameters)
        )
        self.rows.append(self._row(number, share, pruned, metric, result))
        self.history += result.position.rows
        self.totals = self.totals.plus(result)
        self.number, self.pruned, self.setup = number, pruned, setup
        if self.repair is None or any(plan.changes for plan in pruned.plans):
            self.repair, self.warnings = pruned.repair, pruned.warnings

    def _set_up(self, pruned: PrunedOnce, number: int) -> tuple[RoundSetup, Revising | None]:
        """The round's graphs, and what decides on masks where they change."""
        if self._settings.method == "iterative":
            layers = [plan.layer.address for plan in pruned.plans]
            return set_up(pruned.model, layers, self.teaching, number=number), None
        scope = self._config.scope
        return begun(self.weights, pruned, self.teaching, scope=scope, number=number)

    def _surroundings(self, number: int, pruned: PrunedOnce, setup: RoundSetup) -> Surroundings:
        meter = self._meter
        return Surroundings(
            settings=self._settings,
            data=self.teaching.data,
            number=number,
            sparsity=pruned.sparsity,
            complete=setup.complete,
            measure=_measuring(meter, pruned.model, setup) if meter is not None else None,
            metric=meter.metric if meter is not None else None,
            better=meter.better if meter is not None else "higher",
            share=meter.share if meter is not None else True,
            save=self._saving(number, setup) if self._settings.checkpoint is not None else None,
            progress=self._told,
        )

    def _saving(self, number: int, setup: RoundSetup) -> Callable[[Position], None]:
        """Writes checkpoints of a round."""
        folder = self._settings.checkpoint
        assert folder is not None
        start = {
            address: self.weights.payload(self.weights.tensors[address]).array()
            for address in self.changed
            if address in self._source.tensors
        }
        biases = added_biases(self._source, self.weights)

        def save(at: Position) -> None:
            engine = setup.engine.state()
            state = Checkpoint(
                number,
                tuple(self.rows),
                tuple(self.history),
                self.totals,
                at,
                engine,
                start,
                biases,
            )
            save_checkpoint(folder, state, self._of)

        return save

    def _row(
        self,
        number: int,
        share: float,
        pruned: PrunedOnce,
        metric: float | None,
        result: RoundResult,
    ) -> RoundRow:
        quality, sparsity = self._config.quality, self._config.sparsity
        at = result.position
        kept = at.best_epoch if self._settings.patience is not None else at.epoch
        trained = at.rows[(kept or at.epoch) - 1].metric
        return RoundRow(
            round=number,
            quality=None if quality is None else quality * share,
            sparsity=None if sparsity is None else sparsity * share,
            zeros=pruned.sparsity,
            metric_pruned=metric,
            metric_trained=trained,
            best_epoch=kept if self._settings.patience is not None else None,
        )


def _measuring(
    meter: Meter, model: Model, setup: RoundSetup
) -> Callable[[Mapping[str, np.ndarray]], float]:
    """Measures a model with other parameters."""

    def measure(parameters: Mapping[str, np.ndarray]) -> float:
        return meter(write_back(model, parameters, setup.forward.addresses))

    return measure
