"""STAC: items and collections that pystac reads and the schemas accept, without a network."""

import hashlib
import json
import os
import socket
from dataclasses import replace
from pathlib import Path

import pystac
import pytest
from jsonschema import Draft7Validator
from pystac import STACObjectType
from pystac.validation import JsonSchemaSTACValidator
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7
from shapely import box
from shapely.geometry import mapping

import mapper
from mapper.area.grid import PixelBox
from mapper.product.item import (
    Credits,
    ProductFacts,
    file_facts,
    index_feature,
    product_item,
    run_collection,
)
from tests.product.conftest import CLASSES, CORNERS

BOUNDS = (11.30, 46.46, 11.40, 46.52)
FILES = ("classes.tif", "confidence.tif", "observations.tif")
OTHERS = ("statistics.json", "statistics.csv", "quicklook.png")
COUNTS = {0: 100, 7: 300, 255: 50}
SCENE = {
    "id": "S2_32TPS_20220612",
    "datetime": "2022-06-12T10:16:00Z",
    "href": "https://example.org/collections/s2/items/S2_32TPS_20220612",
    "offset": -0.1,
}
NOTICE = "Contains modified Copernicus Sentinel data 2022"
TERMS = "https://example.org/terms"
CREDITS = Credits(
    license="CC-BY-4.0",
    use="any",
    attributions=(NOTICE, "© Town Survey"),
    notes=("highres: ask twice",),
    obligations=("attribution",),
    terms=(
        {"name": "sentinel2", "license": "Copernicus-Sentinel", "attribution": NOTICE}
        | {"url": TERMS},
        {"name": "sentinel1", "license": "Copernicus-Sentinel", "url": TERMS},
        {"name": "highres", "license": "other", "url": "/survey/terms.txt"},
        {"name": "model spectral-baseline", "license": "Apache-2.0"},
    ),
    owners={"Copernicus": TERMS, "Town Survey": "/survey/terms.txt"},
)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_):
        raise OSError("the network is out of bounds")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def facts():
    grid, row, col = CORNERS["north"]
    return ProductFacts(
        item_id="spectral-10m-bolzano-2022-v1",
        title="Bolzano 2022",
        city="Bolzano",
        country="Italy",
        geometry=mapping(box(*BOUNDS)),
        bbox=BOUNDS,
        interval="2022-01-01T00:00:00Z/2022-12-31T23:59:59Z",
        version=1,
        grid=grid,
        pixels=PixelBox(row0=row, col0=col, row1=row + 670, col1=col + 770),
        classes=CLASSES,
        credits=CREDITS,
        recipe={"name": "spectral-10m", "title": "Urban land cover", "digest": "00"},
        model={"name": "spectral-baseline", "digest": "11", "plan": {"size": 512}},
        scenes={"sentinel2": [SCENE, {"id": "local", "datetime": "2022-07-01T00:00:00Z"}]},
        missing=["sentinel1"],
        warnings=["few scenes"],
    )


@pytest.fixture
def folder(tmp_path):
    for name in (*FILES, *OTHERS):
        (tmp_path / name).write_bytes(name.encode() * 100)
    return tmp_path


@pytest.fixture
def item(facts, folder):
    """The item as a reader gets it."""
    return json.loads(json.dumps(product_item(facts, folder, COUNTS)))


@pytest.fixture
def collection(item):
    other = json.loads(json.dumps(item))
    other["bbox"] = [-58.6, -34.7, -58.3, -34.5]
    other["properties"] |= {
        "start_datetime": "2021-01-01T00:00:00Z",
        "end_datetime": "2021-12-31T23:59:59Z",
    }
    items = {"cities/b/item.json": item, "cities/a/item.json": other}
    return json.loads(json.dumps(run_collection(items, "Maps", ["CC-BY-4.0", "CC-BY-4.0"])))


# the core ----------------------------------------------------------------------------------


def test_pystac_reads_and_validates_the_item(item):
    read = pystac.Item.from_dict(item)
    assert read.datetime is None
    assert read.common_metadata.start_datetime.isoformat() == "2022-01-01T00:00:00+00:00"
    assert JsonSchemaSTACValidator().validate_core(item, STACObjectType.ITEM, "1.1.0")
    assert read.to_dict(include_self_link=False, transform_hrefs=False)["assets"] == item["assets"]


def test_pystac_reads_and_validates_the_collection(collection):
    read = pystac.Collection.from_dict(collection)
    assert JsonSchemaSTACValidator().validate_core(collection, STACObjectType.COLLECTION, "1.1.0")
    assert read.extent.spatial.bboxes[0] == [-58.6, -34.7, 11.40, 46.52]
    assert len(read.extent.spatial.bboxes) == 3
    ((start, end),) = read.extent.temporal.intervals
    assert (start.year, end.year) == (2021, 2022)


