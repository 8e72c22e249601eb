"""How much a model's outputs follow each output of a layer: what a global threshold compares.

The influence of a pre-activation channel is the root mean square, over samples and positions, of
the derivatives of the model's outputs with respect to it. Times the deviation of an input and the
magnitude of the weight between them, it is the change of the outputs that the weight's loss makes,
to first order and where losses are independent: the diagonal of the Gauss-Newton matrix of the
outputs' squared distance, as in LeCun, Denker, Solla, "Optimal Brain Damage" (1989), factored into
inputs and outputs as in Martens and Grosse, "Optimizing Neural Networks with Kronecker-factored
Approximate Curvature" (2015). One backward pass with random signs at the outputs gives the sum over
all of them in expectation (Hutchinson 1990).

Outputs that a Softmax or a Sigmoid makes count by what those are made of: where few samples are at
hand, most classes of many have no probability on any of them, and seem to need nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx import ModelProto, TensorProto

from ..errors import ModelError, OnnxPruneError
from ..model.model import Model
from ..model.tensors import TensorAddress
from ..runtime import open_session, run
from ..training.backward import pull_back
from ..training.builder import GraphBuilder
from ..training.graph_edits import expose
from ..training.loss.logits import find_scores
from ..training.preparation import prepare
from ..training.upgrading.older_opset import declare_older
from ..training.values import FLOATS
from .jobs import Job
from .samples import Samples
from .taps import Taps, widened

__all__ = ["Influence", "influence_of"]

#: Least influence of a channel, relative to the root mean square over its layer: samples that were
#: not seen may use what none of these does.
FLOOR = 1e-3
#: Seed of the signs.
SEED = 0


def influence_of(model: Model, jobs: Sequence[Job], samples: Samples) -> Influence | None:
    """What measures the influence of channels in prunings of a model.

    Args:
        model: The unpruned model, in the form in which prunings are given.
        jobs: The layers.
        samples: What models are fed.

    Returns:
        None where no gradient can be had: an operator has none, or the model is too large.
    """
    try:
        return Influence(model, jobs, samples)
    except OnnxPruneError:
        return None


class Influence:
    """Measures how much the outputs of a model's prunings follow each channel of its layers.

    Weights and biases are inputs of its graph, so that it serves all prunings.

    Args:
        model: The unpruned model.
        jobs: The layers.
        samples: What models are fed.

    Raises:
        ModelError: Some gradient cannot be had.
        CannotRun: onnxruntime does not load the graph.
    """

    def __init__(self, model: Model, jobs: Sequence[Job], samples: Samples) -> None:
        forward = prepare(model)
        proto = ModelProto()
        proto.CopyFrom(forward.inference)
        b = GraphBuilder(proto)
        made = {name for node in b.graph.node for name in node.output}
        self._sites = {
            site.output.name: (job, site)
            for job in jobs
            for site in job.sites
            if site.output.name in made
        }
        outputs = dict.fromkeys(
            find_scores(b, info.name).logits
            for info in b.graph.output
            if b.values.dtype(info.name) in FLOATS
        )
        signs = {
            name: b.input(f"{name}.sign", TensorProto.FLOAT, [None] * b.rank(name))
            for name in outputs
        }
        found = pull_back(b, signs, list(self._sites))
        # An output of a layer may be one of the model, whose gradient is the sign itself.
        self._gradients = {name: b.op("Identity", value) for name, value in found.items()}
        if not self._gradients:
            raise ModelError("no output of the model depends on its layers")
        self._addresses = dict(forward.addresses)
        expose(proto, dict.fromkeys(self._gradients.values()), self._weights(model))
        declare_older(proto)
        self._session = open_session(proto.SerializeToString(), claims=None)
        runs = ModelProto()
        runs.CopyFrom(forward.inference)
        declare_older(runs)
        source = Model(runs, {}, model.origin)
        self._batches = list(_signed(source, samples, signs, forward.fixed_batch))

    def _weights(self, model: Model) -> dict[str, np.ndarray]:
        """Float tensors of a pruning, as inputs of the graph."""
        return {
            name: model.array(model.tensors[address]).astype(np.float32, copy=False)
            for name, address in self._addresses.items()
        }

    def __call__(self, model: Model) -> dict[TensorAddress, np.ndarray]:
        """Influence of each layer's channels [groups, outputs] in a pruning of the model.

        Layers that the outputs do not depend on are left out.
        """
        taken = {value.name for value in self._session.get_inputs()}
        weights = self._weights(model)
        totals: dict[TensorAddress, np.ndarray] = {}
        for batch in self._batches:
            feeds = {name: array for name, array in {**weights, **batch}.items() if name in taken}
            gradients = run(self._session, feeds)
            for name, gradient in zip(self._gradients, gradients, strict=True):
                job, site = self._sites[name]
                positions, _ = site.unfolding.positions(gradient)
                rows = site.unfolding.targets(gradient, np.arange(positions))
                squares = np.einsum("grm,grm->gm", rows, rows).astype(np.float64)
                place = job.layer.address
                totals[place] = totals.get(place, 0.0) + squares
        return {place: _floored(np.sqrt(total)) for place, total in totals.items()}


def _signed(
    model: Model, samples: Samples, signs: Mapping[str, str], part: int | None
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of samples, and random signs over the spread of each output."""
    batches = [{name: widened(array) for name, array in feeds.items()} for feeds in samples.batches]
    if part is not None and any(len(next(iter(feeds.values()))) != part for feeds in batches):
        raise ModelError("the model insists on a batch size that the samples do not have")
    taps = Taps(model, list(signs))
    outputs = [values for feeds in batches for values in taps.batches(feeds)]
    random = np.random.default_rng(SEED)
    spread = {
        name: float(np.concatenate([values[name].reshape(-1) for values in outputs]).std()) or 1.0
        for name in signs
    }
    for feeds, values in zip(batches, outputs, strict=True):
        drawn = {
            sign: (random.integers(0, 2, values[name].shape) * 2 - 1) / spread[name]
            for name, sign in signs.items()
        }
        yield {**feeds, **{sign: array.astype(np.float32) for sign, array in drawn.items()}}


def _floored(influence: np.ndarray) -> np.ndarray:
    """No channel far below its layer's root mean square."""
    middle = float(np.sqrt((influence**2).mean()))
    floored: np.ndarray = np.maximum(influence, FLOOR * middle)
    return floored
