"""Networks that PyTorch exported, by both of its exporters."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import pytest

from tests.structure.proof import prove

torch = pytest.importorskip("torch")

from tests.structure import architectures as nets  # noqa: E402
from tests.structure import branched, mobile, recurrent  # noqa: E402
from tests.structure import transformers as former  # noqa: E402

IMAGE, WORDS, NOISE = (3, 16, 16), (7,), (6, 1, 1)

#: Network, shape of a sample, sizes of the groups.
CASES = {
    "vgg": (nets.VGG, IMAGE, (8, 12, 20)),
    "resnet18": (mobile.resnet18, IMAGE, (8, 8, 8, 12, 12, 12)),
    "resnet50": (nets.ResNet, IMAGE, (8, 8, 8, 12, 8, 8, 12, 16, 24)),
    "resnext": (lambda: nets.ResNet(groups=4), IMAGE, (2, 2, 2, 2, 3, 3, 4, 4, 4, 8, 16, 24)),
    "se-resnet": (
        lambda: nets.ResNet(excite=True),
        IMAGE,
        (4, 4, 4, 8, 8, 8, 8, 8, 12, 12, 16, 24),
    ),
    "mobilenet-v2": (nets.mobilenet, IMAGE, (8, 12, 16, 16, 24)),
    "mobilenet-v3": (mobile.mobilenet_v3, IMAGE, (8, 24, 6, 24, 6, 12, 36, 6, 20, 16)),
    "efficientnet": (mobile.efficientnet, IMAGE, (8, 24, 6, 24, 6, 12, 36, 6)),
    "inception": (branched.inception, IMAGE, (8, 6, 4, 6, 5, 4, 4, 4, 6, 4, 6, 5, 4, 4, 4)),
    "yolo": (
        branched.YOLO,
        IMAGE,
        (8, 4, 4, 4, 4, 8, 12, 6, 6, 6, 6, 12, 6, 12, 4, 4, 4, 4, 10, 6, 6, 7, 7),
    ),
    "densenet": (nets.DenseNet, IMAGE, (8, 4, 4, 4, 6)),
    "shufflenet": (nets.ShuffleNet, IMAGE, (4, 4, 4, 4, 8, 8, 8, 8, 8)),
    "group-shuffle": (nets.GroupShuffle, IMAGE, (2, 2, 2, 4, 4)),
    "unet": (nets.UNet, IMAGE, (8, 12, 8, 8)),
    "unet-resized": (nets.UNetResized, IMAGE, (8, 12, 8, 8)),
    "convnext": (nets.convnext, IMAGE, (24, 24)),
    "group-norm": (nets.GroupNormed, IMAGE, (2, 4, 8)),
    "dcgan": (nets.Generator, NOISE, (2, 4, 4)),
    "vit": (former.ViT, IMAGE, (4, 4, 6, 6, 6, 6, 28, 28)),
    "vit-fused": (lambda: former.ViT(fused=True), IMAGE, (4, 4, 6, 6, 28, 28)),
    "bert": (former.BERT, WORDS, (4, 4, 6, 6, 6, 6, 12, 28, 28)),
    "bert-sdpa": (lambda: former.BERT(sdpa=True), WORDS, (4, 4, 6, 6, 6, 6, 12, 28, 28)),
    "multihead": (former.torch_encoder, (7, 16), (4, 4, 28)),
    "swin": (former.Swin, IMAGE, (2, 4, 2, 4, 20)),
    "gqa-sdpa": (former.GroupedSDPA, WORDS, (16, 8, 3, 2, 8, 16)),
    "lstm": (recurrent.Recurrent, WORDS, (10, 8, 7, 7)),
    "lstm-one-way": (lambda: recurrent.Recurrent(both=False), WORDS, (10, 8, 7, 7)),
    "lstm-last-state": (recurrent.LastState, WORDS, (10, 8, 7)),
    "gru": (lambda: recurrent.Recurrent(torch.nn.GRU), WORDS, (10, 8, 7, 7)),
    "gpt": (former.GPT, WORDS, (2, 2, 3, 3, 4, 8, 8, 20, 20)),
}


def exported(name: str, dynamo: bool, opset: int | None = None) -> onnx.ModelProto:
    """A network by either exporter; by default at the opset that is usual for it."""
    make, sample, _ = CASES[name]
    torch.manual_seed(0)
    net = make().eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
    x = torch.from_numpy(samples(sample, 2)["x"])
    axes = {0: "batch", 1: "length"} if sample == WORDS else {0: "batch"}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            dims = {axis: torch.export.Dim(text, max=100) for axis, text in axes.items()}
            program = torch.onnx.export(
                net, (x,), input_names=["x"], dynamic_shapes=(dims,), dynamo=True, verbose=False,
                opset_version=opset,
            )  # fmt: skip
            return program.model_proto
        torch.onnx.export(
            net, (x,), file, input_names=["x"], output_names=["y"], dynamic_axes={"x": axes},
            dynamo=False, opset_version=opset or 17,
        )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def samples(shape: tuple[int, ...], batch: int, length: int = 0) -> dict[str, np.ndarray]:
    """A batch; of words of another length each, unless the model has a fixed one."""
    random = np.random.default_rng(batch)
    if shape == WORDS:
        return {"x": random.integers(0, 30, (batch, length or 4 + batch), dtype=np.int64)}
    return {"x": random.standard_normal((batch, *shape)).astype(np.float32)}


@pytest.mark.parametrize("dynamo", [False, True], ids=["script", "dynamo"])
@pytest.mark.parametrize("name", CASES)
def test_exported(name: str, dynamo: bool) -> None:
    if dynamo:
        pytest.importorskip("onnxscript")
    _, sample, sizes = CASES[name]
    model = exported(name, dynamo)
    length = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    prove(model, lambda batch: samples(sample, batch, length), sizes)
