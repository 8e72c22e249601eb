"""Shapes of all values, and the values of shape arithmetic, at chosen sizes of the free axes.

Everything is computed twice, with different sizes for the axes that a model leaves open: what
differs between the two is dynamic, what agrees is the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    numpy_helper,
    shape_inference,
)
from onnx.reference import ReferenceEvaluator

from ..graph.attributes import find_attribute, integers

__all__ = ["Run", "Sizes", "constant_tensor", "constant_tensors", "measure", "run_at"]

Shape = tuple[int, ...]

_SMALL = 1024  # elements of the largest array that shape arithmetic is followed through
_ARITHMETIC = """
    Abs Add And Cast Ceil Clip Concat Constant ConstantOfShape CumSum Div Equal Expand Floor Gather
    Greater GreaterOrEqual Identity Less LessOrEqual Max Min Mod Mul Neg Not Or Pow Range Reciprocal
    ReduceMax ReduceMin ReduceProd ReduceSum Reshape Round ScatterElements ScatterND Shape Size
    Slice Split Sqrt Squeeze Sub Sum Tile Transpose Unsqueeze Where
"""
#: Operators with which exporters compute shapes, scales and indices.
_FOLDED = frozenset(_ARITHMETIC.split())
_ALIKE = """
    BiasGelu FastGelu Gelu GroupNormalization ImageScaler MeanVarianceNormalization QuickGelu
    SimplifiedLayerNormalization
"""
#: Operators without a schema that infers shapes: the result is as large as the first operand.
_SAME_SHAPE = frozenset(_ALIKE.split())
#: com.microsoft operators that infer shapes as a standard one does.
_TWINS = {"FusedConv": "Conv"}
#: Of these, those that only pick and order elements: what they pick is the same in every run where
#: it is in two. Of the others (a comparison, a minimum) that does not follow.
_PICKS = "Cast Concat Gather Identity Reshape Shape Slice Split Squeeze Transpose Unsqueeze"
_PICKING = frozenset(_PICKS.split())
_BATCH = ((5, 7), (1, 1))
_OTHER = ((32, 96), (224, 256), (16, 24), (7, 11), (1, 2))


@dataclass
class Run:
    """What is known of a graph's values in a run with certain sizes.

    Attributes:
        shapes: Shape of every value that has a known one.
        types: Element type of the same.
        values: Small constants and the results of arithmetic on them and on shapes.
        derived: Names in `values` that depend on the shape of something.
        failures: Nodes whose shapes do not fit these sizes.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    derived: set[str] = field(default_factory=set)
    failures: int = 0


@dataclass(frozen=True)
class Sizes:
    """Two runs of the same graph at different sizes.

    Attributes:
        one: The first run: its sizes are those of the analysis.
        two: The second.
        loose: Values that may differ in further runs even where these two agree.
    """

    one: Run
    two: Run
    loose: set[str] = field(default_factory=set)

    def shape(self, name: str) -> Shape | None:
        """Shape in the first run; None where unknown or where the rank is not always the same."""
        first, second = self.one.shapes.get(name), self.two.shapes.get(name)
        if first is None or second is None or len(first) != len(second):
            return None
        return first

    def dynamic(self, name: str) -> tuple[bool, ...]:
        """For each axis, whether its size differs from run to run."""
        first, second = self.one.shapes[name], self.two.shapes[name]
        return tuple(a != b for a, b in zip(first, second, strict=True))

    def static(self, name: str) -> np.ndarray | None:
        """The value where it is small and the same in every run."""
        first, second = self.one.values.get(name), self.two.values.get(name)
        same = first is not None and second is not None and np.array_equal(first, second)
        return first if same and name not in self.loose else None


def measure(proto: ModelProto) -> Sizes:
    """Find sizes for the free axes that fit the graph, and all shapes that follow from them."""
    tensors = {tensor.name: tensor for _, tensor in constant_tensors(proto.graph)}
    best: Sizes | None = None
    for batch in _BATCH:
        for other in _OTHER:
            runs = [_run(proto, tensors, batch[i], other[i]) for i in range(2)]
            found = Sizes(runs[0], runs[1])
            _mark_loose(proto, found)
            if best is None or _failures(found) < _failures(best):
                best = found
            if not _failures(best) or not _free_axes(proto, tensors):
                return best
    assert best is not None
    return best


