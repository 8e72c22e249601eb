"""Repair of a pruned model with unlabelled samples: the door that everything else goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from ..data.source import BatchSource
from ..data.specs import InputSpec, input_specs
from ..errors import UsageError
from ..model.model import Model
from ..model.tensors import TensorAddress
from ..pruning.plan import LayerPlan, Progress
from ..runtime import check_demand
from ..training.batching.axis import already_free
from .biases import BIAS_INPUT
from .bn import normalizations, renormalized
from .effort import Effort, effort_of
from .frontier import advanced
from .gram import Fit
from .jobs import Job, Jobs, find_jobs
from .match import match_layers
from .refit import RIDGE, refit_layers
from .samples import Samples, take_samples
from .taps import Taps
from .targets import Targets
from .unfold import MatrixUnfolding
from .working import carried_back, working_form
from .writing import rewritten, with_bias_inputs

__all__ = ["SAMPLES", "LayerRepair", "Method", "Repaired", "Repairer", "repair"]

Method = Literal["refit", "match", "bn"]
#: Samples that a repair takes by default.
SAMPLES = 512
#: Numbers in the Gram matrices of layers that share a run.
GRAM_NUMBERS = 2**26


@dataclass(frozen=True)
class LayerRepair:
    """What a repair did to one layer.

    Attributes:
        layer: The layer's name.
        method: What was done; None where nothing was.
        reason: Why nothing was done; None where something was.
        before: Squared difference of the layer's pre-activations from the unpruned model's, over
            their squared deviation from their means, when its turn came; None: not measured.
        after: The same after its repair.
    """

    layer: str
    method: Method | None
    reason: str | None = None
    before: float | None = None
    after: float | None = None


@dataclass(frozen=True)
class Repaired:
    """A repaired model.

    Attributes:
        model: The model; weights that pruning set to zero are zero.
        rows: What happened to each layer, in the order of the plans.
        samples: Number of samples that were used.
        warnings: What a user should know.
        choice: How the weights that went were chosen, where the repair had a say in it.
    """

    model: Model
    rows: tuple[LayerRepair, ...]
    samples: int
    warnings: tuple[str, ...]
    choice: str = ""


def repair(
    source: Model,
    pruned: Model,
    plans: Sequence[LayerPlan],
    data: BatchSource,
    *,
    method: Method = "refit",
    samples: int = SAMPLES,
    ridge: float = RIDGE,
    progress: Progress | None = None,
) -> Repaired:
    """Bring a pruned model's layers back towards what they compute in the unpruned one.

    Args:
        source: The unpruned model.
        pruned: The pruned model: the same graph.
        plans: What was pruned; layers that a plan leaves as they are for a reason stay so.
        data: Inputs; labels are not used.
        method: ``refit``: least squares over the weights that are left; ``match``: mean and
            standard deviation of every output; ``bn``: statistics of BatchNormalization.
        samples: Most samples that are taken.
        ridge: Pull of a refit towards the weights as they are.
        progress: Told of the layers done.

    Raises:
        UsageError: The method is unknown.
        DataError: The data does not fit the model, or holds NaN or infinity.
        CannotRun: onnxruntime does not run the model.
    """
    return Repairer(source, plans, data, samples=samples).repair(
        pruned, method=method, ridge=ridge, progress=progress
    )


def _first(spec: InputSpec, array: np.ndarray) -> np.ndarray:
    """The least of an input that a run takes."""
    return array if spec.shared or not array.ndim else array[: spec.fixed_batch or 1]


class Repairer:
    """Repairs several prunings of one model on the same samples.

    Args:
        source: The unpruned model.
        plans: The layers; those with a reason to stay as they are do.
        data: Inputs; labels are not used. Or samples that were taken already.
        samples: Most samples that are taken.

    Raises:
        DataError: The data does not fit the model, or holds NaN or infinity.
        CannotRun: Constants of the model would fill memory.
    """

    def __init__(
        self,
        source: Model,
        plans: Sequence[LayerPlan],
        data: BatchSource | Samples,
        *,
        samples: int = SAMPLES,
    ) -> None:
        if samples < 1:
            raise UsageError(f"a repair needs at least 1 sample, not {samples}")
        self.plans = tuple(plans)
        check_demand(source.proto)
        self.source = working_form(source)
        if not isinstance(data, Samples):
            data = take_samples(data, input_specs(self.source.proto), samples)
        self.samples: Samples = data
        layers = [plan.layer for plan in plans if plan.reason is None]
        self.jobs: Jobs = self._found(find_jobs(self.source, layers))
        self.targets = Targets(self.source, self.jobs.jobs, self.samples, self.jobs.stackable)

    def _found(self, jobs: Jobs) -> Jobs:
        """The jobs, knowing which matrix products have a single vector for data in every run.

        Only a model with a fixed batch, or fed vectors, can have such; one run of it tells.
        """
        specs = input_specs(self.source.proto)
        fed = any(spec.shape and len(spec.shape) == 1 and not spec.shared for spec in specs)
        sites = [site for job in jobs.jobs for site in job.sites]
        names = [s.data.name for s in sites if isinstance(s.unfolding, MatrixUnfolding)]
        if not names or not (fed or any(spec.fixed_batch for spec in specs)):
            return jobs
        first = {spec.name: _first(spec, self.samples.batches[0][spec.name]) for spec in specs}
        values = next(Taps(self.source, names, stack=False, known=first).batches(first))
        vectors = {name for name in names if np.ndim(values[name]) == 1}
        return jobs.with_vectors(vectors, fed=fed)

    def repair(
        self,
        pruned: Model,
        *,
        method: Method = "refit",
        ridge: float = RIDGE,
        progress: Progress | None = None,
    ) -> Repaired:
        """Repair one pruned model; arguments as those of `repair`."""
        run = _METHODS.get(method)
        if run is None:
            raise UsageError(f"no repair is called '{method}'; take one of: {', '.join(_METHODS)}")
        with single_threaded_algebra():
            return run(self, pruned, ridge, progress or _silent)

    def working(self, model: Model) -> Model:
        """The form in which a model of the same graph is run."""
        return working_form(model)

    def refit(
        self,
        worked: Model,
        *,
        ridge: float = RIDGE,
        rough: bool = False,
        progress: Progress | None = None,
    ) -> tuple[Model, dict[str, Fit]]:
        """Refit a pruned model in the form in which `source` is; for many steps in a row.

        Args:
            worked: The pruned model.
            ridge: Pull towards the weights as they are.
            rough: Whether a few digits are enough.
            progress: Told of the layers done.

        Returns:
            The refitted model, and each layer's fit by name.
        """
        samples = self.effort.rough if rough else self.samples
        step = self._refit_step(ridge, rough)
        return self.sweep(worked, step, samples=samples, progress=progress)

    @cached_property
    def effort(self) -> Effort:
        """Samples of the steps of a pruning."""
        return effort_of(self.source, self.jobs.jobs, self.samples, stack=self.jobs.stackable)

    def started(self, pruned: Model) -> Model:
        """A pruning in the form of `source`; its layers are stored as those of the model are."""
        addresses = [plan.layer.address for plan in self.plans]
        arrays = {a: pruned.array(pruned.tensors[a]).reshape(-1) for a in addresses}
        own = {a: self.source.array(self.source.tensors[a]).reshape(-1) for a in addresses}
        changed = {a: x for a, x in arrays.items() if x.tobytes() != own[a].tobytes()}
        # Biases that a refit may add are there from the start: the graph stays the same.
        return with_bias_inputs(rewritten(self.source, changed), _addable_biases(self))

    def finished(
        self, pruned: Model, worked: Model, fits: Mapping[str, Fit], method: Method = "refit"
    ) -> Repaired:
        """What is known of a pruning, with the numbers of its repaired form."""
        touched = [plan.layer.address for plan in self.plans if plan.reason is None]
        touched += [place for job in self.jobs.jobs for place in _bias_places(job, worked)]
        model = carried_back(pruned, worked, touched)
        rows = tuple(self._row(plan, method, fits.get(plan.layer.name)) for plan in self.plans)
        return self.result(model, rows)

    def by_layer(
        self, pruned: Model, method: Method, progress: Progress, step: LayerStep
    ) -> Repaired:
        """Repair level after level with `step`."""
        worked, fits = self.sweep(working_form(pruned), step, progress=progress)
        return self.finished(pruned, worked, fits, method)

    def sweep(
        self,
        worked: Model,
        step: LayerStep,
        *,
        samples: Samples | None = None,
        stage: str = "repair (layers)",
        progress: Progress | None = None,
    ) -> tuple[Model, dict[str, Fit]]:
        """Change layers level after level; each level runs on what earlier ones have become.

        Args:
            worked: A model of the same graph, in its working form.
            step: Changes the layers of one level.
            samples: The first of the samples; None: all of them.
            stage: What progress calls the work.
            progress: Told of the layers done.

        Returns:
            The model, and what the steps found, by layer name.
        """
        fits: dict[str, Fit] = {}
        done, total = 0, len(self.jobs.jobs)
        samples, moving = samples or self.samples, self._can_advance(worked)
        for jobs in self.jobs.runs(GRAM_NUMBERS):
            if moving:
                samples = advanced(worked, samples, self.jobs.levels, jobs[0].level)
            worked, found = step(worked, jobs, samples)
            fits |= found
            done += len(jobs)
            (progress or _silent)(stage, done, total)
        return worked, fits

    def _refit_step(self, ridge: float, rough: bool = False) -> LayerStep:
        def step(model: Model, jobs: tuple[Job, ...], samples: Samples) -> Stepped:
            return refit_layers(model, jobs, self.targets, samples, ridge=ridge, rough=rough)

        return step

    def _can_advance(self, worked: Model) -> bool:
        """Whether levels are those of this model's nodes, and batches run whole."""
        ours, theirs = self.source.proto.graph.node, worked.proto.graph.node
        same = len(ours) == len(theirs) and all(
            list(a.output) == list(b.output) for a, b in zip(ours, theirs, strict=True)
        )
        return same and already_free(worked.proto)

    def result(self, model: Model, rows: tuple[LayerRepair, ...], *warnings: str) -> Repaired:
        """A result with the warnings of the samples."""
        return Repaired(model, rows, self.samples.count, (*self.samples.warnings, *warnings))

    def _row(self, plan: LayerPlan, method: Method, fit: Fit | None) -> LayerRepair:
        name = plan.layer.name
        if fit is not None:
            return LayerRepair(name, method, None, fit.before, fit.after)
        return LayerRepair(name, None, plan.reason or self.jobs.reasons.get(name))


