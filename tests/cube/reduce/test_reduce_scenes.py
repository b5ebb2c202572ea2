"""Means, best pixel and its scores, dates and indices, by hand and against scipy."""

import math
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.ndimage import distance_transform_edt

from mapper.cube.reduce import mean
from mapper.cube.reduce.best import (
    best,
    cloud_score,
    day_score,
    distance_score,
    greenness,
    squared_distance,
)
from mapper.cube.reduce.dates import date_of_look, nearest_date
from mapper.cube.reduce.indices import INDICES, Index
from mapper.errors import RecipeError

POWER = npst.arrays(np.float32, (6, 3, 2), elements=st.floats(-1, 1e4, width=32))


@settings(max_examples=80)
@given(npst.arrays(np.uint16, (7, 2, 3)), npst.arrays(bool, (7, 2, 3)), st.permutations(range(7)))
def test_a_mean_of_reflectances_is_exact_in_any_order(values, valid, order):
    running = mean.ReflectanceMean((2, 3))
    for time in order:
        running.add(values[time], valid[time])
    found = running.result()
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(running.count, valid.sum(axis=0))
    for y, x in np.ndindex(2, 3):
        seen = [int(v) for v in values[valid[:, y, x], y, x]]
        expected = (2 * sum(seen) + len(seen)) // (2 * len(seen)) if seen else 0
        assert found[y, x] == expected


def test_a_mean_of_bands_takes_one_mask_and_rounds_halves_up():
    running = mean.ReflectanceMean((2, 1, 2))
    running.add(np.array([[[2, 9]], [[65534, 9]]], "uint16"), np.array([[True, False]]))
    running.add(np.array([[[3, 9]], [[65533, 9]]], "uint16"), np.array([[True, False]]))
    np.testing.assert_array_equal(running.result(), [[[3, 0]], [[65534, 0]]])


@settings(max_examples=60)
@given(POWER, npst.arrays(bool, (6, 3, 2)))
def test_backscatter_is_averaged_in_linear_power(power, valid):
    power[0, 0, 0] = np.nan
    running = mean.PowerMean((3, 2))
    for look, good in zip(power, valid, strict=True):
        running.add(look, good)
    usable = valid & (power > 0)
    np.testing.assert_array_equal(running.count, usable.sum(axis=0))
    expected = np.full((3, 2), np.nan)
    for y, x in np.ndindex(3, 2):
        if usable[:, y, x].any():
            expected[y, x] = power[usable[:, y, x], y, x].astype(float).mean()
    np.testing.assert_allclose(running.result(), expected, rtol=1e-12)
    assert running.decibel().dtype == np.float32
    np.testing.assert_allclose(running.decibel(), 10 * np.log10(expected), rtol=1e-6, atol=1e-5)


def test_a_mean_in_decibel_would_be_another_number():
    running = mean.PowerMean((1, 1))
    for power in (0.01, 1.0):
        running.add(np.full((1, 1), power, "float32"), np.ones((1, 1), bool))
    assert running.decibel()[0, 0] == pytest.approx(10 * math.log10(0.505), abs=1e-5)


@settings(max_examples=60)
@given(
    npst.arrays(np.uint16, (4, 2, 2, 3)),
    npst.arrays(bool, (4, 2, 3)),
    npst.arrays(np.float32, (4, 2, 3), elements=st.sampled_from([0, 1, -2, 0.5, np.nan])),
)
def test_the_best_look_is_the_first_of_the_highest_score(stack, valid, scores):
    values, index = best(stack, valid, scores)
    for y, x in np.ndindex(2, 3):
        times = [t for t in range(4) if valid[t, y, x]]
        if not times:
            assert index[y, x] == -1
            assert not values[:, y, x].any()
            continue
        rank = [-np.inf if np.isnan(scores[t, y, x]) else scores[t, y, x] for t in times]
        assert index[y, x] == times[rank.index(max(rank))]
        np.testing.assert_array_equal(values[:, y, x], stack[index[y, x], :, y, x])


def test_a_score_may_be_of_whole_scenes():
    stack = np.arange(1, 7, dtype="uint16").reshape(3, 1, 1, 2)
    valid = np.array([[[True, True]], [[True, False]], [[True, True]]])
    _, index = best(stack, valid, cloud_score(np.array([30.0, 5.0, np.nan])))
    np.testing.assert_array_equal(index, [[1, 0]])


def test_days_are_counted_over_the_end_of_the_year():
    days = np.array([200, 215, 185, 365, 366, 5])
    np.testing.assert_allclose(
        day_score(days, 200, 15)[:3], [1, np.exp(-0.5), np.exp(-0.5)], rtol=1e-12
    )
    near = day_score(days, 1, 10)
    np.testing.assert_allclose(near[3:], np.exp(-0.5 * np.array([0.1, 0, 0.4]) ** 2), rtol=1e-12)
    with pytest.raises(RecipeError, match="spread"):
        day_score(days, 1, 0)


