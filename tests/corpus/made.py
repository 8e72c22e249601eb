"""Models for what the onnx package's tests leave out: quantised weights of every layout, operators
of onnxruntime's own domain, weights behind DequantizeLinear."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from .cases import Case

__all__ = ["made"]

MICROSOFT = "com.microsoft"
Arrays = Mapping[str, np.ndarray]


def _case(name: str, nodes: Sequence[NodeProto], feeds: Arrays, constants: Arrays) -> Case:
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in feeds.items()
    ]
    kind = TensorProto.INT32 if nodes[-1].op_type.endswith("Integer") else TensorProto.FLOAT
    if nodes[-1].op_type == "QLinearConv":
        kind = TensorProto.UINT8
    # Every result has as many axes as what the model is fed.
    rank = next(iter(feeds.values())).ndim
    outputs = [helper.make_tensor_value_info("y", kind, [None] * rank)]
    tensors = [numpy_helper.from_array(array, n) for n, array in constants.items()]
    graph = helper.make_graph(list(nodes), name, inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return Case(name, "made", model, dict(feeds))


def _node(operator: str, inputs: str, domain: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), ["y"], domain=domain, **attributes)


def made() -> Iterator[Case]:
    """All of them; the same every time."""
    random = np.random.default_rng(7)
    yield from _integer_operators(random)
    yield from _microsoft(random)
    yield from _dequantised(random)


def _floats(random: np.random.Generator, *shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def _codes(random: np.random.Generator, kind: Any, *shape: int) -> np.ndarray:
    """Bell-shaped codes around the middle of their range."""
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    spread = (high - low) / 6
    codes = np.rint(random.normal((high + low) / 2, spread, shape))
    return np.clip(codes, low, high).astype(kind)


def _integer_operators(random: np.random.Generator) -> Iterator[Case]:
    image = _codes(random, np.uint8, 1, 3, 6, 6)
    scalar = {"xs": np.float32(0.02), "xz": np.uint8(120), "ys": np.float32(0.5)}
    scalar |= {"yz": np.uint8(7)}
    for label, kind, size in (("tensor", np.uint8, 1), ("channel", np.int8, 4)):
        zero = np.full(size, 120 if kind is np.uint8 else 0, kind)
        constants = {**{n: np.asarray(v) for n, v in scalar.items()}, "wz": zero}
        constants["w"] = _codes(random, kind, 4, 3, 3, 3)
        constants["ws"] = random.uniform(0.01, 0.1, size).astype(np.float32)
        node = _node("QLinearConv", "x xs xz w ws wz ys yz")
        yield _case(f"QLinearConv per {label}", [node], {"x": image}, constants)
    weight = {"w": _codes(random, np.uint8, 4, 3, 3, 3)}
    zeros = {"xz": np.asarray(np.uint8(1)), "wz": np.asarray(np.uint8(128))}
    yield _case("ConvInteger", [_node("ConvInteger", "x w xz wz")], {"x": image}, weight | zeros)
    matrix = {"w": _codes(random, np.int8, 12, 5)}
    rows = {"x": _codes(random, np.uint8, 3, 12)}
    yield _case("MatMulInteger no zero points", [_node("MatMulInteger", "x w")], rows, matrix)
    offset = {"w": _floats(random, 4, 3, 3, 3)}
    feeds = {"x": _floats(random, 1, 3, 6, 6), "o": _floats(random, 1, 18, 4, 4)}
    yield _case("DeformConv", [_node("DeformConv", "x w o")], feeds, offset)


def _microsoft(random: np.random.Generator) -> Iterator[Case]:
    x, w = {"x": _floats(random, 3, 12)}, _floats(random, 12, 8)
    one = np.asarray(np.float32(0.03))
    yield _case("FusedMatMul", [_node("FusedMatMul", "x w", MICROSOFT, alpha=0.5)], x, {"w": w})
    turned = _node("FusedMatMul", "x w", MICROSOFT, transB=1)
    yield _case("FusedMatMul transposed", [turned], x, {"w": np.ascontiguousarray(w.T)})
    node = _node("FusedGemm", "x w b", MICROSOFT, activation="Relu")
    yield _case("FusedGemm", [node], x, {"w": w, "b": _floats(random, 8)})
    node = _node("FusedConv", "x w", MICROSOFT, activation="Relu")
    image = {"x": _floats(random, 1, 3, 6, 6)}
    yield _case("FusedConv", [node], image, {"w": _floats(random, 4, 3, 3, 3)})
    node = _node("Attention", "x w b", MICROSOFT, num_heads=2)
    constants = {"w": _floats(random, 12, 24), "b": _floats(random, 24)}
    yield _case("Attention", [node], {"x": _floats(random, 2, 5, 12)}, constants)
    codes = {"w": _codes(random, np.int8, 12, 8), "s": one}
    node = _node("DynamicQuantizeMatMul", "x w s", MICROSOFT)
    yield _case("DynamicQuantizeMatMul", [node], x, codes)
    node = _node("MatMulIntegerToFloat", "x w xs s", MICROSOFT)
    rows = {"x": _codes(random, np.uint8, 3, 12)}
    scales = {"s": random.uniform(0.01, 0.1, 8).astype(np.float32), "xs": one}
    yield _case("MatMulIntegerToFloat per column", [node], rows, codes | scales)


def _dequantised(random: np.random.Generator) -> Iterator[Case]:
    """A MatMul's weight behind a DequantizeLinear: per tensor, per axis, in blocks."""
    x = {"x": _floats(random, 3, 12)}
    kinds = {"int8": np.int8, "uint8": np.uint8, "int16": np.int16, "int4": None, "uint4": None}
    shapes = {"tensor": (), "rows": (12,), "columns": (8,), "blocks": (3, 8)}
    for kind, plain in kinds.items():
        for layout, shape in shapes.items():
            codes = _codes(random, plain or np.int8, 12, 8)
            zero = np.zeros(shape, np.int8) if not kind.startswith("u") else np.full(shape, 100)
            if plain is None:
                small = getattr(ml_dtypes, kind)
                codes = (codes >> 4).astype(np.int8) + (8 if kind == "uint4" else 0)
                codes, zero = codes.astype(small), (zero // 14).astype(small)
            else:
                zero = zero.astype(plain)
            scale = random.uniform(0.01, 0.1, shape).astype(np.float32)
            attributes: dict[str, Any] = {"axis": 1 if layout == "columns" else 0}
            if layout == "blocks":
                attributes["block_size"] = 4
            nodes = [
                helper.make_node("DequantizeLinear", ["w", "s", "z"], ["f"], **attributes),
                _node("MatMul", "x f"),
            ]
            constants = {"w": codes, "s": np.asarray(scale), "z": np.asarray(zero)}
            yield _case(f"DequantizeLinear {kind} {layout}", nodes, x, constants)
