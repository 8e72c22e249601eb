"""How much the outputs of a model change when a layer loses weights: what layers can spare.

A layer's gain is the root mean square change of the model's outputs per root of the squared
pre-activations that it lost. Multiplied with the use of a weight it is the change of the outputs
that the weight's loss makes, as far as losses add up: exactly what a global threshold should
compare. Losses of most of a layer do not add up, and a repair takes back some of them, so gains
count by their square root only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..model.model import Model
from ..model.tensors import TensorAddress
from .jobs import Job
from .samples import Samples
from .scores import Uses, without_least
from .taps import Taps

__all__ = ["OutputProbe", "layer_gains", "with_gains"]

#: Share of a layer's weights that is taken out to see what it does.
PROBE = 0.7
#: Power of the gains in a score.
POWER = 0.5
#: Least factor that logarithms are taken of.
TINY = 1e-30
#: Batches that gains are measured on.
BATCHES = 2


class OutputProbe:
    """The outputs of a model against those of its prunings.

    Args:
        model: The unpruned model.
        samples: What it is fed.
        batches: How many batches of them.
    """

    def __init__(self, model: Model, samples: Samples, batches: int | None = None) -> None:
        self.batches = samples.batches[:batches]
        self.names = [info.name for info in model.proto.graph.output]
        self._reference = self._outputs(model)

    @property
    def blind(self) -> bool:
        """Whether no output is made of numbers, so that all distances are zero."""
        return not self._reference

    def distance(self, model: Model) -> float:
        """Squared change of the outputs over their squared deviation from their means, summed."""
        total = 0.0
        for found, wanted in zip(self._outputs(model), self._reference, strict=True):
            if found.shape != wanted.shape:
                continue  # an output whose size depends on its values
            spread = float(((wanted - wanted.mean(axis=0)) ** 2).sum()) or 1.0
            change = float(((found - wanted) ** 2).sum()) / spread
            total += change if np.isfinite(change) else 0.0
        return total

    def _outputs(self, model: Model) -> list[np.ndarray]:
        taps = Taps(model, self.names)
        values = [part for feeds in self.batches for part in taps.batches(feeds)]
        # Numbers alone: classes and the like change in steps, and maps are none.
        first = {n: v for n, v in values[0].items() if isinstance(v, np.ndarray)}
        kept = [n for n in self.names if n in first and first[n].dtype.kind == "f"]
        return [np.concatenate([np.atleast_1d(v[n]) for v in values], dtype="f8") for n in kept]


def layer_gains(
    model: Model, jobs: Sequence[Job], uses: Uses, probe: OutputProbe
) -> dict[TensorAddress, float]:
    """The gain of each layer.

    Args:
        model: The unpruned model.
        jobs: The layers.
        uses: How much their inputs vary.
        probe: Measures changes of the outputs.
    """
    gains: dict[TensorAddress, float] = {}
    for job in jobs:
        address = job.layer.address
        cut = without_least(model, [job.layer], PROBE, uses.relative)
        before = model.array(model.tensors[address]).reshape(-1).astype(np.float64)
        after = cut.array(cut.tensors[address]).reshape(-1).astype(np.float64)
        lost = float((((before - after) * uses.relative[address]) ** 2).sum())
        lost *= uses.scales[address] ** 2
        gains[address] = (probe.distance(cut) / lost) ** 0.5 if lost > 0 else 0.0
    return gains


def with_gains(
    uses: Uses, gains: Mapping[TensorAddress, float | np.ndarray]
) -> dict[TensorAddress, np.ndarray]:
    """Relative uses that also compare layers by what losing their weights does to the outputs.

    Their geometric mean over all weights stays what it was, so that layers without gains still
    compare.

    Args:
        uses: How much inputs vary.
        gains: By address, for a layer or for each of its stored weights.
    """
    factors = {
        address: np.power(np.asarray(gains[address]) * uses.scales[address], POWER)
        for address in uses.relative
        if np.any(gains.get(address, 0.0)) and uses.scales[address] > 0
    }
    logs = [
        np.broadcast_to(np.log(np.maximum(factor, TINY)), uses.relative[address].shape)
        for address, factor in factors.items()
    ]
    middle = float(np.exp(np.concatenate(logs).mean())) if logs else 1.0
    return {
        address: use * np.float32(factors[address] / middle) if address in factors else use
        for address, use in uses.relative.items()
    }
