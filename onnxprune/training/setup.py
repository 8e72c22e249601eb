"""Everything that one round of training needs, made from the pruned model and the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import helper

from ..data.labels import samples_of
from ..data.source import BatchSource
from ..errors import DataError, UsageError
from ..finetune import FineTune
from ..model.model import Model
from ..model.tensors import TensorAddress
from .engine import Engine
from .graphs import StepGraphs, build_graphs, with_loss
from .loss.append import Labels, LossConfig, LossValues
from .masked_use import with_masked_use
from .preparation import Forward, prepare
from .teacher import Teacher
from .trainer import Trainer
from .update.optimizers import Optimizer
from .values import FLOATS

__all__ = ["RoundSetup", "Teaching", "set_up"]

Batch = dict[str, np.ndarray]


@dataclass
class Teaching:
    """What all rounds learn from: the data, and the unpruned model where they distil it.

    `classification`: validation data says that the first output holds class scores, which an
    output without softmax does not say itself.
    """

    source: Model
    data: BatchSource
    settings: FineTune
    classification: bool = False
    _teacher: Teacher | None = field(default=None, repr=False)

    def teacher(self, values: Sequence[str]) -> Teacher:
        """The unpruned model, giving values of its forward graph."""
        if self._teacher is None:
            forward = prepare(self.source)
            self._teacher = Teacher(forward.inference, values, forward.fixed_batch)
        return self._teacher

    @property
    def labels(self) -> Labels | None:
        """What the labels are; None without."""
        facts = self.data.labels
        return None if facts is None else Labels(facts.dtype, facts.shape)

    @property
    def loss(self) -> LossConfig:
        """The loss that the settings ask for; data without labels is distilled."""
        settings, share = self.settings, self.settings.distill_weight
        distilling = settings.distill or self.labels is None
        if settings.temperature != FineTune.temperature and not distilling:
            raise UsageError(
                "temperature divides class scores when distilling: ask for distill too, or leave "
                "it out"
            )
        # A share of 0 beside labels is no distillation, and needs no teacher.
        none = share == 0 and self.labels is not None
        name = settings.loss
        if name == "auto" and self.labels is None and self.classification:
            name = "cross-entropy"
        return LossConfig(
            name=name,
            class_weights=settings.class_weights,
            label_smoothing=settings.label_smoothing,
            distill=not none and distilling,
            distill_weight=None if none else share,
            temperature=settings.temperature,
        )


@dataclass(frozen=True)
class RoundSetup:
    """A round that is ready to run.

    Attributes:
        engine: Computes its steps.
        graphs: What it computes.
        forward: The prepared model.
        complete: Turns a batch into the engine's feeds.
    """

    engine: Engine
    graphs: StepGraphs
    forward: Forward
    complete: Callable[[Batch], Mapping[str, np.ndarray]]


def set_up(
    model: Model,
    layers: Iterable[TensorAddress],
    teaching: Teaching,
    *,
    number: int = 1,
    revised: Iterable[TensorAddress] = (),
) -> RoundSetup:
    """Build graphs and engine for a pruned model.

    Args:
        model: The pruned model.
        layers: The tensors whose zeros are held.
        teaching: Data and settings.
        number: The round, 1 for the first: its dropout differs from that of others.
        revised: Those of them whose masks may change while they are trained. With splicing,
            weights beneath a mask are trained too.

    Raises:
        ModelError: The model cannot be trained.
        UsageError: A setting does not fit the model, the labels or the engine.
        DataError: A label is no class of the model.
    """
    settings = teaching.settings
    forward = prepare(model, bn=settings.bn)
    _check_batch(forward, teaching)
    held, free = set(layers), frozenset(revised)
    holding = held - free if settings.method == "splicing" else held
    graphs = build_graphs(
        forward,
        loss=teaching.loss,
        labels=teaching.labels,
        optimizer=optimizer_of(settings),
        clip_norm=settings.clip_norm,
        train_layers=settings.train_layers,
        masked=[name for name, address in forward.addresses.items() if address in holding],
    )
    if free:
        graphs = with_masked_use(
            graphs, [name for name in graphs.parameters if forward.addresses[name] in free]
        )
    if graphs.loss.classes is not None and graphs.loss.label_input is not None:
        teaching.data.require_classes(graphs.loss.classes)
    engine = _ENGINES[settings.engine](graphs, forward, teaching, number)
    teacher = None
    if graphs.loss.teachers:
        teacher = teaching.teacher(tuple(graphs.loss.teachers.values()))
    complete = _completion(graphs, forward, teacher, teaching.data.name)
    return RoundSetup(engine, graphs, forward, complete)


def optimizer_of(settings: FineTune) -> Optimizer:
    """The optimizer that the settings ask for."""
    return Optimizer(
        name=settings.optimizer,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        l2=settings.l2,
    )


def _check_batch(forward: Forward, teaching: Teaching) -> None:
    part, settings, samples = forward.fixed_batch, teaching.settings, teaching.data.samples
    if part is None:
        return
    # Streams have batches of their own size.
    if samples is not None and settings.batch_size % part:
        raise UsageError(
            f"the model takes batches of {part} and --batch-size is {settings.batch_size}; make "
            f"it a multiple of {part}"
        )
    if samples is not None and samples % part:
        raise _no_multiple(part)
    if settings.class_weights is not None:
        raise UsageError(
            f"--class-weights count within a whole batch and the model takes batches of {part} "
            "only; export it with a free batch axis, or leave them out"
        )


def _no_multiple(part: int) -> DataError:
    return DataError(
        f"the model takes batches of {part}, which the last batch of an epoch is no multiple of; "
        f"give a number of samples that {part} divides"
    )


def _completion(
    graphs: StepGraphs, forward: Forward, teacher: Teacher | None, name: str
) -> Callable[[Batch], Mapping[str, np.ndarray]]:
    """Floats get the types of the graph, the teacher's output is added; `name`: of the data."""
    part = forward.fixed_batch
    types = {
        info.name: helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        for info in graphs.training.graph.input
        if info.type.tensor_type.elem_type in FLOATS
    }

    def complete(batch: Batch) -> Mapping[str, np.ndarray]:
        if part is not None and samples_of(batch) % part:
            raise _no_multiple(part)
        feeds = {
            key: array.astype(types[key], copy=False) if key in types else array
            for key, array in batch.items()
        }
        _check_range(graphs.loss, feeds, name)
        if teacher is not None:
            feeds.update(zip(graphs.loss.teachers, teacher(feeds), strict=True))
        return feeds

    return complete


