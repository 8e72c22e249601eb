"""The trials of a search, and what is said of the bound."""

from __future__ import annotations

import dataclasses
import re

import pytest

from onnxprune.report.format import ASCII, display_width
from onnxprune.report.report import Report
from onnxprune.report.search import Search, SearchTrial
from onnxprune.report.search_view import bound_text, search_facts, search_grid
from onnxprune.report.show import show
from onnxprune.report.summary import title
from tests.report.terminal import Terminal

pytestmark = pytest.mark.usefixtures("plain_environment")


def trial(number: int, zeros: float, drop: float, **more: object) -> SearchTrial:
    facts: dict[str, object] = {
        "trial": number,
        "way": "over all layers",
        "setting": f"sparsity {zeros:g}",
        "zeros": zeros,
        "kept": round(1000 * (1 - zeros)),
        "metric": 0.99 - drop,
        "drop": drop,
        "within": drop <= 0.005,
        "best": drop <= 0.005,
        "retrained": False,
        "seconds": 0.1,
    }
    return SearchTrial(**{**facts, **more})  # type: ignore[arg-type]


@pytest.fixture
def search() -> Search:
    """Three trials, the second of which was chosen."""
    return Search(
        max_drop=0.5,
        unit="points",
        bound=0.005,
        metric="top-1 accuracy",
        better="higher",
        share=True,
        dense=0.99,
        trials=(
            trial(1, 0.95, 0.2),
            trial(2, 0.8, 0.004, way="sensitivity"),
            trial(3, 0.9, 0.006, retrained=True),
        ),
        chosen=2,
        drop=0.004,
        drop_error=0.0031,
        samples=10_000,
        scanned=512,
        seconds=3.2,
        notes=("something to know",),
    )


def test_the_table(search: Search) -> None:
    grid = search_grid(search)
    titles = [heading.title for heading in grid.headings]
    assert titles == ["trial", "pruned", "setting", "zeros", "kept", "metric", "lost", "within"]
    assert grid.rows == (
        ("1", "over all layers", "sparsity 0.95", "95.0%", "50", "79.00%", "20.00", "no"),
        ("2", "sensitivity", "sparsity 0.8", "80.0%", "200", "98.60%", "0.40", "chosen"),
        ("3", "over all layers, retrained", "sparsity 0.9", "90.0%", "100", "98.40%", "0.60", "no"),
    )


def test_the_lines(search: Search) -> None:
    facts = [(fact.label, fact.text, fact.tone) for fact in search_facts(search)]
    assert facts[0] == (
        "max-drop",
        "at most 0.5 points lost: lost 0.40 points on 10,000 samples, standard error 0.31 points",
        "good",
    )
    assert facts[1][1] == (
        "3 prunings measured in 3.20 s, number 2 chosen; layers tried alone on 512 samples"
    )
    assert facts[2][1] == "something to know"
    assert "others may lose more" in facts[3][1]


def test_what_was_gained_and_what_has_no_error(search: Search) -> None:
    better = dataclasses.replace(search, drop=-0.001, drop_error=None, scanned=0)
    first, second, *_ = search_facts(better)
    assert first.text == "at most 0.5 points lost: gained 0.10 points on 10,000 samples"
    assert "alone" not in second.text


def test_nothing_pruned(search: Search) -> None:
    nothing = dataclasses.replace(search, chosen=None, drop=0.0, drop_error=None)
    facts = list(search_facts(nothing))
    assert facts[0].text == (
        "at most 0.5 points lost: nothing pruned, for even 80.0% zeros lose 0.40 points on 10,000"
        " samples"
    )
    assert facts[0].tone == "warning"
    assert not any("others may lose more" in fact.text for fact in facts)


def test_other_units(search: Search) -> None:
    assert bound_text(dataclasses.replace(search, max_drop=1)) == "at most 1 point lost"
    other = dataclasses.replace(
        search, max_drop=2.5, unit="% of the unpruned model's value", share=False, drop=0.0123
    )
    assert bound_text(other) == "at most 2.5% of the unpruned model's value lost"
    assert next(iter(search_facts(other))).text.startswith(
        "at most 2.5% of the unpruned model's value lost: lost 0.0123 on"
    )


@pytest.mark.parametrize("width", [50, 80, 120])
def test_in_the_summary(
    width: int, report: Report, search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = dataclasses.replace(report, search=search)
    assert title(searched, ASCII) == ("lenet.onnx -> lenet.pruned.onnx (at most 0.5 points lost)")
    text = str(searched)
    assert "    2  sensitivity" in text
    assert text.index("accuracy  ") < text.index("max-drop  ") < text.index("checks  ")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    show(searched, stream)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()
    assert any("chosen" in line for line in lines)
    assert all(display_width(line) <= width for line in lines)
