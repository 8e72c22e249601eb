"""Mutations that add structure: constants that claim to be huge, nested bodies, functions."""

from __future__ import annotations

from random import Random

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.fuzzing.mutators.graphs import a_node

__all__ = ["STRUCTURES"]

#: Sizes that a few bytes claim: half a gigabyte, hundreds, more than anybody has.
CLAIMED = (2**27, 2**31, 2**38, 2**62)


def bomb(random: Random, model: ModelProto) -> None:
    """A constant chain whose value is far larger than the file, read by a node or an output."""
    name = "bomb"
    nodes, constants = _bomb(random, name)
    graph = model.graph
    graph.initializer.extend(constants)
    for node in reversed(nodes):
        graph.node.insert(0, node)
    way = random.choice(("input", "add", "output"))
    reader = a_node(random, model)
    if way == "input" and reader is not None and reader.input and reader not in nodes:
        reader.input[random.randrange(len(reader.input))] = name
    elif way == "add" and graph.output:
        first = graph.output[0].name
        graph.node.append(helper.make_node("ReduceMax", [name], ["peak"], keepdims=0))
        graph.node.append(helper.make_node("Add", [first, "peak"], ["bombed"]))
        graph.output.append(helper.make_empty_tensor_value_info("bombed"))
    else:
        graph.output.append(helper.make_empty_tensor_value_info(name))


def _bomb(random: Random, name: str) -> tuple[list[NodeProto], list[TensorProto]]:
    side = random.choice(CLAIMED)
    shape = random.choice(([side], [2**16, max(1, side >> 16)], [side, 1, 1, 1]))

    def ints(title: str, numbers: object) -> TensorProto:
        return numpy_helper.from_array(np.array(numbers, np.int64), title)

    way = random.choice(("ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Pad", "doubling"))
    one = numpy_helper.from_array(np.ones([1] * len(shape), np.float32), "bomb_one")
    if way == "ConstantOfShape":
        return [helper.make_node(way, ["bomb_n"], [name])], [ints("bomb_n", shape)]
    if way in ("Expand", "Tile"):
        return [helper.make_node(way, ["bomb_one", "bomb_n"], [name])], [one, ints("bomb_n", shape)]
    if way == "Range":
        ends = [ints("bomb_a", 0), ints("bomb_b", side), ints("bomb_c", 1)]
        return [helper.make_node(way, [t.name for t in ends], [name])], ends
    if way == "Pad":
        pads = ints("bomb_n", [0] * len(shape) + shape)
        return [helper.make_node(way, ["bomb_one", "bomb_n"], [name])], [one, pads]
    if way == "Resize":
        node = helper.make_node(way, ["bomb_one", "", "", "bomb_n"], [name])
        return [node], [one, ints("bomb_n", shape)]
    nodes, before = [], "bomb_one"
    for step in range(random.choice((20, 30, 60))):
        after = f"bomb_{step}"
        nodes.append(helper.make_node("Concat", [before, before], [after], axis=0))
        before = after
    return [*nodes, helper.make_node("Identity", [before], [name])], [one]


def nest(random: Random, model: ModelProto) -> None:
    """The last nodes, inside bodies inside bodies."""
    depth = random.choice((1, 2, 5, 20, 30))
    graph = model.graph
    if not graph.output or not graph.output[0].name:
        return
    output = graph.output[0].name
    inner = GraphProto(name="inner")
    kept = len(graph.node) - random.randrange(1, 3)
    inner.node.extend(graph.node[max(kept, 0) :])
    inner.output.add().CopyFrom(graph.output[0])
    del graph.node[max(kept, 0) :]
    graph.initializer.append(numpy_helper.from_array(np.array(True), "always"))
    for level in range(depth):
        around = GraphProto(name=f"level{level}")
        node = helper.make_node(
            "If", ["always"], [output], then_branch=inner, else_branch=GraphProto(name="none")
        )
        around.node.append(node)
        around.output.add().CopyFrom(graph.output[0])
        inner = around
    graph.node.extend(inner.node)


def function(random: Random, model: ModelProto) -> None:
    """A node moves into a function, which may call itself, be missing, or be there twice."""
    graph = model.graph
    if not graph.node:
        return
    at = random.randrange(len(graph.node))
    node = NodeProto()
    node.CopyFrom(graph.node[at])
    inputs = [name for name in dict.fromkeys(node.input) if name]
    made = helper.make_function(
        "fuzz", "moved", inputs, list(node.output), [node], list(model.opset_import)
    )
    call = helper.make_node("moved", inputs, list(node.output), domain="fuzz")
    way = random.choice(("fine", "itself", "each other", "missing", "twice", "arity", "no opset"))
    graph.node[at].CopyFrom(call)
    if way != "no opset":
        model.opset_import.append(helper.make_opsetid("fuzz", 1))
    model.ir_version = max(model.ir_version, 8)
    if way in ("itself", "each other"):
        made.opset_import.append(helper.make_opsetid("fuzz", 1))
        again = helper.make_node(
            "moved" if way == "itself" else "back", inputs, ["again"], domain="fuzz"
        )
        made.node.append(again)
    if way == "each other":
        there = helper.make_node("moved", inputs, ["o"], domain="fuzz")
        other = helper.make_function(
            "fuzz", "back", inputs, ["o"], [there], list(made.opset_import)
        )
        model.functions.append(other)
    if way == "arity":
        made.input.append("more")
        del made.output[:]
    if way != "missing":
        model.functions.append(made)
    if way == "twice":
        model.functions.append(made)


def many(random: Random, model: ModelProto) -> None:
    """A chain of many nodes, or as many constants."""
    graph = model.graph
    if not graph.output:
        return
    count, before = random.choice((20, 20, 200)), graph.output[0].name
    for number in range(count):
        graph.node.append(helper.make_node("Neg", [before], [f"many{number}"]))
        before = f"many{number}"
    graph.output[0].name = before


STRUCTURES = {f"structure: {change.__name__}": change for change in (bomb, nest, function, many)}
