"""What a report says of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..evaluation import Meter
from ..finetune import FineTune
from ..graph.layer import Layer, LayerScan
from ..recipes import recipe_text
from ..report.training import EpochRow, FrozenRow, RoundRow, Training
from .loop import Totals
from .setup import RoundSetup, Teaching

__all__ = ["training_facts"]

#: Operators with weights that no gradient rule covers.
_RECURRENT = frozenset(("LSTM", "GRU", "RNN"))


def training_facts(
    teaching: Teaching,
    setup: RoundSetup,
    scan: LayerScan,
    meter: Meter | None,
    rounds: Sequence[RoundRow],
    history: Sequence[EpochRow],
    totals: Totals,
    *,
    seconds: float,
    resumed: bool,
) -> Training:
    """Facts of a whole training; `setup` is that of the last round."""
    settings, graphs = teaching.settings, setup.graphs
    return Training(
        engine=_engine(setup),
        data=teaching.data.description,
        loss=graphs.loss.description,
        optimizer=optimizer_text(settings),
        rate=settings.rate,
        schedule=settings.lr_schedule,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        metric=meter.metric if meter else None,
        better=meter.better if meter else "higher",
        share=meter.share if meter else True,
        trained_parameters=sum(graphs.initial[name].size for name in graphs.parameters),
        trained_tensors=len(graphs.parameters),
        frozen=_frozen(setup, scan),
        rounds=tuple(rounds),
        epoch_rows=tuple(history),
        steps=totals.steps,
        seconds=seconds,
        samples_per_second=totals.samples / totals.step_seconds if totals.step_seconds else 0.0,
        resumed=resumed,
        stopped_early=totals.stopped_early,
        recipe=recipe_text(settings),
        method=method_text(settings),
        notes=_notes(setup, settings),
    )


def optimizer_text(settings: FineTune) -> str:
    """The optimizer with its settings, in one phrase."""
    if settings.optimizer == "adamw":
        parts = [f"weight decay {settings.l2:g}"] if settings.l2 else []
    else:
        kind = "Nesterov momentum" if settings.nesterov else "momentum"
        parts = [f"{kind} {settings.momentum:g}"] if settings.momentum else []
        parts += [f"L2 {settings.l2:g}"] if settings.l2 else []
    if settings.clip_norm is not None:
        parts.append(f"gradient norm at most {settings.clip_norm:g}")
    return ", ".join([settings.optimizer, *parts])


def method_text(settings: FineTune) -> str:
    """How weights go while the model is trained, in one phrase; empty where they go before."""
    if settings.method == "iterative":
        return ""
    settled = f"masks settled after {1 - settings.settle:.0%} of the steps"
    if settings.saliency != "magnitude":
        settled += f", saliency {settings.saliency}"
    if settings.ramp == 0:
        return f"{settings.method}: thresholds at full height from the start, {settled}"
    rise = f"thresholds rising ({settings.rounds_schedule}) over {settings.ramp:.0%} of the steps"
    return f"{settings.method}: {rise}, {settled}"


def _engine(setup: RoundSetup) -> str:
    if setup.engine.name != "onnxprune":
        return setup.engine.name
    import onnxruntime  # the package may be onnxruntime-gpu or another one

    return f"onnxprune on onnxruntime {onnxruntime.__version__}"


def _notes(setup: RoundSetup, settings: FineTune) -> tuple[str, ...]:
    notes = list(setup.forward.notes)
    if setup.forward.dropouts:
        count = setup.forward.dropouts
        notes.append(f"{count} Dropout node{'s were' if count > 1 else ' was'} active")
    if any(node.op_type == "BatchNormalization" for node in setup.forward.proto.graph.node):
        how = "updated" if settings.bn == "train" else "kept"
        notes.append(f"the statistics of BatchNormalization were {how} (--bn {settings.bn})")
    return tuple(notes)


def _frozen(setup: RoundSetup, scan: LayerScan) -> tuple[FrozenRow, ...]:
    """Prunable weights that were not trained."""
    names = {address: name for name, address in setup.forward.addresses.items()}
    trained = set(setup.graphs.parameters)
    rows = []
    for layer in scan.layers:
        name = names.get(layer.address)
        if name in trained:
            continue
        known: Mapping[str, str] = setup.graphs.selection.frozen
        reason = _untrainable(layer) or known.get(name or "", "")
        use = layer.uses[0] if len(layer.uses) == 1 else None
        operator = layer.uses[0].op_type if layer.uses else ""
        rows.append(FrozenRow(layer.name, use.node if use else "", operator, reason))
    return tuple(rows)


def _untrainable(layer: Layer) -> str | None:
    """Why a layer has no gradient whatever is asked for."""
    recurrent = {use.op_type for use in layer.uses} & _RECURRENT
    if recurrent:
        return f"weights of {min(recurrent)} are not trained"
    if layer.quantization is not None:
        return "quantised weights are not trained"
    if layer.address.scope and not layer.address.scope[0].startswith("function "):
        return "weights inside If, Loop and Scan are not trained"
    return None
