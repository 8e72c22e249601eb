"""External data: tensors whose bytes are in files beside the model.

A model file is untrusted input, so a location may only name a regular file inside the model's own
folder: absolute paths, ``..``, symbolic links and special files are refused.
https://onnx.ai/onnx/repo-docs/ExternalData.html
"""

from __future__ import annotations

import mmap
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from onnx import TensorProto

from ..errors import ModelError
from .dtypes import storage_dtype
from .model import checked_storage
from .payload import MappedPayload

__all__ = ["ExternalFiles", "map_file"]


@dataclass
class ExternalFiles:
    """The data files of one model, each opened and mapped once.

    Attributes:
        folder: The model's folder; None for a model handed over in memory.
        mapped: Files by location as written in the model.
    """

    folder: Path | None
    mapped: dict[str, tuple[Path, memoryview]] = field(default_factory=dict)

    def payload(self, tensor: TensorProto) -> MappedPayload:
        """The bytes of a tensor with external data; raises ModelError for anything unsafe."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        path, buffer = self._open(tensor, location)
        offset = _whole_number(tensor, entries, "offset", 0)
        expected = checked_storage(tensor)
        length = _whole_number(tensor, entries, "length", expected)
        if length != expected:
            raise ModelError(
                f"tensor '{tensor.name}' says that its external data has {length:,} bytes where "
                f"its shape needs {expected:,}; the file is damaged, export the model again"
            )
        if offset + length > len(buffer):
            raise ModelError(
                f"external data of tensor '{tensor.name}' ends at byte {offset + length:,} but "
                f"'{path.name}' has {len(buffer):,} bytes; copy the whole data file"
            )
        dtype = storage_dtype(tensor.data_type)
        return MappedPayload(buffer, offset, dtype, length // dtype.itemsize)

    def _open(self, tensor: TensorProto, location: str) -> tuple[Path, memoryview]:
        if location not in self.mapped:
            if self.folder is None:
                raise ModelError(
                    f"tensor '{tensor.name}' is in the external file '{location}' but the model "
                    "was handed over in memory; pass the model's path, or load its external data"
                )
            path = safe_path(self.folder, location, tensor.name)
            self.mapped[location] = (path, map_file(path))
        return self.mapped[location]

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every data file that was opened."""
        return tuple(path for path, _ in self.mapped.values())


def safe_path(folder: Path, location: str, tensor_name: str) -> Path:
    """Path of a data file inside `folder`; raises ModelError for a location that leaves it."""

    def refused(why: str, what_to_do: str) -> ModelError:
        return ModelError(
            f"external data of tensor '{tensor_name}' is at '{location}', {why}; {what_to_do}"
        )

    names = PurePosixPath(location)
    inside = "only files inside the model's folder are read: save the model again beside its data"
    if not location or "\0" in location:
        raise refused("which is no file name", inside)
    if names.is_absolute() or PureWindowsPath(location).anchor:
        raise refused("an absolute path", inside)
    if ".." in names.parts or ".." in PureWindowsPath(location).parts:
        raise refused("outside the model's folder", inside)
    path = folder
    for part in names.parts:
        path = path / part
        if path.is_symlink():
            raise refused("a symbolic link", "put a copy of the file there")
    try:
        mode = path.stat().st_mode
    except OSError:
        raise refused("which does not exist", "copy the data file beside the model") from None
    if not stat.S_ISREG(mode):
        raise refused("which is not a regular file", inside)
    return path


def map_file(path: Path) -> memoryview:
    """The whole file as a read-only memory map (empty for an empty file)."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        reason = error.strerror or error
        raise ModelError(
            f"cannot read '{path}' ({reason}); check the path and its rights"
        ) from None


def _whole_number(tensor: TensorProto, entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise ModelError(
            f"external data of tensor '{tensor.name}' has the {key} {text!r}, which is no number "
            "of bytes; the file is damaged, export the model again"
        )
    return int(text)
