"""Generating the files that onnxruntime-training's Module and Optimizer load."""

from __future__ import annotations

import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, TensorProto, helper

__all__ = ["IR_VERSION", "checkpoint_path", "generate", "optimizer_path", "training_path"]

#: Newest file format that onnxruntime 1.19 reads; its tools write that of the onnx package.
IR_VERSION = 10


def training_path(directory: Path) -> Path:
    """File of the graph of one step without the update."""
    return directory / "training_model.onnx"


def optimizer_path(directory: Path) -> Path:
    """File of the update's graph."""
    return directory / "optimizer_model.onnx"


def checkpoint_path(directory: Path) -> Path:
    """File of the weights to start from."""
    return directory / "checkpoint"


def without_torch() -> None:
    """Make `onnxruntime.training` importable where PyTorch is not installed.

    Its package imports `onnxruntime.training.optim`, wrappers around PyTorch's optimizers that
    are not needed here, and fails without PyTorch.
    """
    name = "onnxruntime.training.optim"
    sys.modules.setdefault(name, types.ModuleType(name))


def generate(
    model: ModelProto, trainable: Sequence[str], optimizer: Mapping[str, Any], directory: Path
) -> None:
    """Write training_model.onnx, eval_model.onnx, optimizer_model.onnx and checkpoint.

    Args:
        model: Opset 21 or older; its first output is the loss.
        trainable: Initializers to train; the others stay constants of the graph.
        optimizer: `name` (adamw or sgd), `betas`, `epsilon`, `clip_norm` (None: no clipping).
        directory: Where to write.
    """
    without_torch()
    from onnxruntime.training import artifacts

    # artifacts writes this into the files.
    setattr(onnx, "IR_VERSION", IR_VERSION)  # noqa: B010 -- declared as an enumeration
    artifacts.generate_artifacts(
        model, requires_grad=list(trainable), frozen_params=[], artifact_directory=str(directory)
    )
    onnx.save(optimizer_model(optimizer), str(optimizer_path(directory)))


def optimizer_model(optimizer: Mapping[str, Any]) -> ModelProto:
    """The update's graph, as onnxruntime.training.onnxblock.optim builds it.

    Built here for `adam_mode` 0, PyTorch's AdamW (epsilon beside the corrected root); the package
    has only mode 1, where epsilon is added before the bias is corrected. Weight decay is not in
    the graph, because the operator decays all weights or none.
    """
    nodes = []
    gradients = "gradients"
    if optimizer["clip_norm"] is not None:
        gradients = "clipped"
        nodes.append(
            helper.make_node(
                "InplaceClipGradNorm",
                ["gradients"],
                [gradients],
                domain="com.microsoft",
                max_norm=float(optimizer["clip_norm"]),
            )
        )
    adam = optimizer["name"] == "adamw"
    inputs = ["learning_rate", "step", "params", "gradients", "first_order_moments"]
    if adam:
        inputs.append("second_order_moments")
        nodes.append(_adamw(optimizer, gradients))
    else:
        nodes.append(
            helper.make_node(
                "SGDOptimizerV2",
                ["learning_rate", "params", gradients],
                ["updated"],
                domain="com.microsoft",
            )
        )
    infos = [
        helper.make_tensor_value_info("learning_rate", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("step", TensorProto.INT64, [1]),
        *(
            helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None)
            for name in inputs[2:]
        ),
    ]
    updated = helper.make_tensor_value_info("updated", TensorProto.BOOL, [1])
    opsets = [helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("", 21)]
    graph = helper.make_graph(nodes, "optimizer", infos, [updated])
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _adamw(optimizer: Mapping[str, Any], gradients: str) -> onnx.NodeProto:
    first, second = optimizer["betas"]
    return helper.make_node(
        "AdamWOptimizer",
        [
            "learning_rate",
            "step",
            "params",
            gradients,
            "first_order_moments",
            "second_order_moments",
        ],
        ["updated"],
        domain="com.microsoft",
        alpha=float(first),
        beta=float(second),
        epsilon=float(optimizer["epsilon"]),
        weight_decay=0.0,
        correct_bias=1,
        adam_mode=0,
    )
