"""Operators that sum, search or accumulate along axes: these axes stay."""

from __future__ import annotations

from ..registry import Site, rule

_REDUCE = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]


@rule(*(f"Reduce{name}" for name in _REDUCE))
def reduce(site: Site) -> None:
    """Reduced axes stay, the others pass."""
    x = site.axes(0)
    if site.given(1, "axes"):
        axes = site.numbers(1, "axes")
        if axes is None:
            site.barrier("its axes are only known when it runs")
    else:
        axes = []
    if not axes:
        axes = [] if site.integer("noop_with_empty_axes", 0) else list(range(len(x)))
    _reduce(site, [axis % len(x) for axis in axes])


@rule("ArgMax", "ArgMin")
def arg(site: Site) -> None:
    """As a reduction over one axis."""
    _reduce(site, [site.integer("axis", 0) % len(site.axes(0))])


def _reduce(site: Site, axes: list[int]) -> None:
    x, keep = site.axes(0), site.integer("keepdims", 1)
    for axis in axes:
        site.freeze(x[axis], "reduces the axis")
    result = [site.fixed(1) if axis in axes else labels for axis, labels in enumerate(x)]
    site.set(result if keep else [result[i] for i in range(len(x)) if i not in axes])


@rule("CumSum", "CumProd")
def cumulative(site: Site) -> None:
    """The axis stays."""
    x, axis = site.axes(0), site.constant(1)
    if axis is None:
        site.barrier("its axis is only known when it runs")
    site.freeze(x[int(axis.reshape(-1)[0])], "accumulates along the axis")
    site.set(x)


@rule("TopK")
def top_k(site: Site) -> None:
    """The axis stays."""
    x = site.axes(0)
    axis = site.integer("axis", -1) % len(x)
    site.freeze(x[axis], "sorts the axis")
    for index in range(2):
        if site.has_output(index):
            chosen = site.fixed(site.output_shape(index)[axis])
            site.set((*x[:axis], chosen, *x[axis + 1 :]), index)
