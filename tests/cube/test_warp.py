"""Each lattice pixel takes its value from its own exact coordinates in the source."""

import itertools
import math

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.enums import ColorInterp
from rasterio.warp import Resampling, reproject
from rasterio.windows import Window

from mapper.area.grid import Grid, PixelBox
from mapper.catalog.bands import BandAsset
from mapper.cube.warp import read_band

GRID = Grid(epsg=32633, resolution=10, tile=512)
LEFT, TOP = 300_000, 5_200_020
ORIGIN = PixelBox(row0=-520_002, col0=30_000, row1=-520_001, col1=30_001)
"""The lattice pixel at LEFT, TOP."""


def box(row, col, height, width):
    """So many pixels at a row and column counted from LEFT, TOP."""
    row, col = ORIGIN.row0 + row, ORIGIN.col0 + col
    return PixelBox(row0=row, col0=col, row1=row + height, col1=col + width)


def north_up(size, left=LEFT, top=TOP):
    return Affine(size, 0, left, 0, -size, top)


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average"])
@pytest.mark.parametrize(
    ("row", "col"), [(0, 0), (17, 31), (-9, -5), (180, 150), (-40, 10), (500, 500), (-900, 0)]
)
def test_an_aligned_source_is_copied_as_rasterio_reads_it(raster, unique, resampling, row, col):
    band = raster(unique(211, 190), north_up(10), "EPSG:32633")
    read = read_band(band, GRID, box(row, col, 40, 50), resampling)
    with rasterio.open(band.href) as source:
        expected = source.read(1, window=Window(col, row, 50, 40), boundless=True, fill_value=0)
    assert read.values.dtype == np.int32
    np.testing.assert_array_equal(np.where(read.valid, read.values, 0), expected)
    np.testing.assert_array_equal(read.valid, expected > 0)


def test_the_values_tell_a_shift_by_one_pixel(raster, unique):
    band = raster(unique(211, 190), north_up(10), "EPSG:32633")
    here = read_band(band, GRID, box(20, 20, 40, 50), "nearest").values
    for down, right in itertools.product((-1, 0, 1), repeat=2):
        there = read_band(band, GRID, box(20 + down, 20 + right, 40, 50), "nearest").values
        assert (here == there).mean() == (1.0 if (down, right) == (0, 0) else 0.0)


SOURCES = {
    "same zone, a fraction off": (32633, (12.6, 46.9), "EPSG:32633", (10, 10), 3.7),
    "same zone, 20 m": (32633, (12.6, 46.9), "EPSG:32633", (20, 20), None),
    "same zone, 60 m": (32633, (12.6, 46.9), "EPSG:32633", (60, 60), None),
    "same zone, 3 m": (32633, (12.6, 46.9), "EPSG:32633", (3, 3), 0.4),
    "other zone": (32633, (12.0, 46.9), "EPSG:32632", (10, 10), 0.0),
    "other zone, 20 m": (32632, (12.0, 46.9), "EPSG:32633", (20, 20), 0.0),
    "degrees": (32633, (12.6, 46.9), "EPSG:4326", (1 / 3600, 1 / 3600), 0.5 / 3600),
    "oblong degrees": (32633, (12.6, 60.9), "EPSG:4326", (1.5 / 3600, 1 / 3600), 0.0),
    "web mercator": (32630, (-0.37, 39.48), "EPSG:3857", (12.3, 12.3), 1.1),
    "south, a fraction off": (32727, (-21.3, -35.2), "EPSG:32727", (10, 10), 6.2),
    "south, northern zone": (32727, (-21.3, -35.2), "EPSG:32627", (10, 10), 0.0),
    "south, other zone": (32727, (-24.0, -35.2), "EPSG:32726", (20, 20), 0.0),
    "south, degrees": (32727, (-21.3, -35.2), "EPSG:4326", (1 / 3600, 1 / 3600), 0.0),
}


def case_of(name):
    """Grid, source CRS, transform and a box that hangs over the source's north-western corner."""
    epsg, lonlat, crs, (width, height), off = SOURCES[name]
    grid = Grid(epsg=epsg, resolution=10, tile=512)
    x, y = Transformer.from_crs(4326, crs, always_xy=True).transform(*lonlat)
    step = (width, height)
    left, top = (math.floor(v / s) * s + (off or 0) for v, s in zip((x, y), step, strict=True))
    transform = Affine(width, 0, left, 0, -height, top)
    x, y = Transformer.from_crs(4326, grid.crs, always_xy=True).transform(*lonlat)
    row, col = math.floor(-y / 10), math.floor(x / 10)
    return grid, crs, transform, PixelBox(row0=row - 7, col0=col - 9, row1=row + 38, col1=col + 31)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", SOURCES)
