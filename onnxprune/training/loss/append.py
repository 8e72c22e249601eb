"""Appending a loss to a forward graph: chosen from labels and output, or as the user asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import TensorProto

from ...errors import UsageError
from ..builder import GraphBuilder
from ..values import FLOATS, Shape
from .choice import Choice, Kind, Labels, Layout, LossName, choose, default_axis
from .config import LossConfig, LossFunction, LossValues
from .cross_entropy import (
    Classes,
    binary_cross_entropy,
    cross_entropy,
    one_hot,
    right_classes,
    right_units,
    soft_cross_entropy,
)
from .distillation import absolute_error, class_divergence, squared_error, unit_divergence
from .function import append_function
from .inputs import LABELS, TEACHER, aligned, as_type, label_input, teacher_input
from .logits import Link, Scores, find_scores, shaped

__all__ = [
    "LABELS",
    "TEACHER",
    "Labels",
    "LossConfig",
    "LossFunction",
    "LossName",
    "LossValues",
    "append_loss",
]

#: How outputs are compared with a teacher's where nobody says it.
_BY_LINK: Mapping[Link, Kind] = {
    "log-softmax": "cross-entropy",
    "none": "mse",
    "sigmoid": "binary-cross-entropy",
    "softmax": "cross-entropy",
}


def append_loss(
    b: GraphBuilder, config: LossConfig, labels: Labels | None, *, output: str | None = None
) -> LossValues:
    """Append a loss and the inputs that it needs.

    Args:
        b: The forward graph.
        config: What the user asks for.
        labels: What the labels are, None without labels.
        output: The graph output to train, the first one by default. One that holds classes or a
            map stands for the float scores it is made of.

    Raises:
        DataError: The labels do not fit the output.
        UsageError: The loss does not fit the model, or options exclude each other.
        ModelError: The output has no float scores, or nothing is known of their shape.
    """
    with b.within("loss"):
        if callable(config.name):
            return append_function(b, config.name, config, labels, output)
        return _Appended(b, config, find_scores(b, output)).values(config.name, labels)


@dataclass(frozen=True)
class _Term:
    """A part of the loss: its value, what it is, and what comes with it."""

    loss: str
    phrase: str
    correct: str | None = None


class _Appended:
    """The appending of a loss to scores."""

    def __init__(self, b: GraphBuilder, config: LossConfig, scores: Scores) -> None:
        self._b, self._config, self._scores = b, config, scores
        b.rank(scores.like)  # of values without a rank nothing can be said
        self._shape: Shape = b.shape(scores.like) or ()
        self._layout = Layout(scores.link, self._shape, scores.axis, scores.where)

    def values(self, name: LossName, labels: Labels | None) -> LossValues:
        """Append inputs and loss."""
        b, share = self._b, self._config.share(labelled=labels is not None)
        choice = self._unlabelled(name) if labels is None else choose(name, labels, self._layout)
        self._check_options(choice, labels)
        mark = b.mark()
        given = correct = None
        teachers: dict[str, str] = {}
        terms: list[tuple[float, _Term]] = []
        if labels is not None:
            given = label_input(b, labels, self._shape)
            supervised = self._against_labels(choice, labels, given)
            correct = supervised.correct
            terms.append((1 - share, supervised))
        if share:
            terms.append((share, self._imitating(choice, teachers)))
            terms += [(share, other._imitating_by_itself(teachers)) for other in self._others()]
        loss, description = _mixed(b, [term for term in terms if term[0]])
        # Where distillation is all of the loss, of the rest only `correct` is left.
        b.drop_unused(mark, [name for name in (loss, correct) if name])
        return LossValues(
            loss=loss,
            correct=correct,
            description=description,
            classes=choice.classes,
            label_input=given,
            teachers=teachers,
            label_range=_range(choice, labels),
        )

    def _unlabelled(self, name: LossName) -> Choice:
        """How to compare with a teacher where no labels say what the scores are."""
        kind = _BY_LINK[self._scores.link] if name == "auto" else name
        if kind == "binary-cross-entropy" and _BY_LINK[self._scores.link] == "cross-entropy":
            raise UsageError(
                f"{self._scores.where} has shares of a whole; choose the loss 'cross-entropy'"
            )
        if kind != "cross-entropy":
            return Choice(kind)
        axis = default_axis(self._shape) if self._scores.axis is None else self._scores.axis
        if axis is None or (name != "auto" and self._shape[axis] == 1):
            raise UsageError(f"{self._scores.where} has no class axis; choose another loss")
        return Choice(kind, axis)

    def _check_options(self, choice: Choice, labels: Labels | None) -> None:
        config = self._config
        if not config.reweighted:
            return
        if choice.kind != "cross-entropy" or labels is None:
            kind = "distillation" if labels is None else choice.kind
            raise UsageError(
                f"class weights and label smoothing belong to cross-entropy and the loss is {kind};"
                " leave them out"
            )
        size = self._shape[choice.axis or 0]
        if config.class_weights is not None and size != len(config.class_weights):
            known = size if isinstance(size, int) else "an unknown number of"
            raise UsageError(
                f"there are {len(config.class_weights)} class weights and {known} classes in "
                f"{self._scores.where}; give one weight for every class"
            )

    # ---- labels ----------------------------------------------------------------------------

    def _against_labels(self, choice: Choice, labels: Labels, name: str) -> _Term:
        axis = choice.axis if choice.classed else None
        targets = aligned(self._b, name, labels.shape, self._shape, axis)
        dtype = TensorProto.INT64 if choice.classed else TensorProto.FLOAT
        targets = as_type(self._b, targets, dtype)
        if choice.kind == "cross-entropy":
            return self._classes(choice, targets)
        if choice.kind == "binary-cross-entropy":
            return self._binary(choice, targets)
        values = as_type(self._b, self._scores.output, TensorProto.FLOAT)
        return _Term(*self._distance(choice, values, targets))

    def _classes(self, choice: Choice, targets: str) -> _Term:
        b, config, logits = self._b, self._config, self._logits(self._scores.logits)
        assert choice.axis is not None
        classes = Classes(choice.axis, config.class_weights, config.label_smoothing)
        phrase = f"cross-entropy on {self._scores.beneath}{_options(config)}"
        if not choice.classed:
            loss = soft_cross_entropy(b, logits, targets, classes)
            return _Term(loss, f"{phrase} with shares of classes as labels")
        correct = right_classes(b, logits, targets, choice.axis)
        return _Term(cross_entropy(b, logits, targets, classes), phrase, correct)

    def _binary(self, choice: Choice, targets: str) -> _Term:
        b, logits = self._b, self._logits(self._scores.logits)
        phrase = f"binary cross-entropy on {self._scores.beneath}"
        if choice.classed:
            assert choice.axis is not None
            hot = one_hot(b, logits, targets, choice.axis)
            correct = right_classes(b, logits, targets, choice.axis)
            return _Term(
                binary_cross_entropy(b, logits, hot), f"{phrase}, one unit per class", correct
            )
        single = choice.classes is not None and self._shape[1:2] in ((), (1,))
        right = right_units(b, logits, targets) if single else None
        return _Term(binary_cross_entropy(b, logits, targets), phrase, right)

    def _distance(self, choice: Choice, values: str, targets: str) -> tuple[str, str]:
        where = self._scores.where
        if choice.kind == "l1":
            return absolute_error(self._b, values, targets), f"mean absolute error of {where}"
        return squared_error(self._b, values, targets), f"mean squared error of {where}"

    # ---- teacher ---------------------------------------------------------------------------

    def _others(self) -> list[_Appended]:
        """The model's further float outputs: what was pruned in front of them is trained too."""
        seen, found = {self._scores.output, self._scores.logits}, []
        for info in self._b.graph.output:
            if self._b.values.dtype(info.name) not in FLOATS or self._b.shape(info.name) is None:
                continue
            scores = find_scores(self._b, info.name)
            if seen.isdisjoint((scores.output, scores.logits)):
                found.append(_Appended(self._b, self._config, scores))
            seen.update((scores.output, scores.logits))
        return found

    def _imitating_by_itself(self, teachers: dict[str, str]) -> _Term:
        """Distance of a further output, compared as its link says."""
        return self._imitating(self._unlabelled("auto"), teachers)

    def _imitating(self, choice: Choice, teachers: dict[str, str]) -> _Term:
        """Add the input for the teacher's value, and the distance from it."""
        by_logits = choice.kind in ("cross-entropy", "binary-cross-entropy")
        value = self._scores.logits if by_logits else self._scores.output
        name = teacher_input(self._b, value, len(teachers))
        teachers[name] = value
        return self._against_teacher(choice, name)

    def _against_teacher(self, choice: Choice, name: str) -> _Term:
        b, temperature = self._b, self._config.temperature
        if choice.kind in ("l1", "mse"):
            values = as_type(b, self._scores.output, TensorProto.FLOAT)
            loss, phrase = self._distance(choice, values, as_type(b, name, TensorProto.FLOAT))
            return _Term(loss, f"distillation by the {phrase}")
        student, teacher = self._logits(self._scores.logits), self._logits(name)
        how = f"at temperature {temperature:g} on {self._scores.beneath}"
        if choice.kind == "cross-entropy":
            assert choice.axis is not None
            loss = class_divergence(b, student, teacher, choice.axis, temperature)
            return _Term(loss, f"distillation by the divergence of classes {how}")
        loss = unit_divergence(b, student, teacher, temperature)
        return _Term(loss, f"distillation by the divergence of units {how}")

    def _logits(self, name: str) -> str:
        return shaped(self._b, self._scores, as_type(self._b, name, TensorProto.FLOAT))


# ---- what is said --------------------------------------------------------------------------


def _mixed(b: GraphBuilder, terms: list[tuple[float, _Term]]) -> tuple[str, str]:
    """The weighted sum of terms, and its description."""
    whole = all(share == 1 for share, _ in terms)
    parts = [
        term.loss if whole else b.op("Mul", term.loss, b.scalar(share, term.loss))
        for share, term in terms
    ]
    phrases = [term.phrase if whole else f"{share:g} x {term.phrase}" for share, term in terms]
    return b.total(parts), " + ".join(phrases)


def _options(config: LossConfig) -> str:
    weighted = ", class weights" if config.class_weights is not None else ""
    smoothing = config.label_smoothing
    return weighted + (f", label smoothing {smoothing:g}" if smoothing else "")


def _range(choice: Choice, labels: Labels | None) -> tuple[float, float] | None:
    """Lowest and highest label that makes sense."""
    if labels is None or choice.kind not in ("cross-entropy", "binary-cross-entropy"):
        return None
    if not choice.classed:
        return 0.0, 1.0
    return None if choice.classes is None else (0.0, float(choice.classes - 1))
