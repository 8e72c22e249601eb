"""Many tasks at once, through joblib: on threads, or on whatever backend the user has set up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

__all__ = ["chosen_jobs", "run_tasks"]

Task = TypeVar("Task")
Result = TypeVar("Result")


def chosen_jobs(jobs: int | None) -> int:
    """How many tasks run at once.

    Args:
        jobs: The number; None: what a ``joblib.parallel_config`` around the call says, else all
            that its backend has (the cores of this machine, or of a cluster).
    """
    if jobs is not None:
        return jobs
    from joblib.parallel import get_active_backend

    backend, configured = get_active_backend()
    return int(backend.effective_n_jobs(-1 if configured is None else configured))


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    jobs: int,
    advance: Callable[[int], None] | None = None,
) -> list[Result]:
    """The function's results for all tasks, in their order.

    Threads do, since onnxruntime runs without the interpreter's lock; a backend that the user
    chose (``joblib.parallel_config(backend="dask")``) goes before.

    Args:
        function: A function that can be pickled.
        tasks: What it is called with; they can be pickled.
        jobs: How many run at once; 1: one after the other, here.
        advance: Called with the number of tasks that were done since the last call.
    """
    if jobs == 1:
        return [_told(function(task), advance) for task in tasks]
    import joblib
    from joblib.parallel import get_active_backend

    # Some backends (multiprocessing, and Ray's on it) give results only all together.
    backend, _ = get_active_backend(prefer="threads")
    early = getattr(backend, "supports_return_generator", False)
    parallel = joblib.Parallel(
        n_jobs=jobs, prefer="threads", return_as="generator_unordered" if early else "list"
    )
    results: dict[int, Result] = {}
    calls = (joblib.delayed(_numbered)(function, at, task) for at, task in enumerate(tasks))
    for at, result in parallel(calls):
        results[at] = _told(result, advance)
    return [results[at] for at in range(len(tasks))]


def _numbered(function: Callable[[Any], Any], at: int, task: Any) -> tuple[int, Any]:
    return at, function(task)


def _told(result: Result, advance: Callable[[int], None] | None) -> Result:
    if advance:
        advance(1)
    return result
