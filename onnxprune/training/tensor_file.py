"""Named arrays and facts in one safetensors file, replaced as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, OutputError

__all__ = ["STAGED", "read_tensors", "write_file", "write_tensors"]

#: How names of files that are being written end.
STAGED = ".part"
_FACTS = "onnxprune"
#: Length of the checksum in front of the facts, in hexadecimal digits.
_DIGITS = 32


def write_tensors(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    facts: Mapping[str, Any],
    *,
    previous: Path | None = None,
) -> None:
    """Write a file beside the target and rename it: the old one or the new one is there, whole.

    Args:
        path: The file; its folder is made where it is missing.
        arrays: The arrays by name.
        facts: Anything that JSON holds.
        previous: Where a file that is there goes first.

    Raises:
        OutputError: The file cannot be written.
    """
    from safetensors.numpy import save

    dense = {
        name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()
    }
    text = json.dumps(facts)
    # One entry: safetensors writes several in any order.
    content = save(dense, metadata={_FACTS: _digest(dense, text) + text})
    write_file(path, content, previous=previous)


def write_file(path: Path, content: bytes, *, previous: Path | None = None) -> None:
    """Write a file whole or not at all, in a folder that is made where it is missing.

    Args:
        path: The file.
        content: Its bytes.
        previous: Where a file that is there goes first.

    Raises:
        OutputError: The file cannot be written; an old one is still there.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}{STAGED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with staged.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if previous is not None:
                with suppress(FileNotFoundError):
                    os.replace(path, previous)
            os.replace(staged, path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"cannot write '{path}' ({error.strerror or error}); check the folder and its space"
        ) from None


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and facts of a file; raises DataError where it is missing, cut or no such file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f"there is no file '{path}'; check the path")
    try:
        with safe_open(str(path), framework="numpy") as file:
            told = (file.metadata() or {})[_FACTS]
            digest, text = told[:_DIGITS], told[_DIGITS:]
            facts = json.loads(text)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if digest != _digest(arrays, text):
            raise ValueError("its checksum is wrong")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DataError(
            f"'{path}' is damaged or was not written by onnxprune ({error}); remove it and start "
            "again"
        ) from None
    return arrays, facts


def _digest(arrays: Mapping[str, np.ndarray], text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=_DIGITS // 2)
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
