"""The Python door: every way in and out, and numbers that independent counts agree with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

import onnxprune
from onnxprune.config import Format
from onnxprune.errors import ModelError, OutputError, UsageError
from onnxprune.model.load import parse
from tests.builders import arrays, mlp, saved
from tests.versions import has_older_runtime

FORMATS: tuple[Format, ...] = get_args(Format)
SIZES = (24, 40, 30, 10)
#: Shapes stay: tests/test_shrink_doors.py looks at what becomes of dead neurons.
prune = partial(onnxprune.prune, shrink=False)


def cut(weight: np.ndarray, quality: float) -> np.ndarray:
    """What onnxprune must make of a weight without zeros."""
    threshold = quality * weight.std(dtype=np.float64)
    return np.where(np.abs(weight.astype(np.float64)) < threshold, np.float32(0), weight)


def expected(model: ModelProto, quality: float) -> dict[str, np.ndarray]:
    return {
        name: cut(values, quality) if name.endswith("weight") else values
        for name, values in arrays(model).items()
    }


def dense(proto: ModelProto) -> dict[str, np.ndarray]:
    """Weights of a model whatever their form, by onnxprune's own reader (tested by itself)."""
    model = parse(memoryview(proto.SerializeToString()))
    return {address.name: model.array(tensor) for address, tensor in model.tensors.items()}


