"""Which layers are pruned, and how hard: globs on weight and node names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ..errors import UsageError
from ..graph.layer import Layer, Unprunable

__all__ = ["Choice", "select"]


@dataclass(frozen=True)
class Choice:
    """What was asked for one layer.

    Attributes:
        quality: Its own quality; None for the general one.
        off: Why it stays as it is; None where it is pruned.
        glob: The pattern that set it apart; None where none did.
    """

    quality: float | None = None
    off: str | None = None
    glob: str | None = None


def select(
    layers: Sequence[Layer],
    *,
    overrides: Sequence[tuple[str, float | None]] = (),
    exclude: Sequence[str] = (),
    unprunable: Sequence[Unprunable] = (),
) -> tuple[Choice, ...]:
    """One choice per layer.

    A glob is matched, case and all, with the weight's name (with its scope too, where it has one)
    and with the name of every node that uses it; a name that equals it matches as well, brackets
    or not. Of several overrides that match a layer the last one counts; exclusions come before
    all.

    Args:
        layers: The layers of the model.
        overrides: Glob and quality, None for "off".
        exclude: Globs of layers that stay as they are.
        unprunable: Weights that nothing can prune: leaving them out is no mistake.

    Raises:
        UsageError: A glob matches no layer.
    """
    choices = [Choice()] * len(layers)
    names = [_names(layer) for layer in layers]
    for glob, quality in overrides:
        off = f"switched off by --layer '{glob}=off'" if quality is None else None
        option = f"--layer '{glob}'"
        for index in _matching(glob, names, unprunable, option, leave_out=quality is None):
            choices[index] = Choice(quality, off, glob)
    for glob in exclude:
        option = f"--exclude '{glob}'"
        for index in _matching(glob, names, unprunable, option, leave_out=True):
            choices[index] = Choice(None, f"excluded by {option}", glob)
    return tuple(choices)


def _names(layer: Layer) -> tuple[str, ...]:
    """Every name that a glob may match, in order of preference, without repetition."""
    scope = "".join(f"{part}/" for part in layer.address.scope)
    nodes = [use.node for use in layer.uses]
    bare_nodes = [node.removeprefix(scope) for node in nodes]
    return tuple(
        dict.fromkeys((layer.name, layer.address.name, str(layer.address), *nodes, *bare_nodes))
    )


def _matches(glob: str, names: Iterable[str]) -> bool:
    return any(name == glob or fnmatchcase(name, glob) for name in names)


def _matching(
    glob: str,
    names: Sequence[Sequence[str]],
    unprunable: Sequence[Unprunable],
    option: str,
    *,
    leave_out: bool,
) -> list[int]:
    """Indices of the layers that a glob matches; raises UsageError where that is a mistake."""
    found = [index for index, some in enumerate(names) if _matches(glob, some)]
    if found:
        return found
    others = [other for other in unprunable if _matches(glob, (other.name, other.node))]
    if others and leave_out:
        return []
    if others:
        raise UsageError(
            f"{option} matches only weights that cannot be pruned: "
            f"'{others[0].name}' ({others[0].reason}; see onnxprune inspect)"
        )
    near = _near(glob, names)
    hint = f"near names: {near}" if near else "the model has no prunable layer"
    raise UsageError(f"{option} matches no layer; {hint} (see onnxprune inspect)")


def _near(glob: str, names: Sequence[Sequence[str]]) -> str:
    """Up to three quoted names that look like the glob, else the first three."""
    folded: dict[str, str] = {}
    for some in names:
        for name in some:
            folded.setdefault(name.casefold(), name)
    bare = glob.replace("*", "").replace("?", "").casefold()
    near = [folded[name] for name in difflib.get_close_matches(bare, folded, n=3, cutoff=0.5)]
    return ", ".join(f"'{name}'" for name in near or [some[0] for some in names[:3]])
