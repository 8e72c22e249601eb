"""Removing channels against zeroing them: the smaller model must compute what the masked one does.

The masked model is the original with every product of matrices, every convolution, reading zeros
where a removed index would be multiplied: what its weights being zero there amounts to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxprune.structure.analysis import Coupling, analyse
from onnxprune.structure.groups import Group, find_groups
from onnxprune.structure.removal import remove, remove_coupled

Feeds = Mapping[str, np.ndarray]
Feed = Callable[[int], Feeds]
Via = Callable[[ModelProto], ModelProto]


def as_it_is(model: ModelProto) -> ModelProto:
    return model


def run(model: ModelProto, feeds: Feeds, *, reference: bool = False) -> list[np.ndarray]:
    """Outputs by onnxruntime; by onnx's own evaluator where onnxruntime has no kernel."""
    if reference:
        return ReferenceEvaluator(model).run(None, dict(feeds))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = {entry.name for entry in session.get_inputs()}
    return session.run(None, {name: array for name, array in feeds.items() if name in names})


def _flag(node: onnx.NodeProto, name: str) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), 0)


def _summed_letters(node: onnx.NodeProto) -> list[tuple[int, int]]:
    equation = next(a.s for a in node.attribute if a.name == "equation").decode()
    left, _, right = equation.replace(" ", "").partition("->")
    found = {}
    for operand, term in enumerate(left.split(",")):
        front, _, back = term.partition("...")
        places = [(i, c) for i, c in enumerate(front)]
        places += [(i - len(back), c) for i, c in enumerate(back)]
        for axis, letter in places:
            if letter not in right:
                found.setdefault(letter, (operand, axis))
    return list(found.values())


#: For each operator that sums over an axis of its operands: operands and axes to be masked.
SUMMED: dict[str, Callable[[onnx.NodeProto], list[tuple[int, int]]]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "FusedConv", "DeformConv"), lambda n: [(0, 1)]),
    "Gemm": lambda n: [(0, 0 if _flag(n, "transA") else 1)],
    "FusedGemm": lambda n: [(0, 0 if _flag(n, "transA") else 1)],
    **dict.fromkeys(
        ("FusedMatMul", "TransposeMatMul"), lambda n: [(0, -2 if _flag(n, "transA") else -1)]
    ),
    "GemmFastGelu": lambda n: [(0, -1)],
    "MatMul": lambda n: [(0, -1)],
    "Einsum": _summed_letters,
    "Attention": lambda n: [(0, 2), (1, 1), (2, 0)] if n.domain else [(0, -1)],
    "MultiHeadAttention": lambda n: [(0, 2), (3, 0)],
    "GroupQueryAttention": lambda n: [(0, 2)],
    **dict.fromkeys(("LSTM", "GRU", "RNN"), lambda n: [(0, 2), (2, 2)]),
}
#: The same of integer operators: a weight, its axes, and its zero point, which is its nothing.
SUMMED_CODES: dict[str, Callable[[onnx.NodeProto], tuple[int, tuple[int, ...], int]]] = {
    "QLinearConv": lambda n: (3, (1,), 5),
    "ConvInteger": lambda n: (1, (1,), 3),
    "MatMulInteger": lambda n: (1, (-2,), 3),
    "QLinearMatMul": lambda n: (3, (-2,), 5),
    "MatMulIntegerToFloat": lambda n: (1, (-2,), 5),
    "QGemm": lambda n: (3, (1 if _flag(n, "transB") else 0,), 5),
    "QAttention": lambda n: (1, (0, 1), 7),
}


def masked(coupling: Coupling, atoms: Sequence[int]) -> ModelProto:
    """The whole model with zeros wherever a removed index would be summed over."""
    model = ModelProto()
    model.CopyFrom(coupling.prepared.proto)
    gone = coupling.atoms.marks(atoms)
    nodes = []

    def removed(name: str, axis: int) -> np.ndarray:
        axes = coupling.axes.get(name, ())
        return gone[coupling.atoms.resolve(axes[axis])] if axes else np.zeros(0, bool)

    for number, node in enumerate(model.graph.node):
        if node.op_type in SUMMED_CODES:
            weight, axes, zero = SUMMED_CODES[node.op_type](node)
            for axis in axes:
                _empty(model, node.input[weight], axis, removed(node.input[weight], axis),
                       node.input[zero] if zero < len(node.input) else "")  # fmt: skip
            if node.op_type == "QAttention":
                _empty(model, node.input[2], 0, removed(node.input[2], 0), "")
        for operand, axis in SUMMED.get(node.op_type, lambda _: [])(node):
            name = node.input[operand] if operand < len(node.input) else ""
            gap = removed(name, axis)
            if not gap.any():
                continue
            shape = [1] * len(coupling.axes[name])
            shape[axis] = len(gap)
            mask = f"mask_{number}_{operand}"
            dtype = helper.tensor_dtype_to_np_dtype(coupling.prepared.sizes.one.types[name])
            values = (~gap).astype(dtype).reshape(shape)
            model.graph.initializer.append(numpy_helper.from_array(values, mask))
            nodes.append(helper.make_node("Mul", [name, mask], [f"{mask}_product"]))
            node.input[operand] = f"{mask}_product"
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


