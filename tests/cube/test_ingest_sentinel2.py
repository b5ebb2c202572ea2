"""A Sentinel-2 tile equals what rasterio, scipy and numpy make of the same files."""

import copy
import random

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.features import rasterize
from rasterio.warp import transform_geom
from scipy.ndimage import binary_dilation, binary_erosion

from mapper.area.grid import Grid, TileKey
from mapper.catalog.observation import Observation
from mapper.catalog.sentinel2 import OffsetVerdict
from mapper.cube.ingest import TileScenes, ingest_tile
from mapper.cube.inspect import Inspection, inspect_item
from mapper.cube.load import Target, read_mosaic, read_reflectance
from mapper.errors import ReadError
from mapper.recipe import Bands, SclMask, Sentinel2Source

SOURCE = Sentinel2Source(
    kind="sentinel-2", bands=Bands(required=["red", "nir"], optional=["swir16"])
)
INVALID = [0, 1, 3, 8, 9, 10]


@pytest.fixture(scope="session")
def scenes_of():
    """Scenes of a tile, inspected for a source."""

    def make(items, source, key, name="source"):
        looks = {i["id"]: inspect_item(i, source) for i in items}
        return TileScenes(name=name, key=key, items=tuple(items), inspections=looks)

    return make


def tile_over(item, tile=512):
    """The lattice tile at the middle of an item, in the item's zone."""
    epsg = item["properties"]["proj:epsg"]
    transform, shape = (item["assets"]["red"][f"proj:{p}"] for p in ("transform", "shape"))
    grid = Grid(epsg=epsg, resolution=10, tile=tile)
    x, y = transform[2] + 5 * shape[1], transform[5] - 5 * shape[0]
    return grid.tiles_in(grid.box_of((x, y, x + 1, y + 1)))[0]


@pytest.fixture(scope="module")
def compute(places, interpolate, dn_offsets):
    """The whole composite from the files, with the truth about the offsets."""

    def band(item, name, key, order):
        with rasterio.open(item["assets"][name]["href"]) as source:
            values = source.read(1)
            at = places(source.transform, f"EPSG:{source.crs.to_epsg()}", key.grid, key.box)
        return interpolate(values, values > 0, at, order)

    def mosaic(granules, name, key):
        total, seen = np.zeros(key.box.shape), np.zeros(key.box.shape, bool)
        for item in granules:
            order = 0 if name == "scl" else 1
            values, valid = band(item, name, key, order)
            if name != "scl":
                values = np.floor(values - dn_offsets[item["id"]] + 0.5)
                values = np.clip(values, 1, 65534)
            take = valid & ~seen
            total[take] = values[take]
            seen |= valid
        return total, seen

    def make(items, key, bands):
        takes = {}
        for item in items:
            takes.setdefault(item["properties"]["s2:datatake_id"], []).append(item)
        layers = {name: [] for name in (*bands, "scl")}
        for granules in takes.values():
            granules.sort(key=lambda i: (i["properties"]["proj:epsg"] != key.epsg, i["id"]))
            for name in layers:
                layers[name].append(mosaic(granules, name, key))
        observed = np.stack([seen for _, seen in layers[bands[0]]])
        scl = np.stack([np.where(seen, v, 0) for v, seen in layers["scl"]])
        clear = observed & ~np.isin(scl, INVALID)
        data = []
        for name in bands:
            values = np.stack([np.where(s, v, np.nan) for v, s in layers[name]])
            values[~clear] = np.nan
            masked = np.ma.masked_invalid(values)
            data.append(np.floor(np.ma.median(masked, axis=0).filled(0) + 0.5))
        status = np.where(clear.any(0), 0, np.where(observed.any(0), 3, 2))
        return np.stack(data), clear.sum(0), status

    return make


def arrays_of(layers):
    return [array for _, array in layers.arrays]


