"""Median and percentiles against sorted lists and numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mapper.cube.reduce import network
from mapper.cube.reduce.median import median, percentiles
from mapper.errors import RecipeError
from tests.cube.reduce.reference import percentile_of


@st.composite
def stacks(draw):
    shape = draw(st.tuples(st.integers(1, 13), st.integers(1, 3), st.integers(1, 4)))
    some = st.one_of(st.integers(0, 65534), st.sampled_from([0, 1, 2, 65533, 65534]))
    return draw(npst.arrays(np.uint16, shape, elements=some)), draw(npst.arrays(bool, shape))


@pytest.mark.parametrize("length", range(1, 15))
def test_a_network_sorts_all_rows_of_zeros_and_ones(length):
    """It then sorts anything (Knuth's zero-one principle)."""
    bits = (np.arange(1 << length)[None] >> np.arange(length)[:, None]) & 1
    rows = np.concatenate([bits, bits[:1]]).astype("uint8")
    places = network.order_rows(rows)
    np.testing.assert_array_equal(rows[places], np.sort(bits, axis=0))


@pytest.mark.parametrize("length", range(1, 13))
def test_a_pruned_network_still_puts_each_wanted_rank_in_place(length):
    bits = (np.arange(1 << length)[None] >> np.arange(length)[:, None]) & 1
    for rank in range(length):
        rows = np.concatenate([bits, bits[:1]]).astype("uint8")
        place = network.order_rows(rows, frozenset({rank}))[rank]
        np.testing.assert_array_equal(rows[place], np.sort(bits, axis=0)[rank])
    assert len(network.network(length, frozenset({0}))) == length - 1


@settings(max_examples=150)
@given(stacks())
def test_the_median_is_that_of_a_sorted_list(stack):
    values, valid = stack
    found = median(values, valid)
    assert found.dtype == np.uint16
    for y, x in np.ndindex(found.shape):
        assert found[y, x] == percentile_of(values[valid[:, y, x], y, x], 50)


@pytest.mark.parametrize("length", [1, 2, 3, 6, 24, 61, 100])
def test_the_median_of_many_looks_equals_numpys_bit_for_bit(length):
    draw = np.random.default_rng(length)
    values = draw.integers(0, 65535, (length, 40, 33)).astype("uint16")
    valid = draw.random(values.shape) > draw.random((1, 40, 33))
    expected = np.ma.median(np.ma.array(values, mask=~valid, dtype=float), axis=0)
    np.testing.assert_array_equal(median(values, valid), np.floor(expected.filled(0) + 0.5))
    np.testing.assert_array_equal(percentiles(values, valid, [50])[0], median(values, valid))


@settings(max_examples=80)
@given(stacks(), st.lists(st.sampled_from([0, 2.5, 10, 25, 33.3333, 50, 75, 90, 100]), max_size=4))
def test_percentiles_are_those_of_a_sorted_list(stack, wanted):
    values, valid = stack
    found = percentiles(values, valid, wanted)
    assert found.dtype == np.uint16
    assert found.shape == (len(wanted), *values.shape[1:])
    for plane, percent in zip(found, wanted, strict=True):
        for y, x in np.ndindex(plane.shape):
            assert plane[y, x] == percentile_of(values[valid[:, y, x], y, x], percent)


def test_percentiles_of_full_series_are_numpys():
    values = np.random.default_rng(5).integers(1, 20_000, (21, 9, 8)).astype("uint16")
    wanted = [0, 5, 25, 50, 95, 100]
    found = percentiles(values, np.ones(values.shape, bool), wanted)
    np.testing.assert_array_equal(found, np.floor(np.percentile(values, wanted, axis=0) + 0.5))


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 70])
def test_neither_depends_on_how_lines_are_cut(rows):
    """2048 columns make pieces of sixteen lines, 40,000 columns pieces of one."""
    draw = np.random.default_rng(rows)
    for width in (2048, 40_000) if rows == 17 else (2048,):
        values = draw.integers(0, 9_000, (4, rows, width)).astype("uint16")
        valid = draw.random(values.shape) > 0.4
        whole, quarters = median(values, valid), percentiles(values, valid, [25])
        for line in {0, rows // 2, rows - 1}:
            one = (values[:, line : line + 1], valid[:, line : line + 1])
            np.testing.assert_array_equal(median(*one)[0], whole[line])
            np.testing.assert_array_equal(percentiles(*one, [25])[0, 0], quarters[0, line])


def test_input_is_left_alone_and_no_look_gives_nodata():
    values = np.array([[[5, 7]], [[3, 7]], [[9, 7]]], dtype="uint16")
    valid = np.array([[[True, False]], [[False, False]], [[True, False]]])
    before = values.copy(), valid.copy()
    np.testing.assert_array_equal(median(values, valid), [[7, 0]])
    np.testing.assert_array_equal(percentiles(values, valid, [75])[0], [[8, 0]])
    np.testing.assert_array_equal(values, before[0])
    np.testing.assert_array_equal(valid, before[1])
    assert median(values[:0], valid[:0]).tolist() == [[0, 0]]
    assert percentiles(values[:0], valid[:0], [5]).tolist() == [[[0, 0]]]


def test_a_band_of_a_larger_array_is_reduced_in_place():
    values = np.random.default_rng(2).integers(1, 9_000, (5, 3, 20, 11)).astype("uint16")
    valid = np.ones((5, 3, 20, 11), bool)
    np.testing.assert_array_equal(
        median(values[:, 1], valid[:, 1]), np.median(values[:, 1], axis=0)
    )


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan"), 12.34567])
def test_a_percentile_that_cannot_be_is_refused(percent):
    with pytest.raises(RecipeError, match="percentile"):
        percentiles(np.ones((2, 1, 1), "uint16"), np.ones((2, 1, 1), bool), [percent])
