"""Named arrays from files: an .npz, an .npy, or a folder of .npy files that stay on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from ..errors import DataError
from .specs import InputSpec

__all__ = ["read_arrays"]

#: Characters of input names that file names cannot have everywhere; "_" stands for each.
FORBIDDEN = str.maketrans(dict.fromkeys('/\\:*?"<>|', "_"))
#: Bytes that any .npz may unpack to, and how many times its own size a larger one may.
LARGEST_UNPACKED, MOST_TIMES = 2**28, 100


def read_arrays(path: Path, inputs: Sequence[InputSpec]) -> dict[str, np.ndarray]:
    """Arrays by name.

    Args:
        path: An .npz, which is read as a whole; or an .npy, or a folder of .npy files named after
            the model's inputs (``_`` for characters that a file name cannot have): these are
            mapped (``numpy.memmap``), so a set may be larger than memory.
        inputs: What the model wants.

    Raises:
        DataError: There is no such file, or it is damaged or of another kind.
    """
    if path.is_dir():
        return _folder(path, inputs)
    if path.exists() and not path.is_file():
        raise DataError(f"'{path}' is no regular file; give an .npz or a folder of .npy files")
    if path.suffix == ".npy":
        return {path.stem: _mapped(path)}
    return _npz(path)


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise DataError(f"'{path}' is a single array; save inputs and labels as .npz")
        with archive:
            _check_size(path, archive.zip)
            arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise _unreadable(path, error) from None
    except MemoryError as error:
        raise DataError(
            f"'{path}' does not fit into memory ({error}); save its arrays as .npy files in a "
            "folder and give the folder"
        ) from None
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types on damaged files
        raise DataError(
            f"'{path}' is no .npz file of plain arrays ({_cause(error)}); save it again"
        ) from None
    strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if strange:
        raise DataError(f"'{strange[0]}' in '{path}' is no array; save the file again")
    return arrays


def _check_size(path: Path, archive: ZipFile) -> None:
    """Refuse a small file that says it unpacks to far more than it holds."""
    packed = path.stat().st_size
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > max(LARGEST_UNPACKED, MOST_TIMES * packed):
        raise DataError(
            f"'{path}' has {packed:,} bytes and unpacks to {unpacked:,}; save its arrays as .npy "
            "files in a folder and give the folder"
        )


def _folder(folder: Path, inputs: Sequence[InputSpec]) -> dict[str, np.ndarray]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".npy")
    except OSError as error:
        raise _unreadable(folder, error) from None
    if not files:
        raise DataError(
            f"'{folder}' has no .npy files; save an array for each input and the labels there"
        )
    names = {spec.name.translate(FORBIDDEN): spec.name for spec in inputs}
    return {names.get(path.stem, path.stem): _mapped(path) for path in files}


def _mapped(path: Path) -> np.ndarray:
    if path.exists() and not path.is_file():
        raise DataError(f"'{path}' is no regular file; save the array again")
    try:
        try:
            with np.errstate(over="ignore"):  # a damaged header can claim any size
                array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:  # an empty array cannot be mapped
            array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise _unreadable(path, error) from None
    except Exception as error:  # numpy raises many types on damaged files
        raise DataError(
            f"'{path}' is no .npy file of a plain array ({_cause(error)}); save it again"
        ) from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"'{path}' is an archive of arrays; name it .npz")
    return array


def _cause(error: Exception) -> str:
    """What is wrong with a file, less numpy's advice to trust it."""
    return "text or pickled objects" if "pickle" in str(error) else str(error)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot read '{path}' ({error.strerror or error}); check the path")
