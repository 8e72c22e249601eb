"""Whether a written model is what an operation should give: judged by onnxruntime, the ONNX checker
and a count of the weights that shares nothing with the product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from tests.corpus.comparing import differences, largest
from tests.corpus.constants import Key, constants, with_values
from tests.corpus.isolated import Attempts
from tests.corpus.quantized import expected_codes
from tests.corpus.rows import words
from tests.corpus.running import outputs_of, same
from tests.corpus.sources import Given
from tests.corpus.weights import counted, weight_keys

__all__ = ["QUALITY", "SHARE", "Subject", "Unseen", "checker_level"]

QUALITY, SHARE = 1.0, 0.5
TOLERANCE, TOLERANCE_HALF = 1e-5, 1e-2
HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


class Unseen(Exception):
    """Nothing can be compared: the reason."""


def checker_level(model: ModelProto) -> int:
    """What the checker says: 2 with full shape inference, 1 without, 0 for a model it rejects."""
    for level in (2, 1):
        try:
            onnx.checker.check_model(model, full_check=level == 2)
        except Exception:  # the checker raises unrelated types
            continue
        return level
    return 0


@dataclass
class Subject:
    """A model under examination: what it computes, and judges of what was made of it.

    Judges return what is wrong, or nothing; they raise Unseen where onnxruntime does not run the
    source, and Lost where it ended its process.
    """

    given: Given
    attempts: Attempts

    @cached_property
    def level(self) -> int:
        return checker_level(self.given.model)

    @cached_property
    def outputs(self) -> list[list[Any]]:
        return self.run(self.given.model, "source")

    def run(self, model: ModelProto, label: str) -> list[list[Any]]:
        """Outputs of a model in onnxruntime on the source's inputs."""
        if not self.given.feeds:
            raise Unseen("no inputs are known, or onnxruntime does not load the source")
        self.attempts.enter(f"{label} onnxruntime")
        try:
            return outputs_of(model, self.given.feeds)
        except Exception as error:  # onnxruntime raises many unrelated types
            raise Unseen(f"onnxruntime: {words(error)}") from error

    @cached_property
    def random(self) -> bool:
        """Whether two sessions on the source give other outputs."""
        return not same(self.run(self.given.model, "source again"), self.outputs)

    @cached_property
    def tolerance(self) -> float:
        """For outputs of computations that may round otherwise, by the narrowest float type."""
        graph = self.given.model.graph
        kinds = {c.data_type for c in constants(self.given.model).values()}
        values = (*graph.input, *graph.output, *graph.value_info)
        kinds |= {value.type.tensor_type.elem_type for value in values}
        return TOLERANCE_HALF if kinds.intersection(HALVES) else TOLERANCE

    @cached_property
    def wanted(self) -> dict[Key, np.ndarray]:
        """Weights as quality 1 should leave them."""
        before = self.given.model
        counts = {**counted(before, QUALITY), **self._codes}
        return {key: array for key, (array, _) in counts.items()}

    @cached_property
    def _codes(self) -> dict[Key, Any]:
        return expected_codes(self.given.model, QUALITY)

    def zeroed(self, model: ModelProto) -> str:
        """The source with zeros put there by the second count: structure, values and outputs."""
        texts = differences(self.given.model, model, self.wanted, ratios=True)
        if texts:
            return "; ".join(texts)[:300]
        return self.equal(model, with_values(self.given.model, self.wanted))

    def equal(self, model: ModelProto, reference: ModelProto) -> str:
        """Outputs bit for bit, with graph optimization or else without."""
        self.outputs  # noqa: B018
        self.attempts.enter("reference onnxruntime")
        for optimised in (True, False):
            have, want = (
                outputs_of(m, self.given.feeds, optimised=optimised) for m in (model, reference)
            )
            if same(have, want):
                return ""
        return "" if self.random else f"outputs differ by {largest(want, have):.1e}"

    def near(self, model: ModelProto, reference: ModelProto) -> str:
        """Outputs up to rounding."""
        self.outputs  # noqa: B018
        error = largest(self.run(reference, "dense"), self.run(model, "shrink"))
        return "" if error <= self.tolerance or self.random else f"outputs differ by {error:.1e}"

    def half_empty(self, model: ModelProto) -> str:
        """The share of zeros that was asked for, to the weight, and finite outputs."""
        before, after = weight_keys(self.given.model), constants(model)
        before = {key: c for key, c in before.items() if not _constant(c.array)}
        gone = [key for key in before if key not in after]
        if gone:
            return f"weights are gone: {gone[:3]}"
        zeros = sum(int(np.count_nonzero(after[key].array == 0)) for key in before)
        asked = _zeros_asked([constant.array for constant in before.values()])
        # Integer codes count in the share as well; the second count has no share of them.
        if not self._codes and zeros < asked:
            return f"{zeros} zeros, not {asked}"
        return self._finite(model, "repair")

    def masked(self, model: ModelProto) -> str:
        """Zeros of the pruned model are zeros of the trained one; weights and outputs finite."""
        after = constants(model)
        for key, array in self.wanted.items():
            if key not in after or after[key].array.shape != array.shape:
                return f"weight {key} is gone"
            if key in self._codes:
                continue
            trained = after[key].array.astype(np.float64)
            if np.count_nonzero(trained[array.astype(np.float64) == 0]):
                return f"pruned weights of {key} came back"
            if not np.isfinite(trained).all():
                return f"weight {key} is not finite"
        return self._finite(model, "train")

    def _finite(self, model: ModelProto, label: str) -> str:
        """Outputs of the kinds and shapes of the source's, finite where all of its are."""
        for one, two in zip(_flat(self.outputs), _flat(self.run(model, label)), strict=True):
            if isinstance(one, np.ndarray) and one.dtype.kind == "f":
                if one.dtype != two.dtype or (one.shape != two.shape and not self.random):
                    return f"an output {one.dtype}{one.shape} is {two.dtype}{two.shape}"
                if np.isfinite(one).all() and not np.isfinite(two).all():
                    return "outputs are not finite"
        return ""


def _zeros_asked(arrays: Sequence[np.ndarray]) -> int:
    """The share of all weights; without those at the limit where several of them are equal."""
    flat = [np.abs(array.astype(np.float64)).reshape(-1) for array in arrays]
    magnitudes = np.concatenate([np.zeros(0), *flat])
    asked = int(SHARE * magnitudes.size)
    if not asked:
        return 0
    limit = np.partition(magnitudes, asked - 1)[asked - 1]
    below, equal = (int(np.count_nonzero(c)) for c in (magnitudes < limit, magnitudes == limit))
    return below if equal > 1 else asked


def _constant(array: np.ndarray) -> bool:
    """Whether no weight is smaller than another: the product leaves such tensors alone."""
    alive = array[array != 0]
    return alive.size < 2 or bool(np.all(alive == alive[0]))


def _flat(outputs: Sequence[Sequence[Any]]) -> list[Any]:
    return [item for one in outputs for item in one]
