"""A pass for pipelines built on onnx_ir (`onnx_ir.passes`)."""

from __future__ import annotations

import onnx_ir as ir

from .api import Result, prune
from .report.report import Report

__all__ = ["PrunePass"]


class PrunePass(ir.passes.FunctionalPass):
    """Prune a model inside a pass pipeline; takes the options of `onnxprune.prune`.

        pipeline = ir.passes.Sequential(PrunePass(quality=1.0), ...)
        pruned = pipeline(model).model

    The model that comes in stays as it is. The last run's report is in `report`.
    """

    def __init__(self, **options: object) -> None:
        super().__init__()
        self._options = options
        self.report: Report | None = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Prune; `modified` says whether any weight, channel or dropout ratio changed."""
        result: Result = prune(model, **self._options)  # type: ignore[arg-type]
        self.report = result.report
        changed = any(row.kept != row.alive_before for row in self.report.layers)
        changed |= self.report.structure is not None and self.report.structure.changed
        changed |= any(row.after != row.before for row in self.report.dropouts)
        return ir.passes.PassResult(result.model, changed)
