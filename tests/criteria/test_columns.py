"""Orders of inputs in which a pattern's groups and blocks are neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.criteria.columns import columns_of
from onnxprune.graph.layers import find_layers
from onnxprune.pattern import parse_pattern
from onnxprune.repair.jobs import Job, find_jobs
from tests.repair.cases import Case, opened


def job_of(case: Case) -> Job:
    model = opened(case.proto())
    (job,) = find_jobs(model, find_layers(model).layers).jobs
    return job


ALIGNED = {
    "conv": (Case("", "Conv", (4, 8, 3, 2), (2, 8, 6, 6)), 1),
    "conv 3d": (Case("", "Conv", (4, 4, 2, 2, 2), (2, 4, 4, 4, 4)), 1),
    "grouped": (Case("", "Conv", (8, 4, 3, 3), (2, 8, 6, 6), {"group": 2}), 1),
    "transposed": (Case("", "ConvTranspose", (8, 4, 3, 2), (2, 8, 5, 5)), 0),
    "transposed grouped": (Case("", "ConvTranspose", (8, 4, 2, 2), (2, 8, 5, 5), {"group": 2}), 0),
    "gemm": (Case("", "Gemm", (8, 4), (9, 8)), 0),
    "gemm transB": (Case("", "Gemm", (4, 8), (9, 8), {"transB": 1}), 1),
    "matmul left": (Case("", "MatMul", (4, 8), (3, 8, 9), left=True), 1),
    "matmul batched": (Case("", "MatMul", (3, 8, 4), (3, 9, 8)), 1),
}


@pytest.mark.parametrize(("case", "axis"), ALIGNED.values(), ids=ALIGNED)
@pytest.mark.parametrize("pattern", ["2:4", "1x4", "4x1", "2x2"])
def test_groups_are_neighbours(case: Case, axis: int, pattern: str) -> None:
    job, parsed = job_of(case), parse_pattern(pattern)
    columns = columns_of(job, parsed)
    assert columns.aligned
    assert sorted(columns.order) == list(range(job.shape[2]))
    width = 4 if pattern in ("2:4", "1x4") else 2 if pattern == "2x2" else 1
    places = np.unravel_index(job.sites[0].positions[:, :, columns.order], job.layer.shape)
    for number, place in enumerate(places):
        groups = place.reshape(-1, width)
        if number == axis:  # consecutive inputs, from a multiple of their number on
            assert np.array_equal(
                groups - groups[:, :1], np.tile(np.arange(width), (len(groups), 1))
            )
            assert not (groups[:, 0] % width).any()
        else:
            assert (groups == groups[:, :1]).all()
    values = np.random.default_rng(0).random((2, job.shape[2]))
    assert np.array_equal(columns.restored(values[:, columns.order]), values)


def test_without_a_pattern_the_order_stays() -> None:
    columns = columns_of(job_of(ALIGNED["conv"][0]), None)
    assert columns.aligned and np.array_equal(columns.order, np.arange(48))


@pytest.mark.parametrize(
    ("case", "pattern"),
    [
        # Two inputs of each group: four neighbours are in two groups.
        (Case("", "ConvTranspose", (8, 4, 2, 2), (2, 8, 5, 5), {"group": 4}), "2:4"),
        (Case("", "Conv", (6, 8, 3, 3), (2, 8, 6, 6)), "4x1"),  # an edge of two outputs
        (Case("", "Conv", (4, 6, 3, 3), (2, 6, 6, 6)), "1x4"),  # an edge of two inputs
        # Three outputs a group: blocks of two cross from one to the next.
        (Case("", "Conv", (6, 2, 3, 3), (2, 4, 6, 6), {"group": 2}), "2x1"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.op,
)
def test_what_crosses_groups_or_ends_early_is_not_aligned(case: Case, pattern: str) -> None:
    assert not columns_of(job_of(case), parse_pattern(pattern)).aligned