def same(have: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> bool:
    return have.keys() == want.keys() and all(
        have[name].tobytes() == want[name].tobytes() for name in want
    )


class Program:
    """Torch's ONNXProgram, by its interface."""

    def __init__(self, model: ir.Model, exported_program: object) -> None:
        self.model, self.exported_program = model, exported_program


def as_path(model: ModelProto, folder: Path) -> object:
    return saved(model, folder / "m.onnx")


def as_text(model: ModelProto, folder: Path) -> object:
    return str(saved(model, folder / "m.onnx"))


def as_external(model: ModelProto, folder: Path) -> object:
    copy = ModelProto()
    copy.CopyFrom(model)
    return saved(copy, folder / "m.onnx", external=True)


def as_proto(model: ModelProto, folder: Path) -> object:
    return model


def as_ir(model: ModelProto, folder: Path) -> object:
    return ir.from_proto(model)


def as_lazy_ir(model: ModelProto, folder: Path) -> object:
    return ir.load(str(as_external(model, folder)))


def as_program(model: ModelProto, folder: Path) -> object:
    return Program(ir.from_proto(model), "exported")


def as_surgeon(model: ModelProto, folder: Path) -> object:
    surgeon = pytest.importorskip("onnx_graphsurgeon")
    return surgeon.import_onnx(model)


SOURCES = [
    as_path, as_text, as_external, as_proto, as_ir, as_lazy_ir, as_program, as_surgeon
]  # fmt: skip


def frozen(source: Any, folder: Path) -> object:
    """Everything about a source that pruning might change."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    if isinstance(source, ModelProto):
        return files, source.SerializeToString()
    model = getattr(source, "model", source)
    if isinstance(model, ir.Model):
        return files, ir.to_proto(model).SerializeToString(deterministic=True)
    if isinstance(source, (str, Path)):
        return files, str(source)
    return files, onnx_bytes(source)


def onnx_bytes(graph: Any) -> bytes:
    surgeon = pytest.importorskip("onnx_graphsurgeon")
    return bytes(surgeon.export_onnx(graph).SerializeToString(deterministic=True))


@pytest.mark.parametrize("make", SOURCES)
def test_every_source_gives_the_same_weights_and_stays_as_it_is(
    make: Callable[[ModelProto, Path], object], tmp_path: Path
) -> None:
    model = mlp(SIZES)
    want = expected(model, 1.0)
    folder = tmp_path / "in"
    folder.mkdir()
    source = make(model, folder)
    before = frozen(source, folder)
    result = prune(source)
    assert same(dense(result.to_proto()), want)
    for form in FORMATS:
        assert same(dense(result.to_proto(form)), want)
    assert same(arrays(ir.to_proto(result.model)), want)
    surgeon = pytest.importorskip("onnx_graphsurgeon")
    assert same(arrays(surgeon.export_onnx(result.to_graphsurgeon())), want)
    report = result.save(tmp_path / "out.onnx")
    assert same(dense(onnx.load(tmp_path / "out.onnx")), want)
    outcomes = [check.outcome for check in report.checks]
    # An older onnxruntime does not load what onnx-graphsurgeon writes.
    skipped = has_older_runtime() and outcomes == ["passed", "passed", "skipped"]
    assert skipped or outcomes == ["passed"] * 3
    assert frozen(source, folder) == before
    # What came out and what went in share nothing.
    result.to_proto().graph.initializer[0].raw_data = b""
    assert frozen(source, folder) == before
    assert same(dense(result.to_proto()), want)


def test_changing_the_source_later_does_not_change_the_result() -> None:
    model = mlp(SIZES)
    want = expected(model, 1.0)
    result = prune(model)
    model.Clear()
    assert same(dense(result.to_proto()), want)
    array = np.array(arrays(mlp(SIZES))["fc0.weight"])
    source = ir.from_proto(mlp(SIZES))
    source.graph.initializers["fc0.weight"].const_value = ir.Tensor(array, name="fc0.weight")
    result = prune(source)
    source.graph.initializers["fc0.weight"].const_value = None
    assert same(dense(result.to_proto()), want)


def test_a_program_comes_back_as_one() -> None:
    program = Program(ir.from_proto(mlp(SIZES)), "exported")
    back = prune(program).to_onnx_program()
    assert isinstance(back, Program)
    assert back.exported_program == "exported"
    assert same(arrays(ir.to_proto(back.model)), expected(mlp(SIZES), 1.0))
    with pytest.raises(UsageError, match="ONNXProgram"):
        prune(mlp(SIZES)).to_onnx_program()


def test_in_and_out_of_memory_may_be_chained() -> None:
    result = prune(mlp(SIZES), quality=0.5)
    again = prune(result.model, quality=0)
    assert same(dense(again.to_proto()), expected(mlp(SIZES), 0.5))
    from_sparse = prune(result.to_proto("sparse"), quality=0)
    assert same(dense(from_sparse.to_proto()), expected(mlp(SIZES), 0.5))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    quality=st.floats(0, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_kept_counts_are_those_of_numpy(sizes: list[int], quality: float, seed: int) -> None:
    model = mlp(tuple(sizes), seed=seed)
    try:
        result = prune(model, quality=quality)
    except ModelError as error:
        assert "nothing to prune" in str(error)  # e.g. every weight a single number
        return
    want = expected(model, quality)
    have = dense(result.to_proto())
    for row in result.report.layers:
        weight = arrays(model)[row.layer]
        if weight.std() == 0:
            assert row.kept == weight.size
        else:
            assert row.kept == np.count_nonzero(want[row.layer])
            assert have[row.layer].tobytes() == want[row.layer].tobytes()


def test_what_is_wrong_is_an_onnxprune_error(tmp_path: Path) -> None:
    model = mlp(SIZES)
    for options in ({"quality": -1}, {"sparsity": 1}, {"layers": {"nope": 1}}, {"format": "zip"}):
        with pytest.raises(UsageError):
            prune(model, **options)
    with pytest.raises(ModelError):
        prune(tmp_path / "missing.onnx")
    result = prune(model)
    result.save(tmp_path / "out.onnx")
    with pytest.raises(OutputError, match="exists"):
        result.save(tmp_path / "out.onnx")
    with pytest.raises(OutputError, match="input"):
        prune(tmp_path / "out.onnx").save(tmp_path / "out.onnx", overwrite=True)
    for name in ("\0", "a\0b.onnx", ""):
        with pytest.raises(OutputError):
            result.save(name)
    with pytest.raises(ModelError):
        prune("a\0b.onnx")


def test_a_result_saves_more_than_once(tmp_path: Path) -> None:
    source = saved(mlp(SIZES), tmp_path / "m.onnx", external=True)
    result = prune(source, format="dense")
    first = result.save(tmp_path / "a.onnx")
    second = result.save(tmp_path / "b.onnx")
    assert result.report is second
    assert second.output == str(tmp_path / "b.onnx")
    assert second.sizes == first.sizes
    (tmp_path / "m.onnx.bin").unlink()  # still mapped
    assert same(dense(onnx.load(tmp_path / "b.onnx")), expected(mlp(SIZES), 1.0))
    kept = {t.name: t for t in result.to_proto().graph.initializer}
    assert numpy_helper.to_array(kept["fc0.bias"]).any()
