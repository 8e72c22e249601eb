"""What the wide corpus does to one model.

Pruned in sparse and in dense form, shrunk, repaired, trained for a step; each result is written,
judged, and given to other tools in dense form.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

import onnxprune
from onnxprune.finetune import FineTune
from tests.corpus.isolated import Attempts, Lost
from tests.corpus.judging import QUALITY, SHARE, Subject, Unseen, checker_level
from tests.corpus.rows import Row, Sheet, words
from tests.corpus.sources import Source, similar
from tests.corpus.tools import Bench

__all__ = ["OPERATIONS", "examine"]

OPERATIONS = ("unpruned", "sparse", "dense", "shrink", "repair", "train")


def examine(source: Source, attempts: Attempts) -> list[Row]:
    """Everything about one model."""
    sheet = Sheet(source)
    try:
        attempts.enter("source")
        subject = Subject(source.make(), attempts)
    except Exception as error:  # exporters and converters raise many types
        sheet.say("source", "made", "source", words(error))
        return sheet.rows
    with tempfile.TemporaryDirectory() as folder:
        try:
            _Examination(sheet, subject, Bench(subject, sheet), Path(folder)).all()
        except Exception as error:  # a fault of this examination is to be seen as well
            sheet.say("source", "made", "problem", f"examination: {words(error)}")
    return sheet.rows


@dataclass
class _Examination:
    sheet: Sheet
    subject: Subject
    bench: Bench
    folder: Path

    def all(self) -> None:
        subject = self.subject
        sparse = self._made("sparse", quality=QUALITY, format="sparse", shrink=False)
        if sparse is None:
            refused = self.sheet.rows[-1]
            if refused.outcome == "refused" and refused.detail.startswith("nothing to prune"):
                self._unpruned()
            return
        self._judge("sparse", sparse, subject.zeroed)
        dense = self._made("dense", quality=QUALITY, format="dense", shrink=False)
        if dense is not None:
            self._judge("dense", dense, subject.zeroed)
            self.bench.use("dense", dense)
            self._shrunk(dense)
        if self._runs():
            self._repaired()
            self._trained()

    def _unpruned(self) -> None:
        """A model without weights comes out as it went in, and stays fit for tools."""
        model = self._made("unpruned", quality=0.0, format="dense", shrink=False)
        if model is not None:
            given = self.subject.given.model
            self._judge("unpruned", model, lambda made: self.subject.equal(made, given))
            self.bench.use("unpruned", model)

    def _shrunk(self, dense: ModelProto) -> None:
        model = self._made("shrink", quality=QUALITY, format="dense", shrink=True, latency=False)
        if model == dense:
            self.sheet.say("shrink", "onnxruntime", "passed", "nothing dead: the dense model")
        elif model is not None:
            self._judge("shrink", model, lambda made: self.subject.near(made, dense))
            self.bench.use("shrink", model)

    def _repaired(self) -> None:
        samples = similar(self.subject.given.feeds)
        model = self._made(
            "repair", sparsity=SHARE, calibrate=samples, format="dense", shrink=False
        )
        if model is not None:
            self._judge("repair", model, self.subject.half_empty)
            self.bench.use("repair", model)

    def _trained(self) -> None:
        feeds = {name: np.asarray(v) for name, v in self.subject.given.feeds[0].items()}
        samples = next((len(array) for array in feeds.values() if array.ndim), 1)
        step = FineTune(epochs=1, batch_size=max(samples, 1))
        model = self._made(
            "train", quality=QUALITY, train=feeds, finetune=step, format="dense", shrink=False
        )
        if model is not None:
            self._judge("train", model, self.subject.masked)
            self.bench.use("train", model)

    def _runs(self) -> bool:
        """Whether there is something to learn from: the source runs."""
        try:
            self.subject.outputs  # noqa: B018
        except (Unseen, Lost) as reason:
            for operation in ("repair", "train"):
                self.sheet.say(operation, "made", "source", words(reason))
            return False
        return True

    def _made(self, operation: str, **settings: Any) -> ModelProto | None:
        """The written model; None where onnxprune refuses."""
        target, source = self.folder / f"{operation}.onnx", self.sheet.source
        try:
            self.subject.attempts.enter(operation)
            result = onnxprune.prune(self.subject.given.model, check=not source.heavy, **settings)
            result.save(target)
            model = onnx.load(target)
        except onnxprune.OnnxPruneError as error:
            text = str(error)
            clear = text.strip() and "\n" not in text and "please report" not in text
            self.sheet.say(operation, "made", "refused" if clear else "problem", text)
            return None
        except Exception as error:  # any other exception is what this looks for
            self.sheet.say(operation, "made", "problem", words(error))
            return None
        self.sheet.say(operation, "made", "passed")
        return model

    def _judge(self, operation: str, model: ModelProto, how: Callable[[ModelProto], str]) -> None:
        """Checker, then onnxruntime beside what the operation should give."""
        level, asked = checker_level(model), self.subject.level
        if operation == "sparse":
            # Its shape inference takes sparse initializers for sparse operands, in any model.
            asked = min(asked, 1)
        outcome = "passed" if level >= asked else "problem"
        if not self.subject.level:
            outcome = "source"
        self.sheet.say(operation, "checker", outcome, f"level {level} of {self.subject.level}")
        try:
            problem = how(model)
        except (Unseen, Lost) as reason:
            self.sheet.say(operation, "onnxruntime", "source", words(reason))
            return
        self.sheet.say(operation, "onnxruntime", "problem" if problem else "passed", problem)
