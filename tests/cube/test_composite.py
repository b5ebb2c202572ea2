"""Medians, means and counts against plain numpy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from mapper.cube.composite import PowerMean, median_uint16, status_of


def median_of(values):
    """Middle of a sorted list; of an even one the mean of the two, halves up; 0 of none."""
    values = sorted(int(v) for v in values)
    if not values:
        return 0
    half = len(values) // 2
    if len(values) % 2:
        return values[half]
    return math.floor((values[half - 1] + values[half]) / 2 + 0.5)


@st.composite
def stacks(draw):
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 4)))
    some = st.one_of(st.integers(0, 65534), st.sampled_from([0, 1, 2, 65533, 65534]))
    values = draw(npst.arrays(np.uint16, shape, elements=some))
    return values, draw(npst.arrays(bool, shape))


@settings(max_examples=150, deadline=None)
@given(stacks())
def test_the_median_is_that_of_a_sorted_list(stack):
    values, valid = stack
    found = median_uint16(values, valid)
    assert found.dtype == np.uint16
    for y, x in np.ndindex(found.shape):
        assert found[y, x] == median_of(values[valid[:, y, x], y, x])


@settings(max_examples=40, deadline=None)
@given(stacks(), st.randoms(use_true_random=False))
def test_the_median_does_not_depend_on_the_order_of_time(stack, random):
    values, valid = stack
    order = list(range(len(values)))
    random.shuffle(order)
    np.testing.assert_array_equal(
        median_uint16(values, valid), median_uint16(values[order], valid[order])
    )


@pytest.mark.parametrize("rows", [1, 255, 256, 257, 600])
def test_the_median_of_any_height_equals_numpy(rows):
    draw = np.random.default_rng(rows)
    values = draw.integers(0, 20_000, (6, rows, 3)).astype("uint16")
    valid = draw.random(values.shape) > 0.4
    masked = np.ma.median(np.ma.array(values.astype(float), mask=~valid), axis=0)
    expected = np.floor(masked.filled(0) + 0.5)
    np.testing.assert_array_equal(median_uint16(values, valid), expected)


def test_the_median_leaves_its_input_alone():
    values = np.array([[[5]], [[3]], [[9]]], dtype="uint16")
    valid = np.array([[[True]], [[False]], [[True]]])
    before = values.copy()
    assert median_uint16(values, valid)[0, 0] == 7
    np.testing.assert_array_equal(values, before)


def test_a_half_is_rounded_up():
    values = np.array([2, 3], dtype="uint16").reshape(2, 1, 1)
    assert median_uint16(values, np.ones(values.shape, bool))[0, 0] == 3


@settings(max_examples=80, deadline=None)
@given(
    npst.arrays(np.float32, (5, 3, 2), elements=st.floats(-1, 1e4, width=32)),
    npst.arrays(bool, (5, 3, 2)),
)
def test_backscatter_is_averaged_in_linear_power(power, valid):
    mean = PowerMean((3, 2))
    for one, usable in zip(power, valid, strict=True):
        mean.add(one, usable)
    usable = valid & (power > 0)
    np.testing.assert_array_equal(mean.count, usable.sum(axis=0))
    expected = np.full((3, 2), np.nan)
    for y, x in np.ndindex(3, 2):
        if usable[:, y, x].any():
            expected[y, x] = 10 * math.log10(power[usable[:, y, x], y, x].astype(float).mean())
    assert mean.decibel().dtype == np.float32
    np.testing.assert_allclose(mean.decibel(), expected, rtol=1e-6, atol=1e-5)


def test_a_mean_in_decibel_would_be_another_number():
    mean = PowerMean((1, 1))
    for power in (0.01, 1.0):
        mean.add(np.full((1, 1), power, "float32"), np.ones((1, 1), bool))
    assert mean.decibel()[0, 0] == pytest.approx(10 * math.log10(0.505), abs=1e-5)
    assert abs(mean.decibel()[0, 0] - -10.0) > 5


def test_nan_power_is_no_observation():
    mean = PowerMean((1, 2))
    mean.add(np.array([[np.nan, 0.5]], "float32"), np.ones((1, 2), bool))
    np.testing.assert_array_equal(mean.count, [[0, 1]])
    assert np.isnan(mean.decibel()[0, 0])


@pytest.mark.parametrize(
    ("observed", "used", "failed", "status"),
    [
        (True, True, False, 0),
        (True, True, True, 0),
        (False, False, False, 2),
        (True, False, False, 3),
        (True, False, True, 3),
        (False, False, True, 4),
    ],
)
def test_a_status_says_why_there_is_no_value(observed, used, failed, status):
    found = status_of(np.array([[observed]]), np.array([[used]]), failed)
    assert found.dtype == np.uint8
    assert found[0, 0] == status
