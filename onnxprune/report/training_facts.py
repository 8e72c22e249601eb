"""The lines of a summary that say how the weights were retrained."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Fact, some_names
from .format import Glyphs, count, metric_text, number, plural, safe, seconds_text
from .training import Training

__all__ = ["training_facts"]

REASONS_SHOWN = 3


def training_facts(training: Training, glyphs: Glyphs) -> Iterator[Fact]:
    """Return the lines about a training, in reading order."""
    yield Fact("training", _extent(training))
    if training.recipe:
        yield Fact("recipe", safe(training.recipe))
    if training.method:
        yield Fact("method", safe(training.method))
    yield Fact("data", safe(training.data))
    yield Fact("loss", _loss(training, glyphs))
    yield Fact(
        "optimizer",
        f"{safe(training.optimizer)}; learning rate {number(training.rate)}"
        f" ({safe(training.schedule)}), batches of {training.batch_size:,}",
    )
    yield from _kept(training)
    yield Fact(
        "trained",
        f"{count(training.trained_parameters)} parameters in"
        f" {plural(training.trained_tensors, 'tensor')}",
    )
    for note in training.notes:
        yield Fact("trained", safe(note))
    yield from _frozen(training)


def _extent(training: Training) -> str:
    """How much was done, in which time, by what."""
    done = len(training.epoch_rows)
    asked = training.epochs * max(len(training.rounds), 1)
    parts = [
        plural(done, "epoch") if done == asked else f"{done:,} of {plural(asked, 'epoch')}",
        f" in {plural(len(training.rounds), 'round')}" if len(training.rounds) > 1 else "",
        f" ({', '.join(how)})" if (how := _circumstances(training)) else "",
        f": {plural(training.steps, 'step')} in {seconds_text(training.seconds)},"
        f" {training.samples_per_second:,.0f} samples/s, by {safe(training.engine)}",
    ]
    return "".join(parts)


def _circumstances(training: Training) -> list[str]:
    resumed = ["resumed from a checkpoint"] if training.resumed else []
    return resumed + (["stopped early"] if training.stopped_early else [])


def _loss(training: Training, glyphs: Glyphs) -> str:
    rows = training.epoch_rows
    if not rows:
        return safe(training.loss)
    change = f"{number(rows[0].loss)} {glyphs.arrow} {number(rows[-1].loss)}"
    return f"{safe(training.loss)}: {change} from the first to the last epoch"


def _kept(training: Training) -> Iterator[Fact]:
    """Which epoch's weights were kept; the table of rounds says it where there are several."""
    if training.metric is None or len(training.rounds) != 1:
        return
    (row,) = training.rounds
    if row.best_epoch is not None:
        best = metric_text(row.metric_trained, training.share)
        yield Fact("kept", f"epoch {row.best_epoch}: the best {safe(training.metric)}, {best}")


def _frozen(training: Training) -> Iterator[Fact]:
    by_reason: dict[str, list[str]] = {}
    for row in training.frozen:
        by_reason.setdefault(row.reason, []).append(row.name)
    groups = list(by_reason.items())
    for reason, names in groups[:REASONS_SHOWN]:
        yield Fact(
            "frozen", f"{plural(len(names), 'tensor')} ({some_names(names)}): {safe(reason)}"
        )
    rest = sum(len(names) for _, names in groups[REASONS_SHOWN:])
    if rest:
        yield Fact("frozen", f"{plural(rest, 'more tensor')} for other reasons (see --json)", "dim")
