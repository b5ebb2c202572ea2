"""Each observation or season mapped by itself, then reduced; a late scene costs one scene."""

import json

import numpy as np
import pytest
import rasterio
import yaml

from mapper.recipe import data_directory, load_recipe
from tests.inference.tiny_models import write_model
from tests.pipelines.conftest import checksums

CITY = {"cities": ("Plainville",)}


@pytest.fixture
def recipe(tmp_path):
    """Writes the shipped recipe with another predict section; gives its path."""

    def write(name: str, seasons: bool = False, **predict) -> str:
        content = yaml.safe_load((data_directory("pipelines") / "spectral-10m.yaml").read_text())
        content |= {"name": name, "predict": predict}
        if seasons:
            content["sources"]["sentinel2"]["every"] = "season"
            content["seasons"] = {"cold": [11, 12, 1, 2, 3, 4], "warm": [5, 6, 7, 8, 9, 10]}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


def layers(report, *names):
    folder = report.out / report.results[0].product
    found = []
    for name in names:
        with rasterio.open(folder / f"{name}.tif") as dataset:
            found.append(dataset.read())
    return found


def test_scenes_are_voted_on_and_a_late_scene_costs_one(map_world, world, recipe, tmp_path):
    items = json.loads((world / "items.json").read_text())
    optical = {
        f["id"]: f["id"].split("_")[2]
        for f in items["features"]
        if f["collection"] == "sentinel-2-l2a" and "plainville" in f["id"]
    }
    days = sorted(set(optical.values()))
    kept = [f for f in items["features"] if optical.get(f["id"]) != days[-1]]
    late = {**items, "features": kept}
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps(late))
    by_scene = recipe("by-scene", over="scene", reduce="vote")
    first = map_world(**CITY, recipe=by_scene, catalog=str(catalog))
    assert first.results[0].state == "published", first.results[0].reason
    classes, agreement, dates = layers(first, "classes", "agreement", "dates")
    assert dates.max() == len(days) - 1
    mapped = classes != 255
    assert mapped.mean() > 0.3
    np.testing.assert_array_equal(dates > 0, mapped)
    assert (agreement[mapped] <= 250).all()
    # one date can only agree with itself
    assert (agreement[dates == 1] == 250).all()
    (observations,) = layers(first, "observations")
    inside = observations[0] != 65535
    assert ((observations[0] > 0) == (dates[0] > 0))[inside].mean() > 0.99

    catalog.write_text(json.dumps(items))
    second = map_world(**CITY, recipe=by_scene, catalog=str(catalog), refresh=True)
    steps = second.results[0].facts["steps"]
    assert second.results[0].product.endswith("v2/product")
    before = first.results[0].facts["steps"]
    tiles = before["reduce"]["total"]
    assert steps["ingest"]["done"] <= before["ingest"]["total"] // (len(days) - 1)
    assert steps["predict"]["skipped"] == before["predict"]["total"]
    assert steps["predict"]["done"] <= tiles
    assert layers(second, "dates")[0].max() == len(days)

    straight = map_world(**CITY, recipe=by_scene, out=tmp_path / "straight", catalog=str(catalog))
    assert checksums(straight.out / straight.results[0].product, (".tif", ".csv")) == checksums(
        second.out / second.results[0].product, (".tif", ".csv")
    )


def test_scene_maps_do_not_depend_on_tiles(map_world, recipe, tmp_path):
    by_scene = recipe("by-scene", over="scene", reduce="mean")
    folders = []
    for tile in (512, 1024):
        report = map_world(**CITY, recipe=by_scene, out=tmp_path / str(tile), tile_size=tile)
        folders.append(report.out / report.results[0].product)
    assert checksums(folders[0], (".tif", ".csv")) == checksums(folders[1], (".tif", ".csv"))


def test_seasons_are_mapped_apart(map_world, recipe):
    report = map_world(**CITY, recipe=recipe("by-season", True, over="season", reduce="highest"))
    assert report.results[0].state == "published", report.results[0].reason
    classes, dates = layers(report, "classes", "dates")
    assert set(np.unique(dates)) <= {0, 1, 2}
    np.testing.assert_array_equal(dates > 0, classes != 255)
    cube = report.out / report.results[0].product / ".." / "cube.zarr"
    assert {p.name for p in cube.iterdir() if p.is_dir()} & {"sentinel2_cold", "sentinel2_warm"}


def test_stacked_seasons_are_bands_of_their_own(recipe):
    stacked = load_recipe(recipe("stacked", True))
    names = [c.band("red") for c in stacked.composites if c.known_as == "sentinel2"]
    assert names == ["sentinel2:red_cold", "sentinel2:red_warm"]
    apart = load_recipe(recipe("apart", True, over="season"))
    assert {c.band("red") for c in apart.composites if c.season} == {"sentinel2:red"}


def stacked_recipe(tmp_path, required, months):
    """A model that reads red of two seasons, one of them required, and its recipe."""
    bands = ("sentinel2:red_cold", "sentinel2:red_warm")
    model = write_model(
        tmp_path / "model", bands=bands, validity=True, mapper_required=list(required)
    )
    path = tmp_path / "stacked.yaml"
    content = {
        "name": "stacked",
        "title": "Stacked seasons",
        "resolution": 10,
        "sources": {
            "sentinel2": {"kind": "sentinel-2", "every": "season", "bands": {"required": ["red"]}}
        },
        "seasons": {"cold": months, "warm": [5, 6, 7, 8, 9, 10]},
        "model": str(model),
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_stacked_seasons_are_read_and_a_missing_one_is_named(map_world, tmp_path):
    red = ["sentinel2:red_warm"]
    both = stacked_recipe(tmp_path, red, [11, 12, 1, 2, 3, 4])
    report = map_world(**CITY, recipe=both, out=tmp_path / "both")
    assert report.results[0].state == "published", report.results[0].reason
    assert report.results[0].facts["missing"] == []
    with_both = layers(report, "confidence")[0]
    # the simulated world has no scene in March and April
    warm = stacked_recipe(tmp_path, red, [3, 4])
    report = map_world(**CITY, recipe=warm, out=tmp_path / "warm")
    assert report.results[0].facts["missing"] == ["sentinel2_cold"]
    assert (layers(report, "confidence")[0] != with_both).any()


def test_a_season_that_the_model_needs_is_not_made_up(map_world, tmp_path):
    needed = stacked_recipe(tmp_path, ["sentinel2:red_cold"], [3, 4])
    report = map_world(**CITY, recipe=needed)
    assert report.results[0].state == "nothing found"
    assert "no scene in cold for source 'sentinel2'" in report.results[0].reason


@pytest.mark.parametrize(
    ("predict", "seasons", "said"),
    [
        ({"over": "season"}, False, "no source has `every: season`"),
        ({"over": "scene"}, True, "take `every` out"),
        ({"over": "month"}, False, "composite"),
    ],
)
def test_recipes_that_cannot_be_are_refused(recipe, predict, seasons, said):
    from mapper.errors import RecipeError

    with pytest.raises(RecipeError, match=said):
        load_recipe(recipe("bad", seasons, **predict))
