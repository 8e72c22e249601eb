"""The engine that leaves gradients and updates to onnxruntime-training 1.19.2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np
from onnx import ModelProto, numpy_helper

from ....errors import DataError, ModelError
from ...preparation import SEED_INPUT
from .interpreter import find_interpreter
from .lowering import lowered
from .options import OptimizerSettings, worker_settings
from .process import Worker, worker_command
from .training_worker.protocol import MODEL, Message

__all__ = ["OnnxruntimeTraining"]

#: Names of the arrays of a state.
CHECKPOINT = "onnxruntime-training.checkpoint"
STEPS = "onnxprune.steps"
#: Protocol buffers hold no more than this.
_LARGEST_MODEL = (1 << 31) - 1


class OnnxruntimeTraining:
    """Training steps by onnxruntime-training, in a process and a Python of its own.

    Made by `start`. Ends with `close`, at the latest with the process that made it.

    Attributes:
        name: What reports call it.
    """

    name = "onnxruntime-training"

    def __init__(
        self,
        worker: Worker,
        inputs: Sequence[str],
        fixed: Mapping[str, np.ndarray],
        seed: int = 0,
    ) -> None:
        self.steps = 0
        self._seed = seed
        self._worker = worker
        self._inputs = tuple(inputs)
        self._fixed = dict(fixed)

    @classmethod
    def start(
        cls,
        forward: ModelProto,
        *,
        loss: str,
        trainable: Sequence[str],
        masks: Mapping[str, np.ndarray],
        optimizer: OptimizerSettings,
        seed: int,
        clip_norm: float | None = None,
        decays: Sequence[str] | None = None,
        threads: int | None = None,
    ) -> OnnxruntimeTraining:
        """Generate the artifacts and load them.

        Args:
            forward: Opset 23 or newer, float32, without functions, weights as initializers in
                memory, and the loss in the graph. It stays as it is.
            loss: Name of the loss, a scalar.
            trainable: Names of the initializers to train. Those that the loss does not depend
                on stay as they are.
            masks: Arrays of 0 and 1 (or bool) by trainable weight: where 0, the weight is not
                trained, so that a pruned one stays 0.
            optimizer: Sgd has no momentum here.
            seed: Seed of dropout.
            clip_norm: Largest norm of all gradients together; None: no clipping.
            decays: Trainable weights that the optimizer's `l2` acts on; None: all.
            threads: Threads within an operator; None lets onnxruntime choose.

        Raises:
            UsageError: No Python with onnxruntime-training is found, the optimizer has what it
                does not, or the graph has what it cannot train.
            ModelError: onnxruntime-training failed.
        """
        settings = worker_settings(optimizer, clip_norm)
        graph = lowered(forward, loss, trainable)
        trained = graph.trained
        arrays = {MODEL: _serialized(graph.model)}
        arrays.update({name: masks[name] for name in trained if name in masks})
        fields = {
            "trainable": list(trained),
            "decays": [name for name in trained if decays is None or name in decays],
            "optimizer": settings,
            "threads": threads or 0,
        }
        worker = Worker(worker_command(find_interpreter()))
        inputs = [info.name for info in graph.model.graph.input]
        fixed = _values(forward, set(trainable).difference(trained))
        engine = cls(worker, inputs, fixed, seed)
        try:
            worker.ask(Message("start", fields, arrays))
        except BaseException:
            engine.close()
            raise
        return engine

    def step(self, feeds: Mapping[str, np.ndarray], rate: float) -> float:
        """One training step.

        Args:
            feeds: Values of the graph's inputs by name; others are ignored.
            rate: Learning rate.

        Returns:
            The loss of the batch before the update.

        Raises:
            DataError: The batch is empty, or values for an input are missing.
            ModelError: onnxruntime-training failed.
        """
        arrays = self._arrays(feeds)
        answer = self._worker.ask(Message("step", {"rate": float(rate)}, arrays))
        self.steps += 1
        return float(answer.fields["loss"])

    def _arrays(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the graph takes of a batch, and the seed of the step."""
        # The same in every engine, so that they drop the same.
        random = np.random.default_rng([self._seed, self.steps])
        given = {SEED_INPUT: np.array(random.integers(2**31)), **feeds}
        if missing := [name for name in self._inputs if name not in given]:
            raise DataError(f"the batch has no values for the input '{missing[0]}'")
        arrays = {name: np.asarray(given[name]) for name in self._inputs}
        for name, array in arrays.items():
            # onnxruntime would divide by the size and be killed by SIGFPE.
            if not array.size:
                raise DataError(f"the batch is empty: '{name}' has shape {array.shape}")
        return arrays

    def parameters(self) -> dict[str, np.ndarray]:
        """The trainable weights by name, as copies."""
        return {**self._fixed, **self._worker.ask(Message("parameters")).arrays}

    def state(self) -> dict[str, np.ndarray]:
        """All that `restore` needs: the bytes of onnxruntime-training's checkpoint, and the step.

        The checkpoint holds weights and moments; the learning rate comes with every step.
        """
        answer = self._worker.ask(Message("state"))
        return {CHECKPOINT: answer.arrays["checkpoint"], STEPS: np.array(self.steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state of an engine that was started alike.

        Raises:
            ModelError: It is the state of another engine or another model.
        """
        if set(state) != {CHECKPOINT, STEPS}:
            raise ModelError(
                "the checkpoint was not written by the engine onnxruntime-training; "
                "resume with the engine that wrote it, or train without --resume"
            )
        self._worker.ask(Message("restore", arrays={"checkpoint": state[CHECKPOINT]}))
        self.steps = int(state[STEPS])

    def close(self) -> None:
        """End the process; closing twice is harmless."""
        self._worker.close()


def _values(model: ModelProto, names: Set[str]) -> dict[str, np.ndarray]:
    """Values of initializers."""
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name in names
    }


def _serialized(model: ModelProto) -> np.ndarray:
    """The bytes of a model."""
    if model.ByteSize() > _LARGEST_MODEL:
        raise ModelError(
            "the engine onnxruntime-training cannot take models of 2 GiB and more; "
            "use the default engine for this model"
        )
    return np.frombuffer(model.SerializeToString(), np.uint8)