def run_at(proto: ModelProto, batch: int, other: int) -> Run:
    """Shapes with every open first axis of an input at one size and other open axes at another."""
    return _run(proto, {t.name: t for _, t in constant_tensors(proto.graph)}, batch, other)


def constant_tensors(graph: GraphProto) -> Iterator[tuple[str, TensorProto]]:
    """Every initializer and every Constant node's tensor, with its name as a value."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        held = constant_tensor(node)
        if held is not None:
            copy = TensorProto()
            copy.CopyFrom(held)
            copy.name = node.output[0]
            yield copy.name, copy


def constant_tensor(node: NodeProto) -> TensorProto | None:
    """The tensor that a Constant node holds, in whatever form it holds it."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx") or not node.output:
        return None
    held = find_attribute(node, "value")
    if held is not None and held.HasField("t"):
        return held.t
    for name, dtype in (("value_float", np.float32), ("value_int", np.int64)):
        held = find_attribute(node, name)
        if held is not None:
            number = held.f if name == "value_float" else held.i
            return numpy_helper.from_array(np.array(number, dtype))
    for name, dtype in (("value_floats", np.float32), ("value_ints", np.int64)):
        held = find_attribute(node, name)
        if held is not None:
            numbers = held.floats if name == "value_floats" else held.ints
            return numpy_helper.from_array(np.array(list(numbers), dtype))
    return None


def _mark_loose(proto: ModelProto, sizes: Sizes) -> None:
    for node in proto.graph.node:
        given = [name for name in node.input if name]
        if not sizes.one.derived.intersection(node.output):
            continue
        picks = node.op_type in _PICKING
        if any(name in sizes.loose for name in given) or (
            not picks and any(sizes.static(name) is None for name in given)
        ):
            sizes.loose.update(node.output)


def _failures(sizes: Sizes) -> int:
    return sizes.one.failures + sizes.two.failures


def _free_axes(proto: ModelProto, tensors: Mapping[str, TensorProto]) -> bool:
    return any(
        not dim.HasField("dim_value")
        for info in proto.graph.input
        if info.name not in tensors
        for dim in info.type.tensor_type.shape.dim
    )


def _run(proto: ModelProto, tensors: Mapping[str, TensorProto], batch: int, other: int) -> Run:
    return _Evaluation(proto, tensors, batch, other).run


