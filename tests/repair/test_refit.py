"""The refit against a dense least-squares solve whose design onnxruntime itself gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.model.model import Model
from onnxprune.model.save import to_proto
from onnxprune.repair.repair import repair
from tests.repair.cases import CASES, Case, data, opened, pruned, run, tensor


def with_tensors(model: Model, values: dict[str, np.ndarray]) -> onnx.ModelProto:
    proto = to_proto(model)
    holders = list(proto.graph.initializer)
    holders += [a.t for n in proto.graph.node for a in n.attribute if a.name == "value"]
    for holder in holders:
        if holder.name in values:
            holder.CopyFrom(numpy_helper.from_array(values[holder.name], holder.name))
    return proto


def solved(case: Case, dense: Model, cut: Model, bias: str | None) -> dict[str, np.ndarray]:
    """Least squares over the weights that are left (and the bias): outputs are linear in them.

    The effect of each number is the output with it at one and all others at zero.
    """
    x = case.samples()
    names = ["w", *([bias] if bias else [])]
    zeros = {name: np.zeros_like(tensor(cut, name)) for name in names}
    rest = {} if bias or case.bias is None else {"b": tensor(cut, "b") * 0}
    columns, places = [], []
    for name in names:
        alive = tensor(cut, name) != 0 if name == "w" else np.ones(zeros[name].shape, bool)
        for place in zip(*np.nonzero(alive), strict=True):
            unit = {n: z.copy() for n, z in zeros.items()}
            unit[name][place] = 1
            columns.append(run(opened(with_tensors(cut, {**rest, **unit})), x)[0].ravel())
            places.append((name, place))
    fixed = run(opened(with_tensors(cut, zeros)), x)[0].ravel()
    wanted = run(dense, x)[0].ravel().astype(np.float64) - fixed
    found = np.linalg.lstsq(np.stack(columns, 1).astype(np.float64), wanted, rcond=None)[0]
    result = {name: np.zeros(zeros[name].shape) for name in names}
    for (name, place), value in zip(places, found, strict=True):
        result[name][place] = value
    return result


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refit_is_the_least_squares_solution(case: Case) -> None:
    dense = opened(case.proto())
    cut, plans = pruned(dense, 0.5)
    result = repair(dense, cut, plans, data(dense, case.samples()), samples=99, ridge=1e-12)
    names = {address.name for address in result.model.tensors}
    bias = "b" if case.bias else next((n for n in ("w.bias",) if n in names), None)
    assert bias or case.op == "MatMul", "an optional bias was not added"
    start = result.model if bias == "w.bias" else cut
    expected = solved(case, dense, start, bias)
    found = tensor(result.model, "w")
    assert np.array_equal(found != 0, tensor(cut, "w") != 0)
    assert np.abs(found - tensor(cut, "w")).max() > 1e-3, "nothing was refitted"
    np.testing.assert_allclose(found, expected["w"], atol=1e-6, rtol=1e-6)
    if bias:
        np.testing.assert_allclose(tensor(result.model, bias), expected[bias], atol=1e-6, rtol=1e-6)
    assert result.rows[0].method == "refit"
    errors = [((run(m, case.samples())[0] - run(dense, case.samples())[0]) ** 2).sum()
              for m in (cut, result.model)]  # fmt: skip
    assert result.rows[0].before > result.rows[0].after
    ratio = result.rows[0].after / result.rows[0].before
    np.testing.assert_allclose(ratio, errors[1] / errors[0], rtol=1e-3)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refit_of_an_unpruned_model_changes_nothing(case: Case) -> None:
    dense = opened(case.proto())
    cut, plans = pruned(dense, 0.0)
    result = repair(dense, cut, plans, data(dense, case.samples()), samples=99)
    np.testing.assert_allclose(tensor(result.model, "w"), tensor(dense, "w"), atol=1e-5)
    found, wanted = (run(model, case.samples())[0] for model in (result.model, dense))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
