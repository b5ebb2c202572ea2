"""Blending: no pixel without weight, sums known in closed form, a slab as good as the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.area.grid import PixelBox
from mapper.area.window import WindowPlan
from mapper.inference.blend import SlabSum, lattice_sum, window_square, window_weights

KINDS = ["hann", "gaussian"]


def taken_from(slab, rows, most=5):
    """The first rows of a slab in one piece; every part is held to be small enough."""
    parts = [np.empty((0, 0, 0), np.float32)]
    for part in slab.take(rows, most):
        assert 0 < part.shape[1] <= most
        parts.append(part.copy())
    return np.concatenate(parts[1:], axis=1) if len(parts) > 1 else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 2, 3, 16, 255, 512, 4096])
def test_weights_are_positive_to_the_last_pixel(kind, size):
    weights = window_weights(size, kind)
    assert weights.shape == (size,)
    assert (np.outer(weights, weights).astype(np.float32) > 0).all()
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-9)
    assert weights.argmax() in {(size - 1) // 2, size // 2}


def test_hann_is_sampled_at_pixel_centres():
    x = (np.arange(8) + 0.5) / 8
    np.testing.assert_allclose(window_weights(8, "hann"), (1 - np.cos(2 * np.pi * x)) / 2)


def test_gaussian_has_a_standard_deviation_of_an_eighth():
    weights = window_weights(1601, "gaussian")
    assert weights[800] == 1
    assert weights[800 + 200] == pytest.approx(np.exp(-0.5), rel=2e-3)


@given(st.integers(1, 40), st.data(), st.sampled_from(KINDS))
def test_the_sum_is_that_of_very_many_windows(size, data, kind):
    stride = data.draw(st.integers(1, size))
    weights = window_weights(size, kind)
    long = np.zeros(8 * size + 2 * stride)
    for start in range(0, len(long) - size, stride):
        long[start : start + size] += weights
    total = lattice_sum(weights, stride)
    assert total.shape == (stride,)
    middle = np.arange(2 * size, 4 * size)
    np.testing.assert_allclose(total[middle % stride], long[middle], rtol=1e-12)


@pytest.mark.parametrize("stride", [8, 16])
def test_half_overlapping_hann_windows_sum_to_one_value(stride):
    total = lattice_sum(window_weights(2 * stride, "hann"), stride)
    np.testing.assert_allclose(total, 1)


@given(st.integers(2, 12), st.data())
def test_a_slab_that_moves_down_sums_as_one_large_array(size, data):
    stride = data.draw(st.integers(1, size))
    plan = WindowPlan(size=size, stride=stride, mode="blend")
    row, col = data.draw(st.integers(-30, 30)), data.draw(st.integers(-30, 30))
    height, width = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    pixels = PixelBox(row0=row, col0=col, row1=row + height, col1=col + width)
    reach = plan.reach(pixels)
    rng = np.random.default_rng(size * 1000 + stride)

    whole = np.zeros((3, *reach.shape), np.float32)
    slab = SlabSum((3, size, reach.shape[1]), reach.row0, reach.col0)
    taken = []
    for number in plan.rows_of(pixels.row0, pixels.row1):
        for window in (w for w in plan.cover(pixels) if w.row == number):
            values = rng.normal(size=(3, size, size)).astype(np.float32)
            whole[(slice(None), *window.extent.slices_in(reach))] += values
            slab.add(window.extent.row0, window.extent.col0, values)
        assert slab.first_row == number * stride
        taken.append(taken_from(slab, stride))
    if size > stride:
        taken.append(taken_from(slab, size - stride))
    np.testing.assert_array_equal(np.concatenate(taken, axis=1), whole)


def test_rows_that_were_taken_come_back_empty():
    slab = SlabSum((1, 4, 3), first_row=-2, first_col=5)
    slab.add(-2, 5, np.ones((1, 4, 3), np.float32))
    first = taken_from(slab, 3)
    slab.add(1, 6, np.ones((1, 2, 2), np.float32))
    assert first.sum() == 9
    assert taken_from(slab, 4).tolist() == [[[1, 2, 2], [0, 1, 1], [0, 0, 0], [0, 0, 0]]]


@given(st.integers(-20, 20), st.integers(1, 9), st.data())
def test_rows_keep_their_place_however_often_the_ring_turns(first, height, data):
    slab = SlabSum((2, height, 4), first, 0)
    waiting = np.zeros((2, height, 4), np.float32)
    rng = np.random.default_rng(height)
    for _ in range(12):
        tall = data.draw(st.integers(1, height))
        start = data.draw(st.integers(0, height - tall))
        values = rng.normal(size=(2, tall, 4)).astype(np.float32)
        slab.add(slab.first_row + start, 0, values)
        waiting[:, start : start + tall] += values
        count = data.draw(st.integers(0, height))
        found = taken_from(slab, count, data.draw(st.integers(1, 10)))
        assert (found is None) == (count == 0)
        if count:
            np.testing.assert_array_equal(found, waiting[:, :count])
        waiting = np.concatenate([waiting[:, count:], np.zeros_like(waiting[:, :count])], axis=1)


def test_parts_come_from_north_to_south_and_are_empty_once_the_next_is_taken():
    slab = SlabSum((1, 6, 2), 4, 0)
    rows = np.arange(6, dtype=np.float32).reshape(1, 6, 1)
    slab.add(4, 0, np.broadcast_to(rows, (1, 6, 2)))
    seen, before = [], None
    for part in slab.take(6, 2):
        assert before is None or not before.any()
        seen.extend(part[0, :, 0].tolist())
        before = part
    assert seen == [0, 1, 2, 3, 4, 5]
    assert not before.any()
    assert slab.first_row == 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 16, 33])
def test_a_square_of_weights_is_the_same_mirrored_and_turned(kind, size):
    square = window_square(size, kind)
    side = window_weights(size, kind)
    assert square.dtype == np.float32
    np.testing.assert_allclose(square, np.outer(side, side), rtol=1e-6)
    for turned in (np.rot90(square), square[::-1], square.T):
        np.testing.assert_allclose(turned, square, rtol=1e-5)


def test_a_square_of_weights_is_shared_and_cannot_be_changed():
    square = window_square(8, "hann")
    assert window_square(8, "hann") is square
    with pytest.raises(ValueError, match="read-only"):
        square[0, 0] = 1
