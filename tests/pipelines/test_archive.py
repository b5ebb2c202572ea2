"""Real pixels, from the archive to published maps."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray
from pyproj import Transformer
from scipy.ndimage import map_coordinates
from shapely import box, to_geojson

from mapper.run.run import RunOptions, run

ARCHIVE = os.environ.get("MAPPER_TEST_ARCHIVE", "")
pytestmark = [
    pytest.mark.archive,
    pytest.mark.skipif(not ARCHIVE, reason="MAPPER_TEST_ARCHIVE names no archive of real rasters"),
]


@pytest.fixture(scope="module")
def map_real(in_process, tmp_path_factory):
    """Run a recipe and year over the archive's cities; 2022 by default."""
    root = Path(ARCHIVE)

    def runner(**changes):
        options = {
            "aoi": root / "cities.geojson",
            "catalog": str(root / "catalog.json"),
            "year": 2022,
            "out": tmp_path_factory.mktemp("real"),
            "cluster": in_process,
            "tile_size": 1024,
        }
        return run(RunOptions(**(options | changes)))

    return runner


@pytest.fixture(scope="module")
def bolzano_run(map_real):
    return map_real()


def product_of(report, slug):
    result = next(r for r in report.results if r.slug == slug)
    assert result.state == "published", result.reason
    return report.out / result.product


def asset(collection: str, item: str, name: str) -> Path:
    return Path(ARCHIVE) / collection / item / name


