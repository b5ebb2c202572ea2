"""The lattice: the same ground has the same numbers, whoever asks."""

import math

import numpy as np
import pytest
import rasterio.transform
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.geom import BoundingBox
from pyproj import Transformer
from pyproj.aoi import AreaOfInterest
from pyproj.database import query_utm_crs_info
from shapely import MultiPoint, Point, box

from mapper.area.grid import Grid, PixelBox, TileKey, project, utm_epsg
from mapper.errors import AreaError, UsageError
from tests.strategies import RESOLUTIONS, boxes, grids, keys

GRID = Grid(epsg=32650, resolution=10, tile=256)

old_affine_product = pytest.mark.filterwarnings(
    "ignore:Use `@` matmul instead of:PendingDeprecationWarning"
)


def area(pixels):
    height, width = pixels.shape
    return height * width


# tiles -------------------------------------------------------------------------------------


@given(boxes(), st.sampled_from((256, 512)))
def test_tiles_cover_a_box_exactly_once(pixels, tile):
    tiles = Grid(epsg=32650, resolution=10, tile=tile).tiles_in(pixels)
    count = np.zeros(pixels.shape, dtype=int)
    for key in tiles:
        common = key.box.intersect(pixels)
        assert not common.empty
        count[common.slices_in(pixels)] += 1
    assert (count == 1).all()


@given(boxes())
def test_tiles_are_listed_north_to_south_and_west_to_east(pixels):
    places = [(k.box.row0, k.box.col0) for k in GRID.tiles_in(pixels)]
    assert places == sorted(places)


@given(keys, st.integers(-3, 3), st.integers(-3, 3))
def test_tile_boxes_tile_the_plane(key, rows, cols):
    other = key.neighbour(rows, cols)
    assert key.box.shape == other.box.shape == (key.tile, key.tile)
    assert other.box.row0 == key.box.row0 - rows * key.tile
    assert other.box.col0 == key.box.col0 + cols * key.tile
    assert other.box.intersect(key.box).empty == ((rows, cols) != (0, 0))


@given(keys)
def test_a_tile_lies_where_its_number_says(key):
    left, bottom, right, top = key.grid.bounds_of(key.box)
    side = key.tile * key.resolution
    expected = (key.col * side, key.row * side, (key.col + 1) * side, (key.row + 1) * side)
    assert (left, bottom, right, top) == pytest.approx(expected, abs=1e-6)


@given(boxes(), boxes())
def test_the_same_ground_has_the_same_keys_for_every_area(one, other):
    first, second = GRID.tiles_in(one), GRID.tiles_in(other)
    shared = set(first) & set(second)
    assert shared == {k for k in first if not k.box.intersect(other).empty}
    assert set(GRID.tiles_in(one.intersect(other))) <= shared


def test_columns_west_of_the_origin_are_negative():
    pixels = PixelBox(row0=-300, col0=-300, row1=-299, col1=-299)
    (key,) = GRID.tiles_in(pixels)
    assert (key.row, key.col) == (1, -2)
    assert str(key) == "32650/10m/t256/r0001c-002"
    assert TileKey.parse(str(key)) == key


def test_an_empty_box_has_no_tiles():
    assert GRID.tiles_in(PixelBox(row0=5, col0=5, row1=5, col1=9)) == []


# keys --------------------------------------------------------------------------------------


@given(keys)
def test_a_key_is_read_back_as_it_was_written(key):
    assert TileKey.parse(str(key)) == key


@pytest.mark.parametrize("resolution", [1 / 3, 0.29858214173896974, 0.00001, 1_000_000.0])
def test_odd_resolutions_survive_in_a_key(resolution):
    key = TileKey(epsg=32650, resolution=resolution, tile=256, row=3, col=4)
    assert TileKey.parse(str(key)) == key


@given(keys, keys)
def test_different_tiles_have_different_names(one, other):
    assert (one == other) == (str(one) == str(other))


