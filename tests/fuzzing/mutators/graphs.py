"""Mutations of a graph: edges, nodes, attributes, names, versions, bodies and functions."""

from __future__ import annotations

from random import Random

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper

from onnxprune.model.tensors import walk_graphs
from tests.fuzzing.mutators.values import OPERATORS, a_dim, a_float, a_name, an_integer

__all__ = ["GRAPHS", "a_graph", "a_node"]


def a_graph(random: Random, model: ModelProto) -> GraphProto:
    """The main graph, mostly, or a body."""
    inner = [graph for _, graph in walk_graphs(model) if isinstance(graph, GraphProto)]
    return model.graph if random.random() < 0.7 else random.choice(inner)


def a_node(random: Random, model: ModelProto) -> NodeProto | None:
    """Any node of the model."""
    nodes = [node for _, graph in walk_graphs(model) for node in graph.node]
    return random.choice(nodes) if nodes else None


def rewire(random: Random, model: ModelProto) -> None:
    """An input of a node is another value: cycles, dangling names, wrong ranks."""
    graph = a_graph(random, model)
    nodes = [node for node in graph.node if node.input]
    if nodes:
        node = random.choice(nodes)
        node.input[random.randrange(len(node.input))] = _value(random, graph)


def arity(random: Random, model: ModelProto) -> None:
    """A node gets more inputs or outputs, or fewer."""
    node = a_node(random, model)
    if node is None:
        return
    names = random.choice((node.input, node.output))
    way = random.choice(("drop", "add", "empty", "clear", "many"))
    if way == "drop" and names:
        del names[random.randrange(len(names))]
    elif way == "add":
        names.append(_value(random, model.graph))
    elif way == "empty" and names:
        names[random.randrange(len(names))] = ""
    elif way == "many":
        names.extend(["", *["x"] * 20])
    elif way == "clear":
        del names[:]


def outputs(random: Random, model: ModelProto) -> None:
    """A node's output takes the name of another value."""
    graph = a_graph(random, model)
    nodes = [node for node in graph.node if node.output]
    if nodes:
        node = random.choice(nodes)
        node.output[random.randrange(len(node.output))] = _value(random, graph)


def graph_values(random: Random, model: ModelProto) -> None:
    """Inputs and outputs of a graph, or stated types, disappear, double or change their name."""
    graph = a_graph(random, model)
    values = random.choice((graph.input, graph.output, graph.value_info))
    if not values:
        return
    at = random.randrange(len(values))
    way = random.choice(("drop", "twice", "name", "clear"))
    if way == "drop":
        del values[at]
    elif way == "twice":
        values.add().CopyFrom(values[at])
    elif way == "name":
        values[at].name = _value(random, graph)
    else:
        values[at].ClearField("type")


def operator(random: Random, model: ModelProto) -> None:
    """A node becomes another operator."""
    node = a_node(random, model)
    if node is not None:
        node.op_type = random.choice(OPERATORS)
        if random.random() < 0.2:
            node.domain = random.choice(("", "com.microsoft", "ai.onnx", "local", "ai.onnx.ml"))


def node_list(random: Random, model: ModelProto) -> None:
    """Nodes are left out, doubled, or in another order."""
    graph = a_graph(random, model)
    if not graph.node:
        return
    way = random.choice(("drop", "twice", "shuffle"))
    at = random.randrange(len(graph.node))
    if way == "drop":
        del graph.node[at]
    elif way == "twice":
        graph.node.add().CopyFrom(graph.node[at])
    else:
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in graph.node]
        random.shuffle(nodes)
        del graph.node[:]
        graph.node.extend(nodes)


ATTRIBUTES = [
    "alpha",
    "axes",
    "axis",
    "alpha",
    "auto_pad",
    "blocksize",
    "block_size",
    "body",
    "dilations",
    "direction",
    "else_branch",
    "epsilon",
    "equation",
    "exclude_outside",
    "fmod",
    "group",
    "hidden_size",
    "keepdims",
    "kernel_shape",
    "k",
    "layout",
    "linear_before_reset",
    "mode",
    "num_heads",
    "num_outputs",
    "num_scan_inputs",
    "output_padding",
    "pads",
    "perm",
    "pooled_shape",
    "ratio",
    "scan_input_axes",
    "seed",
    "shape",
    "split",
    "storage_order",
    "strides",
    "to",
    "transA",
    "transB",
    "then_branch",
    "value",
    "value_ints",
    "value_string",
    "bits",
    "output_dtype",
    "qkv_hidden_sizes",
]


