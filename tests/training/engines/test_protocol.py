from __future__ import annotations

import io
import struct

import numpy as np
import pytest

from onnxprune.training.engines.onnxruntime_training.training_worker.protocol import (
    Closed,
    Message,
    read,
    write,
)


def sent(message: Message) -> Message:
    stream = io.BytesIO()
    write(stream, message)
    stream.seek(0)
    received = read(stream)
    assert not stream.read()
    return received


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1),
        np.array(7),
        np.zeros((0, 3), np.float32),
        np.array([True, False]),
        np.arange(4, dtype=">i4"),
        np.arange(3, dtype=np.float16)[::-1],
    ],
)
def test_arrays_arrive_as_they_were(array: np.ndarray) -> None:
    received = sent(Message("step", {"rate": 0.5}, {"before": np.ones(2), "": array}))
    assert received.kind == "step" and received.fields == {"rate": 0.5}
    assert list(received.arrays) == ["before", ""]
    got = received.arrays[""]
    assert got.shape == array.shape and got.dtype == array.dtype.newbyteorder("<")
    np.testing.assert_array_equal(got, array)


def test_no_objects_are_sent_or_received() -> None:
    with pytest.raises(ValueError, match="'names' has elements of type object"):
        write(io.BytesIO(), Message("step", {}, {"names": np.array(["a", None], object)}))
    header = b'{"kind": "step", "fields": {}, "arrays": [["x", "|O", [1]]]}'
    with pytest.raises(ValueError, match="element type"):
        read(io.BytesIO(struct.pack("<Q", len(header)) + header + b"\0" * 8))


def test_an_ended_stream_is_told_apart_from_garbage() -> None:
    stream = io.BytesIO()
    write(stream, Message("step", {}, {"x": np.ones(4)}))
    for length in (0, 4, 20, len(stream.getvalue()) - 1):
        with pytest.raises(Closed):
            read(io.BytesIO(stream.getvalue()[:length]))
    with pytest.raises(ValueError, match="header"):
        read(io.BytesIO(b"Segmentation fault\n"))
