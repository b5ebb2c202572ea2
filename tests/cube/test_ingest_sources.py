"""Radar, elevation and high-resolution tiles of a simulated archive."""

import copy

import numpy as np
import pytest
import rasterio
from affine import Affine

from mapper.area.grid import Grid
from mapper.cube.ingest import TileScenes, ingest_tile
from mapper.cube.inspect import inspect_item
from mapper.cube.load import Target, read_mosaic
from mapper.cube.terrain import slope_aspect
from mapper.errors import ReadError
from mapper.recipe import Bands, ElevationSource, ImagerySource, Sentinel1Source

RADAR = Sentinel1Source(kind="sentinel-1")
APART = RADAR.model_copy(update={"orbits": "apart"})
ELEVATION = ElevationSource(kind="elevation")
IMAGERY = ImagerySource(kind="imagery", catalog="here")


@pytest.fixture
def ingest():
    def run(items, source, key):
        looks = {i["id"]: inspect_item(i, source) for i in items}
        return ingest_tile(
            TileScenes(name="source", key=key, items=tuple(items), inspections=looks), source
        )

    return run


@pytest.fixture(scope="module")
def tile_in(items):
    """The tile at the middle of a city's highres picture."""

    def find(city, resolution=10, tile=512):
        bounds = [i["properties"]["proj:bbox"] for i in items("highres", city)]
        epsg = items("highres", city)[0]["properties"]["proj:epsg"]
        x = (min(b[0] for b in bounds) + max(b[2] for b in bounds)) / 2
        y = (min(b[1] for b in bounds) + max(b[3] for b in bounds)) / 2
        grid = Grid(epsg=epsg, resolution=resolution, tile=tile)
        return grid.tiles_in(grid.box_of((x, y, x + 0.1, y + 0.1)))[0]

    return find


def arrays_of(layers):
    return [array for _, array in layers.arrays]


@pytest.fixture(scope="module")
def backscatter(places, interpolate):
    """Mean of linear power in dB and the count, from the files."""

    def make(items, band, key):
        total, count = np.zeros(key.box.shape), np.zeros(key.box.shape, int)
        for item in items:
            with rasterio.open(item["assets"][band]["href"]) as source:
                values = source.read(1)
                at = places(source.transform, f"EPSG:{source.crs.to_epsg()}", key.grid, key.box)
            values, valid = interpolate(values, values != -32768, at, 1)
            total += np.where(valid, values, 0)
            count += valid
        mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        return 10 * np.log10(mean), count

    return make


@pytest.mark.parametrize("city", ["testburg", "probetown"])
def test_radar_equals_a_mean_of_the_files(items, tile_in, ingest, backscatter, city):
    found, key = items("sentinel-1-rtc", city), tile_in(city)
    layers = ingest(found, RADAR, key)
    data, count, status = arrays_of(layers)
    for index, band in enumerate(("vv", "vh")):
        expected, seen = backscatter(found, band, key)
        np.testing.assert_allclose(data[index], expected, atol=2e-4)
        np.testing.assert_array_equal(count, seen)
    np.testing.assert_array_equal(status, np.where(count > 0, 0, 2))
    assert layers.observations == len(found)


def test_orbits_apart_hold_their_own_passes(items, tile_in, ingest, backscatter):
    found, key = items("sentinel-1-rtc", "testburg"), tile_in("testburg")
    layers = ingest(found, APART, key)
    data, count, _ = arrays_of(layers)
    assert APART.layers == ["vv_ascending", "vh_ascending", "vv_descending", "vh_descending"]
    total = np.zeros(count.shape, int)
    for index, name in enumerate(APART.layers):
        band, orbit = name.split("_")
        passes = [i for i in found if i["properties"]["sat:orbit_state"] == orbit]
        assert passes
        expected, seen = backscatter(passes, band, key)
        np.testing.assert_allclose(data[index], expected, atol=2e-4)
        total += seen if band == "vv" else 0
    np.testing.assert_array_equal(count, total)
    assert layers.missing_bands == ()


def test_a_city_of_one_orbit_has_nan_in_the_other(items, tile_in, ingest):
    layers = ingest(items("sentinel-1-rtc", "probetown"), APART, tile_in("probetown"))
    data = arrays_of(layers)[0]
    assert np.isfinite(data[:2]).any()
    assert np.isnan(data[2:]).all()
    assert layers.missing_bands == ("vv_descending", "vh_descending")


@pytest.mark.parametrize("state", [None, "", "unknown", "polar"])
def test_an_unknown_orbit_fills_neither(items, tile_in, ingest, state):
    found = copy.deepcopy(items("sentinel-1-rtc", "testburg"))
    for item in found:
        if state is None:
            del item["properties"]["sat:orbit_state"]
        else:
            item["properties"]["sat:orbit_state"] = state
    key = tile_in("testburg")
    data, count, status = arrays_of(ingest(found, APART, key))
    assert np.isnan(data).all()
    assert not count.any()
    assert (status == 2).all()
    assert np.isfinite(arrays_of(ingest(found, RADAR, key))[0]).any()


