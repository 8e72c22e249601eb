"""Running training steps in onnxruntime: weights, moments and masks stay inside it.

Every parameter and state has two buffers. A step reads one and writes the other; the next step
goes the other way. (One buffer as input and output at once would be overwritten while it is read.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError
from ..runtime import CannotRun, cause, training_session
from .graphs import (
    LEARNING_RATE,
    SCALE,
    STEP,
    StepGraphs,
    accumulating_graph,
    fused_graph,
    gradient_name,
    mask_name,
    state_name,
    total_name,
    updated_name,
)
from .preparation import SEED_INPUT
from .update.optimizers import SECOND_MOMENT

__all__ = ["Trainer"]

Feeds = Mapping[str, np.ndarray]


class Trainer:
    """Trains a model with the artifacts of `generate_artifacts`, or with graphs in memory.

    Where the graphs insist on a batch size, bigger batches are fed in parts, whose gradients are
    averaged.

    Args:
        source: A folder that `generate_artifacts` wrote, or graphs.
        masks: For parameters that are pruned: what is 0 stays at zero. By default a parameter
            with a mask keeps zeros where it is zero now.
        seed: Seed of dropout.
        threads: Threads of a step; 0 for all cores.

    Raises:
        CannotRun: onnxruntime does not load a graph.
    """

    name = "onnxprune"

    def __init__(
        self,
        source: StepGraphs | Path | str,
        *,
        masks: Mapping[str, np.ndarray] | None = None,
        seed: int = 0,
        threads: int = 0,
    ) -> None:
        graphs = source if isinstance(source, StepGraphs) else _loaded(Path(source))
        self.graphs = graphs
        self.steps = 0
        self._seed = seed
        self._part = graphs.fixed_batch
        self._masks = _Fixed(
            {
                mask_name(name): _mask(graphs.initial[name], (masks or {}).get(name))
                for name in graphs.masked
            }
        )
        moments = {
            state_name(name, state): np.zeros_like(graphs.initial[name])
            for name in graphs.parameters
            for state in graphs.states
        }
        self._values = _Buffers({**graphs.initial, **moments})
        run = _Accumulated if graphs.fixed_batch is not None else _Fused
        self._run = run(graphs, self._values, self._masks, threads)

    def step(self, feeds: Feeds, rate: float) -> float:
        """Do one step and return the loss before it.

        Args:
            feeds: A batch: the model's inputs, and labels and teacher outputs where the loss
                takes them.
            rate: The learning rate.

        Raises:
            CannotRun: onnxruntime fails.
            ModelError: A fixed batch size does not divide the batch.
        """
        number = np.array(self.steps + 1, np.int64)
        scalars: Feeds = {LEARNING_RATE: np.array(rate, np.float32), STEP: number}
        parts = self._parts(feeds)
        if SEED_INPUT in self._run.inputs:
            random = np.random.default_rng([self._seed, self.steps])
            for part in parts:
                part[SEED_INPUT] = np.array(random.integers(2**31), np.int64)
        loss = self._run.step(parts, scalars)
        self._values.flip()
        self.steps += 1
        return loss

    def _parts(self, feeds: Feeds) -> list[dict[str, np.ndarray]]:
        taken = {name: value for name, value in feeds.items() if name in self._run.inputs}
        if self._part is None:
            return [taken]
        count = len(next(iter(taken.values())))
        if count % self._part or not count:
            raise ModelError(
                f"the model takes batches of {self._part} and a batch has {count} samples; make "
                f"the batch size a multiple of {self._part}"
            )
        return [
            {name: value[start : start + self._part] for name, value in taken.items()}
            for start in range(0, count, self._part)
        ]

    def parameters(self) -> dict[str, np.ndarray]:
        """Copies of the parameters as they are now, and of statistics that training updates.

        Of spliced ones as the model sees them: +0 where they are masked.
        """
        found = {name: self._values.get(name) for name in self.graphs.initial}
        for name, mask in self.masks().items():
            found[name][~mask] = 0
        return found

    def beneath(self) -> dict[str, np.ndarray]:
        """Copies of the spliced parameters as they are beneath their masks."""
        return {name: self._values.get(name) for name in self.graphs.spliced}

    def squared_gradients(self) -> dict[str, np.ndarray]:
        """Running means of the squared gradients of the spliced parameters, up to one factor.

        They are adamw's second moments, so the optimizer must be that.
        """
        names = self.graphs.spliced
        return {name: self._values.get(state_name(name, SECOND_MOMENT)) for name in names}

    def masks(self) -> dict[str, np.ndarray]:
        """Masks of the spliced parameters, bool: False where the model sees a zero."""
        return {name: self._masks.get(mask_name(name)) != 0 for name in self.graphs.spliced}

    def revise(self, masks: Mapping[str, np.ndarray]) -> None:
        """Give spliced parameters other masks (bool, of their shapes) from the next step on."""
        self._masks.set({mask_name(name): mask.astype(np.float32) for name, mask in masks.items()})

    def state(self) -> dict[str, np.ndarray]:
        """All that a later run needs to go on exactly from here."""
        masks = {mask_name(name): mask for name, mask in self.masks().items()}
        steps = np.array(self.steps, np.int64)
        return {**self._values.all(), **masks, "onnxprune.steps": steps}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a `state`; raises ModelError where it is of other graphs."""
        expected = {name: array.shape for name, array in self.state().items()}
        given = {name: array.shape for name, array in state.items()}
        if expected != given:
            raise ModelError(
                "the checkpoint is of another model or other training settings; give the same "
                "model and options as before, or train without --resume"
            )
        masks = {mask_name(name): name for name in self.graphs.spliced}
        values = expected.keys() - masks.keys() - {"onnxprune.steps"}
        self._values.set({name: state[name] for name in values})
        self.revise({masks[name]: state[name] for name in masks})
        self.steps = int(state["onnxprune.steps"])

    def close(self) -> None:
        """Give back memory and threads; no more steps after that."""
        self._run.close()


