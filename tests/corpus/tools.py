"""Other tools that read ONNX: the checker, onnxslim, onnxsim and OpenVINO."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from tests.corpus.comparing import relative_difference
from tests.corpus.running import Feeds, session_of

__all__ = ["TOOLS", "checker_level", "largest", "outputs_of", "versions"]

Outputs = list[list[Any]]
Tool = Callable[[ModelProto, Sequence[Feeds]], Outputs]


def checker_level(model: ModelProto) -> int:
    """What the checker says: 2 with full shape inference, 1 without, 0 for a model it rejects."""
    for level in (2, 1):
        try:
            onnx.checker.check_model(model, full_check=level == 2)
        except Exception:  # the checker raises unrelated types
            continue
        return level
    return 0


def outputs_of(model: ModelProto, feeds: Sequence[Feeds]) -> Outputs:
    """Outputs in onnxruntime for each set of inputs."""
    session = session_of(model)
    return [session.run(None, dict(one)) for one in feeds]


def largest(want: Outputs, have: Outputs) -> float:
    """Largest relative difference of any output; infinite where their number differs."""
    if [len(outputs) for outputs in want] != [len(outputs) for outputs in have]:
        return np.inf
    pairs = [pair for two in zip(want, have, strict=True) for pair in zip(*two, strict=True)]
    return max((relative_difference(*pair) for pair in pairs), default=0.0)


def _slimmed(model: ModelProto, feeds: Sequence[Feeds]) -> Outputs:
    import onnxslim

    return outputs_of(onnxslim.slim(_copy(model)), feeds)


def _simplified(model: ModelProto, feeds: Sequence[Feeds]) -> Outputs:
    import onnxsim

    smaller, valid = onnxsim.simplify(_copy(model))
    if not valid:
        raise ValueError("onnxsim says that its own result differs")
    return outputs_of(smaller, feeds)


def _in_openvino(model: ModelProto, feeds: Sequence[Feeds]) -> Outputs:
    core = _core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    network = core.compile_model(core.read_model(model.SerializeToString()), "CPU", settings)
    known = {name: number for number, i in enumerate(network.inputs) for name in i.names}
    results = []
    for one in feeds:
        given = network({known[name]: value for name, value in one.items() if name in known})
        results.append([np.array(given[number]) for number in range(len(network.outputs))])
    return results


@lru_cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


#: What each makes of a model: the outputs of its own result, or of its own run.
_ALL: Mapping[str, Tool] = {
    "onnxslim": _slimmed,
    "onnxsim": _simplified,
    "openvino": _in_openvino,
}
#: Those that are installed.
TOOLS = {name: tool for name, tool in _ALL.items() if importlib.util.find_spec(name)}


def versions() -> dict[str, str]:
    """Versions of everything that takes part and is installed."""
    names = ("onnx", "onnxruntime", "onnxslim", "onnxsim", "openvino", "torch", "onnxscript")
    return {n: importlib.metadata.version(n) for n in names if importlib.util.find_spec(n)}
