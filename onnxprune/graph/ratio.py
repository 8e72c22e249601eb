"""Where a Dropout keeps its ratio: an attribute below opset 12, an input from 12 on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnx import AttributeProto, TensorProto

from .attributes import find_attribute
from .constants import Constants, Stored
from .index import ModelIndex, Node, Value

__all__ = ["DEFAULT_RATIO", "RATIO_INPUTS", "Ratio", "read_ratio"]

#: Ratio of a Dropout that states none.
DEFAULT_RATIO = 0.5
#: Position of the ratio among the inputs, by (domain, operator).
RATIO_INPUTS: dict[tuple[str, str], int] = {
    ("", "Dropout"): 1,
    ("com.microsoft", "BiasDropout"): 3,
    ("com.microsoft", "BitmaskDropout"): 1,
    ("com.microsoft", "BitmaskBiasDropout"): 3,
}
_RUN_TIME = "its ratio is made at run time"
_CALLER = "its ratio is decided by the function's caller"
_FLOATS = frozenset(
    {
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.DOUBLE,
    }
)


@dataclass(frozen=True, eq=False)
class Ratio:
    """The ratio of one Dropout and where it is.

    Attributes:
        value: the ratio.
        form: "attribute"; "tensor" (an input that is `stored`); "number" (an input that is the
            attribute `number` of a Constant node); "absent" (an input left out).
        data_type: type of the ratio, an onnx.TensorProto enum.
        source: the value that holds the ratio, where it is an input.
        reason: why the ratio cannot be changed; None where it can.
    """

    value: float
    form: Literal["attribute", "tensor", "number", "absent"]
    data_type: int = TensorProto.FLOAT
    source: Value | None = None
    stored: Stored | None = None
    number: AttributeProto | None = None
    reason: str | None = None


def read_ratio(index: ModelIndex, constants: Constants, node: Node) -> Ratio:
    """Find the ratio of a Dropout node."""
    position = RATIO_INPUTS[node.domain, node.op_type]
    value = node.input(position)
    attribute = find_attribute(node.proto, "ratio")
    version = index.opset(node.graph)
    below = node.domain == "" and (version is None or version < 12)
    if value is None and (below or attribute is not None):
        if attribute is None:
            return Ratio(DEFAULT_RATIO, "attribute")
        reason = _CALLER if attribute.ref_attr_name else None
        return Ratio(float(attribute.f), "attribute", reason=reason)
    if value is None:
        reason = "it states no ratio" if node.domain else None
        return Ratio(DEFAULT_RATIO, "absent", reason=reason)
    return _from_input(index, constants, value)


def _from_input(index: ModelIndex, constants: Constants, value: Value) -> Ratio:
    """The ratio that an input holds."""
    stored = constants.plain_constant(value)
    if stored is not None:
        array = constants.constant(value)
        data_type = stored.tensor.data_type
        if array is None or array.size != 1 or data_type not in _FLOATS:
            reason = "its ratio is not a single float"
            return Ratio(DEFAULT_RATIO, "tensor", data_type, value, stored, reason=reason)
        ratio = float(array.reshape(()).astype(float))
        return Ratio(ratio, "tensor", data_type, value, stored)
    made = index.producers.get(value)
    if made is not None and made[0].op_type == "Constant" and not made[0].domain:
        number = find_attribute(made[0].proto, "value_float")
        if number is not None and not number.ref_attr_name:
            return Ratio(float(number.f), "number", TensorProto.FLOAT, value, number=number)
    graph = index.graphs[value.graph]
    given = graph.is_function and value.name in graph.inputs
    return Ratio(DEFAULT_RATIO, "tensor", source=value, reason=_CALLER if given else _RUN_TIME)
