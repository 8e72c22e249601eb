"""How each ONNX tensor type is stored: numpy storage type, bits per element, packed or not."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto

__all__ = ["logical_dtype", "pack", "storage_bytes", "storage_dtype", "type_name", "unpack"]

PACKED_BITS = {
    getattr(TensorProto, name): bits
    for name, bits in {
        "INT4": 4,
        "UINT4": 4,
        "FLOAT4E2M1": 4,
        "INT2": 2,
        "UINT2": 2,
    }.items()
    if hasattr(TensorProto, name)
}


#: ONNX calls these by C's names; users know numpy's.
COMMON_NAMES: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}


def type_name(data_type: int) -> str:
    """Name of a tensor type, e.g. ``float16``; ``type 99`` for an unknown one."""
    if data_type in COMMON_NAMES:
        return COMMON_NAMES[data_type]
    if data_type in TensorProto.DataType.values():
        return str(TensorProto.DataType.Name(data_type)).lower()
    return f"type {data_type}"


def logical_dtype(data_type: int) -> np.dtype:
    """Numpy (or ml_dtypes) type of one element; raises KeyError for an unknown tensor type."""
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(data_type))


def storage_dtype(data_type: int) -> np.dtype:
    """Numpy type of one storage element: the element itself, or a byte of packed elements."""
    if data_type in PACKED_BITS:
        return np.dtype(np.uint8)
    return logical_dtype(data_type)


def storage_bytes(data_type: int, elements: int) -> int:
    """Bytes that `elements` elements of a tensor type occupy in ``raw_data``."""
    bits = PACKED_BITS.get(data_type)
    if bits is not None:
        return (elements * bits + 7) // 8
    return elements * logical_dtype(data_type).itemsize


def unpack(stored: np.ndarray, data_type: int, elements: int) -> np.ndarray:
    """Flat logical values of flat storage elements (a view unless the type is packed)."""
    bits = PACKED_BITS.get(data_type)
    if bits is None:
        return stored
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (stored[:, None] >> shifts) & np.uint8(2**bits - 1)
    codes = codes.reshape(-1)[:elements]
    logical = logical_dtype(data_type)
    if logical.name.startswith("int"):
        sign = np.uint8(1 << (bits - 1))
        return ((codes ^ sign).astype(np.int8) - np.int8(sign)).astype(logical)
    if logical.name.startswith("uint"):
        return codes.astype(logical)
    return codes.view(logical)


def pack(values: np.ndarray, data_type: int) -> np.ndarray:
    """Flat storage elements of flat logical values: the inverse of `unpack`."""
    bits = PACKED_BITS.get(data_type)
    if bits is None:
        return values
    count = 8 // bits
    codes = np.zeros(-(-values.size // count) * count, np.uint8)
    raw = values.view(np.uint8) if values.dtype.kind not in "iu" else values
    codes[: values.size] = raw.astype(np.int8).view(np.uint8) & np.uint8(2**bits - 1)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed: np.ndarray = np.bitwise_or.reduce(codes.reshape(-1, count) << shifts, axis=1)
    return packed.astype(np.uint8)
