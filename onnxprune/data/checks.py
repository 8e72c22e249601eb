"""Arrays against what a model wants: names, types, shapes, and numbers that are finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..errors import DataError
from .specs import InputSpec

__all__ = [
    "as_wanted",
    "check_array",
    "check_finite",
    "check_lengths",
    "match_names",
    "match_positions",
    "quoted",
]

Value = TypeVar("Value")

BFLOAT16 = "bfloat16"
#: What stands for bfloat16 in arrays that numpy alone wrote: its bytes, or a wider float.
CARRIERS = ("bfloat16", "void16", "float32")


def match_names(
    arrays: Mapping[str, Value], inputs: Sequence[InputSpec], labels: str, place: str
) -> tuple[dict[str, Value], Value | None]:
    """Values by input name, and the labels, from named arrays.

    With a single input, a single array beside the labels may have any name.

    Raises:
        DataError: An input has no array, or an array no input.
    """
    others = {name: array for name, array in arrays.items() if name != labels}
    if len(inputs) == 1 and len(others) == 1:
        return dict(zip([inputs[0].name], others.values(), strict=True)), arrays.get(labels)
    for spec in inputs:
        if spec.name not in others:
            raise DataError(
                f"{place} has no array for the model's input '{spec.name}' (it has: "
                f"{quoted(arrays)}); name one so"
            )
    names = [spec.name for spec in inputs]
    extra = [name for name in others if name not in names]
    if extra:
        raise DataError(
            f"{place} has arrays that are no input of the model: {quoted(extra)}; its inputs are "
            f"{quoted(names)} (the right answers go into '{labels}'): rename or remove them"
        )
    return {name: others[name] for name in names}, arrays.get(labels)


def match_positions(
    values: Sequence[Value], inputs: Sequence[InputSpec], place: str
) -> tuple[dict[str, Value], Value | None]:
    """Values by input name, and the labels, from values in the order of the inputs.

    Raises:
        DataError: There are too many or too few.
    """
    names = [spec.name for spec in inputs]
    if len(values) not in (len(names), len(names) + 1):
        raise DataError(
            f"{place} has {len(values)} arrays; the model's inputs are {quoted(names)}: give one "
            "for each, in this order, and then the labels if there are any"
        )
    labels = values[len(names)] if len(values) > len(names) else None
    return dict(zip(names, values, strict=False)), labels


def quoted(names: Iterable[str]) -> str:
    """Names for a message."""
    return ", ".join(f"'{name}'" for name in names) or "none"


def check_array(array: np.ndarray, spec: InputSpec, place: str) -> None:
    """Refuse samples of another type or shape than the model wants at an input.

    The first axis counts samples and may have any size, unless the input is shared.
    """
    shape = spec.shape
    if spec.shared and shape is not None:
        fits = _fits((0, *array.shape), (None, *shape))
    else:
        fits = array.ndim > 0 and (shape is None or _fits(array.shape, shape))
    typed = _type_fits(array.dtype, spec.dtype)
    if fits and typed:
        return
    wanted = str(spec.dtype) if shape is None else f"{spec.dtype} of shape {_sizes(shape)}"
    hint = "give it that shape" if typed else f"convert it with astype('{spec.dtype}')"
    raise DataError(
        f"input '{spec.name}' in {place} is {array.dtype} of shape {_sizes(array.shape)}; the "
        f"model wants {wanted}; {hint}"
    )


def _fits(have: tuple[int, ...], want: tuple[int | None, ...]) -> bool:
    return len(have) == len(want) and all(
        size in (None, mine) for size, mine in zip(want[1:], have[1:], strict=True)
    )


def _type_fits(have: np.dtype, want: np.dtype) -> bool:
    if want.name == BFLOAT16:
        return have.name in CARRIERS
    return have == want or (want.kind in "OU" and have.kind in "OU")


def as_wanted(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A checked batch in the input's own element type (bfloat16 may come in another)."""
    if dtype.name != BFLOAT16 or array.dtype == dtype:
        return np.ascontiguousarray(array)
    return array.view(dtype) if array.dtype.kind == "V" else array.astype(dtype)


def check_finite(array: np.ndarray, what: str, samples: Sequence[int] | None = None) -> None:
    """Refuse NaN and infinity.

    Args:
        array: Values [N, ...] of any type.
        what: What they are, for the message.
        samples: Numbers of the N samples; counted from 0 where not given.
    """
    if not is_float(array.dtype) or np.isfinite(array).all():
        return
    row = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(axis=1)))
    sample = row if samples is None else samples[row]
    raise DataError(
        f"{what} holds NaN or infinity, first in sample {sample} (counted from 0); remove them"
    )


def is_float(dtype: np.dtype) -> bool:
    """Whether numbers of a type can be NaN (ml_dtypes' are no floats to numpy)."""
    return dtype.kind == "f" or dtype.name == BFLOAT16


def check_lengths(
    arrays: Mapping[str, Any],
    labels: np.ndarray | None,
    place: str,
    inputs: Sequence[InputSpec] = (),
) -> int:
    """Number of samples, which must be the same in every array and more than none.

    Args:
        arrays: By input name.
        labels: [N, ...], or None.
        place: What messages call them.
        inputs: What the model wants; inputs that are shared have no samples to count.
    """
    shared = {spec.name for spec in inputs if spec.shared}
    lengths = {name: len(array) for name, array in arrays.items() if name not in shared}
    first = next(iter(lengths), "")
    count = lengths.get(first, 0)
    if 0 in lengths.values():
        raise DataError(f"{place} holds no samples; give non-empty arrays")
    for name, length in lengths.items():
        if length != count:
            raise DataError(
                f"{place} has {count} samples in '{first}' but {length} in '{name}'; give the same "
                "number in each"
            )
    if labels is not None and len(labels) != count:
        raise DataError(
            f"{place} has {count} samples in '{first}' but {len(labels)} labels; give one label "
            "for each sample"
        )
    return count


def _sizes(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape) or "()"
