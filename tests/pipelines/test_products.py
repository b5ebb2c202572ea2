"""Published files are accepted by tools that are not ours."""

import json
import shutil
import subprocess

import numpy as np
import pystac
import pytest
import rasterio
import xarray
import zarr
from pystac import STACObjectType
from pystac.validation import JsonSchemaSTACValidator
from rio_cogeo.cogeo import cog_validate

from tests.pipelines.conftest import read_map


@pytest.fixture(scope="module")
def published(world, in_process, tmp_path_factory):
    """A run over both cities."""
    from mapper.run.run import RunOptions, run

    return run(
        RunOptions(
            aoi=world / "cities.geojson",
            year=2022,
            catalog=str(world / "catalog.json"),
            out=tmp_path_factory.mktemp("published"),
            cluster=in_process,
            tile_size=512,
        )
    )


@pytest.fixture(scope="module")
def product(published):
    return read_map(published, "plainville")["folder"]


@pytest.mark.parametrize("name", ["classes.tif", "confidence.tif", "observations.tif"])
def test_rasters_are_strictly_valid_cogs(product, name):
    valid, errors, warnings = cog_validate(product / name, strict=True, quiet=True)
    assert (valid, errors, warnings) == (True, [], [])


def test_the_extent_is_the_polygons_and_not_the_tiles(product, world):
    with rasterio.open(product / "classes.tif") as dataset:
        height, width = dataset.shape
        assert 120 <= height <= 124
        assert 120 <= width <= 124
        assert dataset.nodata == 255
        assert dataset.colormap(1)[0] == (0x41, 0x9B, 0xDF, 255)


@pytest.mark.skipif(not shutil.which("gdalinfo"), reason="gdalinfo is not installed")
def test_gdalinfo_shows_classes_colours_and_nodata(product):
    told = subprocess.run(
        ["gdalinfo", str(product / "classes.tif")], capture_output=True, text=True, check=True
    ).stdout
    assert "NoData Value=255" in told
    assert "Color Table" in told
    assert "0: Water" in told
    assert "LAYOUT=COG" in told
    told = subprocess.run(
        ["gdalinfo", str(product / "observations.tif")], capture_output=True, text=True, check=True
    ).stdout
    assert "Description = sentinel2_count" in told


def test_xarray_opens_cube_and_map_as_they_are(product):
    for consolidated in (None, False):
        with xarray.open_zarr(product.parent / "cube.zarr", consolidated=consolidated) as cube:
            red = cube.sentinel2.sel(sentinel2_band="red")
            assert 0 < float(red.mean()) < 0.5
            assert cube.elevation.sel(elevation_band="slope").notnull().any()
            assert "crs_wkt" in cube.spatial_ref.attrs
    with xarray.open_zarr(product.parent / "map.zarr") as made:
        assert made.classes.attrs["flag_meanings"].startswith("water green")
        assert 0 <= float(made.confidence.max()) <= 1


def test_the_cube_is_sharded_zarr_v3(product):
    group = zarr.open_group(product.parent / "cube.zarr", mode="r")
    assert group.metadata.zarr_format == 3
    array = group["sentinel2"]
    assert array.shards == (5, 512, 512)
    assert array.chunks == (5, 256, 256)


def test_map_and_raster_agree(product):
    with xarray.open_zarr(product.parent / "map.zarr", mask_and_scale=False) as made:
        with rasterio.open(product / "classes.tif") as dataset:
            classes, left, top = dataset.read(1), dataset.transform.c, dataset.transform.f
        col = int(np.flatnonzero(made.x.values == left + 5)[0])
        row = int(np.flatnonzero(made.y.values == top - 5)[0])
        part = made.classes.values[row : row + classes.shape[0], col : col + classes.shape[1]]
    inside = classes != 255
    np.testing.assert_array_equal(part[inside], classes[inside])


def test_the_collection_and_its_items_are_read_and_valid(published):
    collection = pystac.Collection.from_file(str(published.out / "collection.json"))
    items = list(collection.get_items())
    assert len(items) == 2
    for item in items:
        content = item.to_dict(transform_hrefs=False)
        assert JsonSchemaSTACValidator().validate_core(content, STACObjectType.ITEM, "1.1.0")
        for asset in item.get_assets().values():
            path = asset.get_absolute_href()
            with open(path, "rb") as stream:
                assert len(stream.read()) == asset.extra_fields["file:size"]


def test_the_one_orbit_city_says_nothing_is_missing_but_counts_it(product):
    item = json.loads((product / "item.json").read_text())
    assert "sentinel1" not in item["properties"]["mapper:missing"]
    assert len(item["properties"]["mapper:scenes"]["sentinel1"]) == 1


def test_statistics_add_up(product):
    statistics = json.loads((product / "statistics.json").read_text())
    rows = {r["name"]: r for r in statistics["classes"]}
    with rasterio.open(product / "classes.tif") as dataset:
        classes = dataset.read(1)
    for row in statistics["classes"][:-1]:
        assert row["pixels"] == (classes == row["value"]).sum()
    assert sum(r["share"] for r in rows.values() if r["share"]) == pytest.approx(1, abs=1e-5)
    assert statistics["area_km2"] == pytest.approx(1.44, rel=0.01)


def test_index_and_report_tell_of_every_city(published):
    index = json.loads((published.out / "index.geojson").read_text())
    assert [f["properties"]["city"] for f in index["features"]] == ["Cornerton", "Plainville"]
    assert all(f["properties"]["area_km2"] > 1 for f in index["features"])
    report = json.loads((published.out / "report.json").read_text())
    assert {c["state"] for c in report["cities"]} == {"published"}
    assert report["run"]["seconds"] > 0
    for reads in report["run"]["reads"].values():
        assert reads["bytes_twice"] == 0
        assert reads["pixels_decoded"] >= reads["pixels_wanted"] > 0
        assert reads["amplification"] >= 1


def test_the_simulated_truth_is_met_in_part(published, world):
    from mapper.cli.demo import agreement

    for result in published.results:
        score = agreement(published.out / result.product, world, result.slug)
        assert 0.5 < score < 1
