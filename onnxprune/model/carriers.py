"""Storing tensors sparse: which form each takes, what that costs, and what the model needs for it.

Three sparse forms exist in standard ONNX; they differ in bytes and in who reads them. A tensor
takes a form only where that makes the file smaller, everything counted: names, framing, nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onnx import (
    AttributeProto,
    FunctionProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    helper,
)

from .dtypes import type_name
from .gaps import gap_code
from .gaps import refusal as gaps_refusal
from .housekeeping import quoted, raise_ir_version, remove_inputs
from .model import Model
from .occupancy import scan
from .payload import Payload
from .placement import Item, Parts, Site, sites
from .sparse import SparseIndicesPayload, SparseValuesPayload, hold, without_data
from .tensors import TensorAddress

__all__ = ["Decision", "Form", "Stored", "readers", "store"]

Form = Literal["dense", "sparse", "constant", "gaps"]

#: Who reads a form, measured with onnxruntime 1.32, OpenVINO 2026.4 and onnx 1.23.
READERS: Mapping[Form, str] = {
    "dense": "every runtime and tool reads it",
    "sparse": "onnxruntime reads it; OpenVINO, onnx-ir, onnxsim and most other tools do not",
    "constant": "onnxruntime and OpenVINO read it; onnx-ir, GraphSurgeon and onnxsim do not",
    "gaps": "every runtime reads it; onnxruntime decodes it once, when it loads it",
}
#: IR versions that the forms need: sparse tensors came with 6, constants that are not listed as
#: graph inputs with 4.
IR_VERSIONS: Mapping[Form, int] = {"sparse": 6, "constant": 6, "gaps": 4}
#: Opset from which a Constant node has `sparse_value`.
SPARSE_VALUE_OPSET = 11
#: Types that onnxruntime loads from a sparse tensor (4-bit, complex and string ones it refuses).
SPARSE_TYPES = frozenset(
    getattr(TensorProto, name)
    for name in (
        "FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "BOOL",
        "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64",
        "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Decision:
    """How one tensor is stored.

    Attributes:
        form: Its form; a tensor in a body or a Constant node is "constant" where "sparse" was
            asked for.
        dense_bytes: Bytes in the file of the dense tensor, its name and framing included.
        stored_bytes: The same of the form taken, nodes included.
        reason: Why it is not the form asked for; empty where it is.
    """

    form: Form
    dense_bytes: int
    stored_bytes: int
    reason: str = ""


@dataclass(frozen=True)
class Stored:
    """A model with tensors in sparse forms.

    Attributes:
        model: Ready to be written; dense tensors share the payloads of the model it came from.
        decisions: One for every tensor that was asked about.
        notes: What else had to change in the model, in sentences.
    """

    model: Model
    decisions: Mapping[TensorAddress, Decision]
    notes: tuple[str, ...] = ()


def readers(form: Form) -> str:
    """Which runtimes and tools read a form, in one line."""
    return READERS[form]


def store(model: Model, addresses: Sequence[TensorAddress], form: Form) -> Stored:
    """Store tensors of a model in a form, each where that saves bytes; others stay dense.

    Inside If, Loop and Scan bodies and functions "sparse" means a Constant node with
    ``sparse_value``, as it does for a Constant node anywhere.

    Args:
        model: The dense model; it stays as it is.
        addresses: Initializers and Constant nodes of `model`.
        form: The form wanted.

    Raises:
        KeyError: An address is not in the model.
    """
    proto = ModelProto()
    proto.CopyFrom(model.proto)
    places, trained = sites(proto), _trained(proto)
    payloads, decisions = dict(model.payloads), {}
    for address in addresses:
        site = places[address.scope]
        decision, parts = _decide(model, site, site.items[address.name], form, trained)
        decisions[address] = decision
        if parts is not None:
            site.replace(address.name, parts)
            payloads.update(parts.payloads)
    if not any(site.replaced for site in places.values()):
        return Stored(model, decisions)
    notes = (*raise_ir_version(proto, IR_VERSIONS[form]), *_leave_inputs(proto, places[()]))
    for site in reversed(places.values()):  # bodies first: the nodes around them are copied
        site.apply()
    return Stored(Model(proto, payloads, model.origin), decisions, notes)


def _trained(proto: ModelProto) -> frozenset[str]:
    """Initializers that the model's training information writes to."""
    return frozenset(
        binding.key
        for training in proto.training_info
        for bindings in (training.initialization_binding, training.update_binding)
        for binding in bindings
    )


