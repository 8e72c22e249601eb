from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.errors import ModelError
from onnxprune.model.load import load, parse
from onnxprune.model.tensors import TensorAddress
from tests.builders import arrays, mlp, saved


@pytest.mark.parametrize("external", [False, True])
def test_values_are_those_of_the_file(tmp_path: Path, external: bool) -> None:
    proto = mlp((24, 300, 10))
    model = load(saved(proto, tmp_path / "m.onnx", external=external))
    assert model.origin.external == external
    for name, values in arrays(mlp((24, 300, 10))).items():
        np.testing.assert_array_equal(model.array(model.tensors[TensorAddress((), name)]), values)
    files = list(tmp_path.iterdir())
    assert model.origin.file_bytes == sum(file.stat().st_size for file in files)
    assert set(model.origin.files) == set(files)


def test_big_tensors_are_not_in_the_message(tmp_path: Path) -> None:
    model = load(saved(mlp((500, 500)), tmp_path / "m.onnx"))
    assert model.proto.ByteSize() < 3000


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "is empty"),
        (b"not a model, just text\n" * 9, "not an ONNX model"),
        (b"\x08\x07", "no graph"),
        (onnx.ModelProto(ir_version=8, graph=onnx.GraphProto(name="g")).SerializeToString(),
         "no nodes"),
        (mlp().SerializeToString()[:-100], "cut short"),
        (mlp((64, 64)).SerializeToString()[:5000], "cut short"),
    ],
)  # fmt: skip
def test_unreadable_files(tmp_path: Path, data: bytes, match: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=match) as caught:
        load(path)
    assert "bad.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_folder_or_special_file(tmp_path: Path) -> None:
    for path, match in (
        (tmp_path / "no.onnx", "cannot read"),
        (tmp_path, "is a folder"),
        (Path("/dev/null"), "not a regular file"),
        (Path("nul\0.onnx"), "is no path"),
    ):
        with pytest.raises(ModelError, match=match):
            load(path)


def test_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.onnx")
    with pytest.raises(ModelError, match="not a regular file"):
        load(tmp_path / "fifo.onnx")


def test_unreadable_rights(tmp_path: Path) -> None:
    path = saved(mlp(), tmp_path / "m.onnx")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(ModelError, match="Permission denied"):
        load(path)


def with_tensor(**changes: object) -> memoryview:
    model = mlp((24, 40, 10))
    tensor = model.graph.initializer[0]
    for name, value in changes.items():
        if name == "dims":
            tensor.dims[:] = value  # type: ignore[assignment]
        else:
            setattr(tensor, name, value)
    return memoryview(model.SerializeToString())


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dims": [-1, 24]}, "negative dimension"),
        ({"dims": [2**40, 2**40]}, "where its shape needs"),
        ({"dims": [40, 25]}, "3,840 bytes where its shape needs 4,000"),
        ({"data_type": 99}, "unknown element type"),
        ({"data_type": 0}, "unknown element type"),
    ],
)
def test_absurd_tensors(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ModelError, match=match) as caught:
        parse(with_tensor(**changes))
    assert "fc0.weight" in str(caught.value)


def test_small_tensors_are_checked_too() -> None:
    proto = mlp((3, 2))
    proto.graph.initializer[0].raw_data = b"123"
    with pytest.raises(ModelError, match="3 bytes where its shape needs 24"):
        parse(memoryview(proto.SerializeToString()))


def test_cycles_are_refused_and_disorder_is_not() -> None:
    nodes = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Relu", ["b"], ["a"])]
    cyclic = helper.make_model(helper.make_graph(nodes, "g", [], []))
    with pytest.raises(ModelError, match="cycle through node"):
        parse(memoryview(cyclic.SerializeToString()))
    unsorted = mlp()
    nodes = list(unsorted.graph.node)[::-1]
    del unsorted.graph.node[:]
    unsorted.graph.node.extend(nodes)
    parse(memoryview(unsorted.SerializeToString()))


