"""The engines of `training_step`: each makes a function that does one training step.

Every function here imports only what its own interpreter has.
"""

from __future__ import annotations

import json
import sys
import tempfile
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = [
    "CASES",
    "ENGINES",
    "RATE",
    "Case",
    "have_models",
    "prepare_data",
    "prepare_lowered",
    "prepare_models",
]

#: Learning rate of all engines, and weight decay: PyTorch's default.
RATE = 1e-4
DECAY = 0.01

Step = Callable[[], float]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        network: Name of a network of `training_step_models`.
        sample: Shape of one sample.
        batch: Samples of a step.
        frozen: Whether BatchNormalization keeps its statistics.
        note: What the row is called.
    """

    network: str
    sample: tuple[int, ...]
    batch: int
    note: str
    frozen: bool = True


CASES = {
    "mlp-b64": Case("mlp", (784,), 64, "MLP 784-300-100-10, batch 64"),
    "mlp-b256": Case("mlp", (784,), 256, "MLP 784-300-100-10, batch 256"),
    "lenet5": Case("lenet5", (1, 28, 28), 64, "LeNet-5 (20-50-500), batch 64"),
    "resnet8": Case(
        "resnet8", (3, 32, 32), 32, "ResNet-8, batch statistics, batch 32", frozen=False
    ),
    "resnet8-frozen": Case("resnet8", (3, 32, 32), 32, "ResNet-8, frozen statistics, batch 32"),
    "transformer": Case("transformer", (64, 48), 16, "transformer encoder, batch 16"),
}


# ---- files that workers read -------------------------------------------------------------------


def _model(folder: Path, case: Case) -> Path:
    return folder / f"{case.network}.onnx"


def _lowered(folder: Path, name: str) -> Path:
    return folder / f"{name}.lowered.onnx"


def prepare_data(folder: Path) -> None:
    """Write the samples and classes of every case."""
    for name, case in CASES.items():
        random = np.random.default_rng(0)
        x = random.standard_normal((case.batch, *case.sample), dtype=np.float32)
        np.savez(folder / f"{name}.npz", x=x, y=random.integers(0, 10, case.batch))


def _data(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / f"{name}.npz") as arrays:
        return arrays["x"], arrays["y"]


def have_models(folder: Path) -> bool:
    """Whether every network is exported."""
    return all(_model(folder, case).exists() for case in CASES.values())


def prepare_models(folder: Path) -> None:
    """Export every network; for the interpreter that has PyTorch."""
    from training_step_models import export

    for case in CASES.values():
        if not _model(folder, case).exists():
            export(case.network, case.sample, _model(folder, case))


def prepare_lowered(folder: Path) -> None:
    """Write every case, with its loss, in the operators of onnxruntime-training.

    What that engine would compute wrongly leaves the reason instead.
    """
    import onnx

    from onnxprune.errors import OnnxPruneError
    from onnxprune.model.sources import read
    from onnxprune.training import Labels, LossConfig
    from onnxprune.training.engines.onnxruntime_training.lowering import lowered
    from onnxprune.training.graphs import with_loss
    from onnxprune.training.preparation import prepare

    for name, case in CASES.items():
        if not case.frozen:
            continue  # see _with_batch_statistics
        try:
            forward = prepare(read(_model(folder, case)))
            proto, values = with_loss(forward, LossConfig(), Labels(np.dtype(np.int64), ()))
            found = lowered(proto, values.loss, _trained(proto, values.loss, forward.addresses))
        except OnnxPruneError as error:
            (folder / f"{name}.refused").write_text(str(error))
            continue
        onnx.save(found.model, str(_lowered(folder, name)))
        (folder / f"{name}.json").write_text(json.dumps([values.label_input, *found.trained]))


def _trained(proto: ModelProto, loss: str, candidates: Iterable[str]) -> list[str]:
    """What onnxprune's own trainer trains: running statistics stay as they are."""
    from onnxprune.training.builder import GraphBuilder
    from onnxprune.training.parameters import select_parameters

    chosen = select_parameters(GraphBuilder(proto), loss, list(candidates), (), {})
    return [item.name for item in chosen.trained]


def _is_weight(shape: tuple[int, ...]) -> bool:
    """Whether a parameter has a mask: matrices and kernels, not biases and scales."""
    return len(shape) > 1


# ---- engines -----------------------------------------------------------------------------------


