"""Of two processings of a scene the newer is used; two halves of a tile are both used."""

import copy
import itertools
import re

import numpy as np
import pytest
from shapely.geometry import box, mapping

from mapper.catalog.baselines import acquisition, newest_baselines
from mapper.catalog.items import SUPERSEDED_BY, freeze, thaw
from mapper.catalog.observation import datatake
from mapper.catalog.search import search_source
from mapper.catalog.sentinel2 import baseline_of, mgrs_tile
from mapper.catalog.source import Period
from mapper.recipe import Bands, Sentinel2Source
from tests.catalog.test_search import A

S2 = Sentinel2Source(kind="sentinel-2", catalog="here", bands=Bands(required=["red", "nir"]))


@pytest.fixture
def version(scene):
    def make(name, baseline, made="2022-06-02T00:00:00Z", **more):
        return scene(
            name, [A], grid__code="MGRS-33TTM", s2__processing_baseline=baseline,
            s2__generation_time=made, s2__datatake_id=f"GS2A_20220601T100031_036000_N{baseline}",
            **more,
        )  # fmt: skip

    return make


def used(*items):
    found, older = newest_baselines(items)
    return [i["id"] for i in found], older


def test_the_newest_baseline_wins_by_number(version):
    items = [version("a", "02.14"), version("b", "10.00"), version("c", "05.10")]
    for order in itertools.permutations(items):
        assert used(*order) == (["b"], {"a": "b", "c": "b"})


def test_then_the_newest_generation_time_then_the_id(version):
    late = version("a", "05.09", "2023-01-01T00:00:00.000Z")
    early = version("b", "05.09", "2022-06-02T00:00:00+00:00")
    assert used(early, late) == (["a"], {"b": "a"})
    assert used(early, version("c", "05.09")) == (["c"], {"b": "c"})


def test_two_ends_of_a_tile_are_no_versions_of_each_other(version):
    whole = version("w", "02.14")
    west, south, east, north = whole["bbox"]
    middle = (west + east) / 2
    halves = [version("l", "05.09"), version("r", "05.09")]
    halves[0]["geometry"] = mapping(box(west, south, middle + 0.001, north))
    halves[1]["geometry"] = mapping(box(middle - 0.001, south, east, north))
    assert used(*halves) == (["l", "r"], {})
    assert set(used(whole, *halves)[0]) == {"l", "r"}


def test_other_tiles_passes_and_platforms_stay(version):
    first = version("a", "02.14")
    for name, value in (
        ("grid:code", "MGRS-33TUM"),
        ("platform", "sentinel-2b"),
        ("s2:datatake_id", "GS2A_20220611T100031_036143_N05.09"),
    ):
        other = version("b", "05.09")
        other["properties"][name] = value
        assert used(first, other) == (["a", "b"], {})


def test_items_that_do_not_say_are_left_alone(scene):
    items = [scene(n, [A], grid__code="MGRS-33TTM") for n in "ab"]
    assert used(*items) == (["a", "b"], {})
    assert acquisition({"id": "x", "properties": {}}) is None


def test_the_older_is_on_record_and_is_not_read(version, opener, tmp_path):
    items = [version("old", "02.14", eo__cloud_cover=1), version("new", "05.09")]
    found = search_source("s2", S2, [A], Period.year(2022), opener(*items))
    assert [i["id"] for i in found.items] == ["new"]
    assert "a newer processing baseline removed 1" in found.account
    path = tmp_path / "items.parquet"
    table = freeze(path, {"s2": found.items}, {"s2": found.superseded})
    assert thaw(path) == table
    assert [i["id"] for i in table.by_source["s2"]] == ["new"]
    (kept,) = table.superseded["s2"]
    assert (kept["id"], kept["properties"][SUPERSEDED_BY]) == ("old", "new")
    assert len(table) == 1


