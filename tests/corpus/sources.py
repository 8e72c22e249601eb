"""Models of the wide corpus: backend tests, real models, exports, conversions; each with inputs.

Making a model may fail (an exporter refuses an opset): that is a result of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from tests.corpus.cases import Case, collect, frozen
from tests.corpus.feeds import feeds_of
from tests.corpus.made import made
from tests.corpus.running import session_of
from tests.corpus.zoo import models

__all__ = ["Given", "Source", "backend", "of_case", "similar", "zoo"]

Feeds = Mapping[str, Any]
#: Batches that calibration gets.
BATCHES = 8
#: Parts of names of models that take seconds for a run, or unfold to hundreds of megabytes.
HEAVY = ("style_candy", "onnx_light", " light/")


@dataclass(frozen=True)
class Given:
    """A model and inputs to run it on; no inputs where none are known."""

    model: ModelProto
    feeds: tuple[Feeds, ...] = ()


@dataclass(frozen=True)
class Source:
    """A model that can be made.

    Attributes:
        key: Its name, unique in the corpus.
        group: Which row of the table it counts in.
        make: Makes it; raises where that is refused.
    """

    key: str
    group: str
    make: Callable[[], Given]

    @property
    def heavy(self) -> bool:
        """Whether a run takes seconds, so that onnxprune's own run of its output is left out."""
        return any(name in self.key for name in HEAVY)


def of_case(case: Case) -> Given:
    """A backend test; light models get noise for inputs."""
    names = {v.name for v in case.model.graph.input}
    names -= {t.name for t in case.model.graph.initializer}
    if names <= case.feeds.keys():
        return Given(case.model, ({name: case.feeds[name] for name in names},))
    if case.group != "light":
        return Given(case.model)
    noise = np.random.default_rng(0)
    inputs = session_of(case.model).get_inputs()
    return Given(
        case.model,
        ({i.name: noise.standard_normal(i.shape).astype(np.float32) for i in inputs},),
    )


def backend(sample: int | None = None) -> Iterator[Source]:
    """All backend tests as they are and with constants for inputs, and models made for the rest.

    Args:
        sample: Only so many tests, seeded, each with its variants.
    """
    tests = collect()
    if sample is not None:
        tests = random.Random(0).sample(tests, min(sample, len(tests)))
    for number, test in enumerate(tests):
        for variant in (test, *frozen(test)):
            frozen_one = variant.group == "frozen"
            group = "backend, inputs as constants" if frozen_one else "backend, as they are"
            # Some tests have the same name in two groups.
            key = f"backend/{number} {variant.group}/{variant.name}"
            yield Source(key, group, partial(of_case, variant))
    for case in made():
        yield Source(f"backend/made/{case.name}", "made by hand", partial(of_case, case))


def zoo() -> Iterator[Source]:
    """All real models there are."""
    for path in models():
        yield Source(f"zoo/{path.stem}", "real models", partial(_of_file, path))


def _of_file(path: Path) -> Given:
    model = onnx.load(path)
    try:
        inputs = [(i.name, i.type, i.shape) for i in session_of(path).get_inputs()]
    except Exception:  # onnxruntime raises many unrelated types
        return Given(model)
    return Given(model, tuple(feeds_of(path.parent, path.stem, inputs)))


def similar(feeds: Sequence[Feeds]) -> dict[str, np.ndarray]:
    """Random samples like those of a run: several batches where all inputs have a batch axis.

    Floats have the mean and deviation of the given ones; other values are drawn from them.
    """
    first = {name: np.asarray(value) for name, value in feeds[0].items()}
    lengths = {array.shape[:1] for array in first.values()}
    times = BATCHES if len(lengths) == 1 and lengths != {()} and lengths != {(0,)} else 1
    chance = np.random.default_rng(3)
    return {name: _like(array, times, chance) for name, array in first.items()}


def _like(array: np.ndarray, times: int, chance: np.random.Generator) -> np.ndarray:
    if not array.size:
        return array
    shape = (times * array.shape[0], *array.shape[1:]) if array.ndim else ()
    if array.dtype.kind != "f":
        return chance.choice(array.reshape(-1), shape).astype(array.dtype)
    wide = array.astype(np.float64)
    return (wide.mean() + (wide.std() or 1.0) * chance.standard_normal(shape)).astype(array.dtype)
