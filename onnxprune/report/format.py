"""How single facts are written: bytes, ratios, shares, shapes, and names that nobody vouches for.

Pure functions on plain values. Numbers keep three significant digits and never round to a limit
they did not reach: 99.97 % is shown as ``>99.9%``, not as 100.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "ASCII",
    "UNICODE",
    "UNKNOWN",
    "Glyphs",
    "bytes_text",
    "clock",
    "count",
    "display_width",
    "exact_bytes",
    "metric_text",
    "number",
    "pad",
    "percent",
    "plural",
    "ratio",
    "safe",
    "seconds_text",
    "shape_text",
    "shorten",
    "size_change",
]

UNKNOWN = "-"


@dataclass(frozen=True)
class Glyphs:
    """The signs that differ between plain ASCII and a Unicode terminal."""

    arrow: str
    ellipsis: str
    rule: str


ASCII = Glyphs(arrow="->", ellipsis="...", rule="-")
UNICODE = Glyphs(arrow="→", ellipsis="…", rule="─")


def bytes_text(size: int | None) -> str:
    """Return a size in decimal units with three significant digits: ``999 B``, ``1.23 MB``."""
    if size is None:
        return UNKNOWN
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        value /= 1000
        if value < 999.5 or unit == "PB":
            break
    return f"{_three_digits(value)} {unit}"


def exact_bytes(size: int) -> str:
    """Return a size to the byte: ``1,234,567``."""
    return f"{size:,}"


def count(value: int | None) -> str:
    """Return a count with its thousands apart: ``61,470``."""
    return UNKNOWN if value is None else f"{value:,}"


def plural(value: int, noun: str) -> str:
    """Return a count and its noun: ``1 layer``, ``1,204 layers``."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def ratio(value: float | None) -> str:
    """Return how many times: ``2.61x``, ``12.3x``, ``1,204x``; unknown or infinite is ``-``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{_three_digits(value)}x"


def percent(share: float | None) -> str:
    """Return a share as a percentage with one decimal; ``>99.9%`` and ``<0.1%`` near a limit."""
    if share is None or not math.isfinite(share):
        return UNKNOWN
    text = f"{share:.1%}"
    if text == "100.0%" and share < 1:
        return ">99.9%"
    if text == "0.0%" and share > 0:
        return "<0.1%"
    return {"100.0%": "100%", "0.0%": "0%", "-0.0%": "0%"}.get(text, text)


def number(value: float | None) -> str:
    """Return a measured number with three significant digits: ``0.0131``, ``1.2e-05``."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:.3g}"
    if "e" in text:
        return f"{value:.2g}"  # keeps the column narrow: the size is what such a number says
    return "0" if text == "-0" else text


def metric_text(value: float | None, share: bool) -> str:
    """Return a metric: ``97.12%`` for a share from 0 to 1, else four significant digits."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.2%}" if share else f"{value:.4g}"


def shape_text(shape: Sequence[int] | None) -> str:
    """Return a shape as ``64x3x7x7``; ``scalar`` for rank 0."""
    if shape is None:
        return UNKNOWN
    return "x".join(str(size) for size in shape) or "scalar"


def seconds_text(seconds: float) -> str:
    """Return a duration: ``0.42 s``, ``12.3 s``, ``2 min 5 s``."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def clock(seconds: float) -> str:
    """Return a duration as on a watch, in whole seconds: ``0:42``, ``12:05``, ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size_change(before: int, after: int) -> str:
    """Return what became of a size: ``2.06x smaller``, ``1.50x larger``, ``the same size``."""
    if before == after:
        return "the same size"
    if not before or not after:
        return "not comparable"
    times, word = (before / after, "smaller") if before > after else (after / before, "larger")
    return f"barely {word}" if times < 1.005 else f"{ratio(times)} {word}"


def _three_digits(value: float) -> str:
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


# Invisible or layout-changing characters that are letters or marks to Unicode, not controls.
_INVISIBLE = frozenset(
    [
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    ]
)
# Controls, format characters (bidi, zero width), surrogates, private, unassigned, line separators.
_UNSAFE_CATEGORIES = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])


def safe(text: str) -> str:
    """Return text from a model or a path with everything a terminal would act on escaped.

    Control characters, terminal escapes, line ends, bidi and invisible characters become
    ``\\x1b``, ``\\n`` or ``\\u202e`` as in a Python literal; all else stays as it is.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if _is_unsafe(char) else char for char in text)


def _is_unsafe(char: str) -> bool:
    return unicodedata.category(char) in _UNSAFE_CATEGORIES or ord(char) in _INVISIBLE


def _escape(char: str) -> str:
    # Python's own escapes first; they leave invisible letters and marks as they are.
    text = repr(char)[1:-1]
    return text if text != char else char.encode("unicode_escape").decode("ascii")


def display_width(text: str) -> int:
    """Return how many terminal cells a text takes: wide characters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(_char_width(char) for char in text)


def _char_width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Return `text` filled with spaces to `width` cells, on the left where it is right-aligned."""
    space = " " * max(width - display_width(text), 0)
    return space + text if right else text + space


def shorten(text: str, width: int, ellipsis: str = UNICODE.ellipsis) -> str:
    """Return `text` within `width` cells: the middle of a longer one gives way to an ellipsis.

    The end keeps the larger part, since names such as ``encoder.layers.11.weight`` differ there.
    """
    if display_width(text) <= width:
        return text
    room = width - len(ellipsis)
    if room < 2:
        return _fit(text, width)
    head = _fit(text, room * 2 // 5)
    tail = _fit(text[::-1], room - display_width(head))[::-1]
    return head + ellipsis + tail


def _fit(text: str, width: int) -> str:
    """Return the longest start of `text` that takes at most `width` cells."""
    used = 0
    for index, char in enumerate(text):
        used += _char_width(char)
        if used > width:
            return text[:index]
    return text
