"""Imagery that is served as tiles, from a recipe to a published map."""

import json
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
import rasterio
import xarray
import yaml
from PIL import Image
from pyproj import Transformer
from scipy.ndimage import map_coordinates
from shapely import box, intersection, to_geojson, transform
from shapely.geometry import shape
from typer.testing import CliRunner

from mapper.catalog.items import read_items
from mapper.cli.commands import app
from mapper.recipe import data_directory
from mapper.run.run import RunOptions, run
from tests.tileserver import files_of, tile_server

pytestmark = pytest.mark.archive
LEFT, TOP, SIDE = 726122, 4373910, 300
"""Of the area, in metres of EPSG:32630: in the middle of a tile of the lattice."""
FIRST = 130799, 99725
"""Column and row of the north-western tile of the real ones, at level 18."""
HALF = 20037508.342789244
METRES = 2 * HALF / 2**26
SERVICE = {
    "zoom": 18,
    "attribution": "PNOA, Instituto Geográfico Nacional",
    "license": "CC-BY-4.0",
    "permission": "a folder of this machine, served to itself",
    "terms_url": "https://terms.example/pnoa",
    "requests_per_second": 50,
}


@pytest.fixture(scope="module")
def tiles(archive):
    """The real tiles, served."""
    with tile_server(files_of(archive / "xyz/pnoa")) as served:
        yield served


@pytest.fixture(scope="module")
def area(archive, tmp_path_factory):
    """A small part of Valencia."""
    cities = json.loads((archive / "cities.geojson").read_text())
    (city,) = [f for f in cities["features"] if f["properties"]["name"] == "Valencia"]
    back = Transformer.from_crs(32630, 4326, always_xy=True).transform
    square = transform(box(LEFT, TOP - SIDE, LEFT + SIDE, TOP), back, interleaved=False)
    part = intersection(shape(city["geometry"]), square)
    assert part.area == pytest.approx(square.area)
    path = tmp_path_factory.mktemp("area") / "valencia.geojson"
    path.write_text(
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": [city | {"geometry": json.loads(to_geojson(part))}],
            }
        )
    )
    return path


def write_recipe(folder, base, **changed):
    """The shipped recipe for vegetation, with tiles for a catalog."""
    content = yaml.safe_load((data_directory("pipelines") / "green-highres.yaml").read_text())
    source = content["sources"]["highres"]
    service = {"url": base + "/{z}/{x}/{y}.jpg"} | SERVICE | changed
    source["tiles"] = {key: value for key, value in service.items() if value is not None}
    del source["catalog"], source["collections"]
    content["name"] = "green-tiles"
    path = folder / "green-tiles.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def finished(tiles, area, in_process, tmp_path_factory):
    """A run, and what had been asked for at its end."""
    folder = tmp_path_factory.mktemp("tiles")
    report = run(
        RunOptions(
            aoi=area,
            year=2022,
            recipe=str(write_recipe(folder, tiles[0])),
            out=folder / "out",
            cluster=in_process,
            tile_size=1024,
        )
    )
    (result,) = report.results
    assert result.state == "published", result.reason
    return report.out / result.product, [path for path, _ in tiles[1]]


def test_no_tile_is_asked_for_twice_and_none_far_away(finished):
    _, asked = finished
    counts = Counter(asked)
    assert max(counts.values()) == 1
    # a tile of the lattice is 512 m, a tile of the service 118 m
    assert 25 <= len(counts) <= 36


def test_the_cube_holds_what_the_tiles_show(finished, archive):
    product, _ = finished
    with xarray.open_zarr(product.parent / "cube.zarr", mask_and_scale=False) as cube:
        green = cube.highres.sel(highres_band="green")
        inside = (green.x > LEFT) & (green.x < LEFT + SIDE)
        green = green.where(inside & (green.y < TOP) & (green.y > TOP - SIDE), drop=True)
        x, y = np.meshgrid(green.x.values, green.y.values)
        values = green.values.astype(float)
    assert values.shape == (600, 600)
    place = Transformer.from_crs(32630, 3857, always_xy=True).transform(x, y)
    cols = (place[0] + HALF) / METRES - 0.5 - FIRST[0] * 256
    rows = (HALF - place[1]) / METRES - 0.5 - FIRST[1] * 256
    whole = np.zeros((15 * 256, 12 * 256), dtype=float)
    for row in range(15):
        for col in range(12):
            path = archive / f"xyz/pnoa/18/{FIRST[0] + col}/{FIRST[1] + row}.jpg"
            content = np.asarray(Image.open(BytesIO(path.read_bytes())))[..., 1]
            whole[row * 256 : row * 256 + 256, col * 256 : col * 256 + 256] = content
    expected = map_coordinates(whole, [rows, cols], order=1)
    # stored as whole numbers
    assert np.abs(values - expected).max() <= 0.51
    moved = map_coordinates(whole, [rows, cols + 1], order=1)
    assert np.abs(values - moved).mean() > 3


def test_the_map_is_of_the_whole_area_and_has_both_classes(finished):
    product, _ = finished
    with rasterio.open(product / "classes.tif") as classes:
        assert classes.crs.to_epsg() == 32630
        found = classes.read(1)
    assert found.shape in {(600, 600), (601, 601), (601, 600), (600, 601)}
    shares = {int(v): float((found == v).mean()) for v in np.unique(found)}
    assert shares.pop(255, 0) < 0.02
    assert len(shares) == 2
    assert min(shares.values()) > 0.05
    assert (product / "quicklook.png").stat().st_size > 10_000


def test_the_frozen_item_says_whose_the_imagery_is(finished):
    product, _ = finished
    (item,) = read_items(product.parent / "items.parquet")
    properties = item["properties"]
    assert properties["attribution"] == SERVICE["attribution"]
    assert properties["license"] == "CC-BY-4.0"
    assert properties["mapper:permission"] == SERVICE["permission"]
    assert properties["mapper:terms"] == SERVICE["terms_url"]
    assert item["assets"]["image"]["href"].startswith("xyz+http://127.0.0.1")


def test_without_permission_nothing_is_asked_for(archive, area, tmp_path):
    with tile_server(files_of(archive / "xyz/pnoa")) as (base, log):
        for permission in (None, "todo"):
            recipe = write_recipe(tmp_path, base, permission=permission)
            given = ["run", "--aoi", str(area), "--recipe", str(recipe), "--year", "2022"]
            result = CliRunner().invoke(app, [*given, "--out", str(tmp_path / "out")])
            assert result.exception.exit_code == 3, result.output
            assert "permission" in str(result.exception)
        assert log == []
    assert not (tmp_path / "out").exists()


def test_a_key_that_is_not_set_stops_the_city_before_any_request(
    archive, area, tmp_path, in_process, monkeypatch
):
    monkeypatch.delenv("TILE_KEY", raising=False)
    with tile_server(files_of(archive / "xyz/pnoa")) as (base, log):
        url = base + "/{z}/{x}/{y}.jpg?key={key}"
        recipe = write_recipe(tmp_path, base, url=url, key_variable="TILE_KEY")
        options = RunOptions(
            aoi=area, year=2022, recipe=str(recipe), out=tmp_path / "out", cluster=in_process
        )
        (result,) = run(options).results
    assert not result.good
    assert "TILE_KEY" in result.reason
    assert log == []
