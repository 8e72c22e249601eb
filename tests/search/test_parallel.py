from __future__ import annotations

import joblib
import pytest

from onnxprune.search.parallel import chosen_jobs, run_tasks


def double(task: int) -> int:
    return 2 * task


def test_how_many_at_once() -> None:
    assert chosen_jobs(3) == 3
    assert chosen_jobs(None) == joblib.cpu_count()
    with joblib.parallel_config(n_jobs=5):
        assert chosen_jobs(None) == 5
    with joblib.parallel_config(backend="threading", n_jobs=4):
        assert chosen_jobs(None) == 4
        assert chosen_jobs(2) == 2
    with joblib.parallel_config(backend="loky"):
        assert chosen_jobs(None) == joblib.cpu_count()


@pytest.mark.parametrize("jobs", [1, 2, 7])
def test_results_in_order_and_progress(jobs: int) -> None:
    told: list[int] = []
    assert run_tasks(double, range(20), jobs, told.append) == list(range(0, 40, 2))
    assert told == [1] * 20
    assert run_tasks(double, [], jobs) == []
