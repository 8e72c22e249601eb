"""Small models whose layers depend on each other in different ways."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

FEATURES, CLASSES = 12, 5


def weight(name: str, *shape: int, seed: int = 0) -> TensorProto:
    random = np.random.default_rng([seed, *map(ord, name)])
    return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)


def net(
    nodes: list[Any],
    tensors: list[TensorProto],
    outputs: tuple[str, ...] = ("y",),
    *,
    batch: int | str = "N",
    shape: tuple[int, ...] = (FEATURES,),
    functions: tuple[Any, ...] = (),
) -> ModelProto:
    """A model with the input x."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])
    given = [helper.make_tensor_value_info(y, TensorProto.FLOAT, None) for y in outputs]
    domains = {function.domain for function in functions}
    return helper.make_model(
        helper.make_graph(nodes, "net", [x], given, tensors),
        opset_imports=[
            helper.make_opsetid("", 17),
            *(helper.make_opsetid(domain, 1) for domain in sorted(domains)),
        ],
        ir_version=8,
        functions=list(functions),
    )


def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), [output], name=f"make_{output}", **attributes)


def residual(batch: int | str = "N") -> ModelProto:
    """a, then b beside a shortcut, then c."""
    return net(
        [
            node("MatMul", "x a", "p"),
            node("Relu", "p", "q"),
            node("MatMul", "q b", "r"),
            node("Add", "q r", "s"),
            node("Relu", "s", "t"),
            node("MatMul", "t c", "y"),
        ],
        [weight("a", FEATURES, 8), weight("b", 8, 8), weight("c", 8, CLASSES)],
        batch=batch,
    )


def branches() -> ModelProto:
    """a and b in parallel, b first in the graph's order; d makes another output alone."""
    return net(
        [
            node("MatMul", "x b", "q"),
            node("MatMul", "x a", "p"),
            node("MatMul", "p d", "z"),
            node("Tanh", "p", "r"),
            node("Mul", "q r", "s"),
            node("MatMul", "s c", "y"),
        ],
        [
            weight("a", FEATURES, 8),
            weight("b", FEATURES, 8),
            weight("c", 8, CLASSES),
            weight("d", 8, 3),
        ],
        ("y", "z"),
    )


def shared() -> ModelProto:
    """a is used before and after b; c is a Constant behind a Transpose."""
    constant = node("Constant", "", "stored", value=weight("c", CLASSES, FEATURES))
    return net(
        [
            constant,
            node("Transpose", "stored", "c", perm=[1, 0]),
            node("MatMul", "x a", "p"),
            node("Relu", "p", "q"),
            node("MatMul", "q b", "r"),
            node("MatMul", "r a", "s"),
            node("MatMul", "s c", "y"),
        ],
        [weight("a", FEATURES, FEATURES), weight("b", FEATURES, FEATURES)],
    )


def bodies() -> ModelProto:
    """a before an If whose bodies have weights of their own and take c from outside."""

    def body(name: str) -> Any:
        return helper.make_graph(
            [
                helper.make_node("MatMul", ["q", name], [f"{name}_out"], name=f"use_{name}"),
                helper.make_node("MatMul", [f"{name}_out", "c"], [f"{name}_y"], name=f"end_{name}"),
            ],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)],
            [weight(name, 8, 8)],
        )

    condition = numpy_helper.from_array(np.array(True), "yes")
    return net(
        [
            node("MatMul", "x a", "p"),
            node("Relu", "p", "q"),
            node("If", "yes", "y", then_branch=body("b"), else_branch=body("e")),
        ],
        [weight("a", FEATURES, 8), weight("c", 8, CLASSES), condition],
    )


def function() -> ModelProto:
    """A function with a weight of its own, between a and c."""
    inner = helper.make_function(
        "own",
        "Layer",
        ["v"],
        ["w"],
        [
            node("Constant", "", "b", value=weight("b", 8, 8)),
            node("MatMul", "v b", "u"),
            node("Relu", "u", "w"),
        ],
        [helper.make_opsetid("", 17)],
    )
    return net(
        [
            node("MatMul", "x a", "p"),
            helper.make_node("Layer", ["p"], ["q"], domain="own"),
            node("MatMul", "q c", "y"),
        ],
        [weight("a", FEATURES, 8), weight("c", 8, CLASSES)],
        functions=(inner,),
    )


def convolutions(batch: int | str = "N") -> ModelProto:
    """Two convolutions with BatchNormalization, and a classifier behind a Reshape."""
    random = np.random.default_rng(4)
    statistics = [
        numpy_helper.from_array(values.astype(np.float32), name)
        for name, values in {
            "scale": random.uniform(0.5, 1.5, 6),
            "bias": random.standard_normal(6),
            "mean": random.standard_normal(6),
            "var": random.uniform(0.5, 1.5, 6),
        }.items()
    ]
    target = numpy_helper.from_array(np.array([0 if batch == "N" else 1, -1]), "flat")
    return net(
        [
            node("Conv", "x a", "p", pads=[1, 1, 1, 1]),
            node("BatchNormalization", "p scale bias mean var", "q"),
            node("Relu", "q", "r"),
            node("Conv", "r b", "s"),
            node("Relu", "s", "t"),
            node("Reshape", "t flat", "u"),
            node("MatMul", "u c", "y"),
        ],
        [
            weight("a", 6, 2, 3, 3),
            weight("b", 4, 6, 3, 3),
            weight("c", 64, CLASSES),
            *statistics,
            target,
        ],
        batch=batch,
        shape=(2, 6, 6),
    )
