"""Gradient rules, one small function per operator, one module per family.

Every module of this package is imported here, which registers its rules: a new family is a new
file and nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil

from .registry import NON_DIFFERENTIABLE, Node, Rule, gradient, is_constant, rule_for

__all__ = ["NON_DIFFERENTIABLE", "Node", "Rule", "gradient", "is_constant", "rule_for"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
