"""Curves as SVG, written by hand: a line and dots each, the x axis logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Curve", "curve_svg"]

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 24, 96
#: Told apart without colour by their dots' shapes of dashes too.
STYLES = (("#1b6ca8", ""), ("#c8551b", "6 3"), ("#3c7a3c", "2 3"), ("#6b4c9a", "8 3 2 3"))


@dataclass(frozen=True)
class Curve:
    """Points (x, y) in order of x, x at least 1, under a name."""

    name: str
    points: tuple[tuple[float, float], ...]


def curve_svg(curves: Sequence[Curve], x_title: str, y_title: str) -> str:
    """The picture as the text of an SVG file."""
    frame = _Frame.around([point for curve in curves for point in curve.points])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *frame.axes(x_title, y_title),
    ]
    for at, curve in enumerate(curves):
        parts += _curve(frame, curve, at)
    return "\n".join([*parts, "</svg>"]) + "\n"


@dataclass(frozen=True)
class _Frame:
    """Where numbers lie: x from 1 to `right`, y between `low` and `high`."""

    right: float
    low: float
    high: float

    @classmethod
    def around(cls, points: Sequence[tuple[float, float]]) -> _Frame:
        ys = [y for _, y in points]
        return cls(max(2.0, *(x for x, _ in points)), math.floor(min(ys)), math.ceil(max(ys)))

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value) / math.log(self.right)

    def y(self, value: float) -> float:
        share = (value - self.low) / max(self.high - self.low, 1)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def axes(self, x_title: str, y_title: str) -> Iterator[str]:
        bottom, end = HEIGHT - BOTTOM, WIDTH - RIGHT
        for power in range(int(math.log2(self.right)) + 1):
            x = self.x(2**power)
            yield _line(x, TOP, x, bottom, "#e4e4e4")
            yield _text(x, bottom + 16, f"{2**power}x", "middle")
        for step in range(5):
            value = self.low + (self.high - self.low) * step / 4
            yield _line(LEFT, self.y(value), end, self.y(value), "#e4e4e4")
            yield _text(LEFT - 6, self.y(value) + 4, f"{value:g}", "end")
        yield _text((LEFT + end) / 2, bottom + 36, x_title, "middle")
        yield _text(LEFT, TOP - 8, y_title, "start")


def _curve(frame: _Frame, curve: Curve, at: int) -> Iterator[str]:
    colour, dashes = STYLES[at % len(STYLES)]
    places = [(frame.x(x), frame.y(y)) for x, y in curve.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield (
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"'
        f' stroke-dasharray="{dashes}"/>'
    )
    for (x, y), (ratio, value) in zip(places, curve.points, strict=True):
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}">'
            f"<title>{escape(curve.name)}: {value:.2f} at {ratio:.1f}x</title></circle>"
        )
    left, base = LEFT + 330 * (at % 2), HEIGHT - 34 + 18 * (at // 2)
    yield _line(left, base - 4, left + 28, base - 4, colour, dashes)
    yield _text(left + 34, base, curve.name, "start")


def _line(x: float, y: float, to_x: float, to_y: float, colour: str, dashes: str = "") -> str:
    return (
        f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{colour}"'
        f' stroke-width="{2 if dashes or colour != "#e4e4e4" else 1}"'
        f' stroke-dasharray="{dashes}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
