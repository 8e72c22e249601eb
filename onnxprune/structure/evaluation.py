"""One pass over a graph at chosen sizes: the shape of every value, and small values themselves."""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from ..graph.attributes import integers
from ..model.domain import plain_domain
from .fused_shapes import SHAPES, TYPED_BY, Shape
from .inference import Inference, MisfitError
from .stored import constant_tensor, constant_tensors

__all__ = ["Run", "Shape", "evaluated"]

_SMALL = 1024  # elements of the largest array that shape arithmetic is followed through
_ARITHMETIC = """
    Abs Add And Cast Ceil Clip Concat Constant ConstantOfShape CumSum Div Equal Expand Floor Gather
    Greater GreaterOrEqual Identity Less LessOrEqual Max Min Mod Mul Neg Not Or Pow Range Reciprocal
    ReduceMax ReduceMin ReduceProd ReduceSum Reshape Round ScatterElements ScatterND Shape Size
    Slice Split Sqrt Squeeze Sub Sum Tile Transpose Unsqueeze Where
"""
#: Operators with which exporters compute shapes, scales and indices.
_FOLDED = frozenset(_ARITHMETIC.split())


@dataclass
class Run:
    """What is known of a graph's values in a run with certain sizes.

    Attributes:
        shapes: Shape of every value that has a known one.
        types: Element type of the same.
        values: Small constants and the results of arithmetic on them and on shapes.
        derived: Names in `values` that depend on the shape of something.
        failures: Nodes whose shapes do not fit these sizes, or that leave nothing.
    """

    shapes: MutableMapping[str, Shape] = field(default_factory=dict)
    types: MutableMapping[str, int] = field(default_factory=dict)
    values: MutableMapping[str, np.ndarray] = field(default_factory=dict)
    derived: set[str] = field(default_factory=set)
    failures: int = 0


def evaluated(
    proto: ModelProto,
    tensors: Mapping[str, TensorProto],
    batch: int,
    other: int,
    inference: Inference | None = None,
) -> Run:
    """Run the main graph with every open first axis of an input at one size, others at another.

    Args:
        proto: The model.
        tensors: Its constant tensors.
        batch: Size of open first axes.
        other: Size of all other open axes; axes of one name have the size of the first of them.
        inference: What earlier runs of this model remember.
    """
    evaluation = _Evaluation(inference or Inference(proto.opset_import))
    for name, tensor in tensors.items():
        evaluation.add_constant(name, tensor)
    for info in proto.graph.input:
        if info.name not in tensors:
            evaluation.add_input(info.name, info.type, batch, other)
    evaluation.follow(proto.graph)
    return evaluation.run


