"""PrunePass in pipelines built on onnx_ir."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from onnxprune.errors import ModelError, UsageError
from onnxprune.passes import PrunePass
from tests.builders import arrays, mlp

SIZES = (24, 40, 30, 10)


def share_of_zeros(model: ir.Model) -> float:
    weights = [v for k, v in arrays(ir.to_proto(model)).items() if k.endswith("weight")]
    return float(np.mean(np.concatenate([w.ravel() for w in weights]) == 0))


def test_between_other_passes() -> None:
    source = ir.from_proto(mlp(SIZES))
    prune = PrunePass(sparsity=0.8, exclude=["fc2*"])
    pipeline = ir.passes.Sequential(
        prune, common.RemoveUnusedNodesPass(), common.TopologicalSortPass()
    )
    result = pipeline(source)
    assert result.modified
    onnx.checker.check_model(ir.to_proto(result.model))
    assert prune.report is not None
    weights = arrays(ir.to_proto(result.model))
    for row in prune.report.layers:
        assert np.count_nonzero(weights[row.layer]) == row.kept
    assert (weights["fc2.weight"] != 0).all()


def test_the_model_that_comes_in_stays_as_it_is() -> None:
    source = ir.from_proto(mlp(SIZES))
    before = ir.to_proto(source).SerializeToString(deterministic=True)
    result = PrunePass(quality=1.0)(source)
    assert result.model is not source
    assert share_of_zeros(result.model) > 0.6
    assert ir.to_proto(source).SerializeToString(deterministic=True) == before


def test_nothing_to_change_is_said() -> None:
    result = PrunePass(quality=0.0)(ir.from_proto(mlp(SIZES)))
    assert not result.modified
    assert share_of_zeros(result.model) == 0


def test_twice_is_not_modified_again_at_a_share_that_is_there() -> None:
    prune = PrunePass(sparsity=0.5)
    once = prune(ir.from_proto(mlp(SIZES)))
    twice = prune(once.model)
    assert once.modified
    assert not twice.modified
    assert share_of_zeros(twice.model) == share_of_zeros(once.model)


def test_errors_come_out_of_a_pipeline_with_their_cause() -> None:
    source = ir.from_proto(mlp(SIZES))
    with pytest.raises(UsageError):
        PrunePass(quality=-1)(source)
    with pytest.raises(TypeError):
        PrunePass(qualty=1)(source)
    pipeline = ir.passes.Sequential(PrunePass(layers={"nothing": 1.0}))
    with pytest.raises(ir.passes.PassError) as caught:
        pipeline(source)
    assert isinstance(caught.value.__cause__, UsageError)
    empty = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}), ir_version=8)
    with pytest.raises(ModelError):
        PrunePass()(empty)
