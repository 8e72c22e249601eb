"""Mutations of what lies beside a model: external data and sample files."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from random import Random

import numpy as np
from numpy.lib import format as npy
from onnx import ModelProto, TensorProto

from tests.fuzzing.mutators.values import a_name

__all__ = ["LOCATIONS", "externalise", "write_samples"]

#: Where external data may claim to be; the last ones are made by `externalise`.
LOCATIONS = ("m.bin", "m.bin", "m.bin", "../secret.bin", "/etc/passwd", "sub/m.bin", "./m.bin",
             "m.onnx", "absent.bin", "", ".", "..", "a\0b", "/dev/zero", "link.bin", "loop.bin",
             "fifo", "folder", "sub/../m.bin", "C:\\x", "x\ny", "\x1b[31m", "onnxprune-payload:0",
             "onnxprune-payload:x.0", "m.bin/", "link/secret.bin",
             "file:///etc/passwd")  # fmt: skip
OFFSETS = ("0", "0", "1", "3", "64", "4096", "-1", "1e3", "99999999999999999999", str(2**63), "",
           "0x10", " 4", "٣", str(2**62))  # fmt: skip


def externalise(random: Random, model: ModelProto, folder: Path) -> None:
    """Move initializers to a data file, with faults in where they say that they are."""
    data = bytearray()
    tensors = [t for t in model.graph.initializer if t.raw_data]
    odd = random.choice(tensors) if tensors and random.random() < 0.8 else None
    shared = random.random() < 0.1
    for tensor in tensors:
        raw = tensor.raw_data
        entries = {"location": "m.bin", "offset": str(len(data)), "length": str(len(raw))}
        if shared:
            entries["offset"] = "0"
        if tensor is odd:
            _damage(random, entries)
        data += raw
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        if tensor is odd and random.random() < 0.1:
            tensor.external_data.add(key=a_name(random), value=a_name(random))
    if random.random() < 0.2:
        del data[random.randrange(len(data) + 1) :]
    (folder / "m.bin").write_bytes(data)
    os.symlink(folder.parent / "secret.bin", folder / "link.bin")
    os.symlink("loop.bin", folder / "loop.bin")
    os.symlink(folder.parent, folder / "link")
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()


def _damage(random: Random, entries: dict[str, str]) -> None:
    way = random.choice(("location", "offset", "length", "drop", "checksum"))
    if way == "location":
        entries["location"] = random.choice(LOCATIONS)
    elif way in ("offset", "length"):
        entries[way] = random.choice(OFFSETS)
    elif way == "drop":
        del entries[random.choice(list(entries))]
    else:
        entries["checksum"] = a_name(random)


def write_samples(
    random: Random, arrays: Mapping[str, np.ndarray], folder: Path, *, hostile: bool
) -> None:
    """Write ``data.npz``, with something wrong about it where `hostile`."""
    kept = dict(arrays)
    if hostile and kept and random.random() < 0.7:
        _change_array(random, kept)
    buffer = io.BytesIO()
    packing = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", packing) as z:
        warnings.simplefilter("ignore")  # a name may be there twice
        for name, array in kept.items():
            z.writestr(_file_name(name), _npy(array))
        if hostile and random.random() < 0.3:
            z.writestr(*_bomb(random))
    data = bytearray(buffer.getvalue())
    if hostile and data and random.random() < 0.4:
        for _ in range(random.choice((1, 3, 20))):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        if random.random() < 0.3:
            del data[random.randrange(len(data)) :]
    (folder / "data.npz").write_bytes(data)


def _file_name(name: str) -> str:
    return f"{name}.npy".replace("\0", "_").replace("/", "_")


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    npy.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


def _bomb(random: Random) -> tuple[str, bytes]:
    """A member whose header claims more than it holds, or that is no array."""
    shape = random.choice(
        ("(1073741824,)", "(4611686018427387904,)", "(-1,)", "(2,3", "(65536,65536)")
    )
    descr = random.choice(("<f4", "|O", "<U1000", "|V9", "<M8[s]", ">f8", "<c16", "[('a','<f4')]"))
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 64
    return random.choice(("x.npy", "labels.npy", "more.npy", "../up.npy", "text.txt")), body


def _change_array(random: Random, arrays: dict[str, np.ndarray]) -> None:
    name = random.choice(list(arrays))
    array = np.atleast_1d(arrays[name])
    way = random.choice(
        ("drop", "name", "type", "object", "shape", "values", "empty", "fewer", "text")
    )
    if way == "drop":
        del arrays[name]
    elif way == "name":
        arrays[a_name(random)] = arrays.pop(name)
    elif way == "type":
        kind = random.choice(("f2", "f8", "i1", "u8", "c8", "?", ">f4", "S3", "M8[s]"))
        arrays[name] = np.zeros(array.shape, kind)
    elif way == "object":
        arrays[name] = np.array([{"a": 1}, None] * 4, object)
    elif way == "shape":
        arrays[name] = array[..., None] if random.random() < 0.5 else array.reshape(-1)
    elif way == "values" and array.size and array.dtype.kind in "fi":
        value = random.choice((-1, 100, np.nan, np.inf))
        with np.errstate(all="ignore"):
            arrays[name] = array.copy()
            arrays[name].reshape(-1)[0] = (
                7
                if array.dtype.kind == "i" and value != value
                else (value if array.dtype.kind == "f" or np.isfinite(value) else -5)
            )
    elif way == "empty":
        arrays[name] = array[:0]
    elif way == "fewer":
        arrays[name] = array[: random.randrange(1, 5)]
    else:
        arrays[name] = np.array(["text"] * 8)
