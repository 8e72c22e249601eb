"""Repair of whole models: order, what stays, element types, what cannot be repaired, bad data."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.data.source import open_source
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError, UsageError
from onnxprune.model.save import to_proto
from onnxprune.repair import frontier as frontier_module
from onnxprune.repair import jobs as jobs_module
from onnxprune.repair.repair import repair
from onnxprune.repair.samples import take_samples
from tests.builders import mlp
from tests.repair.cases import CASES, data, opened, pruned, run, tensor
from tests.structure.graphs import Case, built

INPUTS = 24


def samples(count: int = 200, width: int = INPUTS) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, width)).astype(np.float32)


def error(dense: object, model: object, x: np.ndarray) -> float:
    return float(((run(dense, x)[0] - run(model, x)[0]) ** 2).mean())


@pytest.mark.parametrize("method", ["refit", "match"])
def test_repair_brings_outputs_back_on_unseen_samples(method: str) -> None:
    dense = opened(mlp((INPUTS, 64, 48, 10)))
    cut, plans = pruned(dense, 0.5)
    result = repair(dense, cut, plans, data(dense, samples(512)), method=method)
    fresh = np.random.default_rng(9).standard_normal((300, INPUTS)).astype(np.float32)
    better = {"refit": 0.6, "match": 0.98}[method]
    assert error(dense, result.model, fresh) < better * error(dense, cut, fresh)
    assert [row.method for row in result.rows] == [method] * 3
    # Deviations match at the price of a larger squared difference: only a refit minimises that.
    assert method == "match" or all(row.after < row.before for row in result.rows)
    for i in range(3):
        name = f"fc{i}.weight"
        assert np.array_equal(tensor(result.model, name) == 0, tensor(cut, name) == 0)
    assert tensor(cut, "fc0.weight").any(), "the pruned model itself stays as it was"


def test_later_layers_are_fitted_on_what_earlier_ones_became() -> None:
    dense = opened(mlp((INPUTS, 64, 10)))
    cut, plans = pruned(dense, 0.6)
    x = samples(512)
    result = repair(dense, cut, plans, data(dense, x), ridge=1e-12)
    hidden = x @ tensor(result.model, "fc0.weight").T + tensor(result.model, "fc0.bias")
    hidden = np.maximum(hidden, 0).astype(np.float64)
    wanted = run(dense, x)[0]
    weight = tensor(result.model, "fc1.weight")
    for output, row in enumerate(weight):
        kept = row != 0
        design = np.column_stack([hidden[:, kept], np.ones(len(x))])
        expected = np.linalg.lstsq(design, wanted[:, output], rcond=None)[0]
        np.testing.assert_allclose(row[kept], expected[:-1], atol=2e-5)


def test_match_gives_every_output_its_mean_and_deviation_back() -> None:
    dense = opened(mlp((INPUTS, 32, 10)))
    cut, plans = pruned(dense, 0.5)
    x = samples(320)
    result = repair(dense, cut, plans, data(dense, x), method="match")
    wanted, found = run(dense, x)[0], run(result.model, x)[0]
    np.testing.assert_allclose(found.mean(0), wanted.mean(0), atol=1e-3)
    np.testing.assert_allclose(found.std(0), wanted.std(0), rtol=1e-3)
    ratio = ((found - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum()
    np.testing.assert_allclose(result.rows[1].after, ratio, rtol=1e-3)


def test_excluded_layers_keep_their_bytes() -> None:
    from dataclasses import replace

    dense = opened(mlp((INPUTS, 32, 10)))
    cut, plans = pruned(dense, 0.5)
    plans = (replace(plans[0], reason="excluded"), plans[1])
    result = repair(dense, cut, plans, data(dense, samples()))
    assert np.array_equal(tensor(result.model, "fc0.weight"), tensor(cut, "fc0.weight"))
    assert np.array_equal(tensor(result.model, "fc0.bias"), tensor(cut, "fc0.bias"))
    assert result.rows[0].reason == "excluded"
    assert result.rows[1].method == "refit"


def test_a_wide_layer_is_fitted_alike_on_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = opened(mlp((300, 10)))
    cut, plans = pruned(dense, 0.5)
    source = data(dense, samples(100, 300))
    narrow = repair(dense, cut, plans, source)
    monkeypatch.setattr(jobs_module, "WIDE", 100)
    wide = repair(dense, cut, plans, source)
    np.testing.assert_allclose(
        tensor(wide.model, "fc0.weight"), tensor(narrow.model, "fc0.weight"), atol=1e-3
    )
    np.testing.assert_allclose(wide.rows[0].after, narrow.rows[0].after, rtol=0.05)


def converted(proto: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """All floats of a model in another type."""
    dtype = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}[kind]
    for t in proto.graph.initializer:
        t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(dtype), t.name))
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = kind
    return proto


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_halves_are_fitted_like_floats(kind: int) -> None:
    plain = opened(mlp((INPUTS, 16, 10), opset=21))
    half = opened(converted(mlp((INPUTS, 16, 10), opset=21), kind))
    x = samples()
    results = []
    for dense in (plain, half):
        cut, plans = pruned(dense, 0.5)
        dtype = dense.array(next(iter(dense.tensors.values()))).dtype
        results.append(repair(dense, cut, plans, data(dense, x.astype(dtype))))
    assert all(row.after < row.before for row in results[1].rows)
    assert tensor(results[1].model, "fc0.weight").dtype.itemsize == 2
    found = tensor(results[1].model, "fc0.weight").astype(np.float32)
    expected = tensor(results[0].model, "fc0.weight")
    same = (found != 0) == (expected != 0)
    assert same.mean() > 0.99
    np.testing.assert_allclose(found[same], expected[same], atol=0.05)


def test_a_fixed_batch_of_one_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    proto = mlp((INPUTS, 16, 10))
    dense = opened(proto)
    cut, plans = pruned(dense, 0.5)
    expected = repair(dense, cut, plans, data(dense, samples()))
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    fixed = opened(proto)
    fixed_cut, plans = pruned(fixed, 0.5)
    for freed in (True, False):
        if not freed:
            monkeypatch.setattr("onnxprune.repair.repair.working_form", lambda model: model)
        found = repair(fixed, fixed_cut, plans, data(fixed, samples()))
        assert found.model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
        np.testing.assert_allclose(
            tensor(found.model, "fc1.weight"), tensor(expected.model, "fc1.weight"), atol=1e-4
        )


@pytest.mark.parametrize("method", ["refit", "match"])
def test_going_on_from_kept_values_gives_the_same(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = opened(mlp((INPUTS, 32, 24, 16, 10)))
    cut, plans = pruned(dense, 0.5)
    kept = repair(dense, cut, plans, data(dense, samples()), method=method)
    runs: list[tuple[str, ...]] = []
    original = frontier_module.Taps

    def counted(model: object, names: list[str], **given: object) -> object:
        runs.append(tuple(names))
        return original(model, names, **given)

    monkeypatch.setattr(frontier_module, "Taps", counted)
    repair(dense, cut, plans, data(dense, samples()), method=method)
    assert runs == [("a0",), ("a1",), ("a2",)], "each level goes on from the one before"
    monkeypatch.setattr(frontier_module, "FRONTIER_BYTES", 0)
    anew = repair(dense, cut, plans, data(dense, samples()), method=method)
    for i in range(4):
        name = f"fc{i}.weight"
        np.testing.assert_allclose(tensor(kept.model, name), tensor(anew.model, name), atol=1e-5)


def test_a_weight_that_two_nodes_share_is_fitted_to_both() -> None:
    random = np.random.default_rng(0)
    weight = random.standard_normal((8, 6)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x0", "w"], ["y0"]),
             helper.make_node("MatMul", ["x1", "w"], ["y1"])]  # fmt: skip
    infos = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 8]) for n in ("x0", "x1")}
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 6]) for n in ("y0", "y1")]
    graph = helper.make_graph(
        nodes, "two", list(infos.values()), outputs, [numpy_helper.from_array(weight, "w")]
    )
    dense = opened(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    )
    cut, plans = pruned(dense, 0.5)
    xs = [random.standard_normal((50, 8)).astype(np.float32) * s for s in (1, 3)]
    result = repair(dense, cut, plans, data(dense, *xs), ridge=1e-12)
    x = np.vstack(xs).astype(np.float64)
    for output in range(6):
        kept = tensor(cut, "w")[:, output] != 0
        expected = np.linalg.lstsq(x[:, kept], x @ weight[:, output], rcond=None)[0]
        np.testing.assert_allclose(tensor(result.model, "w")[kept, output], expected, atol=1e-5)


def test_few_positions_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.repair.cases import Case

    case = Case("large", "Conv", (4, 2, 3, 3), (64, 2, 20, 20), {"pads": [1] * 4}, (4,))
    dense = opened(case.proto())
    cut, plans = pruned(dense, 0.5)
    source = data(dense, case.samples())
    full = repair(dense, cut, plans, source).rows[0]
    monkeypatch.setattr(jobs_module, "ROWS", 1000)
    few = repair(dense, cut, plans, source)
    np.testing.assert_allclose(few.rows[0].after, full.after, rtol=0.1)
    x = case.samples()
    wanted = run(dense, x)[0]
    after = ((run(few.model, x)[0] - wanted) ** 2).sum() / (
        (wanted - wanted.mean((0, 2, 3), keepdims=True)) ** 2
    ).sum()
    np.testing.assert_allclose(after, full.after, rtol=0.05)


def branching() -> onnx.ModelProto:
    """A Gemm, an If whose branches use a weight from outside and one of their own, an RNN."""
    random = np.random.default_rng(0)

    def stored(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)

    def branch(name: str, weight: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)
        node = helper.make_node("MatMul", ["h", weight], [f"{name}.y"], name=f"{name}.matmul")
        return helper.make_graph([node], name, [], [out], [stored("inner", 6, 6)])

    nodes = [
        helper.make_node("Gemm", ["x", "first"], ["h"], name="gemm"),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["i"], then_branch=branch("then", "outer"),
                         else_branch=branch("else", "inner")),
        helper.make_node("Unsqueeze", ["i", "axis"], ["s"]),
        helper.make_node("RNN", ["s", "rnn", "again"], ["", "state"], hidden_size=4),
        helper.make_node("Flatten", ["state"], ["f"], axis=-1),
        helper.make_node("MatMul", ["f", "last"], ["y"], name="last"),
    ]  # fmt: skip
    tensors = [stored("first", 8, 6), stored("outer", 6, 6), stored("rnn", 1, 4, 6),
               stored("again", 1, 4, 4), stored("last", 4, 5),
               numpy_helper.from_array(np.float32(0), "zero"),
               numpy_helper.from_array(np.array([1]), "axis")]  # fmt: skip
    graph = helper.make_graph(
        nodes, "branching", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], tensors,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_cannot_be_repaired_says_why_and_the_rest_is_repaired() -> None:
    dense = opened(branching())
    cut, plans = pruned(dense, 0.5)
    result = repair(dense, cut, plans, data(dense, samples(100, 8)))
    rows = {row.layer: row for row in result.rows}
    assert rows["first"].method == "refit" and rows["last"].method == "refit"
    assert "RNN" in rows["rnn"].reason and "RNN" in rows["again"].reason
    bodies = [row for name, row in rows.items() if "outer" in name or "inner" in name]
    assert len(bodies) == 2 and all("body" in row.reason for row in bodies)
    for name in ("rnn", "again", "outer"):
        assert np.array_equal(tensor(result.model, name), tensor(cut, name))
    assert rows["last"].after < rows["last"].before


def normalized() -> onnx.ModelProto:
    """Conv without bias, BatchNormalization, ReLU, Conv, BatchNormalization."""
    random = np.random.default_rng(0)
    tensors = [numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
               for name, shape in (("w0", (6, 3, 3, 3)), ("w1", (5, 6, 3, 3)))]  # fmt: skip
    for i, channels in enumerate((6, 5)):
        for part in ("scale", "shift", "mean", "var"):
            values = np.abs(random.standard_normal(channels)).astype(np.float32) + 1
            tensors.append(numpy_helper.from_array(values, f"{part}{i}"))
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"]),
        helper.make_node("BatchNormalization", ["c0", "scale0", "shift0", "mean0", "var0"], ["n0"]),
        helper.make_node("Relu", ["n0"], ["r"]),
        helper.make_node("Conv", ["r", "w1"], ["c1"]),
        helper.make_node("BatchNormalization", ["c1", "scale1", "shift1", "mean1", "var1"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "bn", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], tensors,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_statistics_of_batch_normalization() -> None:
    dense = opened(normalized())
    cut, plans = pruned(dense, 0.6)
    x = np.random.default_rng(1).standard_normal((70, 3, 8, 8)).astype(np.float32)
    result = repair(dense, cut, plans, data(dense, x), method="bn")
    y = run(result.model, x)[0]
    # Normalised by its own statistics, an output has the scale and shift as its moments.
    np.testing.assert_allclose(y.mean((0, 2, 3)), tensor(dense, "shift1"), atol=1e-3)
    np.testing.assert_allclose(y.std((0, 2, 3)), tensor(dense, "scale1"), rtol=1e-3)
    assert [row.method for row in result.rows] == ["bn", "bn"]
    assert np.array_equal(tensor(result.model, "w0"), tensor(cut, "w0"))


def test_bn_without_batch_normalization_says_so() -> None:
    dense = opened(mlp((INPUTS, 10)))
    cut, plans = pruned(dense, 0.5)
    result = repair(dense, cut, plans, data(dense, samples()), method="bn")
    assert result.rows[0].method is None
    assert "no BatchNormalization" in result.rows[0].reason


def test_progress_ends_at_all_layers() -> None:
    dense = opened(mlp((INPUTS, 16, 10)))
    cut, plans = pruned(dense, 0.5)
    told: list[tuple[str, int, int]] = []
    repair(dense, cut, plans, data(dense, samples()), progress=lambda *a: told.append(a))
    assert told == [("repair (layers)", 1, 2), ("repair (layers)", 2, 2)]


def test_too_few_samples_are_said_and_no_more_than_wanted_are_taken() -> None:
    dense = opened(mlp((INPUTS, 10)))
    cut, plans = pruned(dense, 0.5)
    few = repair(dense, cut, plans, data(dense, samples(5)))
    assert few.samples == 5 and "only 5 samples" in few.warnings[0]
    many = repair(dense, cut, plans, data(dense, samples(200)), samples=100)
    assert many.samples == 100 and not many.warnings


def test_samples_that_do_not_fill_a_fixed_batch_are_left_out() -> None:
    specs = [InputSpec("x", np.dtype(np.float32), (3, INPUTS))]
    source = open_source({"x": samples(11)}, specs, labelled=False)
    taken = take_samples(source, specs, 10)
    assert taken.count == 9 and sum(taken.sizes) == 9
    assert all(len(batch["x"]) % 3 == 0 for batch in taken.batches)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(value: float) -> None:
    dense = opened(mlp((INPUTS, 10)))
    cut, plans = pruned(dense, 0.5)
    x = samples()
    x[7, 3] = value
    with pytest.raises(DataError, match="NaN or infinity"):
        repair(dense, cut, plans, data(dense, x))


def test_nonsense_is_refused() -> None:
    dense = opened(mlp((INPUTS, 10)))
    cut, plans = pruned(dense, 0.5)
    with pytest.raises(UsageError, match="refit, match, bn"):
        repair(dense, cut, plans, data(dense, samples()), method="magic")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="at least 1 sample"):
        repair(dense, cut, plans, data(dense, samples()), samples=0)


@pytest.mark.parametrize("batch", ["N", 2])
def test_a_new_bias_is_an_input_as_well_before_ir_version_4(batch: str | int) -> None:
    proto = next(case for case in CASES if case.name == "conv without bias").proto()
    proto.ir_version, proto.opset_import[0].version = 3, 7
    del proto.graph.input[:]
    for name, shape in (("x", (batch, 3, 7, 7)), ("w", (4, 3, 3, 2))):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        proto.graph.input.append(info)
    shape = proto.graph.output[0].type.tensor_type.shape
    shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_param=axis) for axis in "NCHW")
    onnx.checker.check_model(proto)
    dense = opened(proto)
    cut, plans = pruned(dense, 0.6)
    x = 1 + np.random.default_rng(1).standard_normal((64, 3, 7, 7)).astype(np.float32)
    result = repair(dense, cut, plans, data(dense, x))
    assert result.rows[0].method == "refit"
    repaired = to_proto(result.model)
    onnx.checker.check_model(repaired)
    assert repaired.ir_version == 3
    listed = [value.name for value in repaired.graph.input]
    assert listed == ["x", "w", "w.bias"]
    assert [tensor.name for tensor in repaired.graph.initializer] == listed[1:]
    want, without, have = (run(model, x[:2])[0] for model in (dense, cut, result.model))
    assert np.square(have - want).mean() < 0.9 * np.square(without - want).mean()


def test_sizes_that_are_computed_stay_known() -> None:
    """Of a list of sizes whose length is open, inference for Resize says that it is empty."""
    constants = {"w": (6, 3, 3, 3), "k": (6, 6, 2, 2), "v": (2, 6, 1, 1)}
    nodes = """h = Conv<pads=[1,1,1,1]>(x, w)
        zero = Constant<value_ints=[0]>()
        two = Constant<value_ints=[2]>()
        four = Constant<value_ints=[4]>()
        s = Shape(x)
        i = Slice(s, two, four, zero)
        c = Cast<to=7>(i)
        r = Relu(h)
        u = ConvTranspose<strides=[2,2]>(r, k)
        t = Shape(u)
        f = Slice(t, zero, two, zero)
        q = Concat<axis=0>(f, c)
        z = Resize(u, , , q)
        y = Conv(z, v)"""
    model = built(Case(nodes, constants, [], sample=(3, 8, 8)))
    images = np.random.default_rng(0).standard_normal((70, 3, 8, 8)).astype(np.float32)
    report = onnxprune.prune(model, sparsity=0.5, calibrate={"x": images}).report
    assert report.repair is not None
    assert [row.method for row in report.repair.rows] == ["refit"] * 3
