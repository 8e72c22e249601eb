"""Finding a Python that has onnxruntime-training."""

from __future__ import annotations

import os
import subprocess
import sys

from ....errors import UsageError

__all__ = ["VARIABLE", "find_interpreter"]

#: Environment variable that names the Python to use.
VARIABLE = "ONNXPRUNE_TRAINING_PYTHON"
#: The release this engine is made for, which is the last one.
VERSION = "1.19.2"
_RECIPE = (
    f"python3.11 -m venv ort-training; "
    f'ort-training/bin/pip install onnxruntime-training-cpu=={VERSION} onnx "numpy<2"; '
    f"export {VARIABLE}=ort-training/bin/python"
)
# Without PyTorch the package itself cannot be imported, but its parts can be found; the binding
# is the proof that it is the training build of onnxruntime.
_PROBE = """
import onnx, numpy, onnxruntime
from onnxruntime.capi import _pybind_state
print(onnxruntime.__version__, hasattr(_pybind_state, "GradientGraphBuilder"))
"""
_PROBE_SECONDS = 120


def find_interpreter() -> str:
    """Path of a Python that has onnxruntime-training.

    The one that the environment variable `VARIABLE` names, else the running one.

    Raises:
        UsageError: It has no onnxruntime-training, or cannot be run.
    """
    named = os.environ.get(VARIABLE)
    python = named or sys.executable
    problem = _problem(python)
    if problem is None:
        return python
    where = f"{VARIABLE}={named}" if named else "this Python"
    raise UsageError(
        f"the engine onnxruntime-training cannot run in {where}: {problem}; leave the engine out "
        f"or give it an interpreter of its own (Python 3.8 to 3.12): {_RECIPE}"
    )


def _problem(python: str) -> str | None:
    """Why a Python cannot run the engine, None where it can."""
    try:
        result = subprocess.run(
            [python, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if result.returncode:
        return (result.stderr.strip().splitlines() or ["it does not start"])[-1]
    version, training = result.stdout.split()[-2:]
    if training != "True":
        return f"its onnxruntime {version} is not the training build"
    if version != VERSION:
        return f"it has onnxruntime-training {version}, and only {VERSION} is supported"
    return None
