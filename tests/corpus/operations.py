"""What the wide corpus does to one model, and how each result is judged.

Pruned in sparse and in dense form, shrunk, repaired, trained for a step; written, checked, run in
onnxruntime beside a reference that is computed apart, and given to other tools in dense form.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

import onnxprune
from onnxprune.finetune import FineTune
from tests.corpus.comparing import differences
from tests.corpus.constants import Key, constants, with_values
from tests.corpus.isolated import Attempts, Lost
from tests.corpus.quantized import expected_codes
from tests.corpus.running import same, session_of
from tests.corpus.sources import Given, Source, similar
from tests.corpus.tools import TOOLS, checker_level, largest, outputs_of
from tests.corpus.weights import counted, weight_keys

__all__ = ["Row", "examine", "kind_of"]

QUALITY, SHARE = 1.0, 0.5
TOLERANCE, TOLERANCE_HALF = 1e-5, 1e-2
HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Row:
    """One thing that was looked at.

    Attributes:
        operation: What was done to the model; "source" for the making of the model itself.
        check: "made", "checker", "onnxruntime", or another tool.
        outcome: "passed"; "refused" by onnxprune in one sentence; "source" where the tool cannot
            take the source either; "unseen" where there is nothing to compare with; "problem".
        seconds: Since the row before.
    """

    key: str
    group: str
    operation: str
    check: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0


class Unseen(Exception):
    """Nothing can be compared: the reason."""


def examine(source: Source, attempts: Attempts) -> list[Row]:
    """Everything about one model."""
    try:
        attempts.enter("source")
        given = source.make()
    except Exception as error:  # exporters and converters raise many types
        return [Row(source.key, source.group, "source", "made", "source", _words(error))]
    with tempfile.TemporaryDirectory() as folder:
        examination = _Examination(source, given, attempts, Path(folder))
        try:
            examination.all()
        except Exception as error:  # a fault of this examination is to be seen as well
            examination.say("source", "made", "problem", f"examination: {_words(error)}")
        return examination.rows


def _words(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, Lost) else f"{type(error).__name__}: {text}"


@dataclass
class _Examination:
    source: Source
    given: Given
    attempts: Attempts
    folder: Path
    rows: list[Row] = field(default_factory=list)
    #: How far the source itself is from onnxruntime in a tool, or why the tool cannot take it.
    known: dict[str, float | str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def say(self, operation: str, check: str, outcome: str, detail: str = "") -> None:
        key, group, now = self.source.key, self.source.group, time.monotonic()
        seconds, self.started = round(now - self.started, 3), now
        self.rows.append(Row(key, group, operation, check, outcome, detail, seconds))

    def all(self) -> None:
        sparse = self._made("sparse", quality=QUALITY, format="sparse", shrink=False)
        if sparse is None:
            refused = self.rows[-1]
            if refused.outcome == "refused" and refused.detail.startswith("nothing to prune"):
                self._unpruned()
            return
        self._judge("sparse", sparse, self._exactly)
        dense = self._made("dense", quality=QUALITY, format="dense", shrink=False)
        if dense is not None:
            self._judge("dense", dense, self._exactly)
            self._use("dense", dense)
            self._shrunk(dense)
        self._repaired()
        self._trained()

    def _unpruned(self) -> None:
        """A model without weights comes out as it went in, and stays fit for tools."""
        model = self._made("unpruned", quality=0.0, format="dense", shrink=False)
        if model is not None:
            self._judge("unpruned", model, lambda made: self._as(made, self.given.model))
            self._use("unpruned", model)

    def _shrunk(self, dense: ModelProto) -> None:
        model = self._made("shrink", quality=QUALITY, format="dense", shrink=True, latency=False)
        if model is None:
            return
        if model == dense:
            self.say("shrink", "onnxruntime", "passed", "nothing dead: the dense model")
            return
        self._judge("shrink", model, lambda made: self._near(made, dense))
        self._use("shrink", model)

    def _repaired(self) -> None:
        if not self._fed("repair"):
            return
        model = self._made(
            "repair",
            sparsity=SHARE,
            calibrate=similar(self.given.feeds),
            format="dense",
            shrink=False,
        )
        if model is not None:
            self._judge("repair", model, self._as_sparse_as_asked)
            self._use("repair", model)

    def _trained(self) -> None:
        if not self._fed("train"):
            return
        feeds = {name: np.asarray(value) for name, value in self.given.feeds[0].items()}
        samples = next((len(array) for array in feeds.values() if array.ndim), 1)
        model = self._made(
            "train",
            quality=QUALITY,
            train=feeds,
            finetune=FineTune(epochs=1, batch_size=max(samples, 1)),
            format="dense",
            shrink=False,
        )
        if model is not None:
            self._judge("train", model, self._masked)
            self._use("train", model)

    def _fed(self, operation: str) -> bool:
        try:
            self._reference  # noqa: B018
        except (Unseen, Lost) as reason:
            self.say(operation, "made", "unseen", _words(reason))
            return False
        return True

    def _made(self, operation: str, **settings: Any) -> ModelProto | None:
        """The written model; None where onnxprune refuses."""
        target = self.folder / f"{operation}.onnx"
        try:
            self.attempts.enter(operation)
            result = onnxprune.prune(self.given.model, check=not self.source.heavy, **settings)
            result.save(target)
            model = onnx.load(target)
        except onnxprune.OnnxPruneError as error:
            text = str(error)
            clear = text.strip() and "\n" not in text and "please report" not in text
            self.say(operation, "made", "refused" if clear else "problem", text)
            return None
        except Exception as error:  # any other exception is what this looks for
            self.say(operation, "made", "problem", _words(error))
            return None
        self.say(operation, "made", "passed")
        return model

    @cached_property
    def _wanted(self) -> dict[Key, np.ndarray]:
        """Weights as they should be, counted apart from the product."""
        before = self.given.model
        counts = {**counted(before, QUALITY), **expected_codes(before, QUALITY)}
        return {key: array for key, (array, _) in counts.items()}

    @cached_property
    def _reference(self) -> list[list[Any]]:
        """Outputs of the source; raises Unseen where onnxruntime gives none."""
        return self._outputs(self.given.model, "source")

    def _outputs(self, model: ModelProto, label: str) -> list[list[Any]]:
        if not self.given.feeds:
            raise Unseen("no inputs are known, or onnxruntime does not load the source")
        self.attempts.enter(f"{label} onnxruntime")
        try:
            return outputs_of(model, self.given.feeds)
        except Exception as error:  # onnxruntime raises many unrelated types
            raise Unseen(f"onnxruntime: {_words(error)}") from error

    @cached_property
    def _random(self) -> bool:
        """Whether two sessions on the source give other outputs."""
        again = self._outputs(self.given.model, "source again")
        return not same(again, self._reference)

    @cached_property
    def _tolerance(self) -> float:
        text = self.given.model
        kinds = {t.data_type for t in text.graph.initializer}
        kinds |= {
            v.type.tensor_type.elem_type
            for v in (*text.graph.input, *text.graph.output, *text.graph.value_info)
        }
        kinds |= {c.data_type for c in constants(text).values()}
        return TOLERANCE_HALF if kinds.intersection(HALVES) else TOLERANCE

    @cached_property
    def _level(self) -> int:
        return checker_level(self.given.model)

    def _judge(self, operation: str, model: ModelProto, how: Any) -> None:
        """Checker, then onnxruntime beside what the operation should give."""
        level, asked = checker_level(model), self._level
        if operation == "sparse":
            # Its shape inference takes sparse initializers for sparse operands, in any model.
            asked = min(asked, 1)
        outcome = "passed" if level >= asked else "problem"
        if not self._level:
            outcome = "source"
        self.say(operation, "checker", outcome, f"level {level} of {self._level}")
        try:
            problem = how(model)
        except (Unseen, Lost) as reason:
            self.say(operation, "onnxruntime", "source", _words(reason))
            return
        self.say(operation, "onnxruntime", "problem" if problem else "passed", problem)

    def _exactly(self, model: ModelProto) -> str:
        """The source with zeros put there by a second count: structure, values and outputs."""
        texts = differences(self.given.model, model, self._wanted, ratios=True)
        if texts:
            return "; ".join(texts)[:300]
        return self._as(model, with_values(self.given.model, self._wanted))

    def _as(self, model: ModelProto, reference: ModelProto) -> str:
        """Outputs bit for bit, with graph optimization or else without."""
        self._reference  # noqa: B018
        self.attempts.enter("reference onnxruntime")
        for optimised in (True, False):
            sessions = [session_of(m, optimised=optimised) for m in (model, reference)]
            have, want = (
                [session.run(None, dict(f)) for f in self.given.feeds] for session in sessions
            )
            if same(have, want):
                return ""
        return "" if self._random else f"outputs differ by {largest(want, have):.1e}"

    def _near(self, model: ModelProto, reference: ModelProto) -> str:
        self._reference  # noqa: B018
        error = largest(self._outputs(reference, "dense"), self._outputs(model, "shrink"))
        if error <= self._tolerance or self._random:
            return ""
        return f"outputs differ by {error:.1e}"

    def _as_sparse_as_asked(self, model: ModelProto) -> str:
        """At least the share of zeros that was asked for, up to one weight, and finite outputs."""
        before, after = weight_keys(self.given.model), constants(model)
        size = sum(c.array.size for c in before.values())
        gone = [key for key in before if key not in after]
        if gone:
            return f"weights are gone: {gone[:3]}"
        alive = sum(int(np.count_nonzero(after[key].array)) for key in before)
        if expected_codes(self.given.model, QUALITY):
            size = 0  # integer codes count in the share too, which the product reports
        if size and alive > size - int(SHARE * size):
            return f"{alive} of {size} weights are left"
        return self._finite(model, "repair")

    def _masked(self, model: ModelProto) -> str:
        """Zeros of the pruned model are zeros of the trained one; weights and outputs finite."""
        after = constants(model)
        for key, array in self._wanted.items():
            if key not in after or after[key].array.shape != array.shape:
                return f"weight {key} is gone"
            zero = array.astype(np.float64) == 0
            if expected_codes(self.given.model, QUALITY):
                zero = np.zeros(array.shape, bool)  # codes are compared by the pruned model
            if np.count_nonzero(after[key].array[zero]):
                return f"pruned weights of {key} came back"
            if not np.isfinite(after[key].array.astype(np.float64)).all():
                return f"weight {key} is not finite"
        return self._finite(model, "train")

    def _finite(self, model: ModelProto, label: str) -> str:
        """Outputs of the kinds and shapes of the source's, finite where all of its are."""
        want, have = self._reference, self._outputs(model, label)
        for one, two in zip(_flat(want), _flat(have), strict=True):
            if isinstance(one, np.ndarray) and one.dtype.kind == "f":
                if one.dtype != two.dtype or (one.shape != two.shape and not self._random):
                    return f"an output {one.dtype}{one.shape} is {two.dtype}{two.shape}"
                if np.isfinite(one).all() and not np.isfinite(two).all():
                    return "outputs are not finite"
        return ""

    def _use(self, operation: str, model: ModelProto) -> None:
        """Give a dense model to every tool, and the source too where that fails."""
        for name in TOOLS:
            found = self._in(name, model, operation)
            if isinstance(found, float) and found <= self._tolerance:
                self.say(operation, name, "passed")
                continue
            if name not in self.known:
                self.known[name] = self._in(name, self.given.model, "source")
            theirs = self.known[name]
            words = found if isinstance(found, str) else f"differs by {found:.1e}"
            if isinstance(found, str) and found.startswith("unseen"):
                self.say(operation, name, "unseen", words)
            elif isinstance(theirs, str) or theirs > self._tolerance:
                said = theirs if isinstance(theirs, str) else f"differs by {theirs:.1e}"
                self.say(operation, name, "source", f"{words}; the source: {said}")
            elif self._random:
                self.say(operation, name, "unseen", words)
            else:
                self.say(operation, name, "problem", f"{words}; the source: {theirs:.1e}")

    def _in(self, name: str, model: ModelProto, label: str) -> float | str:
        """Difference between a tool and onnxruntime on a model, or why there is none."""
        try:
            want = self._outputs(model, f"{label} for {name}")
        except (Unseen, Lost) as reason:
            return f"unseen: {_words(reason)}"
        try:
            self.attempts.enter(f"{label} {name}")
            have = TOOLS[name](model, self.given.feeds)
        except Exception as error:  # whatever it is: the source decides whose fault
            return _words(error)
        return largest(want, _typed(have, want))


def _typed(have: list[list[Any]], want: list[list[Any]]) -> list[list[Any]]:
    """Outputs in the element types of others: OpenVINO computes some in another one."""
    if [len(outputs) for outputs in have] != [len(outputs) for outputs in want]:
        return have
    return [
        [
            a.astype(b.dtype) if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) else a
            for a, b in zip(ours, theirs, strict=True)
        ]
        for ours, theirs in zip(have, want, strict=True)
    ]


def _flat(outputs: Sequence[Sequence[Any]]) -> list[Any]:
    return [item for one in outputs for item in one]


def kind_of(refusal: str) -> str:
    """A refusal without the names and numbers in it."""
    return re.sub(r"\d[\d,.]*", "N", re.sub(r"'[^']*'", "'*'", refusal))[:90]
