"""Data from a function named on the command line, as ``module:function``."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

from ..errors import DataError

__all__ = ["find_function", "names_function"]

PATTERN = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def names_function(text: str) -> bool:
    """Whether a text is a ``module:function`` and not a file that exists."""
    return PATTERN.fullmatch(text) is not None and not Path(text).exists()


def find_function(
    text: str,
    wanted: str = "that takes no arguments and returns batches",
    folder: Path | None = None,
) -> Callable[..., Any]:
    """Import the function that ``module:function`` names: this runs the module's code.

    The current directory is put in front of the module search path, as ``python -m`` does.

    Args:
        text: The name.
        wanted: What the function must be, for a message.
        folder: What counts as the current directory, where this is another process's.

    Raises:
        DataError: The module cannot be imported, or has no such function.
    """
    module_name, _, function_name = text.partition(":")
    here = str(folder or Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # the module is the user's code
        cause = " ".join(str(error).split())
        raise DataError(
            f"cannot import '{module_name}' for '{text}' ({type(error).__name__}: {cause}); it is "
            "looked for in the current directory and among the installed packages"
        ) from error
    try:
        function = attrgetter(function_name)(module)
    except AttributeError:
        raise DataError(f"'{module_name}' has no '{function_name}'; check the name") from None
    if not callable(function):
        raise DataError(f"'{text}' is of type {type(function).__name__}; name a function {wanted}")
    return function  # type: ignore[no-any-return]
