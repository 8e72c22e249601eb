"""The ONNX package's own backend tests as models with inputs.

Wheels of onnx ship the operator tests as Python that makes them, the PyTorch and simple ones as
files, the light ones as models with an output; those that would be downloaded are left out.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

__all__ = ["WEIGHT_OPERATORS", "Case", "collect", "frozen"]

#: Inputs that are activations, not parameters, of operators with weights.
WEIGHT_OPERATORS: dict[str, tuple[tuple[int, ...], ...]] = {
    "Conv": ((0,),),
    "ConvTranspose": ((0,),),
    "DeformConv": ((0, 2, 4),),
    "Gemm": ((0, 2), (1, 2), (0,)),
    "MatMul": ((0,), (1,)),
    "Einsum": ((0,), (1,)),
    "LSTM": ((0, 4, 5, 6),),
    "GRU": ((0, 4, 5),),
    "RNN": ((0, 4, 5),),
    "QLinearConv": ((0,),),
    "QLinearMatMul": ((0,), (3,)),
    "ConvInteger": ((0,),),
    "MatMulInteger": ((0,), (1,)),
    "DequantizeLinear": ((),),
    "Gather": ((1,),),
}
#: Modules of operator tests that a sample always takes.
WEIGHT_MODULES = (
    *("conv", "convtranspose", "deformconv", "gemm", "matmul", "einsum", "lstm", "gru", "rnn"),
    *("qlinearconv", "qlinearmatmul", "convinteger", "matmulinteger", "if_", "loop", "scan"),
    *("dropout", "dequantizelinear", "gather", "sequence_map"),
)


@dataclass(frozen=True)
class Case:
    """A model, its inputs by name, and where it comes from."""

    name: str
    group: str
    model: ModelProto
    feeds: dict[str, Any]


def collect(sample: int | None = None, seed: int = 0) -> list[Case]:
    """All backend tests, or a seeded sample that is quick to make.

    Args:
        sample: How many; None for all.
        seed: Of the sample.
    """
    cases = [*_operators(sample, seed), *_stored()]
    if sample is None:
        return cases
    return random.Random(seed).sample(cases, min(sample, len(cases)))


def _operators(sample: int | None, seed: int) -> Iterator[Case]:
    import onnx.backend.test.case.model as whole_models
    import onnx.backend.test.case.node as operators

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if sample is None:
            tests = operators.collect_testcases(None)
            tests += whole_models.collect_testcases()
        else:
            names = [module.name for module in pkgutil.iter_modules(operators.__path__)]
            taken = {*WEIGHT_MODULES, *random.Random(seed).sample(names, 25)}
            for name in sorted(taken.intersection(names)):
                importlib.import_module(f"{operators.__name__}.{name}")
            tests = list(operators._NodeTestCases)
    for test in tests:
        values = test.data_sets[0][0] if test.data_sets else []
        if test.model is not None:
            yield Case(test.name, test.kind, test.model, _named(test.model, values))


def _named(model: ModelProto, values: Sequence[Any]) -> dict[str, Any]:
    names = [value.name for value in model.graph.input]
    return dict(zip(names, map(_plain, values), strict=False))


def _plain(value: Any) -> Any:
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, np.generic):
        return np.asarray(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _stored() -> Iterator[Case]:
    root = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for group in ("simple", "pytorch-operator", "pytorch-converted", "node"):
        for path in sorted((root / group).glob("*/model.onnx")):
            model = onnx.load(path)
            yield Case(path.parent.name, group, model, _read_inputs(path.parent, model))
    for path in sorted((root / "light").glob("*.onnx")):
        yield Case(path.stem, "light", onnx.load(path), {})


def _read_inputs(folder: Path, model: ModelProto) -> dict[str, Any]:
    """The first set of inputs of a stored test."""
    feeds: dict[str, Any] = {}
    for number, value in enumerate(model.graph.input):
        path = folder / "test_data_set_0" / f"input_{number}.pb"
        if not path.is_file():
            break
        kind = value.type.WhichOneof("value")
        if kind == "tensor_type":
            feeds[value.name] = numpy_helper.to_array(onnx.load_tensor(str(path)))
        elif kind == "sequence_type":
            sequence = onnx.SequenceProto.FromString(path.read_bytes())
            feeds[value.name] = numpy_helper.to_list(sequence)
    return feeds


def frozen(case: Case) -> Iterator[Case]:
    """The same test with inputs turned into constants, so that there is something to prune.

    Operators with weights get every input as a constant that is no activation: as initializers,
    as Constant nodes, both branches of an If holding them, and a function holding them. Other
    models get every input but the first as an initializer.
    """
    graph = case.model.graph
    if len(graph.node) == 1 and graph.node[0].op_type in WEIGHT_OPERATORS:
        node = graph.node[0]
        for number, activations in enumerate(WEIGHT_OPERATORS[node.op_type]):
            names = {n for i, n in enumerate(node.input) if n and i not in activations}
            stored = list(_with_constants(case, names, f"initializers{number}", nodes=False))
            inside = list(_with_constants(case, names, f"constants{number}", nodes=True))
            yield from (*stored, *inside, *map(_in_if, stored), *map(_in_function, inside))
    elif len(graph.input) > 1:
        names = {value.name for value in graph.input[1:]}
        yield from _with_constants(case, names, "initializers", nodes=False)


def _in_if(case: Case) -> Case:
    """The graph as both branches of an If, which read the inputs from outside."""
    model = ModelProto()
    model.CopyFrom(case.model)
    branch = GraphProto()
    branch.CopyFrom(model.graph)
    branch.ClearField("input")
    for value in model.graph.output:
        value.name += "_chosen"
    outputs = [value.name for value in model.graph.output]
    node = helper.make_node(
        "If", ["yes"], outputs, "choice", then_branch=branch, else_branch=branch
    )
    for emptied in ("node", "initializer", "value_info"):
        model.graph.ClearField(emptied)
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    model.graph.node.append(node)
    return replace(case, name=f"{case.name} in If", model=model)


def _in_function(case: Case) -> Case:
    """The nodes as a model-local function that the graph calls."""
    model = ModelProto()
    model.CopyFrom(case.model)
    inputs = [value.name for value in model.graph.input]
    outputs = [value.name for value in model.graph.output]
    function = helper.make_function(
        "local", "Body", inputs, outputs, list(model.graph.node), list(model.opset_import)
    )
    model.graph.ClearField("node")
    model.graph.ClearField("value_info")
    model.graph.node.append(helper.make_node("Body", inputs, outputs, "call", domain="local"))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.append(function)
    model.ir_version = max(model.ir_version, 8)
    return replace(case, name=f"{case.name} in function", model=model)


def _with_constants(case: Case, names: set[str], label: str, *, nodes: bool) -> Iterator[Case]:
    types = {value.name: value.type for value in case.model.graph.input}
    fixed = {
        name: value
        for name, value in case.feeds.items()
        if name in names and isinstance(value, np.ndarray) and types[name].HasField("tensor_type")
    }
    if not fixed:
        return
    model = ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    kept = [value for value in graph.input if value.name not in fixed]
    graph.ClearField("input")
    graph.input.extend(kept)
    for name, value in fixed.items():
        tensor = _tensor(value, types[name].tensor_type.elem_type, name)
        if nodes:
            graph.node.insert(0, helper.make_node("Constant", [], [name], value=tensor))
        else:
            graph.initializer.append(tensor)
    feeds = {name: value for name, value in case.feeds.items() if name not in fixed}
    model.ir_version = max(model.ir_version, 4)
    yield replace(case, name=f"{case.name}+{label}", group="frozen", model=model, feeds=feeds)


def _tensor(value: np.ndarray, kind: int, name: str) -> TensorProto:
    if kind == TensorProto.STRING or value.dtype == object:
        flat = np.array([str(item) for item in value.reshape(-1)], object)
        return numpy_helper.from_array(flat.reshape(value.shape), name)
    return numpy_helper.from_array(value.astype(helper.tensor_dtype_to_np_dtype(kind)), name)