class _Evaluation:
    """One pass over the nodes with every free axis at a size."""

    def __init__(
        self, proto: ModelProto, tensors: Mapping[str, TensorProto], batch: int, other: int
    ) -> None:
        self.run = Run()
        self._types: dict[str, TypeProto] = {}
        self._symbols: dict[str, int] = {}
        self._data: dict[str, TensorProto] = {}
        self._opsets = list(proto.opset_import)
        self._versions = {_domain(entry.domain): entry.version for entry in self._opsets}
        for name, tensor in tensors.items():
            self._add_constant(name, tensor)
        for info in proto.graph.input:
            if info.name not in tensors:
                self._add_input(info.name, info.type, batch, other)
        graph = proto.graph
        stated = {info.name: info.type for info in (*graph.value_info, *graph.output)}
        for node in graph.node:
            self._add_node(node, stated)

    def _add_constant(self, name: str, tensor: TensorProto) -> None:
        self._set_type(name, tensor.data_type, tuple(tensor.dims))
        if int(np.prod(tensor.dims, dtype=np.int64)) <= _SMALL:
            self.run.values[name] = numpy_helper.to_array(tensor)
            self._data[name] = tensor

    def _add_input(self, name: str, declared: TypeProto, batch: int, other: int) -> None:
        tensor = declared.tensor_type
        if not declared.HasField("tensor_type") or not tensor.HasField("shape"):
            return
        shape = []
        for axis, dim in enumerate(tensor.shape.dim):
            size = batch if axis == 0 else other
            if dim.HasField("dim_value"):
                size = dim.dim_value
            elif dim.dim_param:
                size = self._symbols.setdefault(dim.dim_param, size)
            shape.append(size)
        self._set_type(name, tensor.elem_type, tuple(shape))

    def _set_type(self, name: str, dtype: int, shape: Shape) -> None:
        self._types[name] = onnx.helper.make_tensor_type_proto(dtype, shape)
        self.run.shapes[name] = shape
        self.run.types[name] = dtype

    def _add_node(self, node: NodeProto, stated: Mapping[str, TypeProto]) -> None:
        if constant_tensor(node) is not None:
            return
        inferred = self._infer(node)
        for name in node.output:
            for found in (inferred.get(name), stated.get(name)):
                shape = self._shape(found)
                if name and found is not None and shape is not None:
                    self._set_type(name, found.tensor_type.elem_type, shape)
                    break
        if node.domain in ("", "ai.onnx") and node.op_type in _FOLDED:
            self._fold(node)

    def _infer(self, node: NodeProto) -> Mapping[str, TypeProto]:
        domain = _domain(node.domain)
        names = [name for name in node.input if name]
        if not self._types.keys() >= set(names) or any(a.HasField("g") for a in node.attribute):
            return {}
        if node.op_type in _SAME_SHAPE:
            return {node.output[0]: self._types[names[0]]}
        if domain == "com.microsoft" and node.op_type in _TWINS:
            node, domain = _standard(node), ""
        try:
            schema = onnx.defs.get_schema(node.op_type, self._versions[domain], domain)
        except (KeyError, onnx.defs.SchemaError):
            return {}
        types = {name: self._types[name] for name in names}
        data = {name: self._data[name] for name in names if name in self._data}
        try:
            return shape_inference.infer_node_outputs(schema, node, types, data, None, self._opsets)
        except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError):
            self.run.failures += 1
            return {}

    def _shape(self, found: TypeProto | None) -> Shape | None:
        """The shape where all its sizes are known, given those of the free axes."""
        if found is None or not found.tensor_type.HasField("shape"):
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
            if names[0] not in run.shapes:
                return
            inputs = {names[0]: np.broadcast_to(np.float32(0), run.shapes[names[0]])}
        elif all(name in run.values for name in names):
            inputs = {name: run.values[name] for name in names}
        else:
            return
        derived = node.op_type in ("Shape", "Size") or not run.derived.isdisjoint(names)
        whole = all(value.dtype.kind in "iub" for value in inputs.values())
        sizes = [run.shapes.get(name, (_SMALL + 1,)) for name in node.output]
        if not (derived or whole) or any(np.prod(s, dtype=np.int64) > _SMALL for s in sizes):
            return
        for name, value in zip(node.output, self._computed(node, inputs), strict=False):
            run.values[name] = value
            self._data[name] = numpy_helper.from_array(value, name)
            if derived:
                run.derived.add(name)

    def _computed(self, node: NodeProto, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        axes = integers(node, "axes")
        if node.op_type in ("Squeeze", "Unsqueeze") and axes is not None:
            # Before opset 13, a form that the evaluator does not take for single nodes.
            change = np.squeeze if node.op_type == "Squeeze" else np.expand_dims
            return [change(inputs[node.input[0]], axes)]
        try:
            found = ReferenceEvaluator(node, opsets=self._versions).run(None, dict(inputs))
        except Exception:
            return []  # whatever it is, it is not plain shape arithmetic
        return [np.asarray(value) for value in found]


def _standard(node: NodeProto) -> NodeProto:
    """The standard operator in the place of one of com.microsoft's."""
    op_type = _TWINS[node.op_type]
    copy = onnx.helper.make_node(op_type, list(node.input)[:3], list(node.output))
    known = onnx.defs.get_schema(op_type).attributes
    copy.attribute.extend(a for a in node.attribute if a.name in known)
    return copy


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain
