"""Where channels are summed over: what each one gives to results that stay.

Removing an index changes other indices only where it is summed over, in products and convolutions:
everywhere else an element of a result reads the same element of each operand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..model.domain import plain_domain
from .analysis import Coupling
from .atoms import FIXED, Labels
from .constants.known import Known, Mask, wide
from .constants.products import Kernel, even, factor, kernel, matrices, unknown
from .registry import Site
from .sizes import constant_tensors
from .stored import reader_counts

__all__ = ["Contraction", "find_contractions"]

_SEPARATE_NAMES = """
    Abs Acos Acosh Add Affine And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike CausalConvWithState
    Ceil Celu CenterCropPad Clip Col2Im Concat Constant ConstantOfShape Cos Cosh Crop CumProd CumSum
    DepthToSpace DequantizeLinear Div Dropout Elu Equal Erf Exp Expand Flatten Floor Gather
    GatherElements GatherND Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
    GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity ImageScaler
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax LpNormalization LpPool Max MaxPool MaxRoiPool Mean MeanVarianceNormalization Min Mish
    Mod Mul Neg Not OneHot Or PRelu Pad ParametricSoftplus Pow QuantizeLinear RMSNormalization
    RandomNormal RandomUniform Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp
    ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
    ReverseSequence RoiAlign RotaryEmbedding Round ScaledTanh Scatter ScatterElements ScatterND Selu
    Shape Shrink Sigmoid Sign SimplifiedLayerNormalization Sin Sinh Size Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum SwiGLU Swish Tan Tanh TensorScatter
    ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
_SEPARATE_CONTRIB = """
    BiasGelu DequantizeLinear EmbedLayerNormalization FastGelu Gelu QLinearAdd QLinearAveragePool
    QLinearConcat QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearSigmoid QuantizeLinear
    QuickGelu RotaryEmbedding SkipLayerNormalization SkipSimplifiedLayerNormalization
"""
#: Operators in whose results an index that stays reads none that goes. (Where they do sum over an
#: axis, their rule keeps all of it.)
SEPARATE = {("", name) for name in _SEPARATE_NAMES.split()} | {
    ("com.microsoft", name) for name in _SEPARATE_CONTRIB.split()
}


#: Since this opset, an Add broadcasts as numpy does: before, no bias is added.
_BROADCASTING = 7


class Contraction(ABC):
    """An axis of one operand of a node, summed over.

    Attributes:
        site: The node.
        labels: Labels of the axis.
        values: The constant that each index holds, zero where it holds none.
        fold: Indices whose share of the result is one constant for each output channel.
        merge: Indices that hold a constant whose share is not even over the positions (padding).
    """

    def __init__(self, site: Site, labels: Labels, results: Sequence[Labels]) -> None:
        self.site = site
        self.labels = labels
        self.values: npt.NDArray[np.float64] = np.zeros(len(labels))
        self.fold: Mask = np.zeros(len(labels), bool)
        self.merge: Mask = np.zeros(len(labels), bool)
        self._results = results

    @abstractmethod
    def reads(self, gone: Mask, *, values: bool = True) -> Mask:
        """Which indices have a share in results that stay.

        Args:
            gone: For every label, whether it goes.
            values: Whether known zeros of the operand count as no share, as zero weights do.
        """

    @abstractmethod
    def share(self, gone: Mask) -> npt.NDArray[np.float64]:
        """What indices that go and can be folded add to the result, in a shape that broadcasts."""

    def _kept(self, gone: Mask, axis: int) -> Mask:
        """Which indices of an axis of the result stay."""
        kept: Mask = ~gone[self._results[axis]]
        return kept


class _Opaque(Contraction):
    """An operator that is not known to keep indices apart: all of its operand counts."""

    def reads(self, gone: Mask, *, values: bool = True) -> Mask:
        return np.ones(len(self.labels), bool)

    def share(self, gone: Mask) -> npt.NDArray[np.float64]:
        return np.zeros(1)


