"""What has to run again for a layer, against what changes when its weights do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from onnxprune.graph.layers import find_layers
from onnxprune.model.sources import read
from onnxprune.search.reach import Reach, reaches
from tests.search import nets


def found(model: ModelProto, wanted: tuple[str, ...] = ("y",)) -> dict[str, Reach]:
    scan = find_layers(read(model))
    result = reaches(model, [layer.address for layer in scan.layers], wanted)
    return {str(each.address): each for each in result}


def test_a_chain_with_a_shortcut() -> None:
    reach = found(nets.residual())
    assert list(reach) == ["a", "b", "c"]
    assert [each.boundary for each in reach.values()] == [("x",), ("q",), ("t",)]
    assert all(each.wanted == {"y"} for each in reach.values())


def test_branches_keep_what_the_other_needs() -> None:
    reach = found(nets.branches())
    assert list(reach) == ["b", "a", "d", "c"]
    assert reach["b"].boundary == ("x",)
    assert set(reach["a"].boundary) == {"x", "q"}
    assert set(reach["d"].boundary) == {"p", "s"}, "c comes later and starts from s"
    assert reach["c"].boundary == ("s",)
    assert reach["d"].wanted == set()
    both = found(nets.branches(), ("y", "z"))
    assert both["d"].wanted == {"z"}
    assert both["a"].wanted == {"y", "z"}
    assert set(both["c"].boundary) == {"s", "z"}, "an output that nothing changes is needed too"


def test_a_shared_layer_starts_at_its_first_use() -> None:
    reach = found(nets.shared())
    assert list(reach) == ["a", "b", "stored"]
    assert [each.boundary for each in reach.values()] == [("x",), ("q",), ("s",)]


def test_bodies_and_functions() -> None:
    reach = found(nets.bodies())
    assert reach["a"].boundary == ("x",)
    for name in ("make_y.then_branch/b", "make_y.else_branch/e", "c"):
        assert reach[name].boundary == ("q",)
    assert {each.boundary for each in found(nets.function()).values()} == {("x",), ("q",)}


def test_nodes_in_any_order() -> None:
    model = nets.residual()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    reach = found(model)
    assert all(each.wanted == {"y"} for each in reach.values())
    assert reach["a"].boundary == ("x",)
    assert reach["b"].boundary in (("q",), ("x",), ("q", "t"), ("t", "q"))


def test_constants_are_no_boundary_and_random_numbers_are_no_constants() -> None:
    model = nets.residual()
    shape = helper.make_node("Constant", [], ["one"], value_ints=[1])
    noise = helper.make_node("RandomNormal", [], ["noise"], shape=[1])
    model.graph.node.insert(0, shape)
    model.graph.node.insert(0, noise)
    model.graph.node[-1].input[0] = "noisy"
    model.graph.node.insert(-1, helper.make_node("Expand", ["noise", "one"], ["more"]))
    model.graph.node.insert(-1, helper.make_node("Sum", ["t", "more", "w"], ["noisy"]))
    model.graph.node[-1].input[0] = "noisy"
    model.graph.initializer.append(
        helper.make_tensor("w", TensorProto.FLOAT, [1], np.zeros(1, np.float32))
    )
    reach = found(model)
    assert set(reach["c"].boundary) == {"noisy"}
    assert set(reach["b"].boundary) == {"q", "more"}


@pytest.mark.parametrize(
    "build", [nets.residual, nets.branches, nets.shared, nets.bodies, nets.convolutions]
)
def test_boundaries_are_what_pruning_leaves_alone(build: Callable[[], ModelProto]) -> None:
    """Every boundary value of a layer is the same when the layer and all later ones change."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = build()
    result = reaches(model, [layer.address for layer in find_layers(read(model)).layers], ("y",))
    names = {name for each in result for name in each.boundary} - {"x"}
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    shape = [d.dim_value or 3 for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    def values(changed: list[Reach]) -> dict[str, np.ndarray]:
        twin = read(model)
        arrays = {each.address: twin.array(twin.tensors[each.address]) for each in changed}
        from onnxprune.model.payload import ArrayPayload
        from onnxprune.model.save import to_proto

        other = twin.with_payloads({a: ArrayPayload.of(v * 0) for a, v in arrays.items()})
        session = onnxruntime.InferenceSession(to_proto(other).SerializeToString())
        made = [output.name for output in session.get_outputs()]
        return dict(zip(made, session.run(None, {"x": x}), strict=True))

    before = values([])
    for at, each in enumerate(result):
        after = values(list(result[at:]))
        for name in set(each.boundary) - {"x"}:
            np.testing.assert_array_equal(after[name], before[name])