def _leave_inputs(proto: ModelProto, main: Site) -> tuple[str, ...]:
    """Remove weights that go sparse from the inputs of the main graph; a note if there were any."""
    removed = remove_inputs(proto.graph, main.replaced.keys())
    if not removed:
        return ()
    return (
        f"no longer listed as graph inputs, as a sparse weight cannot be one: {quoted(removed)}",
    )


def _decide(
    model: Model, site: Site, item: Item, form: Form, trained: frozenset[str]
) -> tuple[Decision, Parts | None]:
    """The form of one tensor, and its parts where it is not dense."""
    before = item.dense(model.payloads).size
    if form == "dense":
        return Decision("dense", before, before), None
    carrier = _carrier(site, item, form)
    reason = _refusal(site, item, carrier, trained)
    if reason is None:
        parts = _BUILDERS[carrier](site, item, model.payload(item.tensor))
        if parts.size < before:
            return Decision(carrier, before, parts.size), parts
        reason = f"{carrier} would take more bytes"
    return Decision("dense", before, before, reason), None


def _carrier(site: Site, item: Item, form: Form) -> Form:
    """What a form means at this place."""
    if form != "sparse":
        return form
    if site.scope:
        return "constant"  # onnxruntime's own saved model loses a body's sparse initializers
    can_be_constant = site.opset >= SPARSE_VALUE_OPSET
    return "constant" if item.node is not None and can_be_constant else "sparse"


def _refusal(site: Site, item: Item, carrier: Form, trained: frozenset[str]) -> str | None:
    """Why a tensor must stay dense, or None."""
    name, data_type = item.address.name, item.tensor.data_type
    if not item.tensor.dims:
        return "a single number"
    if not site.scope and name in trained:
        return "the model's training information writes to it"
    if site.scope and name in site.inputs:
        return "it is the default of an input of its body"
    if data_type not in SPARSE_TYPES:
        return f"onnxruntime reads no sparse {type_name(data_type)}"
    if carrier == "gaps":
        return gaps_refusal(data_type, site.opset)
    if name in site.outputs:
        return "it is an output of its graph, which would become sparse for the caller"
    if carrier == "constant" and site.opset < SPARSE_VALUE_OPSET:
        return f"a sparse Constant needs opset {SPARSE_VALUE_OPSET}, here it is {site.opset}"
    return None


def _sparse_tensor(
    item: Item, source: Payload, name: str, indices_name: str
) -> tuple[SparseTensorProto, dict[str, Payload]]:
    """The tensor as a sparse one, and the payloads of its two parts where they are not small."""
    occupancy, payloads = scan(source), dict[str, Payload]()
    values = without_data(item.tensor, [occupancy.kept])
    values.name = name
    indices = TensorProto(data_type=TensorProto.INT64, dims=[occupancy.kept], name=indices_name)
    hold(values, SparseValuesPayload(source, occupancy), f"{item.address}:values", payloads)
    hold(indices, SparseIndicesPayload(source, occupancy), f"{item.address}:indices", payloads)
    return SparseTensorProto(values=values, indices=indices, dims=item.tensor.dims), payloads


def _as_initializer(site: Site, item: Item, source: Payload) -> Parts:
    name = item.address.name
    sparse, payloads = _sparse_tensor(item, source, name, site.fresh.make(f"{name}_indices"))
    return Parts(sparse=(sparse,), payloads=payloads)


def _as_constant(site: Site, item: Item, source: Payload) -> Parts:
    """A Constant node, the one that is there with another attribute or a new one."""
    sparse, payloads = _sparse_tensor(item, source, "", "")
    node = NodeProto(op_type="Constant", output=[item.address.name])
    if item.node is not None:
        node.CopyFrom(item.node)
    attribute = next((a for a in node.attribute if a.name == "value"), None)
    if attribute is None:
        attribute = node.attribute.add()
    attribute.ClearField("t")
    attribute.name, attribute.type = "sparse_value", AttributeProto.SPARSE_TENSOR
    attribute.sparse_tensor.CopyFrom(sparse)
    return Parts(nodes=(node,), payloads=payloads)


def _as_gaps(site: Site, item: Item, source: Payload) -> Parts:
    """Gap code: its tensors are initializers, in a function Constant nodes."""
    code = gap_code(item.tensor, item.address, source, scan(source), site.fresh, site.shared)
    if isinstance(site.graph, FunctionProto):
        constants = tuple(
            helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in code.tensors
        )
        return Parts((*constants, *code.nodes), payloads=code.payloads, shared=code.constants)
    return Parts(code.nodes, code.tensors, payloads=code.payloads, shared=code.constants)


_BUILDERS: Mapping[Form, Callable[[Site, Item, Payload], Parts]] = {
    "sparse": _as_initializer,
    "constant": _as_constant,
    "gaps": _as_gaps,
}
