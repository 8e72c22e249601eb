"""Samples and labels from an ``.npz`` file, fitted to a model's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError

__all__ = ["InputSpec", "Samples", "read_samples"]

LABELS = "labels"


@dataclass(frozen=True)
class InputSpec:
    """What a model wants at one input: numpy type and shape (None where any size does)."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]

    @property
    def fixed_batch(self) -> int | None:
        """Size of the first axis, None where any does."""
        return self.shape[0] if self.shape else None


@dataclass(frozen=True)
class Samples:
    """Arrays by input name, and integer class labels [N]; the first axis counts samples."""

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def batches(self, size: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Slices of at most `size` samples, in order."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield {name: array[part] for name, array in self.inputs.items()}, self.labels[part]


def read_samples(path: Path, inputs: list[InputSpec]) -> Samples:
    """Labelled samples from an .npz file.

    Args:
        path: Arrays named after the model's inputs, and ``labels``; with a single input, a single
            other array of any name does.
        inputs: What the model wants.

    Raises:
        DataError: No such file, an array missing, of the wrong type or shape, or with NaN.
    """
    arrays = _read(path)
    labels = arrays.pop(LABELS, None)
    if labels is None:
        raise DataError(
            f"'{path}' has no array '{LABELS}' (it has: {_names(arrays)}); add the right classes"
        )
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise DataError(
            f"'{LABELS}' in '{path}' is {labels.dtype} of shape {labels.shape}; it must be a "
            "non-empty row of whole-number classes"
        )
    chosen = {spec.name: _input(path, arrays, spec, len(inputs)) for spec in inputs}
    for name, array in chosen.items():
        if len(array) != len(labels):
            raise DataError(
                f"'{path}' has {len(array)} samples in '{name}' but {len(labels)} labels; "
                "give one label for each sample"
            )
    return Samples(chosen, labels)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise DataError(f"'{path}' is a single array; save inputs and labels as .npz")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot read '{path}' ({reason}); check the path") from None
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many types on damaged files
        raise DataError(
            f"'{path}' is no .npz file of plain arrays ({error}); save it again"
        ) from None
    strange = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
    if strange:
        raise DataError(f"'{strange[0]}' in '{path}' is no array; save the file again")
    return arrays


def _input(
    path: Path, arrays: Mapping[str, np.ndarray], spec: InputSpec, inputs: int
) -> np.ndarray:
    """The array for one input, checked against what the model wants."""
    array = arrays.get(spec.name)
    if array is None and inputs == 1 and len(arrays) == 1:
        (array,) = arrays.values()
    if array is None:
        raise DataError(
            f"'{path}' has no array for the model's input '{spec.name}' (it has: "
            f"{_names(arrays)}); name one so"
        )
    wanted = "x".join("?" if size is None else str(size) for size in spec.shape)
    fits = array.ndim == len(spec.shape) and all(
        want in (None, have) for want, have in zip(spec.shape[1:], array.shape[1:], strict=True)
    )
    if array.dtype != spec.dtype or not fits:
        shape = "x".join(map(str, array.shape))
        raise DataError(
            f"input '{spec.name}' in '{path}' is {array.dtype} of shape {shape}; the model wants "
            f"{spec.dtype} of shape {wanted}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"input '{spec.name}' in '{path}' holds NaN or infinity; remove them")
    return array


def _names(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"'{name}'" for name in arrays) or "none"
