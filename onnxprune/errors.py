"""The errors a user can meet: each message is one sentence: what, where, and what to do."""

from __future__ import annotations

__all__ = [
    "DataError",
    "Interrupted",
    "ModelError",
    "OnnxPruneError",
    "OutputError",
    "UsageError",
]


class OnnxPruneError(Exception):
    """Any failure that onnxprune explains; the command prints it and exits with `exit_code`."""

    exit_code = 1


class UsageError(OnnxPruneError):
    """An option or argument without sense (a negative quality, a glob that matches nothing)."""

    exit_code = 2


class ModelError(OnnxPruneError):
    """A model that cannot be read, is inconsistent, or has nothing to prune."""


class OutputError(OnnxPruneError):
    """A result that cannot be written, or that failed its own check after writing."""


class DataError(OnnxPruneError):
    """Input samples or labels that do not fit the model."""


class Interrupted(OnnxPruneError):
    """Training that was stopped from outside after its state was saved.

    The message says where the checkpoint is and how to go on from it.
    """

    def __init__(self, message: str, exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code
