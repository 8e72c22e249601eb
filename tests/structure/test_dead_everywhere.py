"""Dead neurons in every graph that the rules are tested on, and in networks of every kind."""

from __future__ import annotations

import pytest

from onnxprune.structure.contraction import SEPARATE
from onnxprune.structure.registry import RULES
from tests.structure.dying import damaged, prove_constants, prove_shrunk
from tests.structure.graphs import built, feed
from tests.structure.test_rules_images import CASES as IMAGES
from tests.structure.test_rules_joining import CASES as JOINING
from tests.structure.test_rules_sequences import CASES as SEQUENCES

CASES = {**IMAGES, **JOINING, **SEQUENCES}
#: The variance of a constant is zero, and this one divides by it: no number is left to compare.
del CASES["mean and variance"]


@pytest.mark.parametrize("rate", [0.2, 0.6])
@pytest.mark.parametrize("name", CASES)
def test_rule(name: str, rate: float) -> None:
    case = CASES[name]
    model = damaged(built(case), len(name), rate)
    feeds = [feed(case, batch) for batch in ((1,) if case.fixed_batch else (1, 3))]
    prove_constants(model, feeds)
    prove_shrunk(model, feeds)
    prove_shrunk(model, feeds, align=4)


KEPT = """
    Attention Bernoulli Compress ConvInteger DeformConv DynamicQuantizeLinear EyeLike GRU If LSTM
    Loop MatMulInteger Multinomial NonMaxSuppression NonZero QLinearConv QLinearMatMul RNN
    RandomNormalLike RandomUniformLike Scan SequenceMap Unique com.microsoft.Attention
    com.microsoft.DecoderMaskedMultiHeadAttention com.microsoft.DecoderMaskedSelfAttention
    com.microsoft.DynamicQuantizeLSTM com.microsoft.DynamicQuantizeMatMul com.microsoft.FusedGemm
    com.microsoft.FusedMatMul com.microsoft.GemmFastGelu com.microsoft.GroupQueryAttention
    com.microsoft.LongformerAttention com.microsoft.MatMulBnb4 com.microsoft.MatMulIntegerToFloat
    com.microsoft.MatMulNBits com.microsoft.MultiHeadAttention com.microsoft.PackedAttention
    com.microsoft.PackedMultiHeadAttention com.microsoft.QAttention com.microsoft.QGemm
    com.microsoft.SparseAttention com.microsoft.TransposeMatMul
"""
SUMMING = "Conv ConvTranspose Einsum Gemm MatMul com.microsoft.FusedConv"


def test_every_operator_with_a_rule_is_known_to_sum_or_not() -> None:
    """Whoever writes a rule says whether the operator sums over an axis that can lose indices.

    If it does not, it belongs to `contraction.SEPARATE`; if it does, to `KEPT` above: nothing that
    it reads is found to be dead then, unless `contraction` has a class for it.
    """
    names = {".".join(filter(None, key)) for key in RULES.keys() - SEPARATE}
    assert names == {*KEPT.split(), *SUMMING.split()}
