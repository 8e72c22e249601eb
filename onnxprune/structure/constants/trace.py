"""One pass over a graph that finds every channel that is a constant."""

from __future__ import annotations

from onnx import TensorProto, numpy_helper

from ...model.domain import plain_domain
from ..analysis import Coupling
from ..registry import Barrier
from ..sizes import constant_tensors
from .known import Known, stored
from .registry import CONSTANTS, Fact

__all__ = ["find_constants"]


def find_constants(coupling: Coupling) -> dict[str, Known]:
    """What is known of every value of the main graph, by name; values with nothing known are out.

    Activations are taken to be finite: zero times any of them is zero.
    """
    found = {
        name: stored(numpy_helper.to_array(tensor))
        for name, tensor in constant_tensors(coupling.prepared.proto.graph)
        if tensor.data_type != TensorProto.STRING
    }
    for site in coupling.sites:
        if site is None:
            continue
        node = site.node
        domain = plain_domain(node.domain)
        rule = CONSTANTS.get((domain, node.op_type))
        if rule is None or not all(coupling.axes.get(name) is not None for name in node.output):
            continue
        operands: list[Fact] = [found.get(name) if name else None for name in node.input]
        try:
            results = rule(site, operands)
        except (Barrier, ArithmeticError, LookupError, ValueError):
            continue  # a shape that is not known, or operands that do not fit
        for name, fact in zip(node.output, results, strict=False):
            if name and fact is not None:
                found[name] = _of_rank(fact, len(coupling.axes[name]))
    return found


def _of_rank(fact: Known, rank: int) -> Known:
    """With the axes that broadcasting puts in front."""
    shape = (*(1 for _ in range(rank - fact.mask.ndim)), *fact.mask.shape)
    return Known(fact.values.reshape(shape), fact.mask.reshape(shape))
