"""Recipes: refused with the place of the mistake, and a digest of everything in them."""

import copy

import pytest
import yaml

from mapper.errors import RecipeError
from mapper.recipe import Recipe, digest_of, layers_of, load_recipe, shipped_recipes

CONTENT = {
    "name": "test-10m",
    "title": "A test",
    "resolution": 10,
    "sources": {
        "sentinel2": {
            "kind": "sentinel-2",
            "bands": {"required": ["red"], "optional": ["nir"]},
            "mask": {"invalid": [0, 1]},
        },
        "sentinel1": {"kind": "sentinel-1", "optional": True},
        "elevation": {"kind": "elevation"},
        "highres": {"kind": "imagery", "catalog": "./imagery"},
    },
    "model": "spectral-baseline",
    "predict": {"size": 256, "stride": 128},
}


def altered(path, value):
    """The content with one field set; `path` is dotted."""
    content = copy.deepcopy(CONTENT)
    *parents, last = path.split(".")
    place = content
    for name in parents:
        place = place.setdefault(name, {})
    place[last] = value
    return content


@pytest.fixture
def load(tmp_path):
    """Writes a recipe and loads it."""

    def load_content(content):
        path = tmp_path / "test.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return load_recipe(str(path))

    return load_content


# loading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [p.stem for p in shipped_recipes()])
def test_every_shipped_recipe_loads_by_its_name(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.sources
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_there_are_shipped_recipes():
    assert {"spectral-10m", "green-highres"} <= {p.stem for p in shipped_recipes()}


def test_a_recipe_loads_by_path(load):
    recipe = load(CONTENT)
    assert recipe.resolution == 10
    assert recipe.sources["sentinel2"].bands.all == ["red", "nir"]
    assert recipe.sources["sentinel2"].mask.invalid == [0, 1]
    assert recipe.predict.size == 256


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("colour", "red"),
        ("predict.strid", 4),
        ("sources.sentinel2.cloud", 4),
        ("sources.sentinel2.mask.scl", []),
        ("sources.sentinel2.bands.needed", []),
        ("sources.elevation.orbits", "apart"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path(load, path, value):
    *parents, last = path.split(".")
    with pytest.raises(RecipeError) as caught:
        load(altered(path, value))
    said = str(caught.value)
    assert f"{last}: unknown key; remove it" in said
    assert all(parent in said for parent in parents)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("resolution", 0),
        ("resolution", -10),
        ("resolution", float("nan")),
        ("resolution", float("inf")),
        ("resolution", "ten"),
        ("sources", {}),
        ("name", "Test_10m"),
        ("name", "../test"),
        ("name", "test\n"),
        ("sources.sentinel2.kind", "sentinel-3"),
        ("sources.sentinel2.resampling", "cubic"),
        ("sources.sentinel2.failure_budget", 2),
        ("sources.sentinel2.max_cloud_cover", 101),
        ("sources.sentinel2.scenes_per_tile", 0),
        ("sources.sentinel2.mask.always_masked_share", 0),
        ("sources.sentinel1.orbits", "both"),
        ("sources.highres.order", "oldest"),
        ("license", "CC BY 4.0"),
        ("license", "MIT\n"),
        ("use", "commercial"),
        ("predict.mode", "mosaic"),
        ("predict.size", 8),
        ("predict.batch", 0),
        ("predict.weights", "flat"),
    ],
    ids=str,
)
def test_a_bad_value_is_refused_with_its_path(load, path, value):
    with pytest.raises(RecipeError) as caught:
        load(altered(path, value))
    assert all(part in str(caught.value) for part in path.split("."))


@pytest.mark.parametrize("field", ["name", "title", "resolution", "sources", "model"])
def test_a_missing_field_is_named(load, field):
    content = {k: v for k, v in CONTENT.items() if k != field}
    with pytest.raises(RecipeError, match=f"{field}: Field required"):
        load(content)


def test_every_problem_is_said_at_once(load):
    content = altered("resolution", -1) | {"colour": "red"}
    with pytest.raises(RecipeError, match=r"resolution: .*; colour: unknown key"):
        load(content)


@pytest.mark.parametrize("name", ["Sentinel2", "s 2", "../s2", "2s", "s2/x"])
def test_sources_have_names_that_are_safe_as_paths(load, name):
    with pytest.raises(RecipeError, match="source"):
        load(altered("sources", {name: CONTENT["sources"]["sentinel1"]}))


