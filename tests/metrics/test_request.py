from __future__ import annotations

from typing import Any

import pytest

from onnxprune.errors import UsageError
from onnxprune.metrics.request import AUTOMATIC, MetricRequest, check_use


@pytest.mark.parametrize(
    ("given", "kind", "labelled", "unlabelled"),
    [
        (None, "auto", False, True),
        ("auto", "auto", False, True),
        ("top1", "top", False, False),
        ("top-12", "top", False, False),
        ("mse", "mse", False, True),
        ("cosine", "cosine", True, True),
        ("agreement", "agreement", True, True),
        ("module:function", "function", False, True),
        (max, "function", False, True),
    ],
)
def test_kinds_and_what_they_are_measured_against(
    given: Any, kind: str, labelled: bool, unlabelled: bool
) -> None:
    request = MetricRequest(given)
    assert request.kind == kind
    assert request.against_reference(labelled=True) is labelled
    assert request.against_reference(labelled=False) is unlabelled


def test_k() -> None:
    assert (MetricRequest("top1").k, MetricRequest("top-12").k) == (1, 12)


@pytest.mark.parametrize(
    ("given", "better", "words"),
    [
        ("top", None, "metric 'top' is unknown: did you mean top"),
        ("top0", None, "metric 'top0' is unknown"),
        ("cosin", None, "did you mean cosine?"),
        ("", None, "metric '' is unknown: give top1"),
        (5, None, "metric is 5: give a name or a function"),
        ("mse", "lower", "metric-better says which way is up for a function"),
        (None, "higher", "metric-better says which way is up for a function"),
        ("m:f", "up", "metric-better is 'up': give higher or lower"),
    ],
)
def test_refusals(given: Any, better: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        MetricRequest(given, better)
    assert words in str(caught.value)


def test_a_metric_needs_data() -> None:
    check_use(AUTOMATIC, None)
    check_use(MetricRequest("top5"), "val.npz")
    with pytest.raises(UsageError, match="give val too"):
        check_use(MetricRequest("top5"), None)
