"""`sensitivity` as a picture: a row a layer, a column a setting, darker where more is lost.

Written as SVG by hand: every browser shows it, and nothing has to be installed for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from pathlib import PurePath

from .format import metric_text, number, percent, plural, safe, shorten
from .sensitivity import SensitivityPoint, SensitivityReport, SensitivityRow
from .sensitivity_view import setting_title

__all__ = ["sensitivity_svg"]

ROW, CELL, BAR, GAP, MARGIN = 24, 72, 80, 12, 20
CHARACTER = 7.0  # width of a character of the labels
LABEL_LIMIT = 44
HEAD, LEGEND, SWATCH = 96, 64, 90
LEAST_WIDTH = 640  # for the lines above the table

#: From nothing lost to the most lost: light to dark, and told apart without colour too.
RAMP = ((255, 247, 236), (253, 212, 158), (252, 141, 89), (215, 48, 31), (127, 0, 0))
UNKNOWN_FILL = "#dddddd"
INK, PALE_INK, BAR_FILL = "#1a1a1a", "#ffffff", "#7a8fa6"


def sensitivity_svg(report: SensitivityReport) -> str:
    """The picture as the text of an SVG file."""
    left = MARGIN + CHARACTER * max(
        [len("layer"), *(min(len(safe(row.layer)), LABEL_LIMIT) for row in report.layers)]
    )
    cells = left + GAP + BAR + GAP
    columns = CELL * len(report.settings)
    width = max(cells + columns + MARGIN, left + GAP + SWATCH * len(RAMP) + MARGIN, LEAST_WIDTH)
    height = HEAD + ROW * len(report.layers) + LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
        f' viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *_head(report, left, cells),
    ]
    most = _most(report)
    for at, row in enumerate(report.layers):
        parts += _row(report, row, HEAD + ROW * at, left, cells, most)
    parts += _legend(report, HEAD + ROW * len(report.layers), left, most)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _head(report: SensitivityReport, left: float, cells: float) -> Iterator[str]:
    better = ", lower is better" if report.better == "lower" else ""
    value = metric_text(report.dense, report.share)
    yield _text(
        MARGIN, 26, f"Sensitivity of {safe(PurePath(report.model).name)}", size=16, weight="bold"
    )
    yield _text(
        MARGIN,
        46,
        f"{safe(report.metric)}{better}, {value} unpruned, on {plural(report.samples, 'sample')};"
        f" each layer pruned alone{', then refitted' if report.calibration else ''}",
    )
    base = HEAD - 10
    yield _text(left, base, "layer", anchor="end", weight="bold")
    yield _text(left + GAP, base, "weights", weight="bold")
    by = "zeros" if report.by == "sparsity" else "quality"
    yield _text(cells, base - 18, f"{by} in the layer", weight="bold")
    for at, setting in enumerate(report.settings):
        middle = cells + CELL * (at + 0.5)
        title = setting_title(report, setting)
        yield _text(middle, base, title, anchor="middle", weight="bold")


def _row(
    report: SensitivityReport,
    row: SensitivityRow,
    top: float,
    left: float,
    cells: float,
    most: float,
) -> Iterator[str]:
    base, name = top + ROW - 8, safe(row.layer)
    yield _text(left, base, shorten(name, LABEL_LIMIT), anchor="end", title=name)
    share = row.weights / report.weights if report.weights else 0.0
    yield _rect(left + GAP, top + 5, max(BAR * share, 1), ROW - 10, BAR_FILL, percent(share))
    if not row.points:
        yield _text(cells + 8, base, safe(row.note) or "left alone")
    for at, point in enumerate(row.points):
        fill, ink = _colours(point, most)
        x = cells + CELL * at
        lost = f"{_lost(point.drop, report)} lost, {percent(point.zeros)} zeros"
        yield _rect(x, top + 1, CELL - 2, ROW - 2, fill, f"{name}: {lost}")
        value = metric_text(point.metric, report.share)
        yield _text(x + CELL / 2 - 1, base, value, anchor="middle", fill=ink)


def _legend(report: SensitivityReport, top: float, left: float, most: float) -> Iterator[str]:
    """The colours with what they stand for; what is lost goes by the square of the place."""
    last = len(RAMP) - 1
    yield _text(left, top + 30, "lost", anchor="end", weight="bold")
    for at, colour in enumerate(RAMP):
        x, drop = left + GAP + SWATCH * at, most * (at / last) ** 2
        yield _rect(x, top + 16, SWATCH - 2, 18, _hex(colour), "")
        text = _lost(drop, report) if at else "nothing"
        yield _text(x + SWATCH / 2, top + 48, text, anchor="middle")


def _most(report: SensitivityReport) -> float:
    """The largest loss, of which colours are shares."""
    drops = [point.drop for row in report.layers for point in row.points]
    return max([drop for drop in drops if math.isfinite(drop)], default=0.0)


def _colours(point: SensitivityPoint, most: float) -> tuple[str, str]:
    """Colours of a cell and of the number in it."""
    if not math.isfinite(point.drop):
        return UNKNOWN_FILL, INK
    # The square root tells small losses apart, which are those that matter.
    colour = _ramp(math.sqrt(max(point.drop, 0.0) / most) if most > 0 else 0.0)
    red, green, blue = (part / 255 for part in colour)
    luminance = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
    return _hex(colour), INK if luminance > 0.18 else PALE_INK


def _ramp(share: float) -> tuple[int, int, int]:
    place = min(max(share, 0.0), 1.0) * (len(RAMP) - 1)
    at = min(int(place), len(RAMP) - 2)
    red, green, blue = (
        round(a + (b - a) * (place - at)) for a, b in zip(RAMP[at], RAMP[at + 1], strict=True)
    )
    return red, green, blue


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _lost(drop: float, report: SensitivityReport) -> str:
    return f"{100 * drop:.3g} points" if report.share else number(drop)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    size: int = 12,
    weight: str = "normal",
    fill: str = INK,
    title: str = "",
) -> str:
    hint = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
        f' font-weight="{weight}" fill="{fill}">{hint}{escape(text)}</text>'
    )


def _rect(x: float, y: float, width: float, height: float, fill: str, title: str) -> str:
    hint = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        f' fill="{fill}">{hint}</rect>'
    )
