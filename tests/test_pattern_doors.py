"""Patterns and criteria through the command line and Python, counted by nothing of onnxprune."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.cli import main
from onnxprune.errors import UsageError
from tests.builders import mlp, saved
from tests.refusal import refused
from tests.repair.test_repair import branching, samples
from tests.test_calibration_doors import outputs, weight

SIZES = (24, 40, 32, 10)
CRITERIA: list[dict[str, Any]] = [
    {},
    {"criterion": "magnitude"},
    {"calibrate": True},
    {"calibrate": True, "criterion": "magnitude"},
    {"calibrate": True, "criterion": "wanda"},
    {"calibrate": True, "criterion": "sparsegpt"},
    {"calibrate": True, "criterion": "wanda", "repair": "none"},
    {"calibrate": True, "criterion": "sparsegpt", "repair": "none"},
    {"calibrate": True, "criterion": "sparsegpt", "repair": "match"},
    {"calibrate": True, "repair": "bn"},
]


def most_in_groups(w: np.ndarray, axis: int, of: int) -> int:
    """The most weights that are not zero in any group of `of` along an axis, by a plain loop."""
    rows = np.moveaxis(w, axis, -1).reshape(-1, w.shape[axis])
    most = 0
    for row in rows.tolist():
        for start in range(0, len(row), of):
            most = max(most, sum(value != 0 for value in row[start : start + of]))
    return most


def network() -> ModelProto:
    """Weights in every layout: names say along which stored axis products are summed."""
    random = np.random.default_rng(0)
    shapes = {
        "first_1": (8, 3, 3, 3),
        "conv_1": (16, 8, 3, 3),
        "grouped_1": (16, 4, 3, 3),
        "depthwise_1": (16, 1, 3, 3),
        "transposed_0": (16, 8, 2, 2),
        "gemm_0": (128, 24),
        "gemm_1": (32, 24),
        "left_1": (12, 32),
        "right_0": (12, 20),
        "batched_1": (3, 20, 4),
        "odd_0": (4, 6),
    }
    tensors = [
        numpy_helper.from_array((random.standard_normal(s) / 4).astype(np.float32), n)
        for n, s in shapes.items()
    ]
    tensors += [numpy_helper.from_array(np.array(v, np.int64), n)
                for n, v in (("flat", [0, 128]), ("column", [0, 32, 1]), ("three", [0, 1, 1, 12]),
                             ("back", [0, 12]))]  # fmt: skip
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "first_1"], ["c0"], **same),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "conv_1"], ["c1"], strides=[2, 2], **same),
        helper.make_node("Conv", ["c1", "grouped_1"], ["c2"], group=4, dilations=[2, 2],
                         pads=[2, 2, 2, 2]),
        helper.make_node("Conv", ["c2", "depthwise_1"], ["c3"], group=16, **same),
        helper.make_node("ConvTranspose", ["c3", "transposed_0"], ["c4"], strides=[2, 2]),
        helper.make_node("AveragePool", ["c4"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "gemm_0"], ["g0"]),
        helper.make_node("Relu", ["g0"], ["r1"]),
        helper.make_node("Gemm", ["r1", "gemm_1"], ["g1"], transB=1),
        helper.make_node("Reshape", ["g1", "column"], ["col"]),
        helper.make_node("MatMul", ["left_1", "col"], ["l"]),
        helper.make_node("Reshape", ["l", "back"], ["lb"]),
        helper.make_node("MatMul", ["lb", "right_0"], ["m"]),
        helper.make_node("Unsqueeze", ["m", "axes"], ["u"]),
        helper.make_node("MatMul", ["u", "batched_1"], ["b"]),
        helper.make_node("MatMul", ["b", "odd_0"], ["y"]),
    ]  # fmt: skip
    tensors.append(numpy_helper.from_array(np.array([1, 2], np.int64), "axes"))
    graph = helper.make_graph(
        nodes,
        "layouts",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 1, 6])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def images(count: int = 80) -> np.ndarray:
    return np.random.default_rng(5).standard_normal((count, 3, 8, 8)).astype(np.float32)


def given(options: dict[str, Any], x: np.ndarray) -> dict[str, Any]:
    """Options with the samples in place of True."""
    return {**options, **({"calibrate": x} if options.get("calibrate") else {})}


# ---- N:M -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", CRITERIA, ids=str)
def test_two_of_four_in_every_layout(options: dict[str, Any]) -> None:
    dense = network()
    assert outputs(dense, images(2)).shape == (2, 3, 1, 6)
    result = onnxprune.prune(dense, pattern="2:4", check=False, **given(options, images()))
    proto = result.to_proto()
    for row in result.report.layers:
        axis, w = int(row.layer[-1]), weight(proto, row.layer)
        assert row.kept == np.count_nonzero(w)
        assert row.threshold is None
        if w.shape[axis] % 4:
            assert np.array_equal(w, weight(dense, row.layer))
            assert f"its input axis of {w.shape[axis]} is no multiple of 4" in row.note
        else:
            assert most_in_groups(w, axis, 4) == 2
            assert row.kept == row.weights // 2
    skipped = [row.layer for row in result.report.layers if row.kept == row.weights]
    assert skipped == ["first_1", "depthwise_1"]
    assert result.report.pattern == "2:4" and result.report.sparsity is None
    assert "(pattern 2:4)" in str(result.report)


@pytest.mark.parametrize("pattern", ["1:4", "3:4", "1:2", "4:8", "5:20"])
@pytest.mark.parametrize("options", [{}, {"calibrate": True}], ids=str)
def test_other_groups(pattern: str, options: dict[str, Any]) -> None:
    keep, of = map(int, pattern.split(":"))
    result = onnxprune.prune(network(), pattern=pattern, check=False, **given(options, images()))
    pruned = [row for row in result.report.layers if row.kept < row.weights]
    assert pruned
    for row in pruned:
        w = weight(result.to_proto(), row.layer)
        assert most_in_groups(w, int(row.layer[-1]), of) == keep
        assert row.kept * of == row.weights * keep


def test_the_largest_of_every_group_stay() -> None:
    dense = mlp(SIZES)
    found = onnxprune.prune(dense, pattern="2:4").to_proto()
    for i in range(3):
        before, after = weight(dense, f"fc{i}.weight"), weight(found, f"fc{i}.weight")
        for old, new in zip(before.reshape(-1, 4), after.reshape(-1, 4), strict=True):
            least = np.argsort(np.abs(old))[:2]
            expected = old.copy()
            expected[least] = 0
            assert np.array_equal(new, expected)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64", "int8"])
def test_element_types(kind: str) -> None:
    dense, name = mlp((24, 16)), "fc0.weight"
    tensor = dense.graph.initializer[0]
    values = numpy_helper.to_array(tensor)
    if kind == "int8":
        codes = np.clip(np.round(values * 30) + 5, -128, 127).astype(np.int8)
        tensor.CopyFrom(numpy_helper.from_array(codes, "codes"))
        dense.graph.initializer.append(numpy_helper.from_array(np.float32(1 / 30), "scale"))
        dense.graph.initializer.append(numpy_helper.from_array(np.int8(5), "zero"))
        dense.graph.node.insert(
            0, helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], [name])
        )
        name, zero = "codes", 5
    else:
        dtype = ml_dtypes.bfloat16 if kind == "bfloat16" else np.dtype(kind)
        tensor.CopyFrom(numpy_helper.from_array(values.astype(dtype), name))
        zero = 0
    found = weight(onnxprune.prune(dense, pattern="2:4", check=False).to_proto(), name)
    before = weight(dense, name)
    for old, new in zip(before.reshape(-1, 4), found.reshape(-1, 4), strict=True):
        distance = np.abs(old.astype(np.float64) - zero)
        order = np.argsort(-distance, kind="stable")
        assert (new[order[:2]] == old[order[:2]]).all()
        assert (new[order[2:]] == zero).all()


def test_recurrent_weights_and_bodies_follow_it_too() -> None:
    proto = branching()
    found = onnxprune.prune(proto, pattern="1:2", check=False)
    rows = {row.layer: row for row in found.report.layers}
    rnn = weight(found.to_proto(), "rnn")  # [directions, outputs, inputs]
    assert most_in_groups(rnn, 2, 2) == 1
    assert all(row.kept * 2 == row.weights for row in rows.values())


def test_views_that_hide_the_axis_and_tables_are_left_alone() -> None:
    random = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(random.standard_normal(s).astype(np.float32), n)
        for n, s in (("table", (20, 8)), ("folded", (4, 16)))
    ]
    tensors.append(numpy_helper.from_array(np.array([8, 8]), "shape"))
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["e"]),
        helper.make_node("Reshape", ["folded", "shape"], ["w"]),
        helper.make_node("MatMul", ["e", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tables",
        [helper.make_tensor_value_info("i", TensorProto.INT64, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        tensors,
    )
    dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = onnxprune.prune(dense, pattern="2:4", embeddings=True)
    notes = {row.layer: row.note for row in result.report.layers}
    assert "looked up, not multiplied (pattern 2:4)" in notes["table"]
    assert "a view hides along which axis its inputs run" in notes["folded"]
    assert result.report.kept == result.report.weights


def test_a_weight_summed_over_two_axes_has_no_pattern() -> None:
    w = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Gemm", ["h", "w"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tied",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(w, "w")],
    )
    dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (row,) = onnxprune.prune(dense, pattern="2:4").report.layers
    assert "its users sum over different axes (pattern 2:4)" in row.note


def test_groups_that_straddle_those_of_a_convolution_are_settled_beforehand() -> None:
    """ConvTranspose stores the inputs of all groups along one axis: 2 each are half a group."""
    random = np.random.default_rng(0)
    w = random.standard_normal((8, 3, 2, 2)).astype(np.float32)
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=4)
    graph = helper.make_graph(
        [node],
        "t",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 12, 6, 6])],
        [numpy_helper.from_array(w, "w")],
    )
    dense = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    x = random.standard_normal((64, 8, 5, 5)).astype(np.float32)
    for criterion in ("wanda", "sparsegpt"):
        found = onnxprune.prune(dense, pattern="2:4", criterion=criterion, calibrate=x)  # type: ignore[arg-type]
        assert most_in_groups(weight(found.to_proto(), "w"), 0, 4) == 2


def test_training_holds_the_pattern() -> None:
    x = samples(128)
    result = onnxprune.prune(
        mlp(SIZES),
        pattern="2:4",
        calibrate=x,
        train={"x": x},
        finetune=onnxprune.FineTune(rounds=2, epochs=2, lr=1e-2),
    )
    for i in range(3):
        w = weight(result.to_proto(), f"fc{i}.weight")
        assert most_in_groups(w, 1, 4) == 2
        assert not np.array_equal(w, np.where(w != 0, weight(mlp(SIZES), f"fc{i}.weight"), 0))
    # The second round finds the pattern there already: the report tells of the first.
    assert result.report.repair.choice.endswith("(sparsegpt) in groups 2:4")
    assert {row.method for row in result.report.repair.rows} == {"refit"}
    rounds = next(line for line in str(result.report).splitlines() if line.startswith("round "))
    assert "quality" not in rounds and "zeros" in rounds


def test_plain_tensors_are_recommended(tmp_path: Path) -> None:
    result = onnxprune.prune(mlp((64, 64, 64)), pattern="2:4")
    said = "as TensorRT does, reads plain tensors: write them with --format dense"
    assert any(said in note for note in result.report.notes)
    report = onnxprune.prune(mlp((64, 64, 64)), pattern="2:4", format="dense").save(
        tmp_path / "m.onnx"
    )
    assert report.notes == ()
    found = onnx.load(tmp_path / "m.onnx")
    assert most_in_groups(weight(found, "fc0.weight"), 1, 4) == 2


# ---- blocks ----------------------------------------------------------------------------------


def blocks_of(w: np.ndarray, inputs: int, rows: int, columns: int) -> list[np.ndarray]:
    """All blocks of outputs x inputs of a stored weight, edges included, by plain slices."""
    outputs_axis = 1 - inputs if w.ndim in (2, 4) else 2
    moved = np.moveaxis(w, (outputs_axis, inputs), (0, 1)).reshape(
        w.shape[outputs_axis], w.shape[inputs], -1
    )
    return [
        moved[r : r + rows, c : c + columns, tap]
        for r in range(0, moved.shape[0], rows)
        for c in range(0, moved.shape[1], columns)
        for tap in range(moved.shape[2])
    ]


@pytest.mark.parametrize("options", CRITERIA, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(4, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_blocks_go_and_stay_together(
    options: dict[str, Any], rows: int, columns: int, scope: Any
) -> None:
    result = onnxprune.prune(
        network(),
        pattern=f"{rows}x{columns}",
        sparsity=0.6,
        scope=scope,
        check=False,
        **given(options, images()),
    )
    for row in result.report.layers:
        w = weight(result.to_proto(), row.layer)
        assert row.kept == np.count_nonzero(w)
        if w.ndim == 3:
            parts = [b for one in w for b in blocks_of(one, 0, rows, columns)]
        else:
            parts = blocks_of(w, int(row.layer[-1]), rows, columns)
        assert all(part.all() or not part.any() for part in parts)
        if scope == "layer":
            largest = rows * columns / row.weights
            assert 1 - row.kept / row.weights == pytest.approx(0.6, abs=largest)
    assert 1 - result.report.kept / result.report.weights == pytest.approx(0.6, abs=0.02)


def test_blocks_by_quality_are_compared_by_their_root_mean_square() -> None:
    dense = mlp(SIZES)
    result = onnxprune.prune(dense, pattern="4x1", quality=0.8, layers={"fc1*": 1.2, "fc2*": None})
    for i, q in enumerate((0.8, 1.2)):
        before, after = weight(dense, f"fc{i}.weight"), weight(result.to_proto(), f"fc{i}.weight")
        limit = q * before[before != 0].std()
        assert result.report.layers[i].threshold == pytest.approx(limit, rel=1e-6)
        for start in range(0, len(before), 4):
            part = before[start : start + 4]
            gone = np.sqrt((part.astype(np.float64) ** 2).mean(axis=0)) < limit
            assert np.array_equal(after[start : start + 4], np.where(gone, 0, part))
    assert np.array_equal(weight(result.to_proto(), "fc2.weight"), weight(dense, "fc2.weight"))
    assert "(quality 0.8, blocks 4x1)" in str(result.report)


# ---- both doors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "--pattern 2:4",
        "--pattern 4x1 --sparsity 0.5 --scope layer",
        "--pattern 1:4 --calibrate x.npz",
        "--sparsity 0.7 --criterion wanda --calibrate x.npz",
        "--sparsity 0.7 --scope layer --criterion sparsegpt --calibrate x.npz --repair none",
        "--pattern 2:4 --criterion sparsegpt --calibrate x.npz --repair match",
    ],
)
def test_both_doors_give_the_same_file(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(mlp(SIZES), tmp_path / "m.onnx")
    np.savez("x.npz", x=samples())
    assert main(["m.onnx", *line.split(), "-o", "a.onnx", "--json", "a.json", "--quiet"]) == 0
    words = line.split()
    options: dict[str, Any] = {
        words[at].removeprefix("--"): words[at + 1] for at in range(0, len(words), 2)
    }
    if "sparsity" in options:
        options["sparsity"] = float(options["sparsity"])
    onnxprune.prune("m.onnx", **options).save("b.onnx")
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    facts = json.loads(Path("a.json").read_text())
    assert facts["criterion"] == options.get("criterion")
    assert facts["pattern"] == options.get("pattern")


@pytest.mark.parametrize(
    ("options", "choice"),
    [
        ({"pattern": "2:4"}, "least loss that the others make up for (sparsegpt) in groups 2:4"),
        (
            {"pattern": "1:4", "criterion": "wanda"},
            "least magnitude x norm of its input (wanda) in groups 1:4, in 3 steps",
        ),
        (
            {"pattern": "2:4", "criterion": "magnitude", "repair": "match"},
            "least magnitude in groups 2:4",
        ),
        (
            {"sparsity": 0.5, "scope": "layer", "criterion": "wanda"},
            "least magnitude x norm of its input (wanda) within every output",
        ),
        (
            {"sparsity": 0.6, "criterion": "magnitude"},
            "least magnitude over all layers, in 2 steps",
        ),
        (
            {"sparsity": 0.5, "pattern": "4x1"},
            "least magnitude x norm of its input (wanda) in blocks 4x1 over all layers",
        ),
        (
            {"quality": 0.5, "pattern": "4x1"},
            "root mean square of blocks 4x1 under 0.5 x standard deviation",
        ),
    ],
)
def test_the_report_says_what_chose(options: dict[str, Any], choice: str) -> None:
    report = onnxprune.prune(mlp(SIZES), calibrate=samples(), **options).report
    assert report.repair is not None and report.repair.choice == choice


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sparsity": 0.5, "criterion": "wanda"}, "criterion wanda looks at the inputs of layers"),
    ({"pattern": "2:4", "criterion": "sparsegpt"}, "give samples of the model's inputs as calibr"),
    ({"criterion": "wanda"}, "criterion wanda ranks weights, and a quality is a threshold"),
    ({"quality": 1.0, "criterion": "sparsegpt"}, "give a sparsity, or a pattern such as 2:4"),
    ({"sparsity": 0.5, "criterion": "taste"}, "criterion 'taste' is unknown"),
    ({"pattern": "2:4", "sparsity": 0.5}, "keeps 2 of every 4 weights whatever the sparsity"),
    ({"pattern": "2:4", "quality": 1.0}, "keeps 2 of every 4 weights whatever the quality"),
    ({"pattern": "2:4", "scope": "layer"}, "scope layer says what meets a target sparsity"),
    ({"pattern": "2:4", "layers": {"fc0*": 0.5}}, "the layers 'fc0*' have a quality"),
    ({"pattern": "4"}, "pattern '4' is none: write N:M"),
    ({"pattern": "4:2"}, "keeps 4 of 2"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_makes_no_sense_is_refused(
    options: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError) as failure:
        onnxprune.prune(mlp(), **options)
    assert words in str(failure.value)
    line = [str(saved(mlp(), tmp_path / "m.onnx"))]
    for name, value in options.items():
        if name == "layers":
            line += ["--layer", "fc0*=0.5"]
        else:
            line += [f"--{name}", str(value)]
    if options.get("criterion") == "taste":
        words = '"taste"'
    assert words in refused(line, tmp_path, capsys, code=2)


def test_layers_can_be_switched_off_beside_a_pattern() -> None:
    dense = mlp(SIZES)
    result = onnxprune.prune(dense, pattern="2:4", layers={"fc0*": None}, exclude=["fc1*"])
    for name in ("fc0.weight", "fc1.weight"):
        assert np.array_equal(weight(result.to_proto(), name), weight(dense, name))
    assert most_in_groups(weight(result.to_proto(), "fc2.weight"), 1, 4) == 2
