"""The written archive: rasters, metadata, and the truth about the metadata."""

import hashlib
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pystac
import pystac.validation
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds
from rio_cogeo.cogeo import cog_validate

from mapper.errors import UsageError
from mapper.simulate import (
    DEMO_CITIES,
    TEST_CITIES,
    TRUTH_CLASSES,
    WorldOptions,
    read_items,
    write_archive,
    write_geoparquet,
)

SMALL = WorldOptions(margin_m=120, bands=("red", "nir"), scenes=2, s1_dates=1)
COLLECTIONS = {"sentinel-2-l2a", "sentinel-1-rtc", "nasadem", "highres", "simulated-truth"}


def read(item, asset):
    with rasterio.open(item["assets"][asset]["href"]) as source:
        return source.read(1)


def place(item, asset):
    """Left edge, top edge and pixel size, metres."""
    transform = item["assets"][asset]["proj:transform"]
    return int(transform[2]), int(transform[5]), int(transform[0])


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.suffix in (".tif", ".tiff", ".json", ".geojson") and path.name != "items.json"
    }


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_archive(tmp_path / name, TEST_CITIES[1:], SMALL)
    one, two = digests(tmp_path / "one"), digests(tmp_path / "two")
    assert len(one) > 15
    assert one == two


def test_the_static_catalog_loads_and_validates(catalog):
    root = pystac.Catalog.from_file(str(catalog))
    assert {child.id for child in root.get_children()} == COLLECTIONS
    found = list(root.get_items(recursive=True))
    assert len({item.id for item in found}) == len(found) > 30
    validator = pystac.validation.RegisteredValidator.get_validator()
    for item in found:
        validator.validate_core(item.to_dict(), pystac.STACObjectType.ITEM, "1.1.0")
        for asset in item.assets.values():
            assert Path(asset.get_absolute_href()).is_file()
    for collection in root.get_children():
        validator.validate_core(collection.to_dict(), pystac.STACObjectType.COLLECTION, "1.1.0")


def test_everything_says_that_it_is_simulated(catalog, items):
    for item in items:
        assert item["properties"]["simulated"] is True
        assert "SIMULATED" in item["properties"]["description"]
        with rasterio.open(next(iter(item["assets"].values()))["href"]) as source:
            assert source.tags()["SIMULATED"] == "true"
    for path in catalog.parent.glob("*/collection.json"):
        document = json.loads(path.read_text())
        assert "imulated" in document["title"]
        assert "SIMULATED" in document["description"]
        assert any(link["rel"] == "license" for link in document["links"])
    assert "SIMULATED" in (catalog.parent / "LICENSE.txt").read_text()


def test_rasters_are_valid_cogs(items):
    paths = [asset["href"] for item in items for asset in item["assets"].values()]
    for path in paths:
        valid, errors, _ = cog_validate(path)
        assert valid, (path, errors)


def test_metadata_agree_with_the_files(items):
    for item in items:
        for name, asset in item["assets"].items():
            with rasterio.open(asset["href"]) as source:
                described = asset | item["properties"] | asset
                assert described["proj:shape"] == list(source.shape), name
                assert described["proj:transform"] == pytest.approx(list(source.transform)[:6])
                assert item["properties"]["proj:epsg"] == source.crs.to_epsg()
                stated = asset.get("raster:bands", [{}])[0]
                assert stated.get("data_type", source.dtypes[0]) == source.dtypes[0]
                assert stated.get("nodata") in (source.nodata, None)
                bounds = transform_bounds(source.crs, 4326, *source.bounds)
                assert item["bbox"] == pytest.approx(bounds, abs=2e-5)


def test_all_states_of_the_offset_occur_and_pixels_follow_the_truth(catalog, of):
    truth = json.loads((catalog.parent / "truth.json").read_text())
    seen = defaultdict(set)
    for item in of("sentinel-2-l2a"):
        offset = truth[item["id"]]["dn_offset"]
        lowest = {}
        for band in ("blue", "green", "red", "nir"):
            with rasterio.open(item["assets"][band]["href"]) as source:
                shape = source.height // 4, source.width // 4
                pixels = source.read(1, out_shape=shape, resampling=Resampling.average)
            lowest[band] = np.percentile(pixels[pixels > 0], 1)
        if offset:
            assert all(1000 < lowest[b] < 1300 for b in ("blue", "green", "red")), item["id"]
        else:
            assert min(lowest.values()) < 900
        properties = item["properties"]
        listed = item["assets"]["red"]["raster:bands"][0]["offset"]
        flag = properties["earthsearch:boa_offset_applied"]
        seen[item["id"][-8:]].add((properties["s2:processing_baseline"], flag, listed, offset))
    for cases in seen.values():
        assert cases == {
            ("03.01", False, 0, 0),
            ("04.00", True, -0.1, 0),
            ("04.00", False, -0.1, 1000),
            ("04.00", True, -0.1, 1000),
        }


