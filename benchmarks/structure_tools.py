"""Ways to remove half of a network's channels: this package, Torch-Pruning, onnxsim."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
from torch import Tensor, nn

from benchmarks.structure_models import exported
from onnxprune.model.save import to_proto
from onnxprune.model.sources import read
from onnxprune.runtime import CannotRun, open_session, random_feeds, run
from onnxprune.structure.config import ChannelConfig
from onnxprune.structure.reduce import reduce_channels

__all__ = [
    "TOOLS",
    "Tool",
    "attentions",
    "onnxprune_reduced",
    "onnxsim_pruned",
    "outputs",
    "torch_pruned",
]

#: Projections of queries, keys and values, by the names that modules give them.
QUERIES = ("query", "key", "value", "q", "k", "v", "qkv")

#: From a network and its input to the network with half of its channels, in ONNX.
Tool = Callable[[nn.Module, Tensor], onnx.ModelProto]


def onnxprune_reduced(model: onnx.ModelProto, share: float = 0.5) -> onnx.ModelProto:
    """Every group of channels loses the share."""
    config = ChannelConfig(channels=share, scope="layer")
    return to_proto(reduce_channels(read(model), config).model)


def onnxsim_pruned(model: onnx.ModelProto, share: float = 0.5) -> onnx.ModelProto:
    """Channels and attention heads; of the model as it is where the simplified one fails."""
    import onnxsim

    failure: Exception | None = None
    for simplified in (True, False):
        try:
            given = copy.deepcopy(model)
            given = onnxsim.simplify(given)[0] if simplified else given
            pruned = onnxsim.apply_structured_pruning(given, sparsity=share)
            pruned = onnxsim.apply_attention_head_pruning(pruned, sparsity=share)
            outputs(pruned)
        except Exception as error:  # it fails in many ways
            failure = failure or error
        else:
            return pruned
    assert failure is not None
    raise failure


def outputs(model: onnx.ModelProto) -> list[Any]:
    """What a model gives for random inputs."""
    session = open_session(model.SerializeToString(), threads=1)
    failure = CannotRun("there are no inputs to try")
    for feeds in random_feeds(session):
        try:
            return run(session, feeds)
        except CannotRun as error:
            failure = error
    raise failure


def torch_pruned(
    network: nn.Module,
    sample: Tensor,
    share: float = 0.5,
    *,
    round_to: int | None = None,
    kept: Sequence[nn.Module] = (),
) -> nn.Module:
    """Torch-Pruning's group magnitude, layer by layer; whole heads of attention go.

    Args:
        network: The network; it changes.
        sample: Its input.
        share: Share of channels to remove.
        round_to: What numbers of channels are rounded to.
        kept: Further layers whose outputs stay.
    """
    import torch_pruning as tp

    found = list(attentions(network))
    heads = {layer: _heads(module, layer) for module, layers in found for layer in layers}
    last = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))][-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = tp.pruner.BasePruner(
            network,
            sample,
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=share,
            round_to=round_to,
            ignored_layers=[last, *kept],
            num_heads=heads,
            prune_num_heads=True,
            prune_head_dims=False,
            head_pruning_ratio=share,
        )
        pruner.step()
    for module, layers in found:
        left = pruner.num_heads[layers[0]]
        module.heads = left
    return network


def attentions(network: nn.Module) -> Iterator[tuple[Any, list[nn.Module]]]:
    """Modules with heads, and their projections."""
    for module in network.modules():
        layers = [getattr(module, name) for name in QUERIES if hasattr(module, name)]
        layers = [layer for layer in layers if isinstance(layer, nn.Linear)]
        if hasattr(module, "heads") and layers:
            yield module, layers


def _heads(module: Any, layer: nn.Module) -> int:
    """Heads of a projection; of grouped queries, keys and values have fewer."""
    grouped = layer in (getattr(module, "k", None), getattr(module, "v", None))
    return int(module.groups if grouped and hasattr(module, "groups") else module.heads)


def _with_torch(round_to: int | None, *, width: bool = False) -> Tool:
    def tool(network: nn.Module, sample: Tensor) -> onnx.ModelProto:
        kept: list[nn.Module] = []
        if not width:  # what feeds the residual stream of a transformer stays, as it does here
            for module in network.modules():
                kept += [getattr(module, n) for n in ("out", "down", "words", "places") if n in
                         dict(module.named_children())]  # fmt: skip
        return exported(torch_pruned(network, sample, round_to=round_to, kept=kept), sample)

    return tool


TOOLS: dict[str, Tool] = {
    "dense": exported,
    "onnxprune": lambda network, sample: onnxprune_reduced(exported(network, sample)),
    "Torch-Pruning": _with_torch(None),
    "Torch-Pruning, by 8": _with_torch(8),
    "onnxsim": lambda network, sample: onnxsim_pruned(exported(network, sample)),
}