def _addable_biases(repairer: Repairer) -> dict[str, np.ndarray]:
    """Zero biases for the nodes that have none and can, by the name of the node's output."""
    source, found = repairer.source, dict[str, np.ndarray]()
    for job in repairer.jobs.jobs:
        site = job.sites[0]
        node = source.proto.graph.node[site.node.index]
        if site.bias is not None and site.bias.address is None and len(node.input) <= BIAS_INPUT:
            dtype = source.payload(source.tensors[job.layer.address]).dtype
            found[site.output.name] = np.zeros(job.shape[0] * job.shape[1], dtype)
    return found


def _bias_places(job: Job, model: Model) -> Iterator[TensorAddress]:
    """Where the bias of a layer is stored, one that an earlier repair has added included."""
    bias, node = job.sites[0].bias, model.proto.graph.node[job.sites[0].node.index]
    if bias is not None and bias.address is not None:
        yield bias.address
    elif bias is not None and len(node.input) > BIAS_INPUT:
        yield TensorAddress((), node.input[BIAS_INPUT])


Stepped = tuple[Model, dict[str, Fit]]
#: Repairs layers that do not depend on each other.
LayerStep = Callable[[Model, tuple[Job, ...], Samples], "tuple[Model, dict[str, Fit]]"]


def _refit(repairer: Repairer, pruned: Model, ridge: float, progress: Progress) -> Repaired:
    return repairer.by_layer(pruned, "refit", progress, repairer._refit_step(ridge))


