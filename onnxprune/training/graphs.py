"""The graphs of training: gradients, evaluation, update, and the fused step made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from ..errors import ModelError
from .backward import backward
from .builder import TRAINING_OPSET, GraphBuilder
from .graph_edits import copied, expose, rename
from .loss.append import Labels, LossConfig, LossValues, append_loss
from .parameters import Parameter, Selection, select_parameters
from .preparation import IR_VERSION, SEED_INPUT, Forward, Statistic
from .update.clipping import append_clipping
from .update.optimizers import Optimizer, Slot, append_updates, mask_gradients, state_names
from .upgrading.older_opset import declare_older

__all__ = [
    "LEARNING_RATE",
    "SCALE",
    "STEP",
    "StepGraphs",
    "accumulating_graph",
    "build_graphs",
    "fused_graph",
    "gradient_name",
    "mask_name",
    "state_name",
    "total_name",
    "updated_name",
    "with_loss",
]

#: Graph inputs of the update.
LEARNING_RATE = "onnxprune.learning_rate"
STEP = "onnxprune.step"
SCALE = "onnxprune.scale"


def gradient_name(parameter: str) -> str:
    """Output of the training graph, input of the update."""
    return f"{parameter}.gradient"


def mask_name(parameter: str) -> str:
    """Input of the update: 1 where a weight is alive, 0 where it was pruned."""
    return f"{parameter}.mask"


def state_name(parameter: str, state: str) -> str:
    """Input of the update: a moment of the optimizer."""
    return f"{parameter}.{state}"


def total_name(parameter: str) -> str:
    """Input of the accumulating graph: the sum of gradients so far."""
    return f"{parameter}.accumulated"


def updated_name(name: str) -> str:
    """Output of the update: the new value of a parameter, state or statistic."""
    return f"{name}.updated"


@dataclass(frozen=True)
class StepGraphs:
    """What one training step consists of.

    Attributes:
        training: Data, labels and parameters in; loss and gradients out.
        evaluation: Data, labels and parameters in; loss, number of right answers (of
            classifications) and the model's outputs out.
        optimizer: Parameters, gradients, masks, states, learning rate and step in; new parameters
            and states out.
        loss: Names and description of the loss.
        selection: What is trained, and why the rest is not.
        statistics: Running statistics of BatchNormalization that training updates.
        masked: Parameters that have masks.
        states: Names of the optimizer's states of each parameter, such as ("momentum1",).
        initial: Values of parameters and statistics.
        fixed_batch: The batch size that the graphs insist on; None where any does.
        spliced: Parameters that the model sees times their masks, which may change.
    """

    training: ModelProto
    evaluation: ModelProto
    optimizer: ModelProto
    loss: LossValues
    selection: Selection
    statistics: tuple[Statistic, ...]
    masked: tuple[str, ...]
    states: tuple[str, ...]
    initial: Mapping[str, np.ndarray]
    fixed_batch: int | None = None
    spliced: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the trained parameters."""
        return tuple(parameter.name for parameter in self.selection.trained)


