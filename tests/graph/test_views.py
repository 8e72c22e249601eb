"""Views compose: checked against numpy by following where every stored element goes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.graph import views
from onnxprune.graph.views import HIDDEN, UNIT, View, whole

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def coordinates(shape):
    """An array of stored positions, to push through the same steps as the view."""
    return np.arange(int(np.prod(shape))).reshape(shape)


def check(view: View, positions: np.ndarray, stored_shape) -> None:
    """Along an axis that the view keeps, exactly that stored coordinate moves."""
    assert view.shape == positions.shape
    indices = np.unravel_index(positions, stored_shape)
    for axis, stored in enumerate(view.axes):
        if stored == UNIT:
            assert positions.shape[axis] == 1
        elif stored != HIDDEN:
            for number, index in enumerate(indices):
                constant = np.all(np.diff(index, axis=axis) == 0)
                assert constant or number == stored


@st.composite
def steps(draw):
    shape = draw(SHAPES)
    view, positions = whole(shape), coordinates(shape)
    for _ in range(draw(st.integers(1, 4))):
        rank = positions.ndim
        kind = draw(st.sampled_from(["transpose", "reshape", "unsqueeze", "squeeze", "flatten"]))
        if kind == "transpose" and rank:
            order = draw(st.permutations(range(rank)))
            view, positions = views.transposed(view, order), positions.transpose(order)
        elif kind == "reshape":
            target = draw(st.permutations(positions.shape))
            if draw(st.booleans()) and len(target) > 1:
                target = [target[0] * target[1], *target[2:]]
            view, positions = views.reshaped(view, target), positions.reshape(target)
        elif kind == "unsqueeze":
            axis = draw(st.integers(0, rank))
            view, positions = views.unsqueezed(view, [axis]), np.expand_dims(positions, axis)
        elif kind == "squeeze":
            view, positions = views.squeezed(view, None), positions.squeeze()
        elif kind == "flatten":
            axis = draw(st.integers(0, rank))
            rows = int(np.prod(positions.shape[:axis]))
            view, positions = views.flattened(view, axis), positions.reshape(rows, -1)
    return shape, view, positions


@given(steps())
def test_kept_axes_are_the_stored_axes(built):
    shape, view, positions = built
    check(view, positions, shape)


@given(SHAPES, st.integers(-6, 6), st.integers(-6, 6), st.sampled_from([-2, -1, 1, 2]))
def test_slices_have_the_shape_of_the_onnx_reference(shape, start, end, step):
    from onnx.reference.ops.op_slice import _slice

    bounds = [np.array([value]) for value in (start, end, 0, step)]
    expected = _slice(coordinates(shape), *bounds)
    seen = views.sliced(whole(shape), [start], [end], [0], [step])
    assert seen.shape == expected.shape
    assert seen.axes == tuple(range(len(shape)))


def test_reshape_keeps_axes_whose_borders_survive():
    conv = whole((8, 4, 3, 3))
    assert views.reshaped(conv, (8, 36)).axes == (0, HIDDEN)
    assert views.reshaped(conv, (8, 4, 9)).axes == (0, 1, HIDDEN)
    assert views.reshaped(conv, (0, 0, -1)).axes == (0, 1, HIDDEN)
    assert views.reshaped(conv, (8, 1, 4, 3, 3, 1)).axes == (0, UNIT, 1, 2, 3, UNIT)
    assert views.reshaped(whole((4, 6)), (6, 4)).axes == (HIDDEN, HIDDEN)


def test_what_cannot_be_told_is_obscured_not_wrong():
    base = whole((2, 3))
    for view in (
        views.reshaped(base, None),
        views.reshaped(base, (7, -1)),
        views.reshaped(base, (-1, -1)),
        views.transposed(base, (0, 0)),
        views.transposed(base, (0,)),
        views.squeezed(base, (0,)),
        views.unsqueezed(base, (0, 0)),
        views.unsqueezed(base, (9,)),
        views.flattened(base, 5),
        views.sliced(base, None, None, None, None),
        views.sliced(base, (0,), (1,), (4,), None),
        views.sliced(base, (0,), (1,), (0,), (0,)),
        views.split(base, 0, (5, 5), 0),
        views.joined(base, [base, whole((2,))], 0),
    ):
        assert view.shape is None
        assert views.stored_roles(view, (2, 3), ("input", "output")) == ("unknown",) * 2


def test_split_and_join_keep_axes():
    base = whole((6, 4))
    parts = [views.split(base, 0, (2, 4), number) for number in range(2)]
    assert [part.shape for part in parts] == [(2, 4), (4, 4)]
    again = views.joined(parts[0], parts[::-1], -2)
    assert (again.shape, again.axes) == ((6, 4), (0, 1))


def test_dropped_axes_of_size_one_count_as_taps():
    view = views.squeezed(whole((1, 5, 7)), (0,))
    assert views.stored_roles(view, (1, 5, 7), ("input", "output")) == ("tap", "input", "output")
