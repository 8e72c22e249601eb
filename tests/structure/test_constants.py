"""What is known of values: every rule finds the constants it should, and onnxruntime agrees."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from onnxprune.structure.constants.known import Known
from tests.structure.dying import prove_constants
from tests.structure.graphs import Case, Shape, built, feed, ints

RANDOM = np.random.default_rng(5)


def kernel(*shape: int, zero: tuple[int, ...] = (), axis: int = 0) -> np.ndarray:
    """Random weights in which whole indices of an axis are zero."""
    values = RANDOM.standard_normal(shape).astype(np.float32)
    values[(slice(None),) * axis + (list(zero),)] = 0
    return values


BIAS = np.array([0.7, -0.4, 0.2, 0.1, 0.6, -0.9, 0.3, 0.5], np.float32)
#: Channels 1, 4 and 5 of h are constants: -0.4, 0.6 and -0.9.
W = {"w": kernel(8, 4, 1, 1, zero=(1, 4, 5)), "b": BIAS}


def known(
    lines: str, weights: Mapping[str, Shape | np.ndarray] | None = None, **options: object
) -> Mapping[str, Known]:
    """The constants of nodes behind h, all of them checked."""
    last = lines.strip().splitlines()[-1].split("=")[0].split(",")[0].strip()
    text = f"h = Conv(x, w, b)\n{lines.strip()}\ny = Identity({last})"
    case = Case(text, {**W, **(weights or {})}, [], **options)  # type: ignore[arg-type]
    return prove_constants(built(case), [feed(case, batch) for batch in (1, 3)])


def count(facts: Mapping[str, Known], name: str = "g") -> int:
    return int(facts[name].mask.sum()) if name in facts else 0


SMOOTH = """
    Abs Asinh Atan Celu Cos Cosh Elu Erf Exp HardSigmoid HardSwish Identity LeakyRelu Mish Neg
    Reciprocal Relu Selu Shrink Sigmoid Sin Sinh Softplus Softsign Tan Tanh ThresholdedRelu