def _empty(model: ModelProto, name: str, axis: int, gap: np.ndarray, zero: str) -> None:
    """Set a stored weight to its zero point along some indices of an axis."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    if not gap.any():
        return
    array = np.moveaxis(numpy_helper.to_array(tensors[name]).copy(), axis, 0)
    nothing = numpy_helper.to_array(tensors[zero]) if zero else np.zeros((), array.dtype)
    if nothing.size == len(gap) and axis == array.ndim - 1:
        array[gap] = nothing[gap, None]
    elif nothing.ndim == array.ndim:
        array[gap] = np.moveaxis(nothing, axis, 0)
    else:
        array[gap] = nothing.reshape(-1, *[1] * (array.ndim - 2))
    whole = np.ascontiguousarray(np.moveaxis(array, 0, axis))
    tensors[name].CopyFrom(numpy_helper.from_array(whole, name))


def half(group: Group, seed: int = 0) -> list[int]:
    return group.atoms[seed::2][: group.size // 2].tolist()


def compare(
    model: ModelProto,
    coupling: Coupling,
    atoms: Sequence[int],
    feeds: Sequence[Feeds],
    *,
    reference: bool = False,
    via: Via = as_it_is,
) -> ModelProto:
    smaller = remove_coupled(model, coupling, atoms)
    if valid(model):
        onnx.checker.check_model(smaller, full_check=True)
    whole = masked(coupling, atoms)
    for feed in feeds:
        results = (run(via(m), feed, reference=reference) for m in (whole, smaller))
        for expected, found in zip(*results, strict=True):
            assert expected.shape == found.shape
            scale = max(1.0, float(np.abs(expected).max(initial=0)))
            np.testing.assert_allclose(found, expected, atol=1e-5 * scale, rtol=1e-5)
            assert np.isfinite(found).all()
    return smaller


def prove(
    model: ModelProto,
    feed: Feed,
    sizes: Sequence[int] | None = None,
    *,
    batches: Sequence[int] = (1, 3),
    reference: bool = False,
    via: Via = as_it_is,
) -> Coupling:
    """Remove half of each group, then of all; `sizes` are those of the groups to be found.

    What is run is what `via` makes of the models, for those that no runtime takes as they are.
    """
    coupling = analyse(model)
    feeds = [feed(batch) for batch in batches]
    for one in feeds:
        whole = coupling.prepared.proto
        both = (run(via(m), one, reference=reference) for m in (model, whole))
        for expected, found in zip(*both, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)
    groups = find_groups(coupling)
    if sizes is not None:
        found = sorted(group.size for group in groups)
        assert found == sorted(sizes), f"groups of {found}, not of {sorted(sizes)}"
    for group in groups:
        atoms = half(group)
        if not atoms:
            continue
        smaller = compare(model, coupling, atoms, feeds, reference=reference, via=via)
        assert weights(smaller) < weights(coupling.prepared.proto)
        assert free_inputs(smaller) == free_inputs(model)
    every = [atom for group in groups for atom in half(group, 1)]
    if every:
        smaller = compare(model, coupling, every, feeds, reference=reference, via=via)
        assert smaller.SerializeToString() == remove(model, every).SerializeToString()
    return coupling


def valid(model: ModelProto) -> bool:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def free_inputs(model: ModelProto) -> list[str]:
    stored = {tensor.name for tensor in model.graph.initializer}
    return [info.name for info in model.graph.input if info.name not in stored]


def weights(model: ModelProto) -> int:
    from onnxprune.structure.stored import constant_tensors

    return sum(int(np.prod(t.dims)) for _, t in constant_tensors(model.graph) if len(t.dims))
