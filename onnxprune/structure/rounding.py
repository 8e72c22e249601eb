"""Dead channels that stay: kernels of convolutions want round numbers of channels.

Measured in onnxruntime 1.32 with AVX-512, where a block is 16 channels: 62 channels take 1.25 times
as long as 64, and 60 as long; 24 in front of a pool 1.5 times as long as 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

import numpy as np

from .analysis import Coupling
from .atoms import Labels
from .contraction import Contraction
from .groups import Group
from .liveness import Survey

__all__ = ["Rounding"]

_CONVOLUTIONS = ("Conv", "ConvTranspose", "FusedConv")


class Rounding:
    """Lets some dead channels of convolutions stay, constants first: these read nothing.

    Attributes:
        kept: Atoms that stay for this reason.
    """

    def __init__(
        self,
        coupling: Coupling,
        groups: Sequence[Group],
        contractions: Sequence[Contraction],
        align: int,
    ) -> None:
        kernels = {
            site.node.input[1]
            for site in coupling.sites
            if site is not None and site.node.op_type in _CONVOLUTIONS
        }
        self._groups = [
            (group.atoms, align // gcd(align, max(repeats)))
            for group in groups
            if (repeats := [m.repeats for m in group.members if m.tensor in kernels])
        ]
        constants = [c.labels[c.fold | c.merge] for c in contractions]
        self._constants = np.unique(np.concatenate(constants)) if constants else None
        self.kept: set[int] = set()

    def __call__(self, survey: Survey) -> Labels:
        """Atoms of a group of which an odd number would stay; none where all are round."""
        for atoms, step in self._groups:
            going = survey.gone[atoms]
            missing = min(-int((~going).sum()) % step, int(going.sum()))
            if missing:
                dead = atoms[going]
                if self._constants is not None:
                    dead = dead[np.argsort(~np.isin(dead, self._constants), kind="stable")]
                self.kept.update(dead[:missing].tolist())
                return dead[:missing]
        return np.zeros(0, np.int64)