def _loaded(folder: Path) -> StepGraphs:
    from .artifacts import load_artifacts

    return load_artifacts(folder)


def _mask(weights: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    alive: np.ndarray = (weights if given is None else np.asarray(given)) != 0
    return alive.astype(np.float32)


def _ort_value(array: np.ndarray) -> Any:
    import onnxruntime

    # On the CPU the value is the array's own memory, so it needs an array of its own.
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.array(array, order="C"))


class _Fixed:
    """Named values that steps only read."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.values = {name: _ort_value(array) for name, array in arrays.items()}

    def get(self, name: str) -> np.ndarray:
        return np.array(self.values[name].numpy())

    def set(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            self.values[name].update_inplace(np.ascontiguousarray(array))


class _Buffers:
    """Named values with two buffers each; `side` holds the current ones."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.side = 0
        self.buffers = [
            {name: _ort_value(array) for name, array in arrays.items()} for _ in range(2)
        ]

    def flip(self) -> None:
        self.side = 1 - self.side

    def get(self, name: str) -> np.ndarray:
        return np.array(self.buffers[self.side][name].numpy())

    def all(self) -> dict[str, np.ndarray]:
        return {name: self.get(name) for name in self.buffers[0]}

    def set(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            self.buffers[self.side][name].update_inplace(np.ascontiguousarray(array))


class _Session:
    """A session with a binding for either direction of the buffers."""

    def __init__(self, model: bytes, threads: int) -> None:
        self.session = training_session(model, threads=threads)
        self.inputs = [value.name for value in self.session.get_inputs()]
        self.outputs = [value.name for value in self.session.get_outputs()]
        self.bindings = [self.session.io_binding() for _ in range(2)]

    def bind(self, side: int, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Bind what is there among the inputs and outputs of the graph."""
        for name in self.inputs:
            if name in inputs:
                self.bindings[side].bind_ortvalue_input(name, inputs[name])
        for name in self.outputs:
            if name in outputs:
                self.bindings[side].bind_ortvalue_output(name, outputs[name])

    def run(self, side: int, feeds: Feeds) -> None:
        """Run with these inputs besides the bound ones; raises CannotRun."""
        binding = self.bindings[side]
        held = []
        try:
            for name, value in feeds.items():
                held.append(np.ascontiguousarray(value).reshape(np.shape(value)))
                binding.bind_cpu_input(name, held[-1])
            self.session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime raises many unrelated types
            raise CannotRun(f"a training step fails in onnxruntime: {cause(error)}") from error


class _Fused:
    """One graph from data to new parameters."""

    def __init__(self, graphs: StepGraphs, values: _Buffers, masks: _Fixed, threads: int) -> None:
        self._values = values
        self._session = _Session(fused_graph(graphs).SerializeToString(), threads)
        self._loss = _ort_value(np.zeros((), np.float32))
        for side in range(2):
            new = {updated_name(name): v for name, v in values.buffers[1 - side].items()}
            inputs = {**values.buffers[side], **masks.values}
            self._session.bind(side, inputs, {**new, graphs.loss.loss: self._loss})
        bound = {*values.buffers[0], *masks.values, LEARNING_RATE, STEP}
        self.inputs = frozenset(self._session.inputs) - bound

    def step(self, parts: Sequence[Feeds], scalars: Feeds) -> float:
        (feeds,) = parts
        present = {name: value for name, value in scalars.items() if name in self._session.inputs}
        self._session.run(self._values.side, {**feeds, **present})
        return float(self._loss.numpy())

    def close(self) -> None:
        del self._session


class _Accumulated:
    """A graph that adds up gradients, run for every part of a batch, and the update."""

    def __init__(self, graphs: StepGraphs, values: _Buffers, masks: _Fixed, threads: int) -> None:
        self._graphs, self._values = graphs, values
        self._sums = _Buffers(
            {
                **{total_name(name): graphs.initial[name] for name in graphs.parameters},
                **{item.name: graphs.initial[item.name] for item in graphs.statistics},
            }
        )
        self._gradients = _Session(accumulating_graph(graphs).SerializeToString(), threads)
        self._update = _Session(graphs.optimizer.SerializeToString(), threads)
        self._loss = _ort_value(np.zeros((), np.float32))
        self._masks = masks
        bound = {*values.buffers[0], *self._sums.buffers[0], *masks.values, SCALE}
        self.inputs = frozenset(self._gradients.inputs) - bound

    def step(self, parts: Sequence[Feeds], scalars: Feeds) -> float:
        side = self._values.side
        statistics = [item.name for item in self._graphs.statistics]
        self._sums.set({name: np.zeros_like(array) for name, array in self._sums.all().items()})
        self._sums.set({name: self._values.get(name) for name in statistics})
        loss = 0.0
        for part in parts:
            loss += self._add(part, 1 / len(parts)) / len(parts)
        sums = self._sums.buffers[self._sums.side]
        gradients = {
            gradient_name(name): sums[total_name(name)] for name in self._graphs.parameters
        }
        inputs = {**self._values.buffers[side], **self._masks.values, **gradients}
        new = {updated_name(name): v for name, v in self._values.buffers[1 - side].items()}
        self._update.bind(side, inputs, new)
        present = {name: value for name, value in scalars.items() if name in self._update.inputs}
        self._update.run(side, present)
        for name in statistics:
            self._values.buffers[1 - side][name].update_inplace(sums[name].numpy())
        return loss

    def _add(self, part: Feeds, share: float) -> float:
        side, values = self._sums.side, self._values
        # Sums over the parts so far, and statistics as the part before left them.
        now = {**values.buffers[values.side], **self._masks.values}
        inputs = {**now, **self._sums.buffers[side]}
        new = {updated_name(name): v for name, v in self._sums.buffers[1 - side].items()}
        outputs = {**new, self._graphs.loss.loss: self._loss}
        self._gradients.bind(side, inputs, outputs)
        self._gradients.run(side, {**part, SCALE: np.array(share, np.float32)})
        self._sums.flip()
        return float(self._loss.numpy())

    def close(self) -> None:
        del self._gradients, self._update
