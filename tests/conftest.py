"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Time limits of single examples say more about the machine than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def zoo() -> Path:
    """Folder of real trained models; a test that needs it skips where it is absent."""
    folder = Path(os.environ.get("ONNXPRUNE_ZOO", REPOSITORY.parent / "shared")) / "models"
    if not folder.is_dir():
        pytest.skip(f"no folder of real models at {folder} (set ONNXPRUNE_ZOO)")
    return folder