def test_overlapping_granules_of_a_datatake_agree(of):
    takes = defaultdict(list)
    for item in of("sentinel-2-l2a"):
        properties = item["properties"]
        takes[properties["s2:datatake_id"], properties["proj:epsg"], item["id"][-8:]].append(item)
    for first, second in takes.values():
        for asset in ("red", "swir16", "coastal", "scl"):
            north, south = read(first, asset), read(second, asset)
            top, bottom = sorted((place(first, asset), place(second, asset)), reverse=True)
            shift = (top[1] - bottom[1]) // top[2]
            assert top[0] == bottom[0]
            if place(first, asset) != top:
                north, south = south, north
            rows = north.shape[0] - shift
            assert rows > 0.2 * north.shape[0]
            np.testing.assert_array_equal(north[shift:], south[:rows])


def test_scenes_hold_clouds_a_clear_date_and_the_edge_of_a_swath(of):
    for city in TEST_CITIES:
        found = of("sentinel-2-l2a", city.slug)
        cover = [i["properties"]["eo:cloud_cover"] for i in found]
        empty = [i["properties"]["s2:nodata_pixel_percentage"] for i in found]
        assert min(cover) < 3 < 20 < max(cover)
        assert min(empty) == 0 < 5 < max(empty)
        for item in found:
            scl, red = read(item, "scl"), read(item, "red")
            clouds = np.isin(scl, (8, 9, 10)).sum() / (scl > 0).sum()
            stated = item["properties"]["eo:cloud_cover"]
            assert stated == pytest.approx(100 * clouds, abs=0.01)
            coarse = red.reshape(scl.shape[0], 2, scl.shape[1], 2)
            np.testing.assert_array_equal((coarse > 0).all(axis=(1, 3)), scl > 0)


def test_a_city_lies_across_two_zones_and_they_show_one_place(of):
    found = of("sentinel-2-l2a", "testburg", "20220507")
    assert {i["properties"]["proj:epsg"] for i in found} == {32632, 32633}
    one, two = (next(i for i in found if part in i["id"]) for part in ("32TQS", "33TTM"))
    names = [i["assets"]["nir"]["href"] for i in (one, two)]
    with rasterio.open(names[0]) as a, rasterio.open(names[1]) as b:
        moved, here = np.zeros(a.shape, np.uint16), a.read(1)
        reproject(rasterio.band(b, 1), moved, dst_transform=a.transform, dst_crs=a.crs)
    both = (moved > 0) & (here > 0)
    assert both.mean() > 0.05
    assert np.corrcoef(moved[both], here[both])[0, 1] > 0.9


def test_sentinel1_is_linear_power_with_nodata_and_speckle(of):
    states = defaultdict(set)
    for item in of("sentinel-1-rtc"):
        states[item["id"].rsplit("sim-", 1)[1]].add(item["properties"]["sat:orbit_state"])
        for asset, water, built in (("vv", -20, -3), ("vh", -27, -10)):
            power = read(item, asset)
            assert power.dtype == np.float32
            valid = power != -32768
            assert 0.5 < valid.mean() < 1
            assert (power[valid] > 0).all()
            values = 10 * np.log10(power[valid])
            assert np.percentile(values, 0.5) == pytest.approx(water - 2.5, abs=3)
            assert np.percentile(values, 99) == pytest.approx(built + 3, abs=3.5)
    assert states == {"testburg": {"ascending", "descending"}, "probetown": {"ascending"}}
    zones = {i["properties"]["proj:epsg"] for i in of("sentinel-1-rtc", "testburg")}
    assert len(zones) == 2


def test_speckle_has_the_looks_the_item_claims(of):
    item = of("sentinel-1-rtc", "probetown")[0]
    power, valid = read(item, "vh"), read(item, "vh") > 0
    lake = power[valid & (power < np.percentile(power[valid], 0.7))]
    assert lake.size
    blocks = power[40:-40, 40:-40]
    rows, columns = blocks.shape[0] // 5, blocks.shape[1] // 5
    blocks = blocks[: rows * 5, : columns * 5].reshape(rows, 5, columns, 5)
    looks = blocks.mean(axis=(1, 3)) ** 2 / blocks.var(axis=(1, 3))
    assert np.percentile(looks, 75) == pytest.approx(4.4, rel=0.3)


def test_elevation_has_its_pixel_centres_on_arc_seconds(of):
    for item in of("nasadem"):
        assert item["properties"]["datetime"] == "2000-02-20T00:00:00Z"
        with rasterio.open(item["assets"]["elevation"]["href"]) as source:
            assert source.crs.to_epsg() == 4326
            assert source.dtypes == ("int16",)
            assert source.nodata == -32768
            lon, lat = source.xy(0, 0)
            assert lon * 3600 == pytest.approx(round(lon * 3600), abs=1e-6)
            assert lat * 3600 == pytest.approx(round(lat * 3600), abs=1e-6)
            assert source.res == pytest.approx((1 / 3600, 1 / 3600))
            heights = source.read(1)
        assert heights.min() > 0
        assert np.ptp(heights) > 5
    tiles = {item["id"].split("_")[2] for item in of("nasadem", "testburg")}
    assert {"n46e011", "n46e012"} <= tiles


