"""A map is the ground's alone: not the tile's, the block's, the workers' or the AOI's.

Every comparison is also made with the halo cut by one pixel, and with a warp of whole tiles,
to show that it can fail.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio.warp
from rasterio.enums import Resampling

import mapper.cube.load
import mapper.run.estimate
import mapper.run.maps
from mapper.area.grid import PixelBox
from mapper.cube.sample import Pixels
from mapper.transport.opening import open_raster
from tests.pipelines.conftest import checksums, differing, read_map
from tests.pipelines.fixed_models import HALO, write_model, write_recipe

WINDOWS = {
    "core": {"mode": "core", "size": 64 + 2 * HALO, "stride": 64},
    "blend": {"mode": "blend", "size": 128, "stride": 64},
}
CASES = [(context, mode) for context in ("local", "global") for mode in ("core", "blend")]
IDS = [f"{context}-{mode}" for context, mode in CASES]


@pytest.fixture(scope="module")
def recipes(tmp_path_factory):
    """A recipe for each kind of context and each way of joining windows."""
    folder = tmp_path_factory.mktemp("recipes")
    made = {}
    for context, mode in CASES:
        model = write_model(folder / f"{context}-{mode}", context, WINDOWS[mode])
        made[context, mode] = write_recipe(folder / f"fixed-{context}-{mode}.yaml", model)
    return made


@pytest.fixture
def small_blocks(monkeypatch):
    """One tile a task, so that tile borders are task borders."""
    monkeypatch.setattr(mapper.run.estimate, "block_tiles", lambda plan: 1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Folders of runs by tile size: what is ingested serves every model."""
    return tmp_path_factory.mktemp("shared")


def cut_aoi(world: Path, folder: Path) -> Path:
    """The corner city without its western part, its corners off every lattice line.

    What is left has its middle in the same zone: invariance is claimed within one CRS.
    """
    collection = json.loads((world / "cities.geojson").read_text())
    feature = next(f for f in collection["features"] if f["properties"]["name"] == "Cornerton")
    lons, lats = zip(*feature["geometry"]["coordinates"][0], strict=True)
    west, east, south, north = min(lons), max(lons), min(lats), max(lats)
    ring = [
        [east + 0.0017, south + 0.0041],
        [west + 0.39 * (east - west), south + 0.0013],
        [west + 0.23 * (east - west), north - 0.0023],
        [east - 0.0011, north - 0.0007],
        [east + 0.0017, south + 0.0041],
    ]
    feature["geometry"]["coordinates"] = [ring]
    path = folder / "cut.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


@pytest.mark.parametrize(("context", "mode"), CASES, ids=IDS)
def test_maps_do_not_depend_on_tile_size_or_aoi(
    map_world, world, recipes, shared, small_blocks, tmp_path, context, mode
):
    recipe = str(recipes[context, mode])
    base = {"cities": ("Cornerton",), "recipe": recipe}
    maps = {
        tile: read_map(map_world(**base, out=shared / str(tile), tile_size=tile), "cornerton")
        for tile in (512, 1024, 2048)
    }
    assert len(np.unique(maps[512]["classes"])) > 2
    for tile in (1024, 2048):
        assert checksums(maps[tile]["folder"], (".tif", ".csv")) == checksums(
            maps[512]["folder"], (".tif", ".csv")
        )
    aoi = cut_aoi(world, tmp_path)
    cut = read_map(map_world(**base, aoi=aoi, out=shared / f"cut-{context}-{mode}"), "cornerton")
    assert differing(cut, maps[512]) == 0


def cut_reads(predict_box):
    """Predict with the outermost pixel of what a block reads taken away."""

    def predict(engine, source, pixels, selected):
        plan, layers = engine.plan, engine.coding.layers
        seen = plan.windows.reach(pixels).intersect(pixels.grow(plan.context)).grow(-1)

        def read_less(box: PixelBox):
            keep = np.zeros(box.shape, dtype=bool)
            common = box.intersect(seen)
            keep[common.slices_in(box)] = True
            both = zip(layers, source.read(box), strict=True)
            return tuple(np.where(keep, values, layer.empty(1, 1)) for layer, values in both)

        return predict_box(engine, replace(source, read=read_less), pixels, selected)

    return predict


@pytest.mark.parametrize(("context", "mode"), CASES, ids=IDS)
def test_a_halo_cut_by_one_pixel_shows(
    map_world, recipes, shared, small_blocks, tmp_path, monkeypatch, context, mode
):
    monkeypatch.setattr(mapper.run.maps, "predict_box", cut_reads(mapper.run.maps.predict_box))
    base = {"cities": ("Cornerton",), "recipe": str(recipes[context, mode])}
    maps = [
        read_map(map_world(**base, out=tmp_path / str(tile), tile_size=tile), "cornerton")
        for tile in (512, 1024)
    ]
    # tiles of 512 have borders inside the city that tiles of 1024 lack, and the other way round
    whole = read_map(map_world(**base, out=shared / "512", tile_size=512), "cornerton")
    assert differing(maps[0], whole) > 0


def warp_whole_tile(band, grid, pixels, resampling):
    """What most tools do: one approximating warp of the whole tile."""
    with open_raster(band.href) as dataset:
        values = np.zeros(pixels.shape, dtype="float32")
        rasterio.warp.reproject(
            rasterio.band(dataset, band.index),
            values,
            dst_transform=grid.transform_of(pixels),
            dst_crs=grid.crs,
            dst_nodata=-32768,
            resampling=Resampling[resampling],
        )
        nodata = band.nodata if band.nodata is not None else dataset.nodata
    return Pixels(values, (values != -32768) & (values != nodata))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_warp_of_whole_tiles_shows(map_world, recipes, tmp_path, monkeypatch):
    monkeypatch.setattr(mapper.cube.load, "read_band", warp_whole_tile)
    base = {"cities": ("Cornerton",), "recipe": str(recipes["local", "core"])}
    maps = [
        read_map(map_world(**base, out=tmp_path / str(tile), tile_size=tile), "cornerton")
        for tile in (512, 2048)
    ]
    assert differing(*maps) > 0


def test_products_are_the_same_with_one_worker_and_with_four(map_world, recipes, tmp_path):
    base = {"recipe": str(recipes["global", "blend"]), "cluster": "local"}
    folders = []
    for workers in (1, 4):
        report = map_world(**base, out=tmp_path / str(workers), workers=workers)
        folders.append([report.out / r.product for r in report.results])
    for one, four in zip(*folders, strict=True):
        assert checksums(one) == checksums(four)
    for workers in (1, 4):
        loaded = programs_by_process(tmp_path / str(workers))
        assert 1 <= len(loaded) <= workers
        assert set(loaded.values()) == {1}


def programs_by_process(out: Path) -> dict[int, int]:
    """How many programs each worker process of a run had loaded, by the ledger."""
    found = {}
    for line in "".join(p.read_text() for p in (out / "ledger").iterdir()).splitlines():
        facts = json.loads(line[line.index("{") :]).get("facts", {})
        if "programs" in facts:
            found[facts["process"]] = max(facts["programs"], found.get(facts["process"], 0))
    return found
