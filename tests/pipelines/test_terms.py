"""Terms of use from the recipe to item, collection and report; a conflict before any pixel."""

import json
from dataclasses import replace

import pytest
import yaml
from pystac import STACObjectType
from pystac.validation import JsonSchemaSTACValidator

from mapper.errors import RecipeError
from mapper.recipe import load_recipe
from mapper.run.run import RunOptions, make_request, plan_run
from mapper.run.terms import city_terms
from tests.pipelines.conftest import checksums, read_map

NOTICE = "Contains modified Copernicus Sentinel data 2022"
STATED = {
    "license": "ODbL-1.0",
    "attribution": "Contains modified Copernicus Sentinel data [year]",
    "terms_url": "https://example.org/sentinel?token=secret",
}


@pytest.fixture
def write_recipe(tmp_path):
    """Writes the shipped recipe with other terms, Sentinel-2 alone."""

    def write(use="any", license="CC-BY-4.0", source=None):
        content = load_recipe("spectral-10m").model_dump(mode="json")
        sentinel2 = content["sources"]["sentinel2"] | (source or {})
        content |= {"sources": {"sentinel2": sentinel2}, "use": use, "license": license}
        path = tmp_path / "terms.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return str(path)

    return write


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_change_of_terms_makes_a_new_item_and_no_new_pixel(map_world, write_recipe):
    def run(refresh=False, **terms):
        return map_world(recipe=write_recipe(**terms), cities=("plainville",), refresh=refresh)

    report = run()
    before = read_map(report, "plainville")["folder"]
    item = read(before / "item.json")
    assert item["properties"]["license"] == "CC-BY-4.0"
    assert item["properties"]["mapper:attributions"] == []
    assert any("terms not known" in note for note in item["properties"]["mapper:notes"])

    again = run(refresh=True, use="non-commercial", license="other", source=STATED)
    (result,) = again.results
    steps = result.facts["steps"]
    assert result.state == "published"
    for stage in ("ingest", "predict"):
        assert steps[stage]["skipped"] == steps[stage]["total"] > 0
    after = again.out / result.product
    assert after.parent.name == "v2"
    assert checksums(after, (".tif",)) == checksums(before, (".tif",))

    item = read(after / "item.json")
    properties = item["properties"]
    assert (properties["license"], properties["mapper:use"]) == ("ODbL-1.0", "non-commercial")
    assert properties["mapper:attributions"] == [NOTICE]
    assert properties["providers"] == [
        {"name": STATED["attribution"][:-7], "roles": ["licensor"]}
        | {"url": "https://example.org/sentinel"}
    ]
    assert [k["href"] for k in item["links"] if k["rel"] == "license"] == [
        "https://example.org/sentinel"
    ]
    assert JsonSchemaSTACValidator().validate_core(item, STACObjectType.ITEM, "1.1.0")
    assert "secret" not in json.dumps(item)
    written = read(again.out / "report.json")
    assert written["attributions"] == written["cities"][0]["terms"]["attributions"] == [NOTICE]
    assert written["recipe"]["use"] == "non-commercial"
    collection = read(again.out / "collection.json")
    assert (collection["license"], collection["mapper:attributions"]) == ("ODbL-1.0", [NOTICE])

    finished = run(use="non-commercial", license="other", source=STATED)
    assert finished.results[0].state == "finished"
    assert finished.results[0].facts["terms"] == written["cities"][0]["terms"]


@pytest.fixture
def closed_world(world, tmp_path):
    """The world's items without a single raster, one town's under a licence that forbids sale."""
    folder = tmp_path / "closed"
    for path in world.rglob("*.json"):
        content = read(path)
        if "plainville" in path.parts and content.get("type") == "Feature":
            content["properties"]["license"] = "CC BY-NC 4.0"
        copied = folder / path.relative_to(world)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text(json.dumps(content), encoding="utf-8")
    return folder / "catalog.json"


def test_a_conflict_is_refused_before_a_pixel_is_read(
    map_world, closed_world, write_recipe, tmp_path
):
    with pytest.raises(RecipeError, match=r"'sentinel2' is under CC-BY-NC-4\.0.*use:") as caught:
        map_world(recipe=write_recipe(), catalog=str(closed_world))
    assert caught.value.exit_code == 3
    assert not list((tmp_path / "out").glob("tiles/*"))
    assert not list((tmp_path / "out").glob("cities/*"))


def test_a_plan_goes_by_what_is_used(world, closed_world, write_recipe, tmp_path):
    options = RunOptions(
        aoi=world / "cities.geojson",
        year=2022,
        catalog=str(closed_world),
        recipe=write_recipe(),
        out=tmp_path / "nowhere",
        tile_size=512,
    )
    asked = make_request(options, writing=False)

    def plan(use, license, areas=asked.areas):
        recipe = asked.recipe.model_copy(update={"use": use, "license": license})
        plans, lost = plan_run(replace(asked, recipe=recipe, areas=areas))
        assert not lost
        return {p.area.slug: city_terms(recipe, asked.card, p.items).license for p in plans}

    open_town = tuple(area for area in asked.areas if area.slug == "cornerton")
    assert plan("any", "CC-BY-4.0", open_town) == {"cornerton": "CC-BY-4.0"}
    found = plan("non-commercial", "other")
    assert found == {"cornerton": "other", "plainville": "CC-BY-NC-4.0"}
    with pytest.raises(RecipeError, match=r"write `license: CC-BY-NC-4\.0`"):
        plan("non-commercial", "CC-BY-4.0")