class _Evaluation:
    """One pass over the nodes of a graph, or of a body inside it, which sees what is around it."""

    def __init__(self, inference: Inference, outside: _Evaluation | None = None) -> None:
        self.run = Run()
        self.types: MutableMapping[str, TypeProto] = {}
        self._data: MutableMapping[str, TensorProto] = {}
        self._symbols: dict[str, int] = {}
        self._inference = inference
        if outside is not None:
            self.run.shapes = ChainMap({}, outside.run.shapes)
            self.run.values = ChainMap({}, outside.run.values)
            self.run.derived = set(outside.run.derived)
            self.types = ChainMap({}, outside.types)
            self._data = ChainMap({}, outside._data)
            self._symbols = outside._symbols

    def add_constant(self, name: str, tensor: TensorProto) -> None:
        """A stored tensor; small ones with their values."""
        self._set_type(name, _type(tensor.data_type, tuple(tensor.dims)))
        if math.prod(tensor.dims) <= _SMALL:
            self.run.values[name] = numpy_helper.to_array(tensor)
            self._data[name] = tensor

    def add_input(self, name: str, declared: TypeProto, batch: int, other: int) -> None:
        """An input of the model."""
        tensor = declared.tensor_type
        if not declared.HasField("tensor_type") or not tensor.HasField("shape"):
            self.types[name] = declared
            return
        shape = []
        for axis, dim in enumerate(tensor.shape.dim):
            size = batch if axis == 0 else other
            if dim.HasField("dim_value"):
                size = dim.dim_value
            elif dim.dim_param:
                size = self._symbols.setdefault(dim.dim_param, size)
            shape.append(size)
        self._set_type(name, _type(tensor.elem_type, tuple(shape)))

    def follow(self, graph: GraphProto) -> None:
        """Pass over the nodes of a graph, in order."""
        stated = {info.name: info.type for info in (*graph.value_info, *graph.output)}
        for node in graph.node:
            if constant_tensor(node) is None:
                self._add_node(node, stated)

    def _set_type(self, name: str, found: TypeProto) -> None:
        """Store a type; what is known of its shape counts where all of it is known."""
        self.types[name] = found
        shape = self._shape(found)
        if shape is not None:
            self.run.shapes[name] = shape
            self.run.types[name] = found.tensor_type.elem_type

    def _add_node(self, node: NodeProto, stated: Mapping[str, TypeProto]) -> None:
        inferred = self._infer(node)
        empty = any(0 in self.run.shapes.get(name, ()) for name in node.input)
        for name in node.output:
            candidates = [t for t in (inferred.get(name), stated.get(name)) if t is not None]
            if not name or not candidates:
                continue
            whole = (found for found in candidates if self._shape(found) is not None)
            self._set_type(name, next(whole, candidates[0]))
        if not plain_domain(node.domain) and node.op_type in _FOLDED:
            self._fold(node)
        if not empty and any(self._vanished(name) for name in node.output):
            self.run.failures += 1

    def _vanished(self, name: str) -> bool:
        return 0 in self.run.shapes.get(name, ()) and name not in self.run.values

    def _infer(self, node: NodeProto) -> Mapping[str, TypeProto]:
        if node.op_type == "If" and not node.domain:
            return self._infer_branches(node)
        domain = plain_domain(node.domain)
        if any(attribute.HasField("g") for attribute in node.attribute):
            return {}
        if (domain, node.op_type) in SHAPES:
            return self._infer_fused(node, domain)
        try:
            return self._inference.results(node, self.types, self._data)
        except MisfitError:
            self.run.failures += 1
            return {}

    def _infer_fused(self, node: NodeProto, domain: str) -> Mapping[str, TypeProto]:
        """Operators without a schema in onnx: their shapes are in a table."""
        shapes = [self.run.shapes.get(name) for name in node.input]
        if any(name and shape is None for name, shape in zip(node.input, shapes, strict=True)):
            return {}
        given = dict(enumerate(node.input))
        typed_by = [given[i] for i in TYPED_BY.get(node.op_type, (0,)) if given.get(i)]
        try:
            elem_type = self.types[typed_by[0]].tensor_type.elem_type
            found = SHAPES[domain, node.op_type](node, [shape or () for shape in shapes])
        except (IndexError, ValueError):
            self.run.failures += 1
            return {}
        return {
            name: _type(elem_type, shape)
            for name, shape in zip(node.output, found, strict=False)
            if shape is not None
        }

    def _infer_branches(self, node: NodeProto) -> Mapping[str, TypeProto]:
        """Shapes in which all branches agree."""
        found: list[list[TypeProto | None]] = []
        for attribute in node.attribute:
            inside = _Evaluation(self._inference, self)
            for name, tensor in constant_tensors(attribute.g):
                inside.add_constant(name, tensor)
            inside.follow(attribute.g)
            found.append([inside.types.get(info.name) for info in attribute.g.output])
        agreed = {}
        for name, types in zip(node.output, zip(*found, strict=False), strict=False):
            shapes = [None if t is None else self._shape(t) for t in types]
            if shapes[0] is not None and shapes == [shapes[0]] * len(shapes):
                agreed[name] = types[0]
        return {name: found for name, found in agreed.items() if found is not None}

    def _shape(self, found: TypeProto) -> Shape | None:
        """The shape where all its sizes are known, given those of the free axes."""
        if not found.tensor_type.HasField("shape"):
            return None
        shape = []
        for dim in found.tensor_type.shape.dim:
            size = dim.dim_value if dim.HasField("dim_value") else self._symbols.get(dim.dim_param)
            if size is None:
                return None
            shape.append(size)
        return tuple(shape)

    def _fold(self, node: NodeProto) -> None:
        run = self.run
        names = [name for name in node.input if name]
        if node.op_type in ("Shape", "Size"):
            # Sizes below nothing are those of an operator that takes too much away.
            if min(run.shapes.get(names[0], (-1,)), default=0) < 0:
                return
            inputs = {names[0]: np.broadcast_to(np.float32(0), run.shapes[names[0]])}
        elif all(name in run.values for name in names):
            inputs = {name: run.values[name] for name in names}
        else:
            return
        derived = node.op_type in ("Shape", "Size") or not run.derived.isdisjoint(names)
        whole = all(value.dtype.kind in "iub" for value in inputs.values())
        sizes = [run.shapes.get(name, (_SMALL + 1,)) for name in node.output]
        if not (derived or whole) or any(math.prod(s) > _SMALL for s in sizes):
            return
        for name, value in zip(node.output, self._computed(node, inputs), strict=False):
            run.values[name] = value
            self._data[name] = numpy_helper.from_array(value, name)
            if derived:
                run.derived.add(name)

    def _computed(self, node: NodeProto, inputs: Mapping[str, np.ndarray]) -> Iterable[np.ndarray]:
        axes = integers(node, "axes")
        if node.op_type in ("Squeeze", "Unsqueeze") and axes is not None:
            # Before opset 13, a form that the evaluator does not take for single nodes.
            change = np.squeeze if node.op_type == "Squeeze" else np.expand_dims
            return [change(inputs[node.input[0]], axes)]
        try:
            found = ReferenceEvaluator(node, opsets=self._inference.versions).run(
                None, dict(inputs)
            )
        except Exception:
            return []  # whatever it is, it is not plain shape arithmetic
        return [np.asarray(value) for value in found]


@lru_cache(maxsize=4096)
def _type(elem_type: int, shape: Shape) -> TypeProto:
    return onnx.helper.make_tensor_type_proto(elem_type, shape)
