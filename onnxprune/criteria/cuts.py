"""The criteria by their names: each is a cut, which prunes a model to a share of zeros."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..config import Criterion
from ..graph.layer import Layer
from ..model.model import Model
from ..pattern import GroupPattern
from ..pruning.plan import Progress
from ..repair.gradual import Reached, schedule
from ..repair.repair import Repairer
from .sparsegpt import SparseGptCut
from .wanda import WandaCut
from .wanted import Wanted, least_by_magnitude

__all__ = ["CUTS", "ONCE", "Cut", "MagnitudeCut", "StepwiseCut", "choice", "steps"]

#: Prunes a model, in its working form, to a share of zeros, 0 to 1; zeros stay.
Cut = Callable[[Model, float], Model]


@dataclass(frozen=True, eq=False)
class MagnitudeCut:
    """Removes the least magnitudes; attributes as those of `WandaCut`."""

    repairer: Repairer
    layers: Sequence[Layer]
    wanted: Wanted
    progress: Progress | None = None

    def __call__(self, model: Model, share: float) -> Model:
        """The model with this share of zeros."""
        return least_by_magnitude(model, self.layers, replace(self.wanted, share=share))


@dataclass(frozen=True, eq=False)
class StepwiseCut:
    """A cut as the `Way` of a pruning in steps.

    Attributes:
        cut: The cut.
        layers: The layers that it prunes.
    """

    cut: Cut
    layers: Sequence[Layer]

    def __call__(self, reached: Reached, share: float) -> Model:
        """The model with this share of zeros."""
        return self.cut(reached.model, share)


#: Makes a cut for the layers of a repairer.
MakeCut = Callable[[Repairer, Sequence[Layer], Wanted, Progress | None], Cut]

CUTS: Mapping[Criterion, MakeCut] = {
    "magnitude": MagnitudeCut,
    "wanda": WandaCut,
    "sparsegpt": SparseGptCut,
}
#: Criteria that change what is left as they prune: they go to the end at once.
ONCE = frozenset(("sparsegpt",))

_NAMES: Mapping[Criterion, str] = {
    "magnitude": "least magnitude",
    "wanda": "least magnitude x norm of its input (wanda)",
    "sparsegpt": "least loss that the others make up for (sparsegpt)",
}


def steps(wanted: Wanted) -> tuple[float, ...]:
    """Shares of zeros to go through, with a refit after each; a group N:M loses one at a time."""
    if isinstance(wanted.pattern, GroupPattern):
        of, gone = wanted.pattern.of, wanted.pattern.of - wanted.pattern.keep
        return tuple(lost / of for lost in range(1, gone + 1))
    return schedule(wanted.share)


def choice(criterion: Criterion, wanted: Wanted, count: int = 1) -> str:
    """What the report says of a criterion; `count`: in how many steps."""
    together = "over all layers" if wanted.scope == "global" else "in every layer"
    if isinstance(wanted.pattern, GroupPattern):
        where = f"in groups {wanted.pattern}"
    elif wanted.pattern is not None:
        where = f"in blocks {wanted.pattern} {together}"
    elif criterion == "wanda" and wanted.scope == "layer":
        where = "within every output"
    else:
        where = together
    return f"{_NAMES[criterion]} {where}" + (f", in {count} steps" if count > 1 else "")
