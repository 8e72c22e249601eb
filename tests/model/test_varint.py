from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from onnxprune.model.varint import encode_sorted, encoded_size

EDGES = sorted({0, 2**63 - 1} | {2 ** (7 * k) + d for k in range(1, 9) for d in (-1, 0, 1)})


def by_protobuf(values: list[int]) -> list[int]:
    """Decode packed varints with protobuf itself."""
    raw = encode_sorted(np.array(values, np.int64)).tobytes()
    size, prefix = len(raw), bytearray()
    while size > 0x7F:
        prefix.append(size & 0x7F | 0x80)
        size >>= 7
    return list(TensorProto.FromString(b"\x3a" + bytes([*prefix, size]) + raw).int64_data)


@pytest.mark.parametrize("values", [[], [0], [127], [128], [2**63 - 1], EDGES])
def test_edges_of_every_length(values: list[int]) -> None:
    assert by_protobuf(values) == values


@given(st.lists(st.integers(0, 2**63 - 1), max_size=200).map(sorted))
def test_protobuf_decodes_what_is_encoded(values: list[int]) -> None:
    assert by_protobuf(values) == values


@given(st.lists(st.integers(0, 2**40), max_size=200).map(sorted))
def test_size_is_known_before_encoding(values: list[int]) -> None:
    array = np.array(values, np.int64)
    assert encoded_size(array) == encode_sorted(array).size
