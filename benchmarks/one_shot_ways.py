"""Ways to prune without retraining: ours, and those that onnxsim offers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

import onnxprune

__all__ = ["OURS", "PEERS", "WAYS", "Way"]

#: Samples of a batch that peers are given, where the model leaves that open.
BATCH = 64
OURS = "onnxprune"

Arrays = dict[str, np.ndarray]
#: A pruned model from a model's file, calibration inputs and a share of zeros.
Way = Callable[[Path, Arrays, float], onnx.ModelProto]


def _ours(path: Path, calibration: Arrays, sparsity: float) -> onnx.ModelProto:
    """What ``--sparsity S --calibrate D`` does, with no other flag."""
    return onnxprune.prune(path, sparsity=sparsity, calibrate=calibration).to_proto()


def _peer(method: str, *, calibrated: bool = True, **options: bool) -> Way:
    def prune(path: Path, calibration: Arrays, sparsity: float) -> onnx.ModelProto:
        import onnxsim

        model = _plain(onnx.load(path))
        given = [_batches(model, calibration)] if calibrated else []
        function = getattr(onnxsim, f"apply_{method}_pruning")
        pruned: onnx.ModelProto = function(model, *given, sparsity=sparsity, **options)
        return pruned

    return prune


def _plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without inputs that initializers have values for (IR version 3).

    onnxsim leaves such weights alone, and wants calibration inputs for them.
    """
    known = {tensor.name for tensor in model.graph.initializer}
    fed = [info for info in model.graph.input if info.name not in known]
    if len(fed) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(fed)
        model.ir_version = max(model.ir_version, 4)
    return model


def _batches(model: onnx.ModelProto, calibration: Arrays) -> list[Arrays]:
    """Inputs as the model takes them: it may want them one by one."""
    fed = next(info for info in model.graph.input if info.name in calibration)
    size = fed.type.tensor_type.shape.dim[0].dim_value or BATCH
    count = len(calibration[fed.name])
    return [
        {name: array[start : start + size] for name, array in calibration.items()}
        for start in range(0, count - count % size if size > 1 else count, size)
    ]


PEERS: dict[str, Way] = {
    "magnitude": _peer("magnitude", calibrated=False),
    "global magnitude": _peer("magnitude", calibrated=False, global_sparsity=True),
    "Wanda": _peer("wanda"),
    "global Wanda": _peer("wanda", global_sparsity=True),
    "SparseGPT": _peer("sparsegpt"),
}
WAYS: dict[str, Way] = {OURS: _ours, **PEERS}
