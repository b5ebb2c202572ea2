"""Which classes are ground, how far clouds grow, and when the mask is not believed."""

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rasterio.drivers import raster_driver_extensions
from scipy.ndimage import distance_transform_edt

from mapper.cube.masks import always_masked, clear_of_scl, rescued
from mapper.recipe.masks import CloudMask, SclMask

INVALID = [0, 1, 3, 8, 9, 10]


@pytest.mark.parametrize("value", range(12))
def test_every_scl_class_is_clear_or_not_as_documented(value):
    clear = clear_of_scl(np.array([[value]], "uint8"), SclMask(), 10)
    assert clear[0, 0] == (value not in INVALID)


def test_a_recipe_may_call_snow_invalid():
    rule = SclMask(invalid=[*INVALID, 11])
    clear = clear_of_scl(np.arange(12, dtype="uint8"), rule, 10)
    assert not clear[11]
    assert clear[[2, 4, 5, 6, 7]].all()


@pytest.mark.parametrize("value", range(12))
def test_only_cloud_shadow_and_cirrus_grow(value):
    scl = np.full((9, 9), 4, "uint8")
    scl[4, 4] = value
    rule = SclMask(invalid=list({*INVALID, 2, 11}), dilate=20)
    grown = (~clear_of_scl(scl, rule, 10)).sum()
    once = value in {*INVALID, 2, 11}
    assert grown == (13 if value in {3, 8, 9, 10} else once)


def test_a_cloud_class_that_the_rule_allows_does_not_grow():
    scl = np.full((9, 9), 4, "uint8")
    scl[4, 4] = 10
    assert clear_of_scl(scl, SclMask(invalid=[8, 9], dilate=50), 10).all()


def stack(values):
    """A series of SCL values over one pixel."""
    return np.array(values, "uint8").reshape(-1, 1, 1)


def saved(values, observed=None, **rule):
    scl, rule = stack(values), SclMask(**rule)
    seen = np.ones(scl.shape, bool) if observed is None else stack(observed) > 0
    return rescued(seen, seen & clear_of_scl(scl, rule, 10), scl, rule)[:, 0, 0].tolist()


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([8] * 4, False),
        ([8] * 5, True),
        ([9] * 9 + [5], False),
        ([9] * 10 + [5], True),
        ([9] * 19 + [5, 5], True),
        ([9] * 18 + [5, 5], False),
    ],
)
def test_a_pixel_is_kept_when_masked_in_more_than_nine_tenths_of_five_scenes(values, kept):
    assert saved(values) == [kept] * len(values)


def test_a_share_of_one_turns_the_rule_off():
    assert not any(saved([8] * 20, always_masked_share=1))


def test_scenes_without_data_do_not_count():
    assert not any(saved([8] * 4 + [0, 0, 0], observed=[1, 1, 1, 1, 0, 0, 0]))
    kept = saved([8] * 5 + [0, 0], observed=[1, 1, 1, 1, 1, 0, 0])
    assert kept == [True] * 5 + [False] * 2


def test_nodata_and_saturated_pixels_are_never_kept():
    assert saved([8, 8, 8, 8, 1, 0]) == [True, True, True, True, False, False]


@given(arrays("uint8", (12, 3, 4), elements=st.integers(0, 11)), st.floats(0.3, 1))
def test_counts_over_time_say_the_same_as_the_series(scl, share):
    rule = SclMask(always_masked_share=share)
    observed = scl > 0
    clear = observed & clear_of_scl(scl, rule, 10)
    seen, used = np.zeros((3, 4), int), np.zeros((3, 4), int)
    for one, free in zip(observed, clear, strict=True):
        seen += one
        used += free
    expected = np.zeros((3, 4), bool)
    for row, col in np.ndindex(3, 4):
        masked = seen[row, col] - used[row, col]
        expected[row, col] = seen[row, col] >= 5 and masked > share * seen[row, col]
    found = always_masked(seen, seen - used, rule)
    np.testing.assert_array_equal(found, expected)
    whole = rescued(observed, clear, scl, rule)
    np.testing.assert_array_equal(whole, found & observed & (scl > 1))


def test_the_rule_of_always_masked_pixels_is_that_of_any_mask():
    rule = CloudMask(kind="clouds", always_masked_share=0.5)
    assert always_masked(np.array([8, 8, 4]), np.array([5, 4, 4]), rule).tolist() == [1, 0, 0]


@pytest.fixture(scope="module")
def series(archive):
    """Scene classifications of twelve dates in Belgium, 10 m, `(time, y, x)`."""
    if "netCDF" not in raster_driver_extensions().values():
        pytest.skip("this GDAL reads no netCDF-4")
    path = archive / "series" / "mol_cdse_sentinel2_l2a.nc"
    with rasterio.open(f"netcdf:{path}:S2-L2A-SCL") as source:
        return source.read().astype("uint8")


@pytest.mark.archive
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("metres", [20, 60])
def test_clouds_of_a_real_series_grow_by_so_many_metres(series, metres):
    grew = 0
    for scl in series:
        cloud = np.isin(scl, [3, 8, 9, 10])
        near = distance_transform_edt(~cloud) * 10 <= metres if cloud.any() else cloud
        found = clear_of_scl(scl, SclMask(dilate=metres), 10)
        np.testing.assert_array_equal(found, ~near & ~np.isin(scl, [0, 1]))
        grew += clear_of_scl(scl, SclMask(), 10).sum() - found.sum()
    assert grew >= 60


@pytest.mark.archive
def test_clouds_of_a_real_scene_grow_by_so_many_metres(archive):
    path = archive / "sentinel-2-l2a" / "S2_12VVH_20190522_alberta" / "SCL.tif"
    with rasterio.open(path) as source:
        scl = source.read(1)[500:1100, 500:1100]
    near = distance_transform_edt(~np.isin(scl, [3, 8, 9, 10])) * 12 <= 100
    found = clear_of_scl(scl, SclMask(dilate=100), 12)
    np.testing.assert_array_equal(found, ~near & ~np.isin(scl, [0, 1]))
    assert found.sum() < 0.8 * clear_of_scl(scl, SclMask(), 12).sum()
