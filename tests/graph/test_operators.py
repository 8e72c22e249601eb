"""Every operator of the table: which inputs are weights and what their axes run over."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from onnxprune.graph.index import Node
from onnxprune.graph.layers import find_layers
from onnxprune.graph.operators import _TABLES, operands

OIT = ("output", "input", "tap", "tap")
IOT = ("input", "output", "tap", "tap")
IO = ("input", "output")
OI = ("output", "input")
DOI = ("direction", "output", "input")
DIO = ("direction", "input", "output")
GIO = ("group", "input", "output")

F = np.float32
KERNEL = np.ones((4, 3, 2, 2), F)
MATRIX = np.ones((3, 4), F)
STACK = np.ones((2, 3, 4), F)
CODES = np.ones((3, 4), np.int8)


def scale(*shape: int) -> np.ndarray:
    return np.full(shape, 0.5, F)


def zero(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int8)


FLOATS = [
    ("Conv(x, w)", {"w": KERNEL}, {"w": OIT}),
    ("Conv(x, w)", {"w": np.ones((4, 3, 5), F)}, {"w": OIT[:3]}),
    ("ConvTranspose(x, w)", {"w": KERNEL}, {"w": IOT}),
    ("DeformConv(x, w, o)", {"w": KERNEL}, {"w": OIT}),
    ("CausalConvWithState(x, w)", {"w": np.ones((4, 1, 2), F)}, {"w": OIT[:3]}),
    ("Gemm(x, w)", {"w": MATRIX}, {"w": IO}),
    ("Gemm<transB = 1>(x, w)", {"w": MATRIX}, {"w": OI}),
    ("Gemm(w, x)", {"w": MATRIX}, {"w": OI}),
    ("Gemm<transA = 1>(w, x)", {"w": MATRIX}, {"w": IO}),
    ("MatMul(x, w)", {"w": MATRIX}, {"w": IO}),
    ("MatMul(w, x)", {"w": MATRIX}, {"w": OI}),
    ("MatMul(x, w)", {"w": STACK}, {"w": GIO}),
    ("MatMul(w, x)", {"w": STACK}, {"w": ("group", "output", "input")}),
    ("MatMul(x, w)", {"w": np.ones(3, F)}, {"w": ("input",)}),
    ("LSTM(x, w, r)", {"w": STACK, "r": STACK}, {"w": DOI, "r": DOI}),
    ("GRU(x, w, r)", {"w": STACK, "r": STACK}, {"w": DOI, "r": DOI}),
    ("RNN(x, w, r)", {"w": STACK, "r": STACK}, {"w": DOI, "r": DOI}),
    ('Einsum<equation = "bi,io->bo">(x, w)', {"w": MATRIX}, {"w": IO}),
    ('Einsum<equation = "hoi, bhi -> bho">(w, x)', {"w": STACK}, {"w": ("group", *OI)}),
    ('Einsum<equation = "...i,io->...o">(x, w)', {"w": MATRIX}, {"w": IO}),
    ('Einsum<equation = "bi,oi">(x, w)', {"w": MATRIX}, {"w": OI}),
    ('Einsum<equation = "i,...io">(x, w)', {"w": STACK}, {"w": GIO}),
    ('Einsum<equation = "bi,io">(x, w)', {"w": STACK}, {"w": ("unknown",) * 3}),
    ("com.microsoft.FusedConv(x, w)", {"w": KERNEL}, {"w": OIT}),
    ("com.microsoft.NhwcConv(x, w)", {"w": KERNEL}, {"w": OIT}),
    ("com.microsoft.NhwcFusedConv(x, w)", {"w": KERNEL}, {"w": OIT}),
    ("com.microsoft.FusedMatMul(x, w)", {"w": MATRIX}, {"w": IO}),
    ("com.microsoft.FusedMatMul<transB = 1>(x, w)", {"w": STACK}, {"w": ("group", *OI)}),
    (
        "com.microsoft.FusedMatMul<transBatchB = 1>(x, w)",
        {"w": STACK},
        {"w": ("input", "group", "output")},
    ),
    ("com.microsoft.FusedMatMulActivation(x, w)", {"w": MATRIX}, {"w": IO}),
    ("com.microsoft.TransposeMatMul<transA = 1>(w, x)", {"w": MATRIX}, {"w": IO}),
    ("com.microsoft.FusedGemm<transB = 1>(x, w)", {"w": MATRIX}, {"w": OI}),
    ("com.microsoft.GemmFastGelu(x, w)", {"w": MATRIX}, {"w": IO}),
    ("com.microsoft.Attention(x, w, b)", {"w": MATRIX}, {"w": IO}),
    ("com.microsoft.PackedAttention(x, w, b)", {"w": MATRIX}, {"w": IO}),
    (
        "com.microsoft.LongformerAttention(x, w, b, m, v, c, g)",
        {"w": MATRIX, "v": MATRIX},
        {"w": IO, "v": IO},
    ),
    ("com.microsoft.DecoderAttention(x, x, w, v)", {"w": MATRIX, "v": MATRIX}, {"w": IO, "v": IO}),
    (
        "com.microsoft.MoE(x, p, w, b, v)",
        {"w": STACK, "v": STACK},
        {"w": ("group", *OI), "v": ("group", *OI)},
    ),
    ("com.microsoft.SparseToDenseMatMul(x, w)", {"w": MATRIX}, {"w": IO}),
]

# Line, arrays, roles, scale (None: not told), axis on the stored tensor.
QUANTIZED = [
    (
        "QLinearConv(x, s, z, w, ws, wz, s, z)",
        {"w": np.ones((4, 3, 2, 2), np.int8), "ws": scale(4), "wz": zero(4)},
        OIT,
        0.5,
        0,
    ),
    (
        "ConvInteger(x, w, z, wz)",
        {"w": np.ones((4, 3, 2, 2), np.int8), "wz": zero()},
        OIT,
        None,
        None,
    ),
    (
        "QLinearMatMul(x, s, z, w, ws, wz, s, z)",
        {"w": CODES, "ws": scale(4), "wz": zero(4)},
        IO,
        0.5,
        1,
    ),
    (
        "QLinearMatMul(w, ws, wz, x, s, z, s, z)",
        {"w": CODES, "ws": scale(3), "wz": zero(3)},
        OI,
        0.5,
        0,
    ),
    ("MatMulInteger(x, w, z, wz)", {"w": CODES, "wz": zero(4)}, IO, None, 1),
    ("MatMulInteger(x, w)", {"w": CODES}, IO, None, None),
    ("com.microsoft.MatMulInteger16(x, w)", {"w": CODES.astype(np.int16)}, IO, None, None),
    (
        "com.microsoft.DynamicQuantizeMatMul(x, w, ws, wz)",
        {"w": CODES, "ws": scale(1), "wz": zero(1)},
        IO,
        0.5,
        None,
    ),
    (
        "com.microsoft.MatMulIntegerToFloat(x, w, s, ws, z, wz)",
        {"w": CODES, "ws": scale(4), "wz": zero(4)},
        IO,
        0.5,
        1,
    ),
    (
        "com.microsoft.QGemm<transB = 1>(x, s, z, w, ws, wz)",
        {"w": CODES, "ws": scale(3), "wz": zero(3)},
        OI,
        0.5,
        0,
    ),
    (
        "com.microsoft.QAttention(x, w, b, s, ws, m, z, wz)",
        {"w": CODES, "ws": scale(4), "wz": zero(4)},
        IO,
        0.5,
        1,
    ),
    (
        "com.microsoft.DynamicQuantizeLSTM(x, w, r, b, , , , , ws, wz, rs, rz)",
        {"w": np.ones((2, 3, 4), np.int8), "ws": scale(2), "wz": zero(2)},
        DIO,
        0.5,
        0,
    ),
    (
        "com.microsoft.DynamicQuantizeLSTM(x, w, r, b, , , , , ws, wz, rs, rz)",
        {"w": np.ones((1, 3, 4), np.int8), "ws": scale(1, 4), "wz": zero(1, 4)},
        DIO,
        0.5,
        2,
    ),
    (
        "com.microsoft.QLinearConv(x, s, z, w, ws, wz, s, z)",
        {"w": np.ones((4, 3, 2, 2), np.int8), "ws": scale(), "wz": zero()},
        OIT,
        0.5,
        None,
    ),
]

PACKED = [
    ("com.microsoft.MatMulNBits<K = 8, N = 4, bits = 4>(x, w, s)", "packed in blocks"),
    ("com.microsoft.MatMulBnb4(x, w, s)", "packed in blocks"),
    ("com.microsoft.GatherBlockQuantized(w, x, s)", "packed in blocks"),
    ("com.microsoft.QMoE(x, p, w, s)", "packed in blocks"),
    ("com.microsoft.QOrderedMatMul(x, s, w, s, s)", "tile order"),
    ("com.microsoft.MatMulPacked(x, w)", "packed blob"),
]


def graph(line: str) -> str:
    return f"g (float[M, K] x, float s, int8 z) => (float[N] y) {{ y = {line} }}"


@pytest.mark.parametrize(("line", "arrays", "roles"), FLOATS)
def test_float_operators(build, line, arrays, roles):
    scan = find_layers(build(graph(line), opset=20, **arrays))
    assert {layer.name: layer.uses[0].roles for layer in scan.layers} == roles
    assert all(layer.quantization is None for layer in scan.layers)


@pytest.mark.parametrize(("line", "arrays", "roles", "size", "axis"), QUANTIZED)
def test_quantized_operators(build, line, arrays, roles, size, axis):
    scan = find_layers(build(graph(line), opset=21, **arrays))
    (layer,) = scan.layers
    assert layer.name == "w"
    assert layer.uses[0].roles == roles
    found = layer.quantization
    assert (found.scale is None) if size is None else np.all(found.scale == size)
    assert found.axis == axis
    assert found.zero_point.ndim == (0 if axis is None else 1)


def test_recurrent_scales_of_two_directions_are_blocks_over_the_inputs(build):
    line = "com.microsoft.DynamicQuantizeLSTM(x, w, r, b, , , , , ws, wz, rs, rz)"
    arrays = {"w": np.ones((2, 3, 4), np.int8), "ws": scale(2, 4), "wz": zero(2, 4)}
    found = find_layers(build(graph(line), **arrays)).layers[0].quantization
    assert (found.axis, found.block_size) == (1, 3)
    assert found.scale.shape == found.zero_point.shape == (2, 1, 4)


@pytest.mark.parametrize(("line", "words"), PACKED)
def test_packed_codes_are_listed(build, line, words):
    scan = find_layers(build(graph(line), w=np.ones((4, 1, 4), np.uint8)))
    assert not scan.layers
    assert [entry.name for entry in scan.unprunable] == ["w"]
    assert words in scan.unprunable[0].reason
    assert scan.unprunable[0].shape == (4, 1, 4)


def test_operators_of_unknown_domains_are_no_layers(build):
    scan = find_layers(build(graph("custom.Conv(x, w)"), w=KERNEL))
    assert not scan.layers
    assert not scan.unprunable


def test_both_spellings_of_the_default_domain_are_one(build):
    model = build(graph("Conv(x, w)"), w=KERNEL)
    model.proto.graph.node[0].domain = "ai.onnx"
    (layer,) = find_layers(model).layers
    assert (layer.uses[0].domain, layer.uses[0].op_type) == ("", "Conv")


def test_attributes_that_a_caller_decides_hide_the_roles(build):
    text = """g (float[M, K] x) => (float[N] y) { y = f.Dense<t = 1>(x, w) }
    <domain: "f", opset_import: ["" : 17]>
    Dense <t> (x, w) => (y) { y = Gemm<transB: int = @t>(x, w) }"""
    (layer,) = find_layers(build(text, w=MATRIX)).layers
    assert layer.uses[0].roles == ("unknown", "unknown")


def test_onnxruntime_knows_every_operand_of_its_own_domains():
    schemas = pytest.importorskip("onnxruntime.capi.onnxruntime_pybind11_state")
    known = {(s.domain, s.name): s for s in schemas.get_all_operator_schema()}
    for domain, table in _TABLES.items():
        for op_type, listed in table.items() if domain else ():
            schema = known.get((domain, op_type))
            if schema is not None:
                highest = max(operand.index for operand in listed)
                assert highest < len(schema.inputs), op_type


def test_every_operand_of_an_einsum_may_be_a_weight():
    proto = helper.make_node("Einsum", ["a", "b", "c"], ["y"], equation="a,b,c")
    node = Node(proto, 0, 0, "Einsum", "", (None, None, None), ("y",))
    assert [operand.index for operand in operands(node)] == [0, 1, 2]