def _match(repairer: Repairer, pruned: Model, ridge: float, progress: Progress) -> Repaired:
    def step(model: Model, jobs: tuple[Job, ...], samples: Samples) -> Stepped:
        return match_layers(model, jobs, repairer.targets, samples)

    return repairer.by_layer(pruned, "match", progress, step)


def _bn(repairer: Repairer, pruned: Model, ridge: float, progress: Progress) -> Repaired:
    worked = working_form(pruned)
    levels, fixed = normalizations(worked)
    touched = []
    for done, nodes in enumerate(levels, 1):
        worked, addresses = renormalized(worked, nodes, repairer.samples)
        touched += addresses
        progress("repair (normalizations)", done, len(levels))
    count = sum(map(len, levels))
    reason = None if count else "the model has no BatchNormalization whose statistics can change"
    method: Method | None = "bn" if count else None
    rows = tuple(
        LayerRepair(p.layer.name, None, p.reason) if p.reason else
        LayerRepair(p.layer.name, method, reason)
        for p in repairer.plans
    )  # fmt: skip
    warnings = (
        (f"{fixed} BatchNormalization with computed or shared statistics stay",) if fixed else ()
    )
    return repairer.result(carried_back(pruned, worked, touched), rows, *warnings)


_METHODS: dict[str, Callable[[Repairer, Model, float, Progress], Repaired]] = {
    "refit": _refit,
    "match": _match,
    "bn": _bn,
}


@contextmanager
def single_threaded_algebra() -> Iterator[None]:
    """One thread for each product and decomposition.

    There are thousands of small ones: starting the threads of numpy's and scipy's libraries for
    each costs more than they save, many times over where other work keeps the cores busy.
    """
    import scipy.linalg.lapack  # noqa: F401 - only libraries that are loaded are limited
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(1, user_api="blas"):
        yield


def _silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""
