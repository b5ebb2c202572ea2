"""Medoid and geometric median against brute force and scipy's minimiser."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.optimize import minimize
from scipy.spatial.distance import braycurtis, cosine

from mapper.cube.reduce import looks as looks_module
from mapper.cube.reduce.geomedian import geomedian
from mapper.cube.reduce.medoid import medoid
from tests.cube.reduce.reference import cost, sums_of_distances


def series(seed, length=9, bands=4, shape=(7, 11), share=0.7):
    """Looks that vary about a ground, some bright as cloud, and which of them are valid."""
    draw = np.random.default_rng(seed)
    ground = draw.integers(200, 4_000, (1, bands, *shape))
    cloud = (draw.random((length, 1, *shape)) > 0.85) * 4_000
    looks = np.clip(ground + draw.normal(0, 250, (length, bands, *shape)) + cloud, 1, 65534)
    return looks.astype("uint16"), draw.random((length, *shape)) < share


def one_pixel(looks):
    """`(look, band)` as a series of one pixel, all valid."""
    looks = np.asarray(looks, dtype="uint16")
    return looks[:, :, None, None], np.ones((len(looks), 1, 1), bool)


@settings(max_examples=100)
@given(
    npst.arrays(np.uint16, (6, 2, 2, 3), elements=st.integers(1, 65534) | st.integers(1, 4)),
    npst.arrays(bool, (6, 2, 3)),
)
def test_the_medoid_is_a_look_with_the_least_sum(stack, valid):
    values, index = medoid(stack, valid)
    assert values.dtype == np.uint16
    assert index.dtype == np.int16
    for y, x in np.ndindex(index.shape):
        times = np.flatnonzero(valid[:, y, x])
        if not len(times):
            assert index[y, x] == -1
            assert not values[:, y, x].any()
            continue
        sums = sums_of_distances(stack[times, :, y, x])
        chosen = list(times).index(index[y, x])
        assert sums[chosen] <= sums.min() * (1 + 1e-6)
        np.testing.assert_array_equal(values[:, y, x], stack[index[y, x], :, y, x])


def test_the_medoid_of_a_longer_series_is_that_of_brute_force():
    stack, valid = series(3, length=40, shape=(9, 9))
    _, index = medoid(stack, valid)
    for y, x in np.ndindex(index.shape):
        times = np.flatnonzero(valid[:, y, x])
        assert index[y, x] == times[np.argmin(sums_of_distances(stack[times, :, y, x]))]


def test_of_equal_looks_the_first_in_time_is_the_medoid():
    values, index = medoid(*one_pixel([[9, 9], [5, 5], [1, 1], [5, 5]]))
    assert index[0, 0] == 1
    assert medoid(*one_pixel([[7, 1], [3, 2]]))[1][0, 0] == 0
    assert medoid(*one_pixel([[1, 1], [2, 2], [3, 3], [4, 4]]))[1][0, 0] == 1
    np.testing.assert_array_equal(values[:, 0, 0], [5, 5])


def minimum(looks):
    """Least sum of distances that scipy finds, from the mean and from every look."""
    looks = looks.astype(float)
    starts = [looks.mean(axis=0), np.median(looks, axis=0)]
    options = {"xatol": 1e-3, "fatol": 1e-6, "maxiter": 4000}
    found = [
        minimize(lambda p: cost(looks, p), start, method="Nelder-Mead", options=options).fun
        for start in starts
    ]
    return min([*found, *(cost(looks, look) for look in looks)])


@pytest.mark.parametrize("length", [3, 4, 5, 8, 25])
def test_no_point_that_scipy_finds_is_nearer_to_the_looks_than_the_geometric_median(length):
    stack, valid = series(length, length=length, shape=(2, 4), share=1.1)
    values, _ = geomedian(stack, valid)
    for y, x in np.ndindex(2, 4):
        looks = stack[:, :, y, x]
        rounding = length  # half a unit in each of four bands moves no distance by more than 1
        assert cost(looks, values[:, y, x]) <= minimum(looks) * (1 + 1e-4) + rounding


def test_the_geometric_median_is_where_scipy_finds_it():
    stack, valid = series(70, length=25, shape=(2, 5), share=1.1)
    values, _ = geomedian(stack, valid)
    for y, x in np.ndindex(2, 5):
        looks = stack[:, :, y, x].astype(float)
        found = minimize(
            lambda p, looks=looks: cost(looks, p),
            np.median(looks, axis=0),
            method="BFGS",
            options={"gtol": 1e-4},
        )
        np.testing.assert_allclose(values[:, y, x], found.x, atol=0.6)


def test_the_geometric_median_of_one_and_of_two_looks():
    values, spread = geomedian(*one_pixel([[5, 65534]]))
    np.testing.assert_array_equal(values[:, 0, 0], [5, 65534])
    np.testing.assert_array_equal(spread[:, 0, 0], [0, 0, 0])
    values, spread = geomedian(*one_pixel([[100, 1], [103, 4001]]))
    np.testing.assert_array_equal(values[:, 0, 0], [102, 2001])
    assert spread[0, 0, 0] == pytest.approx(np.hypot(3, 4000) / 2 / 10_000)


def test_looks_on_a_line_have_their_middle_one():
    line = np.array([[1000, 2000], [1100, 2100], [1300, 2300], [2000, 3000], [5000, 6000]])
    values, _ = geomedian(*one_pixel(line))
    np.testing.assert_array_equal(values[:, 0, 0], [1300, 2300])


def test_a_look_that_lies_there_most_often_is_the_geometric_median():
    values, spread = geomedian(*one_pixel([[100, 100], [4000, 100], [100, 100], [100, 7000]]))
    np.testing.assert_array_equal(values[:, 0, 0], [100, 100])
    assert spread[0, 0, 0] == pytest.approx((0 + 3900) / 2 / 10_000)


def test_a_mean_that_meets_a_look_is_not_the_end():
    """The mean is the third look, which is not the optimum."""
    looks = np.array([[100, 1000], [100, 1000], [1000, 1000], [1900, 1000], [1900, 1000]])
    looks = np.vstack([looks, [[500, 1400], [1500, 600]]])
    assert looks.mean(axis=0).tolist() == [1000, 1000]
    values, _ = geomedian(*one_pixel(looks))
    assert cost(looks, values[:, 0, 0]) <= minimum(looks) + 0.1
    shifted = np.array([[1000, 1000], [100, 1000], [100, 1010], [110, 1000], [3690, 990]])
    assert shifted.mean(axis=0).tolist() == [1000, 1000]
    values, _ = geomedian(*one_pixel(shifted))
    np.testing.assert_allclose(values[:, 0, 0], [110, 1000], atol=12)


def test_outliers_below_half_do_not_carry_the_geometric_median_away():
    looks = [[500, 600], [510, 590], [495, 605], [9000, 9000], [505, 601]]
    values, _ = geomedian(*one_pixel(looks))
    np.testing.assert_allclose(values[:, 0, 0], [503, 601], atol=6)


def test_the_three_deviations_are_scipys_distances():
    stack, valid = series(8, length=7, shape=(5, 6))
    values, spread = geomedian(stack, valid)
    assert spread.dtype == np.float32
    for y, x in np.ndindex(5, 6):
        looks = stack[valid[:, y, x], :, y, x].astype(float)
        if not len(looks):
            assert np.isnan(spread[:, y, x]).all()
            assert not values[:, y, x].any()
            continue
        centre = values[:, y, x].astype(float)
        expected = [
            np.median(np.linalg.norm(looks - centre, axis=1)) / 10_000,
            np.median([cosine(look, centre) for look in looks]),
            np.median([braycurtis(look, centre) for look in looks]),
        ]
        np.testing.assert_allclose(spread[:, y, x], expected, rtol=0.02, atol=2e-4)


@pytest.mark.parametrize("reduce", [medoid, geomedian])
def test_nothing_depends_on_the_pixels_beside(reduce, monkeypatch):
    stack, valid = series(4, length=12, shape=(20, 30))
    whole = reduce(stack, valid)
    for rows, columns in [((3, 4), (7, 8)), ((0, 1), (0, 30)), ((5, 17), (2, 29))]:
        cut = (..., slice(*rows), slice(*columns))
        for part, all_of_it in zip(reduce(stack[cut], valid[cut]), whole, strict=True):
            np.testing.assert_array_equal(part, all_of_it[cut])
    monkeypatch.setattr(looks_module, "_MOST_PIXELS", 60)
    monkeypatch.setattr(looks_module, "_LEAST_PIXELS", 60)
    monkeypatch.setattr(looks_module, "_GROUP_BYTES", 1)
    monkeypatch.setattr(looks_module, "_LEAST_GROUP", 3)
    for part, all_of_it in zip(reduce(stack, valid), whole, strict=True):
        np.testing.assert_array_equal(part, all_of_it)
