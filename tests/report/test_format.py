"""How bytes, ratios, shares, shapes and untrusted names are written."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.report import format as fmt


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (37_632, "37.6 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (171_823_411, "172 MB"),
        (2_147_483_648, "2.15 GB"),
        (10**18, "1,000 PB"),
    ],
)
def test_bytes(size: int | None, text: str) -> None:
    assert fmt.bytes_text(size) == text


@given(st.integers(0, 10**17))
def test_bytes_fit_their_column(size: int) -> None:
    assert len(fmt.bytes_text(size)) <= 7


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "-"), (1.0, "1.00x"), (2.609, "2.61x"), (9.996, "10.0x"), (12.34, "12.3x")),
        *(
            (99.96, "100x"),
            (1234.5, "1,234x"),
            (math.inf, "-"),
            (math.nan, "-"),
        ),
    ],
)
def test_ratio(value: float | None, text: str) -> None:
    assert fmt.ratio(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        *(
            (None, "-"),
            (0.0, "0%"),
            (1e-6, "<0.1%"),
            (0.382, "38.2%"),
            (0.9997, ">99.9%"),
            (1.0, "100%"),
        ),
        *((math.nan, "-"),),
    ],
)
def test_percent_never_rounds_to_a_limit(share: float | None, text: str) -> None:
    assert fmt.percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "-"), (0.0, "0"), (-0.0, "0"), (0.01312, "0.0131"), (1.234e-05, "1.2e-05")),
        *(
            (-0.5, "-0.5"),
            (12345.0, "1.2e+04"),
            (math.nan, "-"),
            (math.inf, "-"),
        ),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert fmt.number(value) == text


def test_shapes_counts_and_times() -> None:
    assert fmt.shape_text((64, 3, 7, 7)) == "64x3x7x7"
    assert fmt.shape_text(()) == "scalar"
    assert fmt.shape_text(None) == "-"
    assert fmt.count(61470) == "61,470"
    assert (fmt.plural(1, "layer"), fmt.plural(1204, "layer")) == ("1 layer", "1,204 layers")
    assert fmt.seconds_text(0.4242) == "0.42 s"
    assert fmt.seconds_text(12.34) == "12.3 s"
    assert fmt.seconds_text(59.96) == "1 min 0 s"
    assert fmt.seconds_text(125.2) == "2 min 5 s"


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (100, 100, "the same size"),
        (206, 100, "2.06x smaller"),
        (100, 150, "1.50x larger"),
        (100_000, 99_999, "barely smaller"),
        (99_999, 100_000, "barely larger"),
        (0, 10, "not comparable"),
    ],
)
def test_size_change(before: int, after: int, text: str) -> None:
    assert fmt.size_change(before, after) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("conv1.weight", "conv1.weight"),
        ("[bold red]x[/]", "[bold red]x[/]"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("nul\0", r"nul\x00"),
        ("\x7f\x9b2J", r"\x7f\x9b2J"),
        ("ab\u202ecd\u2066", r"ab\u202ecd\u2066"),
        ("zero\u200bwidth\ufeff\u00ad", r"zero\u200bwidth\ufeff\xad"),
        ("line\u2028end", r"line\u2028end"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("filler\u3164\ufe0f", r"filler\u3164\ufe0f"),
        ("bad\udcff", r"bad\udcff"),
        ("größe/重み.权重", "größe/重み.权重"),
        ("C:\\model", "C:\\model"),
    ],
)
def test_safe_names(name: str, shown: str) -> None:
    assert fmt.safe(name) == shown


@given(st.text())
def test_nothing_unsafe_survives(name: str) -> None:
    shown = fmt.safe(name)
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert fmt.safe(shown) == shown


@given(st.text(), st.integers(0, 40))
def test_shortened_text_fits(text: str, width: int) -> None:
    text = fmt.safe(text)
    short = fmt.shorten(text, width)
    assert fmt.display_width(short) <= width
    assert short == text or fmt.display_width(text) > width


def test_shortening_keeps_both_ends() -> None:
    name = "encoder.layers.11.attention.query.weight"
    assert fmt.shorten(name, 20) == "encoder…query.weight"
    assert fmt.shorten(name, 20, "...") == "encode...uery.weight"
    assert fmt.shorten("重み重み重み", 7) == "重…重み"


def test_padding_counts_cells() -> None:
    assert fmt.pad("重み", 6) == "重み  "
    assert fmt.pad("é", 3, right=True) == "  é"
    assert fmt.display_width("e\u0301") == 1
    assert fmt.pad("too long", 3) == "too long"
