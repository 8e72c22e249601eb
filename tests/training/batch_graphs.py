"""Small graphs whose fixed batch axis can be freed."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F = np.float32
RANDOM = np.random.default_rng(3)


def draw(*shape):
    return RANDOM.uniform(-1, 1, shape).astype(F)


def ints(*values):
    return np.array(values, np.int64)


def model_of(nodes, inputs, constants=None, outputs=("y",), opset=23, dtype=TensorProto.FLOAT):
    """A model whose shape inference knows everything.

    Args:
        nodes: Tuples: operator, inputs, outputs (names parted by blanks), attributes.
        inputs: Shapes by name.
        constants: Initializers by name.
    """
    built = []
    for index, (op_type, read, written, *rest) in enumerate(nodes):
        attributes = dict(rest[0]) if rest else {}
        domain = attributes.pop("domain", "")
        names, written = (
            [name if name != "-" else "" for name in listed.split()] for listed in (read, written)
        )
        built.append(
            helper.make_node(op_type, names, written, name=f"n{index}", domain=domain, **attributes)
        )
    declared = [helper.make_tensor_value_info(name, dtype, s) for name, s in inputs.items()]
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    tensors = [numpy_helper.from_array(v, name) for name, v in (constants or {}).items()]
    graph = helper.make_graph(built, "g", declared, results, tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {info.name: info for info in (*inferred.graph.output, *inferred.graph.value_info)}
    for info in model.graph.output:
        info.CopyFrom(known[info.name])
        if not info.type.tensor_type.elem_type:
            info.type.tensor_type.elem_type = dtype
    return model


IMAGE = {"x": (1, 4, 6, 6)}
ROWS = {"x": (1, 6)}
TOKENS = {"x": (1, 5, 8)}
KERNEL = {"w": draw(4, 4, 3, 3)}


def one(op_type, shape, constants=None, **attributes):
    """A graph of one node that reads x and then the constants."""
    names = " ".join(["x", *(constants or {})])
    return [(op_type, names, "y", attributes)], {"x": shape}, constants


#: Graphs whose batch axis can be freed: nodes, inputs, constants, and outputs other than y.
FREE = {
    "Relu": one("Relu", (1, 6)),
    "Relu of 1-d": one("Relu", (1,)),
    "scalar constant": one("Mul", (1, 6), {"c": np.array(2, F)}),
    "constant of one row": one("Add", (1, 6), {"c": draw(1, 6)}),
    "constant of fewer axes": one("Add", (1, 4, 6), {"c": draw(4, 6)}),
    "constant of more axes": one("Add", (1, 6), {"c": draw(1, 1, 6)}),
    "Where": ([("Greater", "x c", "p"), ("Where", "p x c", "y")], ROWS, {"c": draw(1, 6)}),
    "Clip": one("Clip", (1, 6), {"low": np.array(-0.5, F), "high": np.array(0.5, F)}),
    "PRelu": one("PRelu", (1, 4, 6), {"slope": draw(4, 1)}),
    "CastLike": ([("CastLike", "x c", "y")], ROWS, {"c": np.array(1.0)}),
    "Conv": one("Conv", (1, 4, 6, 6), KERNEL),
    "Conv of merged time": (
        [("Reshape", "x s", "h"), ("Conv", "h w", "c"), ("Reshape", "c t", "y")],
        {"x": (1, 3, 4, 6, 6)},
        KERNEL | {"s": ints(3, 4, 6, 6), "t": ints(1, 3, 64)},
    ),
    "ConvTranspose": one("ConvTranspose", (1, 4, 6, 6), KERNEL),
    "MaxPool": one("MaxPool", (1, 4, 6, 6), kernel_shape=[2, 2]),
    "BatchNormalization": one(
        "BatchNormalization",
        (1, 4, 6, 6),
        {"scale": draw(4), "bias": draw(4), "mean": draw(4), "var": draw(4) ** 2},
    ),
    "InstanceNormalization": one("InstanceNormalization", (1, 4, 6), {"s": draw(4), "b": draw(4)}),
    "LayerNormalization": one("LayerNormalization", (1, 5, 8), {"s": draw(8), "b": draw(8)}),
    "Softmax": one("Softmax", (1, 5, 8), axis=1),
    "CumSum": one("CumSum", (1, 5, 8), {"axis": np.array(-1)}),
    "TopK": ([("TopK", "x k", "y i", {"axis": 1})], ROWS, {"k": ints(2)}),
    "ArgMax": (
        [("ArgMax", "x", "a", {"axis": 1, "keepdims": 0}), ("Cast", "a", "y", {"to": 1})],
        IMAGE,
        None,
    ),
    "ReduceMean": one("ReduceMean", (1, 4, 6, 6), {"axes": ints(-1, 2)}, keepdims=0),
    "reduction in front": (
        [("Transpose", "x", "t", {"perm": [1, 0, 2]}), ("ReduceSum", "t a", "y", {"keepdims": 0})],
        TOKENS,
        {"a": ints(0)},
    ),
    "reduction of nothing": one("ReduceMax", (1, 6), noop_with_empty_axes=1),
    "Trilu": one("Trilu", (1, 5, 5)),
    "MatMul of rows": one("MatMul", (1, 6), {"w": draw(6, 3)}),
    "MatMul of matrices": one("MatMul", (1, 5, 8), {"w": draw(8, 3)}),
    "MatMul with a vector": one("MatMul", (1, 6), {"w": draw(6)}),
    "MatMul of matrices with a vector": one("MatMul", (1, 5, 8), {"w": draw(8)}),
    "MatMul by a stack of one": one("MatMul", (1, 5, 8), {"w": draw(1, 8, 3)}),
    "MatMul by a deeper stack": one("MatMul", (1, 6), {"w": draw(4, 6, 3)}),
    "MatMul from the left": ([("MatMul", "w x", "y")], TOKENS, {"w": draw(3, 5)}),
    "MatMul from the left by a vector": ([("MatMul", "w x", "y")], TOKENS, {"w": draw(5)}),
    "MatMul of columns": (
        [("Transpose", "x", "t"), ("MatMul", "w t", "y")], ROWS, {"w": draw(3, 6)},
    ),
    "MatMul of columns by a vector": (
        [("Transpose", "x", "t"), ("MatMul", "w t", "y")], ROWS, {"w": draw(6)},
    ),
    "self-attention": (
        [
            ("Transpose", "x", "t", {"perm": [0, 2, 1]}),
            ("MatMul", "x t", "s"),
            ("Softmax", "s", "p"),
            ("MatMul", "p x", "y"),
        ],
        TOKENS,
        None,
    ),
    "Gemm": one("Gemm", (1, 6), {"w": draw(3, 6), "b": draw(1, 3)}, transB=1),
    "Gemm transposed": (
        [("Transpose", "x", "t"), ("Gemm", "t w", "y", {"transA": 1})], ROWS, {"w": draw(6, 3)},
    ),
    "Einsum": one("Einsum", (1, 5, 8), {"w": draw(8, 3)}, equation="btc,cd->dbt"),
    "Einsum with a lifted operand": one(
        "Einsum", (1, 5, 8), {"w": draw(1, 8, 3)}, equation="btc,bcd->bdt"
    ),
    "Attention": ([("Attention", "x x x m", "y", {"q_num_heads": 2, "kv_num_heads": 2})],
                  TOKENS, {"m": draw(1, 1, 5, 5)}),
    "Flatten": one("Flatten", (1, 4, 6, 6)),
    "Flatten in front": ([("Flatten", "x", "f", {"axis": 2}), ("MatMul", "f w", "m"),
                          ("Reshape", "m s", "y")], TOKENS, {"w": draw(8, 2), "s": ints(-1, 10)}),
    "Reshape of a fixed first axis": one("Reshape", (1, 4, 6), {"s": ints(1, 24)}),
    "Reshape with the rest": one("Reshape", (1, 4, 6), {"s": ints(1, -1)}),
    "Reshape with the batch left over": one("Reshape", (1, 4, 6), {"s": ints(-1, 24)}),
    "Reshape of a copied axis": one("Reshape", (1, 4, 6), {"s": ints(0, -1)}),
    "Reshape into more": one("Reshape", (1, 24), {"s": ints(1, 1, 4, 6)}),
    "Reshape behind another axis": (
        [
            ("Transpose", "x", "t", {"perm": [1, 0, 2]}),
            ("Reshape", "t s", "r"),
            ("Transpose", "r", "y", {"perm": [1, 0, 2, 3]}),
        ],
        TOKENS,
        {"s": ints(5, 1, 2, 4)},
    ),
    "heads merged with the batch": (
        [
            ("Reshape", "x s", "r"),
            ("Transpose", "r", "h", {"perm": [0, 2, 1, 3]}),
            ("Reshape", "h m", "b"),
            ("Transpose", "b", "t", {"perm": [0, 2, 1]}),
            ("MatMul", "b t", "p"),
            ("Reshape", "p o", "y"),
        ],
        TOKENS,
        {"s": ints(1, 5, 2, 4), "m": ints(2, 5, 4), "o": ints(1, 2, 25)},
    ),
    "a batch merged behind time": (
        [
            ("Transpose", "x", "t", {"perm": [1, 0, 2]}),
            ("Reshape", "t s", "r"),
            ("Gemm", "r w b", "g"),
            ("Reshape", "g o", "h"),
            ("Transpose", "h", "y", {"perm": [1, 0, 2]}),
        ],
        TOKENS,
        {"s": ints(5, 8), "w": draw(8, 3), "b": draw(3), "o": ints(5, 1, 3)},
    ),
    "time in front of heads merged with the batch": (
        [
            ("Transpose", "x", "t", {"perm": [1, 0, 2]}),
            ("Reshape", "t s", "r"),
            ("Transpose", "r", "h", {"perm": [1, 0, 2]}),
            ("Transpose", "r", "k", {"perm": [1, 2, 0]}),
            ("MatMul", "h k", "p"),
            ("MatMul", "p h", "v"),
            ("Transpose", "v", "u", {"perm": [1, 0, 2]}),
            ("Reshape", "u o", "w"),
            ("Reshape", "w i", "z"),
            ("Transpose", "z", "y", {"perm": [1, 0, 2]}),
        ],
        TOKENS,
        {"s": ints(5, 2, 4), "o": ints(5, 8), "i": ints(5, 1, 8)},
    ),
    "Reshape that knows no copies": one("Reshape", (1, 4, 6), {"s": ints(1, -1)}, allowzero=1),
    "shape arithmetic": (
        [
            ("Shape", "x", "s"),
            ("Gather", "s zero", "n"),
            ("Unsqueeze", "n first", "u"),
            ("Concat", "u rest", "t", {"axis": 0}),
            ("Reshape", "x t", "y"),
        ],
        {"x": (1, 4, 6)},
        {"zero": np.array(0), "first": ints(0), "rest": ints(-1)},
    ),
    "a batch computed from the number of elements": (
        [
            ("Size", "x", "s"),
            ("Div", "s c", "n"),
            ("Reshape", "n one", "u"),
            ("Concat", "u rest", "t", {"axis": 0}),
            ("Reshape", "x t", "y"),
        ],
        {"x": (1, 4, 6)},
        {"c": np.array(24), "one": ints(1), "rest": ints(6, 4)},
    ),
    "Squeeze and Unsqueeze": (
        [("Squeeze", "x a", "s"), ("Unsqueeze", "s b", "y")],
        {"x": (1, 1, 6, 1)},
        {"a": ints(-1, 1), "b": ints(0)},
    ),
    "Transpose": one("Transpose", (1, 4, 6), perm=[2, 0, 1]),
    "Transpose by default": one("Transpose", (1, 4, 6)),
    "Concat": ([("Concat", "x x", "y", {"axis": -1})], ROWS, None),
    "Concat with a class token": (
        [("Concat", "c x", "y", {"axis": 1})], TOKENS, {"c": draw(1, 1, 8)},
    ),
    "Concat behind another axis": (
        [("Transpose", "x", "t"), ("Concat", "t c", "y", {"axis": 0})], ROWS, {"c": draw(2, 1)},
    ),
    "Split": ([("Split", "x", "y z", {"axis": 1, "num_outputs": 2})], ROWS, None, ("y", "z")),
    "Slice of another axis": one("Slice", (1, 6), {"s": ints(1), "e": ints(5), "a": ints(1)}),
    "Slice that keeps the batch": one("Slice", (1, 6), {"s": ints(0, 1), "e": ints(1, 5)}),
    "Pad": one("Pad", (1, 6), {"p": ints(0, 1, 0, 2)}),
    "Expand of another axis": one("Expand", (1, 1, 6), {"s": ints(1, 4, 6)}),
    "Expand with a new axis": one("Expand", (1, 6), {"s": ints(4, 1, 6)}),
    "Expand of a token to the batch": (
        [
            ("Shape", "x", "n", {"start": 0, "end": 1}),
            ("Concat", "n r", "s", {"axis": 0}),
            ("Expand", "c s", "e"),
            ("Concat", "e x", "y", {"axis": 1}),
        ],
        TOKENS,
        {"r": ints(1, 8), "c": draw(1, 1, 8)},
    ),
    "Expand where the shape has -1": (
        [
            ("Shape", "x", "n", {"start": 0, "end": 1}),
            ("Concat", "n r", "s", {"axis": 0}),
            ("Equal", "s m", "p"),
            ("Where", "p o s", "t"),
            ("Expand", "c t", "e"),
            ("Add", "e x", "y"),
        ],
        TOKENS,
        {"r": ints(-1, 8), "m": ints(-1, -1, -1), "o": ints(1, 1, 1), "c": draw(1, 1, 8)},
    ),
    "Expand to ones of the shape's own shape": (
        [
            ("Shape", "x", "n"),
            ("Shape", "n", "k"),
            ("ConstantOfShape", "k", "o", {"value": numpy_helper.from_array(ints(1))}),
            ("Expand", "x o", "y"),
        ],
        TOKENS,
        None,
    ),
    "Tile to the batch": (
        [
            ("Shape", "x", "n", {"end": 1}),
            ("Concat", "n r", "s", {"axis": 0}),
            ("Tile", "c s", "e"),
            ("Add", "e x", "y"),
        ],
        ROWS,
        {"r": ints(2), "c": draw(1, 3)},
    ),
    "Tile of another axis": one("Tile", (1, 6), {"r": ints(1, 2)}),
    "ConstantOfShape": (
        [
            ("Shape", "x", "n", {"end": 1}),
            ("Concat", "n r", "s", {"axis": 0}),
            ("ConstantOfShape", "s", "z"),
            ("Concat", "x z", "y", {"axis": 1}),
        ],
        ROWS,
        {"r": ints(2)},
    ),
    "Resize by scales": ([("Resize", "x - s", "y")], IMAGE, {"s": np.array([1, 1, 2, 2], F)}),
    "Resize to sizes": ([("Resize", "x - - s", "y")], IMAGE, {"s": ints(1, 4, 9, 3)}),
    "Resize of some axes": (
        [("Resize", "x - - s", "y", {"axes": [2, 3]})], IMAGE, {"s": ints(9, 3)},
    ),
    "Gather": one("Gather", (1, 6, 4), {"i": ints(0, 2)}, axis=1),
    "Gather of one": one("Gather", (1, 6, 4), {"i": np.array(2)}, axis=1),
    "Gather in front": (
        [("Transpose", "x", "t"), ("Gather", "t i", "y")], ROWS, {"i": ints(0, 2).reshape(1, 2)},
    ),
    "GatherElements": one("GatherElements", (1, 6), {"i": ints(0, 2).reshape(1, 2)}, axis=1),
    "ScatterElements": one(
        "ScatterElements", (1, 6), {"i": ints(0, 2).reshape(1, 2), "u": draw(1, 2)}, axis=1
    ),
    "LSTM": (
        [
            ("Transpose", "x", "t", {"perm": [1, 0, 2]}),
            ("LSTM", "t w r - - h h", "a b c", {"hidden_size": 2}),
            ("Concat", "b c", "d", {"axis": 2}),
            ("Transpose", "d", "y", {"perm": [1, 0, 2]}),
        ],
        TOKENS,
        {"w": draw(1, 8, 8), "r": draw(1, 8, 2), "h": draw(1, 1, 2)},
        ("a", "y"),
    ),
    "MeanVarianceNormalization": one("MeanVarianceNormalization", (1, 4, 6, 6), axes=[2, 3]),
    "quantization by channel": (
        [("QuantizeLinear", "x s z", "q"), ("DequantizeLinear", "q s z", "y")],
        IMAGE,
        {"s": np.full(4, 0.1, F), "z": np.zeros(4, np.int8)},
    ),
    "Resize to sizes of the input": (
        [
            ("Shape", "x", "n", {"end": 2}),
            ("Concat", "n r", "s", {"axis": 0}),
            ("Resize", "x - - s", "y"),
        ],
        IMAGE,
        {"r": ints(9, 3)},
    ),
    "LSTM without its first output": (
        [
            ("Transpose", "x", "t", {"perm": [1, 0, 2]}),
            ("LSTM", "t w r", "- b", {"hidden_size": 2}),
            ("Resize", "b - s", "y"),
        ],
        TOKENS,
        {"w": draw(1, 8, 8), "r": draw(1, 8, 2), "s": np.array([1, 1, 2], F)},
    ),
    "FusedMatMul": ([("FusedMatMul", "x w", "y", {"domain": "com.microsoft"})],
                    ROWS, {"w": draw(6, 3)}),
    "two inputs": ([("Add", "x z", "y")], {"x": (1, 6), "z": (1, 6)}, None),
    "batch of four": one("Reshape", (4, 4, 6), {"s": ints(4, 24)}),
    "batch of four, left over": one("Reshape", (4, 4, 6), {"s": ints(-1, 6, 4)}),
    "batch of four, whole Slice": one("Slice", (4, 6), {"s": ints(0), "e": ints(4), "a": ints(0)}),
    "batch of four, Expand": one("Expand", (4, 1, 6), {"s": ints(4, 3, 6)}),
    "batch of four, Resize": ([("Resize", "x - - s", "y")], {"x": (4, 2, 3)},
                              {"s": ints(4, 2, 6)}),
    "an output that the batch does not change": (
        [("Neg", "c", "z"), ("Mul", "x z", "y")], ROWS, {"c": draw(6)}, ("y", "z"),
    ),
}  # fmt: skip
