"""What a search for the most pruning needs, and what layers cost when they are pruned alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..config import PruneConfig
from ..data.source import Given
from ..errors import DataError
from ..evaluation import Meter
from ..graph.layer import LayerScan
from ..metrics.request import MetricRequest
from ..model.model import Model
from ..pruning.once import planned
from .config import SAMPLES
from .dense import measured_dense
from .goal import DropGoal
from .reach import reaches
from .scan import Prune, ScannedLayer, prune_alone, scan_layers
from .searcher import Attempt

__all__ = ["Alone", "Task", "tried_alone", "unmeasured"]

#: The distance of outputs from those of the unpruned model.
OUTPUTS = MetricRequest("mse")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Task:
    """What is searched, and by which means.

    Attributes:
        source: The unpruned model.
        scan: Its layers.
        base: How to prune, but for how hard.
        goal: How much may be lost.
        meter: Measures models; it has measured the unpruned one.
        val: The validation data.
        request: The metric.
        prune: Prunes, and perhaps repairs.
        retrain: Prunes and retrains; None without training data.
        alone: Prunes one layer alone, as it would be repaired.
        progress: Told how far the search is.
    """

    source: Model
    scan: LayerScan
    base: PruneConfig
    goal: DropGoal
    meter: Meter
    val: Given
    request: MetricRequest
    prune: Attempt
    retrain: Attempt | None = None
    alone: Prune | None = None
    progress: Progress | None = None


@dataclass(frozen=True, eq=False)
class Alone:
    """What single layers cost.

    Attributes:
        layers: The layers as they were tried.
        costs: For each of them, what each of its prunings costs: the squared distance of the
            model's outputs from the unpruned one's, or the metric's drop where they are no floats.
        samples: Samples that this was measured on.
    """

    layers: tuple[ScannedLayer, ...]
    costs: tuple[tuple[float, ...], ...]
    samples: int


def tried_alone(task: Task, settings: Sequence[PruneConfig]) -> Alone:
    """Prune each layer alone as each configuration says, and measure what that costs."""
    source = task.meter.source
    assert source is not None  # the unpruned model was measured
    try:
        dense = measured_dense(task.source, source, SAMPLES, OUTPUTS, unlabelled=True)
    except DataError:  # the outputs are no floats
        dense = measured_dense(task.source, source, SAMPLES, task.request)
    plans = [planned(task.source, task.scan, config) for config in settings]
    layers = scan_layers(plans, dense, prune=task.alone or prune_alone, progress=task.progress)
    costs = tuple(
        tuple(max(dense.measured.drop(tried.measured), 0.0) for tried in layer.tried)
        for layer in layers
    )
    return Alone(layers, costs, dense.taken.count)


def unmeasured(task: Task) -> list[str]:
    """Names of layers that change nothing that is measured: nothing would bound their pruning."""
    outputs = [info.name for info in task.source.proto.graph.output]
    wanted = outputs if task.request.kind == "function" else outputs[:1]
    addresses = [layer.address for layer in task.scan.layers]
    reach = reaches(task.source.proto, addresses, wanted)
    free = {each.address for each in reach if not each.wanted}
    return [layer.name for layer in task.scan.layers if layer.address in free]
