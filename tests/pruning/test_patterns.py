"""N:M and blocks against loops over groups; which share of units goes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.errors import UsageError
from onnxprune.pattern import BlockPattern, GroupPattern, parse_pattern
from onnxprune.pruning import patterns as patterns_module
from onnxprune.pruning.axes import Axes
from onnxprune.pruning.patterns import block_scores, in_blocks, keep_groups
from onnxprune.pruning.ranking import keep_best

#: Stored shapes with the positions of their input and output axes.
LAYOUTS = (
    ((8, 12, 3, 3), Axes(1, 0)),  # Conv
    ((12, 8, 3, 2), Axes(0, 1)),  # ConvTranspose
    ((12, 8), Axes(0, 1)),  # MatMul
    ((8, 12), Axes(1, 0)),  # Gemm with transB
    ((3, 12, 5), Axes(1, 2)),  # MatMul with a batch
    ((2, 8, 12), Axes(2, 1)),  # LSTM
    ((12,), Axes(0, None)),  # MatMul with a vector
)
layouts = pytest.mark.parametrize(("shape", "axes"), LAYOUTS)


def scores(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@layouts
@pytest.mark.parametrize(("keep", "of"), [(2, 4), (1, 4), (3, 6), (1, 2), (4, 12), (0, 4), (4, 4)])
def test_every_group_keeps_its_best(shape: tuple[int, ...], axes: Axes, keep: int, of: int) -> None:
    given_scores = scores(shape)
    kept = keep_groups(given_scores, axes, keep, of)
    rest = [range(size) for axis, size in enumerate(shape) if axis != axes.inputs]
    for place in product(*rest):
        for start in range(0, shape[axes.inputs], of):
            group = [(*place[: axes.inputs], start + at, *place[axes.inputs :]) for at in range(of)]
            best = sorted(group, key=lambda one: -given_scores[one])[:keep]
            assert {one for one in group if kept[one]} == set(best)


def test_of_equal_scores_the_first_stay() -> None:
    kept = keep_groups(np.zeros((3, 8), np.float32), Axes(1, 0), 2, 4)
    assert np.array_equal(kept, np.tile([True, True, False, False], (3, 2)))


def test_large_layers_are_ranked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape, axes in LAYOUTS:
        whole = keep_groups(scores(shape), axes, 2, 4)
        with monkeypatch.context() as patch:
            patch.setattr(patterns_module, "PIECE", 24)
            assert np.array_equal(keep_groups(scores(shape), axes, 2, 4), whole)


@layouts
@pytest.mark.parametrize("pattern", ["4x1", "1x4", "3x5", "16x1", "1x64"])
def test_blocks(shape: tuple[int, ...], axes: Axes, pattern: str) -> None:
    blocks = parse_pattern(pattern)
    assert isinstance(blocks, BlockPattern)
    given_scores = scores(shape)
    found, sizes = block_scores(given_scores, axes, blocks)
    lengths = [1] * len(shape)
    lengths[axes.inputs] = blocks.columns
    if axes.outputs is not None:
        lengths[axes.outputs] = blocks.rows
    for place in np.ndindex(found.shape):
        part = given_scores[
            tuple(slice(at * n, (at + 1) * n) for at, n in zip(place, lengths, strict=True))
        ]
        assert found[place] == pytest.approx(np.sqrt((part.astype(float) ** 2).mean()), rel=1e-6)
        assert sizes[place] == part.size
    assert sizes.sum() == given_scores.size
    stays = np.random.default_rng(1).random(found.shape) < 0.5
    kept = in_blocks(stays, shape, axes, blocks)
    assert kept.shape == shape
    for place in np.ndindex(shape):
        at = tuple(index // n for index, n in zip(place, lengths, strict=True))
        assert kept[place] == stays[at]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.floats(0, 1), st.integers(0, 99))
def test_the_best_units_stay(counts: list[int], share: float, seed: int) -> None:
    some = [scores((count,), seed + at) for at, count in enumerate(counts)]
    kept = keep_best(some, [None] * len(some), share)
    flat, stays = np.concatenate(some), np.concatenate(kept)
    assert (~stays).sum() == round(share * flat.size)
    assert flat[~stays].max(initial=0) <= flat[stays].min(initial=1)
    for one, own in zip(some, keep_best(some, [None] * len(some), share, "layer"), strict=True):
        assert (~own).sum() == round(share * one.size)


@given(st.floats(0, 1), st.integers(0, 99))
def test_units_of_several_weights_come_as_close_as_they_can(share: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    some, sizes = scores((30,), seed), random.integers(1, 9, 30)
    (kept,) = keep_best([some], [sizes], share)
    order = np.argsort(some, kind="stable")
    possible = np.concatenate([[0], np.cumsum(sizes[order])])
    gone = sizes[~kept].sum()
    assert abs(gone - share * sizes.sum()) == np.abs(possible - share * sizes.sum()).min()
    assert some[~kept].max(initial=0) <= some[kept].min(initial=1)


def test_of_equal_units_no_more_go_than_wanted() -> None:
    (kept,) = keep_best([np.zeros(10, np.float32)], [None], 0.3)
    assert (~kept).sum() == 3
    assert keep_best([], [], 0.5) == []


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("2:4", GroupPattern(2, 4)),
        (" 1 : 16 ", GroupPattern(1, 16)),
        ("4x1", BlockPattern(4, 1)),
        ("1X4", BlockPattern(1, 4)),
        (GroupPattern(2, 4), GroupPattern(2, 4)),
    ],
)
def test_patterns_are_read(text: object, pattern: object) -> None:
    found = parse_pattern(text)
    assert found == pattern
    assert parse_pattern(str(found)) == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2", "is none: write N:M"),
        ("2:4:8", "is none"),
        ("-2:4", "is none"),
        ("2.0:4", "is none"),
        ("", "is none"),
        ("²:4", "is none"),
        (24, "is none"),
        (None, "is none"),
        ("4:4", "keeps 4 of 4: keep at least 1, and fewer"),
        ("5:4", "keeps 5 of 4"),
        ("0:4", "keeps 0 of 4"),
        ("2:1000", "of at most 256"),
        ("1x1", "blocks of 1 x 1: give from 2 to 4096"),
        ("0x4", "blocks of 0 x 4"),
        ("999999999x999999999", "give from 2 to 4096"),
    ],
)
def test_other_patterns_are_refused(text: object, words: str) -> None:
    with pytest.raises(UsageError) as failure:
        parse_pattern(text)
    assert words in str(failure.value)
    assert "\n" not in str(failure.value)
