"""By which means a model is pruned: at once or calibrated, retrained or not, or in a search."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .calibration import Calibration
from .config import PruneConfig
from .data.source import Given, open_source
from .data.specs import input_specs
from .errors import UsageError
from .evaluation import Meter
from .finetune import FineTune
from .graph.layer import LayerScan
from .metrics.request import MetricRequest
from .model.model import Model
from .outcome import Outcome
from .pruning.once import Prune, planned, prune_once
from .pruning.plan import Progress
from .report.progress import TrainingProgress
from .report.search import Search
from .search.bound import Held
from .search.goal import DropGoal
from .search.scan import Prune as PruneAlone
from .stages import Start

__all__ = ["Means", "Searched", "pruning"]


@dataclass(frozen=True, eq=False)
class Searched:
    """What a search for the most pruning led to.

    Attributes:
        config: How the model was pruned in the end.
        outcome: The model.
        facts: What the report says of the search.
        held: What the written file must hold.
    """

    config: PruneConfig
    outcome: Outcome
    facts: Search
    held: Held


def pruning(
    source: Model, calibrate: Given | None, calibration: Calibration | None
) -> tuple[Prune, str]:
    """What prunes, and a description of what calibrates (empty where nothing does)."""
    if calibrate is None:
        return prune_once, ""
    from .calibrated import Calibrated

    calibrated = Calibrated.on(source, calibrate, calibration or Calibration())
    return calibrated, calibrated.fingerprint


@dataclass(frozen=True, eq=False)
class Means:
    """All that pruning a model needs beside how hard to prune it.

    Attributes:
        start: What is pruned: the model as it came, or without the channels that were chosen.
        prune: Prunes, and perhaps repairs.
        calibration: What calibrates, for checkpoints; empty where nothing does.
        meter: Measures on validation data; None where there is none.
        train: Samples to retrain on; None where nothing is retrained.
        finetune: How to retrain.
        progress: Told how far the work is.
        training_progress: Told how far the training is.
    """

    start: Start
    prune: Prune
    calibration: str = ""
    meter: Meter | None = None
    train: Given | None = None
    finetune: FineTune | None = None
    progress: Progress | None = None
    training_progress: TrainingProgress | None = None

    @property
    def source(self) -> Model:
        """What weights are pruned in."""
        return self.start.model

    @property
    def scan(self) -> LayerScan:
        """Its layers."""
        return self.start.scan

    def run(self, config: PruneConfig) -> Outcome:
        """Prune as a configuration says, retrain where there is training data, and measure."""
        if self.train is not None:
            return self.retrained(config)
        outcome = self.pruned(config)
        if self.meter is None:
            return outcome
        return replace(outcome, metric=self.meter(outcome.model))

    def pruned(self, config: PruneConfig) -> Outcome:
        """Prune, and measure nothing."""
        once = self.prune(
            self.source, self.scan, config, before=self.start.before, progress=self.progress
        )
        return Outcome(
            once.model,
            once.plans,
            once.dropouts,
            pruned=None,
            metric=None,
            repair=once.repair,
            warnings=once.warnings,
        )

    def retrained(self, config: PruneConfig) -> Outcome:
        """Prune and retrain."""
        from .retraining import retrain

        settings = self.finetune or FineTune()
        settings.check_validation(self.meter)
        assert self.train is not None  # there is training data
        done = retrain(
            self.source,
            self.scan,
            config,
            settings,
            open_source(self.train, input_specs(self.source.proto)),
            prune=self.prune,
            calibration=self.calibration,
            teacher=self.start.source,
            before=self.start.before,
            meter=self.meter,
            progress=self.progress,
            training_progress=self.training_progress,
        )
        return Outcome(
            done.model,
            done.plans,
            done.dropouts,
            done.pruned,
            done.trained,
            done.training,
            done.repair,
            done.warnings,
        )

    def search(
        self, base: PruneConfig, goal: DropGoal, metric: MetricRequest, val: Given
    ) -> Searched:
        """Search for the most pruning within a bound.

        Args:
            base: How to prune, but for how hard.
            goal: How much may be lost.
            metric: What is measured.
            val: The validation data, on which the meter has measured the unpruned model.
        """
        from .search.task import Task
        from .search.within import most_within

        assert self.meter is not None  # it has measured the unpruned model
        quiet = replace(self, progress=None)
        found = most_within(
            Task(
                source=self.source,
                scan=self.scan,
                base=base,
                goal=goal,
                meter=self.meter,
                val=val,
                request=metric,
                prune=quiet.pruned,
                retrain=None if self.train is None else quiet.retrained,
                alone=self._alone(base),
                progress=self.progress,
            )
        )
        held = Held(found.bound, self.meter)
        if found.best is not None:
            best = found.best
            repair = best.outcome.repair
            if repair is not None and best.config.quality == 0:
                repair = replace(repair, choice=f"{best.way.name}: {best.facts.setting}")
            outcome = replace(
                best.outcome,
                metric=best.measured.value,
                repair=repair,
                warnings=(*best.outcome.warnings, *found.warnings),
            )
            return Searched(best.config, outcome, found.facts, held)
        if self.start.source is not self.source:
            raise UsageError(
                "max-drop is passed without the channels that are to go already: remove fewer of"
                " them, or repair (calibrate) or retrain (train) what is left"
            )
        config = replace(_whole(base), layers=())
        once = prune_once(self.source, self.scan, config)
        outcome = Outcome(
            once.model,
            once.plans,
            once.dropouts,
            pruned=None,
            metric=found.bound.dense.value,
            warnings=found.warnings,
        )
        return Searched(config, outcome, found.facts, held)

    def _alone(self, base: PruneConfig) -> PruneAlone | None:
        """What prunes one layer alone and refits it; None where pruned layers are not refitted."""
        from .calibrated import Calibrated

        if not isinstance(self.prune, Calibrated) or self.prune.settings.repair != "refit":
            return None
        from .search.refitted import Refitted

        plans = planned(self.source, self.scan, _whole(base))
        return Refitted(self.prune.repairer(self.source, plans))


def _whole(config: PruneConfig) -> PruneConfig:
    """The configuration in which nothing goes but what layers of their own quality lose."""
    return replace(config, quality=0.0, sparsity=None, scope="global", criterion=None, pattern=None)
