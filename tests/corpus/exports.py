"""Models as exporters write them, pruned in every format and compared with a reference."""

from __future__ import annotations

import io
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.config import Format
from tests.corpus.comparing import differences
from tests.corpus.constants import with_values
from tests.corpus.running import Feeds, same_run
from tests.corpus.weights import counted

__all__ = ["FORMATS", "nhwc_graph", "problems_of", "sklearn_mlp", "torch_program", "torchscript"]

FORMATS: tuple[Format, ...] = ("sparse", "constant", "gaps", "dense")


def problems_of(
    source: Any, before: ModelProto, feeds: list[Feeds], quality: float, form: Format, folder: Path
) -> tuple[list[str], onnxprune.Report]:
    """Prune a model, write it, and say what is not as it should be.

    Args:
        source: What is given to `onnxprune.prune`.
        before: The same as a message.
        feeds: Inputs to run it on.
        quality: As for `onnxprune.prune`.
        form: Storage format.
        folder: Where to write.
    """
    # What is counted is the threshold's work alone: no dead channels taken out after it.
    result = onnxprune.prune(source, quality=quality, format=form, shrink=False)
    report = result.save(folder / "pruned.onnx")
    after = onnx.load(folder / "pruned.onnx")
    counts = counted(before, quality)
    said = sorted((row.weights, row.alive_before, row.kept) for row in report.layers)
    want = sorted((c.size, c.alive, c.kept) for _, c in counts.values())
    problems = [] if said == want else [f"reported {said}, counted {want}"]
    wanted = {key: array for key, (array, _) in counts.items()}
    problems += differences(before, after, wanted, ratios=quality > 0)
    onnx.checker.check_model(str(folder / "pruned.onnx"))
    reference = with_values(before, wanted)
    problems += same_run(folder / "pruned.onnx", reference, feeds)[1]
    return problems, report


@lru_cache
def torchscript(
    name: str, *, training: bool = False, opset: int | None = None
) -> tuple[ModelProto, np.ndarray]:
    """A network by the exporter that traces it, and an input; by default at its own opset."""
    import torch

    network, example = _network(name)
    mode = torch.onnx.TrainingMode
    buffer = io.BytesIO()
    if training:
        network.train()
    # The exporters know the parts of an encoder, not the kernel that fuses them.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            buffer,
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
            training=mode.TRAINING if training else mode.EVAL,
            do_constant_folding=not training,
            opset_version=opset,
        )
    torch.backends.mha.set_fastpath_enabled(fused)
    return onnx.load_from_string(buffer.getvalue()), example.numpy()


@lru_cache
def torch_program(name: str, *, opset: int | None = None) -> tuple[Any, np.ndarray]:
    """A network by the exporter that captures it: an ONNXProgram, and an input."""
    import torch

    network, example = _network(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=opset,
            verbose=False,
        )
    return program, example.numpy()


def _network(name: str) -> tuple[Any, Any]:
    import torch

    from tests.corpus.networks import NETWORKS

    torch.manual_seed(0)
    make, example = NETWORKS[name]
    return make().eval(), example()


def nhwc_graph() -> ModelProto:
    """A graph as tf2onnx writes it: NHWC, Transpose around Conv, MatMul and Add, names with colons.

    The kernel of the first Conv is kept HWIO behind a Transpose; the last MatMul's weight is
    shared through an Identity.
    """
    random = np.random.default_rng(0)

    def tensor(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)

    def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    pads, strides = [0, 0, 1, 1], [2, 2]
    nodes = [
        helper.make_node("Transpose", ["image:0"], ["x_nchw"], "t1", perm=[0, 3, 1, 2]),
        helper.make_node("Transpose", ["conv/kernel:0"], ["k_oihw"], "tk", perm=[3, 2, 0, 1]),
        helper.make_node(
            "Conv", ["x_nchw", "k_oihw"], ["c1"], "model/conv/Conv2D", pads=pads, strides=strides
        ),
        helper.make_node("Transpose", ["c1"], ["c1_nhwc"], "t2", perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["c1_nhwc", "conv/bias:0"], ["b1"], "model/conv/BiasAdd"),
        helper.make_node("Relu", ["b1"], ["r1"], "model/relu"),
        helper.make_node("Transpose", ["r1"], ["r1_nchw"], "t3", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["r1_nchw", "dw"], ["d1"], "model/depthwise", group=8),
        helper.make_node("GlobalAveragePool", ["d1"], ["g1"], "pool"),
        helper.make_node("Reshape", ["g1", "flat"], ["f1"], "model/flatten"),
        helper.make_node("MatMul", ["f1", "dense/kernel:0"], ["m1"], "model/dense/MatMul"),
        helper.make_node("Add", ["m1", "dense/bias:0"], ["m1b"], "model/dense/BiasAdd"),
        helper.make_node("Identity", ["dense/kernel:0"], ["same"], "read"),
        helper.make_node("MatMul", ["m1b", "same"], ["m2"], "model/dense_1/MatMul"),
        helper.make_node("Softmax", ["m2"], ["Identity:0"], "model/softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "tf2onnx",
        [value("image:0", "unk__1", 9, 9, 3)],
        [value("Identity:0", "unk__2", 8)],
        [
            tensor("conv/kernel:0", 3, 3, 3, 8),
            tensor("conv/bias:0", 8),
            tensor("dw", 8, 1, 3, 3),
            numpy_helper.from_array(np.array([-1, 8]), "flat"),
            tensor("dense/kernel:0", 8, 8),
            tensor("dense/bias:0", 8),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7, producer_name="tf2onnx"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def sklearn_mlp() -> tuple[ModelProto, np.ndarray]:
    """scikit-learn's MLPClassifier trained on its digits, by skl2onnx, and some images."""
    import skl2onnx
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    classifier = MLPClassifier((32, 16), max_iter=15, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classifier.fit(images, labels)
    return skl2onnx.to_onnx(classifier, images[:1], target_opset=17), images[:8]
