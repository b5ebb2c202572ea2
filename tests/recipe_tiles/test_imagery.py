"""An imagery source that is served as tiles: what it must say, and what it must not."""

import re
from pathlib import Path

import pytest
import yaml

from mapper.errors import RecipeError
from mapper.recipe import ImagerySource, TileService, load_recipe

TILES = {
    "url": "https://tiles.example/{z}/{x}/{y}.jpg",
    "zoom": 18,
    "attribution": "© Example Survey",
    "license": "CC-BY-4.0",
    "permission": "terms of use, section 3",
    "requests_per_second": 5,
}


def source(**changed):
    return {"kind": "imagery", "tiles": TILES, "bands": {"required": ["red", "green"]}} | changed


def loaded(tmp_path, **changed):
    path = tmp_path / "recipe.yaml"
    recipe = {"name": "green-tiles", "title": "Vegetation", "resolution": 0.5}
    recipe |= {"model": "rgb-baseline", "sources": {"highres": source(**changed)}}
    path.write_text(yaml.safe_dump(recipe))
    return load_recipe(str(path))


def refused(tmp_path, **changed):
    with pytest.raises(RecipeError) as error:
        loaded(tmp_path, **changed)
    assert error.value.exit_code == 3
    return str(error.value)


def test_tiles_stand_for_a_catalog(tmp_path):
    recipe = loaded(tmp_path)
    found = recipe.sources["highres"]
    assert isinstance(found, ImagerySource)
    assert found.tiles == TileService.model_validate(TILES)
    assert found.catalog == ""
    other = loaded(tmp_path, tiles=TILES | {"zoom": 17})
    assert other.digest != recipe.digest
    assert loaded(tmp_path, tiles=None, catalog="./imagery").sources["highres"].tiles is None


@pytest.mark.parametrize("changed", [{"catalog": "./imagery"}, {"tiles": None}])
def test_one_place_and_no_second(tmp_path, changed):
    assert "give one of catalog and tiles" in refused(tmp_path, **changed)


@pytest.mark.parametrize("name", ["permission", "attribution", "license"])
def test_what_the_operator_wants_is_asked_for(tmp_path, name):
    said = refused(tmp_path, tiles={k: v for k, v in TILES.items() if k != name})
    assert f"tiles.{name}" in said


@pytest.mark.parametrize(
    "changed", [{"collections": ["a"]}, {"license": "MIT"}, {"attribution": "me"},
                {"terms_url": "https://a.example"}],
)  # fmt: skip
def test_a_catalogs_keys_are_refused(tmp_path, changed):
    assert f"{next(iter(changed))} is for a catalog" in refused(tmp_path, **changed)


def test_bands_that_a_service_cannot_have(tmp_path):
    assert "['nir']" in refused(tmp_path, bands={"required": ["red", "nir"]})
    assert loaded(tmp_path, bands={"required": ["red"], "optional": ["nir"]})


def test_the_recipes_of_the_manual_are_recipes(tmp_path):
    manual = Path(__file__).parents[2] / "docs/tiles.md"
    blocks = re.findall(r"```yaml\n(.*?)```", manual.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        path = tmp_path / "recipe.yaml"
        path.write_text(block, encoding="utf-8")
        assert load_recipe(str(path)).sources["highres"].tiles
