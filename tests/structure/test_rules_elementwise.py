"""All operators that work on each element by itself, and all reductions, in one network each."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from onnxprune.structure.analysis import analyse
from onnxprune.structure.groups import find_groups
from onnxprune.structure.removal import remove
from tests.structure.graphs import Case, built, feed, ints
from tests.structure.proof import prove

W = {"w": (8, 4, 1, 1), "b": (8,), "k": (8, 4, 1, 1), "v": (3, 8, 1, 1)}

#: Functions of one operand whose result is defined everywhere between -1 and 1.
UNARY_NAMES = """
    Abs Acos Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish
    Identity LeakyRelu Mish Neg Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus
    Softsign Tan Tanh ThresholdedRelu
"""
#: Functions of one operand that is more than 1.
ABOVE_ONE = ["Acosh", "Log", "Sqrt"]
TESTS = ["IsInf", "IsNaN"]
COMPARISONS = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]
LOGIC = ["And", "Or", "Xor"]
BINARY = ["Add", "Div", "Max", "Mean", "Min", "Mul", "Pow", "Sub", "Sum"]
BITS = ["BitwiseAnd", "BitwiseOr", "BitwiseXor"]
REDUCTIONS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]


def check(lines: str, sizes: list[int] | None = None, opset: int = 22, **more: object) -> None:
    text = f"f = Conv(x, w, b)\ne0 = Tanh(f)\nh = Mul(e0, half)\n{lines}\ny = Conv(g, v)"
    sizes = [8] if sizes is None else sizes
    case = Case(text, {**W, "half": np.float32(0.5), **more}, sizes, opset=opset, ir_version=10)
    prove(built(case), lambda batch: feed(case, batch), case.sizes)


@pytest.mark.parametrize("name", UNARY_NAMES.split())
def test_functions(name: str) -> None:
    check(f"g = {name}(h)")


@pytest.mark.parametrize("name", ABOVE_ONE)
def test_functions_above_one(name: str) -> None:
    check(f"a = Exp(h)\nc = Exp(a)\ng = {name}(c)")


def test_contributed_activations() -> None:
    case = Case(
        "f = Conv(x, w, b)\n" + "\n".join(
            f"{a} = com.microsoft.{name}({b})"
            for a, b, name in (("h", "f", "Gelu"), ("i", "h", "FastGelu"), ("g", "i", "QuickGelu"))
        ) + "\ny = Conv(g, v)",
        W, [8], domains={"com.microsoft": 1},
    )  # fmt: skip
    prove(built(case), lambda batch: feed(case, batch), case.sizes)


@pytest.mark.parametrize("name", TESTS)
def test_tests(name: str) -> None:
    check(f"a = {name}(h)\nc = Not(a)\nd = CastLike(c, h)\ng = Mul(d, h)")


@pytest.mark.parametrize("name", BINARY)
def test_two_branches(name: str) -> None:
    check(f"a = Conv(x, k)\nc = Abs(a)\ng = {name}(c, h)")


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name: str) -> None:
    check(f"a = Conv(x, k)\nc = {name}(a, h)\ng = Where(c, a, h)")


@pytest.mark.parametrize("name", LOGIC)
def test_logic(name: str) -> None:
    check(f"a = Conv(x, k)\nc = Greater(a, h)\nd = Less(a, b3)\ne = {name}(c, d)\n"
          "g = Where(e, a, h)", b3=(8, 1, 1))  # fmt: skip


@pytest.mark.parametrize("name", BITS)
def test_bits(name: str) -> None:
    lines = f"""
        a = Conv(x, k)
        c = Cast<to=7>(a)
        d = Cast<to=7>(f)
        e = {name}(c, d)
        i = BitwiseNot(e)
        j = BitShift<direction="LEFT">(u, t)
        l = Cast<to=7>(j)
        m = Mod(i, l)
        g = Cast<to=1>(m)
    """
    shifted = np.arange(1, 9, dtype=np.uint64).reshape(8, 1, 1)
    check(lines.strip(), u=shifted, t=np.array(1, np.uint64))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str) -> None:
    positive = "p = Exp(h)\n"
    check(f"{positive}a = Reduce{name}(p, i)\ng = Mul(h, a)", i=ints(-1))
    check(f"{positive}a = Reduce{name}(p, i)\ng = Mul(h, a)", [], i=ints(-3))


@pytest.mark.parametrize("name", ["ArgMax", "ArgMin"])
def test_places_of_extremes(name: str) -> None:
    check(f"a = {name}<axis=-1>(h)\nc = Cast<to=1>(a)\ng = Mul(h, c)")
    check(f"a = {name}<axis=1>(h)\nc = Cast<to=1>(a)\ng = Mul(h, c)", [])


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax(name: str) -> None:
    check(f"g = {name}<axis=2>(h)")
    check(f"g = {name}<axis=1>(h)", [])


def test_zeroed_weights_are_the_reference() -> None:
    """The same proof without masks: the consumer's weights themselves are zero."""
    case = Case("f = Conv(x, w, b)\nh = Tanh(f)\ny = Conv(h, v)", W, [8])
    model = built(case)
    (group,) = find_groups(analyse(model))
    gone = group.atoms[[1, 4, 5]].tolist()
    smaller = remove(model, gone)
    for tensor in model.graph.initializer:
        if tensor.name == "v":
            array = onnx.numpy_helper.to_array(tensor).copy()
            array[:, [1, 4, 5]] = 0
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, "v"))
    expected, found = (ReferenceEvaluator(m).run(None, feed(case, 2))[0] for m in (model, smaller))
    np.testing.assert_allclose(found, expected, atol=1e-5)