@pytest.mark.parametrize(("limit", "share"), [(1, 0.1), (4, 0.02), (15, 0.003), (180, 0.001)])
def test_distances_to_the_mask_are_those_of_scipy(limit, share):
    clear = np.random.default_rng(limit).random((61, 83)) > share
    assert not clear.all()
    exact = distance_transform_edt(clear)
    expected = np.minimum(np.round(exact**2), limit * limit)
    np.testing.assert_array_equal(squared_distance(clear, limit), expected)
    away = np.minimum(exact, limit)
    score = 1 / (1 + np.exp(-10 / limit * (away - limit / 2)))
    np.testing.assert_allclose(distance_score(clear, limit), score, rtol=1e-12)


def test_a_halo_of_the_limit_makes_distances_independent_of_the_cut():
    clear = np.random.default_rng(0).random((60, 70)) > 0.01
    whole = distance_score(clear, 9)
    part = distance_score(clear[11:49, 6:59], 9)
    np.testing.assert_array_equal(part[9:-9, 9:-9], whole[20:40, 15:50])
    assert (part != whole[11:49, 6:59]).any()
    assert squared_distance(np.ones((3, 4), bool), 5).tolist() == [[25] * 4] * 3


@pytest.mark.parametrize("limit", [0, 181])
def test_a_distance_limit_that_cannot_be_is_refused(limit):
    with pytest.raises(RecipeError, match="distance limit"):
        distance_score(np.ones((2, 2), bool), limit)


def test_the_date_of_a_chosen_look_and_of_none():
    days = np.array([(date(2022, 6, d) - date(1970, 1, 1)).days for d in (1, 11, 21)], "uint16")
    found = date_of_look(np.array([[2, 0, -1]], "int16"), days)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, [[19164, 19144, 0]])


@settings(max_examples=60)
@given(
    npst.arrays(np.uint16, (5, 2, 2, 2), elements=st.integers(1, 6) | st.integers(1, 65534)),
    npst.arrays(bool, (5, 2, 2, 2)),
    npst.arrays(np.uint16, (2, 2, 2), elements=st.integers(0, 5) | st.integers(0, 65534)),
)
def test_the_date_of_a_composite_is_that_of_the_nearest_valid_look(stack, valid, shown):
    days = np.array([50, 10, 40, 20, 30])
    found = nearest_date(stack, valid, shown, days)
    joint = valid.all(axis=1)
    np.testing.assert_array_equal(nearest_date(stack, joint, shown, days), found)
    for y, x in np.ndindex(2, 2):
        bands = [b for b in range(2) if shown[b, y, x]]
        times = [t for t in range(5) if joint[t, y, x]]
        if not bands or not times:
            assert found[y, x] == 0
            continue
        apart = [
            sum((int(stack[t, b, y, x]) - int(shown[b, y, x])) ** 2 for b in bands) for t in times
        ]
        assert found[y, x] == days[times[apart.index(min(apart))]]


def bands_of(**values):
    return {name: np.array([value], "uint16") for name, value in values.items()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ndvi", (0.4 - 0.1) / (0.4 + 0.1)),
        ("ndwi", (0.08 - 0.4) / (0.08 + 0.4)),
        ("mndwi", (0.08 - 0.2) / (0.08 + 0.2)),
        ("ndbi", (0.2 - 0.4) / (0.2 + 0.4)),
        ("nbr", (0.4 - 0.15) / (0.4 + 0.15)),
        ("ndre", (0.4 - 0.16) / (0.4 + 0.16)),
        ("evi2", 2.5 * 0.3 / (0.4 + 0.24 + 1)),
        ("savi", 1.5 * 0.3 / (0.4 + 0.1 + 0.5)),
        ("bsi", (0.2 + 0.1 - 0.4 - 0.05) / (0.2 + 0.1 + 0.4 + 0.05)),
    ],
)
def test_indices_by_hand(name, expected):
    bands = bands_of(
        blue=500, green=800, red=1000, rededge1=1600, nir=4000, swir16=2000, swir22=1500
    )
    found = INDICES[name].of(bands)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [expected], rtol=1e-6)
    for band in INDICES[name].bands:
        assert np.isnan(INDICES[name].of(bands | {band: np.zeros(1, "uint16")})[0])
    needed = {band: bands[band] for band in INDICES[name].bands}
    np.testing.assert_array_equal(INDICES[name].of(needed), found)


def test_every_index_is_tested_and_a_missing_band_is_named():
    assert len(INDICES) == 9
    with pytest.raises(RecipeError, match="ndvi needs nir, red and red is not there"):
        INDICES["ndvi"].of(bands_of(nir=5))
    assert greenness(bands_of(nir=3000, red=1000))[0] == np.float32(0.5)


def test_a_denominator_of_0_has_no_index():
    index = Index(
        name="none",
        bands=("nir", "red"),
        formula="nir / (nir - red)",
        source="",
        parts=lambda nir, red: (nir, nir - red),
    )
    found = index.of({"nir": np.array([5, 6], "uint16"), "red": np.array([5, 3], "uint16")})
    np.testing.assert_array_equal(found, np.array([np.nan, 2], "float32"))