class _Product(Contraction):
    """MatMul and Gemm."""

    def __init__(
        self, site: Site, labels: Labels, results: Sequence[Labels], a: Known, b: Known
    ) -> None:
        super().__init__(site, labels, results)
        self._factors = a, b
        self._stored = bool(a.mask.all()), bool(b.mask.all())
        self._shares = [~fact.zero for fact in self._factors]
        self._side = self._held()
        if self._side is not None:
            held = self._factors[self._side]
            self.values = _finite(np.where(held.mask, wide(held.values), 0.0).reshape(-1))
            self.fold = self.values != 0

    def _held(self) -> int | None:
        """Which factor has constants in its channels, where the other one is known entirely."""
        for side, axis in ((0, -1), (1, -2)):
            if self._stored[1 - side] and self._factors[side].uniform_but(axis):
                return side
        return None

    def reads(self, gone: Mask, *, values: bool = True) -> Mask:
        sides: list[Mask] = []
        for share, axis, is_stored in zip(self._shares, (-2, -1), self._stored, strict=True):
            if not (values or is_stored):
                summed = len(self.labels)
                shape = (1, summed) if axis == -2 else (summed, 1)
                share = np.ones((*(1 for _ in share.shape[2:]), *shape), bool)
            sides.append(np.any(_where_kept(share, axis, self._kept(gone, axis)), axis))
        read = np.logical_and(*sides)
        for axis in range(read.ndim - 1):
            read = _where_kept(read, axis, self._kept(gone, axis - read.ndim - 1))
        return np.asarray(read.any(tuple(range(read.ndim - 1))))

    def share(self, gone: Mask) -> npt.NDArray[np.float64]:
        constants = np.where(gone[self.labels] & self.fold, self.values, 0.0)
        rows = constants != 0
        a, b = self._factors
        result: np.ndarray
        if self._side == 0:
            result = (constants[rows] @ wide(b.values[..., rows, :]))[..., None, :]
        else:
            result = wide(a.values[..., rows]) @ constants[rows][:, None]
        times = factor(self.site, "alpha") if self.site.node.op_type == "Gemm" else 1.0
        return np.asarray(times * result, np.float64)


class _Convolution(Contraction):
    """Conv and ConvTranspose, in groups."""

    def __init__(
        self,
        site: Site,
        labels: Labels,
        results: Sequence[Labels],
        x: Known | None,
        weights: Kernel | None,
        *,
        editable: bool,
    ) -> None:
        super().__init__(site, labels, results)
        self._weights = weights
        self._groups = site.integer("group", 1)
        self._zero = np.zeros(len(labels), bool)
        if x is not None:
            x = x.along(1, len(labels))
            others = tuple(axis for axis in range(x.zero.ndim) if axis != 1)
            self._zero = np.asarray(x.zero.all(others))
        if x is not None and x.uniform_but(1):
            self.values = _finite(np.where(x.mask, wide(x.values), 0.0).reshape(-1))
            constants = x.mask.reshape(-1) & (self.values != 0) & (weights is not None)
            self.fold = constants & even(site)
            self.merge = constants & (editable and self._groups == 1 and not even(site))

    def reads(self, gone: Mask, *, values: bool = True) -> Mask:
        if self._weights is None:
            return np.ones(len(self.labels), bool)
        kept = self._kept(gone, 1).reshape(self._groups, -1, 1)
        read = (self._weights.read & kept).any(1).reshape(-1)
        return read & ~self._zero if values else read

    def share(self, gone: Mask) -> npt.NDArray[np.float64]:
        assert self._weights is not None
        constants = np.where(gone[self.labels] & self.fold, self.values, 0.0)
        constants = constants.reshape(self._groups, -1)
        result: np.ndarray = np.einsum("goi,gi->go", self._weights.total, constants)
        return result.reshape(1, -1, *(1 for _ in self._results[2:]))


class _Summed(Contraction):
    """A letter of an Einsum that is in several terms and not in the result."""

    def __init__(
        self, site: Site, labels: Labels, terms: Sequence[tuple[int, Sequence[Labels], Known]]
    ) -> None:
        """Take the position of the letter in each term, labels of its axes, what is known of it."""
        super().__init__(site, labels, ())
        self._terms = terms

    def reads(self, gone: Mask, *, values: bool = True) -> Mask:
        found = np.ones(len(self.labels), bool)
        for axis, axes, fact in self._terms:
            used = values or bool(fact.mask.all())
            share = ~fact.zero if used else np.ones_like(fact.mask)
            for other, labels in enumerate(axes):
                if other != axis:
                    share = _where_kept(share, other, ~gone[labels])
            others = tuple(other for other in range(len(axes)) if other != axis)
            found &= share.any(others)
        return found

    def share(self, gone: Mask) -> npt.NDArray[np.float64]:
        return np.zeros(1)


