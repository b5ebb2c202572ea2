"""Horn's slope and aspect, on planes with known angles and against scipy."""

import numpy as np
import pytest
import rasterio
from scipy.ndimage import correlate

from mapper.area.grid import Grid
from mapper.cube.terrain import slope_aspect
from mapper.cube.warp import read_band

DIRECTIONS = {"n": 0, "ne": 45, "e": 90, "se": 135, "s": 180, "sw": 225, "w": 270, "nw": 315}


def plane(aspect, slope, resolution, shape=(9, 11)):
    """Heights of a plane that falls towards `aspect` (clockwise from north)."""
    row, col = np.mgrid[: shape[0], : shape[1]]
    north, east = -row * resolution, col * resolution
    turn = np.radians(aspect)
    along = north * np.cos(turn) + east * np.sin(turn)
    return 1000 - along * np.tan(np.radians(slope))


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize(("slope", "resolution"), [(5, 10), (30, 10), (70, 2.5)])
def test_a_tilted_plane_has_its_angles(name, slope, resolution):
    found, aspect = slope_aspect(plane(DIRECTIONS[name], slope, resolution), resolution)
    assert found.shape == (7, 9)
    assert found.dtype == aspect.dtype == np.float32
    np.testing.assert_allclose(found, slope, atol=1e-3)
    turned = (aspect - DIRECTIONS[name] + 180) % 360 - 180
    np.testing.assert_allclose(turned, 0, atol=1e-3)
    assert (aspect >= 0).all()
    assert (aspect < 360).all()


@pytest.mark.parametrize("height", [0.0, -3.0, 812.5])
def test_flat_ground_has_no_slope_and_aspect_zero(height):
    slope, aspect = slope_aspect(np.full((5, 5), height), 10)
    np.testing.assert_array_equal(slope, 0)
    np.testing.assert_array_equal(aspect, 0)


def test_aspect_stays_below_360_where_float32_would_round_up_to_it():
    heights = plane(0, 30, 10) + np.arange(11) * 1e-9
    aspect = slope_aspect(heights, 10)[1]
    assert (aspect < 360).all()


def horn(heights, resolution):
    """Horn's kernels by scipy; voids as NaN."""
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / (8 * resolution)
    z = heights.astype(float)
    east, south = (correlate(z, k)[1:-1, 1:-1] for k in (kernel, kernel.T))
    slope = np.degrees(np.arctan(np.hypot(east, south)))
    aspect = np.degrees(np.arctan2(-east, south)) % 360
    return slope, aspect


@pytest.mark.parametrize("void", [(0, 0), (0, 5), (8, 10), (4, 5), (1, 1), (3, 0)])
def test_a_void_takes_its_neighbours_and_nothing_else(void):
    heights = np.random.default_rng(2).normal(100, 5, (9, 11))
    whole = slope_aspect(heights, 10)
    heights[void] = np.nan
    slope, aspect = slope_aspect(heights, 10)
    row, col = np.mgrid[1:8, 1:10]
    near = (abs(row - void[0]) <= 1) & (abs(col - void[1]) <= 1)
    np.testing.assert_array_equal(np.isnan(slope), near)
    np.testing.assert_array_equal(np.isnan(aspect), near)
    np.testing.assert_array_equal(slope[~near], whole[0][~near])


def test_blocks_meet_without_a_seam():
    heights = np.random.default_rng(4).normal(100, 5, (42, 62))
    whole = slope_aspect(heights, 10)
    for row in (0, 20):
        for col in (0, 30):
            part = slope_aspect(heights[row : row + 22, col : col + 32], 10)
            for one, other in zip(part, whole, strict=True):
                np.testing.assert_array_equal(one, other[row : row + 20, col : col + 30])


@pytest.mark.archive
def test_real_terrain_equals_scipy(real_item, asset):
    item = real_item("cop-dem-glo-30", "lisbon_1arcsec")
    href = item["assets"]["data"]["href"]
    with rasterio.open(href) as source:
        left, bottom, right, top = source.bounds
        bounds = rasterio.warp.transform_bounds(source.crs, "EPSG:32629", left, bottom, right, top)
    grid = Grid(epsg=32629, resolution=10, tile=512)
    middle = (bounds[0] + bounds[2]) / 2, (bounds[1] + bounds[3]) / 2
    pixels = grid.box_of((middle[0] - 1500, middle[1] - 1500, middle[0] + 1500, middle[1] + 1500))
    read = read_band(asset(href), grid, pixels.grow(1), "bilinear")
    heights = np.where(read.valid, read.values, np.nan)
    slope, aspect = slope_aspect(heights, 10)
    expected = horn(heights, 10)
    assert np.nanmax(slope) > 5
    np.testing.assert_allclose(slope, expected[0], atol=1e-4)
    steep = expected[0] > 0.01
    turned = (aspect - expected[1] + 180) % 360 - 180
    np.testing.assert_allclose(turned[steep], 0, atol=1e-2)
