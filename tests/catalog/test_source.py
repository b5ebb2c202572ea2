"""Whatever the address turns out to be, the same items come out of it."""

import json
import shutil

import pytest
import requests

from mapper.catalog.bands import find_band
from mapper.catalog.observation import datatake, epsg_of, orbit_state
from mapper.catalog.sentinel2 import declared_offset, mgrs_tile
from mapper.catalog.source import ApiCatalog, ItemList, Period, StaticCatalog, open_catalog, touches
from mapper.errors import CatalogError
from mapper.simulate import read_items, serve_api, serve_files, write_geoparquet

WORLD = [(-180.0, -90.0, 180.0, 90.0)]
YEAR = Period.year(2022)
COLLECTIONS = ("sentinel-2-l2a", "sentinel-1-rtc", "nasadem")


def summary(items):
    """Items by id with the addresses of their assets."""
    return {i["id"]: {k: a["href"] for k, a in i["assets"].items()} for i in items}


@pytest.fixture(scope="module")
def expected(simulated):
    """What every form of the archive has to give."""
    items = read_items(simulated)
    return {c: summary(i for i in items if i["collection"] == c) for c in COLLECTIONS}


@pytest.mark.parametrize("form", ["static", "item collection", "geoparquet"])
@pytest.mark.parametrize("collection", COLLECTIONS)
def test_every_local_form_gives_the_same_items(simulated, expected, tmp_path, form, collection):
    address = {
        "static": simulated,
        "item collection": simulated.parent / "items.json",
        "geoparquet": tmp_path / "items.parquet",
    }[form]
    if form == "geoparquet":
        write_geoparquet(simulated, address)
    period = None if collection == "nasadem" else YEAR
    found = open_catalog(str(address)).search(collection, WORLD, period)
    assert summary(found) == expected[collection]


def test_a_collection_on_its_own_is_a_catalog(simulated, expected):
    catalog = open_catalog(str(simulated.parent / "nasadem" / "collection.json"))
    assert summary(catalog.search("nasadem", WORLD, YEAR)) == expected["nasadem"]


def test_addresses_do_not_depend_on_where_the_archive_is_opened_from(
    simulated, expected, monkeypatch
):
    monkeypatch.chdir(simulated.parent)
    found = open_catalog("catalog.json").search("nasadem", WORLD, YEAR)
    assert summary(found) == expected["nasadem"]


def test_an_api_gives_what_the_static_catalog_gives(simulated, expected):
    with serve_api(simulated) as address:
        catalog = open_catalog(address)
        assert isinstance(catalog, ApiCatalog)
        for collection in COLLECTIONS:
            period = None if collection == "nasadem" else YEAR
            assert summary(catalog.search(collection, WORLD, period)) == expected[collection]
        assert not list(catalog.search("nothing", WORLD, YEAR))
        east = [(11.0, 46.0, 13.0, 47.0)]
        found = summary(catalog.search("sentinel-2-l2a", east, YEAR))
        assert found
        assert all(name.endswith("testburg") for name in found)
        twice = list(catalog.search("nasadem", east * 2, None))
        assert len(twice) == len(summary(twice)), "boxes that overlap give an item once"


def test_every_form_says_the_same_of_bands_zone_pass_and_offset(simulated, tmp_path):
    """Static items pass through pystac, which rewrites them to the newest version of STAC."""

    def told(address):
        found = {}
        for collection in COLLECTIONS:
            for item in open_catalog(str(address)).search(collection, WORLD, None):
                bands = [find_band(item, b) for b in ("red", "swir16", "scl", "vv", "elevation")]
                found[item["id"]] = (
                    bands, epsg_of(item), datatake(item), orbit_state(item), mgrs_tile(item),
                    declared_offset(item)[0], item["properties"].get("eo:cloud_cover"),
                )  # fmt: skip
        return found

    table = write_geoparquet(simulated, tmp_path / "items.parquet")
    expected = told(simulated.parent / "items.json")
    assert len(expected) > 30
    assert told(simulated) == expected
    assert told(table) == expected
    with serve_api(simulated) as address:
        assert told(address) == expected