def test_a_warp_equals_scipy_at_pyproj_centres(
    raster, unique, places, interpolate, name, resampling
):
    grid, crs, transform, pixels = case_of(name)
    values = unique(110, 120)
    read = read_band(raster(values, transform, crs), grid, pixels, resampling)
    at = places(transform, crs, grid, pixels)
    order = 1 if resampling == "bilinear" else 0
    expected, inside = interpolate(values, np.ones(values.shape, bool), at, order)
    assert 200 < inside.sum() < inside.size, "the box must hang over the edge"
    np.testing.assert_array_equal(read.valid, inside)
    if resampling == "nearest":
        assert read.values.dtype == values.dtype
        np.testing.assert_array_equal(read.values[inside], expected[inside])
    else:
        np.testing.assert_allclose(read.values[inside], expected[inside], rtol=2e-6, atol=0.02)


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_a_rotated_source_is_sampled_where_it_lies(raster, unique, places, interpolate, resampling):
    turned = Affine.translation(LEFT, TOP) @ Affine.rotation(23) @ Affine.scale(9, -9)
    values = unique(130, 140)
    pixels = box(-30, 20, 60, 70)
    read = read_band(raster(values, turned, "EPSG:32633"), GRID, pixels, resampling)
    at = places(turned, "EPSG:32633", GRID, pixels)
    order = 1 if resampling == "bilinear" else 0
    expected, inside = interpolate(values, np.ones(values.shape, bool), at, order)
    assert inside.any()
    np.testing.assert_array_equal(read.valid, inside)
    np.testing.assert_allclose(read.values[inside], expected[inside], rtol=2e-6, atol=0.02)


@pytest.mark.parametrize("name", ["same zone, a fraction off", "same zone, 20 m", "other zone"])
@pytest.mark.parametrize("where", ["declared by the item", "tag of the file", "mask", "nan"])
def test_neighbours_without_data_take_no_part(raster, unique, places, interpolate, name, where):
    grid, crs, transform, pixels = case_of(name)
    values = unique(110, 120, "float32")
    valid = np.random.default_rng(5).random(values.shape) > 0.3
    more = {}
    if where == "mask":
        more["mask"] = valid
    else:
        values[~valid] = np.nan if where == "nan" else 77777
        more |= {
            "declared by the item": {"declared": 77777.0},
            "tag of the file": {"nodata": 77777.0},
        }.get(where, {})
    read = read_band(raster(values, transform, crs, **more), grid, pixels, "bilinear")
    at = places(transform, crs, grid, pixels)
    expected, inside = interpolate(np.where(valid, values, 0), valid, at, 1)
    np.testing.assert_array_equal(read.valid, inside)
    np.testing.assert_allclose(read.values[inside], expected[inside], rtol=1e-5, atol=0.05)


def test_the_items_nodata_goes_before_the_files(raster, unique):
    values = unique(30, 30)
    values[3, 4], values[5, 6] = 1_000_001, 1_000_002
    band = raster(values, north_up(10), "EPSG:32633", nodata=1_000_001, declared=1_000_002.0)
    valid = read_band(band, GRID, box(0, 0, 30, 30), "nearest").valid
    assert valid[3, 4]
    assert not valid[5, 6]


def test_a_nodata_tag_that_is_nan_masks_nan_and_nothing_else(raster, unique):
    values = unique(30, 30, "float32")
    values[3, 4] = np.nan
    band = raster(values, north_up(10), "EPSG:32633", nodata=float("nan"))
    read = read_band(band, GRID, box(0, 0, 30, 30), "nearest")
    np.testing.assert_array_equal(read.valid, np.isfinite(values))


def test_alpha_masks_the_colours(raster, unique):
    colours = np.stack([unique(40, 40, "uint8")] * 3 + [np.full((40, 40), 255, "uint8")])
    colours[3, 10:20, 12:17] = 0
    band = raster(colours, north_up(10), "EPSG:32633", photometric="RGB", alpha="YES")
    with rasterio.open(band.href) as source:
        assert source.colorinterp[3] == ColorInterp.alpha
    read = read_band(band, GRID, box(0, 0, 40, 40), "nearest")
    np.testing.assert_array_equal(read.valid, colours[3] > 0)
    np.testing.assert_array_equal(read.values[read.valid], colours[0][read.valid])


def test_the_band_of_an_asset_with_many_is_the_one_read(raster, asset, unique):
    layers = np.stack([unique(20, 20) + 1000 * n for n in range(4)])
    path = raster(layers, north_up(10), "EPSG:32633").href
    for number in range(4):
        read = read_band(asset(path, index=number + 1), GRID, box(0, 0, 20, 20), "nearest")
        np.testing.assert_array_equal(read.values, layers[number])


@pytest.mark.parametrize(("size", "factor"), [(5, 2), (2, 5), (1, 10)])
def test_average_of_whole_finer_pixels_is_their_mean(raster, unique, size, factor):
    values = unique(20 * factor, 30 * factor)
    read = read_band(
        raster(values, north_up(size), "EPSG:32633"), GRID, box(-3, -2, 30, 40), "average"
    )
    expected = values.reshape(20, factor, 30, factor).mean(axis=(1, 3))
    inside = np.zeros((30, 40), bool)
    inside[3:23, 2:32] = True
    np.testing.assert_array_equal(read.valid, inside)
    np.testing.assert_allclose(read.values[3:23, 2:32], expected, rtol=1e-5)


