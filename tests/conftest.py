"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from onnxprune.runtime import CannotRun
from tests.versions import has_older_runtime

# Time limits of single examples say more about the machine than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip what fails for no reason but that an older onnxruntime cannot run the test's own model.

    That is where it fails in the hands of a test, not in those of the product.
    """
    report = yield
    error = call.excinfo
    if error is None or not has_older_runtime() or not _of_a_test(error):
        return report
    report.outcome = "skipped"
    report.longrepr = (str(item.path), 0, f"Skipped: onnxruntime is older: {error.value}")
    return report


def _of_a_test(error: pytest.ExceptionInfo[BaseException]) -> bool:
    """Whether onnxruntime, or what onnxprune makes of its error, was called by a test itself."""
    if type(error.value).__module__.startswith("onnxruntime."):
        return True
    product = [entry for entry in error.traceback if "onnxprune" in Path(entry.path).parts]
    runs = all(Path(entry.path).name == "runtime.py" for entry in product)
    return isinstance(error.value, CannotRun) and runs


REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def zoo() -> Path:
    """Folder of real trained models; a test that needs it skips where it is absent."""
    folder = Path(os.environ.get("ONNXPRUNE_ZOO", REPOSITORY.parent / "shared")) / "models"
    if not folder.is_dir():
        pytest.skip(f"no folder of real models at {folder} (set ONNXPRUNE_ZOO)")
    return folder
