"""Models that mutations start from: small ones of every kind, made here, and real ones."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, helper, numpy_helper

import onnxprune
from tests.corpus.cases import collect, frozen
from tests.corpus.made import made
from tests.fuzzing.texts import TEXTS

__all__ = ["SAMPLES", "Seed", "seeds"]

#: Samples of the data beside a seed.
SAMPLES = 8
#: Files of more bytes are no seeds: a case has to take milliseconds.
LARGEST = 60_000


@dataclass(frozen=True)
class Seed:
    """A model to mutate, and samples that it runs on.

    Attributes:
        name: Unique among the seeds.
        data: The serialised model.
        arrays: Samples by input name, with ``labels``; empty where there are none.
    """

    name: str
    data: bytes
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def model(self) -> ModelProto:
        """A copy to change."""
        return ModelProto.FromString(self.data)


@cache
def seeds(corpus: bool = True) -> tuple[Seed, ...]:
    """All seeds, in an order of their own; made models first.

    Args:
        corpus: Also the backend tests of the onnx package and, where ``ONNXPRUNE_ZOO`` names
            them, real models.
    """
    found = [*_made(), *_stored_forms()]
    if corpus:
        found += [*_backend(), *_real()]
    return tuple(found)


def _made() -> Iterator[Seed]:
    for name, (text, weights) in TEXTS.items():
        model = _with_weights(onnx.parser.parse_model(text), weights)
        yield Seed(name, model.SerializeToString(), _samples(model))
    for case in made():
        yield Seed(f"made/{case.name}", case.model.SerializeToString(), _samples(case.model))


def _with_weights(model: ModelProto, weights: str) -> ModelProto:
    """Inputs that `weights` names, separated by spaces, as initializers of random values."""
    random = np.random.default_rng(0)
    named = {value.name: value for value in model.graph.input}
    for name in weights.split():
        tensor = named[name].type.tensor_type
        shape = [dim.dim_value for dim in tensor.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        values = random.standard_normal(shape)
        values = np.abs(values) * 9 if np.dtype(dtype).kind in "ui" else values
        model.graph.initializer.append(numpy_helper.from_array(values.astype(dtype), name))
        if model.ir_version > 3:
            model.graph.input.remove(named[name])
    return model


def _samples(model: ModelProto) -> dict[str, np.ndarray]:
    """Random samples for plain inputs, and labels; nothing where an input has no plain type."""
    random, arrays = np.random.default_rng(1), {}
    stored = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in stored:
            continue
        tensor = value.type.tensor_type
        try:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        except KeyError:
            return {}
        shape = [dim.dim_value or 4 for dim in tensor.shape.dim]
        shape[:1] = [SAMPLES] if shape else []
        if dtype.kind not in "fiub" or dtype.itemsize > 8:
            return {}
        whole = random.integers(0, 2, shape)
        arrays[value.name] = (random.standard_normal(shape) if dtype.kind == "f" else whole).astype(
            dtype
        )
    return {**arrays, "labels": random.integers(0, 3, SAMPLES)}


def _stored_forms() -> Iterator[Seed]:
    """What onnxprune itself writes, in every form."""
    sizes: dict[str, tuple[int, ...]] = {"small": (16, 24, 4), "wide": (40, 60, 4)}
    for title, shape in sizes.items():
        model = _mlp(shape)
        for form in ("sparse", "constant", "gaps"):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "m.onnx")
                onnxprune.prune(model, sparsity=0.9, format=form, check=False).save(path)
                yield Seed(f"stored/{form} {title}", path.read_bytes(), _samples(model))


def _mlp(sizes: tuple[int, ...]) -> ModelProto:
    inputs, hidden, outputs = sizes
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        mlp (float[N,{inputs}] x, float[{inputs},{hidden}] w, float[{hidden},{outputs}] v)
            => (float[N,{outputs}] y)
        {{ h = MatMul(x, w) a = Relu(h) y = MatMul(a, v) }}"""
    return _with_weights(onnx.parser.parse_model(text), "w v")


def _backend() -> Iterator[Seed]:
    """Backend tests with something to prune, each with its parameters as constants."""
    taken: set[str] = set()
    for case in collect():
        if case.model.ByteSize() > LARGEST:
            continue
        variants = list(frozen(case))
        for variant in variants[:2] or [case]:
            # A family such as test_reduce_* is represented by a few of its members.
            operators = ",".join(node.op_type for node in variant.model.graph.node)
            key = f"{operators} {len(variant.model.graph.initializer)} {variant.name[:14]}"
            if key not in taken and variant.model.ByteSize() <= LARGEST:
                taken.add(key)
                model = variant.model
                yield Seed(f"backend/{variant.name}", model.SerializeToString(), _samples(model))


def _real() -> Iterator[Seed]:
    folder = os.environ.get("ONNXPRUNE_ZOO")
    for path in sorted(Path(folder, "models").glob("*.onnx")) if folder else ():
        if path.stat().st_size <= LARGEST and "light" not in path.stem:
            data = path.read_bytes()
            yield Seed(f"real/{path.stem}", data, _samples(ModelProto.FromString(data)))
