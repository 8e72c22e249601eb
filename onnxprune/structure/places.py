"""Where tensors are after a graph was changed: names stay, labels of nodes without one may not."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import ModelProto

from ..model.model import Model
from ..model.tensors import Scope, TensorAddress, walk_graphs

__all__ = ["moved"]


def moved(
    before: ModelProto, after: Model, addresses: Iterable[TensorAddress]
) -> dict[TensorAddress, TensorAddress] | None:
    """Addresses of tensors of a model in one that was made of it by removing indices.

    Bodies of If, Loop and Scan keep their order, whatever their nodes are labelled.

    Returns:
        The new address of each; None where one is not found: functions are inlined, and what they
        hold has other names then.
    """
    old, new = _bodies(before), _bodies(after.proto)
    scopes = dict(zip(old, new, strict=True)) if len(old) == len(new) else {}
    scopes[()] = ()
    found = {
        address: TensorAddress(scopes[address.scope], address.name)
        for address in addresses
        if address.scope in scopes
    }
    wanted = set(addresses)
    return found if found.keys() == wanted and set(found.values()) <= after.tensors.keys() else None


def _bodies(proto: ModelProto) -> list[Scope]:
    return [scope for scope, _ in walk_graphs(proto) if scope and not _in_function(scope)]


def _in_function(scope: Scope) -> bool:
    return scope[0].startswith("function ")