def test_an_older_version_stands_in_where_the_newer_is_unusable(version, opener):
    items = [version("old", "02.14"), version("new", "05.09", eo__cloud_cover=99)]
    found = search_source("s2", S2, [A], Period.year(2022), opener(*items))
    assert [i["id"] for i in found.items] == ["old"]
    assert not found.superseded


def test_granules_of_one_pass_are_one_look_in_any_baseline(version):
    assert datatake(version("a", "02.14")) == datatake(version("b", "05.09"))


@pytest.mark.archive
def test_recorded_items_name_their_acquisition(recorded):
    items = recorded("sentinel-2-l2a")
    named = [i for i in items if i["properties"].get("s2:datatake_id")]
    assert len(named) > 40
    assert newest_baselines(named) == (named, {}), "no scene was recorded twice"
    for item in named[:5]:
        again = copy.deepcopy(item)
        again["id"] = "again"
        again["properties"]["s2:processing_baseline"] = "99.99"
        take = again["properties"]["s2:datatake_id"]
        again["properties"]["s2:datatake_id"] = take[: take.rindex("_N")] + "_N99.99"
        assert newest_baselines([item, again])[1] == {item["id"]: "again"}


def reprocessed(item, seconds, baseline, **changes):
    """The same scene processed again: another sequence, another baseline, a time nearby."""
    again = copy.deepcopy(item)
    again["id"] = item["id"].replace("_0_L2A", "_1_L2A")
    own = again["properties"]
    own["datetime"] = str(np.datetime64(own["datetime"].rstrip("Z")) + np.timedelta64(seconds, "s"))
    own["datetime"] += "Z"
    own["created"] = "2020-01-01T00:00:00Z"
    return again | {"properties": own | {"sentinel2:processing_baseline": baseline} | changes}


@pytest.mark.archive
def test_a_real_item_without_datatake_gives_way_to_its_newer_version(recorded):
    """Only `sentinel2:processing_baseline`, and times of the granules differ by seconds."""
    (item,) = [i for i in recorded("sentinel-2-l2a") if i["id"] == "S2B_5CNL_20221009_0_L2A"]
    again = reprocessed(item, 7, "05.10")
    assert used(item, again) == ([again["id"]], {item["id"]: again["id"]})
    named = reprocessed(item, 7, "05.10", **{
        "grid:code": "MGRS-05CNL", "s2:datatake_id": "GS2B_20221009T162421_029209_N05.10",
    })  # fmt: skip
    assert used(item, named) == ([named["id"]], {item["id"]: named["id"]})
    later = reprocessed(item, 6000, "05.10")
    assert used(item, later) == ([item["id"], later["id"]], {})


@pytest.mark.archive
def test_version_0_items_are_known_by_their_products(recorded):
    found = [
        i for i in recorded("sentinel-s2-l2a-cogs") if "sentinel:product_id" in i["properties"]
    ]
    assert found
    assert newest_baselines(found) == (found, {})
    for item in found:
        name = item["properties"]["sentinel:product_id"]
        newer = re.sub(r"_N\d{4}_", "_N0500_", name)
        again = reprocessed(item, 9, "05.00", **{"sentinel:product_id": newer})
        assert used(again, item) == ([again["id"]], {item["id"]: again["id"]})
        take = re.sub(r"L2A_\d{8}T\d{6}", "L2A_20180101T101010", newer)
        other = reprocessed(item, 9, "05.00", **{"sentinel:product_id": take})
        assert used(item, other) == ([item["id"], other["id"]], {})


@pytest.mark.archive
@pytest.mark.parametrize(
    "collection", ["sentinel-2-l2a", "sentinel-2-c1-l2a", "sentinel-s2-l2a-cogs"]
)
def test_recorded_scenes_say_their_pass(recorded, collection):
    for item in recorded(collection):
        bare = not baseline_of(item)
        known = acquisition(item)
        assert (known is None) == (bare or mgrs_tile(item) == item["id"]), item["id"]
        if item["properties"].get("s2:datatake_id"):
            assert known.take == item["properties"]["s2:datatake_id"][5:20]
