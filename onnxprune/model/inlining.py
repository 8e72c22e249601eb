"""What the onnx package does to whole models, with its failures as errors that a user can read."""

from __future__ import annotations

from onnx import ModelProto, OperatorSetIdProto, inliner, shape_inference

from ..errors import ModelError
from .domain import plain_domain
from .tensors import walk_graphs

__all__ = ["inferred", "inlined"]

#: Numbers of the longest list whose values shape inference follows.
LONGEST_LIST = 2**16


def inlined(proto: ModelProto) -> ModelProto:
    """The model without model-local functions, with the opsets that these used; itself without any.

    Raises:
        ModelError: A function cannot be put in the place of its calls.
    """
    if not proto.functions:
        return proto
    proto = _with_opsets(proto)
    try:
        return inliner.inline_local_functions(proto)
    except Exception as error:  # the inliner is C++ and raises unrelated types
        raise ModelError(
            f"the model's functions do not fit their calls ({_line(error)}); export the model again"
        ) from error


def _with_opsets(proto: ModelProto) -> ModelProto:
    """The model with the opsets that only its functions name; itself where there are none."""
    missing: dict[str, OperatorSetIdProto] = {}
    for function in proto.functions:
        for entry in function.opset_import:
            missing.setdefault(entry.domain, entry)
    for entry in proto.opset_import:
        missing.pop(entry.domain, None)
    if not missing:
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    copy.opset_import.extend(missing.values())
    return copy


def inferred(proto: ModelProto) -> ModelProto:
    """The model with the types and shapes that follow from its operators.

    Raises:
        ModelError: An operator does not fit its operands.

    The numbers of shape arithmetic are followed as well, where no list of them is long.
    """
    proto = _with_plain_domains(proto)
    try:
        plain = shape_inference.infer_shapes(proto)
        if _spreads(plain):
            return plain
        return shape_inference.infer_shapes(proto, data_prop=True)
    except Exception as error:  # shape inference is C++ and raises unrelated types
        raise ModelError(
            f"the types and shapes of the model contradict each other ({_line(error)}); export it"
            " again"
        ) from error


def _with_plain_domains(proto: ModelProto) -> ModelProto:
    """The model with one spelling of every domain, which shape inference needs."""
    nodes = (node for _, graph in walk_graphs(proto) for node in graph.node)
    if all(node.domain == plain_domain(node.domain) for node in nodes):
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    for _, graph in walk_graphs(copy):
        for node in graph.node:
            node.domain = plain_domain(node.domain)
    return copy


def _spreads(proto: ModelProto) -> bool:
    """Whether a list is too long to follow its numbers: Concat may double one again and again."""
    return any(
        len(value.type.tensor_type.shape.dim) == 1
        and value.type.tensor_type.shape.dim[0].dim_value > LONGEST_LIST
        for value in proto.graph.value_info
    )


def _line(error: Exception) -> str:
    """What went wrong, on one line and not endless."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
