"""Checking gradient rules against finite differences in float64 and against PyTorch.

CASES = [
    Case("Relu", (2, 3), avoid=(0.0,), torch=lambda t, x: t.relu(x)),
    Case("Concat", (2, 3), (2, 1), axis=1, torch=lambda t, *x: t.cat(x, 1)),
]
test_finite_differences, test_torch = gradient_tests(CASES)
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.training.backward import pull_back
from onnxprune.training.builder import TRAINING_OPSET, GraphBuilder
from tests.training.evaluate64 import evaluate, evaluator64

TOLERANCE = 1e-4
Reference = Callable[..., Any]


@dataclass(frozen=True)
class Draw:
    """A float input: its shape, the range of its values, and points to keep away from.

    `distinct`: all values of the tensor differ from each other by a margin (for maxima).
    """

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    avoid: tuple[float, ...] = ()
    distinct: bool = False

    def values(self, random: np.random.Generator) -> np.ndarray:
        count = int(np.prod(self.shape))
        if self.distinct:
            steps = random.permutation(count) + random.uniform(0.1, 0.4, count)
            drawn = self.low + (self.high - self.low) * steps / max(count, 1)
        else:
            drawn = random.uniform(self.low, self.high, count)
        for point in self.avoid:
            near = np.abs(drawn - point) < 0.02
            drawn[near] = point + np.where(drawn[near] < point, -0.05, 0.05)
        return drawn.reshape(self.shape).astype(np.float32)


@dataclass(frozen=True)
class Fixed:
    """An input that is a constant of the model; no gradient is asked for."""

    array: np.ndarray


class Case:
    """One node with the inputs to check it at.

    Args:
        op_type: The operator.
        inputs: For every input a shape (drawn from [-2, 2]), a Draw, a float array (these very
            values), an integer or boolean array or a Fixed (a constant), or None (left out).
        torch: The same in PyTorch: gets the torch module, then all inputs given, as tensors.
        reference: The same in numpy, for operators that nothing computes in float64.
        avoid: Points that drawn inputs keep away from: kinks.
        domain: The operator's domain.
        outputs: Number of outputs.
        seeded: Outputs that the loss depends on; all float ones by default.
        modes: What shape inference knows of the inputs: "static" sizes, "symbolic" names only,
            "unranked" nothing.
        opset: Opset of the model.
        name: Name of the test case.
        attributes: Attributes of the node.
    """

    def __init__(
        self,
        op_type: str,
        *inputs: tuple[int, ...] | Draw | Fixed | np.ndarray | None,
        torch: Reference | None = None,
        reference: Reference | None = None,
        avoid: tuple[float, ...] = (),
        domain: str = "",
        outputs: int = 1,
        seeded: Sequence[int] | None = None,
        modes: Sequence[str] = ("static", "symbolic"),
        opset: int = TRAINING_OPSET,
        name: str = "",
        **attributes: Any,
    ) -> None:
        self.text = name or _describe(op_type, inputs, attributes)
        random = np.random.default_rng(zlib.crc32(self.text.encode()))
        values: dict[str, np.ndarray] = {}
        fixed: set[str] = set()
        names = []
        for position, given in enumerate(inputs):
            names.append("" if given is None else f"x{position}")
            if given is None:
                continue
            if isinstance(given, tuple):
                given = Draw(given, avoid=avoid)
            if isinstance(given, Draw):
                values[names[-1]] = given.values(random)
                continue
            array = given.array if isinstance(given, Fixed) else np.asarray(given)
            values[names[-1]] = array
            if isinstance(given, Fixed) or array.dtype.kind != "f":
                fixed.add(names[-1])
        results = [f"y{i}" for i in range(outputs)]
        node = helper.make_node(op_type, names, results, name="node", domain=domain, **attributes)
        self.check_ = Check(
            [node], values, results, fixed, torch, reference, seeded, tuple(modes), opset
        )

    def __str__(self) -> str:
        return self.text

    def check(self) -> None:
        """Compare with finite differences."""
        self.check_.finite_differences()

    def check_torch(self) -> None:
        """Compare with PyTorch."""
        self.check_.pytorch()


@dataclass
class Check:
    """A small graph with the inputs to check its gradients at; see `Case`."""

    nodes: Sequence[onnx.NodeProto]
    values: Mapping[str, np.ndarray]
    outputs: Sequence[str]
    fixed: set[str] = field(default_factory=set)
    torch: Reference | None = None
    reference: Reference | None = None
    seeded: Sequence[int] | None = None
    modes: tuple[str, ...] = ("static", "symbolic")
    opset: int = TRAINING_OPSET

    def finite_differences(self) -> None:
        expected = self._numeric()
        for mode in self.modes:
            self._compare(self.gradients(mode), expected, f"finite differences, {mode}")
        for name in expected:
            alone = self.gradients(self.modes[0], [name])
            self._compare(alone, {name: expected[name]}, "finite differences, alone")

    def pytorch(self) -> None:
        torch = pytest.importorskip("torch", reason="PyTorch is not installed")
        assert self.torch is not None
        tensors = {name: torch.tensor(_double(value)) for name, value in self.values.items()}
        for name in self._wanted():
            tensors[name].requires_grad_()
        results = self.torch(torch, *tensors.values())
        results = results if isinstance(results, tuple | list) else (results,)
        loss = sum(
            (results[int(name[1:])] * torch.tensor(_double(value))).sum()
            for name, value in self._cotangents().items()
        )
        loss.backward()
        expected = {
            name: np.zeros(self.values[name].shape)
            if tensors[name].grad is None
            else tensors[name].grad.numpy()
            for name in self._wanted()
        }
        self._compare(self.gradients(self.modes[0]), expected, "PyTorch")

    def model(self, mode: str = "static") -> ModelProto:
        """The forward graph."""
        inputs = [
            helper.make_tensor_value_info(name, _enum(value), _declared(name, value.shape, mode))
            for name, value in self.values.items()
            if name not in self.fixed
        ]
        tensors = [numpy_helper.from_array(self.values[name], name) for name in sorted(self.fixed)]
        graph = helper.make_graph(list(self.nodes), "g", inputs, [], tensors)
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        known = GraphBuilder(_copy(model)).values
        for name in self.outputs:
            dtype = known.dtype(name) or TensorProto.FLOAT
            model.graph.output.append(helper.make_tensor_value_info(name, dtype, None))
        return model

    def gradients(self, mode: str, wanted: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Run the ONNX gradient graph in float32."""
        model = self.model(mode)
        builder = GraphBuilder(model)
        seeds = {}
        for name, value in self._cotangents().items():
            shape = builder.shape(name) if mode != "unranked" else None
            info = helper.make_tensor_value_info(f"d{name}", _enum(value), shape)
            model.graph.input.append(info)
            seeds[name] = f"d{name}"
            builder.values.declare(f"d{name}", name)
        found = pull_back(builder, seeds, wanted or self._wanted())
        del model.graph.output[:]
        for name, gradient in found.items():
            builder.op("Identity", gradient, name=f"gradient:{name}")
            info = helper.make_tensor_value_info(
                f"gradient:{name}", TensorProto.FLOAT, builder.shape(gradient)
            )
            model.graph.output.append(info)
        feeds = {name: value for name, value in self.values.items() if name not in self.fixed}
        feeds |= {f"d{name}": value for name, value in self._cotangents().items()}
        read = {name for node in model.graph.node for name in node.input}
        if mode != "unranked":  # without shapes the checker objects
            onnx.checker.check_model(model, full_check=True)
        results = evaluate(model, {name: value for name, value in feeds.items() if name in read})
        for name, gradient in found.items():
            static = builder.static_shape(gradient)
            assert static in (None, results[f"gradient:{name}"].shape), f"shape known of d{name}"
        return {name: results[f"gradient:{name}"] for name in found}

    def _wanted(self) -> list[str]:
        return [
            name
            for name, value in self.values.items()
            if name not in self.fixed and value.dtype.kind == "f"
        ]

    def _forward(self) -> dict[str, np.ndarray]:
        if self.reference is not None:
            results = self.reference(*(_double(value) for value in self.values.values()))
            results = results if isinstance(results, tuple) else (results,)
            return dict(zip(self.outputs, results, strict=False))
        return evaluator64(self.model(), self.values)({})

    def _cotangents(self) -> dict[str, np.ndarray]:
        """Random gradients of the outputs, in float32."""
        random = np.random.default_rng(7)
        results = self._forward()
        chosen = range(len(self.outputs)) if self.seeded is None else self.seeded
        shapes = {
            name: results[name].shape
            for name in (self.outputs[i] for i in chosen)
            if results.get(name) is not None and results[name].dtype.kind == "f"
        }
        return {
            name: np.asarray(
                random.uniform(0.5, 1.5, shape) * random.choice([-1.0, 1.0], shape), np.float32
            )
            for name, shape in shapes.items()
        }

    def _numeric(self) -> dict[str, np.ndarray]:
        """Central differences of sum(cotangent * output)."""
        cotangents = {name: _double(value) for name, value in self._cotangents().items()}
        if self.reference is None:
            run = evaluator64(self.model(), self.values)
        else:
            reference = self.reference

            def run(changed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
                given = {name: _double(value) for name, value in self.values.items()} | changed
                results = reference(*given.values())
                results = results if isinstance(results, tuple) else (results,)
                return dict(zip(self.outputs, results, strict=False))

        def loss(name: str, values: np.ndarray) -> float:
            results = run({name: values})
            return sum(float((results[key] * value).sum()) for key, value in cotangents.items())

        return {
            name: _central(lambda values, name=name: loss(name, values), _double(self.values[name]))
            for name in self._wanted()
        }

    def _compare(
        self, found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], what: str
    ) -> None:
        for name, value in expected.items():
            if name not in found:
                assert not np.any(np.abs(value) > 1e-7), f"no gradient of {name} ({what})"
                continue
            assert found[name].shape == value.shape, f"shape of the gradient of {name} ({what})"
            error = relative_error(found[name], value)
            assert error < TOLERANCE, (
                f"gradient of {name} against {what}: error {error:.2e}\n{found[name]}\n{value}"
            )


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest expected magnitude; inf where not finite.

    Magnitudes below 0.01 count as that: where terms of size one cancel to less, float32 rounds
    by about 5e-7, whatever is left.
    """
    if not found.size:
        return 0.0
    if not np.isfinite(found).all():
        return float("inf")
    scale = max(float(np.abs(expected).max()), 1e-2)
    return float(np.abs(found - expected).max()) / scale


def gradient_tests(cases: Sequence[Case]) -> tuple[Callable[..., None], Callable[..., None]]:
    """Two parametrised tests for a table of cases: finite differences, and PyTorch."""

    @pytest.mark.parametrize("case", cases, ids=str)
    def finite_differences(case: Case) -> None:
        case.check()

    @pytest.mark.parametrize("case", [case for case in cases if case.check_.torch], ids=str)
    def against_torch(case: Case) -> None:
        case.check_torch()

    return finite_differences, against_torch


def _central(loss: Callable[[np.ndarray], float], values: np.ndarray) -> np.ndarray:
    slopes = np.zeros(values.size)
    for index in range(values.size):
        step = 1e-5 * max(1.0, abs(values.flat[index]))
        moved = values.copy()
        moved.flat[index] += step
        above = loss(moved)
        moved.flat[index] -= 2 * step
        slopes[index] = (above - loss(moved)) / (2 * step)
    return slopes.reshape(values.shape)


def _declared(name: str, shape: tuple[int, ...], mode: str) -> list[Any] | None:
    if mode == "unranked":
        return None
    return [f"{name}_{i}" if mode == "symbolic" else size for i, size in enumerate(shape)]


def _double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _enum(array: np.ndarray) -> int:
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _describe(op_type: str, inputs: Sequence[object], attributes: Mapping[str, object]) -> str:
    parts = []
    for given in inputs:
        if isinstance(given, Draw):
            parts.append("x".join(map(str, given.shape)) or "scalar")
        elif isinstance(given, tuple):
            parts.append("x".join(map(str, given)) or "scalar")
        elif given is None:
            parts.append("none")
        else:
            array = given.array if isinstance(given, Fixed) else np.asarray(given)
            parts.append(str(array.tolist()).replace(" ", "") if array.size < 9 else "array")
    parts += [f"{key}={value}" for key, value in attributes.items()]
    return f"{op_type}({', '.join(parts)})"


__all__ = ["Case", "Check", "Draw", "Fixed", "gradient_tests", "relative_error"]
