"""Removing indices from a model: one function, whatever chose them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ..errors import UsageError
from ..graph.attributes import find_attribute
from ..model.domain import plain_domain
from .analysis import Coupling, analyse
from .folding import Names, settle_constants
from .registry import Site
from .revision import REVISIONS, Kept, Revision
from .sharing import merge_copies
from .stored import constant_tensor, replace_nodes

__all__ = ["remove", "remove_coupled", "set_constant"]


def remove(proto: ModelProto, atoms: Iterable[int]) -> ModelProto:
    """A copy of a model without the indices that carry these atoms.

    Args:
        proto: A model with its weights inside; it stays as it is.
        atoms: Atoms as `groups.find_groups` lists them for the same model.

    Returns:
        A copy in which every tensor, and every size, bound, index and group count, is that of
        the smaller network. Model-local functions are inlined in it; names, opsets and metadata
        stay. Without atoms, an unchanged copy.

    Raises:
        UsageError: The atoms would leave nothing of an axis.
    """
    return remove_coupled(proto, analyse(proto), atoms)


def remove_coupled(proto: ModelProto, coupling: Coupling, atoms: Iterable[int]) -> ModelProto:
    """As `remove`, for a model that was analysed before (`coupling` is that of `proto`)."""
    chosen = {atom for label in atoms for atom in coupling.atoms.content(label)}
    if not chosen:
        copy = ModelProto()
        copy.CopyFrom(proto)
        return copy
    return _Removal(coupling, coupling.atoms.marks(chosen)).result()


class _Removal:
    def __init__(self, coupling: Coupling, gone: npt.NDArray[np.bool_]) -> None:
        self._coupling = coupling
        self._gone = gone
        self._cache: dict[str, Kept] = {}
        self._model = ModelProto()
        self._model.CopyFrom(coupling.prepared.proto)
        self._names = Names(self._model.graph)

    def result(self) -> ModelProto:
        graph = self._model.graph
        for tensor in graph.initializer:
            self._cut(tensor, tensor.name)
        nodes: list[NodeProto] = []
        for node, site in zip(graph.node, self._coupling.sites, strict=True):
            nodes += self._revised(node, site)
        replace_nodes(self._model.graph, nodes)
        settle_constants(self._model)
        merge_copies(self._model, self._coupling.prepared.copies)
        self._update_infos()
        return self._model

    def _kept(self, name: str) -> Kept | None:
        if name not in self._cache:
            if name not in self._coupling.axes:
                return None
            kept = self._coupling.kept(name, self._gone)
            for axis, mask in enumerate(kept):
                if len(mask) and not mask.any():
                    raise UsageError(
                        f"the chosen channels leave nothing of axis {axis} of '{name}'; "
                        "keep at least one of them"
                    )
            self._cache[name] = kept
        return self._cache[name]

    def _revised(self, node: NodeProto, site: Site | None) -> list[NodeProto]:
        if site is None:
            tensor = constant_tensor(node)
            if tensor is not None and self._is_cut(node.output[0]):
                set_constant(node, self._cut(tensor, node.output[0]))
            return [node]
        for name in node.output:
            self._kept(name)
        domain = plain_domain(node.domain)
        function = REVISIONS.get((domain, node.op_type))
        touched = any(self._is_cut(name) for name in (*node.input, *node.output))
        if function is None or not touched:
            return [node]
        edit = Revision(node, site, self._names, self._kept)
        function(edit)
        return [*edit.before, node, *edit.after]

    def _is_cut(self, name: str) -> bool:
        kept = self._kept(name)
        return kept is not None and any(not mask.all() for mask in kept)

    def _cut(self, tensor: TensorProto, name: str) -> TensorProto:
        """Leave the removed indices out of a tensor, in place."""
        if self._is_cut(name):
            array = numpy_helper.to_array(tensor)
            for axis, mask in enumerate(self._kept(name) or ()):
                if not mask.all():
                    array = np.compress(mask, array, axis=axis)
            smaller = numpy_helper.from_array(np.ascontiguousarray(array), tensor.name)
            smaller.doc_string = tensor.doc_string
            smaller.data_type = tensor.data_type
            tensor.CopyFrom(smaller)
        return tensor

    def _update_infos(self) -> None:
        """Write the new shapes of initializers that are inputs too, and of values in between."""
        graph = self._model.graph
        stored = {tensor.name for tensor in graph.initializer}
        present = {name for node in graph.node for name in node.output} | stored
        for info in graph.input:
            if info.name in stored:
                self._update_info(info)
        known = [
            info
            for info in graph.value_info
            if info.name in present and info.name in self._coupling.axes and self._update_info(info)
        ]
        kept = [ValueInfoProto.FromString(info.SerializeToString()) for info in known]
        del graph.value_info[:]
        graph.value_info.extend(kept)

    def _update_info(self, info: ValueInfoProto) -> bool:
        """Whether what is said of a value holds now."""
        masks = self._kept(info.name) or ()
        dims = info.type.tensor_type.shape.dim
        if not self._is_cut(info.name):
            return True
        if len(dims) != len(masks):
            return False
        for dim, mask in zip(dims, masks, strict=True):
            if mask.all():
                continue
            # What was open stays open: its size here is only that of the run that was analysed.
            fixed = dim.dim_value == mask.size
            dim.Clear()
            if fixed:
                dim.dim_value = int(mask.sum())
        return True


def set_constant(node: NodeProto, tensor: TensorProto) -> None:
    """Store a tensor in a Constant node, in the form that the node had."""
    held = find_attribute(node, "value")
    if held is not None:
        if held.t is not tensor:
            held.t.CopyFrom(tensor)
        return
    array = numpy_helper.to_array(tensor)
    name = "value_floats" if array.dtype.kind == "f" else "value_ints"
    del node.attribute[:]
    node.attribute.append(helper.make_attribute(name, array.tolist()))
