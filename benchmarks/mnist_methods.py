"""What benchmarks.mnist measures: networks, methods with their settings, published numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import onnxprune
from onnxprune.finetune import RecipeName

__all__ = ["METHODS", "NETWORKS", "PUBLISHED", "Method", "Published"]

NETWORKS = ("lenet_300_100", "lenet_5")


@dataclass(frozen=True)
class Method:
    """One way to prune a network.

    Attributes:
        title: What tables call it.
        prune: Arguments of `onnxprune.prune`.
        recipe: The recipe that the settings start from; None: the defaults.
        settings: Fields of `onnxprune.FineTune` beside that.
    """

    title: str
    prune: Mapping[str, Any]
    recipe: RecipeName | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def finetune(self, seed: int, **more: Any) -> onnxprune.FineTune:
        """The settings with a seed and others that change no result."""
        settings = {**self.settings, **more, "seed": seed}
        if self.recipe is None:
            return onnxprune.FineTune(**settings)
        return onnxprune.recipe(self.recipe, **settings)

    def command(self, network: str) -> str:
        """The same as a command line."""
        layers = dict(self.prune.get("layers", {}))
        plain = {name: value for name, value in self.prune.items() if name != "layers"}
        recipe = {} if self.recipe is None else {"recipe": self.recipe}
        parts = [f"onnxprune models/{network}.onnx --train mnist_train.npz"]
        parts += [_flag(*item) for item in {**plain, **recipe, **self.settings}.items()]
        parts += [f"--layer '{glob}={quality:g}'" for glob, quality in layers.items()]
        return " ".join([*parts, "--format gaps"])


def _flag(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if value is True:
        return flag
    return f"{flag} {value:g}" if isinstance(value, float) else f"{flag} {value}"


@dataclass(frozen=True)
class Published:
    """A row of a paper: errors in percent, weights over weights that are left."""

    method: str
    before: float
    after: float
    ratio: float


PUBLISHED: Mapping[str, tuple[Published, ...]] = {
    "lenet_300_100": (
        Published("Han et al. 2015", 1.64, 1.59, 12),
        Published("Dynamic Network Surgery 2016", 2.28, 1.99, 56),
        Published("Sparse VD 2017", 1.64, 1.92, 68),
    ),
    "lenet_5": (
        Published("Han et al. 2015", 0.80, 0.77, 12),
        Published("Dynamic Network Surgery 2016", 0.91, 0.91, 108),
        Published("Sparse VD 2017", 0.80, 0.75, 280),
    ),
}


def _at(ratio: float) -> dict[str, Any]:
    """A target share of zeros."""
    return {"sparsity": round(1 - 1 / ratio, 5)}


def _ablation(
    ratio: float, epochs: int, batch: int, *, adamw: float, sgd: float
) -> dict[str, Method]:
    """The methods one after another at one ratio, with as many epochs each (but for `longer`).

    Args:
        ratio: Weights over weights that are left.
        epochs: Epochs in all rounds together.
        batch: Samples of a step.
        adamw: Learning rate of adamw.
        sgd: Learning rate of sgd, which splicing takes.
    """
    pace: dict[str, Any] = {"lr": adamw, "l2": 0.0, "batch_size": batch}
    at, whole = _at(ratio), {**pace, "epochs": epochs}
    rounds = {**pace, "epochs": epochs // 2, "rounds": 2}
    splicing = {"lr": sgd, "batch_size": batch, "epochs": epochs}
    fisher = {**whole, "saliency": "fisher"}
    distilled = {**fisher, "distill": True, "loss": "cross-entropy"}
    return {
        "once": Method("pruned at once", at, None, whole),
        "rounds": Method("2 rounds", at, None, rounds),
        "splicing": Method("splicing", at, "guo2016", splicing),
        "gradual": Method("gradual", at, "zhu2017", whole),
        "fisher": Method("gradual, Fisher", at, "zhu2017", fisher),
        "distilled": Method("gradual, Fisher, distillation", at, "zhu2017", distilled),
        "longer": Method(
            "gradual, Fisher, distillation", at, "zhu2017", {**distilled, "epochs": 2 * epochs}
        ),
    }


def _harder(method: Method, ratio: float, epochs: int) -> Method:
    """The same at another ratio, and as long as it takes."""
    settings = {**method.settings, "epochs": epochs}
    return replace(method, prune=_at(ratio), title=f"{method.title}, {ratio:g}x", settings=settings)


_MLP = _ablation(56, 20, 128, adamw=2e-3, sgd=0.05)
_CNN = _ablation(108, 6, 128, adamw=2e-3, sgd=0.02)

METHODS: Mapping[str, Mapping[str, Method]] = {
    "lenet_300_100": {
        "han2015": Method(
            "han2015",
            {"quality": 1.9, "layers": {"fc3": 1.0}},
            "han2015",
            {"lr": 0.005, "epochs": 10},
        ),
        **_MLP,
        "harder": _harder(_MLP["fisher"], 68, 60),
        "harder_distilled": _harder(_MLP["distilled"], 68, 60),
    },
    "lenet_5": {
        "han2015": Method(
            "han2015",
            {"quality": 1.1, "layers": {"conv1": 0.3, "conv2": 1.2, "fc2": 1.0}},
            "han2015",
            {"lr": 0.01, "epochs": 15},
        ),
        **_CNN,
        "harder": _harder(_CNN["fisher"], 280, 30),
        "harder_distilled": _harder(_CNN["distilled"], 280, 30),
    },
}
