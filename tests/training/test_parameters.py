"""What is trained: by the operator that reads a constant, or by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.sources import read
from onnxprune.training.builder import GraphBuilder
from onnxprune.training.parameters import Parameter, Selection, select_parameters
from onnxprune.training.preparation import prepare
from tests.training.nets import MLP_SHAPES, cnn, mlp, model

ONES = np.ones(5, np.float32)


def selected(proto: ModelProto, *globs: str, loss: str = "y", **options: Any) -> Selection:
    forward = prepare(read(proto))
    return select_parameters(
        GraphBuilder(forward.proto), loss, list(forward.addresses), globs, **options
    )


def names(selection: Selection) -> dict[str, bool]:
    return {item.name: item.decays for item in selection.trained}


ANCHORS = """agraph (float[N, 6] x) => (float[N, 5] y) {
    c = Sub (x, mean)
    d = Div (c, std)
    h = MatMul (d, w)
    i = Add (h, bias)
    j = Mul (scale, i)
    k = Add (j, grid)
    y = Mul (k, one)
}"""


def test_weights_and_biases_of_layers_and_nothing_else() -> None:
    """Normalization of the input and a grid of anchors look like biases and are none."""
    proto = model(
        ANCHORS,
        {
            "mean": (6,),
            "std": np.full(6, 2, np.float32),
            "w": (6, 5),
            "bias": (5,),
            "scale": (1, 5),
            "grid": (3, 5),
            "one": np.array(2, np.float32),
        },
    )
    found = selected(proto)
    assert names(found) == {"w": True, "bias": False, "scale": False}
    assert set(found.frozen) == {"mean", "std", "grid", "one"}


def test_decay_is_for_matrices_of_weights() -> None:
    assert names(selected(mlp())) == {"w1": True, "b1": False, "w2": True, "b2": False}
    assert names(selected(cnn())) == {"k": True, "kb": False, "w": True, "b": False}


def test_vectors_do_not_decay_whatever_reads_them() -> None:
    text = "agraph (float[N, 6] x) => (float[N] y) { y = MatMul (x, v) }"
    assert names(selected(model(text, {"v": (6,)}))) == {"v": False}


NORMALIZED = """agraph (float[N, 6] x) => (float[N, 5] y) {
    h = MatMul (x, w)
    n = BatchNormalization (h, s, o, m, v)
    l = LayerNormalization (n, ls, lo)
    p = PRelu (l, slope)
    y = Identity (p)
}"""


def test_normalization_and_slopes_are_trained_without_decay() -> None:
    weights = dict.fromkeys(("s", "o", "m", "v", "ls", "lo", "slope"), ONES)
    found = selected(model(NORMALIZED, {"w": (6, 5), **weights}))
    assert names(found) == {
        "w": True, "s": False, "o": False, "ls": False, "lo": False, "slope": False
    }  # fmt: skip
    assert set(found.frozen) == {"m", "v"}


def test_views_lead_to_the_constant() -> None:
    text = """agraph (float[N, 6] x) => (float[N, 5] y) {
        t = Transpose (w)
        i = Identity (t)
        h = MatMul (x, i)
        shape = Constant <value_ints = [1, 5]> ()
        b2 = Reshape (b, shape)
        y = Add (h, b2)
    }"""
    assert names(selected(model(text, {"w": (5, 6), "b": (5,)}))) == {"w": True, "b": False}


def test_globs_alone_decide() -> None:
    assert names(selected(mlp(), "w*")) == {"w1": True, "w2": True}
    assert names(selected(mlp(), "b2", "w1")) == {"b2": False, "w1": True}
    found = selected(mlp(), "w1")
    assert found.frozen["w2"] == "not named by --train-layers"


def test_globs_match_nodes_and_what_users_call_constants() -> None:
    proto = mlp()
    proto.graph.node[2].name = "head[0]"
    assert set(names(selected(proto, "head[0]"))) == {"w2", "b2"}
    called = {"w1": "function f:layer/w"}
    assert set(names(selected(mlp(), "function f:layer/w", names=called))) == {"w1"}


def test_a_glob_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'conv\*' matches nothing .* 'w1', 'b1', 'w2'"):
        selected(mlp(), "w1", "conv*")


def blocked_model() -> ModelProto:
    """A recurrence between two layers."""
    text = """agraph (float[N, 6] x) => (float[N, 3] y) {
        h = Gemm <transB = 1> (x, w1, b1)
        axis = Constant <value_ints = [0]> ()
        s = Unsqueeze (h, axis)
        every, last = LSTM <hidden_size = 8> (s, lw, lr)
        l = Squeeze (last, axis)
        y = Gemm <transB = 1> (l, w2, b2)
    }"""
    proto = model(text, {**MLP_SHAPES, "lw": (1, 32, 8), "lr": (1, 32, 8)})
    proto.graph.node[3].name = "recurrence"
    return proto


def test_an_operator_without_gradient_is_named_with_a_way_out() -> None:
    with pytest.raises(ModelError) as failure:
        selected(blocked_model())
    said = str(failure.value)
    assert "no gradient passes LSTM 'recurrence'" in said
    assert "2 parameters" in said
    assert "--train-layers 'w2' --train-layers 'b2'" in said
    assert "\n" not in said
    suggested = [part for part in said.split("'") if part in MLP_SHAPES]
    assert set(names(selected(blocked_model(), *suggested))) == {"w2", "b2"}


def test_where_everything_is_behind_it_nothing_is_suggested() -> None:
    with pytest.raises(ModelError, match=r"cannot be trained: no gradient passes LSTM"):
        selected(blocked_model(), "w1", "b1")


def test_what_the_loss_does_not_depend_on_is_frozen() -> None:
    proto = mlp()
    found = selected(proto, loss="a")  # the first layer only
    assert set(names(found)) == {"w1", "b1"}
    assert found.frozen == dict.fromkeys(("w2", "b2"), "the loss does not depend on it")


def test_a_model_without_parameters_is_refused() -> None:
    text = "agraph (float[N, 6] x) => (float[N, 6] y) { y = Mul (x, c) }"
    with pytest.raises(ModelError, match="nothing can be trained"):
        selected(model(text, {"c": (6,)}))


def test_parameters_keep_the_order_of_the_graph() -> None:
    assert selected(mlp()).trained == (
        Parameter("w1", True),
        Parameter("b1", False),
        Parameter("w2", True),
        Parameter("b2", False),
    )
