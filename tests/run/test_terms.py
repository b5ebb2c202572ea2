"""Terms of a city's map: where each source's come from, and what follows or is refused."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.catalog.archives import ARCHIVES, DEM_30, NAIP, SENTINEL
from mapper.catalog.items import ItemTable
from mapper.catalog.query import with_absolute_hrefs
from mapper.errors import RecipeError
from mapper.inference.card import load_card
from mapper.recipe import EARTH_SEARCH, PLANETARY_COMPUTER, Recipe, load_recipe, shipped_recipes
from mapper.run.terms import check_known_terms, city_terms, model_terms, source_terms

NOTICE = "Contains modified Copernicus Sentinel data"
IMAGERY = {"kind": "imagery", "catalog": "./imagery"}
SENTINEL_2 = {"kind": "sentinel-2"}


@pytest.fixture(scope="module")
def card():
    return load_card("rgb-baseline")


def recipe_of(license="other", use="any", **sources):
    content = {"name": "test", "title": "A test", "resolution": 10, "model": "rgb-baseline"}
    return Recipe.model_validate(content | {"license": license, "use": use, "sources": sources})


def scene(name="a", collection="", when="2022-06-01T00:00:00Z", href="", **properties):
    item = {"id": name, "properties": {"datetime": when, **properties}, "links": []}
    if href:
        item["links"] = [{"rel": "self", "href": href}]
    return item | ({"collection": collection} if collection else {})


def made(card, recipe, **scenes):
    return city_terms(recipe, card, ItemTable(by_source={k: tuple(v) for k, v in scenes.items()}))


# where terms come from ----------------------------------------------------------------------


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda a: a.name)
def test_terms_of_a_known_collection_are_those_of_the_table(archive):
    for collection in archive.collections:
        source = recipe_of(s=IMAGERY | {"catalog": archive.address}).sources["s"]
        (found,) = source_terms("s", source, [scene(collection=collection.id)])
        assert found.terms == collection.terms.dated([2022])
        assert found.owner
        assert found.owner != found.terms.attribution


def test_the_recipes_own_words_come_first_field_by_field(card):
    own = {"license": "CC BY 4.0", "attribution": "Own [year]", "terms_url": "https://a.org/t?k=s"}
    for word in own:
        source = SENTINEL_2 | {word: own[word]}
        recipe = recipe_of(sentinel2=source)
        (found, _) = made(card, recipe, sentinel2=[scene(collection="sentinel-2-l2a")]).terms
        assert found["license"] == ("CC-BY-4.0" if word == "license" else SENTINEL.license)
        assert found["attribution"] == ("Own" if word == "attribution" else NOTICE) + " 2022"
        assert found["url"] == ("https://a.org/t" if word == "terms_url" else SENTINEL.url)


def test_a_copy_has_the_terms_of_its_archive(card):
    home = f"{PLANETARY_COMPUTER}/collections/naip/items/a"
    (copied,) = source_terms(
        "s", recipe_of(s=IMAGERY).sources["s"], [scene(collection="naip", href=home)]
    )
    assert copied.terms == NAIP
    (elsewhere,) = source_terms(
        "s",
        recipe_of(s=IMAGERY).sources["s"],
        [scene(collection="naip", href="https://example.org/naip/a")],
    )
    assert elsewhere.terms.license == "other"


def test_what_an_item_states_is_taken_where_the_table_knows_nothing(card):
    owner = {"name": "Town Survey", "roles": ["licensor"]}
    host = {"name": "A Host", "roles": ["host"]}
    stated = made(
        card,
        recipe_of(s=IMAGERY),
        s=[scene(license="CC BY 4.0", providers=[host, owner])],
    )
    assert stated.terms[0] == {
        "name": "s",
        "license": "CC-BY-4.0",
        "attribution": "Town Survey",
    }
    assert dict(stated.owners) == {"Town Survey": ""}
    told = made(
        card,
        recipe_of(s=IMAGERY),
        s=[
            scene(
                license="other",
                attribution="© Survey",
                **{"mapper:terms": "https://u:p@a.org/terms?sig=secret"},
            )
        ],
    )
    assert told.attributions == ("© Survey",)
    assert dict(told.owners) == {"© Survey": "https://a.org/terms"}


@pytest.mark.parametrize(
    ("text", "url", "license"),
    [
        ("CC BY-NC 4.0", "", "CC-BY-NC-4.0"),
        ("cc_by_sa_3.0", "", "CC-BY-SA-3.0"),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/", "", "CC-BY-NC-SA-4.0"),
        ("proprietary", "https://creativecommons.org/licenses/by/4.0/", "CC-BY-4.0"),
        ("CC-BY-NC-4.0", "https://creativecommons.org/licenses/by/4.0/", "CC-BY-NC-4.0"),
        ("various", "https://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("proprietary", "https://example.org/licenses/by/4.0/", "proprietary"),
    ],
)
def test_licences_are_read_in_the_spellings_that_occur(text, url, license):
    item = scene(license=text, **{"mapper:terms": url})
    (found,) = source_terms("s", recipe_of(s=IMAGERY).sources["s"], [item])
    assert found.terms.license.upper() == license.upper()


@pytest.mark.parametrize(
    "properties",
    [{"providers": None}, {"providers": ["A"]}, {"license": None}, {"mapper:terms": ["a"]}],
    ids=str,
)
def test_an_item_that_says_nothing_sound_is_other(card, properties):
    credits = made(card, recipe_of("CC-BY-4.0", s=IMAGERY), s=[scene(**properties)])
    assert credits.license == "CC-BY-4.0"
    assert "ask" in credits.obligations
    assert any("s: terms not known" in note for note in credits.notes)
    assert made(card, recipe_of(s=IMAGERY), s=[scene(**properties)]).license == "other"


@given(st.lists(st.integers(2015, 2026), max_size=6))
def test_the_notice_has_the_years_of_the_scenes(years):
    scenes = [scene(str(i), "sentinel-2-l2a", f"{y}-03-01T00:00:00Z") for i, y in enumerate(years)]
    scenes.append(scene("x", "sentinel-2-l2a", "1970-01-01T00:00:00Z", **{"mapper:undated": True}))
    source = recipe_of(s=SENTINEL_2).sources["s"]
    (found,) = source_terms("s", source, scenes)
    text = ", ".join(map(str, sorted(set(years))))
    assert found.terms.attribution == f"{NOTICE} {text}".strip()


def test_seasons_are_one_source_and_what_is_missing_asks_for_nothing(card):
    elevation = {"kind": "elevation", "optional": True}
    recipe = recipe_of(sentinel2=SENTINEL_2 | {"every": "season"}, elevation=elevation)
    credits = made(
        card,
        recipe,
        sentinel2_winter=[scene("a", "sentinel-2-l2a", "2021-12-05T00:00:00Z")],
        sentinel2_summer=[scene("b", "sentinel-2-l2a", "2022-07-05T00:00:00Z")],
    )
    assert credits.attributions == (f"{NOTICE} 2021, 2022",)
    assert [one["name"] for one in credits.terms] == ["sentinel2", "model rgb-baseline"]


def test_real_items_of_a_copy_keep_their_terms(card, archive):
    def read(collection, name):
        text = (archive / "stac" / collection / f"{name}.json").read_text(encoding="utf-8")
        return with_absolute_hrefs(json.loads(text), "")

    here = {"catalog": "./copy"}
    recipe = recipe_of(
        "CC-BY-4.0", sentinel2=SENTINEL_2 | here, dem={"kind": "elevation"} | here, highres=IMAGERY
    )
    credits = made(
        card,
        recipe,
        sentinel2=[read("sentinel-2-l2a", "S2A_13TDE_20231008_0_L2A")],
        dem=[read("cop-dem-glo-30", "Copernicus_DSM_COG_10_S90_00_W178_00_DEM")],
        highres=[read("naip", "al_m_3008501_ne_16_030_20211103")],
    )
    assert set(credits.attributions) == {f"{NOTICE} 2023", DEM_30.attribution, NAIP.attribution}
    assert credits.license == "CC-BY-4.0"
    assert not {"ask"} & set(credits.obligations)


# models -------------------------------------------------------------------------------------


def test_a_models_terms_are_on_its_card(card):
    item = card.item | {"properties": card.item["properties"] | {"mapper:attribution": "Chips: A"}}
    item["links"] = [{"rel": "license", "href": "https://u:p@a.org/terms?sig=secret"}]
    asking = replace(card, license="CC-BY-NC-4.0", item=item)
    assert model_terms(asking).terms.attribution == "Chips: A"
    assert model_terms(asking).terms.url == "https://a.org/terms"
    recipe = recipe_of(s=IMAGERY)
    with pytest.raises(RecipeError, match=r"model rgb-baseline.*CC-BY-NC-4\.0.*non-commercial"):
        made(asking, recipe)
    allowed = made(asking, recipe.model_copy(update={"use": "non-commercial"}))
    assert (allowed.license, allowed.attributions) == ("CC-BY-NC-4.0", ("Chips: A",))


def test_a_model_that_masks_has_terms_too(card):
    mask = {"kind": "model", "model": "trees-highres", "invalid": ["cloud"]}
    recipe = recipe_of(sentinel2=SENTINEL_2 | {"mask": mask})
    with_scenes = made(card, recipe, sentinel2=[scene(collection="sentinel-2-l2a")])
    assert "model trees-highres (CC-BY-4.0)" in with_scenes.attributions
    assert len(made(card, recipe).terms) == 1


# what follows -------------------------------------------------------------------------------


def test_imagery_under_odbl_makes_the_map_odbl(card):
    recipe = recipe_of(s=IMAGERY | {"license": "ODbL-1.0", "attribution": "© Mappers"})
    credits = made(card, recipe, s=[scene()])
    assert credits.license == "ODbL-1.0"
    assert credits.attributions == ("© Mappers",)
    assert credits.obligations == ("attribution", "share-alike")
    laxer = recipe.model_copy(update={"license": "CC-BY-4.0"})
    with pytest.raises(RecipeError, match=r"'s' asks for ODbL-1\.0; write `license: ODbL-1\.0`"):
        made(card, laxer, s=[scene()])


def test_one_scene_that_forbids_commerce_is_enough(card):
    scenes = [scene("a", license="CC-BY-4.0"), scene("b", license="CC-BY-NC-4.0")]
    with pytest.raises(RecipeError, match=r"use is 'any', but source 's'.*use: non-commercial"):
        made(card, recipe_of(s=IMAGERY), s=scenes)
    internal = made(card, recipe_of(s=IMAGERY, use="internal"), s=scenes)
    assert internal.license == "CC-BY-NC-4.0"
    assert "non-commercial" in internal.obligations
    assert made(card, recipe_of(s=IMAGERY), s=scenes[:1]).license == "other"


# before a search ----------------------------------------------------------------------------


def test_what_no_search_can_mend_is_refused_before_one(card):
    closed = IMAGERY | {"license": "CC-BY-NC-4.0"}
    with pytest.raises(RecipeError, match=r"'s' is under CC-BY-NC-4\.0"):
        check_known_terms(recipe_of(s=closed), card)
    check_known_terms(recipe_of(s=closed | {"optional": True}), card)
    check_known_terms(recipe_of(s=closed, use="non-commercial"), card)
    with pytest.raises(RecipeError, match=r"'sentinel2' .*attribution"):
        check_known_terms(recipe_of("CC0-1.0", sentinel2=SENTINEL_2), card)
    with pytest.raises(RecipeError, match="model rgb-baseline"):
        check_known_terms(recipe_of(s=IMAGERY), replace(card, license="CC-BY-NC-4.0"))


@pytest.mark.parametrize("name", [p.stem for p in shipped_recipes()])
@pytest.mark.parametrize("catalog", ["own", "simulated"])
def test_every_shipped_recipe_stays_runnable(card, name, catalog):
    recipe = load_recipe(name)
    if catalog == "simulated":
        recipe = recipe.with_catalog("/archive/catalog.json")
    check_known_terms(recipe, card)
    scenes = {
        c.name: [scene(f"{c.name}{n}", each) for n, each in enumerate(c.source.collections or [""])]
        for c in recipe.composites
    }
    credits = made(card, recipe, **scenes)
    assert credits.license == recipe.license
    known = recipe.sources.values()
    if catalog == "own" and all(s.catalog in (EARTH_SEARCH, PLANETARY_COMPUTER) for s in known):
        assert "ask" not in credits.obligations
        assert f"{NOTICE} 2022" in credits.attributions
    if catalog == "simulated":
        assert "ask" in credits.obligations
