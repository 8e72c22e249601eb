"""What the command line says about an error: one sentence, and the exit code that goes with it."""

from __future__ import annotations

from difflib import get_close_matches

from cyclopts import CycloptsError, MissingArgumentError, UnusedCliTokensError

from ..errors import OnnxPruneError
from ..stopping import Stopped, exit_code

__all__ = [
    "EXIT_BROKEN_PIPE",
    "EXIT_BUG",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "EXIT_USAGE",
    "explain",
]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

COMMANDS = ("inspect", "evaluate", "sensitivity")


def explain(error: BaseException) -> tuple[str, int]:
    """Return the one sentence that is printed about an error, and the exit code."""
    if isinstance(error, OnnxPruneError):
        return str(error), error.exit_code
    if isinstance(error, CycloptsError):
        return f"{_usage(error)} (see onnxprune --help)", EXIT_USAGE
    if isinstance(error, Stopped):
        return str(error), exit_code(error.number)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, MemoryError):
        return "out of memory: close other programs or use a machine with more", EXIT_FAILED
    if isinstance(error, OSError):
        where = f" at {error.filename!r}" if error.filename else ""
        return f"reading or writing failed{where}: {error.strerror or error}", EXIT_FAILED
    return (
        f"internal error: {type(error).__name__}: {error}"
        " (this is a bug; set ONNXPRUNE_DEBUG=1 for the traceback)",
        EXIT_BUG,
    )


def _usage(error: CycloptsError) -> str:
    """Say what cyclopts found wrong, in one sentence without its final full stop."""
    argument = error.argument
    if isinstance(error, MissingArgumentError) and argument and "MODEL" in argument.names:
        return "no model given: name an ONNX file, as in 'onnxprune model.onnx -q 1.0'"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected argument {error.unused_tokens[0]!r}: {_instead(error)}"
    text = " ".join(str(error).split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _instead(error: CycloptsError) -> str:
    """What a second positional may have been meant to be."""
    first = (error.root_input_tokens or [""])[0]
    if close := get_close_matches(first, COMMANDS, cutoff=0.7):
        return f"did you mean 'onnxprune {close[0]}'?"
    return "give one model, and name the output with -o"
