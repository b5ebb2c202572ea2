"""Median with the SCL mask on a real series of twelve dates (read by GDAL's netCDF driver)."""

import numpy as np
import pytest
import rasterio
from rasterio.drivers import raster_driver_extensions

from mapper.cube.masks import clear_of_scl, rescued
from mapper.cube.reduce.median import median
from mapper.recipe import SclMask

pytestmark = [
    pytest.mark.archive,
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning"),
]
INVALID = [0, 1, 3, 8, 9, 10]


@pytest.fixture(scope="module")
def series(archive):
    """Twelve dates of a variable, `(time, y, x)`."""
    if "netCDF" not in raster_driver_extensions().values():
        pytest.skip("this GDAL reads no netCDF-4")
    path = archive / "series" / "mol_cdse_sentinel2_l2a.nc"

    def load(name):
        with rasterio.open(f"netcdf:{path}:S2-L2A-{name}") as source:
            return source.read()[:, :300, :300]

    return load


@pytest.fixture(scope="module")
def scl(series):
    return series("SCL").astype("uint8")


@pytest.mark.parametrize("name", ["B04", "B08", "B11"])
def test_the_median_of_clear_dates_equals_numpy(series, scl, name):
    values = np.clip(series(name).astype("int32"), 0, 65534)
    assert len(values) == 12
    clear = clear_of_scl(scl, SclMask(), 20)
    assert 0.02 < clear.mean() < 0.98
    valid = (values > 0) & ~np.isin(scl, INVALID)
    expected = np.ma.median(np.ma.array(values.astype(float), mask=~valid), axis=0)
    found = median(values.astype("uint16"), (values > 0) & clear)
    np.testing.assert_array_equal(found, np.floor(expected.filled(0) + 0.5))


def test_pixels_that_are_nearly_always_masked_are_those_of_a_plain_count(scl):
    observed = scl > 0
    clear = observed & ~np.isin(scl, INVALID)
    found = rescued(observed, clear, scl, SclMask(always_masked_share=0.5))
    seen, used = observed.sum(axis=0), clear.sum(axis=0)
    always = (seen >= 5) & ((seen - used) / np.maximum(seen, 1) > 0.5)
    assert always.any()
    np.testing.assert_array_equal(found, always & observed & ~np.isin(scl, [0, 1]))
