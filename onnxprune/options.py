"""Settings as dataclass fields: one field is one flag is one docstring, and checked values.

A field's ``help`` metadata is what ``onnxprune --help`` prints for its flag and what the class's
own docstring says about it. The checks return the value in its plain type, or raise UsageError
with a sentence that names the setting, shows the value, and says what to give.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable
from dataclasses import field, fields
from typing import Any, TypeVar, get_args

from .errors import UsageError

__all__ = [
    "choice",
    "derived",
    "documented",
    "flag_help",
    "glob",
    "items",
    "number",
    "option",
    "whole",
]

_Config = TypeVar("_Config")


def option(default: Any, help_text: str) -> Any:
    """A dataclass field with a default and its help, in full sentences."""
    return field(default=default, metadata={"help": help_text})


def derived(help_text: str) -> Any:
    """A dataclass field that nobody sets when making one; None until somebody does."""
    return field(default=None, init=False, metadata={"help": help_text})


def flag_help(config: type, name: str) -> str:
    """Return the docstring of one field of a configuration class."""
    return next(str(entry.metadata["help"]) for entry in fields(config) if entry.name == name)


def documented(config: type[_Config]) -> type[_Config]:
    """Append what each field's help says to the class's docstring."""
    lines = [f"    {entry.name}: {entry.metadata['help']}" for entry in fields(config)]  # type: ignore[arg-type]
    config.__doc__ = "\n".join([config.__doc__ or "", "", "Attributes:", *lines])
    return config


def number(value: object, what: str, wanted: str, fits: Callable[[float], bool]) -> float:
    """Return `value` as a float that `fits`; numpy scalars pass, text, bools and NaN do not."""
    try:
        result = math.nan if isinstance(value, (bool, str, bytes)) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if math.isnan(result) or not fits(result):
        raise _refused(value, what, wanted)
    return result + 0.0  # -0.0 becomes 0.0


def whole(value: object, what: str, least: int) -> int:
    """Return `value` as an int of at least `least` that fits 64 bits; floats do not pass."""
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Integral)
        or not least <= int(value) < 2**63
    ):
        below = " and below 2**63" if isinstance(value, int) and value >= 2**63 else ""
        raise _refused(value, what, f"a whole number of at least {least}{below}")
    return int(value)


def choice(value: object, what: str, literal: Any) -> None:
    """Check that `value` is one of those of a Literal type."""
    if value not in (known := get_args(literal)):
        raise UsageError(f"{what} {value!r} is unknown: choose one of {', '.join(known)}")


def items(value: Iterable[Any], what: str) -> tuple[Any, ...]:
    """Return the items of a sequence; a lone string would fall apart into letters."""
    if isinstance(value, (str, bytes)):
        raise UsageError(f"{what} is the single text {value!r}: give a sequence, even of one")
    try:
        return tuple(value)
    except TypeError:
        raise UsageError(f"{what} is {value!r}: give a sequence, even of one") from None


def glob(item: Any) -> str:
    """Return a pattern for names, which is any text but none."""
    if not isinstance(item, str) or not item:
        raise UsageError(f"{item!r} is no glob: give a name or a pattern such as 'conv*'")
    return item


def _refused(value: object, what: str, wanted: str) -> UsageError:
    shown = repr(value) if isinstance(value, str) else str(value)
    return UsageError(f"{what} is {shown}: give {wanted}")
