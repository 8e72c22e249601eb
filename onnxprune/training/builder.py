"""Appending standard ONNX operators to a graph, knowing the shapes of what is appended."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, helper, numpy_helper

from ..errors import ModelError
from ..model.housekeeping import default_opset
from ..model.tensors import walk_graphs
from .unbroadcast import unbroadcast
from .values import Shape, Values

__all__ = ["TRAINING_OPSET", "GraphBuilder"]

#: Opset of training graphs (or the model's own, where that is newer): the first with Attention
#: and RMSNormalization.
TRAINING_OPSET = 23


class GraphBuilder:
    """Appends nodes and constants to the main graph of a model, in place.

    Args:
        proto: A model of opset `TRAINING_OPSET` or newer. Big initializers may be external.
        prefix: Start of every name that is made.

    Raises:
        ModelError: The opset is older than `TRAINING_OPSET`.
    """

    def __init__(self, proto: ModelProto, prefix: str = "grad") -> None:
        version = default_opset(proto)
        if version < TRAINING_OPSET:
            raise ModelError(
                f"the model has opset {version} and training needs {TRAINING_OPSET} or newer; "
                "convert it first"
            )
        self.graph = proto.graph
        self.values = Values(proto)
        self._prefix = prefix
        self._place = prefix
        self._counter = itertools.count()
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._shapes: dict[str, str] = {}
        self._taken = _names(proto)

    def op(
        self,
        op_type: str,
        *inputs: str | None,
        domain: str = "",
        name: str = "",
        **attributes: Any,
    ) -> str:
        """Append a node with one output and return the output's name.

        Args:
            op_type: The operator.
            inputs: Names of values; None or "" leaves out an optional input.
            domain: The operator's domain, "" for the ONNX standard.
            name: Name of the output; made up where empty.
            attributes: Attributes, as `onnx.helper.make_node` takes them; None leaves one out.
        """
        return self._append(op_type, inputs, [name or self.fresh(op_type)], domain, attributes)[0]

    def ops(
        self,
        op_type: str,
        *inputs: str | None,
        outputs: int,
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Append a node with several outputs and return their names."""
        names = [self.fresh(op_type) for _ in range(outputs)]
        return self._append(op_type, inputs, names, domain, attributes)

    def _append(
        self,
        op_type: str,
        inputs: Sequence[str | None],
        outputs: list[str],
        domain: str,
        attributes: dict[str, Any],
    ) -> list[str]:
        names = [name or "" for name in inputs]
        while names and not names[-1]:
            names.pop()
        node = helper.make_node(
            op_type, names, outputs, name=outputs[0], domain=domain or None, **attributes
        )
        self.graph.node.append(node)
        self.values.add_node(node)
        return outputs

    def fresh(self, hint: str) -> str:
        """A name that nothing in the model has."""
        return self._unused(f"{self._place}/{hint}")

    def _unused(self, start: str) -> str:
        while True:
            name = f"{start}_{next(self._counter)}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    @contextmanager
    def within(self, label: str) -> Iterator[None]:
        """Name what is appended after the node it belongs to."""
        before, self._place = self._place, f"{self._prefix}/{label}"
        try:
            yield
        finally:
            self._place = before

    def input(self, name: str, dtype: int, shape: Sequence[int | str | None]) -> str:
        """Add a graph input and return its name.

        Args:
            name: The name, which nothing in the model may have yet.
            dtype: Element type (TensorProto enum).
            shape: Sizes, names of sizes, or None where nothing is known.

        Raises:
            ModelError: The model has a value or node of this name.
        """
        if name in self._taken:
            raise ModelError(
                f"the model already has a value named '{name}', which training needs for itself; "
                "rename it in the model"
            )
        self._taken.add(name)
        info = helper.make_tensor_value_info(name, dtype, list(shape))
        self.graph.input.append(info)
        self.values.add_input(info)
        return name

    # ---- constants -------------------------------------------------------------------------

    def constant(self, values: np.ndarray | Sequence[int]) -> str:
        """Name of an initializer with these values (a sequence is int64); equal ones are shared."""
        array = values if isinstance(values, np.ndarray) else np.array(list(values), np.int64)
        key = array.dtype.name, array.shape, array.tobytes()
        if key not in self._constants:
            name = self._unused(f"{self._prefix}/constant")
            tensor = numpy_helper.from_array(array.copy(), name)
            self.graph.initializer.append(tensor)
            self.values.add_tensor(tensor)
            self._constants[key] = name
        return self._constants[key]

    def scalar(self, value: float, like: str) -> str:
        """A 0-d constant of the element type of `like`."""
        dtype = helper.tensor_dtype_to_np_dtype(self.dtype(like))
        return self.constant(np.array(value).astype(dtype))

    def constant_value(self, name: str | None) -> np.ndarray | None:
        """Value of a constant that is small and not trained; None otherwise."""
        return self.values.constant(name) if name else None

    # ---- what is known of values -----------------------------------------------------------

    def shape(self, name: str) -> Shape | None:
        """Dimensions (sizes, or names where only equality is known); None: rank unknown."""
        return self.values.shape(name)

    def static_shape(self, name: str) -> tuple[int, ...] | None:
        """Dimensions where all of them are known sizes."""
        shape = self.shape(name)
        sizes = tuple(size for size in shape or () if isinstance(size, int))
        return sizes if shape is not None and len(sizes) == len(shape) else None

    def rank(self, name: str) -> int:
        """Number of dimensions; raises ModelError where shape inference cannot tell."""
        shape = self.shape(name)
        if shape is None:
            raise ModelError(
                f"the rank of '{name}' is unknown, so its gradient cannot be built; "
                "run ONNX shape inference on the model or give its inputs shapes"
            )
        return len(shape)

    def dtype(self, name: str) -> int:
        """Element type (TensorProto enum); raises ModelError where shape inference cannot tell."""
        dtype = self.values.dtype(name)
        if dtype is None:
            raise ModelError(
                f"the element type of '{name}' is unknown, so its gradient cannot be built; "
                "run ONNX shape inference on the model"
            )
        return dtype

    # ---- small patterns --------------------------------------------------------------------

    def shape_of(self, name: str) -> str:
        """The shape of a value as an int64 vector: a constant where static, else a Shape node."""
        static = self.static_shape(name)
        if static is not None:
            return self.constant(static)
        if name not in self._shapes:
            self._shapes[name] = self.op("Shape", name)
        return self._shapes[name]

    def cast(self, name: str, like: str) -> str:
        """The value in the element type of `like`; itself where it has that already."""
        to = self.dtype(like)
        return name if self.values.dtype(name) == to else self.op("Cast", name, to=to)

    def zeros_like(self, name: str) -> str:
        """Zeros of a value's shape and element type."""
        dtype = helper.tensor_dtype_to_np_dtype(self.dtype(name))
        zero = numpy_helper.from_array(np.zeros(1, dtype))
        return self.op("ConstantOfShape", self.shape_of(name), value=zero)

    def ones_like(self, name: str) -> str:
        """Ones of a value's shape and element type."""
        dtype = helper.tensor_dtype_to_np_dtype(self.dtype(name))
        one = numpy_helper.from_array(np.ones(1, dtype))
        return self.op("ConstantOfShape", self.shape_of(name), value=one)

    def transpose(self, name: str, order: Sequence[int]) -> str:
        """Axes in another order; the value itself where the order is as it was."""
        if list(order) == list(range(len(order))):
            return name
        return self.op("Transpose", name, perm=list(order))

    def swap_last(self, name: str) -> str:
        """The last two axes exchanged."""
        order = list(range(self.rank(name)))
        order[-2:] = order[-1], order[-2]
        return self.transpose(name, order)

    def reshape(self, name: str, sizes: Sequence[int]) -> str:
        """Reshape to fixed sizes, of which one may be -1."""
        if self.static_shape(name) == tuple(sizes):
            return name
        return self.op("Reshape", name, self.constant(sizes))

    def reshape_like(self, name: str, like: str) -> str:
        """Reshape to another value's shape: the value itself where that is known to be its own."""
        shape = self.shape(like)
        if shape is not None and None not in shape and self.shape(name) == shape:
            return name
        unknown = [axis for axis, size in enumerate(shape or ()) if not isinstance(size, int)]
        if shape is not None and len(unknown) == 1 and 0 not in shape:
            # One free dimension needs no arithmetic at run time.
            result = self.op("Reshape", name, self.constant([_size(size) for size in shape]))
        else:
            result = self.op("Reshape", name, self.shape_of(like), allowzero=1)
        self.values.declare(result, like)
        return result

    def unsqueeze(self, name: str, axes: Sequence[int]) -> str:
        """Insert axes of size one; the value itself where there are none."""
        return self.op("Unsqueeze", name, self.constant(axes)) if axes else name

    def squeeze(self, name: str, axes: Sequence[int]) -> str:
        """Drop axes of size one; the value itself where there are none."""
        return self.op("Squeeze", name, self.constant(axes)) if axes else name

    def reduce_sum(self, name: str, axes: Sequence[int], *, keepdims: bool = False) -> str:
        """Sum over axes; the value itself where there are none."""
        if not axes:
            return name
        return self.op("ReduceSum", name, self.constant(axes), keepdims=int(keepdims))

    def total(self, names: Sequence[str]) -> str:
        """Sum of values of one shape."""
        if len(names) == 1:
            return names[0]
        return self.op("Add" if len(names) == 2 else "Sum", *names)

    def unbroadcast(self, gradient: str, like: str) -> str:
        """Reduce the gradient of a broadcast result to the shape of one of its operands."""
        return unbroadcast(self, gradient, like)

    def drop_unused(self, mark: tuple[int, int], kept: Sequence[str]) -> None:
        """Remove what was appended after `mark` and is not needed for the values `kept`."""
        first, first_constant = mark
        needed = set(kept)
        alive: list[NodeProto] = []
        for node in reversed(self.graph.node[first:]):
            if not needed.isdisjoint(node.output):
                alive.append(node)
                needed.update(node.input)
        del self.graph.node[first:]
        self.graph.node.extend(reversed(alive))
        tensors = [t for t in self.graph.initializer[first_constant:] if t.name in needed]
        del self.graph.initializer[first_constant:]
        self.graph.initializer.extend(tensors)
        present = {output for node in self.graph.node for output in node.output}
        present.update(tensor.name for tensor in self.graph.initializer)
        self._shapes = {key: name for key, name in self._shapes.items() if name in present}
        self._constants = {key: name for key, name in self._constants.items() if name in present}

    def mark(self) -> tuple[int, int]:
        """Where the graph ends now, for `drop_unused`."""
        return len(self.graph.node), len(self.graph.initializer)


def _size(size: int | str | None) -> int:
    return size if isinstance(size, int) else -1


def _names(proto: ModelProto) -> set[str]:
    """Every name of a value or node, those in bodies included."""
    taken: set[str] = set()
    for _, graph in walk_graphs(proto):
        if isinstance(graph, GraphProto):
            taken.update(tensor.name for tensor in graph.initializer)
            taken.update(info.name for info in (*graph.input, *graph.output, *graph.value_info))
        for node in graph.node:
            taken.update((node.name, *node.input, *node.output))
    return taken