def test_a_tile_equals_the_reference_pixel_for_pixel(items, scenes_of, compute):
    found = items("sentinel-2-l2a", "probetown")
    key = tile_over(found[0])
    layers = ingest_tile(scenes_of(found, SOURCE, key), SOURCE)
    data, count, status = arrays_of(layers)
    expected = compute(found, key, SOURCE.bands.all)
    assert 10_000 < (expected[2] == 0).sum() < expected[2].size
    assert expected[1].max() == 4
    np.testing.assert_array_equal(data, expected[0])
    np.testing.assert_array_equal(count, expected[1])
    np.testing.assert_array_equal(status, expected[2])
    assert layers.observations == 4
    assert (layers.failures, layers.missing_bands) == ((), ())
    assert [t.name for t, _ in layers.arrays] == ["source", "source_count", "source_status"]
    for template, array in layers.arrays:
        assert str(array.dtype) == template.dtype


@pytest.mark.parametrize("zone", ["_32", "_33"])
def test_a_city_across_two_zones_equals_the_reference(items, scenes_of, compute, zone):
    source = SOURCE.model_copy(update={"bands": Bands(required=["red"], optional=["swir16"])})
    found = items("sentinel-2-l2a", "testburg")
    found = [i for i in found if "20220507" not in i["id"] and "20220117" not in i["id"]]
    key = tile_over(next(i for i in found if zone in i["id"]))
    data, count, status = arrays_of(ingest_tile(scenes_of(found, source, key), source))
    expected = compute(found, key, source.bands.all)
    np.testing.assert_array_equal(count, expected[1])
    np.testing.assert_array_equal(status, expected[2])
    off = np.abs(data.astype(int) - expected[0])
    assert off.max() <= 1, "float32 weights may tip a half, no more"
    assert (off > 0).mean() < 1e-3


@pytest.mark.parametrize("city", ["testburg", "probetown"])
def test_values_do_not_depend_on_the_tile_size(items, scenes_of, city):
    source = SOURCE.model_copy(update={"bands": Bands(required=["red", "swir16"])})
    found = items("sentinel-2-l2a", city, "20220714")
    small = tile_over(found[0])
    mine = arrays_of(ingest_tile(scenes_of(found, source, small), source))
    assert (mine[2] == 0).any()
    for size in (1024, 2048):
        shrink = size // 512
        key = TileKey(
            epsg=small.epsg, resolution=10, tile=size,
            row=small.row // shrink, col=small.col // shrink,
        )  # fmt: skip
        inside = small.box.slices_in(key.box)
        for one, other in zip(
            mine, arrays_of(ingest_tile(scenes_of(found, source, key), source)), strict=True
        ):
            np.testing.assert_array_equal(one, other[(..., *inside)])


