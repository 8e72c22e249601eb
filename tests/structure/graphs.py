"""Graphs written by hand, as text, with random weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A graph: nodes as text, from x (samples of shape `sample`) to y.

    `weights` gives shapes, filled at random, or values; `sizes` are those of the groups that are
    to be found; `free` are axes of a sample that the model leaves open, as it does the batch axis.
    """

    nodes: str
    weights: Mapping[str, Shape | np.ndarray]
    sizes: Sequence[int]
    sample: Shape = (4, 6, 6)
    opset: int = 17
    free: Sequence[int] = ()
    ir_version: int = 8
    domains: Mapping[str, int] = field(default_factory=dict)
    fixed_batch: bool = False


#: Two convolutions around what is tried.
W = {"w": (8, 4, 1, 1), "b": (8,), "v": (3, 8, 1, 1)}


def between(lines: str, sizes: list[int], weights: dict | None = None, **options) -> Case:
    """Nodes from h, with 8 channels, to g, between two convolutions."""
    text = f"h = Conv(x, w, b)\n{lines.strip()}\ny = Conv(g, v)"
    return Case(text, {**W, **(weights or {})}, sizes, **options)


def built(case: Case) -> ModelProto:
    nodes = [parser.parse_node(line.strip()) for line in case.nodes.splitlines() if line.strip()]
    for number, node in enumerate(nodes):
        node.name = f"node{number}"
    tensors = [_tensor(name, given) for name, given in case.weights.items()]
    dims = [f"d{i}" if i in case.free else size for i, size in enumerate(case.sample)]
    batch = 1 if case.fixed_batch else "N"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *dims])]
    if case.ir_version < 4:
        inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    opsets = [helper.make_opsetid("", case.opset)]
    opsets += [helper.make_opsetid(name, version) for name, version in case.domains.items()]
    unknown = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "graph", inputs, [unknown], tensors)
    model = helper.make_model(graph, opset_imports=opsets, ir_version=case.ir_version)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    if inferred.graph.output[0].type.tensor_type.HasField("shape"):
        model.graph.output[0].CopyFrom(inferred.graph.output[0])
    return model


def feed(case: Case, batch: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(batch)
    return {"x": random.standard_normal((batch, *case.sample)).astype(np.float32)}


def _tensor(name: str, given: Shape | np.ndarray) -> TensorProto:
    if isinstance(given, np.ndarray | np.generic):
        return numpy_helper.from_array(np.asarray(given), name)
    random = np.random.default_rng(len(name) + sum(given) + sum(map(ord, name)))
    values = 0.3 + random.random(given) if name.startswith("p") else random.standard_normal(given)
    return numpy_helper.from_array(values.astype(np.float32), name)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)