def test_high_resolution_tiles_cover_the_area(of):
    city = TEST_CITIES[1]
    found = of("highres", city.slug)
    assert len(found) == 4
    area = 0
    for item in found:
        with rasterio.open(item["assets"]["image"]["href"]) as source:
            assert source.count == 4
            assert source.dtypes == ("uint8",) * 4
            assert source.res == (1, 1)
            assert source.descriptions == ("red", "green", "blue", "nir")
            pixels = source.read()
            area += pixels[0].size
        assert [b["common_name"] for b in item["assets"]["image"]["eo:bands"]] == [
            "red", "green", "blue", "nir",
        ]  # fmt: skip
        assert pixels.min() > 0
        assert pixels.std(axis=(1, 2)).min() > 10
    assert area == (city.size_m + 40) ** 2


def test_truth_at_ten_metres_is_the_majority_of_truth_at_one_metre(of):
    for item in of("simulated-truth"):
        fine, coarse = read(item, "truth_1m"), read(item, "truth_10m")
        rows, columns = coarse.shape
        blocks = fine.reshape(rows, 10, columns, 10)
        counts = np.stack([(blocks == c).sum(axis=(1, 3)) for c in range(5)])
        np.testing.assert_array_equal(coarse, counts.argmax(axis=0))
        with rasterio.open(item["assets"]["truth_10m"]["href"]) as source:
            assert source.nodata == 255
            assert all(edge % 10 == 0 for edge in source.bounds)
            assert source.colormap(1)[0] == TRUTH_CLASSES.colormap()[0]
        names = [c["name"] for c in item["assets"]["truth_1m"]["classification:classes"]]
        assert names[:2] == ["water", "green"]


def test_imagery_shows_the_truth_where_it_says_it_is(of):
    """Water is dark and vegetation red-edged at the very pixels the truth names."""
    truth_item = of("simulated-truth", "probetown")[0]
    scene = min(
        of("sentinel-2-l2a", "probetown", "27HVB"),
        key=lambda i: i["properties"]["eo:cloud_cover"],
    )
    truth, nir = read(truth_item, "truth_10m"), read(scene, "nir").astype(float)
    left, top, size = place(scene, "nir")
    inner = place(truth_item, "truth_10m")
    row, column = (top - inner[1]) // size, (inner[0] - left) // size
    nir = nir[row : row + len(truth), column : column + truth.shape[1]]
    truth = truth[: len(nir)]
    assert nir[truth == 0].mean() < 900
    assert nir[truth == 1].mean() > 2 * nir[truth == 0].mean()
    edge = np.abs(np.diff((truth == 0).astype(int), axis=1)) > 0
    jump = np.abs(np.diff(nir, axis=1))
    assert jump[edge].mean() > 3 * jump[~edge].mean()


def test_cities_and_items_files(catalog, items):
    areas = json.loads((catalog.parent / "cities.geojson").read_text())["features"]
    assert [a["properties"]["name"] for a in areas] == [c.name for c in TEST_CITIES]
    assert {"name", "country", "iso"} <= set(areas[0]["properties"])
    ring = areas[0]["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1]
    assert ring[0][0] < 12.0 < ring[1][0]
    again = read_items(catalog, "http://example.invalid/base/")
    assert {i["id"] for i in again} == {i["id"] for i in items}
    hrefs = [a["href"] for i in again for a in i["assets"].values()]
    assert all(h.startswith("http://example.invalid/base/") and "/./" not in h for h in hrefs)
    assert not list(catalog.parent.rglob("*.tmp"))
    assert not list(catalog.parent.glob(".scratch*"))


def test_geoparquet_holds_all_items(catalog, items, tmp_path):
    import pyarrow.parquet

    path = write_geoparquet(catalog, tmp_path / "items.parquet")
    table = pyarrow.parquet.read_table(path)
    assert set(table["id"].to_pylist()) == {i["id"] for i in items}


def test_options_are_checked_and_reduce_the_work(tmp_path):
    with pytest.raises(UsageError, match="purple"):
        WorldOptions(bands=("purple",))
    with pytest.raises(UsageError, match="share a name"):
        write_archive(tmp_path, [TEST_CITIES[0], TEST_CITIES[0]], SMALL)
    options = WorldOptions(
        margin_m=0, bands=("red",), scenes=1, s1_dates=0, highres=False, cloudy=False
    )
    catalog = write_archive(tmp_path, TEST_CITIES[1:], options)
    found = read_items(catalog)
    scenes = [i for i in found if i["collection"] == "sentinel-2-l2a"]
    assert [set(i["assets"]) for i in scenes] == [{"red", "scl"}] * 2
    assert {i["properties"]["eo:cloud_cover"] for i in scenes} == {0}
    kinds = {i["collection"] for i in found}
    assert kinds == {"sentinel-2-l2a", "nasadem", "simulated-truth"}


def test_the_demo_cities_are_three_places_with_their_own_difficulty():
    zones = [len(city.zones) for city in DEMO_CITIES]
    assert max(zones) == 2
    assert min(len(city.orbits) for city in DEMO_CITIES) == 1
    assert min(city.lat for city in DEMO_CITIES) < 0
    assert len({city.country for city in DEMO_CITIES}) == 3
    assert all(city.iso.startswith("X") for city in DEMO_CITIES)
