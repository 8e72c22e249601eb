"""Distance from a teacher's outputs.

Class scores: Kullback-Leibler divergence of softened classes, G. Hinton, O. Vinyals, J. Dean,
"Distilling the knowledge in a neural network", 2015 (arXiv:1503.02531); the factor T² keeps the
size of gradients independent of the temperature. Values that nothing says to be class scores:
their mean squared difference, which for logits is J. Ba, R. Caruana, "Do deep nets really need to
be deep?", 2014 (arXiv:1312.6184).
"""

from __future__ import annotations

from ..builder import GraphBuilder

__all__ = ["absolute_error", "class_divergence", "squared_error", "unit_divergence"]


def class_divergence(
    b: GraphBuilder, student: str, teacher: str, axis: int, temperature: float
) -> str:
    """T² times the mean over samples (and positions) of KL(softmax(t / T) | softmax(s / T)).

    Args:
        b: The builder.
        student: float32 logits.
        teacher: float32 logits of the same shape.
        axis: The class axis.
        temperature: T.
    """
    own = b.op("LogSoftmax", _softened(b, student, temperature), axis=axis)
    aim = b.op("LogSoftmax", _softened(b, teacher, temperature), axis=axis)
    each = b.op("Mul", b.op("Exp", aim), b.op("Sub", aim, own))
    mean = b.op("ReduceMean", b.reduce_sum(each, [axis]), keepdims=0)
    return _times(b, mean, temperature**2)


def unit_divergence(b: GraphBuilder, student: str, teacher: str, temperature: float) -> str:
    """T² times the mean over all elements of KL(Bernoulli(t / T) | Bernoulli(s / T)).

    With logits that is p (t - s) + log(1 + exp(s)) - log(1 + exp(t)), where p = sigmoid(t).
    """
    own, aim = (_softened(b, name, temperature) for name in (student, teacher))
    gap = b.op("Sub", b.op("Softplus", own), b.op("Softplus", aim))
    lean = b.op("Mul", b.op("Sigmoid", aim), b.op("Sub", aim, own))
    return _times(b, b.op("ReduceMean", b.op("Add", gap, lean), keepdims=0), temperature**2)


def squared_error(b: GraphBuilder, values: str, targets: str) -> str:
    """Mean of squared differences."""
    gap = b.op("Sub", values, targets)
    return b.op("ReduceMean", b.op("Mul", gap, gap), keepdims=0)


def absolute_error(b: GraphBuilder, values: str, targets: str) -> str:
    """Mean of absolute differences."""
    return b.op("ReduceMean", b.op("Abs", b.op("Sub", values, targets)), keepdims=0)


def _softened(b: GraphBuilder, logits: str, temperature: float) -> str:
    return _times(b, logits, 1 / temperature)


def _times(b: GraphBuilder, name: str, factor: float) -> str:
    return name if factor == 1 else b.op("Mul", name, b.scalar(factor, name))
