"""Other tools that read ONNX: onnxslim, onnxsim and OpenVINO, on a model and on its source."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from onnx import ModelProto

from tests.corpus.comparing import largest
from tests.corpus.constants import bodies
from tests.corpus.judging import Subject, Unseen
from tests.corpus.rows import Sheet, words
from tests.corpus.running import Feeds, outputs_of

__all__ = ["TOOLS", "Bench", "versions"]

#: Tools compute some functions by approximations of their own: up to so many tolerances are counted
#: apart, as rounding. That weights are right is what onnxruntime shows, to the bit.
ROUNDING = 100
Outputs = list[list[Any]]
Tool = Callable[[ModelProto, Sequence[Feeds]], Outputs]


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


@dataclass
class Bench:
    """All tools, for what was made of one model.

    Attributes:
        known: How far each tool is from onnxruntime on the source itself, or why it cannot take it.
    """

    subject: Subject
    sheet: Sheet
    known: dict[str, float | str] = field(default_factory=dict)

    def use(self, operation: str, model: ModelProto) -> None:
        """Give a dense model to every tool, and the source too where that fails."""
        tolerance = self.subject.tolerance
        for name in TOOLS:
            try:
                found = self._difference(name, model, operation)
            except Unseen as reason:
                self.sheet.say(operation, name, "unseen", words(reason))
                continue
            if isinstance(found, float) and found <= ROUNDING * tolerance:
                passed = found <= tolerance
                self.sheet.say(operation, name, "passed" if passed else "rounded", _said(found))
                continue
            if name not in self.known:
                self.known[name] = self._difference(name, self.subject.given.model, "source")
            theirs = self.known[name]
            outcome = "problem"
            if isinstance(theirs, str) or theirs > ROUNDING * tolerance:
                outcome = "source"
            elif self.subject.random:
                outcome = "unseen"
            self.sheet.say(operation, name, outcome, f"{_said(found)}; the source: {_said(theirs)}")

    def _difference(self, name: str, model: ModelProto, label: str) -> float | str:
        """Between a tool and onnxruntime on a model, or why the tool cannot take the model."""
        want = self.subject.run(model, f"{label} for {name}")
        try:
            self.subject.attempts.enter(f"{label} {name}")
            have = TOOLS[name](model, self.subject.given.feeds)
        except Exception as error:  # whatever it is: the source decides whose fault
            return words(error)
        return largest(want, _typed(have, want, _requantises(model)))


def _said(found: float | str) -> str:
    return found if isinstance(found, str) else f"differs by {found:.1e}"


def _requantises(model: ModelProto) -> bool:
    """Whether a node rounds to integer codes: halves may go either way, by one code."""
    nodes = (node for _, body in bodies(model) for node in body.node)
    return any(node.op_type.startswith(("QLinear", "Quantize", "DynamicQ")) for node in nodes)


def _typed(have: Outputs, want: Outputs, codes: bool) -> Outputs:
    """Outputs in the element types of others: OpenVINO computes some in another one.

    Args:
        have: Outputs of a tool.
        want: Those of onnxruntime.
        codes: 8-bit outputs are taken for equal where they are off by one at most.
    """
    if [len(outputs) for outputs in have] != [len(outputs) for outputs in want]:
        return have
    return [
        [_alike(a, b, codes) for a, b in zip(ours, theirs, strict=True)]
        for ours, theirs in zip(have, want, strict=True)
    ]


def _alike(have: Any, want: Any, codes: bool) -> Any:
    if not (isinstance(have, np.ndarray) and isinstance(want, np.ndarray)):
        return have
    if codes and want.dtype in (np.int8, np.uint8) and have.shape == want.shape:
        off = np.abs(have.astype(np.int64) - want.astype(np.int64)) == 1
        return np.where(off, want, have.astype(want.dtype))
    return have.astype(want.dtype)


def versions() -> dict[str, str]:
    """Versions of everything that takes part and is installed."""
    names = ("onnx", "onnxruntime", "onnxslim", "onnxsim", "openvino", "torch", "onnxscript")
    return {n: importlib.metadata.version(n) for n in names if importlib.util.find_spec(n)}
