"""Mutations of constants: shapes, types, bytes, sparse indices, gap codes and quantization."""

from __future__ import annotations

from random import Random

import numpy as np
from onnx import ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from onnxprune.model.tensors import all_tensors, walk_graphs
from tests.fuzzing.mutators.values import DIMS, a_dim

__all__ = ["TENSORS"]

DATA = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data",
        "string_data")  # fmt: skip


def a_tensor(random: Random, model: ModelProto) -> TensorProto | None:
    """Any tensor of the model."""
    found = list(all_tensors(model))
    return random.choice(found) if found else None


def dims(random: Random, model: ModelProto) -> None:
    """A tensor's shape: wrong, negative, zero, or with a product past int64."""
    tensor = a_tensor(random, model)
    if tensor is None:
        return
    shape = list(tensor.dims)
    way = random.choice(("one", "drop", "add", "swap", "overflow", "flat", "ones"))
    if way == "one" and shape:
        shape[random.randrange(len(shape))] = a_dim(random)
    elif way == "drop" and shape:
        del shape[random.randrange(len(shape))]
    elif way == "add":
        shape.insert(random.randrange(len(shape) + 1), random.choice((1, 1, 0, 2)))
    elif way == "swap":
        random.shuffle(shape)
    elif way == "overflow":
        shape = random.choice(([2**32, 2**32], [2**62, 4, 4], [-1, -1], [2**33, 2**31, 0]))
    elif way == "ones":
        shape += [1] * random.choice((1, 8, 70))
    else:
        shape = [int(np.prod(shape, dtype=object))] if all(0 <= n < 2**20 for n in shape) else []
    tensor.dims[:] = shape


def data_type(random: Random, model: ModelProto) -> None:
    """An element type that does not fit the bytes, or none at all."""
    tensor = a_tensor(random, model)
    if tensor is not None:
        tensor.data_type = random.choice((*range(27), 99, -1, 2**31 - 1))


def form(random: Random, model: ModelProto) -> None:
    """Raw bytes become typed elements, or both are there, or too few or too many."""
    tensor = a_tensor(random, model)
    if tensor is None:
        return
    way = random.choice(("typed", "both", "short", "long", "none", "wrong field", "external flag"))
    if way == "typed":
        _typed(tensor)
    elif way == "both":
        tensor.float_data.extend([1.0] * random.choice((1, 400)))
    elif way == "short":
        tensor.raw_data = tensor.raw_data[: random.randrange(len(tensor.raw_data) + 1)]
    elif way == "long":
        tensor.raw_data += b"\0" * random.choice((1, 3, 4, 4096))
    elif way == "none":
        for name in DATA:
            tensor.ClearField(name)
    elif way == "wrong field":
        _typed(tensor)
        tensor.ClearField("float_data")
        tensor.int64_data.extend([random.choice(DIMS)] * random.choice((1, 96)))
    else:
        tensor.data_location = TensorProto.EXTERNAL


def _typed(tensor: TensorProto) -> None:
    try:
        array = numpy_helper.to_array(tensor)
    except Exception:  # a tensor that another mutation broke stays as it is
        return
    if array.dtype == np.float32 and array.size < 10_000:
        tensor.ClearField("raw_data")
        tensor.float_data.extend(array.ravel().tolist())


def values(random: Random, model: ModelProto) -> None:
    """Weights that are not finite, all equal, all zero, tiny or huge."""
    tensor = a_tensor(random, model)
    if tensor is None:
        return
    try:
        array = numpy_helper.to_array(tensor).copy()
    except Exception:
        return
    if array.dtype.kind not in "fiub" or not array.size or array.size > 100_000:
        return
    flat = array.reshape(-1)
    if array.dtype.kind == "f":
        value = random.choice((np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, 3e38, 1, 1e-20))
    else:
        value = random.choice((0, 1, 127)) if array.dtype.kind != "b" else True
    with np.errstate(all="ignore"):
        if random.random() < 0.4:
            flat[random.randrange(flat.size)] = value
        elif array.dtype.kind == "f" and random.random() < 0.3:
            flat *= value
        else:
            flat[:] = value
    _replace(tensor, array)


def whole_numbers(random: Random, model: ModelProto) -> None:
    """Constants that say sizes, axes and indices get other numbers."""
    found = [t for t in all_tensors(model) if t.data_type in (TensorProto.INT64, TensorProto.INT32)]
    if not found:
        return
    tensor = random.choice(found)
    try:
        array = numpy_helper.to_array(tensor).copy()
    except Exception:
        return
    if array.size and array.dtype == np.int64:
        flat = array.reshape(-1)
        flat[random.randrange(flat.size)] = a_dim(random)
        _replace(tensor, array)


def _replace(tensor: TensorProto, array: np.ndarray) -> None:
    new = numpy_helper.from_array(array, tensor.name)
    for name in DATA:
        tensor.ClearField(name)
    tensor.raw_data = new.raw_data