def test_a_static_catalog_is_read_over_http(simulated, expected):
    with serve_files(simulated.parent, fail_first=1) as address:
        found = summary(open_catalog(f"{address}/catalog.json").search("nasadem", WORLD, None))
        root = simulated.parent.resolve().as_posix()
        remote = {
            n: {k: h.replace(root, address) for k, h in assets.items()}
            for n, assets in expected["nasadem"].items()
        }
        assert found == remote


@pytest.mark.parametrize(
    ("box", "hit"),
    [((11, 46, 13, 47), True), ((12.2, 46, 13, 47), False), ((-180, -90, 180, 90), True)],
)
def test_only_items_that_touch_a_box_are_given(simulated, box, hit):
    for address in (simulated, simulated.parent / "items.json"):
        found = summary(open_catalog(str(address)).search("sentinel-2-l2a", [box], None))
        assert any(name.endswith("testburg") for name in found) == hit


@pytest.mark.parametrize(
    ("bbox", "hit"),
    [
        ([0, 0, 1, 1], False),
        ([9, 9, 10, 10], True),
        ([0, 0, -5, 100, 100, 5], True),
        ([170, -20, -170, -10], True),
        (None, True),
    ],
)
def test_a_bbox_of_two_or_three_dimensions_or_across_180_is_understood(bbox, hit):
    assert touches({"bbox": bbox}, [(10, 10, 20, 20)]) == hit


def test_items_without_collection_belong_to_any():
    catalog = ItemList([{"id": "a"}, {"id": "b", "collection": "x"}, {"id": "c", "collection": ""}])
    assert [i["id"] for i in catalog.search("x", WORLD, None)] == ["a", "b", "c"]
    assert [i["id"] for i in catalog.search("y", WORLD, None)] == ["a", "c"]


def landing(*, search="{base}/search"):
    """A STAC API's landing page."""
    return {
        "type": "Catalog",
        "id": "api",
        "stac_version": "1.0.0",
        "description": "A STAC API.",
        "conformsTo": [
            "https://api.stacspec.org/v1.0.0/core",
            "https://api.stacspec.org/v1.0.0/item-search",
        ],
        "links": [
            {"rel": "self", "href": "{base}/"},
            {"rel": "root", "href": "{base}/"},
            {"rel": "search", "href": search, "type": "application/geo+json", "method": "POST"},
        ],
    }


def page(*items):
    return {"type": "FeatureCollection", "features": list(items), "links": []}


@pytest.fixture
def stored(scene):
    return scene("one", collection="s2") | {"geometry": None, "bbox": [1, 2, 1, 2]}


def test_an_api_that_fails_twice_is_asked_again(serve, stored):
    address, asked = serve({"/": landing(), "/search": page(stored)}, fail_first=2)
    found = list(open_catalog(f"{address}/").search("s2", WORLD, YEAR))
    assert [i["id"] for i in found] == ["one"]
    assert asked["/search"] == 3


def test_an_api_that_refuses_a_search_is_a_catalog_error(serve):
    address, _ = serve({"/": landing()}, status={"/search": 400})
    catalog = open_catalog(f"{address}/")
    with pytest.raises(CatalogError):
        list(catalog.search("s2", WORLD, YEAR))


def test_an_api_whose_search_is_no_json_is_a_catalog_error(serve):
    address, _ = serve({"/": landing(), "/search": "<html>busy</html>"})
    catalog = open_catalog(f"{address}/")
    with pytest.raises(CatalogError):
        list(catalog.search("s2", WORLD, YEAR))


