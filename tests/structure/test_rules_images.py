"""Rules around convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from tests.structure.graphs import Case, W, between, built, feed, ints
from tests.structure.proof import prove

CASES = {
    "one convolution": between("g = Relu(h)", [8]),
    "grouped": between(
        "g = Conv<group=2, pads=[1,1,1,1]>(h, k, c)",
        [2, 4, 6],
        {"k": (12, 4, 3, 3), "c": (12,), "v": (3, 12, 1, 1)},
    ),
    "depthwise": between("g = Conv<group=8>(h, k)", [8], {"k": (8, 1, 3, 3)}),
    "depthwise twice as many": between(
        "g = Conv<group=8>(h, k)", [2, 8], {"k": (16, 1, 3, 3), "v": (3, 16, 1, 1)}
    ),
    "transposed": between(
        "g = ConvTranspose<strides=[2,2]>(h, k, c)",
        [6, 8],
        {"k": (8, 6, 2, 2), "c": (6,), "v": (3, 6, 1, 1)},
    ),
    "transposed in groups": between(
        "g = ConvTranspose<group=2>(h, k, c)",
        [2, 3, 4],
        {"k": (8, 3, 2, 2), "c": (6,), "v": (3, 6, 1, 1)},
    ),
    "fused": between(
        'g = com.microsoft.FusedConv<activation="Relu">(h, k, c)',
        [6, 8],
        {"k": (6, 8, 1, 1), "c": (6,), "v": (3, 6, 1, 1)},
        domains={"com.microsoft": 1},
    ),
    "fused in groups": between(
        'g = com.microsoft.FusedConv<activation="Relu", group=8>(h, k)',
        [8],
        {"k": (8, 1, 1, 1)},
        domains={"com.microsoft": 1},
    ),
    "a limit that no size of the analysis reaches": between(
        "z = Shape(x)\nn = Gather(z, i)\nc = Min(n, j)\nf = Cast<to=1>(c)\ng = Mul(h, f)",
        [8],
        {"i": np.int64(0), "j": np.int64(2)},
    ),
    "batch normalization": between(
        "g = BatchNormalization(h, s, t, m, p)", [8], {k: (8,) for k in "stmp"}
    ),
    "instance normalization": between(
        "g = InstanceNormalization(h, s, t)", [8], {"s": (8,), "t": (8,)}
    ),
    "group normalization": between(
        "g = GroupNormalization<num_groups=4>(h, s, t)", [4], {"s": (8,), "t": (8,)}, opset=21
    ),
    "group normalization 18": between(
        "g = GroupNormalization<num_groups=2>(h, s, t)", [2], {"s": (2,), "t": (2,)}, opset=18
    ),
    "pools": between(
        """
        a = MaxPool<kernel_shape=[2,2]>(h)
        b1 = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1], count_include_pad=1>(a)
        c = LpPool<kernel_shape=[2,2]>(b1)
        g = GlobalMaxPool(c)
        """,
        [8],
    ),
    "max pool with indices": between("g, i = MaxPool<kernel_shape=[2,2]>(h)\n_ = Abs(i)", []),
    "global pools": between(
        "a = GlobalAveragePool(h)\nc = GlobalLpPool(h)\nd = Add(a, c)\ng = Mul(h, d)", [8]
    ),
    "depth to space": between(
        'g = DepthToSpace<blocksize=2, mode="DCR">(h)', [2], {"v": (3, 2, 1, 1)}
    ),
    "depth to space CRD": between(
        'g = DepthToSpace<blocksize=2, mode="CRD">(h)', [2], {"v": (3, 2, 1, 1)}
    ),
    "depth to space in blocks of three": between(
        "g = DepthToSpace<blocksize=3>(h)", [2],
        {"w": (18, 4, 1, 1), "b": (18,), "v": (3, 2, 1, 1)},
    ),
    "space to depth": between("g = SpaceToDepth<blocksize=3>(h)", [8], {"v": (3, 72, 1, 1)}),
    "resize by scales": between(
        "g = Resize(h, , s)", [8], {"s": np.array([1, 1, 2, 2], np.float32)}
    ),
    "resize to sizes": between(
        "g = Resize<axes=[1,2,3]>(h, , , s)", [8], {"s": ints(8, 3, 9)}, opset=18
    ),
    "resize channels": between(
        "g = Resize(h, , s)", [], {"s": np.array([1, 2, 1, 1], np.float32), "v": (3, 16, 1, 1)}
    ),
    "upsample": between(
        "g = Upsample(h, s)", [8], {"s": np.array([1, 1, 2, 2], np.float32)}, opset=9
    ),
    "resize to computed sizes": between(
        """
        t = Shape(h)
        i = Constant<value_ints=[0,1]>()
        j = Constant<value_ints=[2,3]>()
        d = Constant<value_ints=[2,2]>()
        front = Gather(t, i)
        back = Gather(t, j)
        twice = Mul(back, d)
        s = Concat<axis=0>(front, twice)
        g = Resize(h, , , s)
        """,
        [8],
        free=(1, 2),
    ),
    "pad space": between("g = Pad(h, s)", [8], {"s": ints(0, 0, 1, 1, 0, 0, 2, 0)}),
    "pad by reflection": between(
        'g = Pad<mode="reflect">(h, s)', [8], {"s": ints(0, 0, 1, 1, 0, 0, 2, 0)}
    ),
    "pad channels": between(
        "g = Pad(h, s)", [8], {"s": ints(0, 1, 0, 0, 0, 2, 0, 0), "v": (3, 11, 1, 1)}
    ),
    "pad named axes": between(
        "g = Pad(h, s, , a)", [8], {"s": ints(2, 1), "a": ints(1), "v": (3, 11, 1, 1)}, opset=18
    ),
    "pad by attribute": between("g = Pad<pads=[0,0,1,0,0,0,0,1]>(h)", [8], opset=9),
    "pad channels by reflection": between(
        'g = Pad<mode="reflect">(h, s)', [], {"s": ints(0, 1, 0, 0, 0, 2, 0, 0), "v": (3, 11, 1, 1)}
    ),
    "local response": between("g = LRN<size=3>(h)", []),
    "prelu": between("g = PRelu(h, s)", [8], {"s": (8, 1, 1)}),
    "activations": between(
        """
        a = LeakyRelu(h)
        c = Clip(a, lo, hi)
        d = HardSwish(c)
        e, m = Dropout(d)
        g = Identity(e)
        """,
        [8],
        {"lo": np.float32(-1).reshape(()), "hi": np.float32(2).reshape(())},
    ),
    "cast": between("a = Cast<to=11>(h)\nc = Sqrt(a)\nd = Abs(a)\ng = Cast<to=1>(d)", [8]),
    "two branches": between(
        "a = Conv(h, k)\nc = Add(a, h)\nd = Mul(c, s)\ng = Sub(d, t)",
        [8],
        {"k": (8, 8, 1, 1), "s": (1, 8, 1, 1), "t": (8, 1, 1)},
    ),
    "where": between(
        "a = Conv(x, k)\nc = Greater(a, h)\ng = Where(c, h, s)",
        [8],
        {"k": (8, 4, 1, 1), "s": (8, 1, 1)},
    ),
    "maximum of three": between(
        "a = Conv(x, k)\ng = Max(a, h, s)", [8], {"k": (8, 4, 1, 1), "s": (8, 1, 1)}
    ),
    "a result is needed whole": Case("y = Conv(x, w, b)", W, []),
    "mean over space": between(
        "a = ReduceMean<axes=[2,3], keepdims=0>(h)\nc = Unsqueeze(a, j)\ng = Mul(h, c)",
        [8],
        {"j": ints(2, 3)},
    ),
    "sum over space": between(
        "a = ReduceSum(h, j)\ng = Mul(h, a)", [8], {"j": ints(-1, -2)}
    ),
    "mean over channels": between("a = ReduceMean<axes=[1]>(h)\ng = Mul(h, a)", []),
    "mean over everything": between("a = ReduceMean(h)\ng = Mul(h, a)", []),
    "sum over nothing": between(
        "a = ReduceSum<noop_with_empty_axes=1>(h)\ng = Mul(h, a)", [8]
    ),
    "softmax over space": between("g = Softmax<axis=-1>(h)", [8]),
    "softmax over channels": between("g = Softmax<axis=1>(h)", []),
    "old softmax": between("g = Softmax(h)", [], opset=11),
    "largest channel": between(
        "a = ArgMax<axis=1>(h)\nc = Cast<to=1>(a)\ng = Mul(h, c)", []
    ),
    "running sum": between("g = CumSum(h, a)", [], {"a": np.array(1, np.int64)}),
    "running sum over space": between("g = CumSum(h, a)", [8], {"a": np.array(2, np.int64)}),
    "largest of a row": between("g, i = TopK<axis=3>(h, k)", [8], {"k": ints(2)}),
    "largest of a column": between("g, i = TopK<axis=2>(h, k)", [8], {"k": ints(2)}),
    "places of the largest": between(
        "a, i = TopK(h, k)\nc = Cast<to=1>(i)\ng = Mul(a, c)", [8], {"k": ints(2)}
    ),
    "largest sample": between("a = ArgMax(h)\nc = Cast<to=1>(a)\ng = Mul(h, c)", [8]),
    "largest of channels": between(
        "g, i = TopK<axis=1>(h, k)", [], {"k": ints(2), "v": (3, 2, 1, 1)}
    ),
    "norm of a row": between("g = LpNormalization<axis=-1>(h)", [8]),
    "norm of channels": between("g = LpNormalization<axis=1>(h)", []),
    "layer normalization of rows": between(
        "g = LayerNormalization<axis=-1>(h, s)", [8], {"s": (6,)}
    ),
    "layer normalization of images": between(
        "g = LayerNormalization<axis=1>(h, s)", [], {"s": (8, 6, 6)}
    ),
    "mean and variance": between("g = MeanVarianceNormalization(h)", [8]),
    "mean and variance of channels": between("g = MeanVarianceNormalization<axes=[1]>(h)", []),
    **{
        f"mean and variance of channels that became axis {axis}": between(
            f"a = Transpose<perm={perm}>(h)\nc = MeanVarianceNormalization(a)\n"
            f"g = Transpose<perm={perm}>(c)",
            [],
            fixed_batch=True,
        )
        for axis, perm in ((0, "[1,0,2,3]"), (2, "[0,2,1,3]"), (3, "[0,3,2,1]"))
    },
    "response between rows": between(
        "a = Transpose<perm=[0,2,1,3]>(h)\nc = LRN<size=3>(a)\n"
        "g = Transpose<perm=[0,2,1,3]>(c)",
        [8],
    ),
    "norm of the last of former channels": between(
        "a = Transpose<perm=[0,2,3,1]>(h)\nc = LpNormalization(a)\n"
        "g = Transpose<perm=[0,3,1,2]>(c)",
        [],
    ),
    "old softmax of rows": between("g = Softmax<axis=-2>(h)", [8], opset=11),
    "old softmax of a column": between("g = Softmax<axis=2>(h)", [8], opset=12),
    "old softmax before former channels": between(
        "a = Transpose<perm=[0,2,1,3]>(h)\nc = Softmax<axis=1>(a)\n"
        "g = Transpose<perm=[0,2,1,3]>(c)",
        [],
        opset=12,
    ),
    "new softmax of a row": between("g = Softmax(h)", [8], opset=13),
    "new softmax before other axes": between(
        "a = Transpose<perm=[0,2,1,3]>(h)\nc = Softmax<axis=1>(a)\n"
        "g = Transpose<perm=[0,2,1,3]>(c)",
        [8],
        opset=13,
    ),
    "quantized": between(
        """
        q = QuantizeLinear<axis=1>(h, p, z)
        a = DequantizeLinear<axis=1>(q, p, z)
        k = DequantizeLinear<axis=0>(kq, ps, kz)
        g = Conv(a, k)
        """,
        [5, 8],
        {
            "p": (8,), "z": np.arange(8, dtype=np.int8), "ps": (5,), "kz": np.zeros(5, np.int8),
            "kq": np.random.default_rng(0).integers(-99, 99, (5, 8, 1, 1), dtype=np.int8),
            "v": (3, 5, 1, 1),
        },
        opset=13,
    ),
    "constants in nodes": between(
        "c = Constant<value_floats=[1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0]>()\n"
        "d = Constant<value_ints=[8,1,1]>()\ne = Reshape(c, d)\ng = Mul(h, e)",
        [8],
    ),
    "whole numbers in nodes": between(
        "c = Constant<value_ints=[1,2,3,4,5,6,7,8]>()\nd = Cast<to=1>(c)\n"
        "e = Reshape(d, s)\ng = Mul(h, e)",
        [8],
        {"s": ints(8, 1, 1)},
    ),
    "slides over former channels": between(
        "a = Transpose<perm=[0,2,1,3]>(h)\nc = Conv(a, k)\ng = Transpose<perm=[0,2,1,3]>(c)",
        [],
        {"k": (5, 6, 1, 1)},
    ),
    "transposed over former channels": between(
        "a = Transpose<perm=[0,2,1,3]>(h)\nc = ConvTranspose(a, k)\n"
        "g = Transpose<perm=[0,2,1,3]>(c)",
        [],
        {"k": (6, 5, 1, 1)},
    ),
    "pools former channels": between(
        "a = Transpose<perm=[0,2,1,3]>(h)\nc = MaxPool<kernel_shape=[1,1]>(a)\n"
        "g = Transpose<perm=[0,2,1,3]>(c)",
        [],
    ),
    "normalizes over former channels": between(
        "a = Transpose<perm=[0,2,1,3]>(h)\nc = InstanceNormalization(a, s, t)\n"
        "g = Transpose<perm=[0,2,1,3]>(c)",
        [],
        {"s": (6,), "t": (6,)},
    ),
    "groups over former channels": between(
        "a = Transpose<perm=[0,2,1,3]>(h)\nc = GroupNormalization<num_groups=3>(a, s, t)\n"
        "g = Transpose<perm=[0,2,1,3]>(c)",
        [],
        {"s": (6,), "t": (6,)},
        opset=21,
    ),
    "space to depth of former channels": between(
        "a = Transpose<perm=[0,2,1,3]>(h)\ng = SpaceToDepth<blocksize=2>(a)",
        [],
        {"v": (3, 24, 1, 1)},
    ),
    "joined in space": between(
        "a = Conv(x, k)\ng = Concat<axis=2>(a, h)", [8], {"k": (8, 4, 1, 1)}
    ),
    "pad crops channels": between(
        "g = Pad(h, s)", [], {"s": ints(0, -1, 0, 0, 0, 1, 0, 0)}
    ),
    "pad crops the last channels": between(
        "g = Pad(h, s)", [], {"s": ints(0, 0, 0, 0, 0, -1, 0, 0), "v": (3, 7, 1, 1)}
    ),
    "grid sample": between(
        "a = Slice(x, s, e, i)\nc = Transpose<perm=[0,2,3,1]>(a)\nd = Tanh(c)\n"
        "g = GridSample(h, d)",
        [8],
        {"s": ints(0), "e": ints(2), "i": ints(1)},
    ),
    "grid sample of former channels": between(
        "a = Transpose<perm=[1,0,2,3]>(h)\nc = GridSample(a, k)\n"
        "g = Transpose<perm=[1,0,2,3]>(c)",
        [8],
        {"k": (8, 6, 6, 2)},
        fixed_batch=True,
    ),
    "resize to as many channels": between(
        "g = Resize(h, , s)", [], {"s": np.array([1, 1.1, 1, 1], np.float32)}
    ),
    "resize to as many channels, named": between(
        "g = Resize<axes=[-3,3]>(h, , s)", [], {"s": np.array([1.1, 2], np.float32)}, opset=18
    ),
    "resize a named axis": between(
        "g = Resize<axes=[3]>(h, , s)", [8], {"s": np.array([1.1], np.float32)}, opset=18
    ),
    "resize to as many channels, opset 10": between(
        "g = Resize(h, s)", [], {"s": np.array([1, 1.1, 1, 1], np.float32)}, opset=10
    ),
    "upsample to as many channels": between(
        "g = Upsample(h, s)", [], {"s": np.array([1, 1.1, 1, 1], np.float32)}, opset=9
    ),
    "upsample to as many channels, by attribute": between(
        "g = Upsample<scales=[1.0,1.1,1.0,1.0]>(h)", [], opset=8
    ),
    "bounds by computed sizes": between(
        "z = Shape(x)\ne = Slice(z, two, three)\nu = Sub(e, one)\n"
        "g = Slice(h, one, u, two)",
        [8],
        {"one": ints(1), "two": ints(2), "three": ints(3)},
        free=(1, 2),
    ),
    "starts by computed sizes": between(
        "z = Shape(x)\ne = Slice(z, two, three)\nu = Sub(e, three)\n"
        "g = Slice(h, u, many, two)",
        [8],
        {"two": ints(2), "three": ints(3), "many": ints(99)},
        free=(1, 2),
    ),
    "starts of all axes by computed sizes": between(
        "z = Shape(x)\ne = Slice(z, two, three)\nu = Sub(e, five)\n"
        "s = Concat<axis=0>(none, u)\ng = Slice(h, s, many)",
        [],
        {"two": ints(2), "three": ints(3), "five": ints(5), "none": ints(0, 0, 0),
         "many": ints(*[99] * 4)},
        free=(1, 2),
    ),
    "steps by computed sizes": between(
        "z = Shape(x)\ne = Slice(z, two, three)\nu = Div(e, three)\n"
        "g = Slice(h, one, many, two, u)",
        [8],
        {"one": ints(1), "two": ints(2), "three": ints(3), "many": ints(99)},
        free=(1, 2),
    ),
    **{
        f"padded by computed sizes, {mode}": between(
            "z = Shape(x)\ne = Slice(z, two, three)\nu = Sub(e, five)\n"
            f'p = Concat<axis=0>(none, u)\ng = Pad<mode="{mode}">(h, p)',
            [],
            {"two": ints(2), "three": ints(3), "five": ints(5), "none": ints(*[0] * 7)},
            free=(1, 2),
        )
        for mode in ("constant", "reflect")
    },
    "repeats by a computed number": between(
        "z = Shape(x)\nn = Slice(z, two, three)\nr = Concat<axis=0>(one, one, n, one)\n"
        "g = Tile(h, r)",
        [],
        {"one": ints(1), "two": ints(2), "three": ints(3)},
        free=(1, 2),
    ),
    "new constants of old opsets": Case(
        "h = Conv(x, w, b)\na = Reshape(h, s)\ny = MatMul(a, m)",
        {"w": (8, 4, 1, 1), "b": (8,), "s": ints(0, 288), "m": (288, 2)},
        [8],
        opset=8,
        ir_version=3,
    ),
    "old computed shapes": Case(
        "h = Conv(x, w, b)\nz = Shape(h)\nn = Gather(z, i)\nu = Unsqueeze<axes=[0]>(n)\n"
        "r = Concat<axis=0>(u, j)\na = Reshape(h, r)\ny = MatMul(a, m)",
        {"w": (8, 4, 1, 1), "b": (8,), "i": np.int64(0), "j": ints(288), "m": (288, 2)},
        [8],
        opset=11,
    ),
    "batch statistics": between(
        "a, c, d = BatchNormalization<training_mode=1>(h, s, t, m, p)\n"
        "e = Unsqueeze(c, i)\ng = Mul(a, e)",
        [8],
        {**{k: (8,) for k in "stmp"}, "i": ints(0, 2, 3)},
    ),
    "one vector for two": between(
        "a = Conv(h, k, b)\ng = Relu(a)", [8, 8], {"k": (8, 8, 1, 1)}
    ),
    "initializers are inputs": between("a = Conv(h, k, b)\ng = Relu(a)", [8, 8],
        {"k": (8, 8, 1, 1)}, opset=8, ir_version=3),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rule(name: str) -> None:
    case = CASES[name]
    batches = (1,) if case.fixed_batch else (1, 3)
    prove(built(case), lambda batch: feed(case, batch), case.sizes, batches=batches)
