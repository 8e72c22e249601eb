"""From what a node reads back to the stored tensor that feeds it.

The way back goes through views (Identity, Cast, Transpose, Reshape, DequantizeLinear, ...), out of
bodies into the graphs around them, and out of model-local functions to every place that calls them:
one value can therefore have several sources. Every value is resolved once, without recursion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .constants import Constants, Stored
from .index import ModelIndex, Node, Value
from .view_nodes import is_join, is_view, join, viewed
from .views import View, whole

__all__ = ["Source", "Tracer"]

#: A view node, and the number of the output that is read.
Shown = tuple[Node, int]

#: How a value comes to be. "form": a Constant that is not a tensor; "given": an input of the model
#: or of a body, or nothing at all; "computed": made by a node that is no view.
Origin = Literal["stored", "form", "given", "computed"]


@dataclass(frozen=True, eq=False)
class Source:
    """One thing that a value can be.

    `stored` and `view` are set for a stored tensor; `reason` says in words why it is none. `value`
    is where the way back ended.
    """

    origin: Origin
    value: Value
    stored: Stored | None = None
    view: View | None = None
    reason: str = ""


class Tracer:
    """Resolves values of one model; answers are kept, so asking again costs nothing."""

    def __init__(self, index: ModelIndex, constants: Constants) -> None:
        """Start with no answers."""
        self.index = index
        self.constants = constants
        self._sources: dict[Value, tuple[Source, ...]] = {}
        self._passages: dict[Value, tuple[list[Shown], Value]] = {}

    def sources(self, value: Value) -> tuple[Source, ...]:
        """Everything that a value can be; empty for an input of a function nobody calls."""
        opened: set[Value] = set()
        pending = [value]
        while pending:
            current = pending[-1]
            if current in self._sources:
                pending.pop()
                continue
            views, needed = self._step(current)
            if current not in opened:
                opened.add(current)
                missing = [v for v in needed if v not in self._sources and v not in opened]
                if missing:
                    pending.extend(missing)
                    continue
            self._sources[current] = self._finish(current, views, needed)
            pending.pop()
        return self._sources[value]

    def _step(self, value: Value) -> tuple[Sequence[Shown], list[Value]]:
        """Views between a value and the values it comes from; neither where the way back ends."""
        made = self.index.producers.get(value)
        if made is None:
            return (), self._arguments(value)
        node, position = made
        if is_view(node):
            data = node.input(0)
            return ([(node, position)], [data]) if data is not None else ((), [])
        if is_join(node):
            return (), [part for part in node.inputs if part is not None]
        function = self.index.called(node)
        if function is None:
            return (), []
        return self._through_call(node, function, position)

    def _arguments(self, value: Value) -> list[Value]:
        """What the callers of a function hand over for one of its inputs."""
        graph = self.index.graphs[value.graph]
        if not graph.is_function or value.name not in graph.inputs:
            return []
        position = graph.inputs.index(value.name)
        found = [call.input(position) for call in self.index.calls.get(graph.number, ())]
        return [argument for argument in dict.fromkeys(found) if argument is not None]

    def _through_call(
        self, node: Node, function: int, position: int
    ) -> tuple[Sequence[Shown], list[Value]]:
        """Through a function that only views one of its inputs, or hands out its own constant."""
        outputs = self.index.graphs[function].outputs
        if position >= len(outputs):
            return (), []
        views, end = self.passage(outputs[position])
        graph = self.index.graphs[end.graph]
        if graph.number == function and end.name in graph.inputs:
            argument = node.input(graph.inputs.index(end.name))
            return (views, [argument]) if argument is not None else ((), [])
        made = self.index.producers.get(end)
        if made is not None and made[0].op_type == "Constant":
            return views, [end]
        return (), []

    def passage(self, value: Value) -> tuple[list[Shown], Value]:
        """Views inside one function body that lead to a value, and where they start.

        Views come in the order in which they are applied. A nested call ends the way.
        """
        found = self._passages.get(value)
        if found is None:
            views: list[Shown] = []
            seen = {value}
            current = value
            while True:
                made = self.index.producers.get(current)
                data = made[0].input(0) if made and is_view(made[0]) else None
                if made is None or data is None or data in seen:
                    break
                views.append(made)
                seen.add(data)
                current = data
            found = self._passages[value] = (views[::-1], current)
        return found

    def _finish(
        self, value: Value, views: Sequence[Shown], needed: Sequence[Value]
    ) -> tuple[Source, ...]:
        """Sources of a value from those of the values it comes from."""
        if not needed:
            return self._end(value)
        origins = [self._answer(origin) for origin in needed]
        made = self.index.producers.get(value)
        if made is not None and is_join(made[0]):
            # Data joined with a constant is data: only constants alone make a weight.
            if not all(source.view for sources in origins for source in sources):
                return self._end(value)
            parts = [source.view for sources in origins for source in sources[:1] if source.view]
            return _distinct(
                replace(source, view=join(made[0], source.view, parts))
                for sources in origins
                for source in sources
                if source.view
            )
        return _distinct(self._viewed(views, source) for sources in origins for source in sources)

    def _answer(self, value: Value) -> tuple[Source, ...]:
        """Sources found already; a value without them is part of its own definition."""
        known = self._sources.get(value)
        if known is not None:
            return known
        return (Source("given", value, reason="its definition is circular"),)

    def _viewed(self, views: Sequence[Shown], source: Source) -> Source:
        """A source as the reader behind some views sees it."""
        view, stored = source.view, source.stored
        if view is None or stored is None:
            return source
        for node, part in views:
            view = viewed(self.constants, node, part, view, stored)
        return replace(source, view=view)

    def _end(self, value: Value) -> tuple[Source, ...]:
        """The source that a value itself is."""
        stored = self.constants.stored(value)
        if stored is not None:
            return (Source("stored", value, stored, whole(stored.shape)),)
        made = self.index.producers.get(value)
        if made is not None:
            return (self._made(value, made[0]),)
        graph = self.index.graphs[value.graph]
        if value.name not in graph.inputs:
            reason = "nothing in the model defines it"
        elif graph.is_function:
            return ()
        elif graph.scope:
            reason = f"made at run time: an input of body '{'/'.join(graph.scope)}'"
        else:
            reason = "made at run time: an input of the model"
        return (Source("given", value, reason=reason),)

    def _made(self, value: Value, node: Node) -> Source:
        """The source that a node's output is, where it is no stored tensor."""
        if node.op_type == "Constant" and not node.domain:
            names = ", ".join(str(a.name) for a in node.proto.attribute) or "nothing"
            return Source("form", value, reason=f"its Constant node holds {names}, not a tensor")
        reason = f"made at run time by {node.op_type} '{self.index.label(node)}'"
        return Source("computed", value, reason=reason)


def _distinct(sources: Iterable[Source]) -> tuple[Source, ...]:
    """Sources that differ: one tensor cut and joined again is one source."""
    found: dict[tuple[object, ...], Source] = {}
    for source in sources:
        view = source.view
        seen = (view.shape, view.axes, id(view.quantization), view.problem) if view else ()
        found.setdefault((source.value, source.reason, *seen), source)
    return tuple(found.values())