def _where_kept(share: Mask, axis: int, kept: Mask) -> Mask:
    """Leave out what goes along an axis."""
    if share.shape[axis] == 1:
        kept = np.any(kept, keepdims=True)
    elif kept.all():
        return share
    shape = [1] * share.ndim
    shape[axis] = -1
    return np.logical_and(share, kept.reshape(shape))


def find_contractions(coupling: Coupling, facts: Mapping[str, Known]) -> list[Contraction]:
    """All axes that are summed over and have removable indices, in the order of the nodes."""
    found: list[Contraction] = []
    plain = _read_once(coupling)
    for site in coupling.sites:
        if site is None or not _removable(coupling, site):
            continue
        domain = plain_domain(site.node.domain)
        if (domain, site.node.op_type) in SEPARATE:
            continue
        for contraction in _contractions(coupling, site, facts, plain):
            if site.opset < _BROADCASTING and not domain:
                contraction.fold[:] = False
            found.append(contraction)
    return found


def _read_once(coupling: Coupling) -> set[str]:
    """Stored tensors that one node alone reads: their values can change."""
    graph = coupling.prepared.proto.graph
    readers = reader_counts(graph)
    return {name for name, _ in constant_tensors(graph) if readers[name] == 1}


def _removable(coupling: Coupling, site: Site) -> bool:
    """Whether an operand has indices that may go."""
    return any(
        (coupling.atoms.resolve(labels) != FIXED).any()
        for name in site.node.input
        for labels in coupling.axes.get(name, ())
    )


def _contractions(
    coupling: Coupling, site: Site, facts: Mapping[str, Known], plain: set[str]
) -> Sequence[Contraction]:
    node, atoms = site.node, coupling.atoms
    domain = plain_domain(node.domain)
    operands = [facts.get(name) for name in node.input]
    # The first result may be left out: of an LSTM that is read for its last state alone.
    first = next(name for name in node.output if name)
    results = [atoms.resolve(labels) for labels in coupling.axes[first]]
    key = (domain, node.op_type)
    if key in (("", "MatMul"), ("", "Gemm")):
        factors = matrices(site, operands)
        if factors is not None:
            axes = site.axes(0)
            summed = axes[-2 if node.op_type == "Gemm" and site.integer("transA", 0) else -1]
            return [_Product(site, atoms.resolve(summed), results, *factors)]
    if key in (("", "Conv"), ("", "ConvTranspose"), ("com.microsoft", "FusedConv")):
        labels = atoms.resolve(site.axes(0)[1])
        weights = kernel(site, operands[1])
        editable = node.input[1] in plain
        return [_Convolution(site, labels, results, operands[0], weights, editable=editable)]
    equation = site.text("equation", "").replace(" ", "") if key == ("", "Einsum") else ""
    if equation and all(len(set(term)) == len(term) for term in _terms(equation)):
        return _letters(coupling, site, operands, equation)
    every = [labels for name in node.input for labels in coupling.axes.get(name, ())]
    return [_Opaque(site, atoms.resolve(labels), results) for labels in every]


def _letters(
    coupling: Coupling, site: Site, operands: Sequence[Known | None], equation: str
) -> list[Contraction]:
    """The letters that an Einsum sums over; the rule has refused equations with dots."""
    terms = _terms(equation)
    counts = Counter(letter for term in terms for letter in term)
    right = equation.partition("->")[2] if "->" in equation else ""
    found: list[Contraction] = []
    for letter in sorted(x for x, count in counts.items() if count > 1 and x not in right):
        parts = []
        for index, term in enumerate(terms):
            if letter in term:
                axes = [coupling.atoms.resolve(labels) for labels in site.axes(index)]
                fact, axis = operands[index], term.index(letter)
                fact = unknown(len(axes)) if fact is None else fact
                parts.append((axis, axes, fact.along(axis, len(axes[axis]))))
        longest = max((axes[axis] for axis, axes, _ in parts), key=len)
        found.append(_Summed(site, longest, parts))
    return found


def _terms(equation: str) -> list[str]:
    return equation.partition("->")[0].split(",")


def _finite(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(np.isfinite(values), values, 0.0)
