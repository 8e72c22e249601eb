"""The four files of training: three graphs of standard operators, and the first weights."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from ..errors import DataError, OutputError
from ..graph.layers import find_layers
from ..model.sources import read
from .graphs import StepGraphs, build_graphs
from .loss.append import Labels, LossConfig, LossFunction, LossName, LossValues
from .parameters import Parameter, Selection
from .preparation import BatchNormalizationMode, Statistic, prepare
from .tensor_file import read_tensors, write_file, write_tensors
from .update.optimizers import Optimizer

__all__ = ["generate_artifacts", "load_artifacts", "save_artifacts"]

GRAPHS = {
    "training": "training_model.onnx",
    "evaluation": "eval_model.onnx",
    "optimizer": "optimizer_model.onnx",
}
CHECKPOINT = "checkpoint.safetensors"


def generate_artifacts(
    model: object,
    directory: str | os.PathLike[str],
    *,
    loss: LossName | LossFunction | LossConfig = "auto",
    labels: Labels | np.ndarray | None = None,
    optimizer: Optimizer | str = "adamw",
    train_layers: Sequence[str] = (),
    hold_zeros: bool = True,
    clip_norm: float | None = None,
    bn: BatchNormalizationMode = "frozen",
    overwrite: bool = False,
) -> StepGraphs:
    """Write the training artifacts of a model: any onnxruntime runs them.

    ``training_model.onnx`` computes loss and gradients, ``eval_model.onnx`` loss, number of right
    answers and the model's outputs, ``optimizer_model.onnx`` the new weights;
    ``checkpoint.safetensors`` holds the weights and the names of everything.

    Args:
        model: Whatever `onnxprune.prune` takes.
        directory: Folder of the four files; made where it is missing.
        loss: Name of a loss, its full configuration, or a function that builds one.
        labels: What labels are: a `Labels`, or an array of some; class numbers where left out.
        optimizer: Name of an optimizer, or its full configuration.
        train_layers: Patterns of what to train; empty for all that can be.
        hold_zeros: Whether weights of layers that are zero now stay zero.
        clip_norm: Largest norm of all gradients together.
        bn: Whether BatchNormalization keeps its statistics or updates them.
        overwrite: Replace files that exist.

    Raises:
        OnnxPruneError: The model cannot be trained, or the files cannot be written.
    """
    folder = Path(directory)
    source = read(model)
    forward = prepare(source, bn=bn)
    layers = {layer.address for layer in find_layers(source, embeddings=True).layers}
    held = [name for name, place in forward.addresses.items() if hold_zeros and place in layers]
    config = loss if isinstance(loss, LossConfig) else LossConfig(name=loss)
    chosen = optimizer if isinstance(optimizer, Optimizer) else Optimizer(name=optimizer)  # type: ignore[arg-type]
    graphs = build_graphs(
        forward,
        loss=config,
        labels=_labels(labels),
        optimizer=chosen,
        clip_norm=clip_norm,
        train_layers=train_layers,
        masked=held,
    )
    save_artifacts(graphs, folder, overwrite=overwrite)
    return graphs


def _labels(given: Labels | np.ndarray | None) -> Labels:
    if given is None:
        return Labels(np.dtype(np.int64), ())
    if isinstance(given, Labels):
        return given
    array = np.asarray(given)
    return Labels(array.dtype, array.shape[1:])


def save_artifacts(graphs: StepGraphs, folder: Path, *, overwrite: bool = False) -> None:
    """Write the four files; raises OutputError where that is impossible or one exists."""
    old = [name for name in (*GRAPHS.values(), CHECKPOINT) if (folder / name).exists()]
    if old and not overwrite:
        raise OutputError(f"'{folder / old[0]}' exists; pass overwrite=True to replace it")
    facts = {
        "loss": dataclasses.asdict(graphs.loss),
        "trained": [dataclasses.asdict(item) for item in graphs.selection.trained],
        "frozen": dict(graphs.selection.frozen),
        "statistics": [dataclasses.asdict(item) for item in graphs.statistics],
        "masked": list(graphs.masked),
        "states": list(graphs.states),
        "fixed_batch": graphs.fixed_batch,
        "spliced": list(graphs.spliced),
    }
    write_tensors(folder / CHECKPOINT, graphs.initial, facts)
    for field, name in GRAPHS.items():
        write_file(folder / name, getattr(graphs, field).SerializeToString())


def load_artifacts(directory: str | os.PathLike[str]) -> StepGraphs:
    """The graphs and weights that `generate_artifacts` wrote; raises DataError."""
    folder = Path(directory)
    initial, facts = read_tensors(folder / CHECKPOINT)
    limits = facts["loss"]["label_range"]
    facts["loss"]["label_range"] = None if limits is None else tuple(limits)
    graphs = {}
    for field, name in GRAPHS.items():
        try:
            graphs[field] = onnx.load(folder / name)
        except Exception as error:  # onnx raises what protobuf and the file system do
            raise DataError(
                f"cannot read '{folder / name}' ({error}); generate the artifacts again"
            ) from None
    trained = tuple(Parameter(**item) for item in facts["trained"])
    return StepGraphs(
        **graphs,
        loss=LossValues(**facts["loss"]),
        selection=Selection(trained, facts["frozen"]),
        statistics=tuple(Statistic(**item) for item in facts["statistics"]),
        masked=tuple(facts["masked"]),
        states=tuple(facts["states"]),
        fixed_batch=facts["fixed_batch"],
        spliced=tuple(facts["spliced"]),
        initial=initial,
    )