"""


@pytest.mark.parametrize("name", SMOOTH.split())
def test_functions(name: str) -> None:
    assert count(known(f"g = {name}(h)", opset=22, ir_version=10)) == 3


@pytest.mark.parametrize("name", ["Ceil", "Floor", "Round", "Sign"])
def test_functions_with_jumps_are_not_followed(name: str) -> None:
    assert not count(known(f"g = {name}(h)"))


@pytest.mark.parametrize("name", ["Acos", "Acosh", "Log", "Sqrt"])
def test_undefined_values_are_no_constants(name: str) -> None:
    facts = known(f"g = {name}(h)", opset=22, ir_version=10)
    with np.errstate(all="ignore"):
        defined = np.isfinite(getattr(np, name.lower().replace("acos", "arccos"))(BIAS[[1, 4, 5]]))
    assert count(facts) == defined.sum()


ROW = {"c": (8, 1, 1)}
SIZES = {"zero": ints(0), "one": ints(1), "two": ints(2), "four": ints(4), "seven": ints(7)}
#: Nodes from h to g, how many constants g has, and further weights.
CASES: dict[str, tuple[str, int, dict[str, Shape | np.ndarray]]] = {
    "with constants": ("a = Add(h, c)\nd = Mul(a, c)\ne = Sub(d, c)\ng = Div(e, c)", 3, ROW),
    "with a scalar": ("a = Mul(h, s)\ng = Add(s, a)", 3, {"s": np.float32(2)}),
    "with an activation": ("a = Conv(x, k)\ng = Add(h, a)", 0, {"k": (8, 4, 1, 1)}),
    "of two branches": ("a = Conv(x, k)\ng = Add(h, a)", 2,
        {"k": kernel(8, 4, 1, 1, zero=(1, 2, 5))}),
    "zero times an activation": ("a = Relu(h)\nc = Conv(x, k)\ng = Mul(c, a)", 2,
        {"k": (8, 4, 1, 1)}),
    "zeros of both factors": ("a = Relu(h)\nc = Conv(x, k)\ng = Mul(c, a)", 4,
        {"k": kernel(8, 4, 1, 1, zero=(0, 4))}),
    "a mask times an activation": ("a = Conv(x, k)\ng = Mul(a, m)", 5,
        {"k": (8, 4, 1, 1), "m": np.array([0, 0, 1, 0, 1, 0, 0, 1], np.float32).reshape(8, 1, 1)}),
    "a choice": ("g = Where(m, h, c)", 3,
        {"c": (8, 1, 1), "m": np.arange(8).reshape(8, 1, 1) > 3}),
    "slopes": ("g = PRelu(h, c)", 3, ROW),
    "powers": ("a = Exp(h)\ng = Pow(a, s)", 3, {"s": np.float32(2)}),
    "larger and smaller": ("a = Max(h, s, c)\ng = Min(a, c)", 3, {"s": np.float32(0), **ROW}),
    "sums and means": ("a = Sum(h, c, c)\ng = Mean(a, c)", 3, ROW),
    "clipped": ("g = Clip(h, s, t)", 3, {"s": np.float32(-0.5), "t": np.float32(0.5)}),
    "clipped below": ("g = Clip(h, s)", 3, {"s": np.float32(0)}),
    "dropped": ("g = Dropout(h)", 3, {}),
    "dropped if activations say so": (
        "a = ReduceMax<keepdims=0>(x)\nt = Greater(a, s)\ng = Dropout(h, s, t)", 0,
        {"s": np.float32(0.5)}),
    "decoded around activations": (
        "a, c, z = DynamicQuantizeLinear(h)\ng = DequantizeLinear(k, s, z)", 0,
        {"k": np.arange(8, dtype=np.uint8), "s": np.float32(0.1)}),
    "cast": ("a = Cast<to=11>(h)\ng = Cast<to=1>(a)", 3, {}),
    "cast to whole numbers": ("a = Cast<to=6>(h)\ng = Cast<to=1>(a)", 0, {}),
    "normalized": ("g = BatchNormalization<epsilon=0.5>(h, s, t, m, p)", 3,
        {k: (8,) for k in "stmp"}),
    "normalized on one axis": ("a = Reshape(h, r)\ng = BatchNormalization(a, s, t, m, p)", 3,
        {"r": ints(0, 8, 36), **{k: (8,) for k in "stmp"}}),
    "normalized by activations": (
        "a = Conv(x, k)\ns = ReduceMax<axes=[0,2,3], keepdims=0>(a)\n"
        "g = BatchNormalization(h, s, t, m, p)", 0,
        {"k": (8, 4, 1, 1), **{k: (8,) for k in "tmp"}}),
    "normalized by constants and activations": (
        "s = ReduceMax<axes=[0,2,3], keepdims=0>(h)\ng = BatchNormalization(h, s, t, m, p)", 0,
        {k: (8,) for k in "tmp"}),
    "scaled by zero": ("g = BatchNormalization(h, s, t, m, p)", 5,
        {"s": np.array([0, 1, 2, 0, 3, 1, 2, 1], np.float32), **{k: (8,) for k in "tmp"}}),
    "instances": ("a = Relu(h)\ng = InstanceNormalization(a, s, t)", 2, {k: (8,) for k in "st"}),
    "largest": ("g = MaxPool<kernel_shape=[2,2], pads=[1,1,0,0]>(h)", 3, {}),
    "mean": ("g = AveragePool<kernel_shape=[2,2]>(h)", 3, {}),
    "mean without padding": ("g = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(h)", 3, {}),
    "mean with padding": (
        "g = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(h)", 0, {}),
    "mean of zeros with padding": (
        "a = Relu(h)\ng = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(a)",
        2, {}),
    "mean with automatic padding": (
        'g = AveragePool<kernel_shape=[2,2], auto_pad="SAME_UPPER", count_include_pad=1>(h)', 0,
        {}),
    "mean with padding at one side": (
        "g = AveragePool<kernel_shape=[3,3], pads=[1,1,0,0], count_include_pad=1>(h)", 0, {}),
    "largest of what differs": ("a = Add(h, c)\ng = GlobalMaxPool(a)", 0, {"c": (8, 6, 6)}),
    "mean of what differs": ("a = Add(h, c)\ng = AveragePool<kernel_shape=[2,2]>(a)", 0,
        {"c": (8, 6, 6)}),
    "mean of parts": ("g = AveragePool<kernel_shape=[4,4], strides=[3,3], ceil_mode=1>(h)", 0, {}),
    "global pools": ("a = GlobalAveragePool(h)\nc = GlobalMaxPool(h)\ng = Add(a, c)", 3, {}),
    "reduced": ("a = ReduceMean<axes=[2,3]>(h)\nc = ReduceMax<axes=[-1,-2], keepdims=0>(h)\n"
        "d = Squeeze(a, t)\ne = Add(c, d)\nf = ReduceMin<axes=[2,3], keepdims=0>(h)\n"
        "g = Add(e, f)", 3, {"t": ints(2, 3)}),
    "reduced over channels": ("g = ReduceMean<axes=[1]>(h)", 0, {}),
    "summed": ("g = ReduceSum<noop_with_empty_axes=1>(h, t)", 3, {"t": ints(2, 3)}),
    "flattened": ("g = Flatten(h)", 3 * 36, {}),
    "transposed": ("g = Transpose<perm=[0,2,3,1]>(h)", 3, {}),
    "reshaped": ("g = Reshape(h, s)", 3, {"s": ints(0, 2, 4, 36)}),
    "merged": ("a = Transpose<perm=[0,2,3,1]>(h)\ng = Reshape(a, s)", 3 * 6,
        {"s": ints(0, 6, 48)}),
    "unsqueezed": ("a = Unsqueeze(h, t)\ng = Squeeze(a, t)", 3, {"t": ints(1)}),
    "expanded": ("a = ReduceMean<axes=[2,3]>(h)\ng = Expand(a, s)", 3, {"s": ints(1, 1, 8, 5, 5)}),
    "tiled": ("g = Tile(h, s)", 6, {"s": ints(1, 2, 3, 1)}),
    "enlarged": ("g = Resize(h, , s)", 3, {"s": np.array([1, 1, 2, 2], np.float32)}),
    "enlarged beyond its edges": (
        'g = Resize<coordinate_transformation_mode="tf_crop_and_resize", mode="linear", '
        "extrapolation_value=7.0>(h, r, s)", 0,
        {"s": np.array([1, 1, 2, 2], np.float32),
         "r": np.array([0, 0, 0, 0, 1, 1, 2, 2], np.float32)}),
    "joined": ("a = Conv(x, k)\ng = Concat<axis=1>(a, h, a)", 3, {"k": (5, 4, 1, 1)}),
    "joined with constants": ("a = Conv(x, k)\ng = Concat<axis=1>(a, h)", 5,
        {"k": kernel(5, 4, 1, 1, zero=(0, 3))}),
    "joined in space": ("a = Conv(x, k)\ng = Concat<axis=2>(a, h)", 3 * 6, {"k": (8, 4, 1, 1)}),
    "split": ("g, c = Split<axis=1>(h, s)", 1, {"s": ints(4, 4)}),
    "the other part": ("c, g = Split<axis=1>(h, s)", 2, {"s": ints(4, 4)}),
    "sliced": ("g = Slice(h, four, seven, one)", 2, SIZES),
    "sliced backwards": ("g = Slice(h, seven, one, one, m)", 1, {**SIZES, "m": ints(-2)}),
    "sliced backwards from the end": ("g = Slice(h, seven, last, one, m)", 2,
        {**SIZES, "m": ints(-1), "last": ints(-6)}),
    "sliced along all axes": ("g = Slice(h, s, e)", 2,
        {"s": ints(0, 4, 0, 0), "e": ints(99, 7, 99, 99)}),
    "sliced in space": ("g = Slice(h, one, four, two)", 3, SIZES),
    "picked": ("g = Gather<axis=1>(h, i)", 4, {"i": ints(5, 0, 1, 5, 4)}),
    "picked alone": ("g = Gather<axis=1>(h, i)", 1, {"i": np.int64(5)}),
    "padded in space": ("g = Pad(h, s)", 0, {"s": ints(0, 0, 1, 1, 0, 0, 1, 1)}),
    "zeros padded in space": ("a = Relu(h)\ng = Pad(a, s)", 2,
        {"s": ints(0, 0, 1, 1, 0, 0, 1, 1)}),
    "cropped channels": ("g = Pad(h, s)", 0, {"s": ints(0, -2, 0, 0, 0, 0, 0, 0)}),
    "padded with activations": ("f = ReduceMax<keepdims=0>(x)\ng = Pad(h, s, f)", 0,
        {"s": ints(0, 1, 0, 0, 0, 2, 0, 0)}),
    "padded channels": ("g = Pad(h, s, f)", 6,
        {"s": ints(0, 1, 0, 0, 0, 2, 0, 0), "f": np.float32(0.25)}),
    "with a bias of constants and activations": (
        "s = ReduceMax<axes=[0,2,3], keepdims=0>(h)\ng = Conv<group=8>(h, k, s)", 0,
        {"k": (8, 1, 1, 1)}),
    "convolved": ("g = Conv(h, k, d)", 2,
        {"k": kernel(5, 8, 3, 3, zero=(0, 2)), "d": (5,)}),
    "of constants alone": ("g = Conv(h, k, d)", 2,
        {"k": kernel(5, 8, 3, 3, zero=(0, 2, 3, 6, 7), axis=1) *
         np.array([1, 1, 0, 0, 0], np.float32).reshape(-1, 1, 1, 1) +
         kernel(5, 8, 3, 3) * np.array([0, 0, 1, 1, 1], np.float32).reshape(-1, 1, 1, 1),
         "d": (5,)}),
    "of constants with padding": ("g = Conv<pads=[1,1,1,1]>(h, k, d)", 0,
        {"k": kernel(5, 8, 3, 3, zero=(0, 2, 3, 6, 7), axis=1), "d": (5,)}),
    "of zeros with padding": ("a = Relu(h)\ng = Conv<pads=[1,1,1,1]>(a, k, d)", 5,
        {"k": kernel(5, 8, 3, 3, zero=(0, 2, 3, 4, 6, 7), axis=1), "d": (5,)}),
    "with automatic padding": ('g = Conv<auto_pad="SAME_LOWER">(h, k)', 0,
        {"k": kernel(5, 8, 3, 3, zero=(0, 2, 3, 6, 7), axis=1)}),
    "each by itself": ("g = Conv<group=8>(h, k, d)", 4,
        {"k": kernel(8, 1, 3, 3, zero=(2,)), "d": (8,)}),
    "in groups": ("g = Conv<group=2>(h, k)", 1,
        {"k": np.concatenate([kernel(2, 4, 3, 3), kernel(2, 4, 3, 3, zero=(2, 3), axis=1)
         * np.array([1, 0], np.float32).reshape(-1, 1, 1, 1) + kernel(2, 4, 3, 3)
         * np.array([0, 1], np.float32).reshape(-1, 1, 1, 1)])}),
    "transposed convolution": ("g = ConvTranspose<strides=[2,2]>(h, k, d)", 2,
        {"k": kernel(8, 5, 2, 2, zero=(1, 3), axis=1), "d": (5,)}),
    "of constants, transposed": ("g = ConvTranspose<strides=[2,2]>(h, k, d)", 0,
        {"k": kernel(8, 5, 2, 2, zero=(0, 2, 3, 6, 7)), "d": (5,)}),
    "of zeros, transposed": ("a = Relu(h)\ng = ConvTranspose<strides=[2,2]>(a, k, d)", 5,
        {"k": kernel(8, 5, 2, 2, zero=(0, 2, 3, 4, 6, 7)), "d": (5,)}),
    "product": ("a = Transpose<perm=[0,2,3,1]>(h)\ng = MatMul(a, k)", 2,
        {"k": kernel(8, 5, zero=(1, 2), axis=1)}),
    "product of constants": ("a = Transpose<perm=[0,2,3,1]>(h)\ng = MatMul(a, k)", 5,
        {"k": kernel(8, 5, zero=(0, 2, 3, 6, 7))}),
    "product of both": ("a = Reshape(h, s)\nc = Transpose<perm=[0,2,1]>(a)\ng = MatMul(a, c)", 9,
        {"s": ints(0, 8, 36)}),
    "product from the left": ("a = Reshape(h, s)\ng = MatMul(k, a)", 4,
        {"s": ints(0, 8, 36), "k": kernel(4, 8, zero=(0, 2, 3, 6, 7), axis=1)}),
    "scaled product": ("a = GlobalAveragePool(h)\nc = Flatten(a)\n"
        "g = Gemm<alpha=0.5, beta=2.0, transB=1>(c, k, d)", 3,
        {"k": kernel(5, 8, zero=(0, 2, 3)), "d": (5,)}),
    "looked up": ("i = ArgMax<axis=1, keepdims=0>(x)\ng = Gather(e, i)", 2,
        {"e": kernel(4, 7, zero=(1, 3), axis=1)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_constants(name: str) -> None:
    lines, expected, weights = CASES[name]
    assert count(known(lines, weights)) == expected


def test_contributed_activations() -> None:
    lines = (
        "b3 = Mul(h, three)\na = com.microsoft.Gelu(b3)\nc = com.microsoft.FastGelu(b3)\n"
        "d = com.microsoft.QuickGelu(c)"
    )
    facts = known(f"{lines}\ng = Gelu<approximate=\"tanh\">(b3)", {"three": np.float32(3)},
                  opset=20, ir_version=9, domains={"com.microsoft": 1})  # fmt: skip
    assert [count(facts, name) for name in "acdg"] == [3, 3, 3, 3]
    bias = {"t": (8,)}
    facts = known(
        "e = Transpose<perm=[0,2,3,1]>(h)\ng = com.microsoft.BiasGelu(e, t)", bias,
        domains={"com.microsoft": 1},
    )  # fmt: skip
    assert count(facts) == 3


def test_quantized_weights() -> None:
    codes = np.array([[3, -2, 5, 1], [7, 7, 7, 7], [0, 2, 1, 4]], np.int8)
    weights = {
        "q": np.where(np.arange(3)[:, None] == 1, 7, codes).astype(np.int8).reshape(3, 4, 1, 1),
        "s": np.array([0.1, 0.2, 0.3], np.float32),
        "z": np.array([0, 7, 1], np.int8),
    }
    facts = known("k = DequantizeLinear<axis=0>(q, s, z)\ng = Conv(x, k)", weights)
    assert count(facts, "k") == 12 and count(facts) == 1


def test_old_forms() -> None:
    facts = known(
        "a = Clip<min=-0.5, max=0.5>(h)\nc = Dropout(a)\nd = Unsqueeze<axes=[1]>(c)\n"
        "e = Squeeze<axes=[1]>(d)\nf = Upsample(e, s)\n"
        "g = Pad<pads=[0,1,0,0,0,0,0,0], value=0.5>(f)",
        {"s": np.array([1, 1, 2, 2], np.float32)}, opset=9, ir_version=4,
    )  # fmt: skip
    assert [count(facts, name) for name in "acdefg"] == [3, 3, 3, 3, 3, 4]


def test_a_training_dropout_makes_no_constants() -> None:
    facts = known("g = Dropout(h, r, t)", {"r": np.float32(0.5), "t": np.bool_(True)})
    assert not count(facts)


def test_open_axes() -> None:
    facts = known(
        "s = Shape(h)\na = Reshape(h, t)\nc = Reshape(a, s)\n"
        "d = GlobalMaxPool(c)\ng = ReduceSum(h, i)",
        {"t": ints(0, 8, -1), "i": ints(2)}, free=(1, 2),
    )  # fmt: skip
    assert [count(facts, name) for name in "acdg"] == [3, 3, 3, 0]


def test_sums_over_an_open_axis_and_another() -> None:
    facts = known("a = Relu(h)\nc = ReduceSum(a, i)\ng = ReduceSum(h, i)", {"i": ints(2, 3)},
                  free=(1,))  # fmt: skip
    assert [count(facts, name) for name in "cg"] == [2, 0]


def test_slices_up_to_a_computed_place() -> None:
    sizes = {**SIZES, "three": ints(3)}
    facts = known("z = Shape(x)\ne = Slice(z, two, three)\ng = Slice(h, one, e, one)", sizes,
                  free=(1, 2))  # fmt: skip
    assert not count(facts)