@pytest.mark.parametrize("text", [b"a: [", b"", b"- list", b"word", b"\xff\xfe", b"t: caf\xe9"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text):
    path = tmp_path / "test.yaml"
    path.write_bytes(text)
    with pytest.raises(RecipeError, match=r"test\.yaml"):
        load_recipe(str(path))


@pytest.mark.parametrize("name", ["no-such-recipe", "missing.yaml", "../../etc/passwd", ""])
def test_an_unknown_recipe_is_refused_with_those_there_are(name):
    with pytest.raises(RecipeError, match="spectral-10m"):
        load_recipe(name)


def test_recipes_cannot_run_code(tmp_path):
    path = tmp_path / "test.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(RecipeError, match="no YAML"):
        load_recipe(str(path))


# digest ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "other"),
        ("title", "Other"),
        ("description", "words"),
        ("license", "MIT"),
        ("resolution", 20),
        ("model", "rgb-baseline"),
        ("sources.sentinel2.catalog", "elsewhere"),
        ("sources.sentinel2.collections", ["sentinel-2-c1-l2a"]),
        ("sources.sentinel2.optional", True),
        ("sources.sentinel2.failure_budget", 0.5),
        ("sources.sentinel2.bands", {"required": ["red", "nir"]}),
        ("sources.sentinel2.bands.optional", []),
        ("sources.sentinel2.mask", None),
        ("sources.sentinel2.mask.invalid", [0, 1, 11]),
        ("sources.sentinel2.mask.required", False),
        ("sources.sentinel2.mask.always_masked_share", 0.8),
        ("sources.sentinel2.max_cloud_cover", 50),
        ("sources.sentinel2.scenes_per_tile", 5),
        ("sources.sentinel2.resampling", "nearest"),
        ("sources.sentinel1.orbits", "apart"),
        ("sources.elevation.optional", True),
        ("sources.highres.order", "least_cloudy"),
        ("sources.highres.ignore_period", True),
        ("predict.mode", "blend"),
        ("predict.size", 512),
        ("license", "CC-BY-4.0"),
        ("use", "internal"),
        ("sources.highres.license", "CC-BY-4.0"),
        ("sources.highres.attribution", "Town Survey"),
        ("sources.highres.terms_url", "https://example.org/terms"),
        ("predict.stride", 64),
        ("predict.weights", "gaussian"),
        ("predict.batch", 8),
        ("predict.threads", 2),
    ],
    ids=str,
)
def test_the_digest_changes_with_any_field(load, path, value):
    assert load(altered(path, value)).digest != load(CONTENT).digest


def test_the_digest_does_not_depend_on_how_the_file_is_written(load):
    turned = {k: CONTENT[k] for k in reversed(CONTENT)}
    spelled = altered("license", "other")
    assert load(turned).digest == load(spelled).digest == load(CONTENT).digest


def test_a_digest_needs_values_that_json_has():
    assert digest_of({"a": 1, "b": [None]}) == digest_of({"b": [None], "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        digest_of(float("nan"))


# derived -----------------------------------------------------------------------------------


def test_another_catalog_is_for_every_source(load):
    recipe = load(CONTENT)
    other = recipe.with_catalog("./archive")
    assert {s.catalog for s in other.sources.values()} == {"./archive"}
    assert other.digest != recipe.digest
    assert recipe == load(CONTENT)
    assert other.with_catalog("./archive") == other
    assert Recipe.model_validate(other.model_dump(mode="json")) == other


def test_a_recipe_that_says_nothing_leaves_its_terms_to_the_sources(load):
    recipe = load(CONTENT)
    assert (recipe.license, recipe.use) == ("other", "any")
    source = recipe.sources["sentinel2"]
    assert (source.license, source.attribution, source.terms_url) == (None, None, None)
    assert load(altered("use", "non-commercial")).use == "non-commercial"


def test_recipes_cannot_be_altered(load):
    recipe = load(CONTENT)
    with pytest.raises(ValueError, match="frozen"):
        recipe.name = "other"


def test_layers_of_orbits_that_are_kept_apart(load):
    together, apart = load(CONTENT), load(altered("sources.sentinel1.orbits", "apart"))
    assert layers_of(together.sources["sentinel1"]) == ["vv", "vh"]
    assert layers_of(apart.sources["sentinel1"]) == [
        "vv_ascending",
        "vh_ascending",
        "vv_descending",
        "vh_descending",
    ]
    assert layers_of(together.sources["sentinel2"]) == ["red", "nir"]