def test_keys_have_the_documented_form():
    key = TileKey(epsg=32650, resolution=10.0, tile=2048, row=123, col=32)
    assert str(key) == "32650/10m/t2048/r0123c0032"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "32650",
        "32650/10m/t2048/r0123",
        "32650/10m/t2048/r0123c0032/",
        "32650/10m/t2048/r0123c0032\n",
        "32650/1.0.0m/t2048/r0123c0032",
        "../32650/10m/t2048/r0123c0032",
        "x32650/10m/t2048/r0123c0032",
    ],
)
def test_other_texts_are_no_keys(text):
    with pytest.raises(UsageError):
        TileKey.parse(text)


# boxes -------------------------------------------------------------------------------------


@given(grids, boxes(reach=2_000_000))
def test_bounds_on_lattice_lines_are_not_moved(grid, pixels):
    assert grid.box_of(grid.bounds_of(pixels)) == pixels


@given(
    boxes(reach=100_000),
    st.tuples(*[st.floats(1e-4, 1 - 1e-4)] * 4),
    st.sampled_from(RESOLUTIONS),
)
def test_bounds_inside_a_pixel_take_the_whole_pixel(pixels, share, resolution):
    grid = Grid(epsg=32650, resolution=resolution, tile=256)
    left, bottom, right, top = grid.bounds_of(pixels)
    west, south, east, north = (s * resolution for s in share)
    grown = (left - west, bottom - south, right + east, top + north)
    assert grid.box_of(grown) == pixels.grow(1)


@given(boxes(), st.sampled_from((-4e-7, 4e-7)))
def test_rounding_noise_adds_no_row(pixels, share):
    noise = share * GRID.resolution
    assert GRID.box_of(tuple(v + noise for v in GRID.bounds_of(pixels))) == pixels


def test_rows_count_southward_from_the_equator():
    pixels = GRID.box_of((0.0, 90.0, 20.0, 100.0))
    assert pixels == PixelBox(row0=-10, col0=0, row1=-9, col1=2)


@given(boxes(longest=60, reach=50), boxes(longest=60, reach=50))
def test_intersection_and_union_are_those_of_the_pixels(one, other):
    def cells(pixels):
        rows, cols = range(pixels.row0, pixels.row1), range(pixels.col0, pixels.col1)
        return {(r, c) for r in rows for c in cols}

    assert cells(one.intersect(other)) == cells(one) & cells(other)
    assert one.intersect(other).empty == (not cells(one) & cells(other))
    union = one.union(other)
    assert cells(one) | cells(other) <= cells(union)
    assert min(r for r, _ in cells(one) | cells(other)) == union.row0
    assert max(c for _, c in cells(one) | cells(other)) == union.col1 - 1


@given(boxes(longest=40), st.integers(0, 9))
def test_slices_cut_the_inner_box_out_of_the_outer(pixels, margin):
    outer = pixels.grow(margin)
    rows = np.arange(outer.row0, outer.row1)
    cols = np.arange(outer.col0, outer.col1)
    row_slice, col_slice = pixels.slices_in(outer)
    assert rows[row_slice].tolist() == list(range(pixels.row0, pixels.row1))
    assert cols[col_slice].tolist() == list(range(pixels.col0, pixels.col1))


# transforms --------------------------------------------------------------------------------


@old_affine_product
@given(grids, boxes())
def test_transforms_are_rasterios(grid, pixels):
    left, bottom, right, top = grid.bounds_of(pixels)
    transform = grid.transform_of(pixels)
    expected = rasterio.transform.from_origin(left, top, grid.resolution, grid.resolution)
    assert transform.almost_equals(expected, precision=1e-9)
    bounds = rasterio.transform.array_bounds(*pixels.shape, transform)
    assert bounds == pytest.approx((left, bottom, right, top), abs=1e-6)


@old_affine_product
@given(boxes())
def test_geoboxes_are_odcs(pixels):
    left, bottom, right, top = GRID.bounds_of(pixels)
    bounds = BoundingBox(left, bottom, right, top, crs="EPSG:32650")
    expected = GeoBox.from_bbox(bounds, resolution=10, tight=True)
    assert GRID.geobox_of(pixels) == expected


