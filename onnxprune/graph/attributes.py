"""Reading node attributes that may be absent, or references to a function's attributes."""

from __future__ import annotations

from onnx import AttributeProto, NodeProto

__all__ = ["find_attribute", "integer", "integers", "text"]


def find_attribute(node: NodeProto, name: str) -> AttributeProto | None:
    """The attribute of that name; the first of equal names, None where absent."""
    for attribute in node.attribute:
        if attribute.name == name:
            return attribute
    return None


def integer(node: NodeProto, name: str, default: int) -> int | None:
    """An integer attribute; None where a function's caller decides its value."""
    attribute = find_attribute(node, name)
    if attribute is None:
        return default
    return None if attribute.ref_attr_name else int(attribute.i)


def integers(node: NodeProto, name: str) -> tuple[int, ...] | None:
    """A list-of-integers attribute; None where absent or decided by a function's caller."""
    attribute = find_attribute(node, name)
    if attribute is None or attribute.ref_attr_name:
        return None
    return tuple(attribute.ints)


def text(node: NodeProto, name: str) -> str | None:
    """A string attribute; None where absent or decided by a function's caller."""
    attribute = find_attribute(node, name)
    if attribute is None or attribute.ref_attr_name:
        return None
    return attribute.s.decode("utf-8", "replace")