def test_two_nodes_that_compute_the_same_value_are_refused() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Abs", ["x"], ["a"], "abs")]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    with pytest.raises(ModelError, match=r"'a' is computed by two nodes, '0' \(Relu\) and 'abs'"):
        parse(memoryview(model.SerializeToString()))
    split = [helper.make_node("Split", ["x"], ["a", "", "", "a"], axis=0)]
    model = helper.make_model(helper.make_graph(split, "g", [], []))
    with pytest.raises(ModelError, match="'a' is computed by two nodes"):
        parse(memoryview(model.SerializeToString()))


@pytest.mark.parametrize("sparse", [False, True])
def test_what_is_stored_twice_is_refused(sparse: bool) -> None:
    """onnxruntime takes the second, others the first, and the checker nothing."""
    model = mlp((24, 40))
    twin = numpy_helper.from_array(np.ones((40, 24), np.float32), "fc0.weight")
    if sparse:
        values = numpy_helper.from_array(np.ones(1, np.float32), "fc0.weight")
        indices = numpy_helper.from_array(np.array([7]))
        model.graph.sparse_initializer.add(values=values, indices=indices, dims=[40, 24])
    else:
        model.graph.initializer.append(twin)
    with pytest.raises(ModelError, match=r"'fc0\.weight' is stored twice"):
        parse(memoryview(model.SerializeToString()))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_node_that_computes_what_is_stored_is_refused(sparse: bool) -> None:
    model = mlp((3, 2, 4))
    if sparse:
        model = onnxprune.prune(mlp((30, 20, 4)), sparsity=0.95, check=False).to_proto("sparse")
        assert len(model.graph.sparse_initializer) > 0
    name = model.graph.node[0].input[1]
    model.graph.node[-1].output[0] = name
    match = rf"'{name}' is stored in the model and computed by node '.*' \(Gemm\); export"
    with pytest.raises(ModelError, match=match):
        parse(memoryview(model.SerializeToString()))


@pytest.mark.parametrize(("domain", "second"), [("", ""), ("", "ai.onnx"), ("local", "local")])
def test_an_operator_set_in_two_versions_is_refused(domain: str, second: str) -> None:
    model = mlp((3, 2))
    del model.opset_import[:]
    model.opset_import.add(domain=domain, version=17)
    model.opset_import.add(domain=second, version=17)
    parse(memoryview(model.SerializeToString()))
    model.opset_import[1].version = 13
    match = f"operator set '{domain or 'ai.onnx'}' is imported in versions 17 and 13"
    with pytest.raises(ModelError, match=match):
        parse(memoryview(model.SerializeToString()))


def test_a_node_that_computes_an_input_is_refused() -> None:
    call = [helper.make_node("Relu", ["x"], ["x"])]
    function = helper.make_function("own", "f", ["x"], ["x"], call, [helper.make_opsetid("", 18)])
    graph = helper.make_graph([helper.make_node("f", ["a"], ["b"], domain="own")], "g", [], [])
    model = helper.make_model(graph, functions=[function])
    with pytest.raises(ModelError, match="'x' is an input and computed by node '0'"):
        parse(memoryview(model.SerializeToString()))
    model = helper.make_model(helper.make_graph(call, "g", [values("x")], []))
    with pytest.raises(ModelError, match="'x' is an input and computed by node '0'"):
        parse(memoryview(model.SerializeToString()))


def values(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])


def test_four_bit_types_keep_their_packing() -> None:
    packed = TensorProto(name="w", data_type=TensorProto.INT4, dims=[3], raw_data=b"\x9f\x07")
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [], [packed])
    model = parse(memoryview(helper.make_model(graph).SerializeToString()))
    values = model.array(model.proto.graph.initializer[0])
    np.testing.assert_array_equal(values.astype(int), [-1, -7, 7])
    np.testing.assert_array_equal(values, numpy_helper.to_array(packed))


def test_zoo_loads_with_the_values_of_onnx(zoo: Path) -> None:
    for path in sorted(zoo.glob("*.onnx")):
        model = load(path)
        for name, values in arrays(onnx.load(path)).items():
            tensor = model.tensors[TensorAddress((), name)]
            np.testing.assert_array_equal(model.array(tensor), values)
