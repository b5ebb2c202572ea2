"""Nothing that was once wrong stays wrong, and no city pays for another."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.shutil import copy as copy_raster

from tests.pipelines.conftest import checksums, read_map

RASTERS = (".tif", ".csv")


@pytest.fixture
def own_world(world, tmp_path) -> Path:
    """A copy of the world that a test may damage."""
    folder = tmp_path / "own"
    shutil.copytree(world, folder)
    return folder


def cut_middle(path: Path) -> bytes:
    """Zero a stretch of a file: size, time, header and overviews stay as they are."""
    content, status = path.read_bytes(), path.stat()
    start = len(content) * 6 // 10
    path.write_bytes(content[:start] + bytes(len(content) - start))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return content


def put_back(path: Path, content: bytes, like: os.stat_result) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(like.st_atime_ns, like.st_mtime_ns))


def status_of(folder: Path, source: str) -> np.ndarray:
    with rasterio.open(folder / "observations.tif") as dataset:
        return dataset.read(dataset.descriptions.index(f"{source}_status") + 1)


def test_the_map_waits_for_sources_that_the_model_does_not_read(map_world, monkeypatch):
    import time

    import mapper.run.tasks as steps

    ingest = steps.ingest_tile

    def slow_elevation(scenes, *how):
        if scenes.name == "elevation":
            time.sleep(1.5)
        return ingest(scenes, *how)

    monkeypatch.setattr(steps, "ingest_tile", slow_elevation)
    found = read_map(map_world(cities=("Cornerton",)), "cornerton")
    inside = found["classes"] != 255
    assert (status_of(found["folder"], "elevation")[inside] == 0).all()


def test_a_required_band_that_breaks_drops_its_scene_and_not_just_itself(map_world, own_world):
    for path in own_world.glob("sentinel-2-l2a/plainville/*/*nir*.tif"):
        cut_middle(path)
    for path in own_world.glob("sentinel-2-l2a/plainville/*/*B08*.tif"):
        cut_middle(path)
    report = map_world(
        catalog=str(own_world / "catalog.json"), allow_missing=True, cities=("Plainville",)
    )
    found = read_map(report, "plainville")
    status = status_of(found["folder"], "sentinel2")
    unclassed = (found["classes"] == 255) & (status != 1)
    assert unclassed.any()
    # no pixel is called observed that has no class
    assert not np.isin(status[unclassed], [0, 5]).any()


def test_a_scene_that_can_be_read_again_heals_the_next_version(map_world, own_world):
    paths = [
        p
        for p in own_world.glob("sentinel-2-l2a/plainville/*/*.tif")
        if "SCL" not in p.name.upper()
    ]
    before = [(p, p.stat(), cut_middle(p)) for p in paths]
    options = {
        "catalog": str(own_world / "catalog.json"),
        "allow_missing": True,
        "cities": ("Plainville",),
    }
    hurt = map_world(**options)
    item = json.loads((read_map(hurt, "plainville")["folder"] / "item.json").read_text())
    assert item["properties"]["mapper:warnings"]
    for path, status, content in before:
        put_back(path, content, status)
    healed = map_world(**options, refresh=True)
    assert healed.results[0].product.endswith("v2/product")
    folder = read_map(healed, "plainville")["folder"]
    item = json.loads((folder / "item.json").read_text())
    assert item["properties"]["mapper:warnings"] == []
    assert (read_map(healed, "plainville")["classes"] != 255).sum() > 10_000


def test_every_refresh_looks_at_the_scenes_again(map_world, own_world):
    options = {"catalog": str(own_world / "catalog.json"), "cities": ("Plainville",)}
    map_world(**options)
    assert map_world(**options, refresh=True).results[0].state == "unchanged"
    path = next(
        p
        for p in sorted(own_world.glob("sentinel-2-l2a/plainville/*/*.tif"))
        if "red" in p.name or "B04" in p.name
    )
    with rasterio.open(path) as dataset:
        profile, values = dataset.profile, dataset.read()
    plain = path.with_suffix(".plain")
    with rasterio.open(plain, "w", **(profile | {"driver": "GTiff"})) as dataset:
        dataset.write(np.where(values > 0, values + 300, 0).astype(values.dtype))
    copy_raster(plain, path, driver="COG")
    plain.unlink()
    again = map_world(**options, refresh=True)
    assert again.results[0].state == "published"
    assert again.results[0].product.endswith("v2/product")


def test_a_cut_off_shard_is_made_again(map_world):
    first = map_world(cities=("Plainville",))
    good = checksums(read_map(first, "plainville")["folder"], RASTERS)
    shard = next(p for p in first.out.glob("tiles/**/sentinel2/c/**/0") if p.is_file())
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[: len(content) // 2])
    shutil.rmtree(first.out / first.results[0].product)
    again = map_world(cities=("Plainville",))
    assert shard.read_bytes() == content
    assert checksums(read_map(again, "plainville")["folder"], RASTERS) == good


def test_a_product_that_was_deleted_is_published_again(map_world):
    first = map_world(cities=("Plainville",))
    folder = first.out / first.results[0].product
    good = checksums(folder)
    shutil.rmtree(folder)
    again = map_world(cities=("Plainville",))
    assert again.results[0].state == "published"
    assert checksums(folder) == good


def test_another_place_of_the_same_name_is_refused(map_world, world, tmp_path):
    map_world(cities=("Plainville",))
    moved = json.loads((world / "cities.geojson").read_text())
    for feature in moved["features"]:
        ring = feature["geometry"]["coordinates"][0]
        feature["geometry"]["coordinates"][0] = [[x + 40, y] for x, y in ring]
    aoi = tmp_path / "moved.geojson"
    aoi.write_text(json.dumps(moved))
    report = map_world(cities=("Plainville",), aoi=aoi, year=2021)
    assert "another place" in report.results[0].reason


def test_neighbours_share_tiles_that_are_made_once(map_world, world, tmp_path):
    cities = json.loads((world / "cities.geojson").read_text())
    twin = json.loads(json.dumps(cities["features"][1]))
    ring = twin["geometry"]["coordinates"][0]
    twin["geometry"]["coordinates"][0] = [[x + 0.002, y] for x, y in ring]
    twin["properties"]["name"] = "Twinville"
    cities["features"] = [cities["features"][1], twin]
    aoi = tmp_path / "twins.geojson"
    aoi.write_text(json.dumps(cities))
    report = map_world(aoi=aoi)
    assert [r.reason for r in report.results] == ["", ""]
    keys = [
        json.loads(line.split(b" ", 1)[1])["key"]
        for path in report.out.glob("ledger/*.jsonl")
        for line in path.read_bytes().splitlines()
    ]
    ingests = [k for k in keys if k.startswith("ingest/")]
    assert len(ingests) == len(set(ingests))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": None}, "whose id"),
        ({"properties": None}, "no properties"),
        ({"bbox": [1, 2, 3]}, "bbox of 3"),
    ],
)
def test_a_catalog_with_an_odd_item_is_a_clear_error(map_world, world, tmp_path, change, said):
    items = json.loads((world / "items.json").read_text())
    optical = next(
        f
        for f in items["features"]
        if f["collection"] == "sentinel-2-l2a" and "plainville" in f["id"]
    )
    optical.update(change)
    path = tmp_path / "items.json"
    path.write_text(json.dumps(items))
    report = map_world(catalog=str(path), cities=("Plainville",))
    assert said in report.results[0].reason
