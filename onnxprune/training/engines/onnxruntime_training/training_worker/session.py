"""Training steps with onnxruntime-training's Module, Optimizer and CheckpointState."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from .artifacts import checkpoint_path, generate, optimizer_path, training_path, without_torch

__all__ = ["Session", "Settings"]


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        trainable: Names of the initializers to train.
        decays: Those that `l2` acts on.
        optimizer: `name`, `betas`, `epsilon`, `l2`, `clip_norm`.
        threads: Threads within an operator; 0 lets onnxruntime choose.
    """

    trainable: Sequence[str]
    decays: Sequence[str]
    optimizer: Mapping[str, Any]
    threads: int


class Session:
    """A model in training.

    Args:
        model: Opset 21 or older; its first output is the loss.
        masks: Arrays of 0 and 1 in the shapes of weights: where 0, the weight is not trained.
        directory: An empty folder for the generated files.
    """

    def __init__(
        self,
        model: ModelProto,
        settings: Settings,
        masks: Mapping[str, np.ndarray],
        directory: Path,
    ) -> None:
        self._settings = settings
        self._directory = directory
        # float32, so that multiplying in place converts nothing.
        self._masks = {name: mask.astype(np.float32) for name, mask in masks.items()}
        self._shapes: dict[str, tuple[int, ...]] = {}
        generate(model, settings.trainable, settings.optimizer, directory)
        self._load(checkpoint_path(directory))

    def step(self, feeds: Mapping[str, np.ndarray], rate: float) -> float:
        """One step: gradients, masks, weight decay, update; the loss before the update.

        The masks act on the gradients, which are live views of onnxruntime's buffers. So Adam's
        moments stay 0 where a weight is 0, and the norm for clipping leaves those out; masking
        the weights after the update would keep them at 0 too, but not the moments.
        """
        loss = self._module(*(feeds[name] for name in self._inputs))
        parameters = self._state.parameters
        for name, mask in self._masks.items():
            gradient = parameters[name].grad
            np.multiply(gradient, mask, out=gradient)
        decay = np.float32(1 - rate * self._settings.optimizer["l2"])
        if decay != 1:
            for name in self._settings.decays:
                np.multiply(self._weights[name], decay, out=self._weights[name])
        self._optimizer.set_learning_rate(rate)
        self._optimizer.step()
        self._module.lazy_reset_grad()
        return float(loss)

    def parameters(self) -> dict[str, np.ndarray]:
        """The trained weights by name."""
        return dict(self._weights)

    def state(self) -> np.ndarray:
        """The bytes of a checkpoint: weights, optimizer states and step."""
        from onnxruntime.training.api import CheckpointState

        path = self._directory / "state"
        CheckpointState.save_checkpoint(self._state, str(path), include_optimizer_state=True)
        return np.fromfile(path, np.uint8)

    def restore(self, state: np.ndarray) -> None:
        """Go on from what `state` returned."""
        path = self._directory / "restored"
        path.write_bytes(state.tobytes())
        self._load(path)

    def _load(self, checkpoint: Path) -> None:
        without_torch()
        from onnxruntime import SessionOptions
        from onnxruntime.training.api import CheckpointState, Module, Optimizer

        options = SessionOptions()
        options.intra_op_num_threads = self._settings.threads
        state = CheckpointState.load_checkpoint(str(checkpoint))
        # Views of onnxruntime's own buffers, which stay where they are.
        weights = {name: parameter.data for name, parameter in state.parameters}
        shapes = {name: array.shape for name, array in weights.items()}
        if shapes != self._shapes and self._shapes:
            raise ValueError("the checkpoint is of another model")
        self._state, self._weights, self._shapes = state, weights, shapes
        self._module = Module(
            str(training_path(self._directory)), self._state, session_options=options
        )
        self._optimizer = Optimizer(str(optimizer_path(self._directory)), self._module)
        self._inputs = self._module.input_names()
