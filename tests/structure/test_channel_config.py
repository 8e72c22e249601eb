"""Settings of channel removal."""

from __future__ import annotations

import pytest

from onnxprune.errors import UsageError
from onnxprune.structure.config import ChannelConfig


def test_one_target() -> None:
    assert ChannelConfig(channels=0.5).align == 8
    assert ChannelConfig(macs=1).macs == 1.0
    assert ChannelConfig(speedup=2).speedup == 2.0
    with pytest.raises(UsageError, match="nothing is asked: give one of channels"):
        ChannelConfig()
    with pytest.raises(UsageError, match="channels and speedup exclude each other"):
        ChannelConfig(channels=0.5, speedup=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 1.0}, "channels is 1.0: give a share from 0"),
        ({"channels": -0.1}, "channels is -0.1"),
        ({"channels": float("nan")}, "channels is nan"),
        ({"channels": "half"}, "channels is 'half'"),
        ({"macs": 0}, "macs is 0: give a share above 0"),
        ({"macs": 1.5}, "macs is 1.5"),
        ({"speedup": 0.9}, "speedup is 0.9: give a factor of at least 1"),
        ({"speedup": float("inf")}, "speedup is inf"),
        ({"channels": 0.5, "align": 0}, "align is 0: give a whole number of at least 1"),
        ({"channels": 0.5, "align": 2.0}, "align is 2.0"),
        ({"channels": 0.5, "scope": "all"}, "scope 'all' is unknown: choose one of global, layer"),
        ({"channels": 0.5, "importance": "l1"}, "importance 'l1' is unknown: choose one of l2"),
    ],
)
def test_values_without_sense(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ChannelConfig(**settings)  # type: ignore[arg-type]
