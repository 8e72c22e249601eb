from __future__ import annotations

import pytest

from onnxprune.errors import UsageError
from onnxprune.graph.layer import Layer, Unprunable, WeightUse
from onnxprune.model.tensors import TensorAddress
from onnxprune.pruning.selection import Choice, select


def layer(name: str, node: str, scope: tuple[str, ...] = ()) -> Layer:
    use = WeightUse("/".join((*scope, node)), "Conv", "", 1, ())
    return Layer(name, TensorAddress(scope, name), "initializer", (4,), 1, (use,))


LAYERS = [
    layer("conv1.weight", "/features/Conv"),
    layer("conv2.weight", "/features/Conv_1"),
    layer("W", "MatMul_3", ("If_0.then_branch",)),
    layer("dense/kernel[0]", "Dense"),
]


def changed(choices: tuple[Choice, ...]) -> dict[int, float | str | None]:
    return {i: c.quality if c.off is None else c.off for i, c in enumerate(choices) if c.glob}


@pytest.mark.parametrize(
    ("glob", "found"),
    [
        ("conv1.weight", [0]),
        ("conv*", [0, 1]),
        ("/features/Conv", [0]),
        ("*Conv_?", [1]),
        ("W", [2]),
        ("If_0.then_branch/W", [2]),
        ("If_0.then_branch/MatMul_3", [2]),
        ("MatMul_*", [2]),
        ("dense/kernel[0]", [3]),
        ("*", [0, 1, 2, 3]),
    ],
)
def test_globs_match_weights_scopes_and_nodes(glob: str, found: list[int]) -> None:
    assert changed(select(LAYERS, overrides=[(glob, 0.5)])) == dict.fromkeys(found, 0.5)
    off = f"excluded by --exclude '{glob}'"
    assert changed(select(LAYERS, exclude=[glob])) == dict.fromkeys(found, off)


def test_the_last_override_counts_and_exclusions_come_first() -> None:
    overrides = [("conv*", 0.5), ("conv2*", None), ("*", 2.0), ("W", None)]
    assert changed(select(LAYERS, overrides=overrides, exclude=["conv1*"])) == {
        0: "excluded by --exclude 'conv1*'",
        1: 2.0,
        2: "switched off by --layer 'W=off'",
        3: 2.0,
    }
    assert changed(select(LAYERS, overrides=[("W", None), ("W", 1.0)])) == {2: 1.0}
    assert select(LAYERS) == (Choice(),) * 4


def test_a_glob_without_a_match_names_what_comes_near() -> None:
    with pytest.raises(UsageError) as caught:
        select(LAYERS, overrides=[("con1*", 0.5)])
    message = str(caught.value)
    assert message.startswith("--layer 'con1*' matches no layer; near names: 'conv1.weight'")
    assert message.endswith("(see onnxprune inspect)")
    with pytest.raises(UsageError, match=r"--exclude 'CONV1\.weight' matches no layer; near names"):
        select(LAYERS, exclude=["CONV1.weight"])
    with pytest.raises(UsageError, match=r"near names: 'conv1\.weight', 'conv2\.weight', 'W'"):
        select(LAYERS, exclude=["zzz"])
    with pytest.raises(UsageError, match="the model has no prunable layer"):
        select([], exclude=["*"])


def test_weights_that_nothing_prunes_may_be_left_out_but_not_set() -> None:
    others = [Unprunable("gru.R", "GRU_0", "GRU", None, "made at run time")]
    assert changed(select(LAYERS, exclude=["gru*"], unprunable=others)) == {}
    assert changed(select(LAYERS, overrides=[("GRU_0", None)], unprunable=others)) == {}
    with pytest.raises(UsageError, match=r"'gru\.R' \(made at run time; see onnxprune inspect\)"):
        select(LAYERS, overrides=[("gru*", 1.0)], unprunable=others)
