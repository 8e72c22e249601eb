"""Declaring an older opset where a graph means the same in it, so that older runtimes take it.

Most operators of opsets 22 and 23 differ from those of 21 in the element types they take, nothing
else. Graphs are built in the newer set, for which all rules are written.
"""

from __future__ import annotations

from onnx import ModelProto, NodeProto, defs

from ...model.domain import plain_domain
from ...model.housekeeping import default_opset
from ...model.tensors import node_label, walk_graphs

__all__ = ["OLDER_OPSET", "Newer", "declare_older", "newer_nodes"]

#: What onnxruntime 1.18 and later run.
OLDER_OPSET = 21
OLDER_IR_VERSION = 10

#: Label, operator, and what the older opset does not know of a node.
Newer = tuple[str, str, str]


def declare_older(proto: ModelProto, opset: int = OLDER_OPSET) -> bool:
    """State an older opset, in place, where every node means the same in it.

    Returns:
        Whether the model is of that opset (or an older one) now.
    """
    if newer_nodes(proto, opset):
        return False
    for entry in proto.opset_import:
        if not plain_domain(entry.domain):
            entry.version = min(entry.version, opset)
    proto.ir_version = min(proto.ir_version, OLDER_IR_VERSION)
    return True


def newer_nodes(proto: ModelProto, opset: int) -> list[Newer]:
    """The nodes that mean something else, or nothing, in an older opset."""
    newest = default_opset(proto)
    found = []
    for _, graph in walk_graphs(proto):
        for index, node in enumerate(graph.node):
            reason = _newer(node, newest, opset) if not plain_domain(node.domain) else None
            if reason:
                found.append((node_label(node, index), node.op_type, reason))
    return found


def _newer(node: NodeProto, version: int, opset: int) -> str | None:
    """What a node has that the older opset does not know, None where nothing."""
    new = defs.get_schema(node.op_type, version, "")
    try:
        old = defs.get_schema(node.op_type, opset, "")
    except defs.SchemaError:
        return f"the operator came with opset {_first(node.op_type)}, and it knows {opset}"
    if new.since_version == old.since_version:
        return None
    given = {attribute.name for attribute in node.attribute}
    if unknown := sorted(given - set(old.attributes)):
        return f"its attribute '{unknown[0]}' came after opset {opset}"
    if len(node.input) > old.max_input or len(node.output) > old.max_output:
        return f"it has more inputs or outputs than in opset {opset}"
    for name in set(old.attributes) & set(new.attributes) - given:
        if old.attributes[name].default_value != new.attributes[name].default_value:
            return f"the default of its attribute '{name}' is another in opset {opset}"
    return None


def _first(op_type: str) -> int:
    """The opset that brought an operator."""
    versions = [
        schema.since_version
        for schema in defs.get_all_schemas_with_history()
        if schema.name == op_type and schema.domain == ""
    ]
    return int(min(versions))