def test_the_order_of_items_does_not_matter(items, scenes_of):
    found = [i for i in items("sentinel-2-l2a", "testburg") if "20220507" not in i["id"]]
    key = tile_over(found[0])
    first = arrays_of(ingest_tile(scenes_of(found, SOURCE, key), SOURCE))
    shuffled = list(found)
    random.Random(3).shuffle(shuffled)
    for one, other in zip(
        first, arrays_of(ingest_tile(scenes_of(shuffled, SOURCE, key), SOURCE)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_tile_beside_the_scenes_was_never_observed(items, scenes_of):
    found = items("sentinel-2-l2a", "probetown")
    key = tile_over(found[0]).neighbour(3, 3)
    layers = ingest_tile(scenes_of(found, SOURCE, key), SOURCE)
    data, count, status = arrays_of(layers)
    assert not data.any()
    assert not count.any()
    assert (status == 2).all()
    assert layers.observations == 0


def test_without_a_mask_clouds_are_used(items, scenes_of):
    found = items("sentinel-2-l2a", "probetown")
    key = tile_over(found[0])
    source = SOURCE.model_copy(update={"mask": None})
    _, count, status = arrays_of(ingest_tile(scenes_of(found, source, key), source))
    _, masked, under = arrays_of(ingest_tile(scenes_of(found, SOURCE, key), SOURCE))
    assert (count >= masked).all()
    assert (count > masked).any()
    assert not (status == 3).any()
    np.testing.assert_array_equal(status == 2, under == 2)


def test_pixels_that_every_scene_masks_say_so(items, scenes_of):
    found = items("sentinel-2-l2a", "probetown", "20220920")
    key = tile_over(found[0])
    data, count, status = arrays_of(ingest_tile(scenes_of(found, SOURCE, key), SOURCE))
    assert set(np.unique(status)) == {0, 2, 3}
    assert not data[:, status == 3].any()
    assert not count[status != 0].any()


def test_pixels_kept_although_masked_say_so(items, scenes_of):
    """Five copies of a cloudy day: the mask is overruled where it never lets anything through."""
    day = items("sentinel-2-l2a", "probetown", "20220920")
    copies = []
    for number in range(5):
        for item in day:
            one = copy.deepcopy(item)
            one["id"] += f"-{number}"
            one["properties"]["s2:datatake_id"] += f"-{number}"
            copies.append(one)
    key = tile_over(day[0])
    data, count, status = arrays_of(ingest_tile(scenes_of(copies, SOURCE, key), SOURCE))
    once = arrays_of(ingest_tile(scenes_of(day, SOURCE, key), SOURCE))
    assert (status == 5).any()
    target = Target(grid=key.grid, pixels=key.box)
    scl = read_mosaic(tuple(day), "scl", target, "nearest")
    known = scl.valid & ~np.isin(scl.values, [0, 1])
    np.testing.assert_array_equal(status == 5, (once[2] == 3) & known)
    assert (data[:, status == 5] > 0).all()
    assert (count[status == 5] == 5).all()
    np.testing.assert_array_equal(data[:, once[2] == 0], once[0][:, once[2] == 0])
    off = SOURCE.model_copy(update={"mask": SclMask(always_masked_share=1)})
    assert not (arrays_of(ingest_tile(scenes_of(copies, off, key), off))[2] == 5).any()


@pytest.mark.parametrize("lacking", ["one granule", "every granule"])
def test_an_optional_band_may_be_absent(items, scenes_of, lacking):
    found = copy.deepcopy(items("sentinel-2-l2a", "probetown"))
    key = tile_over(found[0])
    whole = arrays_of(ingest_tile(scenes_of(found, SOURCE, key), SOURCE))
    for item in found[:1] if lacking == "one granule" else found:
        del item["assets"]["swir16"]
    layers = ingest_tile(scenes_of(found, SOURCE, key), SOURCE)
    data, count, status = arrays_of(layers)
    np.testing.assert_array_equal(data[:2], whole[0][:2])
    np.testing.assert_array_equal(count, whole[1])
    np.testing.assert_array_equal(status, whole[2])
    if lacking == "one granule":
        assert layers.missing_bands == ()
        assert data[2].any()
    else:
        assert layers.missing_bands == ("swir16",)
        assert not data[2].any()


def broken(items, tmp_path, name="red"):
    """The items, the first of them with a band that opens and then breaks."""
    found = copy.deepcopy(items)
    path = tmp_path / "cut.tif"
    with open(found[0]["assets"][name]["href"], "rb") as source:
        content = source.read()
    path.write_bytes(content[: len(content) // 2])
    found[0]["assets"][name]["href"] = str(path)
    return found


def test_a_broken_scene_stops_the_tile(items, tmp_path, scenes_of):
    found = items("sentinel-2-l2a", "probetown")
    key = tile_over(found[0])
    looks = scenes_of(found, SOURCE, key).inspections
    scenes = TileScenes(name="s2", key=key, items=tuple(broken(found, tmp_path)), inspections=looks)
    with pytest.raises(ReadError, match=r"cut\.tif"):
        ingest_tile(scenes, SOURCE)


@pytest.mark.parametrize("seen", ["at inspection", "while reading"])
def test_a_broken_scene_is_left_out_where_the_recipe_says_so(items, tmp_path, scenes_of, seen):
    source = SOURCE.model_copy(update={"failure_budget": 1})
    found = items("sentinel-2-l2a", "probetown", "20220507")
    key = tile_over(found[0])
    cut = broken(found, tmp_path)
    if seen == "at inspection":
        looks = {
            i["id"]: Inspection(item=i["id"], contents={}, failure="gone")
            if i is cut[0]
            else inspect_item(i, source)
            for i in cut
        }
    else:
        looks = scenes_of(found, source, key).inspections
    layers = ingest_tile(TileScenes(name="s", key=key, items=tuple(cut), inspections=looks), source)
    data, count, status = arrays_of(layers)
    empty = status == 4
    assert empty.any()
    # a gap where the lost scene lies is its own; elsewhere nothing was ever observed
    ground = transform_geom("EPSG:4326", key.grid.crs, cut[0]["geometry"])
    transform = key.grid.transform_of(key.box)
    lost = rasterize([ground], out_shape=key.box.shape, transform=transform, all_touched=True) > 0
    assert not (status[binary_erosion(lost, iterations=2)] == 2).any()
    if seen == "at inspection":
        # the other granules of its pass are used
        assert not (status[~binary_dilation(lost, iterations=2)] == 4).any()
    assert not data[:, empty].any()
    assert not count[empty].any()
    if seen == "while reading":
        assert len(layers.failures) == 1
        assert "cut.tif" in layers.failures[0]
    else:
        assert (status == 0).any()


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_a_scene_with_the_offset_stores_the_reflectance_of_one_without(raster, resampling):
    truth = np.random.default_rng(6).integers(1, 9000, (80, 80)).astype("uint16")
    truth[:20, :20] = 0
    grid = Grid(epsg=32727, resolution=10, tile=512)
    target = Target(grid=grid, pixels=grid.box_of((5, -905, 905, -5)))
    stored = []
    for offset in (0, 1000):
        numbers = np.where(truth > 0, truth + offset, 0).astype("uint16")
        band = raster(numbers, Affine(20, 0, 0, 0, -20, 0), "EPSG:32727", nodata=0)
        item = {
            "id": "one",
            "properties": {
                "s2:processing_baseline": "04.00" if offset else "03.01",
                "datetime": "2022-05-05T00:00:00Z",
            },
            "assets": {n: {"href": band.href} for n in ("B02", "B03", "B04")},
        }
        look = inspect_item(item, SOURCE)
        assert look.verdict.offset == (-0.1 if offset else 0)
        stored.append(
            read_reflectance(
                Observation(key="one", items=(item,)), "red", target, ({"one": look}, resampling)
            )
        )
    np.testing.assert_array_equal(stored[0].values, stored[1].values)
    np.testing.assert_array_equal(stored[0].valid, stored[1].valid)
    assert stored[0].valid.any()
    assert not stored[0].values[~stored[0].valid].any()


def test_dark_pixels_are_clamped_to_one_and_never_become_nodata(raster):
    values = np.array([[0, 1, 999, 1000, 1001, 65535]], "uint16")
    item = {
        "id": "dark",
        "properties": {"s2:processing_baseline": "05.00", "datetime": "2023-01-01T00:00:00Z"},
        "assets": {
            "B04": {
                "href": raster(values, Affine(10, 0, 0, 0, -10, 0), "EPSG:32727", nodata=0).href
            }
        },
    }
    verdict = OffsetVerdict(offset=-0.1, declared=-0.1, basis="baseline")
    looks = {"dark": Inspection(item="dark", contents={}, verdict=verdict)}
    grid = Grid(epsg=32727, resolution=10, tile=512)
    target = Target(grid=grid, pixels=grid.box_of((0, -10, 60, 0)))
    found = read_reflectance(Observation(key="k", items=(item,)), "red", target, (looks, "nearest"))
    assert found.values.tolist() == [[0, 1, 1, 1, 1, 64535]]
    assert found.valid.tolist() == [[False] + [True] * 5]
