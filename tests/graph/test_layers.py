"""Layer discovery: where weights hide, who shares them, and what is refused with which words."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.graph.layers import find_layers
from onnxprune.model.model import Model

F = np.float32
MATRIX = np.ones((3, 4), F)
KERNEL = np.ones((4, 3, 2, 2), F)
HEAD = "g (float[M, K] x) => (float[N] y)"


def names(scan):
    return [layer.name for layer in scan.layers]


def roles(scan):
    return {layer.name: layer.uses[0].roles for layer in scan.layers}


def reasons(scan):
    return {entry.name: entry.reason for entry in scan.unprunable}


VIEWS = [
    ("v = Identity(w)", {}, 17, ("input", "output")),
    ("v = Cast<to = 10>(w)", {}, 17, ("input", "output")),
    ("v = CastLike(w, x)", {}, 17, ("input", "output")),
    ("v = Transpose(w)", {}, 17, ("output", "input")),
    ("v = Transpose<perm = [1, 0]>(w)", {}, 17, ("output", "input")),
    ("u = Unsqueeze(w, a) v = Squeeze(u, a)", {"a": np.array([0])}, 17, ("input", "output")),
    ("u = Unsqueeze<axes = [0]>(w) v = Squeeze(u)", {}, 11, ("input", "output")),
    ("v = Reshape(w, a)", {"a": np.array([1, 3, 4])}, 17, ("input", "output")),
    ("v = Reshape(w, a)", {"a": np.array([3, 4, 1])}, 17, ("group", "input")),
    ("v = Reshape(w, a)", {"a": np.array([6, 2])}, 17, ("unknown", "unknown")),
    ("a = Constant<value_ints = [1, 3, 4]>() v = Reshape(w, a)", {}, 17, ("input", "output")),
    (
        "a = Constant<value_int = 0>() b = Reshape(a, m) u = Unsqueeze(w, b) v = Squeeze(u, b)",
        {"m": np.array([-1])},
        17,
        ("input", "output"),
    ),
    ("v = Reshape(w, x)", {}, 17, ("unknown", "unknown")),
    ("v = Reshape<shape = [3, 4]>(w)", {}, 1, ("input", "output")),
    ("v = Flatten(w)", {}, 17, ("input", "output")),
    ("v = Flatten<axis = 0>(w)", {}, 17, ("unknown", "unknown")),
    ("v = Slice(w, a, b)", {"a": np.array([1]), "b": np.array([3])}, 17, ("input", "output")),
    ("v, u = Split<axis = 1>(w)", {}, 13, ("input", "output")),
    ("t, v = Split<axis = 0, split = [1, 2]>(w)", {}, 11, ("input", "output")),
    ("v = Concat<axis = 0>(w, w)", {}, 17, ("input", "output")),
    ("u = Transpose(w) t = Identity(u) v = Transpose(t)", {}, 17, ("input", "output")),
]


@pytest.mark.parametrize(("steps", "arrays", "opset", "expected"), VIEWS)
def test_views_compose_onto_the_stored_tensor(build, steps, arrays, opset, expected):
    scan = find_layers(
        build(f"{HEAD} {{ {steps} y = MatMul(x, v) }}", opset=opset, w=MATRIX, **arrays)
    )
    assert roles(scan) == {"w": expected}
    assert not scan.unprunable


def test_initializers_listed_as_inputs_and_constant_nodes(build):
    text = """g (float[M, 3] x, float[3, 4] w) => (float[M, 2] y) {
        v = Constant<value = float[4, 2] {1, 2, 3, 4, 5, 6, 7, 8}>()
        h = MatMul(x, w)
        y = MatMul(h, v)
    }"""
    scan = find_layers(build(text, w=MATRIX))
    assert [(layer.name, layer.kind) for layer in scan.layers] == [
        ("w", "initializer"),
        ("v", "constant"),
    ]


BRANCHES = """g (float[M, 3] x, bool c) => (float[M, 4] y) {
    y = If (c) <
        then_branch = t () => (float[M, 4] a) {
            a = If (c) <
                then_branch = tt () => (float[M, 4] d) { d = MatMul(x, outer) },
                else_branch = te () => (float[M, 4] e)
                    <float[3, 4] own = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
                    { e = MatMul(x, own) }
            >
        },
        else_branch = e () => (float[M, 4] b)
            <float[3, 4] outer = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
            { b = MatMul(x, outer) }
    >
}"""


def test_bodies_capture_and_shadow(build):
    scan = find_layers(build(BRANCHES, outer=MATRIX))
    found = {layer.name: (layer.address.scope, layer.uses[0].node) for layer in scan.layers}
    assert found == {
        "outer": ((), "If_0.then_branch/If_0.then_branch/MatMul_0"),
        "own": (
            ("If_0.then_branch", "If_0.else_branch"),
            "If_0.then_branch/If_0.else_branch/MatMul_0",
        ),
        "If_0.else_branch/outer": (("If_0.else_branch",), "If_0.else_branch/MatMul_0"),
    }


def test_loop_and_scan_state_is_made_at_run_time_but_captures_are_found(build):
    text = """g (float[3, 3] x, int64 n, bool c) => (float[3, 3] y, float[3, 3] z) {
        y = Loop (n, c, s) <body = b (int64 i, bool k, float[3, 3] state)
            => (bool k2, float[3, 3] state2) {
            k2 = Identity(k)
            h = Conv(x, state)
            state2 = MatMul(h, w)
        }>
        z = Scan<num_scan_inputs = 1, body = d (float[3] row) => (float[3] out) {
            out = MatMul(row, v)
        }>(x)
    }"""
    scan = find_layers(
        build(text, w=np.ones((3, 3), F), v=np.ones((3, 3), F), s=np.ones((3, 3), F))
    )
    assert names(scan) == ["w", "v"]
    assert reasons(scan) == {"state": "made at run time: an input of body 'Loop_0.body'"}


DENSE = """<domain: "f", opset_import: ["" : 17, "f" : 1]>
    Dense (x, w) => (y) { t = Transpose(w) y = MatMul(x, t) }"""


def test_a_function_called_twice_has_two_weights(build):
    text = f"{HEAD} {{ h = f.Dense(x, v) y = f.Dense(h, w) }} {DENSE}"
    scan = find_layers(build(text, v=np.ones((4, 3), F), w=np.ones((5, 4), F)))
    assert roles(scan) == {"v": ("output", "input"), "w": ("output", "input")}
    assert {use.node for layer in scan.layers for use in layer.uses} == {
        "function f:Dense/MatMul_1"
    }


def test_functions_nest_and_constants_in_them_are_weights(build):
    text = f"""{HEAD} {{ y = f.Net(x, v) }} {DENSE}
    <domain: "f", opset_import: ["" : 17, "f" : 1]>
    Net (x, w) => (y) {{
        h = f.Dense(x, w)
        k = Constant<value = float[2, 2] {{1, 2, 3, 4}}>()
        y = f.Dense(h, k)
    }}"""
    scan = find_layers(build(text, v=MATRIX))
    assert [(str(layer.address), layer.shape) for layer in scan.layers] == [
        ("v", (3, 4)),
        ("function f:Net/k", (2, 2)),
    ]


def test_functions_that_only_view_are_looked_through(build):
    text = f"""{HEAD} {{ a = f.T(v) h = MatMul(x, a) b = f.T(w) y = MatMul(h, b) }}
    <domain: "f", opset_import: ["" : 17]>
    T (w) => (t) {{ t = Transpose(w) }}"""
    scan = find_layers(build(text, v=np.ones((4, 3), F), w=np.ones((5, 4), F)))
    assert roles(scan) == {"v": ("output", "input"), "w": ("output", "input")}
    assert all(len(layer.uses) == 1 for layer in scan.layers)


def test_a_function_fed_by_data_at_one_call_lists_that_call(build):
    text = f"""{HEAD} {{ h = f.Dense(x, w) k = ReduceMean(h) y = f.C(h, w) z = f.C(h, k) }} {DENSE}
    <domain: "f", opset_import: ["" : 17]>
    C (x, w) => (y) {{ y = Conv(x, w) }}"""
    scan = find_layers(build(text, w=MATRIX))
    assert names(scan) == ["w"]
    assert reasons(scan) == {"k": "made at run time by ReduceMean 'ReduceMean_1'"}


def test_recursive_functions_end(build):
    text = f"""{HEAD} {{ y = f.Loop(x, w) }}
    <domain: "f", opset_import: ["" : 17, "f" : 1]>
    Loop (x, w) => (y) {{ h = f.Loop(x, w) y = MatMul(h, w) }}"""
    assert names(find_layers(build(text, w=MATRIX))) == ["w"]


def test_one_tensor_used_twice_is_one_layer(build):
    text = f"{HEAD} {{ h = MatMul(x, w) t = Transpose(w) y = MatMul(h, t) }}"
    (layer,) = find_layers(build(text, w=MATRIX)).layers
    assert [(use.node, use.roles) for use in layer.uses] == [
        ("MatMul_0", ("input", "output")),
        ("MatMul_2", ("output", "input")),
    ]


OTHER_USES = [
    ("y = MatMul(x, w) z = Add(x, w)", "also used by Add 'Add_1' as something other than a weight"),
    ("y = Gemm(x, w, w)", "also used by Gemm 'Gemm_0' as something other than a weight"),
    ("y = MatMul(x, w) t = Identity(w) z = Mul(t, x)", "also used by Mul 'Mul_2'"),
    ("y = MatMul(x, w) z = Concat<axis = 0>(x, w)", "also used by Concat 'Concat_1'"),
    ("a = MatMul(x, w) y = Identity(w)", "also an output of the model ('y')"),
    ("y = MatMul(x, w) z = f.Bias(x, w)", "also used by Add 'function f:Bias/Add_0'"),
    ("v = f.T(w) y = MatMul(x, v) z = Add(v, x)", "also used by Add 'Add_2'"),
    ("y = MatMul(x, w) z = custom.Op(w)", "also used by Op 'Op_1'"),
]
FUNCTIONS = """
    <domain: "f", opset_import: ["" : 17]> Bias (x, b) => (y) { y = Add(x, b) }
    <domain: "f", opset_import: ["" : 17]> T (w) => (t) { t = Transpose(w) }"""


@pytest.mark.parametrize(("body", "words"), OTHER_USES)
def test_a_weight_with_another_role_is_refused(build, body, words):
    scan = find_layers(build(f"{HEAD} {{ {body} }} {FUNCTIONS}", w=MATRIX))
    assert not scan.layers
    assert scan.unprunable[0].name == "w"
    assert scan.unprunable[0].shape == (3, 4)
    assert scan.unprunable[0].reason.startswith(words)


def test_reading_only_the_shape_or_type_does_no_harm(build):
    text = f"{HEAD} {{ y = MatMul(x, w) s = Shape(w) n = Size(w) c = CastLike(x, w) }}"
    assert names(find_layers(build(text, w=MATRIX))) == ["w"]


def test_tied_embeddings_are_layers_with_a_note(build):
    text = f"{HEAD} {{ e = Gather(w, i) t = Transpose(w) y = MatMul(e, t) }}"
    (layer,) = find_layers(build(text, w=MATRIX, i=np.array([0]))).layers
    assert layer.notes == ("also read by Gather 'Gather_0'",)
    assert [use.op_type for use in layer.uses] == ["MatMul"]
    (layer,) = find_layers(build(text, w=MATRIX, i=np.array([0])), embeddings=True).layers
    assert [use.op_type for use in layer.uses] == ["Gather", "MatMul"]
    assert not layer.notes


def test_embeddings_are_layers_only_when_asked_for(build):
    model = build(
        f"{HEAD} {{ y = Gather(w, i) z = Gather(i, k) }}", w=MATRIX, i=np.ones((2, 2), int)
    )
    assert reasons(find_layers(model)) == {
        "w": "an embedding table: pruned only when asked for (--embeddings)"
    }
    assert names(find_layers(model, embeddings=True)) == ["w"]


MADE = [
    ("w = ConstantOfShape(s) y = Conv(x, w)", "made at run time by ConstantOfShape"),
    ("v = Mul(s, s) w = Transpose(v) y = MatMul(x, w)", "made at run time by Mul 'Mul_0'"),
    ("w = Relu(x) y = Conv(x, w)", "made at run time by Relu 'Relu_0'"),
    ("y = Conv(x, w)", "nothing in the model defines it"),
    ("w = Identity(x) y = Conv(x, w)", "made at run time: an input of the model"),
    ("w = Identity(w) y = Conv(x, w)", "its definition is circular"),
    ("w = Identity(u) u = Identity(w) y = Conv(x, w)", "its definition is circular"),
    ("w = Constant<value_floats = [1., 2.]>() y = MatMul(x, w)", "its Constant node holds value_f"),
    ("w = Constant<value_float = 1.>() y = Conv(x, w)", "its Constant node holds value_float"),
]


@pytest.mark.parametrize(("body", "words"), MADE)
def test_weights_without_a_stored_tensor_are_listed(build, body, words):
    scan = find_layers(build(f"{HEAD} {{ {body} }}", s=np.array([4, 3], F)))
    assert not scan.layers
    (entry,) = scan.unprunable
    assert entry.shape is None
    assert entry.reason.startswith(words)


ACTIVATIONS = [
    "y = MatMul(x, x)",
    "t = Transpose(x) y = MatMul(x, t)",
    "y = Einsum<equation = 'ij,jk'>(x, x)",
    "c = Concat<axis = 0>(x, w) y = MatMul(c, x)",
    "r = RandomNormal<shape = [3, 4]>() y = MatMul(x, r)",
]


@pytest.mark.parametrize("body", ACTIVATIONS)
def test_products_of_activations_have_no_weight(build, body):
    scan = find_layers(build(f"{HEAD} {{ {body.replace(chr(39), chr(34))} }}", w=MATRIX))
    assert not scan.layers
    assert not scan.unprunable


def test_constants_on_both_sides_are_both_layers_unless_one_is_a_vector(build):
    scan = find_layers(build(f"{HEAD} {{ y = MatMul(v, w) }}", v=MATRIX, w=MATRIX.T))
    assert names(scan) == ["v", "w"]
    scan = find_layers(build(f"{HEAD} {{ y = MatMul(v, w) }}", v=np.ones(3, F), w=MATRIX))
    assert names(scan) == ["w"]


TYPES = [
    (np.ones((3, 4), np.int32), "its int32 values come without a scale or a zero point"),
    (np.ones((3, 4), np.int64), "its type is int64, not a float or a quantised integer"),
    (np.ones((3, 4), bool), "its type is bool, not a float or a quantised integer"),
    (np.ones((), F), "a single number, not a matrix"),
    (np.ones((0, 4), F), "it has no elements"),
]


@pytest.mark.parametrize(("array", "reason"), TYPES)
def test_types_and_shapes_that_hold_no_weights(build, array, reason):
    scan = find_layers(build(f"{HEAD} {{ y = MatMul(x, w) }}", w=array))
    assert reasons(scan) == {"w": reason}


def test_integers_behind_a_cast_are_their_own_values(build):
    model = build(f"{HEAD} {{ v = Cast<to = 1>(w) y = MatMul(x, v) }}", w=np.ones((3, 4), np.int8))
    found = find_layers(model).layers[0].quantization
    assert (float(found.scale), int(found.zero_point)) == (1.0, 0)


def test_recurrent_weights_cut_and_joined_gate_by_gate(build):
    # What PyTorch exports: gates reordered, a direction put in front.
    text = f"""{HEAD} {{
        i = Slice(w, a, b) o = Slice(w, b, c)
        j = Concat<axis = 0>(o, i)
        u = Unsqueeze(j, a)
        h, q = GRU<hidden_size = 2>(x, u, r)
        y = Identity(h)
    }}"""
    points = {k: np.array([v]) for k, v in {"a": 0, "b": 3, "c": 6}.items()}
    scan = find_layers(build(text, w=np.ones((6, 5), F), r=np.ones((1, 6, 2), F), **points))
    assert roles(scan) == {"w": ("output", "input"), "r": ("direction", "output", "input")}
    assert len(scan.layers[0].uses) == 1


def test_equal_names_in_different_graphs_are_qualified(build):
    scan = find_layers(build(BRANCHES.replace("own", "outer"), outer=MATRIX))
    assert names(scan) == [
        "outer",
        "If_0.then_branch/If_0.else_branch/outer",
        "If_0.else_branch/outer",
    ]


def test_malformed_graphs_raise_nothing():
    nodes = [
        helper.make_node("Conv", ["x", ""], ["a"]),
        helper.make_node("Conv", ["x"], ["b"]),
        helper.make_node("Conv", [], []),
        helper.make_node("Identity", [], ["i"]),
        helper.make_node("Conv", ["x", "i"], ["c"]),
        helper.make_node("MatMul", ["x", "w"], ["a", "a"]),
        helper.make_node("MatMul", ["x", "w"], ["a"], name="late"),
        helper.make_node("Reshape", ["w", "missing"], ["r"]),
        helper.make_node("Transpose", ["w"], ["t"], perm=[0, 7]),
        helper.make_node("MatMul", ["x", "t"], ["m"]),
        helper.make_node("DequantizeLinear", ["w"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["n"]),
        helper.make_node("Crop", ["x"], ["crop"], border=[1, 1, 1, 1]),
        helper.make_node("Constant", [], ["k"]),
        helper.make_node("Gemm", ["x", "k"], ["o"]),
        helper.make_node("Einsum", ["x", "w"], ["e"]),
    ]
    graph = helper.make_graph(nodes, "g", [], [], [numpy_helper.from_array(MATRIX, "w")])
    graph.initializer.add(name="w", dims=[9], data_type=TensorProto.FLOAT)
    proto = onnx.ModelProto(graph=graph)
    scan = find_layers(Model(proto))
    assert {entry.name for entry in scan.unprunable} >= {"w", "k", "i"}
    assert not scan.layers


def test_order_does_not_matter_and_deep_chains_are_fine():
    count = 5000
    nodes = [helper.make_node("Identity", [f"v{i}"], [f"v{i + 1}"]) for i in range(count)]
    nodes.append(helper.make_node("MatMul", ["x", f"v{count}"], ["y"]))
    graph = helper.make_graph(nodes[::-1], "g", [], [], [numpy_helper.from_array(MATRIX, "v0")])
    assert names(find_layers(Model(helper.make_model(graph)))) == ["v0"]


def test_deeply_nested_functions_are_fine():
    count = 1500
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    functions = [
        helper.make_function(
            "f",
            f"F{i}",
            ["x", "w"],
            ["y"],
            [helper.make_node(f"F{i + 1}", ["x", "w"], ["y"], domain="f")],
            opsets,
        )
        for i in range(count)
    ]
    last = helper.make_node("MatMul", ["x", "w"], ["y"])
    functions.append(helper.make_function("f", f"F{count}", ["x", "w"], ["y"], [last], opsets))
    node = helper.make_node("F0", ["x", "w"], ["y"], domain="f")
    graph = helper.make_graph([node], "g", [], [], [numpy_helper.from_array(MATRIX, "w")])
    assert names(find_layers(Model(helper.make_model(graph, functions=functions)))) == ["w"]