def attribute(random: Random, model: ModelProto) -> None:
    """An attribute appears or changes: its numbers, its length, its type."""
    node = a_node(random, model)
    if node is None:
        return
    if not node.attribute or random.random() < 0.3:
        name = random.choice(ATTRIBUTES)
        value: object = random.choice(
            (an_integer(random), a_float(random), "text", [a_dim(random) for _ in range(4)], [1.5])
        )
        node.attribute.append(helper.make_attribute(name, value))
        return
    chosen = random.choice(node.attribute)
    way = random.choice(("number", "length", "type", "name", "twice", "reference", "negate"))
    if way == "type":
        chosen.type = random.choice(AttributeProto.AttributeType.values())
    elif way == "name":
        chosen.name = random.choice(ATTRIBUTES)
    elif way == "twice":
        node.attribute.add().CopyFrom(chosen)
    elif way == "reference":
        chosen.ref_attr_name = random.choice(("scale", "alpha", chosen.name))
    else:
        _numbers(random, chosen, way)


def _numbers(random: Random, chosen: AttributeProto, way: str) -> None:
    """Other numbers, or more or fewer of them."""
    if chosen.ints:
        at = random.randrange(len(chosen.ints))
        if way == "length":
            chosen.ints[:] = random.choice((list(chosen.ints)[:at], [*chosen.ints, a_dim(random)]))
        else:
            chosen.ints[at] = -chosen.ints[at] if way == "negate" else a_dim(random)
    elif chosen.floats:
        chosen.floats[random.randrange(len(chosen.floats))] = a_float(random)
    elif chosen.type == AttributeProto.FLOAT:
        chosen.f = a_float(random)
    elif chosen.type == AttributeProto.STRING:
        chosen.s = random.choice(
            (b"", b"\xff", b"ij,jk", b"...ij,...jk->...ik", b"SAME_UPPER", b"b")
        )
    else:
        chosen.i = -chosen.i if way == "negate" and chosen.i else a_dim(random)


def rename(random: Random, model: ModelProto) -> None:
    """A value has another name everywhere, one that clashes or drives a terminal."""
    old, new = _value(random, model.graph), a_name(random)
    for _, graph in walk_graphs(model):
        for node in graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        if isinstance(graph, GraphProto):
            for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
                value.name = new if value.name == old else value.name


def label(random: Random, model: ModelProto) -> None:
    """Names of nodes, graphs, domains, producers and sizes."""
    node = a_node(random, model)
    name = a_name(random)
    way = random.randrange(6)
    if way == 0:
        model.producer_name = name
    elif way == 1:
        model.graph.name = name
    elif way == 2 and node is not None:
        node.domain = name
    elif way == 3 and node is not None:
        node.op_type = name
    elif way == 4:
        for value in (*model.graph.input, *model.graph.output):
            for dim in value.type.tensor_type.shape.dim[:1]:
                dim.dim_param = name
    elif node is not None:
        node.name = name


def versions(random: Random, model: ModelProto) -> None:
    """Opsets and the version of the format."""
    way = random.choice(("version", "ir", "drop", "twice", "domain"))
    entries = model.opset_import
    if way == "ir" or not entries:
        model.ir_version = random.choice((0, 1, 2, 3, 4, 7, 8, 10, 13, 999, -1))
    elif way == "version":
        random.choice(entries).version = random.choice((*range(1, 27), 0, -1, 2**31, 2**62))
    elif way == "drop":
        del entries[random.randrange(len(entries))]
    elif way == "twice":
        entries.add(domain=random.choice(("", "ai.onnx")), version=random.randrange(1, 25))
    else:
        random.choice(entries).domain = a_name(random)


def input_types(random: Random, model: ModelProto) -> None:
    """Sizes and element types that the model states."""
    graph = a_graph(random, model)
    values = [*graph.input, *graph.output, *graph.value_info]
    if not values:
        return
    tensor = random.choice(values).type.tensor_type
    if tensor.shape.dim and random.random() < 0.7:
        dim = random.choice(tensor.shape.dim)
        dim.dim_value = a_dim(random)
    elif random.random() < 0.5:
        tensor.elem_type = random.randrange(27)
    else:
        tensor.shape.dim.add(dim_value=a_dim(random))


def _value(random: Random, graph: GraphProto) -> str:
    """A name of a value in the graph, or one that nothing has."""
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    names += [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    return random.choice(names) if names and random.random() < 0.9 else a_name(random)


GRAPHS = {
    f"graph: {change.__name__.replace('_', ' ')}": change
    for change in (
        rewire, arity, outputs, graph_values, operator, node_list, attribute, rename, label,
        versions, input_types,
    )
}  # fmt: skip