def under(product: Path, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Classes of a map and the values of a raster at the same pixel centres."""
    with rasterio.open(product / "classes.tif") as mapped, rasterio.open(path) as other:
        rows, cols = np.indices(mapped.shape)
        xs, ys = rasterio.transform.xy(mapped.transform, rows.ravel(), cols.ravel())
        inverse = ~other.transform
        col = np.floor(inverse.a * np.array(xs) + inverse.c).astype(int)
        row = np.floor(inverse.e * np.array(ys) + inverse.f).astype(int)
        inside = (row >= 0) & (row < other.height) & (col >= 0) & (col < other.width)
        values = other.read(1)[row[inside], col[inside]]
        return mapped.read(1).ravel()[inside], values


def test_bolzano_is_mapped_and_the_others_say_why_not(bolzano_run):
    states = {r.slug: r for r in bolzano_run.results}
    assert states.pop("bolzano").state == "published"
    assert {r.state for r in states.values()} == {"nothing found"}
    assert "removed" in states["433d-629l-3-1"].reason
    assert "0 found" in states["valencia"].reason


def test_bolzano_cube_is_the_scene_without_any_offset(bolzano_run):
    product = product_of(bolzano_run, "bolzano")
    path = asset("sentinel-2-l2a", "S2_32TPS_20220612_bolzano", "B04.tif")
    with rasterio.open(path) as scene, rasterio.open(path.with_name("SCL.tif")) as mask:
        left, top = scene.bounds.left, scene.bounds.top
        digital, scl = scene.read(1), mask.read(1)
    clear = ~np.isin(scl, [0, 1, 3, 8, 9, 10])
    for name in ("B03.tif", "B04.tif", "B08.tif"):
        # a pixel counts as observed where every required band is data
        with rasterio.open(path.with_name(name)) as band:
            clear &= band.read(1) > 0
    expected = np.where(clear, digital, 0)
    with xarray.open_zarr(product.parent / "cube.zarr", mask_and_scale=False) as cube:
        red = cube.sentinel2.sel(sentinel2_band="red")
        red = red.where((red.x > left) & (red.y < top), drop=True)
        col, row = (
            round((float(red.x[0]) - left) / 10 - 0.5),
            round((top - float(red.y[0])) / 10 - 0.5),
        )
    here = expected[row:, col:]
    assert here.size > 500_000
    np.testing.assert_array_equal(red.values[: here.shape[0], : here.shape[1]], here)


def test_bolzano_rivers_orchards_and_town_are_where_they_are(bolzano_run):
    product = product_of(bolzano_run, "bolzano")
    scl_path = asset("sentinel-2-l2a", "S2_32TPS_20220612_bolzano", "SCL.tif")
    classes, scl = under(product, scl_path)
    scl = np.where(classes == 255, 0, scl)
    assert np.mean(classes[scl == 6] == 0) > 0.7
    assert np.mean(classes[scl == 4] == 1) > 0.95
    assert np.mean(classes[scl == 5] == 2) > 0.5


def test_bolzano_item_tells_of_the_flag_and_of_what_was_missing(bolzano_run):
    item = json.loads((product_of(bolzano_run, "bolzano") / "item.json").read_text())
    properties = item["properties"]
    scene = properties["mapper:scenes"]["sentinel2"][0]
    assert (scene["offset"], scene["offset_basis"]) == (0.0, "flag")
    assert properties["mapper:missing"] == ["elevation", "sentinel1", "sentinel2:swir16"]


def test_valencia_is_mapped_from_the_orthophoto(map_real):
    report = map_real(recipe="green-highres", cities=("Valencia",), tile_size=2048)
    product = product_of(report, "valencia")
    with rasterio.open(product / "classes.tif") as mapped:
        assert mapped.res == (0.5, 0.5)
        classes = mapped.read(1)
        left, top = mapped.transform.c, mapped.transform.f
    right = total = 0
    back = Transformer.from_crs("EPSG:3857", "EPSG:32630", always_xy=True)
    for path in sorted(Path(ARCHIVE).glob("labels-green/*/data.tif")):
        with rasterio.open(path) as labels:
            green = labels.read(1)
            rows, cols = np.indices(labels.shape)
            xs, ys = rasterio.transform.xy(labels.transform, rows.ravel(), cols.ravel())
        x, y = back.transform(xs, ys)
        row = np.floor((top - np.array(y)) / 0.5).astype(int)
        col = np.floor((np.array(x) - left) / 0.5).astype(int)
        ok = (row >= 0) & (col >= 0) & (row < classes.shape[0]) & (col < classes.shape[1])
        mine, theirs = classes[row[ok], col[ok]], green.ravel()[ok]
        both = (mine != 255) & (theirs != 255)
        right += int((mine[both] == theirs[both]).sum())
        total += int(both.sum())
    assert total > 8_000_000
    assert right / total > 0.72


@pytest.mark.parametrize(
    ("city", "year", "offset"),
    [
        ("433D_629L_3_1", 2020, -0.1),
        ("609U_541L_3_0", 2020, 0.0),
        ("38D_378R_2_3", 2023, 0.0),
    ],
)
def test_sites_with_all_sources_are_mapped_from_all_of_them(map_real, city, year, offset):
    report = map_real(recipe="spectral-10m-unmasked", year=year, cities=(city,))
    product = product_of(report, city.lower().replace("_", "-"))
    properties = json.loads((product / "item.json").read_text())["properties"]
    assert properties["mapper:missing"] == []
    scene = properties["mapper:scenes"]["sentinel2"][0]
    assert scene["offset"] == offset
    assert ("offset_declared" in scene) == (offset == -0.1)
    with xarray.open_zarr(product.parent / "cube.zarr") as cube:
        slope = cube.elevation.sel(elevation_band="slope").values
        assert 0 <= np.nanmin(slope) < np.nanmax(slope) < 60
        assert -40 < float(np.nanmedian(cube.sentinel1.values)) < 0


def test_paralakhemundi_has_its_declared_offset_removed(map_real, tmp_path):
    path = asset("sentinel-2-l2a", "S2_44QQE_2024_paralakhemundi", "B04.tif")
    with rasterio.open(path) as scene:
        digital, bounds = scene.read(1), scene.bounds
    aoi = tmp_path / "town.geojson"
    feature = {
        "type": "Feature",
        "properties": {"name": "Paralakhemundi"},
        "geometry": json.loads(to_geojson(box(84.08, 18.74, 84.12, 18.80))),
    }
    aoi.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    report = map_real(recipe="spectral-10m-unmasked", year=2024, aoi=aoi)
    product = product_of(report, "paralakhemundi")
    # the town lies in zone 45, its scene in zone 44: values are sampled between four pixels
    with xarray.open_zarr(product.parent / "cube.zarr", mask_and_scale=False) as cube:
        red = cube.sentinel2.sel(sentinel2_band="red").values.astype(float)
        x, y = np.meshgrid(cube.x.values, cube.y.values)
    there = Transformer.from_crs("EPSG:32645", "EPSG:32644", always_xy=True)
    east, north = there.transform(x, y)
    place = [(bounds.top - north) / 10 - 0.5, (east - bounds.left) / 10 - 0.5]
    expected = map_coordinates(digital.astype(float), place, order=1, cval=np.nan) - 1000
    known = np.isfinite(expected) & (red > 0)
    assert known.sum() > 400_000
    assert np.abs(red - np.maximum(expected, 1))[known].max() <= 0.501
