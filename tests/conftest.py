"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

# Time limits of single examples say more about the machine than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

#: What onnxruntime says of a model that is newer than itself.
TOO_NEW = ("till opset", "Unsupported model IR version")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip what fails for no reason but that the test's own model is newer than onnxruntime."""
    report = yield
    error = call.excinfo
    if error is None or not type(error.value).__module__.startswith("onnxruntime."):
        return report
    if any(sign in str(error.value) for sign in TOO_NEW):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"Skipped: onnxruntime is older: {error.value}")
    return report


REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def zoo() -> Path:
    """Folder of real trained models; a test that needs it skips where it is absent."""
    folder = Path(os.environ.get("ONNXPRUNE_ZOO", REPOSITORY.parent / "shared")) / "models"
    if not folder.is_dir():
        pytest.skip(f"no folder of real models at {folder} (set ONNXPRUNE_ZOO)")
    return folder
