"""Every check of a written file can fail, and then the old file stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune import verify
from onnxprune.cli import main
from onnxprune.config import Format
from onnxprune.errors import OutputError
from onnxprune.model.output import StagedModel, stage_model
from tests.builders import mlp, saved
from tests.refusal import refused, state

SIZES = (24, 40, 10)
Spoil = Callable[[Path], None]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "out.onnx").write_bytes(b"the old file")
    return saved(mlp(SIZES), tmp_path / "m.onnx")


def spoil_staged(monkeypatch: pytest.MonkeyPatch, spoil: Spoil) -> None:
    """Let something happen to the staged file between its writing and its check."""

    def staged(*arguments: object, **more: object) -> StagedModel:
        result = stage_model(*arguments, **more)  # type: ignore[arg-type]
        spoil(result.path)
        return result

    monkeypatch.setattr("onnxprune.writing.stage_model", staged)


def edited(change: Callable[[ModelProto], None]) -> Spoil:
    def spoil(path: Path) -> None:
        model = onnx.load(path, load_external_data=False)
        change(model)
        path.write_bytes(model.SerializeToString())

    return spoil


def weight_bit(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]


def sign_of_a_zero(model: ModelProto) -> None:
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[weight == 0] = -0.0
    model.graph.initializer[0].raw_data = weight.tobytes()


def bias_bit(model: ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "fc1.bias")
    tensor.raw_data = tensor.raw_data[:-1] + bytes([tensor.raw_data[-1] ^ 0x80])


def weight_missing(model: ModelProto) -> None:
    del model.graph.initializer[0]


def weight_renamed(model: ModelProto) -> None:
    model.graph.initializer[0].name = "other"


def weight_transposed(model: ModelProto) -> None:
    model.graph.initializer[0].dims[:] = model.graph.initializer[0].dims[::-1]


def weight_of_another_type(model: ModelProto) -> None:
    model.graph.initializer[0].data_type = TensorProto.INT32


def index_moved(model: ModelProto) -> None:
    indices = model.graph.sparse_initializer[0].indices.int64_data
    free = next(i for i in range(960) if i not in set(indices))
    indices[:] = sorted([*indices[1:], free])


def index_dropped(model: ModelProto) -> None:
    model.graph.sparse_initializer[0].indices.int64_data.pop()


def indices_unsorted(model: ModelProto) -> None:
    sparse = model.graph.sparse_initializer[0]
    sparse.indices.int64_data[:] = list(sparse.indices.int64_data)[::-1]


def values_swapped(model: ModelProto) -> None:
    values = model.graph.sparse_initializer[0].values
    values.raw_data = values.raw_data[4:] + values.raw_data[:4]


def gap_moved(model: ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "fc0.weight_gaps")
    tensor.raw_data = bytes([tensor.raw_data[0] + 1]) + tensor.raw_data[1:]


def operator_unknown(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Rleu"


def graph_without_a_node(model: ModelProto) -> None:
    del model.graph.node[0]


def another_function(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Sigmoid"


def another_attribute(model: ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", 1.5))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


SPOILED: dict[str, tuple[Format, Spoil]] = {
    "a bit of a weight": ("dense", edited(weight_bit)),
    "the sign of zeros": ("dense", edited(sign_of_a_zero)),
    "a bit of a bias": ("dense", edited(bias_bit)),
    "a weight missing": ("dense", edited(weight_missing)),
    "a weight renamed": ("dense", edited(weight_renamed)),
    "a weight transposed": ("dense", edited(weight_transposed)),
    "a weight of another type": ("dense", edited(weight_of_another_type)),
    "an index moved": ("sparse", edited(index_moved)),
    "an index dropped": ("sparse", edited(index_dropped)),
    "indices unsorted": ("sparse", edited(indices_unsorted)),
    "values swapped": ("sparse", edited(values_swapped)),
    "a gap moved": ("gaps", edited(gap_moved)),
    "an operator unknown": ("dense", edited(operator_unknown)),
    "a node missing": ("dense", edited(graph_without_a_node)),
    "another function": ("dense", edited(another_function)),
    "another attribute": ("dense", edited(another_attribute)),
    "cut short": ("dense", cut_short),
    "empty": ("dense", emptied),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_file_is_not_kept(
    case: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    form, spoil = SPOILED[case]
    spoil_staged(monkeypatch, spoil)
    arguments = [str(model), "-o", str(tmp_path / "out.onnx"), "--overwrite", "--format", form]
    sentence = refused(arguments, tmp_path, capsys)
    assert "nothing was kept" in sentence
    with pytest.raises(OutputError):
        onnxprune.prune(model, format=form).save(tmp_path / "out.onnx", overwrite=True)
    assert (tmp_path / "out.onnx").read_bytes() == b"the old file"


def test_a_spoiled_data_file_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(path: Path) -> None:
        (data,) = (file for file in path.parent.iterdir() if file.name.endswith(".data"))
        content = bytearray(data.read_bytes())
        content[7] ^= 1
        data.write_bytes(content)

    source = saved(mlp(SIZES), tmp_path / "m.onnx", external=True)
    for quality in ("0.5", "1"):
        arguments = [str(source), "-q", quality, "--format", "dense", "--overwrite"]
        if quality == "0.5":
            assert main([*arguments, "--quiet"]) == 0
        else:
            spoil_staged(monkeypatch, spoil)
            assert "nothing was kept" in refused(arguments, tmp_path, capsys)


def test_without_the_runtime_check_a_changed_function_passes(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What --no-check gives up; the other checks still run."""
    spoil_staged(monkeypatch, edited(another_function))
    report = onnxprune.prune(model, format="dense", check=False).save(
        tmp_path / "out.onnx", overwrite=True
    )
    assert [check.outcome for check in report.checks] == ["passed", "passed", "skipped"]
    spoil_staged(monkeypatch, edited(weight_bit))
    with pytest.raises(OutputError, match="differs"):
        onnxprune.prune(model, format="dense", check=False).save(tmp_path / "b.onnx")
    assert set(state(tmp_path)) == {"m.onnx", "out.onnx"}


def test_what_would_fill_memory_or_take_minutes_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(mlp((40, 300, 10)), tmp_path / "m.onnx")
    monkeypatch.setattr(verify, "LARGE", 0)
    monkeypatch.setattr(verify, "HUGE", 10_000)
    for name, says in (("sparse.onnx", "sparse weights are"), ("dense.onnx", "")):
        result = onnxprune.prune(
            source, quality=1.5, shrink=False, format="dense" if name[0] == "d" else "sparse"
        )
        (check,) = (c for c in result.save(tmp_path / name).checks if c.name == "onnxruntime")
        assert check.outcome == ("skipped" if says else "passed")
        assert says in check.detail
    monkeypatch.setattr(verify, "MOST_NODES", 2)
    (check,) = (c for c in result.save(tmp_path / "n.onnx").checks if c.name == "onnxruntime")
    assert (check.outcome, "3 nodes" in check.detail) == ("skipped", True)
