"""The models of a comparison: what they are made of, and whether they take the same inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..data.checks import quoted
from ..data.specs import InputSpec, input_specs, session_specs
from ..errors import DataError, UsageError
from ..evaluation import model_session
from ..graph.layers import find_layers
from ..model.model import Model
from ..model.save import serialised
from ..pruning.plan import make_plan
from ..report.evaluation import EvaluatedModel
from ..reporting import model_name, parameter_count
from ..runner import fixed_size
from ..runtime import CannotRun, open_session
from ..writing import input_gzip

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["Compared", "compared", "described", "opened"]


@dataclass(frozen=True, eq=False)
class Compared:
    """One of the models.

    Attributes:
        model: The model.
        name: What reports call it.
        inputs: What it wants.
    """

    model: Model
    name: str
    inputs: tuple[InputSpec, ...]

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that it insists on."""
        return fixed_size(self.inputs)


def compared(models: Sequence[Model]) -> tuple[Compared, ...]:
    """The models, if the same samples can feed them all.

    Names and shapes must be the same, but for the number of samples; floats may be of another
    width.

    Raises:
        UsageError: There are none, or they take different inputs.
        DataError: An input is no tensor.
    """
    if not models:
        raise UsageError("there is no model to evaluate: name one or more")
    found = tuple(
        Compared(model, model_name(model), tuple(input_specs(model.proto))) for model in models
    )
    first = found[0]
    for other in found[1:]:
        reason = _difference(first.inputs, other.inputs)
        if reason is not None:
            raise UsageError(
                f"'{other.name}' cannot be compared with '{first.name}': {reason}; models are"
                " compared on the same inputs"
            )
    return found


def _difference(one: Sequence[InputSpec], other: Sequence[InputSpec]) -> str | None:
    ours, theirs = ({spec.name: spec for spec in specs} for specs in (one, other))
    if ours.keys() != theirs.keys():
        return f"its inputs are {quoted(theirs)}, not {quoted(ours)}"
    for name, mine in ours.items():
        its = theirs[name]
        if mine.dtype != its.dtype and {mine.dtype.kind, its.dtype.kind} != {"f"}:
            return f"its input '{name}' is {its.dtype}, not {mine.dtype}"
        if not _same_shape(mine, its):
            return f"its input '{name}' has the shape {_shown(its)}, not {_shown(mine)}"
    return None


def _same_shape(one: InputSpec, other: InputSpec) -> bool:
    """Whether samples fit both: sizes after the first are the same wherever both are known."""
    if one.shape is None or other.shape is None:
        return True
    if one.shared != other.shared or len(one.shape) != len(other.shape):
        return False
    start = 0 if one.shared else 1
    pairs = zip(one.shape[start:], other.shape[start:], strict=True)
    return all(a is None or b is None or a == b for a, b in pairs)


def _shown(spec: InputSpec) -> str:
    return "x".join("?" if size is None else str(size) for size in spec.shape or ()) or "()"


def described(one: Compared) -> EvaluatedModel:
    """Its bytes and weights."""
    model = one.model
    plans = make_plan(model, find_layers(model), quality=0.0, allow_nonfinite=True)
    size, gzip = model.origin.file_bytes, input_gzip(model)
    return EvaluatedModel(
        model=one.name,
        file_bytes=serialised(model.proto, model.payloads).size if size is None else size,
        gzip_bytes=gzip.bytes,
        gzip_estimated=gzip.estimated,
        weights=sum(plan.statistics.size for plan in plans),
        kept=sum(plan.statistics.alive for plan in plans),
        parameters=parameter_count(model),
    )


@contextmanager
def opened(
    models: Sequence[Compared], *, threads: int = 0
) -> Iterator[list[onnxruntime.InferenceSession]]:
    """A session of each model, from its file where it has one.

    Raises:
        CannotRun: onnxruntime does not load a model.
        DataError: A model has an input that numpy cannot give.
    """
    with ExitStack() as stack:
        sessions = []
        for one in models:
            path = one.model.origin.path
            try:
                if path is not None:
                    sessions.append(open_session(path, threads=threads))
                else:
                    sessions.append(stack.enter_context(model_session(one.model, threads)))
                session_specs(sessions[-1])
            except CannotRun as error:
                raise CannotRun(f"'{one.name}': {error}") from error
            except DataError as error:
                raise DataError(f"'{one.name}': {error}") from error
        yield sessions