def test_pixel_centres_lie_half_a_pixel_inside():
    pixels = PixelBox(row0=-100, col0=7, row1=-90, col1=9)
    x, y = rasterio.transform.xy(GRID.transform_of(pixels), 0, 0)
    assert (x, y) == (75.0, 995.0)


# tiles by geometry -------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(-20_000, 20_000), st.integers(-20_000, 20_000)),
        min_size=3,
        max_size=6,
    ),
    st.sampled_from((0, 1, 30, 300)),
)
def test_tiles_touching_are_those_within_the_overhang(corners, overhang):
    shape = MultiPoint(corners).convex_hull.buffer(1.37).difference(Point(0, 0).buffer(3000))
    if shape.is_empty:
        return
    found = set(GRID.tiles_touching(shape, overhang))
    for row in range(-11, 11):
        for col in range(-11, 11):
            key = GRID.key(row, col)
            grown = box(*GRID.bounds_of(key.box.grow(overhang)))
            assert (key in found) == grown.intersects(shape)


def test_a_tile_in_the_notch_of_an_l_is_left_out():
    side = 2560.0
    shape = box(10, 10, 3 * side - 10, side - 10).union(box(10, 10, side - 10, 3 * side - 10))
    names = {(k.row, k.col) for k in GRID.tiles_touching(shape)}
    assert names == {(0, 0), (0, 1), (0, 2), (1, 0), (2, 0)}
    grown = {(k.row, k.col) for k in GRID.tiles_touching(shape, overhang=2)}
    assert (1, 1) in grown
    assert (2, 2) not in grown


# zones -------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.floats(-179.99, 179.99), st.floats(-79.9, 83.9))
def test_zones_are_those_of_the_epsg_database(lon, lat):
    if min(lon % 6, 6 - lon % 6) < 1e-3 or abs(lat) < 1e-3:
        return
    corner = AreaOfInterest(lon, lat, lon, lat)
    known = {int(i.code) for i in query_utm_crs_info("WGS 84", corner)}
    regular = {c for c in known if (c > 32700) == (lat < 0)}
    assert utm_epsg(lon, lat) in regular


@pytest.mark.parametrize(
    ("lon", "zone"), [(-180, 1), (180, 1), (181, 1), (179.9, 60), (-0.1, 30), (0, 31), (186.5, 2)]
)
def test_zones_turn_over_at_the_antimeridian(lon, zone):
    assert utm_epsg(lon, 10) == 32600 + zone
    assert utm_epsg(lon, -10) == 32700 + zone


@pytest.mark.parametrize("lat", [84.1, 90, -80.1, -90, math.nan])
def test_polar_latitudes_are_refused(lat):
    with pytest.raises(AreaError, match="latitude"):
        utm_epsg(10, lat)


@pytest.mark.parametrize("tile", [0, -256, 100, 255, 513])
def test_tiles_that_are_no_multiple_of_a_block_are_refused(tile):
    with pytest.raises(UsageError, match=str(tile)):
        Grid(epsg=32650, resolution=10, tile=tile)


@pytest.mark.parametrize("resolution", [0, -10, math.nan, math.inf])
def test_impossible_resolutions_are_refused(resolution):
    with pytest.raises(UsageError, match="resolution"):
        Grid(epsg=32650, resolution=resolution, tile=256)


def test_long_edges_stay_where_they_were_when_projected():
    lonlat = box(9, 50, 15, 52)
    projected = project(lonlat, "EPSG:4326", "EPSG:32633")
    edge = np.linspace(9, 15, 5001)
    x, y = Transformer.from_crs(4326, 32633, always_xy=True).transform(edge, np.full(5001, 50.0))
    farthest = max(projected.exterior.distance(Point(*p)) for p in zip(x, y, strict=True))
    chord = abs(np.interp(x, x[[0, -1]], y[[0, -1]]) - y).max()
    assert farthest < 2
    assert chord > 4000