def ours(folder: Path, name: str, threads: int) -> Step:
    """onnxprune's own trainer; masks let every weight through, which costs as any others."""
    from onnxprune.model.sources import read
    from onnxprune.training import Labels, LossConfig, Optimizer, Trainer
    from onnxprune.training.graphs import build_graphs
    from onnxprune.training.preparation import prepare

    case, (x, y) = CASES[name], _data(folder, name)
    forward = prepare(read(_model(folder, case)), bn="frozen" if case.frozen else "train")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in forward.proto.graph.initializer}
    graphs = build_graphs(
        forward,
        loss=LossConfig(),
        labels=Labels(np.dtype(np.int64), ()),
        optimizer=Optimizer("adamw", l2=DECAY),
        masked=[item for item in forward.addresses if _is_weight(shapes[item])],
    )
    masks = {item: np.ones_like(graphs.initial[item]) for item in graphs.masked}
    trainer = Trainer(graphs, masks=masks, threads=threads)
    feeds = {"x": x, str(graphs.loss.label_input): y}
    return lambda: trainer.step(feeds, RATE)


def torch_default(folder: Path, name: str, threads: int) -> Step:
    """PyTorch with AdamW as it comes."""
    return _torch(folder, name, threads, fused=False)


def torch_fused(folder: Path, name: str, threads: int) -> Step:
    """PyTorch with AdamW(fused=True)."""
    return _torch(folder, name, threads, fused=True)


def _torch(folder: Path, name: str, threads: int, *, fused: bool) -> Step:
    import torch
    from training_step_models import stepper

    torch.set_num_threads(threads)
    case = CASES[name]
    return stepper(case.network, *_data(folder, name), RATE, frozen=case.frozen, fused=fused)


def onnxruntime_training(folder: Path, name: str, threads: int) -> Step:
    """onnxruntime-training's Module and Optimizer, gradients masked between them."""
    import onnx

    if (folder / f"{name}.refused").exists():
        raise ValueError((folder / f"{name}.refused").read_text())
    # Wrappers around PyTorch's optimizers, which the package imports and nothing here needs.
    sys.modules.setdefault("onnxruntime.training.optim", types.ModuleType("optim"))
    import onnxruntime
    from onnxruntime.training import artifacts, onnxblock
    from onnxruntime.training.api import CheckpointState, Module, Optimizer

    # The newest that this onnxruntime reads.
    setattr(onnx, "IR_VERSION", 10)  # noqa: B010 -- declared as an enumeration
    if CASES[name].frozen:
        labels, *trained = json.loads((folder / f"{name}.json").read_text())
        model, loss = onnx.load(str(_lowered(folder, name))), None
    else:
        labels, loss = "labels", artifacts.LossType.CrossEntropyLoss
        model, trained = _with_batch_statistics(onnx.load(str(_model(folder, CASES[name]))))
    made = tempfile.TemporaryDirectory()
    artifacts.generate_artifacts(
        model,
        requires_grad=trained,
        frozen_params=[],
        loss=loss,
        optimizer=onnxblock.optim.AdamW(eps=1e-8, weight_decay=DECAY),
        artifact_directory=made.name,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    state = CheckpointState.load_checkpoint(f"{made.name}/checkpoint")
    module = Module(f"{made.name}/training_model.onnx", state, session_options=options)
    optimizer = Optimizer(f"{made.name}/optimizer_model.onnx", module)
    optimizer.set_learning_rate(RATE)
    x, y = _data(folder, name)
    feeds = [{"x": x, labels: y}[item] for item in module.input_names()]
    weights = {item: state.parameters[item] for item in trained}
    masks = {
        item: np.ones_like(weight.data)
        for item, weight in weights.items()
        if _is_weight(weight.data.shape)
    }

    def step() -> float:
        loss = module(*feeds)
        for item, mask in masks.items():
            gradient = weights[item].grad
            np.multiply(gradient, mask, out=gradient)
        optimizer.step()
        module.lazy_reset_grad()
        return float(np.asarray(loss).item())

    # The folder lives as long as the step.
    setattr(step, "made", made)  # noqa: B010
    return step


def _with_batch_statistics(model: Any) -> tuple[Any, list[str]]:
    """A model with BatchNormalization in training mode, and what is trained of it.

    onnxprune does not run that on onnxruntime-training, which does not give the new statistics.
    """
    from onnx import helper

    statistics: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            kept = [item for item in node.attribute if item.name != "training_mode"]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("training_mode", 1)])
            node.output.extend(f"{item}.updated" for item in node.input[3:5])
            statistics.update(node.input[3:5])
    stored = [tensor.name for tensor in model.graph.initializer]
    return model, [item for item in stored if item not in statistics]


#: Every engine gets the folder of prepared files, the name of a case and a number of threads.
ENGINES: dict[str, Callable[[Path, str, int], Step]] = {
    "ours": ours,
    "torch": torch_default,
    "torch-fused": torch_fused,
    "ort-training": onnxruntime_training,
}
