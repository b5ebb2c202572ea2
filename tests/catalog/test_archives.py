"""What is known of public archives agrees with what they served."""

import json
import os
from pathlib import Path

import pytest

from mapper.catalog.archives import (
    ARCHIVES,
    archive_of,
    described_terms,
    layer_classes,
    refusal,
    terms_of,
)
from mapper.catalog.bands import find_band
from mapper.recipe.sources import EARTH_SEARCH, PLANETARY_COMPUTER
from mapper.terms import LICENSES, Terms, combine, license_of

DATA_SPACE = "https://stac.dataspace.copernicus.eu/v1"
RECORDED = Path(os.environ.get("MAPPER_TEST_ARCHIVE", "/nowhere")) / "stac"
FILES = sorted(str(path.relative_to(RECORDED)) for path in RECORDED.glob("*/*.json"))
BANDS = {
    "sentinel-2": ("red",),
    "sentinel-1": ("vv", "vh"),
    "elevation": ("elevation",),
    "imagery": ("red", "green", "blue", "nir"),
    "layer": ("classes",),
}
USELESS = ("sentinel-1-grd", "sentinel1-grd", "sentinel1-slc", "sentinel-2-l1c", "sentinel2-l1c")


def read(file):
    return json.loads((RECORDED / file).read_text())


def served_by(item):
    """The archive whose address the item's own links bear."""
    links = [link["href"] for link in item["links"] if link["rel"] in {"self", "root"}]
    return next((known for known in map(archive_of, links) if known), None)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (EARTH_SEARCH, "Earth Search"),
        (EARTH_SEARCH + "/", "Earth Search"),
        ("https://EARTH-search.aws.element84.com:443/v0?x=1", "Earth Search"),
        (PLANETARY_COMPUTER, "Planetary Computer"),
        (DATA_SPACE, "Copernicus Data Space"),
        ("https://catalogue.dataspace.copernicus.eu/stac", "Copernicus Data Space"),
        ("https://example.org/earth-search.aws.element84.com/v1", None),
        ("https://earth-search.aws.element84.com.example.org/v1", None),
        ("https://earth-search.aws.element84.com@example.org/v1", None),
        ("/data/catalog.json", None),
        ("", None),
    ],
)
def test_an_archive_is_known_by_its_host(address, name):
    found = archive_of(address)
    assert (found.name if found else None) == name


@pytest.mark.archive
@pytest.mark.parametrize("file", FILES)
def test_every_recorded_item_serves_what_its_collection_is_said_to_serve(file):
    item = read(file)
    archive = served_by(item)
    known = archive.collection(item["collection"]) if archive else None
    useless = file.startswith(USELESS)
    assert bool(refusal(item["collection"], item)) == useless
    # the name of a collection is not all that tells
    assert bool(refusal("anything", item)) == useless
    if useless:
        assert known is None
    if known is not None:
        assert all(find_band(item, band) for band in BANDS[known.kind])
        assert terms_of(archive.address, item["collection"]) == known.terms


@pytest.mark.archive
def test_the_recorded_archives_and_collections_are_listed(archive):
    pairs = {(served_by(i).name, i["collection"]) for i in map(read, FILES) if served_by(i)}
    listed = {(one.name, collection.id) for one in ARCHIVES for collection in one.collections}
    assert pairs - listed == {
        ("Earth Search", "sentinel-1-grd"),
        ("Earth Search", "sentinel-2-l1c"),
        ("Planetary Computer", "sentinel-1-grd"),
        ("Copernicus Data Space", "sentinel-2-global-mosaics"),
    }
    assert len(pairs & listed) == 14


@pytest.mark.parametrize(
    ("collection", "said"),
    [
        ("sentinel-1-grd", "radar geometry (GRD)"),
        ("sentinel-1-grd-cog", "radar geometry (GRD)"),
        ("sentinel1-grd", "radar geometry (GRD)"),
        ("S1_GRD", "radar geometry (GRD)"),
        ("sentinel-1-slc", "radar geometry (SLC)"),
        ("sentinel-1-slc-wv", "radar geometry (SLC)"),
        ("sentinel-2-l1c", "top of the atmosphere"),
        ("sentinel-s2-l1c", "top of the atmosphere"),
    ],
)
def test_collections_that_are_no_maps_yet_are_refused_with_the_remedy(collection, said):
    reason = refusal(collection)
    assert reason.startswith(f"collection {collection} ")
    assert said in reason
    assert "use sentinel-" in reason


@pytest.mark.parametrize(
    "collection",
    [
        *("sentinel-1-rtc", "sentinel-1-grd-rtc", "sentinel1-rtc-aws", "sentinel-2-l2a", "naip"),
        *("sentinel-2-c1-l2a", "cop-dem-glo-30", "landsat-c2-l2", "my-grd", "grid-2021", ""),
    ],
)
def test_other_collections_are_not(collection):
    assert refusal(collection) == ""


