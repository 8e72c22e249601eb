"""What an installed onnxprune tells Python, pip and type checkers about itself."""

from __future__ import annotations

import re
from importlib import metadata, resources
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


@pytest.fixture(scope="module")
def installed() -> metadata.Distribution:
    return metadata.distribution("onnxprune")


def test_package_is_typed() -> None:
    assert resources.files("onnxprune").joinpath("py.typed").is_file()


def test_version_is_the_project_files(installed: metadata.Distribution) -> None:
    stated = re.search(r'^version = "(.+)"$', PYPROJECT.read_text("utf-8"), re.MULTILINE)
    assert stated is not None
    assert installed.version == stated[1]


def test_command_leads_to_a_function(installed: metadata.Distribution) -> None:
    (command,) = installed.entry_points.select(group="console_scripts")
    assert command.name == "onnxprune"
    assert callable(command.load())


def test_metadata(installed: metadata.Distribution) -> None:
    assert installed.metadata["License-Expression"] == "Apache-2.0"
    assert installed.metadata["Requires-Python"] == ">=3.10"
    assert installed.metadata["Description"]  # the README
