"""Values that break programs: numbers at the edges of types, and names that no terminal likes."""

from __future__ import annotations

from random import Random

__all__ = ["DIMS", "FLOATS", "INTEGERS", "NAMES", "OPERATORS", "a_dim", "a_float", "a_name",
           "an_integer"]  # fmt: skip

INTEGERS = (0, 1, -1, 2, 3, 7, 8, 127, 128, 255, 256, 65_535, 2**31 - 1, 2**31, -(2**31), 2**32,
            2**53, 2**62, 2**63 - 1, -(2**63))  # fmt: skip
#: Weighted towards sizes that are wrong by little.
DIMS = (0, 1, 1, 2, 2, 3, 4, 5, 6, 8, 12, -1, -2, 100, 1000, 10**5, 10**6, 10**9, 2**31, 2**40,
        2**62, 2**63 - 1, -(2**63))  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-45, 1e-38, 3e38, 1e300, float("inf"), float("-inf"),
          float("nan"))  # fmt: skip
NAMES = ("", "x", "w", "y", "h", "a" * 5000, "new\nline", "nul\0byte", "\x1b[31mred\x1b[0m",
         "\x1b]0;title\x07", "bell\x07", "c1\x9b31m", "\u202egnp.exe", "\u2066a\u2069", "\u200b",
         "e\u0301" * 50, "漢字", "🙂", "\ufeff", "../up", "/etc/passwd", "%s%n", "{0}", "'", '"',
         "\\", "*", "[", "w:0", "w#2", "w:dense", "onnxprune-payload:0", "labels", " ", "\t",
         "ai.onnx", "com.microsoft", "ai.onnx.ml", "no.such.domain")  # fmt: skip
_OPERATORS = """
    Add And ArgMax Attention AveragePool BatchNormalization BiasGelu BitShift Cast CastLike
    Ceil CenterCropPad Clip Col2Im Compress Concat ConcatFromSequence Constant ConstantOfShape
    Conv ConvInteger ConvTranspose CumSum DFT DeformConv DepthToSpace DequantizeLinear Det Div
    Dropout DynamicQuantizeLinear Einsum Equal Erf Exp Expand EyeLike Flatten FusedConv
    FusedMatMul GRU Gather GatherBlockQuantized GatherElements GatherND Gelu Gemm
    GlobalAveragePool GridSample GroupNormalization GroupQueryAttention Hardmax Identity If
    InstanceNormalization LRN LSTM LayerNormalization LeakyRelu Loop LpNormalization LpPool
    MatMul MatMulInteger MatMulNBits Max MaxPool MaxRoiPool MaxUnpool Mean Min Mod Mul
    MultiHeadAttention NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot Optional
    OptionalGetElement PRelu Pad Pow QAttention QLinearConcat QLinearConv QLinearMatMul
    QuantizeLinear RMSNormalization RNN RandomNormal RandomUniformLike Range Reciprocal
    ReduceMax ReduceMean ReduceProd ReduceSum Relu Reshape Resize ReverseSequence RoiAlign
    RotaryEmbedding Round STFT Scan Scatter ScatterElements ScatterND SequenceAt
    SequenceConstruct SequenceEmpty SequenceMap Shape Shrink Sigmoid Sign
    SkipLayerNormalization Slice Softmax SoftmaxCrossEntropyLoss SpaceToDepth Split
    SplitToSequence Sqrt Squeeze StringNormalizer Sub Sum TensorScatter TfIdfVectorizer Tile
    TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor Swish
"""
OPERATORS = tuple(_OPERATORS.split())


def an_integer(random: Random) -> int:
    """An int64 at an edge, or any."""
    return random.choice(INTEGERS) if random.random() < 0.8 else random.randint(-(2**63), 2**63 - 1)


def a_dim(random: Random) -> int:
    """A size of an axis, often an absurd one."""
    return random.choice(DIMS)


def a_float(random: Random) -> float:
    """A float at an edge."""
    return random.choice(FLOATS)


def a_name(random: Random) -> str:
    """A name that may clash, be empty, or carry what a terminal acts on."""
    return random.choice(NAMES)
