"""What is frozen is what was found: nothing lost, nothing added, no token."""

import copy
import re
from datetime import datetime

import pytest
from shapely.geometry import shape

from mapper.catalog.items import SOURCE, freeze, read_items, thaw, write_items
from mapper.catalog.source import open_catalog
from mapper.errors import CatalogError, StoreError

COLLECTIONS = (
    "cop-dem-glo-30", "cop-dem-glo-90", "esa-worldcover", "io-lulc", "io-lulc-9-class",
    "io-lulc-annual-v02", "naip", "nasadem", "sentinel-1-grd", "sentinel-1-rtc",
    "sentinel-2-c1-l2a", "sentinel-2-global-mosaics", "sentinel-2-l1c", "sentinel-2-l2a",
    "sentinel-s2-l2a", "sentinel-s2-l2a-cogs", "sentinel1-grd", "sentinel1-rtc-aws",
    "sentinel1-slc", "sentinel2-l1c-example", "sentinel2-l2a-example",
)  # fmt: skip
_TIME = re.compile(r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")


def plain(value):
    """A value without nulls, times as times: what a round trip has to keep."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, str) and _TIME.match(value):
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    return value


def nulls(value):
    """True where there is a null anywhere."""
    if isinstance(value, dict):
        return any(v is None or nulls(v) for v in value.values())
    return isinstance(value, list | tuple) and any(v is None or nulls(v) for v in value)


@pytest.mark.archive
@pytest.mark.parametrize("collection", COLLECTIONS)
def test_recorded_items_come_back_whole(recorded, tmp_path, collection):
    items = recorded(collection)
    before = copy.deepcopy(items)
    found = freeze(tmp_path / "items.parquet", {"one": items}).by_source["one"]
    assert items == before, "freezing changes nothing it was given"
    assert len(found) == len(items)
    for item, original in zip(found, items, strict=True):
        assert item["properties"].pop(SOURCE) == "one"
        original["properties"].pop("collection", None)  # the format has one field of that name
        if original["geometry"].get("coordinates", [[]])[0] == []:
            # an archive served a footprint that nothing can read: the bbox stands for it
            assert shape(item["geometry"]).bounds == tuple(original["bbox"])
            original["geometry"] = item["geometry"]
        assert plain(item) == plain(original)


@pytest.mark.archive
def test_items_of_several_sources_do_not_lend_each_other_keys(recorded, tmp_path):
    by_source = {
        "optical": recorded("sentinel-2-l2a")[:8] + recorded("sentinel-2-c1-l2a"),
        "radar": recorded("sentinel-1-rtc"),
        "terrain": recorded("nasadem") + recorded("cop-dem-glo-30")[1:],
        "photos": recorded("naip"),
    }
    table = freeze(tmp_path / "items.parquet", by_source)
    assert list(table.by_source) == list(by_source)
    assert len(table) == sum(map(len, by_source.values()))
    for name, items in by_source.items():
        for item, original in zip(table.by_source[name], items, strict=True):
            item["properties"].pop(SOURCE)
            assert plain(item) == plain(original)
            assert set(item["assets"]) == set(original["assets"])
            assert not nulls(item)


@pytest.mark.archive
def test_a_time_range_keeps_the_null_datetime_that_stac_requires(recorded, tmp_path):
    items = recorded("esa-worldcover")
    assert items[0]["properties"]["datetime"] is None
    found = freeze(tmp_path / "items.parquet", {"one": items}).by_source["one"][0]
    assert "datetime" in found["properties"]
    assert found["properties"]["datetime"] is None


def test_thaw_gives_what_freeze_gave(scene, tmp_path):
    path = tmp_path / "deep" / "items.parquet"
    boxed = [scene(n) | {"geometry": POINT, "bbox": [1, 2, 1, 2]} for n in "cab"]
    frozen = freeze(path, {"z": boxed, "a": boxed[:1]})
    assert frozen == thaw(path)
    assert [i["id"] for i in frozen.by_source["z"]] == ["c", "a", "b"], "in search order"
    assert len(frozen) == 4
    assert [p.name for p in path.parent.iterdir()] == ["items.parquet"], "no attempt is left"


POINT = {"type": "Point", "coordinates": [1.0, 2.0]}


def test_a_search_without_any_item_can_be_frozen(tmp_path):
    """All sources of a recipe may be optional, and all empty."""
    table = freeze(tmp_path / "items.parquet", {"one": [], "two": ()})
    assert len(table) == 0
    assert len(thaw(tmp_path / "items.parquet")) == 0


def test_tokens_do_not_reach_the_table(tmp_path, serve, scene):
    item = scene("one") | {"geometry": POINT, "bbox": [1, 2, 1, 2]}
    item["links"] = [
        {"rel": "self", "href": "https://host/one.json?sig=s3cr3t"},
        {"rel": "via", "href": "https://host/via?sig=s3cr3t"},
    ]
    for asset in item["assets"].values():
        asset["href"] = "https://host/a.tif?st=1&sig=s3cr3t"
    address, _ = serve({"/items.json": {"type": "FeatureCollection", "features": [item]}})
    found = list(open_catalog(f"{address}/items.json").search("any", [(0, 0, 3, 3)], None))
    path = tmp_path / "items.parquet"
    table = freeze(path, {"one": found})
    assert table.by_source["one"][0]["assets"]["red"]["href"] == "https://host/a.tif"
    assert "s3cr3t" not in str(table)
    assert b"s3cr3t" not in path.read_bytes()


def test_tokens_of_alternate_addresses_do_not_reach_the_table(tmp_path, serve, scene):
    item = scene("one") | {"geometry": POINT, "bbox": [1, 2, 1, 2]}
    item["assets"]["red"]["alternate"] = {"https": {"href": "https://host/a.tif?sig=s3cr3t"}}
    address, _ = serve({"/items.json": {"type": "FeatureCollection", "features": [item]}})
    found = list(open_catalog(f"{address}/items.json").search("any", [(0, 0, 3, 3)], None))
    assert "s3cr3t" not in str(freeze(tmp_path / "items.parquet", {"one": found}))


def test_something_else_is_not_read(tmp_path):
    path = tmp_path / "items.parquet"
    path.write_text("no parquet")
    with pytest.raises(CatalogError, match=r"items\.parquet is no stac-geoparquet file"):
        read_items(path)
    with pytest.raises(CatalogError):
        thaw(tmp_path / "nowhere.parquet")


def test_a_disk_that_refuses_is_a_store_error(tmp_path, scene):
    (tmp_path / "file").write_text("in the way")
    item = scene("one") | {"geometry": POINT, "bbox": [1, 2, 1, 2]}
    with pytest.raises(StoreError):
        write_items(tmp_path / "file" / "items.parquet", [item])
