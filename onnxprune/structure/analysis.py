"""The analysis: one pass over a graph that couples the indices of all its axes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto

from ..graph.part import captured_names
from ..model.domain import plain_domain
from ..model.tensors import node_label
from . import rules
from .atoms import FIXED, Atoms, Labels
from .folding import Prepared, prepared
from .registry import RULES, Axes, Barrier, Rule, Site
from .sizes import LONGEST
from .stored import constant_tensors

__all__ = ["Cause", "Coupling", "analyse"]

assert rules  # importing it fills the table


@dataclass(frozen=True)
class Cause:
    """Why indices stay: the node (or output of the model) that keeps them, and its reason."""

    node: str
    operator: str
    reason: str


@dataclass(frozen=True, eq=False)
class Coupling:
    """Which indices of which tensors go together.

    Attributes:
        prepared: The graph that was analysed: the user's, functions inlined, shape arithmetic
            folded, channel shuffles as Gathers.
        atoms: The sets of all labels.
        axes: Labels of every value of the main graph with a known shape, where followed.
        sites: What the rules know of each node, None for the nodes that hold a constant.
        causes: What the numbers in `Atoms.cause` mean; the first stands for nothing to tell.
    """

    prepared: Prepared
    atoms: Atoms
    axes: dict[str, Axes]
    sites: tuple[Site | None, ...]
    causes: tuple[Cause, ...]

    @cached_property
    def constants(self) -> dict[str, Axes]:
        """Labels of the constant tensors that are data, not sizes or indices."""
        names = (name for name, _ in constant_tensors(self.prepared.proto.graph))
        return {name: self.axes[name] for name in names if name in self.axes}

    def kept(self, name: str, gone: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], ...]:
        """Which indices of each axis of a value are left; `gone` comes from `Atoms.marks`."""
        return tuple(~gone[self.atoms.resolve(labels)] for labels in self.axes[name])


def analyse(proto: ModelProto) -> Coupling:
    """Couple the indices of all axes of a model's main graph.

    Model-local functions are inlined for it; the bodies of If, Loop and Scan are barriers.

    Args:
        proto: A model with its weights inside, of any opset; it stays as it is.

    Returns:
        The coupling. Equal models give equal atoms.
    """
    return _Pass(prepared(proto)).coupling()


#: Why a node is not followed of which a result has more indices than are told apart.
TOO_LONG = "has a result with an axis too long to follow"
#: From this length on axes count, and how many indices of such axes are followed in all: a batch
#: of a million that many results share takes memory and time, and nothing is gained.
LONG, MOST_OF_LONG = 2**16, 2**23


class _Pass:
    def __init__(self, ready: Prepared) -> None:
        self._ready = ready
        self._atoms = Atoms()
        self._axes: dict[str, Axes] = {}
        self._shapeless: dict[str, Cause] = {}  # values of unknown shape, and what they come from
        graph = ready.proto.graph
        self._tensors = {name: tuple(t.dims) for name, t in constant_tensors(graph)}
        for name, dims in list(self._tensors.items()):
            if max(dims, default=0) > LONGEST:
                del self._tensors[name]
                self._shapeless[name] = Cause(name, "constant", "has an axis too long to follow")
        self._read = {info.name for info in graph.output}
        for node in graph.node:
            self._read.update(node.input, captured_names(node))
        self._read.discard("")
        self._long = 0
        self._causes = [Cause("", "", "")]
        self._numbers: dict[Cause, int] = {}
        self._versions = {
            plain_domain(entry.domain): entry.version for entry in ready.proto.opset_import
        }

    def coupling(self) -> Coupling:
        graph = self._ready.proto.graph
        for info in graph.input:
            shape = self._ready.sizes.shape(info.name)
            if info.name in self._tensors:
                continue
            if shape is None:
                self._shapeless[info.name] = Cause(info.name, "input", "has an unknown shape")
                continue
            self._axes[info.name] = tuple(self._atoms.fresh(size) for size in shape)
            self._freeze([info.name], Cause(info.name, "input", "is an input of the model"))
        sites = [
            None if set(node.output) <= self._tensors.keys() else self._visit(node, index)
            for index, node in enumerate(graph.node)
        ]
        for info in graph.output:
            cause = Cause(info.name, "output", "is an output of the model")
            self._freeze([info.name], cause)
        found = tuple(self._causes)
        return Coupling(self._ready, self._atoms, self._axes, tuple(sites), found)

    def _visit(self, node: NodeProto, index: int) -> Site:
        label = node_label(node, index)
        domain = plain_domain(node.domain)
        version = self._versions.get(domain, 1)

        def cause(reason: str) -> int:
            return self._number(Cause(label, node.op_type, reason))

        site = Site(node, version, self._atoms, self._ready.sizes, self._labels, cause)
        reason = self._followed(site, RULES.get((domain, node.op_type)))
        if reason is not None:
            if isinstance(reason, str):
                reason = Cause(label, node.op_type, reason)
            self._freeze([*node.input, *sorted(set(captured_names(node)))], reason)
            site.results.clear()
        self._axes.update(site.results)
        for name in node.output:
            if reason is not None and name:
                self._give_up(name, reason)
        return site

    def _followed(self, site: Site, function: Rule | None) -> str | Cause | None:
        """Apply a node's rule; why it could not be followed, or None."""
        try:
            if function is None:
                return "is an operator without a rule"
            if any(self._ready.sizes.too_long(name) for name in site.node.output):
                return TOO_LONG
            function(site)
            if any(name not in site.results for name in self._read.intersection(site.node.output)):
                return "has a result that is not followed"
            self._check(site)
            self._keep_parameters(site)
        except Barrier as barrier:
            return self._shapeless.get(barrier.unknown) or str(barrier)
        except (ArithmeticError, LookupError, ValueError):
            return "does not fit its operands"
        return None

    def _give_up(self, name: str, cause: Cause) -> None:
        """A result of which nothing is removed."""
        shape = self._ready.sizes.shape(name)
        if shape is None:
            self._shapeless[name] = cause
        else:
            label = self._atoms.frozen(self._number(cause))
            self._axes[name] = tuple(np.broadcast_to(np.int64(label), size) for size in shape)

    def _keep_parameters(self, site: Site) -> None:
        """Operands that the rule did not follow as data stay as long as they are."""
        self._atoms.cause = 0
        for name in set(site.node.input) - site.followed:
            if name in self._axes:
                for labels in self._axes[name]:
                    self._atoms.freeze(labels)
            elif name in self._tensors:
                self._axes[name] = tuple(_fixed(size) for size in self._tensors[name])

    def _check(self, site: Site) -> None:
        """The labels of each result must be as many as its shape says."""
        lengths = [len(labels) for axes in site.results.values() for labels in axes]
        self._long += sum(length for length in lengths if length >= LONG)
        if self._long > MOST_OF_LONG:
            site.barrier("has a result with one of too many long axes to follow")
        for name, axes in site.results.items():
            if max(map(len, axes), default=0) > LONGEST:  # sizes do not tell where one is unknown
                site.barrier(TOO_LONG)
            shape = self._ready.sizes.shape(name)
            if shape is not None and tuple(map(len, axes)) != shape:
                site.barrier("has a result of an unexpected shape")

    def _labels(self, name: str) -> Axes | None:
        """Labels of a value; those of a constant are made when it is first read."""
        known = self._axes.get(name)
        if known is None and name in self._tensors:
            known = tuple(
                self._atoms.fresh(size) if size > 1 else _fixed(size)
                for size in self._tensors[name]
            )
            self._axes[name] = known
        return known

    def _freeze(self, names: Iterable[str], cause: Cause) -> None:
        self._atoms.cause = self._number(cause)
        for name in names:
            for labels in (self._labels(name) if name else None) or ():
                self._atoms.freeze(labels)

    def _number(self, cause: Cause) -> int:
        if cause not in self._numbers:
            self._numbers[cause] = len(self._causes)
            self._causes.append(cause)
        return self._numbers[cause]


def _fixed(size: int) -> Labels:
    return np.broadcast_to(np.int64(FIXED), (size,))