def test_validation_notices_a_missing_field(item):
    del item["bbox"]
    with pytest.raises(pystac.errors.STACValidationError):
        JsonSchemaSTACValidator().validate_core(item, STACObjectType.ITEM, "1.1.0")


def test_a_collection_links_its_items_in_order(collection):
    links = [link for link in collection["links"] if link["rel"] == "item"]
    assert [link["href"] for link in links] == ["./cities/a/item.json", "./cities/b/item.json"]
    assert collection["license"] == "CC-BY-4.0"


def test_mixed_licences_are_other(item):
    mixed = run_collection({"a.json": item}, "Maps", ["CC-BY-4.0", "MIT"])
    assert mixed["license"] == "other"
    assert mixed["extent"]["spatial"]["bbox"] == [list(BOUNDS)]


# the extensions ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schemas():
    """Schemas of extensions by their address, with those of the core."""
    archive = os.environ.get("MAPPER_TEST_ARCHIVE")
    if not archive:
        pytest.skip("MAPPER_TEST_ARCHIVE does not name the folder with the STAC schemas")
    contents = dict(get_local_schema_cache())
    for path in (Path(archive) / "schemas").glob("*.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        contents[schema.pop("$id").rstrip("#")] = schema
    pairs = [(u, Resource.from_contents(s, DRAFT7)) for u, s in contents.items()]
    return contents, Registry().with_resources(pairs)


def faults(schemas, document):
    """What the schemas of all declared extensions object to."""
    contents, registry = schemas
    assert set(document["stac_extensions"]) <= set(contents)
    found = []
    for uri in document["stac_extensions"]:
        validator = Draft7Validator({"$ref": uri}, registry=registry)
        found += [f"{uri}: {e.json_path}: {e.message}" for e in validator.iter_errors(document)]
    return found


@pytest.mark.archive
def test_the_item_keeps_every_extension_that_it_declares(item, schemas):
    assert len(item["stac_extensions"]) >= 6
    assert faults(schemas, item) == []


@pytest.mark.archive
def test_a_later_version_keeps_them_too(facts, folder, schemas):
    later = product_item(replace(facts, version=3, country="", missing=[]), folder, {})
    assert faults(schemas, json.loads(json.dumps(later))) == []


@pytest.mark.archive
@pytest.mark.parametrize(
    ("prefix", "value"),
    [("proj:code", 32632), ("proj:shape", [1]), ("processing:level", 4), ("renders", {"a": {}})],
)
def test_a_wrong_property_would_be_noticed(item, schemas, prefix, value):
    item["properties"][prefix] = value
    assert faults(schemas, item)


@pytest.mark.archive
@pytest.mark.parametrize("field", ["classification:classes", "file:checksum", "bands"])
def test_a_wrong_asset_would_be_noticed(item, schemas, field):
    item["assets"]["classes"][field] = "wrong"
    assert faults(schemas, item)


def test_what_is_used_is_declared(item):
    used = {k.split(":")[0] for k in item["properties"] if ":" in k}
    for asset in item["assets"].values():
        used |= {k.split(":")[0] for k in asset if ":" in k}
        used |= {k.split(":")[0] for b in asset.get("bands", []) for k in b if ":" in k}
    names = {"proj": "projection", "classification": "classification"}
    declared = {uri.split("/")[3] for uri in item["stac_extensions"]}
    assert {names.get(u, u) for u in used - {"mapper"}} <= declared
    assert {"render", "version"} <= declared


# terms of use ------------------------------------------------------------------------------


def test_the_item_names_licence_owners_and_attributions(item):
    properties = item["properties"]
    assert properties["license"] == "CC-BY-4.0"
    assert properties["mapper:attributions"] == [NOTICE, "© Town Survey"]
    assert properties["mapper:notes"] == ["highres: ask twice"]
    assert (properties["mapper:use"], properties["mapper:obligations"]) == ("any", ["attribution"])
    listed = {one["name"]: one["license"] for one in properties["mapper:terms_of_use"]}
    assert listed["model spectral-baseline"] == "Apache-2.0"
    read = pystac.Item.from_dict(item).common_metadata.providers
    assert [(p.name, p.roles, p.url) for p in read] == [
        ("Copernicus", ["licensor"], TERMS),
        ("Town Survey", ["licensor"], None),
    ]


def test_terms_on_the_web_are_linked_once(item):
    links = [link for link in item["links"] if link["rel"] == "license"]
    assert links == [
        {"rel": "license", "href": TERMS, "title": "Terms of sentinel2, sentinel1"},
    ]


def test_a_map_that_owes_nothing_has_no_providers(facts, folder):
    item = json.loads(json.dumps(product_item(replace(facts, credits=Credits()), folder, COUNTS)))
    assert "providers" not in item["properties"]
    assert item["properties"]["license"] == "other"
    assert JsonSchemaSTACValidator().validate_core(item, STACObjectType.ITEM, "1.1.0")


@pytest.mark.parametrize("license", ["CC BY 4.0", "CC-BY-4.0 or MIT"])
def test_a_licence_that_stac_has_no_place_for_would_be_noticed(item, license):
    item["properties"]["license"] = license
    with pytest.raises(pystac.errors.STACValidationError):
        JsonSchemaSTACValidator().validate_core(item, STACObjectType.ITEM, "1.1.0")


def test_the_collection_credits_whom_its_items_do(facts, folder, item):
    other = replace(CREDITS, attributions=("© A", NOTICE), owners={"A": ""}, terms=())
    second = product_item(replace(facts, credits=other), folder, COUNTS)
    both = run_collection({"a.json": item, "b.json": second}, "Maps", ["CC-BY-4.0", "other"])
    assert both["mapper:attributions"] == [NOTICE, "© A", "© Town Survey"]
    assert [p["name"] for p in both["providers"]] == ["A", "Copernicus", "Town Survey"]
    assert [k["href"] for k in both["links"] if k["rel"] == "license"] == [TERMS]
    assert JsonSchemaSTACValidator().validate_core(both, STACObjectType.COLLECTION, "1.1.0")


def test_an_item_of_an_earlier_version_has_less_and_is_listed(item):
    for name in ("providers", "mapper:attributions"):
        del item["properties"][name]
    alone = run_collection({"a.json": item}, "Maps", ["CC-BY-4.0"])
    assert alone["mapper:attributions"] == []
    assert "providers" not in alone


# what it says ------------------------------------------------------------------------------


def test_assets_have_size_and_checksum_of_their_files(item, folder):
    assert {a["href"] for a in item["assets"].values()} == {f"./{n}" for n in (*FILES, *OTHERS)}
    for asset in item["assets"].values():
        content = (folder / asset["href"]).read_bytes()
        assert asset["file:size"] == len(content)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
        assert asset["roles"]


def test_a_checksum_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert file_facts(path) == {
        "file:size": 0,
        "file:checksum": "1220e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }


def test_the_projection_is_that_of_the_raster(item, facts):
    properties = item["properties"]
    assert properties["proj:code"] == "EPSG:32632"
    assert properties["proj:shape"] == [670, 770]
    assert properties["proj:bbox"] == list(facts.grid.bounds_of(facts.pixels))
    left, _, _, top = properties["proj:bbox"]
    assert properties["proj:transform"] == [10, 0, left, 0, -10, top]


def test_classes_have_counts_and_shares(item):
    listed = {c["value"]: c for c in item["assets"]["classes"]["classification:classes"]}
    assert {v: c.get("count") for v, c in listed.items()} == {0: 100, 2: 0, 7: 300, 255: None}
    assert {v: c.get("percentage") for v, c in listed.items() if v != 255} == {0: 25, 2: 0, 7: 75}
    assert listed[255]["nodata"] is True
    assert listed[7]["color_hint"] == "C0392B"


def test_a_map_without_pixels_has_shares_of_zero(facts, folder):
    listed = product_item(facts, folder, {255: 9})["assets"]["classes"]["classification:classes"]
    assert [c["percentage"] for c in listed if not c.get("nodata")] == [0, 0, 0]


def test_colours_of_the_renderer_are_those_of_the_classes(item):
    colormap = item["properties"]["renders"]["classes"]["colormap"]
    assert colormap == {str(c.value): [*c.rgb, 255] for c in CLASSES.classes}


def test_scenes_with_an_address_are_linked(item):
    links = [link for link in item["links"] if link["rel"] == "derived_from"]
    assert [link["href"] for link in links] == [SCENE["href"]]
    assert len(item["properties"]["mapper:scenes"]["sentinel2"]) == 2


def test_the_lineage_names_what_was_used_and_what_was_not(item):
    lineage = item["properties"]["processing:lineage"]
    for word in ("spectral-10m", "spectral-baseline", "2 scenes of sentinel2", "without sentinel1"):
        assert word in lineage
    assert item["properties"]["processing:software"] == {"mapper": mapper.__version__}


@pytest.mark.parametrize(("version", "before"), [(1, []), (2, ["../../v1/product/item.json"])])
def test_versions_are_chained(facts, folder, version, before):
    later = product_item(replace(facts, version=version), folder, COUNTS)
    links = [link["href"] for link in later["links"] if link["rel"] == "predecessor-version"]
    assert links == before
    assert later["properties"]["version"] == str(version)


def test_the_index_has_a_feature_for_each_city(item):
    feature = index_feature(item, "cities/bolzano/item.json", {"green_share": 0.25})
    assert feature["geometry"] == item["geometry"]
    assert feature["properties"]["city"] == "Bolzano"
    assert feature["properties"]["item"] == "cities/bolzano/item.json"
    assert feature["properties"]["green_share"] == 0.25
    assert feature["properties"]["period"] == "2022-01-01T00:00:00Z/2022-12-31T23:59:59Z"
