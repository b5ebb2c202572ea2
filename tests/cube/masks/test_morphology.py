"""Discs against scipy, which looks at every offset."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_dilation, binary_erosion

from mapper.cube.masks.morphology import dilate, erode, half_widths

RADII = st.one_of(st.integers(0, 14).map(float), st.floats(0, 12))
MASKS = st.tuples(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 99)).map(
    lambda way: np.random.default_rng(way[3]).random(way[:2]) < way[2] ** 4
)


def disc(radius):
    """Every offset at most so far away."""
    side = np.arange(-int(radius) - 1, int(radius) + 2)
    return side[:, None] ** 2 + side[None] ** 2 <= radius**2 + 1e-9 * max(1, radius)


@given(MASKS, RADII)
def test_growing_is_scipys(mask, radius):
    np.testing.assert_array_equal(dilate(mask, radius), binary_dilation(mask, disc(radius)))


@given(MASKS, RADII)
def test_shrinking_is_scipys_with_the_outside_true(mask, radius):
    expected = binary_erosion(~mask, disc(radius), border_value=1)
    np.testing.assert_array_equal(erode(~mask, radius), expected)


@pytest.mark.parametrize("radius", range(24))
def test_one_pixel_in_a_corner_grows_to_a_quarter_of_the_disc(radius):
    mask = np.zeros((26, 27), bool)
    mask[0, 0] = True
    rows, cols = np.indices(mask.shape)
    np.testing.assert_array_equal(dilate(mask, radius), rows**2 + cols**2 <= radius**2)


@given(arrays(bool, (7, 9)))
def test_a_radius_below_one_changes_nothing(mask):
    for change in (dilate, erode):
        found = change(mask, 0.99)
        np.testing.assert_array_equal(found, mask)
        assert not np.shares_memory(found, mask)


def test_the_border_neither_eats_in_nor_grows_in():
    assert erode(np.ones((6, 11), bool), 5).all()
    assert not dilate(np.zeros((6, 11), bool), 5).any()


@pytest.mark.parametrize("width", [1, 7, 8, 9, 16, 17])
def test_a_disc_larger_than_the_array_fills_it(width):
    mask = np.zeros((3, width), bool)
    mask[2, width - 1] = True
    assert dilate(mask, 50).all()


@pytest.mark.parametrize(
    ("radius", "widths"),
    [(0.5, [0]), (1, [1, 0]), (1.5, [1, 1]), (2, [2, 1, 0]), (5, [5, 4, 4, 4, 3, 0])],
)
def test_the_disc_holds_what_is_at_most_a_radius_away(radius, widths):
    assert half_widths(radius) == widths


def test_a_radius_that_is_whole_but_for_a_division_counts_as_whole():
    assert 0.3 / 0.1 < 3
    assert half_widths(0.3 / 0.1) == half_widths(3)
