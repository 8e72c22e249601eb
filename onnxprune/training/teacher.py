"""Outputs of the unpruned model, which distillation trains towards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, helper

from ..errors import ModelError
from ..runtime import open_session, run
from .upgrading.older_opset import declare_older

__all__ = ["Teacher"]


class Teacher:
    """Runs the unpruned model's forward graph.

    Args:
        inference: The forward graph with the unpruned weights (`Forward.inference`).
        values: The values to give.
        fixed_batch: The batch size that the graph insists on, None where any does.
    """

    def __init__(
        self, inference: ModelProto, values: Sequence[str], fixed_batch: int | None
    ) -> None:
        graph = ModelProto()
        graph.CopyFrom(inference)
        del graph.graph.output[:]
        graph.graph.output.extend(map(helper.make_empty_tensor_value_info, values))
        declare_older(graph)
        self._session = open_session(graph.SerializeToString())
        self._names = [info.name for info in self._session.get_inputs()]
        self._part = fixed_batch

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The teacher's values for a batch, as float32.

        Raises:
            CannotRun: onnxruntime does not run the model.
            ModelError: A value is one number for a batch whose size the model fixes.
        """
        inputs = {name: feeds[name] for name in self._names}
        if self._part is None:
            return [np.asarray(value, np.float32) for value in run(self._session, inputs)]
        count = len(next(iter(inputs.values())))
        parts = [
            run(self._session, {n: x[at : at + self._part] for n, x in inputs.items()})
            for at in range(0, count, self._part)
        ]
        if any(np.ndim(value) == 0 for value in parts[0]):
            raise ModelError(
                f"the model gives one number for its fixed batch of {self._part}, which tells"
                " nothing of single samples to train towards; give labels for another output"
            )
        return [
            np.concatenate(values).astype(np.float32, copy=False)
            for values in zip(*parts, strict=True)
        ]
