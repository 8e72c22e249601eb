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

from onnxprune.structure.analysis import Coupling, analyse
from onnxprune.structure.groups import Group, find_groups
from onnxprune.structure.removal import remove, remove_coupled

Feeds = Mapping[str, np.ndarray]
Feed = Callable[[int], Feeds]


def run(model: ModelProto, feeds: Feeds) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = {entry.name for entry in session.get_inputs()}
    return session.run(None, {name: array for name, array in feeds.items() if name in names})


def _contracted(node: onnx.NodeProto, rank: int) -> tuple[int, ...]:
    """Axes of a node's first operand that it sums over, with weights or another operand."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type in ("Conv", "ConvTranspose", "FusedConv"):
        return (1,)
    if node.op_type == "Gemm":
        return (0 if attributes.get("transA") else 1,)
    if node.op_type == "MatMul":
        return (rank - 1,)
    if node.op_type == "Attention":
        return (rank - 1,)
    if node.op_type == "Einsum":
        left, _, right = attributes["equation"].decode().replace(" ", "").partition("->")
        term = left.split(",")[0]
        return tuple(i for i, letter in enumerate(term) if letter not in right)
    return ()


def masked(coupling: Coupling, atoms: Sequence[int]) -> ModelProto:
    model = ModelProto()
    model.CopyFrom(coupling.prepared.proto)
    gone = coupling.atoms.marks(atoms)
    nodes = []
    for number, node in enumerate(model.graph.node):
        axes = coupling.axes.get(node.input[0]) if node.input else None
        for axis in _contracted(node, len(axes)) if axes is not None else ():
            keep = ~gone[coupling.atoms.resolve(axes[axis])]
            if keep.all():
                continue
            shape = [1] * len(axes)
            shape[axis] = len(keep)
            mask = f"mask_{number}_{axis}"
            values = keep.astype(np.float32).reshape(shape)
            model.graph.initializer.append(numpy_helper.from_array(values, mask))
            nodes.append(helper.make_node("Mul", [node.input[0], mask], [f"{mask}_product"]))
            node.input[0] = f"{mask}_product"
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


def half(group: Group, seed: int = 0) -> list[int]:
    return group.atoms[seed::2][: group.size // 2].tolist()


def compare(
    model: ModelProto, coupling: Coupling, atoms: Sequence[int], feeds: Sequence[Feeds]
) -> ModelProto:
    smaller = remove_coupled(model, coupling, atoms)
    if valid(model):
        onnx.checker.check_model(smaller, full_check=True)
    reference = masked(coupling, atoms)
    for feed in feeds:
        for expected, found in zip(run(reference, feed), run(smaller, feed), strict=True):
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
) -> Coupling:
    """Remove half of each group, then of all; `sizes` are those of the groups to be found."""
    coupling = analyse(model)
    feeds = [feed(batch) for batch in batches]
    for one in feeds:
        for expected, found in zip(run(model, one), run(coupling.prepared.proto, one), strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)
    groups = find_groups(coupling)
    if sizes is not None:
        assert sorted(group.size for group in groups) == sorted(sizes)
    for group in groups:
        atoms = half(group)
        if not atoms:
            continue
        smaller = compare(model, coupling, atoms, feeds)
        assert weights(smaller) < weights(coupling.prepared.proto)
        assert free_inputs(smaller) == free_inputs(model)
    every = [atom for group in groups for atom in half(group, 1)]
    if every:
        smaller = compare(model, coupling, every, feeds)
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