@pytest.mark.parametrize(
    ("identity", "properties", "refused"),
    [
        ("a", {"sar:product_type": "GRD"}, True),
        ("a", {"sar:product_type": "SLC"}, True),
        ("a", {"product:type": "IW_GRDH_1S"}, True),
        ("a", {"sar:product_type": "GRD", "proj:epsg": 4326}, True),
        ("a", {"sar:product_type": "GRD", "proj:code": "EPSG:32633"}, False),
        ("a", {"sar:product_type": "GRD", "proj:epsg": 32633}, False),
        ("S1A_rtc", {"sar:product_type": "GRD"}, False),
        ("a", {"sar:product_type": "RTC"}, False),
        ("a", {"sar:instrument_mode": "IW"}, False),
        ("a", {"s2:product_type": "S2MSI1C"}, True),
        ("a", {"product:type": "S2MSI1C"}, True),
        ("a", {"s2:product_type": "S2MSI2A"}, False),
        ("S2A_MSIL1C_20200717T221941_N0209_R029_T01LAC_20200717T234135", {}, True),
        ("S2A_T01LAC_20200717T221944_L1C", {}, True),
        ("S2A_T01LAC_20200717T221944_L2A", {}, False),
    ],
)
def test_an_item_is_refused_for_what_it_is_wherever_it_lies(identity, properties, refused):
    grid = {"proj:shape": [9, 9], "proj:transform": [1, 0, 0, 0, -1, 0]}
    item = {"id": identity, "properties": properties | grid, "assets": {"vv": {"href": "/v.tif"}}}
    reason = refusal("my-scenes", item)
    assert reason.startswith(f"item {identity} ") if refused else reason == ""
    del item["properties"]["proj:shape"]
    if properties.get("sar:product_type") == "GRD" and identity == "a":
        assert refusal("my-scenes", item), "projected, but without a grid"


@pytest.mark.archive
def test_class_tables_agree_with_the_values_that_items_list(archive):
    seen = set()
    for file in FILES:
        item = read(file)
        table = layer_classes(item.get("collection", ""))
        if table is None:
            continue
        asset = item["assets"].get("map") or item["assets"]["data"]
        listed = {
            (value, entry["summary"])
            for entry in asset.get("file:values", [])
            for value in entry["values"]
        }
        listed |= {(e["value"], e["description"]) for e in asset.get("classification:classes", [])}
        codes = {value for value, _ in listed} - {0}
        assert set(table.values) == codes
        words = {value: text.lower() for value, text in listed}
        for one in table.classes:
            assert one.name.split("_")[0].split("-")[0] in words[one.value].replace("/", " ")
        for entry in asset.get("classification:classes", []):
            colors = {one.value: one.color for one in table.classes}
            assert colors[entry["value"]] == entry["color-hint"]
        assert table.nodata == find_band(item, "classes").nodata == 0
        seen.add(item["collection"])
    assert seen == {"io-lulc", "io-lulc-9-class", "io-lulc-annual-v02", "esa-worldcover"}


def test_every_layer_of_classes_has_its_table_and_nothing_else_has():
    for one in ARCHIVES:
        for collection in one.collections:
            assert (layer_classes(collection.id) is not None) == (collection.kind == "layer")


def test_all_listed_terms_are_known_credited_and_let_a_map_be_published():
    terms = [(c.id, c.terms) for one in ARCHIVES for c in one.collections]
    for name, one in terms:
        assert license_of(one.license).known, name
        assert one.license.lower() in LICENSES or one.license == "CC-BY-4.0"
        assert one.attribution
        assert one.url.startswith("https://")
        assert not refusal(name)
    assert combine(terms, "CC-BY-4.0", "any").license == "CC-BY-4.0"


def test_terms_are_those_of_the_archive_and_the_collection_together():
    assert terms_of(PLANETARY_COMPUTER, "nasadem").license == "US-PD"
    assert terms_of(EARTH_SEARCH, "nasadem") is None
    assert terms_of("https://example.org/stac", "sentinel-2-l2a") is None
    dated = terms_of(EARTH_SEARCH, "sentinel-2-l2a").dated([2022])
    assert dated.attribution == "Contains modified Copernicus Sentinel data 2022"


def test_other_archives_are_taken_at_their_collections_word():
    described = {
        "license": "ODbL-1.0",
        "providers": [
            {"name": "Land Office", "roles": ["licensor", "producer"]},
            {"name": "Land Office", "roles": ["producer"]},
            {"name": "A Cloud", "roles": ["host"]},
            {"roles": ["producer"]},
        ],
        "links": [
            {"rel": "self", "href": "https://example.org/c"},
            {"rel": "license", "href": "https://example.org/terms?token=hidden"},
        ],
    }
    assert described_terms(described) == Terms(
        "ODbL-1.0", "Land Office", "https://example.org/terms"
    )
    assert described_terms({}) == Terms("other")
    assert described_terms({"license": "proprietary", "links": None}) == Terms("proprietary")
