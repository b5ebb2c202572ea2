"""The same pixels as odc-stac loads, an independent library on the same grid."""

import numpy as np
import pystac
import pytest

from mapper.area.grid import Grid
from mapper.catalog.bands import find_band
from mapper.cube.warp import read_band

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The 'shapely.ops.transform:DeprecationWarning"),
]


@pytest.mark.parametrize("name", ["red", "nir", "swir16", "scl"])
def test_same_zone_bands_equal_odc_stac(items, name):
    from odc.stac import load

    item = items("sentinel-2-l2a", "probetown", "20220507")[0]
    grid = Grid(epsg=item["properties"]["proj:epsg"], resolution=10, tile=512)
    left, top = item["assets"]["red"]["proj:transform"][2:6:3]
    pixels = grid.box_of((left - 200, top - 1500, left + 1900, top + 150))
    loaded = load(
        [pystac.Item.from_dict(item)],
        bands=[name],
        geobox=grid.geobox_of(pixels),
        resampling="nearest",
    )[name]
    expected = np.asarray(loaded)[0]
    read = read_band(find_band(item, name), grid, pixels, "nearest")
    assert read.valid.any()
    assert not read.valid.all()
    np.testing.assert_array_equal(np.where(read.valid, read.values, 0), expected)
