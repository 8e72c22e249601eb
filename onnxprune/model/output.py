"""A model and its data file as one output: replaced together, so that a crash leaves a whole pair.

Two files cannot be renamed at once. A new data file therefore never takes the name of the one that
the old model refers to: the new model's rename is the moment at which the new pair replaces the
old one. Where the data is the same as before, the old file is kept.

Runs that write the same target take turns (`staging`). Where a file system has no locks, every run
gives its data file a name that no other run can have, and keeps no old one: a pair is never mixed
there either.
"""

from __future__ import annotations

import filecmp
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ..errors import ModelError
from .leftovers import record
from .load import load
from .model import Model
from .save import data_blocks, data_places, model_file
from .staging import Staging

__all__ = ["StagedModel", "stage_model", "unwritten"]


@dataclass(frozen=True)
class StagedModel:
    """A model written in a staging folder, under the names that it will have.

    Attributes:
        stage: The staging folder.
        path: The model file in it.
        files: Every file of the new pair, the model last.
        bytes: Their size.
        moved: Names to move to the target, the model last.
        replaced: Data files of the old model that nothing refers to afterwards.
    """

    stage: Staging
    path: Path
    files: tuple[Path, ...]
    bytes: int
    moved: tuple[str, ...]
    replaced: tuple[Path, ...] = ()

    def commit(self) -> None:
        """Put the new pair in place, then remove the old model's data.

        A process killed in between has noted what is then left to be removed.
        """
        data = [self.stage.folder / name for name in self.moved[:-1]]
        if data or self.replaced:
            record(self.stage.folder, (*data, *self.replaced))
        self.stage.commit(list(self.moved))
        for path in self.replaced:
            with suppress(OSError):
                path.unlink()


def stage_model(
    model: Model, stage: Staging, target: Path, *, external: bool, inputs: tuple[Path, ...] = ()
) -> StagedModel:
    """Write a model for `target` into a staging folder.

    Args:
        model: The model.
        stage: A staging folder beside the target.
        target: Where the model file will be.
        external: Whether dense tensors go to a data file beside it.
        inputs: Files that must stay as they are.

    Raises:
        OutputError: A single file would be 2 GB or more.
    """
    path, old = stage.folder / target.name, _own_data(target, inputs)
    places = data_places(model) if external else {}
    if not places:  # no dense tensor is left for a data file
        size = stage.write(path.name, model_file(model).blocks())
        return StagedModel(stage, path, (path,), size, (path.name,), old)
    fresh = stage.folder / ".data"
    data_size = stage.write(fresh.name, data_blocks(model, places))
    kept = old if stage.alone else ()  # another run may be about to remove them
    same = next((file for file in kept if filecmp.cmp(file, fresh, shallow=False)), None)
    name = same.name if same is not None else _free_name(target, alone=stage.alone)
    fresh.rename(stage.folder / name)
    size = stage.write(path.name, model_file(model, data=name, places=places).blocks())
    moved = (path.name,) if same is not None else (name, path.name)
    replaced = tuple(file for file in old if file != same)
    files = (stage.folder / name, path)
    return StagedModel(stage, path, files, data_size + size, moved, replaced)


def unwritten(model: Model, name: str, *, external: bool) -> tuple[int, Iterator[memoryview]]:
    """Bytes that a model would take under this file name, and the bytes themselves."""
    if not external:
        joined = model_file(model)
        return joined.size, joined.blocks()
    places = data_places(model)
    joined = model_file(model, data=f"{name}.data", places=places)
    data_size = max((sum(place) for place in places.values()), default=0)
    return joined.size + data_size, chain(data_blocks(model, places), joined.blocks())


def _data_names(target: Path) -> Iterator[str]:
    """Names for the data file of `target`, the plain one first."""
    yield f"{target.name}.data"
    number = 1
    while True:
        yield f"{target.name}.{number}.data"
        number += 1


def _free_name(target: Path, *, alone: bool) -> str:
    if not alone:
        return f"{target.name}.{secrets.token_hex(8)}.data"
    return next(name for name in _data_names(target) if not (target.parent / name).exists())


def _own_data(target: Path, inputs: tuple[Path, ...]) -> tuple[Path, ...]:
    """Data files of the model at `target` that carry a name of ours; none where there is none."""
    if not target.exists():
        return ()
    try:
        return tuple(
            file
            for file in load(target).origin.data_files
            if file.parent == target.parent
            and file.name.startswith(f"{target.name}.")
            and file.name.endswith(".data")
            and not any(file.samefile(other) for other in inputs)
        )
    except (ModelError, FileNotFoundError):  # without locks, another run may have removed it
        return ()
