"""The removal: what it keeps of a model, what it refuses, what it shares again."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper, parser

from onnxprune.errors import UsageError
from onnxprune.structure.analysis import analyse
from onnxprune.structure.groups import find_groups, indices
from onnxprune.structure.removal import remove, remove_coupled
from tests.builders import arrays, mlp
from tests.structure.graphs import Case, built, feed, ints
from tests.structure.proof import compare, half, prove, run

CONVS = {"w": (8, 4, 1, 1), "k": (8, 8, 1, 1), "b": (8,), "v": (3, 8, 1, 1)}
TWO = "h = Conv(x, w, b)\na = Relu(h)\nc = Conv(a, k, b)\nd = Relu(c)\ny = Conv(d, v)"


def test_names_opset_and_metadata_stay() -> None:
    model = mlp((6, 8, 3), opset=15)
    model.producer_name, model.doc_string, model.graph.doc_string = "maker", "about", "graph"
    helper.set_model_props(model, {"key": "value"})
    (group,) = find_groups(analyse(model))
    before = model.SerializeToString()
    smaller = remove(model, group.atoms[:3].tolist())
    assert model.SerializeToString() == before
    for name in ("producer_name", "doc_string", "ir_version", "opset_import", "metadata_props"):
        assert getattr(smaller, name) == getattr(model, name)
    assert smaller.graph.doc_string == "graph" and smaller.graph.name == model.graph.name
    assert [n.name for n in smaller.graph.node] == [n.name for n in model.graph.node]
    assert smaller.graph.input == model.graph.input and smaller.graph.output == model.graph.output
    for name, array in arrays(model).items():
        axis = {"fc0.weight": 0, "fc0.bias": 0, "fc1.weight": 1}.get(name)
        rest = array if axis is None else np.delete(array, [0, 1, 2], axis)
        np.testing.assert_array_equal(arrays(smaller)[name], rest)


def test_without_atoms_nothing_changes() -> None:
    model = built(Case(TWO, CONVS, []))
    assert remove(model, []).SerializeToString() == model.SerializeToString()


#: Calls from h, [N, 8, 6, 6], that say the right thing whatever channels are left.
UNTOUCHED = {
    "Reshape(h, i)": (0, -1, 6, 6),
    "Reshape(h, zeros)": (),
    "Slice(h, zero, i, axis)": (5,),
    "Split<axis=2>(h, i)": (6,),
    "Pad(h, i)": (0, 0, 1, 0, 0, 0, 0, 0),
    "Expand(h, i)": (1, 1, 1, 1),
    "Tile(h, i)": (1, 1, 2, 1),
    "Gather<axis=3>(h, i)": (2, 1),
    "Resize<axes=[2,3]>(h, , , i)": (12, 9),
}


@pytest.mark.parametrize("call", UNTOUCHED)
def test_nodes_that_still_hold_stay(call: str) -> None:
    lines = f"h = Conv(x, w, b)\na = {call}\nc = GlobalMaxPool(a)\ny = Conv(c, v)"
    given = {"i": np.array(UNTOUCHED[call], np.int64), "zero": np.zeros(1, np.int64),
             "axis": np.array([2]), "zeros": np.array([0, 0, 0, 6])}  # fmt: skip
    model = built(Case(lines, {**CONVS, **given}, [], opset=18))
    (group,) = find_groups(analyse(model))
    smaller = remove(model, half(group))
    assert list(smaller.graph.node) == list(model.graph.node)


def test_an_axis_is_never_emptied() -> None:
    model = mlp((6, 8, 3))
    (group,) = find_groups(analyse(model))
    with pytest.raises(UsageError, match=r"leave nothing of axis . of 'fc0"):
        remove(model, group.atoms.tolist())


def test_shapes_that_are_declared_are_the_new_ones() -> None:
    """An inference that starts from nothing agrees, and needs none of them; open axes stay open."""
    model = onnx.shape_inference.infer_shapes(built(Case(TWO, CONVS, [], free=(1, 2))))
    model.graph.value_info[0].type.tensor_type.shape.dim.add().dim_value = 1  # no shape it has
    assert [info.name for info in model.graph.value_info] == ["h", "a", "c", "d"]
    groups = find_groups(analyse(model))
    smaller = remove(model, groups[0].atoms[:2].tolist())
    declared = list(smaller.graph.value_info)
    assert [info.name for info in declared] == ["a", "c", "d"]
    del smaller.graph.value_info[:]
    onnx.checker.check_model(smaller, full_check=True)
    found = onnx.shape_inference.infer_shapes(smaller, strict_mode=True).graph.value_info
    assert declared == [info for info in found if info.name != "h"]


def test_a_cut_axis_of_open_size_stays_open() -> None:
    """A run that is analysed has some batch; what is declared afterwards must not."""
    shapes = {"s": ints(7, -1, 4), "u": ints(-1, 4, 7, 4), "z": ints(-1, 7, 16)}
    nodes = """t = Transpose<perm=[1,0,2]>(x)
        h = MatMul(t, w)
        a = Reshape(h, s)
        b = Transpose<perm=[1,0,2]>(a)
        c = Reshape(b, u)
        d = Transpose<perm=[0,2,1,3]>(c)
        e = Reshape(d, z)
        y = MatMul(e, v)"""
    case = Case(nodes, {"w": (16, 16), "v": (16, 3)} | shapes, [], sample=(7, 16))
    model = onnx.shape_inference.infer_shapes(built(case))
    dims = {info.name: info.type.tensor_type.shape.dim for info in model.graph.value_info}
    dims["a"][1].dim_param = dims["b"][0].dim_param = "4*N"
    coupling = analyse(model)
    cut = 0
    for group in find_groups(coupling):
        smaller = compare(model, coupling, half(group), [feed(case, batch) for batch in (1, 3)])
        for info in smaller.graph.value_info:
            for dim, was in zip(info.type.tensor_type.shape.dim, dims[info.name], strict=True):
                assert not dim.dim_value or was.dim_value
                cut += was.dim_param == "4*N" and dim.dim_param != "4*N"
    assert cut == 2


@pytest.mark.parametrize("ir_version", [3, 8])
def test_a_shared_vector_is_copied_only_where_it_differs(ir_version: int) -> None:
    model = built(Case(TWO, CONVS, [], opset=8, ir_version=ir_version))
    coupling = analyse(model)
    one, two = find_groups(coupling)
    assert "b" in {member.tensor for member in one.members}
    smaller = remove(model, one.atoms[:2].tolist())
    assert {t.name for t in smaller.graph.initializer} == {"w", "k", "b", "v", "b_copy"}
    both = [*one.atoms[:2].tolist(), *two.atoms[:2].tolist()]
    shared = remove(model, both)
    assert {t.name for t in shared.graph.initializer} == {"w", "k", "b", "v"}
    stored = {t.name: list(t.dims) for t in shared.graph.initializer}
    if ir_version == 3:
        declared = {i.name: i.type.tensor_type.shape.dim for i in shared.graph.input}
        assert [d.dim_value for d in declared["b"]] == stored["b"] == [6]
    compare(model, coupling, both, [feed(Case(TWO, CONVS, []), 2)])


SIZED = "z = Shape(x)\nn = Slice(z, zero, one)\ns = Concat<axis=0>(n, rest)\n"
SHARED = {
    "equal numbers": ("", np.full((5, 8), 0.5, np.float32)),
    "equal numbers in a node": ("f = Constant<value_float=0.5>()\n", None),
    "a vector in a node": (
        "f = Constant<value_floats=[1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0]>()\n",
        None,
    ),
    "a number repeated": (f"{SIZED}f = Expand(half, s)\n", None),
    "zeros of a shape": (f"{SIZED}f = ConstantOfShape(s)\n", None),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_two_groups_read_does_not_tie_them(name: str) -> None:
    made, stored = SHARED[name]
    case = Case(
        f"h = MatMul(x, w)\nk = MatMul(x, u)\n{made}a = Add(h, f)\nb = Add(k, f)\n"
        "c = MatMul(a, v)\nd = MatMul(b, t)\ny = Add(c, d)",
        {
            "w": (6, 8), "u": (6, 8), "v": (8, 3), "t": (8, 3), "zero": ints(0), "one": ints(1),
            "rest": ints(5, 8), "half": np.float32(0.5),
            **({} if stored is None else {"f": stored}),
        },
        [8, 8], (5, 6),
    )  # fmt: skip
    model = built(case)
    coupling = prove(model, lambda batch: feed(case, batch), [8, 8])
    one, two = find_groups(coupling)
    alike = remove(model, [*half(one), *half(two)])  # one serves both again
    assert {t.name for t in alike.graph.initializer} <= {t.name for t in model.graph.initializer}


def test_a_matrix_with_one_other_number_ties_what_reads_it() -> None:
    array = np.full((5, 8), 0.5, np.float32)
    array[2, 3] = 1
    case = Case(
        "h = MatMul(x, w)\nk = MatMul(x, u)\na = Add(h, f)\nb = Add(k, f)\n"
        "c = Concat<axis=-1>(a, b)\ny = MatMul(c, v)",
        {"w": (6, 8), "u": (6, 8), "v": (16, 3), "f": array}, [8], (5, 6),
    )  # fmt: skip
    prove(built(case), lambda batch: feed(case, batch), [8])


def test_a_constant_node_keeps_its_form() -> None:
    numbers = ",".join(map(str, map(float, range(8))))
    case = Case(
        f"h = MatMul(x, w)\nc = Constant<value_floats=[{numbers}]>()\na = Mul(h, c)\n"
        "y = MatMul(a, v)",
        {"w": (6, 8), "v": (8, 3)},
        [8],
        (6,),
    )
    model = built(case)
    (group,) = find_groups(analyse(model))
    smaller = remove(model, group.atoms[[0, 2, 4]].tolist())
    (attribute,) = next(n for n in smaller.graph.node if n.op_type == "Constant").attribute
    assert attribute.name == "value_floats" and list(attribute.floats) == [1, 3, 5, 6, 7]


def test_half_and_bfloat_weights() -> None:
    for dtype in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
        model = mlp((6, 8, 3))
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                helper.make_tensor(tensor.name, dtype, array.shape, array.reshape(-1).tolist())
            )
        for info in (*model.graph.input, *model.graph.output):
            info.type.tensor_type.elem_type = dtype
        (group,) = find_groups(analyse(model))
        smaller = remove(model, group.atoms[::2].tolist())
        assert {t.data_type for t in smaller.graph.initializer} == {dtype}
        onnx.checker.check_model(smaller, full_check=True)
        kept = numpy_helper.to_array(smaller.graph.initializer[0])
        whole = numpy_helper.to_array(model.graph.initializer[0])
        np.testing.assert_array_equal(kept, whole[1::2])


def with_function() -> ModelProto:
    model = parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        graph (float[N, 6] x) => (float[N, 3] y) {
            h = own.layer(x, w)
            y = MatMul(h, v)
        }
        <domain: "own", opset_import: ["" : 17]>
        layer (a, b) => (d) { c = MatMul(a, b)  d = Relu(c) }
        """
    )
    random = np.random.default_rng(0)
    for name, shape in (("w", (6, 8)), ("v", (8, 3))):
        values = random.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def test_functions_are_inlined() -> None:
    coupling = prove(
        with_function(), lambda n: {"x": np.ones((n, 6), np.float32)}, [8], batches=(2,)
    )
    (group,) = find_groups(coupling)
    smaller = remove(with_function(), group.atoms[:4].tolist())
    assert not smaller.functions and arrays(smaller)["w"].shape == (6, 4)


