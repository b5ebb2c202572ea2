"""The multitemporal speckle filter against its formula, window by window."""

import numpy as np
import pytest

from mapper.cube.reduce.speckle import SpeckleFilter, despeckled, local_mean
from mapper.errors import RecipeError


def window_mean(power, usable, y, x, half):
    box = (slice(max(y - half, 0), y + half + 1), slice(max(x - half, 0), x + half + 1))
    return power[box][usable[box]].astype(float).mean()


def speckled(seed, length=6, shape=(17, 19)):
    """Looks at a ground of two levels, each of single-look speckle."""
    draw = np.random.default_rng(seed)
    level = np.where(np.arange(shape[1]) < shape[1] // 2, 0.05, 0.4)
    power = (level * draw.exponential(1, (length, *shape))).astype("float32")
    return power, draw.random(power.shape) > 0.2


@pytest.mark.parametrize("window", [1, 3, 7])
def test_each_value_is_that_of_the_formula(window):
    power, valid = speckled(1)
    power[2, 3, 4], power[1, 5, 5], power[0, 8, 8] = np.nan, -0.1, 0
    usable = valid & (power > 0)
    found = np.stack(list(despeckled(power, valid, window)))
    assert found.dtype == np.float32
    half = window // 2
    np.testing.assert_array_equal(np.isnan(found), ~usable)
    for y, x in [(0, 0), (3, 4), (5, 5), (8, 8), (16, 18), (9, 2)]:
        times = np.flatnonzero(usable[:, y, x])
        means = {t: window_mean(power[t], usable[t], y, x, half) for t in times}
        ratio = sum(power[t, y, x] / means[t] for t in times) / len(times)
        expected = [means[t] * ratio for t in times]
        np.testing.assert_allclose(found[times, y, x], expected, rtol=1e-6)


def test_a_halo_of_half_a_window_makes_it_independent_of_the_cut():
    power, valid = speckled(2, shape=(40, 50))
    whole = np.stack(list(despeckled(power, valid)))
    cut = (slice(None), slice(7, 30), slice(5, 41))
    part = np.stack(list(despeckled(power[cut], valid[cut])))
    np.testing.assert_array_equal(part[:, 3:-3, 3:-3], whole[:, 10:27, 8:38])
    less = np.stack(list(despeckled(power[:, 8:30, 5:41], valid[:, 8:30, 5:41])))
    assert not np.array_equal(less[:, 2:-3, 3:-3], whole[:, 10:27, 8:38], equal_nan=True)


def test_speckle_goes_and_the_level_of_a_date_stays():
    draw = np.random.default_rng(3)
    level = np.array([0.05, 0.1, 0.2, 0.4] * 4)[:, None, None]
    power = (level * draw.exponential(1, (16, 60, 60))).astype("float32")
    found = np.stack(list(despeckled(power, np.ones(power.shape, bool))))
    np.testing.assert_allclose(found.mean(axis=(1, 2)), power.mean(axis=(1, 2)), rtol=0.03)
    before = (power.mean(axis=(1, 2)) / power.std(axis=(1, 2))) ** 2
    after = (found.mean(axis=(1, 2)) / found.std(axis=(1, 2))) ** 2
    assert (before < 1.2).all()
    assert (after > 8).all()


def test_the_two_passes_are_the_filter():
    power, valid = speckled(4)
    looks = SpeckleFilter((17, 19))
    for one, good in zip(power, valid, strict=True):
        looks.add(one, good)
    np.testing.assert_array_equal(looks.count, valid.sum(axis=0))
    for one, good, whole in zip(power, valid, despeckled(power, valid), strict=True):
        np.testing.assert_array_equal(looks.filtered(one, good), whole)


def test_a_window_without_data_has_no_mean():
    usable = np.zeros((9, 9), bool)
    usable[0, 0] = True
    found = local_mean(np.full((9, 9), 2.0), usable, 3)
    assert np.isfinite(found).sum() == 4
    assert found[1, 1] == 2


@pytest.mark.parametrize("window", [0, 4, -3, 257])
def test_a_window_that_cannot_be_is_refused(window):
    with pytest.raises(RecipeError, match="window"):
        SpeckleFilter((3, 3), window)