def build_graphs(
    forward: Forward,
    *,
    loss: LossConfig,
    labels: Labels | None,
    optimizer: Optimizer,
    clip_norm: float | None = None,
    train_layers: Sequence[str] = (),
    masked: Iterable[str] = (),
) -> StepGraphs:
    """Append loss, gradients and update to a forward graph.

    Args:
        forward: The prepared model; its graphs stay as they are.
        loss: The loss.
        labels: What the labels are; None without.
        optimizer: The optimizer.
        clip_norm: Largest norm of all gradients together; None for any.
        train_layers: Patterns of what to train; empty for all that can be.
        masked: Parameters whose pruned weights are held at zero.

    Raises:
        ModelError: No gradient reaches a parameter through some operator, or none is there.
        UsageError: A pattern matches nothing, or the loss does not fit output and labels.
    """
    training = copied(forward.proto)
    b = GraphBuilder(training)
    values = append_loss(b, loss, labels)
    names = {name: str(address) for name, address in forward.addresses.items()}
    selection = select_parameters(b, values.loss, list(forward.addresses), train_layers, names)
    gradients = backward(b, values.loss, [parameter.name for parameter in selection.trained])
    selection = _with_gradient(selection, gradients)
    chosen = [parameter.name for parameter in selection.trained]
    states = [statistic.name for statistic in forward.statistics]
    initial = {
        tensor.name: np.array(numpy_helper.to_array(tensor))
        for tensor in training.graph.initializer
        if tensor.name in {*chosen, *states}
    }
    gradients = _distinct(b, {name: gradients[name] for name in chosen})
    rename(training, {value: gradient_name(name) for name, value in gradients.items()})
    sizes = {name: array.shape for name, array in initial.items()}
    outputs = {
        values.loss: (),
        **{statistic.updated: sizes[statistic.name] for statistic in forward.statistics},
        **{gradient_name(name): sizes[name] for name in chosen},
    }
    expose(training, outputs, initial)
    evaluation, scored = _evaluation(forward, loss, labels, initial)
    held = tuple(name for name in masked if name in chosen)
    _refuse_taken(forward.inference, chosen, state_names(optimizer))
    update = _optimizer(selection.trained, initial, optimizer, clip_norm, held)
    for proto in (training, evaluation, update):
        declare_older(proto)
    return StepGraphs(
        training,
        evaluation,
        update,
        replace(values, correct=scored.correct),
        selection,
        forward.statistics,
        held,
        state_names(optimizer),
        initial,
        forward.fixed_batch,
    )


def _distinct(b: GraphBuilder, gradients: Mapping[str, str]) -> dict[str, str]:
    """Every gradient as the output of a node of its own, to be renamed."""
    made = {name for node in b.graph.node for name in node.output}
    found: dict[str, str] = {}
    for name, value in gradients.items():
        shared = value not in made or value in found.values()
        found[name] = b.op("Identity", value) if shared else value
    return found


def _with_gradient(selection: Selection, gradients: Mapping[str, str]) -> Selection:
    """Without parameters that turn out not to change the loss."""
    trained = tuple(item for item in selection.trained if item.name in gradients)
    if not trained:
        raise ModelError("nothing can be trained: the loss does not depend on any parameter")
    still = {item.name for item in selection.trained} - {item.name for item in trained}
    frozen = {**selection.frozen, **dict.fromkeys(still, "the loss does not depend on it")}
    return Selection(trained, frozen)


def _evaluation(
    forward: Forward, loss: LossConfig, labels: Labels | None, initial: Mapping[str, np.ndarray]
) -> tuple[ModelProto, LossValues]:
    proto = copied(forward.inference)
    own = [info.name for info in proto.graph.output]
    values = append_loss(GraphBuilder(proto), loss, labels)
    correct = [values.correct] if values.correct is not None else []
    expose(proto, dict.fromkeys([values.loss, *correct], ()), initial, keep=own)
    return proto, values


def _optimizer(
    parameters: Sequence[Parameter],
    initial: Mapping[str, np.ndarray],
    optimizer: Optimizer,
    clip_norm: float | None,
    masked: Sequence[str],
) -> ModelProto:
    """The update: gradients are masked, clipped if asked for, and applied."""
    proto = helper.make_model(
        helper.make_graph([], "optimizer", [], []),
        opset_imports=[helper.make_opsetid("", TRAINING_OPSET)],
        ir_version=IR_VERSION,
    )
    b = GraphBuilder(proto, prefix="onnxprune.update")
    rate = b.input(LEARNING_RATE, TensorProto.FLOAT, [])
    step = b.input(STEP, TensorProto.INT64, [])

    def tensor(name: str, like: str) -> str:
        return b.input(name, TensorProto.FLOAT, initial[like].shape)

    slots = [
        Slot(
            weight=tensor(item.name, item.name),
            gradient=tensor(gradient_name(item.name), item.name),
            states=tuple(
                tensor(state_name(item.name, state), item.name) for state in state_names(optimizer)
            ),
            mask=tensor(mask_name(item.name), item.name) if item.name in masked else None,
            decays=item.decays,
        )
        for item in parameters
    ]
    if clip_norm is not None:
        slots = _clipped(b, slots, clip_norm)
    updated = append_updates(b, optimizer, slots, rate, step)
    renamed: dict[str, str] = {}
    outputs: dict[str, tuple[int, ...]] = {}
    for item, new in zip(parameters, updated, strict=True):
        renamed[new.weight] = updated_name(item.name)
        for state, value in zip(state_names(optimizer), new.states, strict=True):
            renamed[value] = updated_name(state_name(item.name, state))
        outputs.update((renamed[v], initial[item.name].shape) for v in (new.weight, *new.states))
    rename(proto, renamed)
    expose(proto, outputs, {})
    return proto


