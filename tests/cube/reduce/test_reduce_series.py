"""Every reducer on real series: twelve dates with SCL, 68 dates with cloud masks."""

import numpy as np
import pytest
from rasterio.drivers import raster_driver_extensions
from scipy.optimize import minimize

from mapper.cube.reduce.dates import date_of_look, nearest_date
from mapper.cube.reduce.geomedian import geomedian
from mapper.cube.reduce.mean import ReflectanceMean
from mapper.cube.reduce.median import median, percentiles
from mapper.cube.reduce.medoid import medoid
from tests.cube.reduce import reference
from tests.cube.reduce.reference import cost, percentile_of, sums_of_distances

pytestmark = [
    pytest.mark.archive,
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]


@pytest.fixture(scope="module")
def mol(archive):
    if "netCDF" not in raster_driver_extensions().values():
        pytest.skip("this GDAL reads no netCDF-4")
    stack, valid = reference.mol(archive)
    assert stack.shape[:2] == (12, 4)
    assert 0.02 < valid.mean() < 0.98
    return stack, valid


@pytest.fixture(scope="module")
def unmasked(mol):
    """All twelve dates, clouds too: more looks than the mask leaves."""
    return mol[0], (mol[0] > 0).all(axis=1)


@pytest.fixture(scope="module")
def slovenia(archive):
    stack, valid = reference.slovenia(archive)
    assert len(stack) == 68
    assert 0.1 < valid.mean() < 0.9
    return stack, valid


def rounded(masked):
    return np.floor(masked.astype(float).filled(0) + 0.5)


def test_medians_of_real_series_equal_numpys(mol, unmasked, slovenia):
    for stack, valid in (mol, unmasked):
        for band in range(4):
            expected = np.ma.median(np.ma.array(stack[:, band], mask=~valid), axis=0)
            np.testing.assert_array_equal(median(stack[:, band], valid), rounded(expected))
    stack, valid = slovenia
    expected = np.ma.median(np.ma.array(stack, mask=~valid), axis=0)
    np.testing.assert_array_equal(median(stack, valid), rounded(expected))


def test_percentiles_of_68_dates_are_those_of_sorted_lists(slovenia):
    stack, valid = slovenia[0][:, :40], slovenia[1][:, :40]
    for plane, percent in zip(percentiles(stack, valid, [10, 90]), (10, 90), strict=True):
        for y, x in np.ndindex(plane.shape):
            assert plane[y, x] == percentile_of(stack[valid[:, y, x], y, x], percent)


def test_the_mean_of_68_dates_is_numpys(slovenia):
    stack, valid = slovenia
    running = ReflectanceMean(stack.shape[1:])
    for look, good in zip(stack, valid, strict=True):
        running.add(look, good)
    expected = np.ma.array(stack, mask=~valid, dtype=float).mean(axis=0)
    np.testing.assert_array_equal(running.result(), rounded(expected))


def test_medoids_of_real_series_are_those_of_brute_force(mol, unmasked):
    days = np.arange(19_000, 19_120, 10)
    for stack, valid in (mol, unmasked):
        values, index = medoid(stack, valid)
        for y, x in np.ndindex(index.shape):
            times = np.flatnonzero(valid[:, y, x])
            if not len(times):
                assert index[y, x] == -1
                continue
            sums = sums_of_distances(stack[times, :, y, x])
            assert sums[list(times).index(index[y, x])] <= sums.min() * (1 + 1e-6)
        own = nearest_date(stack, valid, values, days)
        chosen = date_of_look(index, days)
        assert (own <= chosen).all(), "the look itself, or an equal one before it"
        assert (own == chosen).mean() > 0.99


def test_the_medoid_of_one_band_of_68_dates_lies_in_the_middle(slovenia):
    stack, valid = slovenia
    values, index = medoid(stack[:, None], valid)
    expected = np.ma.array(stack, mask=~valid)
    odd = valid.sum(axis=0) % 2 == 1
    assert odd.any()
    np.testing.assert_array_equal(values[0][odd], rounded(np.ma.median(expected, axis=0))[odd])
    assert np.take_along_axis(valid, index[None].astype(int), axis=0).all()


def test_geometric_medians_of_a_sample_are_no_worse_than_scipys(unmasked):
    stack, valid = unmasked[0][:, :, ::13, ::13], unmasked[1][:, ::13, ::13]
    values, spread = geomedian(stack, valid)
    for y, x in np.ndindex(valid.shape[1:]):
        looks = stack[valid[:, y, x], :, y, x].astype(float)
        start = np.median(looks, axis=0)
        found = minimize(lambda p, looks=looks: cost(looks, p), start, method="BFGS").fun
        assert cost(looks, values[:, y, x]) <= found * (1 + 1e-4) + len(looks)
    assert np.isfinite(spread).all()
    assert (spread >= 0).all()