def sparse(random: Random, model: ModelProto) -> None:
    """An initializer becomes sparse; indices are out of range, unsorted, doubled, misshapen."""
    graph = model.graph
    candidates = [i for i, t in enumerate(graph.initializer) if len(t.dims) > 0 and t.raw_data]
    if not candidates:
        return
    at = random.choice(candidates)
    try:
        array = numpy_helper.to_array(graph.initializer[at])
    except Exception:
        return
    if array.dtype.kind not in "fiub" or not 0 < array.size < 100_000:
        return
    name, size = graph.initializer[at].name, array.size
    kept = np.sort(np.array(random.sample(range(size), max(1, size // 4)), np.int64))
    chosen = array.reshape(-1)[kept]
    indices = _odd(random, kept, array.shape)
    made = SparseTensorProto(
        values=numpy_helper.from_array(chosen, name),
        indices=numpy_helper.from_array(indices, random.choice(("", "indices"))),
        dims=list(array.shape) if random.random() < 0.8 else [a_dim(random), size],
    )
    if random.random() < 0.3:
        made.indices.data_type = random.choice((1, 6, 7, 2, 9))
    if random.random() < 0.5:
        del graph.initializer[at]
        graph.sparse_initializer.append(made)
    else:
        del graph.initializer[at]
        node = NodeProto(op_type="Constant", output=[name])
        node.attribute.append(helper.make_attribute("sparse_value", made))
        graph.node.insert(0, node)


def _odd(random: Random, kept: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Positions with something wrong about them, or right in a rare form."""
    way = random.choice(
        (
            "fine",
            "reversed",
            "twice",
            "beyond",
            "negative",
            "huge",
            "coordinates",
            "short",
            "matrix",
        )
    )
    changed = kept.copy()
    if way == "reversed":
        return changed[::-1].copy()
    if way == "twice":
        changed[-1] = changed[0]
    elif way in ("beyond", "negative", "huge"):
        changed[random.randrange(changed.size)] = {
            "beyond": int(np.prod(shape)), "negative": -1, "huge": 2**62}[way]  # fmt: skip
    elif way == "coordinates":
        return np.stack(np.unravel_index(kept, shape), 1).astype(np.int64)
    elif way == "short":
        return changed[:-1]
    elif way == "matrix":
        return changed.reshape(-1, 1)
    return changed


def stored_form(random: Random, model: ModelProto) -> None:
    """One constant of a gap code or of a sparse tensor: gaps, values, sizes, axes, a reader."""
    tensors = [
        tensor
        for _, graph in walk_graphs(model)
        for node in graph.node
        if node.op_type in ("ScatterElements", "CumSum", "ConstantOfShape", "Cast", "Reshape")
        for name in node.input
        for tensor in model.graph.initializer
        if tensor.name == name
    ] or list(all_tensors(model))
    if not tensors:
        return
    tensor = random.choice(tensors)
    if tensor.raw_data and random.random() < 0.7:
        data = bytearray(tensor.raw_data)
        for _ in range(random.choice((1, 4))):
            data[random.randrange(len(data))] = random.choice((0, 1, 127, 255))
        tensor.raw_data = bytes(data)
    elif tensor.dims:
        tensor.dims[random.randrange(len(tensor.dims))] = a_dim(random)
    else:
        model.graph.node.add(op_type="Identity", input=[tensor.name], output=["another reader"])


def quantization(random: Random, model: ModelProto) -> None:
    """A weight behind DequantizeLinear whose scale, zero point, axis or blocks make no sense."""
    graph = model.graph
    weights = [t for t in graph.initializer if len(t.dims) > 1 and t.data_type == 1]
    if not weights:
        return
    tensor = random.choice(weights)
    shape, name = list(tensor.dims), tensor.name
    if any(not 0 < n < 10_000 for n in shape) or np.prod(shape) > 100_000:
        return
    kind = random.choice((TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4,
                          TensorProto.INT32, TensorProto.FLOAT8E4M3FN, 25))  # fmt: skip
    size = int(np.prod(shape))
    bits = {TensorProto.INT4: 4, TensorProto.UINT4: 4, 25: 2, TensorProto.INT32: 32}.get(kind, 8)
    codes = TensorProto(name=f"{name}_q", data_type=kind, dims=shape)
    codes.raw_data = random.randbytes((size * bits + 7) // 8)
    axis = random.choice((0, 1, -1, 2, 5, -3))
    length = random.choice((shape[axis % len(shape)], 1, 3, 0))
    scale = numpy_helper.from_array(
        np.full(random.choice(((length,), (), (length, 2))), 0.1, np.float32), f"{name}_s"
    )
    zero = TensorProto(name=f"{name}_z", data_type=random.choice((kind, 2, 3)), dims=scale.dims)
    zero.raw_data = b"\1" * max(1, length)
    graph.initializer.remove(tensor)
    graph.initializer.extend([codes, scale, zero])
    more = {"block_size": random.choice((0, 2, 3, 2**40, -1))} if random.random() < 0.4 else {}
    inputs = [codes.name, scale.name, zero.name][: random.choice((2, 3))]
    graph.node.insert(0, helper.make_node("DequantizeLinear", inputs, [name], axis=axis, **more))


TENSORS = {
    f"tensor: {change.__name__.replace('_', ' ')}": change
    for change in (
        dims, data_type, form, values, whole_numbers, sparse, stored_form, quantization,
    )
}  # fmt: skip
