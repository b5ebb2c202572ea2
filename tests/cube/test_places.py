"""Interpolated coordinates are those of pyproj, and the same for every box."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from mapper.area.grid import Grid, PixelBox
from mapper.cube.places import forget_places, source_places

pytestmark = pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")


def source(crs, transform):
    return SimpleNamespace(crs=rasterio.CRS.from_user_input(crs), transform=transform)


def box_at(grid, lon, lat, height=300, width=310):
    x, y = Transformer.from_crs(4326, grid.crs, always_xy=True).transform(lon, lat)
    row, col = math.floor(-y / grid.resolution), math.floor(x / grid.resolution)
    return PixelBox(row0=row, col0=col, row1=row + height, col1=col + width)


def exact(dataset, grid, box, shift=(0.0, 0.0)):
    rows = np.arange(box.row0, box.row1) + 0.5 + shift[0]
    cols = np.arange(box.col0, box.col1) + 0.5 + shift[1]
    x, y = np.meshgrid(cols * grid.resolution, -rows * grid.resolution)
    east, north = Transformer.from_crs(grid.crs, dataset.crs, always_xy=True).transform(x, y)
    back = ~dataset.transform
    return (
        back.d * east + back.e * north + back.f - 0.5,
        back.a * east + back.b * north + back.c - 0.5,
    )


NEIGHBOUR = (32632, Affine(10, 0, 700_000, 0, -10, 5_300_000))
DEGREES = (4326, Affine(1 / 3600, 0, -180, 0, -1 / 3600, 90))
CASES = {
    "other zone": (32633, 10, (12.0, 46.9), NEIGHBOUR),
    "other zone, 1 m": (32633, 1, (12.0, 46.9), NEIGHBOUR),
    "other zone, 100 m": (32633, 100, (12.0, 46.9), NEIGHBOUR),
    "degrees": (32633, 10, (15.2, 60.1), DEGREES),
    "degrees, far north": (32633, 10, (15.2, 83.9), DEGREES),
    "degrees, southern": (32701, 10, (-176.5, -43.9), DEGREES),
    "web mercator": (32630, 0.5, (-0.37, 39.48), (3857, Affine(0.6, 0, 0, 0, -0.6, 5_000_000))),
    "polar stereographic": (32633, 10, (15.0, 82.0), (3413, Affine(10, 0, 0, 0, -10, 0))),
}


@pytest.mark.parametrize("name", CASES)
def test_places_are_those_of_pyproj_to_a_millionth_of_a_pixel(name):
    epsg, resolution, lonlat, (crs, transform) = CASES[name]
    grid, dataset = Grid(epsg=epsg, resolution=resolution, tile=512), source(crs, transform)
    box = box_at(grid, *lonlat)
    for shift in ((0.0, 0.0), (0.375, -0.125)):
        found, expected = source_places(dataset, grid, box, shift), exact(dataset, grid, box, shift)
        for one, other in zip(found, expected, strict=True):
            assert np.abs(one - other).max() < 1e-6


def test_over_the_antimeridian_every_pixel_is_projected_by_itself():
    grid, dataset = Grid(epsg=32701, resolution=10, tile=512), source(*DEGREES)
    box = box_at(grid, 179.985, -16.8)
    forget_places()
    rows, cols = source_places(dataset, grid, box)
    expected = exact(dataset, grid, box)
    assert np.ptp(cols) > 300 * 3600, "the box must lie across it"
    np.testing.assert_allclose(rows, expected[0], atol=1e-6)
    np.testing.assert_allclose(cols, expected[1], atol=1e-6)


def test_where_there_is_no_projection_there_is_no_place():
    grid = Grid(epsg=32633, resolution=10_000, tile=512)
    dataset = source("+proj=ortho +lat_0=0 +lon_0=15", Affine(1000, 0, 0, 0, -1000, 0))
    box = PixelBox(row0=-1100, col0=0, row1=-700, col1=200)
    rows, _ = source_places(dataset, grid, box)
    with np.errstate(invalid="ignore"):
        expected = exact(dataset, grid, box)[0]
    assert not np.isfinite(expected).all()
    np.testing.assert_array_equal(np.isfinite(rows), np.isfinite(expected))


@settings(max_examples=25)
@given(
    st.sampled_from(list(CASES)),
    st.tuples(*[st.integers(0, 60)] * 2),
    st.tuples(*[st.integers(1, 60)] * 2),
)
def test_places_do_not_depend_on_the_box(name, corner, size):
    epsg, resolution, lonlat, (crs, transform) = CASES[name]
    grid, dataset = Grid(epsg=epsg, resolution=resolution, tile=512), source(crs, transform)
    whole = box_at(grid, *lonlat, 130, 130)
    row, col = whole.row0 + corner[0], whole.col0 + corner[1]
    part = PixelBox(row0=row, col0=col, row1=row + size[0], col1=col + size[1])
    inside = part.slices_in(whole)
    for large, small in zip(
        source_places(dataset, grid, whole), source_places(dataset, grid, part), strict=True
    ):
        np.testing.assert_array_equal(large[inside], small)