def test_average_leaves_out_voids_and_wants_half_of_the_area(raster, unique):
    values = unique(40, 40).astype("float32")
    values[0, 0] = values[10, 10:12] = values[20:22, 20] = np.nan
    values[30, 30:32] = values[31, 30] = np.nan
    read = read_band(raster(values, north_up(5), "EPSG:32633"), GRID, box(0, 0, 20, 20), "average")
    parts = values.reshape(20, 2, 20, 2)
    known = np.isfinite(parts).sum(axis=(1, 3))
    np.testing.assert_array_equal(read.valid, known >= 2)
    expected = np.nansum(parts, axis=(1, 3)) / known
    np.testing.assert_allclose(read.values[read.valid], expected[read.valid], rtol=1e-6)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A raster of the neighbouring zone, and one in degrees, that cover a 2048-pixel box."""
    folder = tmp_path_factory.mktemp("wide")
    found = {}
    for name, crs, size, shape in (
        ("zone", "EPSG:32632", 10, (2500, 2500)),
        ("degrees", "EPSG:4326", 1 / 3600, (720, 1080)),
        ("20 m", "EPSG:32633", 20, (1100, 1100)),
    ):
        values = (np.random.default_rng(3).permutation(math.prod(shape)) + 1).reshape(shape)
        x, y = Transformer.from_crs(32633, crs, always_xy=True).transform(LEFT - 900, TOP + 900)
        transform = north_up(size, math.floor(x / size) * size, math.ceil(y / size) * size)
        path = folder / f"{name.replace(' ', '')}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", count=1, height=shape[0], width=shape[1], dtype="int32",
            crs=crs, transform=transform, tiled=True,
        ) as target:  # fmt: skip
            target.write(values.astype("int32"), 1)
        found[name] = path
    return found


WHOLE = box(0, 0, 700, 600)


@pytest.fixture(scope="module")
def whole(wide):
    """A box read at once, by source and resampling."""
    return {
        (name, how): read_band(_plain(path), GRID, WHOLE, how)
        for name, path in wide.items()
        for how in ("nearest", "bilinear", "average")
    }


def _plain(path):
    return BandAsset(href=str(path), index=1, nodata=None, scale=None, offset=None)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["zone", "degrees", "20 m"]),
    how=st.sampled_from(["nearest", "bilinear", "average"]),
    row=st.integers(0, 690),
    col=st.integers(0, 590),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
)
def test_a_pixel_does_not_depend_on_the_box_it_is_read_in(
    wide, whole, name, how, row, col, height, width
):
    part = box(row, col, height, width).intersect(WHOLE)
    read = read_band(_plain(wide[name]), GRID, part, how)
    inside = part.slices_in(WHOLE)
    np.testing.assert_array_equal(read.values, whole[name, how].values[inside])
    np.testing.assert_array_equal(read.valid, whole[name, how].valid[inside])


def gdal_warp(path, pixels, resampling):
    with rasterio.open(path) as source:
        found = np.zeros(pixels.shape, "float32")
        reproject(
            source.read(1).astype("float32"),
            found,
            src_transform=source.transform,
            src_crs=source.crs,
            dst_transform=GRID.transform_of(pixels),
            dst_crs=GRID.crs,
            resampling=resampling,
        )
        return found


@pytest.mark.parametrize("how", [Resampling.nearest, Resampling.bilinear])
def test_control_a_warp_of_a_whole_tile_does_depend_on_it(wide, how):
    small, large = box(0, 0, 512, 512), box(0, 0, 2048, 2048)
    one, other = (gdal_warp(wide["zone"], b, how) for b in (small, large))
    assert (one != other[:512, :512]).mean() > 0.001
    ours, theirs = (
        read_band(_plain(wide["zone"]), GRID, b, how.name).values for b in (small, large)
    )
    np.testing.assert_array_equal(ours, theirs[:512, :512])


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    ("west", "east", "south", "north"),
    [
        (-180, 180, -90, 90),
        (-60, 100, -10, 80),
        (-165, 15, 40, 80),
        (12, 14, 46, 48),
        (10, 13, 0, 84),
    ],
)
def test_a_source_of_any_extent_gives_its_pixels(
    raster, unique, places, interpolate, resampling, west, east, south, north
):
    values = unique((north - south) * 2, (east - west) * 2)
    transform = Affine(0.5, 0, west, 0, -0.5, north)
    grid = Grid(epsg=32633, resolution=1000, tile=512)
    pixels = PixelBox(row0=-5300, col0=260, row1=-5150, col1=480)
    read = read_band(raster(values, transform, "EPSG:4326"), grid, pixels, resampling)
    at = places(transform, "EPSG:4326", grid, pixels)
    order = 1 if resampling == "bilinear" else 0
    expected, inside = interpolate(values, np.ones(values.shape, bool), at, order)
    assert inside.any()
    np.testing.assert_array_equal(read.valid, inside)
    np.testing.assert_allclose(read.values[inside], expected[inside], rtol=1e-5, atol=0.05)