def test_nothing_removed_is_nothing_changed() -> None:
    model = with_function()
    assert remove(model, []) == model and remove(model, []) is not model


def test_an_analysis_serves_many_removals() -> None:
    case = Case(TWO, CONVS, [])
    model = built(case)
    coupling = analyse(model)
    for group in find_groups(coupling):
        first, second = remove_coupled(model, coupling, half(group)), remove(model, half(group))
        assert first.SerializeToString() == second.SerializeToString()
        for member in group.members:
            gone = indices(coupling, member, half(group))
            assert gone.tolist() == [True, False] * 4
    run(model, feed(case, 1))


def test_shape_arithmetic_reads_the_original_sizes() -> None:
    """A Shape whose result stays open still says 8 where 4 channels are left."""
    case = Case(
        "h = Conv(x, w, b)\ns = Shape(h)\nf = Cast<to=1>(s)\nn = ReduceProd(f)\n"
        "a = Mul(h, n)\ny = Conv(a, v)",
        CONVS,
        [8],
        free=(1, 2),
    )
    coupling = prove(built(case), lambda batch: feed(case, batch), [8])
    (group,) = find_groups(coupling)
    smaller = remove(built(case), half(group))
    assert {"Mul", "Div"} <= {node.op_type for node in smaller.graph.node}


def test_shape_arithmetic_that_never_changes_becomes_constants() -> None:
    case = Case(
        "h = MatMul(x, w)\nz = Shape(h)\nn = Gather(z, last)\nf = Cast<to=1>(n)\nr = Sqrt(f)\n"
        "a = Div(h, r)\ny = MatMul(a, v)",
        {"w": (6, 8), "v": (8, 3), "last": np.array(1)},
        [8],
        (6,),
    )
    coupling = prove(built(case), lambda batch: feed(case, batch), [8])
    smaller = remove(built(case), half(find_groups(coupling)[0]))
    assert [n.op_type for n in smaller.graph.node] == ["Constant", "MatMul", "Div", "MatMul"]
    (root,) = (numpy_helper.to_array(n.attribute[0].t) for n in smaller.graph.node[:1])
    assert root == np.sqrt(np.float32(8))
