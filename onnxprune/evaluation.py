"""Accuracy of a model on labelled samples, measured in onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .data.samples import InputSpec, Samples, read_samples
from .errors import DataError
from .model.model import Model
from .model.save import INLINE_LIMIT, serialised, write_pair
from .runtime import ELEMENTS, open_session, run

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["AccuracyMeter", "top1"]

BATCH = 64


class AccuracyMeter:
    """Top-1 accuracy of several versions of one model on the same samples.

    Args:
        path: The .npz file with inputs and labels; read once, when the first model is measured.
    """

    metric = "top-1 accuracy"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._samples: Samples | None = None

    @property
    def samples(self) -> int:
        """Number of samples measured on; 0 before the first measurement."""
        return 0 if self._samples is None else len(self._samples)

    def __call__(self, model: Model) -> float:
        """Share of samples whose best class is the label; raises DataError or CannotRun."""
        with _session(model) as session:
            if self._samples is None:
                self._samples = read_samples(self.path, _specs(session))
            return top1(session, self._samples)


def top1(session: onnxruntime.InferenceSession, samples: Samples) -> float:
    """Share of samples whose highest score in the first output is at the label.

    An integer first output of one value per sample is taken as the class itself.
    """
    right = 0
    size = min((spec.fixed_batch or BATCH for spec in _specs(session)), default=BATCH)
    for feeds, labels in samples.batches(size):
        short = size - len(labels)
        if short and any(spec.fixed_batch for spec in _specs(session)):
            feeds = {name: np.concatenate([x, x[:1].repeat(short, 0)]) for name, x in feeds.items()}
        classes = _classes(run(session, feeds)[0])[: len(labels)]
        if classes.shape != labels.shape:
            raise DataError(
                f"the model's first output has {classes.shape[0]} rows for {len(labels)} samples; "
                "--val measures models that classify each sample"
            )
        right += int((classes == labels).sum())
    return right / len(samples)


def _classes(output: object) -> np.ndarray:
    """Class of each sample from the first output: scores [N, C, 1...], or classes [N]."""
    scores = np.asarray(output)
    if scores.dtype.kind in "iu" and scores.size == len(scores):
        return scores.reshape(-1)
    if scores.dtype.kind != "f" or scores.ndim < 2 or scores.size != len(scores) * scores.shape[1]:
        raise DataError(
            f"the model's first output is {scores.dtype} of shape {scores.shape}; --val measures "
            "models whose first output is a row of class scores"
        )
    return np.asarray(scores.reshape(len(scores), -1).argmax(axis=1))


def _specs(session: onnxruntime.InferenceSession) -> list[InputSpec]:
    specs = []
    for value in session.get_inputs():
        if value.type not in ELEMENTS:
            raise DataError(f"--val cannot feed input '{value.name}' of type {value.type}")
        shape = tuple(size if isinstance(size, int) else None for size in value.shape)
        specs.append(InputSpec(value.name, np.dtype(ELEMENTS[value.type]), shape))
    return specs


@contextmanager
def _session(model: Model) -> Iterator[onnxruntime.InferenceSession]:
    """A session over a model in memory; over 2 GB it goes through a temporary folder."""
    joined = serialised(model.proto, model.payloads)
    if joined.size <= INLINE_LIMIT:
        yield open_session(b"".join(joined.blocks()))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_pair(model, Path(folder) / "model.onnx")
        yield open_session(Path(folder) / "model.onnx")
