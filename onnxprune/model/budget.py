"""Sparse forms within the 2 GB that a model file may have: the rest goes to a data file, dense."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .carriers import Decision, Form, Stored, store
from .model import Model
from .save import INLINE_LIMIT, serialised
from .tensors import TensorAddress

__all__ = ["store_within_limit"]

#: Room for what a model file holds besides tensors and grows by when they are referred to.
ROOM = 2**20


def store_within_limit(
    model: Model, addresses: Sequence[TensorAddress], form: Form
) -> tuple[Stored, bool]:
    """Store tensors in a form, and say whether dense ones need a data file.

    A model that came with external data keeps it; any other gets a data file where one file would
    pass 2 GB. Sparse forms stay in the model file: where they pass 2 GB by themselves, the
    largest of them stay dense.

    Args:
        model: The dense model; it stays as it is.
        addresses: Tensors that may take the form.
        form: The form wanted.
    """
    stored = store(model, addresses, form)
    if not model.origin.external:
        size = serialised(stored.model.proto, stored.model.payloads).size
        if size <= INLINE_LIMIT:
            return stored, False
        note = f"{size:,} bytes are too many for one file: weights are in a data file beside it"
        stored = replace(stored, notes=(*stored.notes, note))
    room = INLINE_LIMIT - ROOM - 2 * stored.model.proto.ByteSize()
    dropped = _largest_over(stored, room)
    if not dropped:
        return stored, True
    again = store(model, [address for address in addresses if address not in dropped], form)
    decisions = dict(stored.decisions)
    for address in dropped:
        size = decisions[address].dense_bytes
        reason = f"{form} weights would take the model file past 2 GB"
        decisions[address] = Decision("dense", size, size, reason)
    return replace(again, decisions=decisions, notes=stored.notes), True


def _largest_over(stored: Stored, room: int) -> set[TensorAddress]:
    """The largest sparse forms, as many as do not fit."""
    sparse = [item for item in stored.decisions.items() if item[1].form != "dense"]
    inside = sum(decision.stored_bytes for _, decision in sparse)
    dropped: set[TensorAddress] = set()
    for address, decision in sorted(sparse, key=lambda item: -item[1].stored_bytes):
        if inside <= room:
            break
        dropped.add(address)
        inside -= decision.stored_bytes
    return dropped
