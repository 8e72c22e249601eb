"""Small graphs with a fixed batch axis that cannot be freed, with the reasons."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.training.batch_graphs import IMAGE, ROWS, TOKENS, F, draw, ints, one

MIXED = "mixes samples"
SHAPED = [
    ("Shape", "x", "n", {"end": 1}),
    ("Cast", "n", "f", {"to": TensorProto.FLOAT}),
]
STATISTICS = {"s": draw(4), "b": draw(4), "m": draw(4), "v": draw(4) ** 2}
#: Graphs that mix samples, or may: the reason to expect, then as in FREE.
REFUSED = {
    "Softmax over the batch": ("works along the batch", *one("Softmax", (1, 6), axis=0)),
    "mean over the batch": ("works along", *one("ReduceMean", (1, 6), {"a": ints(0)})),
    "mean over all": ("works along", *one("ReduceMean", (1, 6))),
    "x @ x.T": (
        "multiplies samples with each other",
        [("Transpose", "x", "t"), ("MatMul", "x t", "y")], ROWS, None,
    ),
    "x.T @ x": (
        "multiplies samples", [("Transpose", "x", "t"), ("MatMul", "t x", "y")], ROWS, None,
    ),
    "Gram matrix through a Gemm": (
        "differs between samples", [("Gemm", "x x", "y", {"transB": 1})], ROWS, None,
    ),
    "Gemm over the batch": (
        "sums over the batch", *one("Gemm", (4, 6), {"w": draw(4, 3)}, transA=1),
    ),
    "MatMul over the batch": (
        "sums over the batch", [("MatMul", "w x", "y")], {"x": (4, 6)}, {"w": draw(3, 4)},
    ),
    "MatMul of a vector": ("sums over the batch", *one("MatMul", (4,), {"w": draw(4, 3)})),
    "MatMul by a vector of the batch": (
        "sums over the batch", [("MatMul", "w x", "y")], {"x": (4,)}, {"w": draw(3, 4)},
    ),
    "MatMul by its own stack": (
        "stack of matrices of its own", *one("MatMul", (4, 5, 8), {"w": draw(4, 8, 3)}),
    ),
    "Einsum over the batch": (
        "sums over the batch", *one("Einsum", (1, 6), {"w": draw(6, 3)}, equation="bi,ij->j"),
    ),
    "Einsum between samples": (
        "do not correspond", [("Einsum", "x x", "y", {"equation": "bi,ci->bc"})], ROWS, None,
    ),
    "constant for a batch of four": ("sizes of its own", *one("Add", (4, 6), {"c": draw(4, 6)})),
    "Gemm bias for a batch of four": (
        "sizes of its own", *one("Gemm", (4, 6), {"w": draw(6, 3), "b": draw(4, 3)}),
    ),
    "x + x.T": ("do not correspond", [("Transpose", "x", "t"), ("Add", "x t", "y")],
                {"x": (1, 1)}, None),
    "broadcast to an outer product": (
        "do not correspond",
        [("Unsqueeze", "x a", "u"), ("Sub", "x u", "y")], ROWS, {"a": ints(1)},
    ),
    "Reshape that mixes": (MIXED, *one("Reshape", (4, 6), {"s": ints(6, 4)})),
    "Reshape that moves the batch behind": (
        "entries of axis 0", *one("Reshape", (1, 6), {"s": ints(6, 1)}),
    ),
    "Reshape that merges an axis in front": (
        "entries of axis 0",
        [("Transpose", "x", "t", {"perm": [1, 0, 2]}), ("Reshape", "t s", "y")],
        {"x": (2, 3, 4)}, {"s": ints(6, 4)},
    ),
    "Reshape to one vector": ("entries of axis 0", *one("Reshape", (1, 6), {"s": ints(-1)})),
    "Reshape of the batch to the wrong place": (
        MIXED,
        [("Shape", "x", "n", {"end": 1}), ("Concat", "r n", "t", {"axis": 0}),
         ("Reshape", "x t", "y")],
        ROWS, {"r": ints(6)},
    ),
    "Flatten of all": (
        "entries of axis 1", *one("Flatten", (1, 6), axis=0),
    ),
    "Flatten behind another axis": (
        "entries of axis 0",
        [("Transpose", "x", "t", {"perm": [1, 0, 2]}), ("Flatten", "t", "y", {"axis": 2})],
        TOKENS, None,
    ),
    "Squeeze of the batch": ("drops the batch axis", *one("Squeeze", (1, 6), {"a": ints(0)})),
    "Squeeze of all": ("drops every axis", *one("Squeeze", (1, 6))),
    "Gather of a sample": ("picks samples", *one("Gather", (1, 6), {"i": np.array(0)})),
    "Gather by indices of each": (
        "indices of its own",
        [("ArgMax", "x", "i", {"axis": 1}), ("Gather", "x i", "y", {"axis": 1})], ROWS, None,
    ),
    "Concat along the batch": ("along the batch", [("Concat", "x x", "y", {"axis": 0})],
                               ROWS, None),
    "Concat for a batch of four": (
        "fixed size", [("Concat", "x c", "y", {"axis": 1})], {"x": (4, 6)}, {"c": draw(4, 2)},
    ),
    "Slice of the batch": (
        "a part of the batch", *one("Slice", (4, 6), {"s": ints(0), "e": ints(1), "a": ints(0)}),
    ),
    "Slice backwards": (
        "a part of the batch",
        *one("Slice", (1, 6), {"s": ints(-1), "e": ints(-9), "a": ints(0), "t": ints(-1)}),
    ),
    "Slice as long as the batch": (
        "as long as the batch",
        [("Shape", "x", "n", {"end": 1}), ("Slice", "x zero n a", "y")],
        ROWS, {"zero": ints(0), "a": ints(1)},
    ),
    "Split of the batch": (
        "along the batch", [("Split", "x", "y z", {"num_outputs": 2})], {"x": (4, 6)}, None,
    ),
    "Pad of the batch": ("pads the batch", *one("Pad", (1, 6), {"p": ints(0, 0, 1, 0)})),
    "Tile of the batch": ("repeats the batch", *one("Tile", (1, 6), {"r": ints(2, 1)})),
    "Expand of the batch": ("repeats the batch", *one("Expand", (1, 6), {"s": ints(3, 6)})),
    "Expand of another axis by the batch": (
        "as often as there are samples",
        [("Shape", "x", "n", {"end": 1}), ("Concat", "o n", "s", {"axis": 0}),
         ("Expand", "x s", "y")],
        {"x": (1, 1)}, {"o": ints(1)},
    ),
    "Resize of the batch": (
        "scales the batch", [("Resize", "x - s", "y")], IMAGE, {"s": np.array([2, 1, 1, 1], F)},
    ),
    "Resize of the batch to a size": (
        "scales the batch", [("Resize", "x - - s", "y")], IMAGE, {"s": ints(2, 4, 9, 3)},
    ),
    "Resize of all axes alike": (
        "scales all axes alike",
        [("Resize", "x - - s", "y", {"keep_aspect_ratio_policy": "not_larger"})],
        IMAGE, {"s": ints(1, 4, 9, 3)},
    ),
    "BatchNormalization that trains": (
        "statistics over the batch",
        *one("BatchNormalization", (1, 4, 6), STATISTICS, training_mode=1),
    ),
    "LayerNormalization over the batch": (
        "normalizes over the batch",
        *one("LayerNormalization", (1, 6), {"s": draw(1, 6)}, axis=0),
    ),
    "InstanceNormalization of a batch elsewhere": (
        "takes axis 0 for the batch",
        [("Transpose", "x", "t", {"perm": [1, 0, 2]}), ("InstanceNormalization", "t s b", "y")],
        TOKENS, {"s": draw(1), "b": draw(1)},
    ),
    "MeanVarianceNormalization": (
        "along the batch", *one("MeanVarianceNormalization", (1, 4, 6, 6)),
    ),
    "scales of samples": (
        "along the batch",
        [("QuantizeLinear", "x s z", "q", {"axis": 0}),
         ("DequantizeLinear", "q s z", "y", {"axis": 0})],
        {"x": (4, 6)}, {"s": np.full(4, 0.1, F), "z": np.zeros(4, np.int8)},
    ),
    "a scale from the batch": (
        "differs between samples",
        [("ReduceMax", "x a", "s", {"keepdims": 0}), ("QuantizeLinear", "x s", "q"),
         ("DequantizeLinear", "q s", "y")],
        ROWS, {"a": ints(1)},
    ),
    "CumSum over the batch": ("along the batch", *one("CumSum", (1, 6), {"a": np.array(0)})),
    "ArgMax over the batch": ("along the batch", *one("ArgMax", (1, 6))),
    "Trilu of the batch": ("along the batch", *one("Trilu", (1, 6))),
    "positions of MaxPool": (
        "count through all samples",
        [("MaxPool", "x", "y i", {"kernel_shape": [2, 2]})], IMAGE, None, ("y", "i"),
    ),
    "LSTM over the batch": (
        "takes axis 1 for the batch",
        [("LSTM", "x w r", "a y", {"hidden_size": 2})],
        TOKENS, {"w": draw(1, 8, 8), "r": draw(1, 8, 2)},
    ),
    "division by the batch": (
        "computes with the size of the batch", [*SHAPED, ("Div", "x f", "y")], ROWS, None,
    ),
    "the size of the batch repeated": (
        "takes 'f', which differs between samples",
        [*SHAPED, ("Concat", "n r", "s", {"axis": 0}), ("Expand", "f s", "e"), ("Add", "x e", "y")],
        ROWS, {"r": ints(6)},
    ),
    "the size of the batch tiled": (
        "takes 'f', which differs between samples",
        [*SHAPED, ("Tile", "f n", "e"), ("Add", "x e", "y")], {"x": (1,)}, None,
    ),
    "the size as an output": (
        "computed from the size of the batch",
        [("Shape", "x", "y"), ("Neg", "x", "z")], ROWS, None, ("y", "z"),
    ),
    "no output of the batch": ("no output depends", [("Neg", "c", "y")], ROWS, {"c": draw(6)}),
    "one position for each sample": (
        "is not known to keep samples apart",
        [("Shape", "x", "n"), ("Gather", "n zero", "k"), ("Range", "zero k one", "r"),
         ("Cast", "r", "f", {"to": TensorProto.FLOAT}), ("Unsqueeze", "f u", "g"),
         ("Add", "x g", "y")],
        ROWS, {"zero": np.array(0), "one": np.array(1), "u": ints(1)},
    ),
    "an unknown operator": ("is not known to keep samples apart", *one("NonZero", (1, 6))),
    "inputs that disagree": (
        "first axes of different sizes: 1 of 'x', 2 of 'z'",
        [("Add", "x z", "y")], {"x": (1, 6), "z": (2, 6)}, None,
    ),
    "LSTM of samples of their own lengths": (
        "a length for every sample",
        [("Transpose", "x", "t", {"perm": [1, 0, 2]}),
         ("LSTM", "t w r - l", "a y", {"hidden_size": 2})],
        TOKENS, {"w": draw(1, 8, 8), "r": draw(1, 8, 2), "l": np.array([3], np.int32)},
    ),
    "no axes": ("no input has axes", [("Neg", "x", "y")], {"x": ()}, None),
}  # fmt: skip
