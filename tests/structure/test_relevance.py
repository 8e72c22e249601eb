"""Importance by activation: what layers read, and what reaches the outputs."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from onnxprune.data.source import open_source
from onnxprune.data.specs import input_specs
from onnxprune.repair.jobs import WIDE
from onnxprune.structure.analysis import analyse
from onnxprune.structure.consumers import find_consumers, inputs_of
from onnxprune.structure.groups import find_groups
from onnxprune.structure.importance import magnitudes
from onnxprune.structure.reconstruct import Reconstructor
from onnxprune.structure.relevance import relevances
from tests.structure.graphs import Case, built, ints
from tests.structure.proof import run

RANDOM = np.random.default_rng(11)


def prepared(case: Case, inputs: np.ndarray) -> Reconstructor:
    model = built(case)
    source = open_source({"x": inputs}, input_specs(model), labelled=False)
    return Reconstructor(analyse(model), source, len(inputs))


def images(count: int = 40) -> np.ndarray:
    return RANDOM.standard_normal((count, 4, 6, 6)).astype(np.float32)


def consumers(case: Case, inputs: np.ndarray) -> dict[tuple[int, str], np.ndarray]:
    repair = prepared(case, inputs)
    jobs = {job.layer.address.name: job for job in repair.repairer.jobs.jobs}
    return {
        (group.size, found.job.layer.name): found.columns
        for group in find_groups(repair.coupling)
        for found in find_consumers(repair.coupling, group, jobs)
    }


def test_columns_of_convolutions_and_of_a_flattened_picture() -> None:
    case = Case(
        "h = Conv(x, w)\nc = Conv(h, v)\nf = Flatten(c)\ny = MatMul(f, m)",
        {"w": (8, 4, 3, 3), "v": (6, 8, 3, 3), "m": (24, 3)},
        [],
    )
    found = consumers(case, images())
    assert found.keys() == {(8, "v"), (6, "m")}
    np.testing.assert_array_equal(found[8, "v"], np.arange(72).reshape(8, 9))
    np.testing.assert_array_equal(found[6, "m"], np.arange(24).reshape(6, 4))


def test_columns_of_heads_and_of_a_grouped_convolution() -> None:
    case = Case(
        "h = MatMul(x, w)\na = Reshape(h, s)\nb = Relu(a)\nc = Reshape(b, t)\ny = MatMul(c, v)",
        {"w": (6, 12), "s": ints(0, 3, 4), "t": ints(0, 12), "v": (12, 3)},
        [],
        (6,),
    )
    found = consumers(case, RANDOM.standard_normal((40, 6)).astype(np.float32))
    np.testing.assert_array_equal(found[3, "v"], np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(found[4, "v"], np.arange(12).reshape(3, 4).T)
    case = Case(
        "h = Conv(x, w)\na = Conv<group=2>(h, k)\ny = Conv(a, v)",
        {"w": (6, 4, 1, 1), "k": (10, 3, 1, 1), "v": (3, 10, 1, 1)},
        [],
    )
    found = consumers(case, images())
    np.testing.assert_array_equal(found[3, "k"], [[0], [1], [2]])  # in each of the two groups
    np.testing.assert_array_equal(found[5, "v"], [[0, 5], [1, 6], [2, 7], [3, 8], [4, 9]])
    np.testing.assert_array_equal(found[2, "v"], [range(5), range(5, 10)])


def test_covariances_are_those_of_numpy() -> None:
    case = Case("h = Gemm(x, w)\na = Relu(h)\ny = Gemm(a, v)", {"w": (6, 9), "v": (9, 3)}, [], (6,))
    x = RANDOM.standard_normal((300, 6)).astype(np.float32)
    repair = prepared(case, x)
    job = next(job for job in repair.repairer.jobs.jobs if job.layer.name == "v")
    found = inputs_of(repair.repairer, [job])[job]
    names = {t.name: t for t in repair.model.proto.graph.initializer}
    hidden = np.maximum(x @ repair.model.array(names["w"]), 0).astype(np.float64)
    np.testing.assert_allclose(found.mean[0], hidden.mean(0), rtol=1e-5)
    assert found.covariance is not None
    np.testing.assert_allclose(found.covariance[0], np.cov(hidden.T, bias=True), atol=1e-5)
    np.testing.assert_allclose(found.variance[0], hidden.var(0), rtol=1e-4)


def scores(case: Case, inputs: np.ndarray) -> dict[int, np.ndarray]:
    repair = prepared(case, inputs)
    groups = find_groups(repair.coupling)
    return {g.size: s for g, s in zip(groups, relevances(repair, groups), strict=True)}


def test_of_a_wide_layer_there_are_variances_alone() -> None:
    wide = WIDE + 1
    case = Case("h = MatMul(x, w)\ny = MatMul(h, v)", {"w": (2, wide), "v": (wide, 1)}, [], (2,))
    inputs = RANDOM.standard_normal((50, 2)).astype(np.float32) + 3
    repair = prepared(case, inputs)
    job = next(job for job in repair.repairer.jobs.jobs if job.layer.name == "v")
    found = inputs_of(repair.repairer, [job])[job]
    tensors = {t.name: numpy_helper.to_array(t) for t in built(case).graph.initializer}
    hidden = inputs.astype(np.float64) @ tensors["w"]
    assert found.covariance is None
    np.testing.assert_allclose(found.mean[0], hidden.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.variance[0], hidden.var(0), rtol=1e-3)


def test_doubles_and_silent_channels_go_first() -> None:
    w = RANDOM.standard_normal((6, 8)).astype(np.float32)
    w[:, 5] = 2 * w[:, 2]  # says the same as channel 2
    bias = np.zeros(8, np.float32)
    bias[6] = -1e4  # never active, however large its weights are
    v = RANDOM.standard_normal((8, 3)).astype(np.float32)
    w[:, 6] *= 10
    case = Case(
        "h = Gemm(x, w, b)\na = Relu(h)\ny = Gemm(a, v)", {"w": w, "b": bias, "v": v}, [], (6,)
    )
    found = scores(case, RANDOM.standard_normal((400, 6)).astype(np.float32))[8]
    order = np.argsort(found).tolist()
    assert order[0] == 6
    assert order[1] in (2, 5)
    # Once one of the two is gone, the other is no double any more.
    assert not {2, 5} <= set(order[:4])


def test_groups_compare_by_what_reaches_the_outputs() -> None:
    """The second branch is all but drowned by the first."""
    case = Case(
        "a = Conv(x, w)\nb = Relu(a)\nc = Conv(b, v)\nd = Conv(x, u)\ne = Relu(d)\nf = Conv(e, t)\n"
        "g = Mul(f, k)\ny = Add(c, g)",
        {"w": (16, 4, 1, 1), "v": (3, 16, 1, 1), "u": (12, 4, 1, 1), "t": (3, 12, 1, 1),
         "k": np.array(0.01, np.float32)},
        [],
    )  # fmt: skip
    found = scores(case, images())
    assert found[12].sum() < 0.01 * found[16].sum()


def test_losses_add_up_to_the_change_of_the_outputs() -> None:
    case = Case("h = Gemm(x, w)\na = Relu(h)\ny = Gemm(a, v)", {"w": (6, 8), "v": (8, 3)}, [], (6,))
    x = RANDOM.standard_normal((128, 6)).astype(np.float32)
    found = np.sort(scores(case, x)[8])
    model = built(case)
    (outputs,) = run(model, {"x": x})
    # The last two of eight are left where the change was measured: it is some of the variance.
    assert 0 < found[:6].sum() < 1
    assert outputs.shape == (128, 3)


def test_what_nothing_sums_over_is_ordered_by_norms() -> None:
    pytest.importorskip("torch")
    from tests.structure.test_exports import exported, samples

    model = exported("vit", False)
    inputs = np.concatenate([samples((3, 16, 16), n)["x"] for n in range(20, 23)])
    source = open_source({"x": inputs}, input_specs(model), labelled=False)
    repair = Reconstructor(analyse(model), source, len(inputs))
    groups = find_groups(repair.coupling)
    norms = magnitudes(repair.coupling, groups)
    jobs = {job.layer.address.name: job for job in repair.repairer.jobs.jobs}
    found = relevances(repair, groups)
    alone = 0
    for group, mine, norm in zip(groups, found, norms, strict=True):
        assert (mine >= 0).all()
        assert np.isfinite(mine).all()
        if not find_consumers(repair.coupling, group, jobs):
            alone += 1
            np.testing.assert_array_equal(np.argsort(mine), np.argsort(norm))
    assert alone == 2  # the dimensions of queries and keys, in each of two layers


def test_outputs_that_are_no_numbers() -> None:
    """Classes and maps say nothing of small changes: groups compare by what their readers lose."""
    nodes = (
        "h = Gemm(x, w)\na = Relu(h)\nb = Gemm(a, v)\n"
        "y = ai.onnx.ml.ZipMap<classlabels_int64s=[0, 1, 2]>(b)"
    )
    weights = {"w": (6, 8), "v": (8, 3)}
    case = Case(nodes, weights, [], (6,), domains={"ai.onnx.ml": 1})
    found = scores(case, RANDOM.standard_normal((64, 6)).astype(np.float32))[8]
    assert (found > 0).all()
    assert found.std() > 0
