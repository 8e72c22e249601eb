from __future__ import annotations

import numpy as np
import pytest

from onnxprune.data.source import open_source
from onnxprune.data.specs import InputSpec
from onnxprune.errors import DataError
from onnxprune.search.samples import Taken, take

X = np.arange(200, dtype=np.float32)[:, None]
LABELS = np.arange(200)


def specs(batch: int | None) -> list[InputSpec]:
    return [InputSpec("x", np.dtype(np.float32), (batch, 1))]


def rows(taken: Taken) -> list[float]:
    """The samples that count, in order."""
    return [
        float(value)
        for feeds, count in zip(taken.feeds, taken.counts, strict=True)
        for value in feeds["x"][:count, 0]
    ]


@pytest.mark.parametrize("batch", [None, 1, 7])
def test_all_samples_in_order_where_they_are_few(batch: int | None) -> None:
    taken = take(open_source((X, LABELS), specs(batch)), specs(batch), 200)
    assert rows(taken) == list(range(200))
    assert np.concatenate(taken.labels).tolist() == list(range(200))
    assert taken.count == 200
    if batch:
        assert {len(feeds["x"]) for feeds in taken.feeds} == {batch}
    assert max(taken.counts) == (batch or 64)


@pytest.mark.parametrize("batch", [None, 1, 7])
def test_some_samples_in_an_order_that_is_always_the_same(batch: int | None) -> None:
    taken = take(open_source((X, LABELS), specs(batch)), specs(batch), 100)
    again = take(open_source((X, LABELS), specs(batch)), specs(batch), 100)
    assert rows(taken) == rows(again)
    assert len(set(rows(taken))) == 100
    assert set(rows(taken)) != set(range(100)), "shuffled"
    assert np.concatenate(taken.labels).tolist() == rows(taken)


def test_a_stream_in_its_own_order_and_without_labels() -> None:
    source = open_source([X[:90], X[90:95], X[95:]], specs(None))
    taken = take(source, specs(None), 100)
    assert rows(taken) == list(range(100))
    assert taken.labels == ()
    assert taken.counts == (64, 26, 5, 5)


def test_inputs_that_samples_share_stay_whole() -> None:
    both = [*specs(7), InputSpec("s", np.dtype(np.float32), (2,), shared=True)]
    data = {"x": X, "s": np.ones(2, np.float32)}
    taken = take(open_source(data, both), both, 10)
    assert [feeds["s"].shape for feeds in taken.feeds] == [(2,), (2,)]
    assert taken.counts == (7, 3)


def test_no_samples() -> None:
    class Empty:
        samples, labels, name, description = 0, None, "the data", ""

        def epoch(self, *arguments: object, **more: object) -> object:
            return iter(())

    with pytest.raises(DataError, match="holds no samples"):
        take(Empty(), specs(None), 5)  # type: ignore[arg-type]
