"""Models at opsets 9 to 23: exported there by torch, and converted there by onnx."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, parser, version_converter

from tests.corpus.exports import nhwc_graph, torch_program, torchscript
from tests.corpus.sources import Given, Source, zoo
from tests.corpus.zoo import models

__all__ = ["OPSETS", "converted", "hand_made", "opset_of", "torch_exports"]

OPSETS = range(9, 24)
#: From here on the exporter that captures a network writes the opset without a conversion down.
CAPTURED = 18
#: Networks of tests/corpus/networks.py.
NETWORKS = ("mlp", "cnn", "depthwise", "recurrent", "encoder", "library encoder", "tied")
#: Opsets at which the architectures of tests/structure are exported, by exporter.
TRACED_AT, CAPTURED_AT = (9, 13, 17), (18, 23)
#: Networks and the opset of the export that is converted from there.
CONVERTED = (("mlp", 13), ("cnn", 9), ("cnn", 17), ("depthwise", 13), ("encoder", 17))
CONVERTED_CAPTURED = ("mlp", "cnn", "recurrent")
#: Real models of at most so many bytes are converted.
SMALL = 100_000
_TEXTS: Mapping[str, str] = {
    "perceptron": """<ir_version: 4, opset_import: ["" : 9]>
        g (float[n, 6] x) => (float[n, 3] y) {
            h = Gemm (x, w1, b1) r = Relu (h) p = MatMul (r, w2) y = Add (p, b2) }""",
    "convolutions": """<ir_version: 4, opset_import: ["" : 9]>
        g (float[n, 3, 8, 8] x) => (float[n, 4] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, k1, c1) r = Relu (c)
            m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
            t = ConvTranspose (m, k2) a = GlobalAveragePool (t)
            f = Flatten (a) y = LogSoftmax <axis = 1> (f) }""",
    "recurrent": """<ir_version: 4, opset_import: ["" : 9]>
        g (float[5, n, 6] x) => (float[5, 1, n, 4] y) {
            a = LSTM <hidden_size = 6> (x, lw, lr) s = Squeeze <axes = [1]> (a)
            y = GRU <hidden_size = 4> (s, gw, gr) }""",
}
_SHAPES: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "perceptron": {"w1": (6, 16), "b1": (16,), "w2": (16, 3), "b2": (3,), "x": (4, 6)},
    "convolutions": {"k1": (8, 3, 3, 3), "c1": (8,), "k2": (8, 4, 2, 2), "x": (2, 3, 8, 8)},
    "recurrent": {
        "lw": (1, 24, 6),
        "lr": (1, 24, 6),
        "gw": (1, 12, 6),
        "gr": (1, 12, 4),
        "x": (5, 2, 6),
    },
}


def hand_made() -> dict[str, Given]:
    """Small models of opset 9, and one of opset 13 as tf2onnx writes them."""
    random = np.random.default_rng(11)
    made = {}
    for name, text in _TEXTS.items():
        model = parser.parse_model(text)
        shapes = dict(_SHAPES[name])
        x = random.standard_normal(shapes.pop("x")).astype(np.float32)
        for weight, shape in shapes.items():
            array = random.standard_normal(shape).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, weight))
        made[name] = Given(model, ({"x": x},))
    x = random.standard_normal((2, 9, 9, 3)).astype(np.float32)
    made["tensorflow style"] = Given(nhwc_graph(), ({"image:0": x},))
    return made


def opset_of(model: ModelProto) -> int:
    """Opset of the standard operators; 1 where the model declares none."""
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1)


def converted(sources: Sequence[tuple[str, Any]] | None = None) -> Iterator[Source]:
    """Models through every opset, up and down; making one that the converter refuses raises.

    Args:
        sources: Names and what makes each; by default models made by hand, exports of torch where
            it is installed, and small real models where they are.
    """
    for name, make in _to_convert() if sources is None else sources:
        for opset in OPSETS:
            key = f"converted/{name}/{opset}"
            yield Source(key, "converted", partial(_convert, make, opset))


def _to_convert() -> Iterator[tuple[str, Any]]:
    for name, given in hand_made().items():
        yield name, partial(_same, given)
    if importlib.util.find_spec("torch"):
        for name, opset in CONVERTED:
            yield f"torch {name} of {opset}", partial(_traced, name, opset)
        if importlib.util.find_spec("onnxscript"):
            for name in CONVERTED_CAPTURED:
                yield f"torch {name} captured", partial(_captured, name, CAPTURED)
    small = {path.stem for path in models() if path.stat().st_size <= SMALL}
    for source in zoo():
        name = source.key.removeprefix("zoo/")
        if name in small and not name.startswith("onnx_light"):
            yield f"real {name}", source.make


def _same(given: Given) -> Given:
    return given


def _convert(make: Any, opset: int) -> Given:
    given: Given = make()
    if opset_of(given.model) == opset:
        return given
    model = version_converter.convert_version(given.model, opset)
    if opset_of(model) != opset:
        raise ValueError(f"the converter leaves it at opset {opset_of(model)}")
    return Given(model, given.feeds)


def torch_exports() -> Iterator[Source]:
    """Networks exported by tracing up to opset 17 and by capturing from 18 on."""
    for name in NETWORKS:
        for opset in OPSETS:
            make = _traced if opset < CAPTURED else _captured
            yield Source(f"torch/{name}/{opset}", "torch", partial(make, name, opset))
    for name in _architectures():
        for opset in (*TRACED_AT, *CAPTURED_AT):
            key = f"torch/architecture {name}/{opset}"
            yield Source(key, "torch", partial(_architecture, name, opset))


def _traced(name: str, opset: int) -> Given:
    return _at(opset, *torchscript(name, opset=opset))


@lru_cache(1)
def _captured(name: str, opset: int) -> Given:
    program, x = torch_program(name, opset=opset)
    return _at(opset, program.model_proto, x)


def _architectures() -> list[str]:
    if not importlib.util.find_spec("torch"):
        return []
    from tests.structure.test_exports import CASES

    return list(CASES)


def _architecture(name: str, opset: int) -> Given:
    from tests.structure.test_exports import CASES, exported, samples

    model = exported(name, opset >= CAPTURED, opset)
    length = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    return _at(opset, model, samples(CASES[name][1], 2, length)["x"])


def _at(opset: int, model: ModelProto, x: np.ndarray) -> Given:
    if opset_of(model) != opset:
        raise ValueError(f"torch leaves the model at opset {opset_of(model)}")
    return Given(model, ({model.graph.input[0].name: x},))