def _clipped(b: GraphBuilder, slots: Sequence[Slot], clip_norm: float) -> list[Slot]:
    """Slots whose gradients are masked and clipped."""
    masked = mask_gradients(b, slots)
    clipped = append_clipping(b, [slot.gradient for slot in masked], clip_norm)
    return [
        replace(slot, gradient=gradient) for slot, gradient in zip(masked, clipped, strict=True)
    ]


def with_loss(
    forward: Forward, loss: LossConfig, labels: Labels | None
) -> tuple[ModelProto, LossValues]:
    """The forward graph with its loss and nothing else: weights are initializers."""
    proto = copied(forward.proto)
    values = append_loss(GraphBuilder(proto), loss, labels)
    return proto, values


# ---- graphs made of graphs ---------------------------------------------------------------------


def fused_graph(graphs: StepGraphs) -> ModelProto:
    """Training and update in one graph: gradients never leave it."""
    proto = copied(graphs.training)
    graph, update = proto.graph, graphs.optimizer.graph
    inner = {gradient_name(name) for name in graphs.parameters}
    kept = [info for info in graph.output if info.name not in inner]
    del graph.output[:]
    graph.output.extend([*kept, *update.output])
    present = {info.name for info in graph.input} | inner
    graph.input.extend(info for info in update.input if info.name not in present)
    graph.initializer.extend(update.initializer)
    graph.node.extend(update.node)
    return proto


def accumulating_graph(graphs: StepGraphs) -> ModelProto:
    """Training that adds `SCALE` times its gradients to sums which it is given."""
    proto = copied(graphs.training)
    graph = proto.graph
    statistics = {statistic.updated for statistic in graphs.statistics}
    outputs = [info for info in graph.output if info.name in {graphs.loss.loss, *statistics}]
    del graph.output[:]
    graph.output.extend(outputs)
    graph.input.append(helper.make_tensor_value_info(SCALE, TensorProto.FLOAT, []))
    for name in graphs.parameters:
        shape = graphs.initial[name].shape
        total, gradient = total_name(name), gradient_name(name)
        scaled = f"{gradient}.scaled"
        graph.node.append(helper.make_node("Mul", [gradient, SCALE], [scaled]))
        graph.node.append(helper.make_node("Add", [total, scaled], [updated_name(total)]))
        graph.input.append(helper.make_tensor_value_info(total, TensorProto.FLOAT, shape))
        graph.output.append(
            helper.make_tensor_value_info(updated_name(total), TensorProto.FLOAT, shape)
        )
    return proto


def _refuse_taken(proto: ModelProto, chosen: Sequence[str], states: Sequence[str]) -> None:
    """Refuse a model with values that have the names of those of training."""
    graph = proto.graph
    taken = {tensor.name for tensor in graph.initializer} | {info.name for info in graph.input}
    taken.update(name for node in graph.node for name in node.output)
    made = {LEARNING_RATE, STEP, SCALE, SEED_INPUT}
    for name in chosen:
        kept = [name, total_name(name), *(state_name(name, state) for state in states)]
        made.update((gradient_name(name), mask_name(name), *kept[1:], *map(updated_name, kept)))
    if clashing := taken.intersection(made):
        raise ModelError(
            f"the model already has a value named '{min(clashing)}', which training needs "
            "for itself; rename it in the model"
        )
