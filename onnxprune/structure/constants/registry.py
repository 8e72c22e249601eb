"""Rules of operators: which elements of their results are constants, given those of the operands.

A rule that is missing, or cannot tell, says None: nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..registry import Site
from .known import Known

__all__ = ["CONSTANTS", "Fact", "constant"]

#: What is known of a value; None where nothing is.
Fact = Known | None

#: From a node and what is known of its operands (None for absent ones), the same of its results.
Rule = Callable[[Site, Sequence[Fact]], Sequence[Fact]]
CONSTANTS: dict[tuple[str, str], Rule] = {}


def constant(*names: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Register what is known of the results of operators."""

    def register(function: Rule) -> Rule:
        for name in names:
            CONSTANTS[domain, name] = function
        return function

    return register
