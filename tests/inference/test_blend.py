"""Blending: no pixel without weight, sums known in closed form, a slab as good as the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.area.grid import PixelBox
from mapper.area.window import WindowPlan
from mapper.inference.blend import SlabSum, lattice_sum, window_weights

KINDS = ["hann", "gaussian"]


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
        taken.append(slab.take(stride))
    if size > stride:
        taken.append(slab.take(size - stride))
    np.testing.assert_array_equal(np.concatenate(taken, axis=1), whole)


def test_rows_that_were_taken_come_back_empty():
    slab = SlabSum((1, 4, 3), first_row=-2, first_col=5)
    slab.add(-2, 5, np.ones((1, 4, 3), np.float32))
    first = slab.take(3)
    slab.add(1, 6, np.ones((1, 2, 2), np.float32))
    assert first.sum() == 9
    assert slab.take(4).tolist() == [[[1, 2, 2], [0, 1, 1], [0, 0, 0], [0, 0, 0]]]
