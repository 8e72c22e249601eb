"""Named bundles of settings for retraining: published methods, each setting open to change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .finetune import FineTune, RecipeName
from .options import choice

__all__ = ["RECIPES", "Recipe", "recipe", "recipe_text"]


@dataclass(frozen=True)
class Recipe:
    """A published method as settings.

    Attributes:
        source: Who published it.
        settings: Fields of `FineTune` that differ from its defaults.
    """

    source: str
    settings: Mapping[str, Any]


#: Where a recipe has no learning rate it is that of `FineTune`: a tenth of the usual one.
RECIPES: Mapping[RecipeName, Recipe] = {
    # Thresholds q x std in each layer, L2, a tenth of the rate, prune and retrain again and again
    # (sections 3.1, 3.3, 3.4). Momentum and L2 are those of Caffe's LeNets, which it prunes.
    "han2015": Recipe(
        "Han et al. 2015, Learning both Weights and Connections",
        {
            "method": "iterative",
            "rounds": 3,
            "rounds_schedule": "linear",
            "optimizer": "sgd",
            "l2": 5e-4,
            "lr_schedule": "step",
        },
    ),
    # Thresholds at full height from the first step on, weights trained beneath their masks, masks
    # looked at ever less often, then left alone.
    "guo2016": Recipe(
        "Guo et al. 2016, Dynamic Network Surgery",
        {
            "method": "splicing",
            "ramp": 0.0,
            "epochs": 20,
            "optimizer": "sgd",
            "lr": 1e-2,
            "l2": 5e-4,
        },
    ),
    # Sparsity s_t = s_f (1 - (1 - t/T)^3) while the model is trained (equation 1).
    "zhu2017": Recipe(
        "Zhu & Gupta 2017, To prune, or not to prune",
        {"method": "gradual", "rounds_schedule": "cubic", "epochs": 20, "lr": 1e-3},
    ),
}


def recipe(name: RecipeName, **changes: Any) -> FineTune:
    """The settings of a recipe.

    Args:
        name: One of `RECIPES`.
        changes: Fields of `FineTune` to have otherwise.

    Raises:
        UsageError: The name is unknown, or a value makes no sense.
    """
    choice(name, "recipe", RecipeName)
    settings = FineTune(**{**RECIPES[name].settings, **changes})
    object.__setattr__(settings, "recipe", name)  # frozen for everybody else
    return settings


def recipe_text(settings: FineTune) -> str:
    """The recipe that settings came from and what was changed; empty where there is none."""
    if settings.recipe is None:
        return ""
    found = RECIPES[settings.recipe]
    changed = [
        f"{name.replace('_', '-')} {getattr(settings, name):g}"
        if isinstance(value, float)
        else f"{name.replace('_', '-')} {getattr(settings, name)}"
        for name, value in found.settings.items()
        if getattr(settings, name) != value
    ]
    return f"{settings.recipe} ({found.source})" + (
        f", with {', '.join(changed)}" if changed else ""
    )