def test_a_static_catalog_that_lost_an_item_is_a_catalog_error(simulated, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(
        simulated.parent, root, ignore=shutil.ignore_patterns("*.tif", "*.tiff"), dirs_exist_ok=True
    )
    lost = next((root / "nasadem").rglob("NASADEM*.json"))
    lost.unlink()
    with pytest.raises(CatalogError, match=lost.name):
        list(open_catalog(str(root / "catalog.json")).search("nasadem", WORLD, None))


@pytest.mark.parametrize(
    "content",
    [
        "<html>not found</html>",
        "",
        {"hello": 1},
        [1, 2],
        "null",
        {"type": "FeatureCollection"},
        {"conformsTo": []},
        {"type": "Feature", "stac_version": "1.0.0", "id": "x", "properties": {}, "geometry": None,
         "links": [], "assets": {}},
    ],
    ids=["html", "empty", "other json", "list", "null", "no features", "no landing", "an item"],
)  # fmt: skip
@pytest.mark.parametrize("remote", [False, True])
def test_what_is_not_stac_is_a_catalog_error(serve, tmp_path, content, remote):
    if remote:
        base, _ = serve({"/it": content})
        address = f"{base}/it"
    else:
        path = tmp_path / "it.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        address = str(path)
    with pytest.raises(CatalogError):
        open_catalog(address)


def test_a_binary_file_is_a_catalog_error(tmp_path):
    path = tmp_path / "picture.tif"
    path.write_bytes(b"II*\x00\xff\xfe\x80\x81")
    with pytest.raises(CatalogError, match=r"picture\.tif"):
        open_catalog(str(path))


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_is_a_catalog_error_without_the_token(serve, status):
    base, _ = serve({}, status={"/it": status})
    with pytest.raises(CatalogError, match=str(status)) as caught:
        open_catalog(f"{base}/it?sig=s3cr3t")
    assert "s3cr3t" not in str(caught.value)


def test_a_dead_address_is_a_catalog_error(serve, monkeypatch):
    base, _ = serve({})
    dead = base.replace("127.0.0.1", "127.0.0.2")
    monkeypatch.setattr("mapper.catalog.source.session", requests.Session)
    with pytest.raises(CatalogError, match="cannot be opened") as caught:
        open_catalog(f"{dead}/catalog.json?sig=s3cr3t")
    assert "s3cr3t" not in str(caught.value)


def test_a_file_that_is_not_there_is_a_catalog_error(tmp_path):
    with pytest.raises(CatalogError, match="nowhere"):
        open_catalog(str(tmp_path / "nowhere.json"))


def test_a_remote_geoparquet_file_is_refused_with_the_remedy():
    with pytest.raises(CatalogError, match="download"):
        open_catalog("http://127.0.0.1:9/items.parquet")


def test_a_year_is_a_year():
    assert YEAR.interval == "2022-01-01T00:00:00Z/2022-12-31T23:59:59Z"


def test_the_archives_forms_are_told_apart(simulated):
    assert isinstance(open_catalog(str(simulated)), StaticCatalog)
    assert isinstance(open_catalog(str(simulated.parent / "items.json")), ItemList)


@pytest.mark.archive
def test_the_real_static_catalog_opens(archive):
    catalog = open_catalog(str(archive / "catalog.json"))
    found = list(catalog.search("sentinel-2-l2a", [(11.2, 46.4, 11.5, 46.6)], None))
    assert [i["id"] for i in found] == ["S2_32TPS_20220612_bolzano"]
    for asset in found[0]["assets"].values():
        assert asset["href"].startswith(str(archive.resolve()))


def two_assets(first, second, **more):
    assets = {"red": {"href": first}, "nir": {"href": second, **more}}
    return {"id": "one", "properties": {}, "bbox": [1, 2, 1, 2], "assets": assets}


GET = "https://host/get"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"{GET}?file=B02", f"{GET}?file=hidden"),
        (f"{GET}?file=B02&sig=1", f"{GET}?sig=hidden&file=hidden"),
        (GET, f"{GET}?file=hidden"),
        ("get?file=B02", "get?file=hidden"),
    ],
)
def test_files_that_only_a_query_tells_apart_are_refused(first, second):
    item = two_assets(first, second)
    with pytest.raises(CatalogError, match=r"assets red and nir .*file=\*\*\*") as caught:
        list(ItemList([item], "https://host/items.json").search("", [(0, 0, 3, 3)], None))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second", "more"),
    [
        (f"{GET}?sig=1&se=2030&X-Amz-Date=5", f"{GET}?sig=2&SE=2031", {}),
        (f"{GET}?a=1&b=2", f"{GET}?b=2&a=1", {}),
        (f"{GET}/r?file=B02", f"{GET}/n?file=B03", {}),
        (f"{GET}?file=B02", f"{GET}?file=B03", {"type": "image/png"}),
        (f"{GET}?file=B02", f"{GET}?file=B03", {"roles": ["thumbnail"]}),
    ],
)
def test_signatures_and_previews_do_not_make_one_file_two(first, second, more):
    item = two_assets(first, second, **more)
    (found,) = ItemList([item], "https://host/items.json").search("", [(0, 0, 3, 3)], None)
    assert [a["href"] for a in found["assets"].values()] == [
        h.partition("?")[0] for h in (first, second)
    ]
