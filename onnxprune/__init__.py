"""Prune trained ONNX models: smaller files, and the truth about accuracy, size and speed.

    import onnxprune

    result = onnxprune.prune("model.onnx", quality=1.0)
    result.save("small.onnx")
    print(result.report)

Names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Result as Result
    from .api import inspect as inspect
    from .api import prune as prune
    from .comparison.evaluate import evaluate as evaluate
    from .errors import DataError as DataError
    from .errors import Interrupted as Interrupted
    from .errors import ModelError as ModelError
    from .errors import OnnxPruneError as OnnxPruneError
    from .errors import OutputError as OutputError
    from .errors import UsageError as UsageError
    from .finetune import FineTune as FineTune
    from .passes import PrunePass as PrunePass
    from .recipes import recipe as recipe
    from .report.evaluation import EvaluationReport as EvaluationReport
    from .report.report import InspectReport as InspectReport
    from .report.report import Report as Report
    from .report.sensitivity import SensitivityReport as SensitivityReport
    from .search.sensitivity import sensitivity as sensitivity

_HOMES = {
    "Result": "api",
    "inspect": "api",
    "prune": "api",
    "evaluate": "comparison.evaluate",
    "DataError": "errors",
    "Interrupted": "errors",
    "ModelError": "errors",
    "OnnxPruneError": "errors",
    "OutputError": "errors",
    "UsageError": "errors",
    "FineTune": "finetune",
    "PrunePass": "passes",
    "recipe": "recipes",
    "EvaluationReport": "report.evaluation",
    "InspectReport": "report.report",
    "Report": "report.report",
    "SensitivityReport": "report.sensitivity",
    "sensitivity": "search.sensitivity",
}

__all__ = [
    "DataError",
    "EvaluationReport",
    "FineTune",
    "InspectReport",
    "Interrupted",
    "ModelError",
    "OnnxPruneError",
    "OutputError",
    "PrunePass",
    "Report",
    "Result",
    "SensitivityReport",
    "UsageError",
    "__version__",
    "evaluate",
    "inspect",
    "prune",
    "recipe",
    "sensitivity",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module(".report.report", __name__).tool_version()
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
