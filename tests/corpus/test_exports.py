"""What exporters write today: pruned and run in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.config import Format
from tests.corpus.comparing import differences
from tests.corpus.exports import (
    FORMATS,
    nhwc_graph,
    problems_of,
    sklearn_mlp,
    torch_program,
    torchscript,
)
from tests.corpus.running import Feeds, same, session_of

QUALITIES = (0.0, 1.0)
#: Weight tensors that each network has, by its Python.
LAYERS = {
    "mlp": 3,
    "cnn": 3,
    "depthwise": 5,
    "recurrent": 7,
    "encoder": 8,
    "library encoder": 8,
    "tied": 2,
}

every_network = pytest.mark.parametrize("name", LAYERS)
every_format = pytest.mark.parametrize("form", FORMATS)


@pytest.fixture(scope="session")
def torch() -> Any:
    """PyTorch with both its exporters."""
    pytest.importorskip("onnxscript", reason="torch's exporters need onnxscript")
    return pytest.importorskip("torch", reason="these models are exported by torch")


def batches(x: np.ndarray, name: str = "x") -> list[Feeds]:
    """Two batch sizes: the exported batch axis is open."""
    return [{name: x}, {name: x[:1]}]


@every_format
@every_network
def test_torchscript_export(torch: Any, name: str, form: Format, tmp_path: Path) -> None:
    model, x = torchscript(name)
    for quality in QUALITIES:
        folder = tmp_path / str(quality)
        folder.mkdir()
        problems, report = problems_of(model, model, batches(x), quality, form, folder)
        assert not problems
        assert len(report.layers) == LAYERS[name]
        assert (report.kept < report.alive_before) == (quality > 0)


@every_format
@every_network
def test_dynamo_export(torch: Any, name: str, form: Format, tmp_path: Path) -> None:
    program, x = torch_program(name)
    model = program.model_proto
    for quality in QUALITIES:
        folder = tmp_path / str(quality)
        folder.mkdir()
        problems, report = problems_of(program, model, batches(x), quality, form, folder)
        assert not problems
        assert len(report.layers) == LAYERS[name]
        assert (report.kept < report.alive_before) == (quality > 0)


@every_network
def test_a_program_comes_back_as_a_program(torch: Any, name: str) -> None:
    program, x = torch_program(name)
    result = onnxprune.prune(program, quality=1.0)
    pruned = result.to_onnx_program()
    assert type(pruned) is type(program)
    assert not differences(result.to_proto(), pruned.model_proto)
    (want,) = session_of(result.to_proto()).run(None, {"x": x})
    (have,) = pruned(torch.from_numpy(x))
    assert np.allclose(have.detach().numpy(), want, atol=1e-6)


def test_dropout_kept_for_training(torch: Any, tmp_path: Path) -> None:
    model, x = torchscript("mlp", training=True)
    result = onnxprune.prune(model, quality=1.0)
    report = result.save(tmp_path / "pruned.onnx")
    rows = {row.shape: row for row in report.layers}
    ratios = []
    for (outputs, inputs), ratio in (((32, 20), 0.5), ((16, 32), 0.25)):
        row = rows[outputs, inputs]
        ratios.append(np.float32(ratio * np.sqrt(row.kept / row.alive_before)))
    written = onnx.load(tmp_path / "pruned.onnx")
    tensors = {t.name: t for t in written.graph.initializer}
    tensors |= {
        n.output[0]: n.attribute[0].t for n in written.graph.node if n.op_type == "Constant"
    }
    have = [
        float(onnx.numpy_helper.to_array(tensors[node.input[1]]))
        for node in written.graph.node
        if node.op_type == "Dropout"
    ]
    assert np.allclose(have, ratios, rtol=1e-6)
    assert [(d.before, np.float32(d.after)) for d in report.dropouts] == [
        (0.5, ratios[0]),
        (0.25, ratios[1]),
    ]
    assert session_of(tmp_path / "pruned.onnx").run(None, {"x": x})[0].shape == (3, 4)


@every_format
@pytest.mark.parametrize("quality", QUALITIES)
def test_tensorflow_style_graph(quality: float, form: Format, tmp_path: Path) -> None:
    model = nhwc_graph()
    x = np.random.default_rng(1).standard_normal((2, 9, 9, 3)).astype(np.float32)
    problems, report = problems_of(model, model, batches(x, "image:0"), quality, form, tmp_path)
    assert not problems
    assert [row.layer for row in report.layers] == ["conv/kernel:0", "dw", "dense/kernel:0"]
    assert report.layers[2].nodes == ("model/dense/MatMul", "model/dense_1/MatMul")


@every_format
@pytest.mark.parametrize("quality", QUALITIES)
def test_scikit_learn_classifier(quality: float, form: Format, tmp_path: Path) -> None:
    pytest.importorskip("skl2onnx", reason="this model is converted by skl2onnx")
    model, x = sklearn_mlp()
    problems, report = problems_of(model, model, batches(x, "X"), quality, form, tmp_path)
    assert not problems
    assert len(report.layers) == 3
    outputs = session_of(tmp_path / "pruned.onnx").run(None, {"X": x})
    assert len(outputs) == 2 and same(outputs[0].shape, (8,))
