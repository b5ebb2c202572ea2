"""Overviews are read where the lattice is coarser than a file, and never where it is finer."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform_bounds

from mapper.area.grid import Grid, PixelBox
from mapper.catalog.bands import BandAsset
from mapper.cube.readlog import read_log
from mapper.cube.warp import read_band

LEFT, TOP = 300_000, 5_200_000


@pytest.fixture
def band(tmp_path):
    """A file of 10 m that holds 8; its overviews by 2, 4 and 8 hold 2, 4 and 8 less than 100."""
    path = tmp_path / "told.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 640, "width": 640, "dtype": "uint16"}
    profile |= {"crs": "EPSG:32633", "transform": Affine(10, 0, LEFT, 0, -10, TOP)}
    with rasterio.open(path, "w", **profile, tiled=True, blockxsize=64, blockysize=64) as target:
        target.write(np.full((640, 640), 1, "uint16"), 1)
    for factor in (2, 4, 8):
        with rasterio.open(path, "r+") as target:
            target.write(np.full((640, 640), 100 - factor, "uint16"), 1)
            target.build_overviews([factor], rasterio.enums.Resampling.nearest)
    with rasterio.open(path, "r+") as target:
        target.write(np.full((640, 640), 8, "uint16"), 1)
    return BandAsset(href=str(path), index=1, nodata=0, scale=None, offset=None)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average"])
@pytest.mark.parametrize(
    ("resolution", "value"),
    [(2, 8), (5, 8), (10, 8), (15, 8), (20, 98), (30, 98), (40, 96), (60, 96), (80, 92), (160, 92)],
)
def test_the_coarsest_overview_that_is_not_coarser_is_read(band, resolution, value, resampling):
    grid = Grid(epsg=32633, resolution=resolution, tile=512)
    box = grid.box_of((LEFT + 1600, TOP - 3200, LEFT + 3200, TOP - 1600))
    read = read_band(band, grid, box, resampling)
    assert read.valid.all()
    np.testing.assert_array_equal(read.values, value)


def test_other_zones_and_degrees_read_overviews_too(band):
    grid = Grid(epsg=32632, resolution=40, tile=512)
    left, bottom, right, top = transform_bounds(
        "EPSG:32633", "EPSG:32632", LEFT + 2000, TOP - 4000, LEFT + 4000, TOP - 2000
    )
    read = read_band(band, grid, grid.box_of((left, bottom, right, top)), "bilinear")
    assert read.valid.any()
    np.testing.assert_allclose(read.values[read.valid], 96, rtol=1e-6)


def test_an_overview_saves_decoding(band):
    def decoded(resolution):
        grid = Grid(epsg=32633, resolution=resolution, tile=512)
        with read_log() as log:
            read_band(band, grid, grid.box_of((LEFT, TOP - 6400, LEFT + 6400, TOP)), "average")
        return log

    fine, coarse = decoded(10), decoded(80)
    assert fine.decoded == 640 * 640
    assert coarse.decoded < fine.decoded / 4
    assert fine.amplification == 1


def test_amplification_counts_whole_blocks(band):
    grid = Grid(epsg=32633, resolution=10, tile=512)
    row, col = round(-TOP / 10) + 60, round(LEFT / 10) + 60
    with read_log() as log:
        read_band(band, grid, PixelBox(row0=row, col0=col, row1=row + 8, col1=col + 8), "nearest")
    assert (log.wanted, log.decoded) == (64, 4 * 64 * 64)
    assert log.amplification == 256
