"""Matrix products of single vectors: runs cannot be joined along the first axis of such data."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper, parser

import onnxprune
from onnxprune.errors import ModelError
from onnxprune.finetune import FineTune
from tests.corpus.running import session_of

TEXTS = {
    "dot product": "g (float[6] x) => (float y) { y = MatMul (x, w) }",
    "weights on the left": "g (float[6] x) => (float[4] y) { y = MatMul (w, x) }",
    "weights on the right": "g (float[6] x) => (float[4] y) { y = MatMul (x, w) }",
    "stack of matrices": "g (float[6] x) => (float[2, 4] y) { y = MatMul (w, x) }",
    "squeezed stack": """g (float[1, 6] x) => (float[2, 4] y) {
        a = Constant <value = int64[1] {0}> () s = Squeeze (x, a) y = MatMul (w, s) }""",
    "squeezed": """g (float[1, 6] x) => (float[4] y) {
        a = Constant <value = int64[1] {0}> () s = Squeeze (x, a) y = MatMul (s, w) }""",
    "squeezed on the right": """g (float[1, 6] x) => (float[4] y) {
        a = Constant <value = int64[1] {0}> () s = Squeeze (x, a) y = MatMul (w, s) }""",
}
REPAIRED = ("squeezed", "squeezed on the right")
SHAPES = {
    "dot product": (6,),
    "weights on the left": (4, 6),
    "weights on the right": (6, 4),
    "stack of matrices": (2, 4, 6),
    "squeezed stack": (2, 4, 6),
    "squeezed": (6, 4),
    "squeezed on the right": (4, 6),
}


def vector_model(name: str) -> ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {TEXTS[name]}')
    weight = np.random.default_rng(2).standard_normal(SHAPES[name]).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return model


def vectors(name: str, count: int = 100) -> np.ndarray:
    shape = (count, 6) if "squeezed" in name else (6 * count,)
    return np.random.default_rng(4).standard_normal(shape).astype(np.float32)


def outputs(model: ModelProto, x: np.ndarray) -> np.ndarray:
    session, runs = session_of(model), np.split(x, len(x) if x.ndim > 1 else x.size // 6)
    return np.array([session.run(None, {"x": run})[0] for run in runs])


@pytest.mark.parametrize("name", [name for name in TEXTS if name not in REPAIRED])
def test_what_has_no_axis_of_samples_is_pruned_and_not_repaired(name: str) -> None:
    model = vector_model(name)
    result = onnxprune.prune(model, sparsity=0.5, calibrate=vectors(name), shrink=False)
    assert result.report.repair is not None
    (row,) = result.report.repair.rows
    assert row.method is None
    assert row.reason == "it multiplies single vectors, which have no axis of samples"
    (tensor,) = result.to_proto().graph.initializer
    weight, have = numpy_helper.to_array(model.graph.initializer[0]), numpy_helper.to_array(tensor)
    limit = np.sort(np.abs(weight), axis=None)[weight.size // 2]
    assert np.array_equal(have, np.where(np.abs(weight) < limit, np.float32(0), weight))


@pytest.mark.parametrize("name", REPAIRED)
def test_a_vector_that_is_one_sample_is_learnt_from(name: str) -> None:
    model, x = vector_model(name), vectors(name)
    result = onnxprune.prune(model, quality=0.8, shrink=False, calibrate=x)
    assert result.report.repair is not None
    assert [row.method for row in result.report.repair.rows] == ["refit"]
    session = session_of(result.to_proto())
    have = np.array([session.run(None, {"x": one[None]})[0] for one in x])
    # As near as least squares over the weights that are left can come, up to the ridge.
    tensors = (result.to_proto().graph.initializer[0], model.graph.initializer[0])
    fitted, dense = map(numpy_helper.to_array, tensors)
    if name == "squeezed":
        fitted, dense = fitted.T, dense.T
    assert 0 < np.count_nonzero(fitted) < fitted.size
    want, rows, least = x @ dense.T, x.astype(np.float64), 0.0
    for kept, target in zip(fitted != 0, want.T, strict=True):
        least += float(np.linalg.lstsq(rows[:, kept], target, rcond=None)[1].sum())
    error = float(np.square(have - want).sum())
    assert 0 < least <= error * (1 + 1e-6) and error <= 1.01 * least


def test_one_number_for_a_fixed_batch_is_nothing_to_train_towards() -> None:
    with pytest.raises(ModelError, match="one number for its fixed batch of 6"):
        onnxprune.prune(
            vector_model("dot product"),
            quality=0.5,
            train=vectors("dot product"),
            finetune=FineTune(epochs=1, batch_size=6),
        )