def test_two_radar_frames_of_one_pass_are_one_observation(items, tile_in, ingest):
    one = items("sentinel-1-rtc", "probetown")[0]
    twin = copy.deepcopy(one)
    twin["id"] += "-twin"
    key = tile_in("probetown")
    alone, both = ingest([one], RADAR, key), ingest([one, twin], RADAR, key)
    assert both.observations == 1
    for a, b in zip(arrays_of(alone), arrays_of(both), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("city", ["testburg", "probetown"])
def test_elevation_equals_the_file_and_its_slope_horns(
    items, tile_in, ingest, places, interpolate, city
):
    key, found = tile_in(city), items("nasadem", city)
    data, count, status = arrays_of(ingest(found, ELEVATION, key))
    heights = np.full(key.box.shape, np.nan)
    for item in found:
        with rasterio.open(item["assets"]["elevation"]["href"]) as source:
            values = source.read(1)
            at = places(source.transform, "EPSG:4326", key.grid, key.box)
        values, valid = interpolate(values, values != -32768, at, 1)
        take = valid & np.isnan(heights)
        heights[take] = values[take]
    np.testing.assert_array_equal(np.isnan(data[0]), np.isnan(heights))
    np.testing.assert_allclose(data[0], heights, rtol=1e-5)
    np.testing.assert_array_equal(count, np.isfinite(heights))
    np.testing.assert_array_equal(status, np.where(np.isfinite(heights), 0, 2))


def test_slope_has_no_seam_between_tiles(items, tile_in, ingest):
    small = tile_in("testburg", tile=256)
    large = tile_in("testburg", tile=1024)
    found = items("nasadem", "testburg")
    whole = arrays_of(ingest(found, ELEVATION, large))[0]
    met = 0
    for key in (small.neighbour(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)):
        if key.box.intersect(large.box) != key.box:
            continue
        part = arrays_of(ingest(found, ELEVATION, key))[0]
        np.testing.assert_array_equal(part, whole[(..., *key.box.slices_in(large.box))])
        met += np.isfinite(part[1]).any()
    assert met >= 2, "at least two neighbours must hold terrain"


def test_slope_at_a_tiles_edge_is_that_of_a_larger_box(items, tile_in, ingest):
    key = tile_in("testburg", tile=256)
    found = tuple(items("nasadem", "testburg"))
    grown = Target(grid=key.grid, pixels=key.box.grow(9))
    whole = read_mosaic(found, "elevation", grown, "bilinear")
    slope, aspect = slope_aspect(np.where(whole.valid, whole.values, np.nan), 10)
    data = arrays_of(ingest(found, ELEVATION, key))[0]
    np.testing.assert_array_equal(data[1], slope[8:-8, 8:-8])
    np.testing.assert_array_equal(data[2], aspect[8:-8, 8:-8])


@pytest.fixture
def picture(raster):
    """An item of an RGB picture with one value, over part of the tile."""

    def make(name, value, when, *, cloud=None, cols=(0, 512), bands=("red", "green", "blue")):
        values = np.full((len(bands), 512, cols[1] - cols[0]), value, "uint8")
        band = raster(values, Affine(1, 0, 1024 + cols[0], 0, -1, -512), "EPSG:32727")
        properties = {"datetime": when} | ({} if cloud is None else {"eo:cloud_cover": cloud})
        asset = {"href": band.href, "bands": [{"name": b} for b in bands]}
        return {"id": name, "properties": properties, "assets": {"image": asset}}

    return make


KEY = Grid(epsg=32727, resolution=1, tile=512).key(-2, 2)


def test_the_newest_picture_lies_on_top(ingest, picture):
    found = [
        picture("old", 10, "2019-01-01T00:00:00Z", cloud=0),
        picture("new", 30, "2022-01-01T00:00:00Z", cloud=80, cols=(100, 200)),
        picture("mid", 20, "2021-01-01T00:00:00Z", cloud=10, cols=(150, 400)),
    ]
    expected = np.full(512, 10)
    expected[150:400] = 20
    expected[100:200] = 30
    for order in (found, found[::-1]):
        data, count, status = arrays_of(ingest(order, IMAGERY, KEY))
        for layer in data[:3]:
            np.testing.assert_array_equal(layer, np.broadcast_to(expected, (512, 512)))
        assert (data[3] == 65535).all()
        assert (count == 1).all()
        assert not status.any()


def test_the_least_cloudy_picture_lies_on_top(ingest, picture):
    source = IMAGERY.model_copy(update={"order": "least_cloudy"})
    found = [
        picture("hazy", 30, "2022-01-01T00:00:00Z", cloud=40),
        picture("clear", 10, "2019-01-01T00:00:00Z", cloud=1, cols=(0, 300)),
        picture("newer", 20, "2021-01-01T00:00:00Z", cloud=1, cols=(200, 400)),
    ]
    expected = np.full(512, 30)
    expected[:300] = 10
    expected[200:400] = 20
    for order in (found, found[::-1]):
        data = arrays_of(ingest(order, source, KEY))[0]
        np.testing.assert_array_equal(data[0], np.broadcast_to(expected, (512, 512)))


def test_ties_go_by_id(ingest, picture):
    found = [picture(n, v, "2022-01-01T00:00:00Z") for n, v in (("b", 2), ("a", 1), ("c", 3))]
    assert (arrays_of(ingest(found, IMAGERY, KEY))[0][:3] == 1).all()


def test_ground_without_a_picture_was_never_observed(ingest, picture):
    layers = ingest([picture("one", 7, "2022-01-01T00:00:00Z", cols=(0, 100))], IMAGERY, KEY)
    data, count, status = arrays_of(layers)
    assert (data[:, :, 100:] == 65535).all()
    assert (status[:, 100:] == 2).all()
    assert not status[:, :100].any()
    np.testing.assert_array_equal(count, status == 0)
    assert layers.missing_bands == ("nir",)


def test_a_black_picture_is_data(ingest, picture):
    data, _, status = arrays_of(ingest([picture("b", 0, "2022-01-01T00:00:00Z")], IMAGERY, KEY))
    assert (data[:3] == 0).all()
    assert not status.any()


def test_a_picture_that_lacks_every_required_band_covers_nothing(ingest, picture):
    lacking = picture("new", 9, "2023-01-01T00:00:00Z", bands=("x", "y", "z"))
    whole = picture("old", 5, "2020-01-01T00:00:00Z")
    data, count, status = arrays_of(ingest([lacking, whole], IMAGERY, KEY))
    assert (data[:3] == 5).all()
    assert not status.any()
    assert (count == 1).all()


def test_highres_tiles_equal_the_files(items, tile_in, ingest):
    key = tile_in("probetown", resolution=1)
    found = items("highres", "probetown")
    data = arrays_of(ingest(found, IMAGERY, key))[0]
    expected = np.full((4, 512, 512), 65535)
    left, _, _, top = key.grid.bounds_of(key.box)
    for item in found:
        with rasterio.open(item["assets"]["image"]["href"]) as source:
            down, right = round(top - source.transform.f), round(source.transform.c - left)
            values = source.read()
        row, col = (a.astype(int) for a in np.ogrid[:512, :512])
        row, col = np.broadcast_arrays(row - down, col - right)
        inside = (row >= 0) & (col >= 0) & (row < values.shape[1]) & (col < values.shape[2])
        expected[:, inside] = values[:, row[inside], col[inside]]
    assert (expected < 65535).mean() > 0.5
    np.testing.assert_array_equal(data, expected)


@pytest.mark.parametrize(
    ("source", "collection", "band"),
    [
        (RADAR, "sentinel-1-rtc", "vv"),
        (ELEVATION, "nasadem", "elevation"),
        (IMAGERY, "highres", "image"),
    ],
    ids=["radar", "elevation", "imagery"],
)
@pytest.mark.parametrize("budget", [0, 1])
def test_a_scene_that_breaks_while_read_stops_or_marks_the_tile(
    items, tile_in, tmp_path, source, collection, band, budget
):
    source = source.model_copy(update={"failure_budget": budget})
    whole = items(collection, "probetown")[:1]
    key = tile_in("probetown", resolution=1 if collection == "highres" else 10)
    looks = {i["id"]: inspect_item(i, source) for i in whole}
    cut = copy.deepcopy(whole)
    path = tmp_path / "cut.tif"
    with open(cut[0]["assets"][band]["href"], "rb") as original:
        content = original.read()
    path.write_bytes(content[: len(content) // 3])
    cut[0]["assets"][band]["href"] = str(path)
    scenes = TileScenes(name="x", key=key, items=tuple(cut), inspections=looks)
    if not budget:
        with pytest.raises(ReadError, match=r"cut\.tif"):
            ingest_tile(scenes, source)
        return
    layers = ingest_tile(scenes, source)
    data, count, status = arrays_of(layers)
    assert set(np.unique(status)) <= {0, 2, 4}
    assert (status == 4).any()
    assert all("cut.tif" in message for message in layers.failures)
    empty = data[0][status == 4]
    assert (empty == 65535).all() if collection == "highres" else np.isnan(empty).all()
    if collection != "sentinel-1-rtc":
        assert not count.any()


def test_the_bands_of_a_recipe_come_in_its_order(items, tile_in, ingest):
    source = ELEVATION.model_copy(update={"bands": Bands(required=["aspect", "elevation"])})
    key = tile_in("probetown", tile=256)
    usual = arrays_of(ingest(items("nasadem", "probetown"), ELEVATION, key))[0]
    turned = arrays_of(ingest(items("nasadem", "probetown"), source, key))[0]
    np.testing.assert_array_equal(turned, usual[[2, 0]])
