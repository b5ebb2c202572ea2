"""What cannot be read is an error with an address that may be shown, never nodata."""

import numpy as np
import pytest
import rasterio
from affine import Affine

from mapper.area.grid import Grid, PixelBox
from mapper.cube.warp import read_band
from mapper.errors import ReadError
from mapper.simulate import serve_files

GRID = Grid(epsg=32633, resolution=10, tile=512)
PIXELS = PixelBox(row0=-520_000, col0=30_000, row1=-519_400, col1=30_600)


@pytest.fixture
def cog(tmp_path):
    values = np.random.default_rng(1).integers(1, 60_000, (1, 600, 600), dtype="uint16")
    path = tmp_path / "whole.tif"
    with rasterio.open(
        path, "w", driver="COG", count=1, height=600, width=600, dtype="uint16", blocksize=128,
        crs="EPSG:32633", transform=Affine(10, 0, 300_000, 0, -10, 5_200_000),
    ) as target:  # fmt: skip
        target.write(values)
    return path, values[0]


def test_a_file_that_is_cut_off_is_an_error(cog, asset):
    path, _ = cog
    cut = path.with_name("cut.tif")
    content = path.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(ReadError, match=r"cut\.tif") as caught:
        read_band(asset(cut), GRID, PIXELS, "nearest")
    assert str(cut) in str(caught.value)


def test_a_cut_off_answer_is_an_error_with_its_unsigned_address(cog, asset):
    path, _ = cog
    size = path.stat().st_size // 2
    with serve_files(path.parent, truncate={"whole.tif": size}) as address:
        href = f"{address}/whole.tif"
        with pytest.raises(ReadError) as caught:
            read_band(asset(f"{href}?sig=hidden"), GRID, PIXELS, "nearest")
    assert href in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_the_part_before_the_cut_is_no_excuse_for_the_rest(cog, asset):
    """Most blocks can be read; the box that needs the lost ones must not come back with holes."""
    path, _ = cog
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(ReadError):
        read_band(asset(path), GRID, PIXELS, "bilinear")


def test_two_failures_of_the_server_are_waited_out(cog, asset):
    path, values = cog
    with serve_files(path.parent, fail_first=2) as address:
        read = read_band(asset(f"{address}/whole.tif"), GRID, PIXELS, "nearest")
    assert read.valid.all()
    np.testing.assert_array_equal(read.values, values)


@pytest.mark.parametrize("remote", [False, True])
def test_a_missing_file_is_named(tmp_path, asset, remote):
    if not remote:
        with pytest.raises(ReadError, match=r"nowhere\.tif"):
            read_band(asset(tmp_path / "nowhere.tif"), GRID, PIXELS, "nearest")
        return
    with (
        serve_files(tmp_path) as address,
        pytest.raises(ReadError, match=f"{address}/nowhere.tif"),
    ):
        read_band(asset(f"{address}/nowhere.tif?sig=hidden"), GRID, PIXELS, "nearest")


def test_a_file_without_crs_is_refused(raster, unique):
    band = raster(unique(20, 20), Affine(10, 0, 300_000, 0, -10, 5_200_000), None)
    with pytest.raises(ReadError, match="has no CRS"):
        read_band(band, GRID, PIXELS, "nearest")


def test_a_band_that_the_file_lacks_is_refused(raster, asset, unique):
    path = raster(unique(20, 20), Affine(10, 0, 300_000, 0, -10, 5_200_000), "EPSG:32633").href
    with pytest.raises(ReadError, match="has 1 bands, its item promises 3"):
        read_band(asset(path, index=3), GRID, PIXELS, "nearest")


def test_something_that_is_no_raster_is_named(tmp_path, asset):
    (tmp_path / "note.tif").write_text("no raster")
    with pytest.raises(ReadError, match=r"note\.tif"):
        read_band(asset(tmp_path / "note.tif"), GRID, PIXELS, "nearest")