def _check_range(loss: LossValues, feeds: Mapping[str, np.ndarray], name: str) -> None:
    """Refuse targets out of range; of classes the data itself takes care."""
    if loss.label_range is None or loss.label_input is None or loss.classes is not None:
        return
    labels, (low, high) = feeds[loss.label_input], loss.label_range
    if labels.size and not low <= labels.min() <= labels.max() <= high:
        raise DataError(
            f"{name} has labels from {labels.min():g} to {labels.max():g} and the loss is "
            f"{loss.description}; give labels from {low:g} to {high:g}, or choose --loss mse"
        )


def _own(graphs: StepGraphs, forward: Forward, teaching: Teaching, number: int) -> Engine:
    seed = teaching.settings.seed * 1000 + number
    return Trainer(graphs, seed=seed)


def _microsoft(graphs: StepGraphs, forward: Forward, teaching: Teaching, number: int) -> Engine:
    from .engines.onnxruntime_training import OnnxruntimeTraining

    settings = teaching.settings
    if settings.bn == "train":
        raise UsageError(
            "the engine onnxruntime-training does not update statistics of BatchNormalization; "
            "leave out --bn train or --engine"
        )
    if forward.fixed_batch not in (None, settings.batch_size):
        raise UsageError(
            f"the model takes batches of {forward.fixed_batch}, which the engine "
            "onnxruntime-training cannot add up; make that the --batch-size, or leave out --engine"
        )
    proto, values = with_loss(forward, teaching.loss, teaching.labels)
    arrays = {name: graphs.initial[name] != 0 for name in graphs.masked}
    return OnnxruntimeTraining.start(
        proto,
        loss=values.loss,
        trainable=graphs.parameters,
        masks={name: array.astype(np.float32) for name, array in arrays.items()},
        optimizer=optimizer_of(settings),
        seed=settings.seed * 1000 + number,
        clip_norm=settings.clip_norm,
        decays=[item.name for item in graphs.selection.trained if item.decays],
    )


_ENGINES: Mapping[str, Callable[[StepGraphs, Forward, Teaching, int], Engine]] = {
    "onnxprune": _own,
    "onnxruntime-training": _microsoft,
}
