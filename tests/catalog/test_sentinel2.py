"""Whether the offset is still in the pixels: by rule, never by date, and by the pixels last."""

import copy
import json
import os
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from mapper.catalog.sentinel2 import baseline_of, declared_offset, judge_offset, mgrs_tile

BANDS = ("coastal", "blue", "green", "red", "nir", "swir16", "swir22")


def item(flag=None, offset=None, baseline=None, when="2022-06-01T00:00:00Z"):
    """A scene that declares these."""
    properties = {"datetime": when}
    if flag is not None:
        properties["earthsearch:boa_offset_applied"] = flag
    if baseline is not None:
        properties["s2:processing_baseline"] = baseline
    asset = {"href": "/nowhere/red.tif"}
    if offset is not None:
        asset["raster:bands"] = [{"scale": 0.0001, "offset": offset}]
    return {"id": "one", "properties": properties, "assets": {"red": asset}}


@pytest.mark.parametrize(
    ("flag", "offset", "baseline", "expected"),
    [
        (True, -0.1, "04.00", (0.0, "flag")),
        (True, 0, "02.14", (0.0, "flag")),
        (True, None, None, (0.0, "flag")),
        (False, -0.1, "04.00", (-0.1, "raster:bands")),
        (False, 0, "02.14", (0.0, "raster:bands")),
        (None, -0.1, "05.11", (-0.1, "raster:bands")),
        (None, 0, "05.11", (0.0, "raster:bands")),
        (None, None, "03.01", (0.0, "baseline")),
        (None, None, "03.99", (0.0, "baseline")),
        (None, None, "04.00", (-0.1, "baseline")),
        (None, None, "04.01", (-0.1, "baseline")),
        (None, None, "05.10", (-0.1, "baseline")),
        (None, None, "10.00", (-0.1, "baseline")),
        (None, None, "unknown", (0.0, "baseline")),
        (None, None, None, (0.0, "default")),
        (False, None, "05.10", (-0.1, "baseline")),
    ],
)
@pytest.mark.parametrize(
    "when", ["2016-01-01T00:00:00Z", "2022-01-24T23:59:59Z", "2025-01-01T00:00:00Z"]
)
def test_the_declared_offset_follows_the_rule_whatever_the_date(
    flag, offset, baseline, expected, when
):
    assert declared_offset(item(flag, offset, baseline, when)) == expected


@pytest.mark.parametrize(
    ("properties", "identity", "expected"),
    [
        ({"sentinel:boa_offset_applied": True, "sentinel:processing_baseline": "04.00"}, "a", 0),
        ({"sentinel:boa_offset_applied": False, "sentinel:processing_baseline": "04.00"}, "a", 1),
        ({"earthsearch:boa_offset_applied": "true", "s2:processing_baseline": "04.00"}, "a", 1),
        ({"sentinel:processing_baseline": "02.14"}, "a", 0),
        ({"sentinel2:processing_baseline": "04.00"}, "a", 1),
        ({"processing:version": "05.00"}, "a", 1),
        ({"processing:version": "02.12"}, "a", 0),
        ({"processing:version": "5.10"}, "a", 0),
        ({"s2:product_uri": "S2A_MSIL2A_20200101T000001_N0510_R116_T58UFG_2.SAFE"}, "a", 1),
        ({"sentinel:product_id": "S2B_MSIL2A_20220107T063239_N0301_R077_T42TUM_2"}, "a", 0),
        ({}, "S2B_MSIL2A_20200322T074609_N0500_R135_T36NYH_20230612T214223", 1),
        ({}, "S2A_OPER_MSI_L2A_TL_SGS__20180524T190423_A015250_T26SKD_N02.08", 0),
        ({"s2:processing_baseline": "02.12"}, "S2A_N0510_R1", 0),
    ],
)
def test_flag_and_baseline_are_found_under_every_name(properties, identity, expected):
    found = {"id": identity, "properties": properties, "assets": {"red": {"href": "/r.tif"}}}
    assert declared_offset(found)[0] == (-0.1 if expected else 0.0)


RECORDED = Path(os.environ.get("MAPPER_TEST_ARCHIVE", "/nowhere")) / "stac"
COLLECTIONS = (
    *("sentinel-2-l2a", "sentinel-2-c1-l2a", "sentinel-s2-l2a-cogs", "sentinel-s2-l2a"),
    "sentinel2-l2a-example",
)
FILES = sorted(
    str(path.relative_to(RECORDED)) for c in COLLECTIONS for path in RECORDED.glob(f"{c}/*.json")
)
DECLARED = [
    ("sentinel-2-c1-l2a/*", -0.1, "raster:bands"),
    ("sentinel-2-l2a/S2B_31TCJ_20220823_0_L2A.json", -0.1, "raster:bands"),
    ("sentinel-2-l2a/S2?_31TCJ_*", 0.0, "flag"),
    ("sentinel-2-l2a/S2A_28QCH_*", 0.0, "raster:bands"),
    ("sentinel-2-l2a/S2A_29RKH_*", 0.0, "raster:bands"),
    ("sentinel-2-l2a/S2A_52HGH_*", -0.1, "raster:bands"),
    ("sentinel-2-l2a/S2B_5CNL_*", -0.1, "raster:bands"),
    ("sentinel-2-l2a/S2[AB]_[0-9]*", 0.0, "flag"),
    ("sentinel-2-l2a/*_N0500_*", -0.1, "raster:bands"),
    ("sentinel-2-l2a/S2?_MSIL2A_202[24]*", -0.1, "baseline"),
    ("sentinel-2-l2a/S2?_MSIL2A_*", 0.0, "baseline"),
    ("sentinel-s2-l2a-cogs/S2A_17SPR_*", 0.0, "flag"),
    ("sentinel-s2-l2a-cogs/S2A_34SGA_*", 0.0, "default"),
    ("sentinel-s2-l2a-cogs/*", 0.0, "baseline"),
    ("sentinel-s2-l2a/*_N02.08.json", 0.0, "baseline"),
    ("sentinel-s2-l2a/*", 0.0, "default"),
    ("sentinel2-l2a-example/*", 0.0, "raster:bands"),
]


def by_the_rule(text):
    """The documented rule, read from the item's bare text."""
    properties = json.loads(text)["properties"]
    if any(v is True for k, v in properties.items() if k.endswith("boa_offset_applied")):
        return 0.0
    for asset in json.loads(text)["assets"].values():
        for band in [asset, *(b for b in asset.get("raster:bands", []))]:
            scale = band.get("scale", band.get("raster:scale"))
            offset = band.get("offset", band.get("raster:offset"))
            if scale == 0.0001 and offset is not None:
                return float(offset)
    baselines = re.findall(r'baseline": "(\d\d\.\d\d)"', text)
    return -0.1 if baselines and baselines[0] >= "04.00" else 0.0


@pytest.mark.archive
@pytest.mark.parametrize("file", FILES)
def test_every_recorded_item_is_read_by_the_rule(file):
    text = (RECORDED / file).read_text()
    expected = next(row[1:] for row in DECLARED if fnmatch(file, row[0]))
    assert declared_offset(json.loads(text)) == expected
    assert by_the_rule(text) == expected[0]


@pytest.mark.archive
def test_recorded_items_stand_on_both_sides_of_baseline_four_and_of_its_first_day(archive):
    seen = set()
    for file in FILES:
        found = json.loads((RECORDED / file).read_text())
        after = found["properties"]["datetime"] >= "2022-01-25"
        seen.add((baseline_of(found) >= "04.00", after, declared_offset(found)[0]))
    # new baseline on an old date; an old baseline with no offset; new ones with and without
    assert {(True, False, -0.1), (False, False, 0.0), (True, True, -0.1), (True, True, 0.0)} <= seen
    assert {row[0] for row in DECLARED} == {
        next(row[0] for row in DECLARED if fnmatch(file, row[0])) for file in FILES
    }


@pytest.mark.archive
@pytest.mark.parametrize("collection", COLLECTIONS)
def test_no_recorded_item_changes_with_its_date(recorded, collection):
    for found in recorded(collection):
        expected = declared_offset(found)
        for year in (2015, 2021, 2022, 2026):
            moved = copy.deepcopy(found)
            moved["properties"]["datetime"] = f"{year}-03-01T00:00:00Z"
            assert declared_offset(moved) == expected


@pytest.mark.archive
@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("S2A_31TCJ_20220808_1_L2A", 0.0),
        ("S2B_31TCJ_20220823_0_L2A", -0.1),
        ("S2A_28QCH_20200714_0_L2A", 0.0),
        ("S2A_52HGH_20221007_0_L2A", -0.1),
        ("S2A_MSIL2A_20190101T000001_R116_T58UFG_20201007T214655", 0.0),
        ("S2B_MSIL2A_20220612T182919_R027_T24XWR_20220613T123251", -0.1),
        ("S2B_MSIL2A_20240419T095549_R122_T47XMJ_20240419T122756", -0.1),
    ],
)
def test_known_recorded_items(recorded, name, offset):
    found = next(i for i in recorded("sentinel-2-l2a") if i["id"] == name)
    assert declared_offset(found)[0] == offset


@pytest.mark.archive
@pytest.mark.parametrize("baseline", ["02.12", "03.01", "03.99", "04.00", "05.09"])
def test_a_planetary_computer_item_follows_its_baseline(recorded, baseline):
    found = next(i for i in recorded("sentinel-2-l2a") if "B04" in i["assets"])
    found["properties"]["s2:processing_baseline"] = baseline
    assert declared_offset(found) == ((-0.1 if baseline >= "04.00" else 0.0), "baseline")


def dark(**known):
    """First percentiles that say nothing, but for those given."""
    return dict.fromkeys(BANDS, 1500.0) | known


VISIBLE = {"blue": 1150.0, "green": 1160.0, "red": 1130.0}


@pytest.mark.parametrize(
    ("declared", "percentiles", "offset", "basis"),
    [
        (-0.1, dark(swir16=233.0), 0.0, "pixels"),
        (-0.1, dark(nir=899.9), 0.0, "pixels"),
        (-0.1, dark(nir=900.0), -0.1, "raster:bands"),
        (0.0, dark(nir=900.0), 0.0, "raster:bands"),
        (0.0, dark(**VISIBLE), -0.1, "pixels"),
        (-0.1, dark(**VISIBLE), -0.1, "raster:bands"),
        (0.0, dark(blue=1000.0, green=1000.0, red=1300.0), -0.1, "pixels"),
        (0.0, dark(blue=999.9, green=1000.0, red=1300.0), 0.0, "raster:bands"),
        (0.0, dark(blue=1000.0, green=1000.0, red=1300.1), 0.0, "raster:bands"),
        (-0.1, dark(), -0.1, "raster:bands"),
        (0.0, dark(), 0.0, "raster:bands"),
        (0.0, {"green": 1150.0, "red": 1150.0}, 0.0, "raster:bands"),
        (-0.1, {"green": 1150.0, "red": 1150.0}, -0.1, "raster:bands"),
        (-0.1, {"green": 300.0}, 0.0, "pixels"),
        (-0.1, {}, -0.1, "raster:bands"),
        (0.0, dark(swir16=500.0, **VISIBLE), 0.0, "raster:bands"),
        (-0.1, dark(swir16=500.0, **VISIBLE), 0.0, "pixels"),
    ],
)
def test_the_pixels_confirm_or_overrule(declared, percentiles, offset, basis):
    verdict = judge_offset(item(offset=declared), percentiles)
    assert (verdict.declared, verdict.offset, verdict.basis) == (declared, offset, basis)
    assert verdict.contradiction == (declared != offset)


@pytest.mark.parametrize(
    ("properties", "tile"),
    [
        ({"grid:code": "MGRS-31TCJ"}, "31TCJ"),
        ({"s2:mgrs_tile": "31TCJ"}, "31TCJ"),
        ({"grid:code": "MGRS-5CNL"}, "05CNL"),
        ({"s2:mgrs_tile": "05CNL"}, "05CNL"),
        (
            {"sentinel:utm_zone": 5, "sentinel:latitude_band": "C", "sentinel:grid_square": "NL"},
            "05CNL",
        ),
        ({"mgrs:utm_zone": 31, "mgrs:latitude_band": "T", "mgrs:grid_square": "CJ"}, "31TCJ"),
        ({"mgrs:utm_zone": 31}, "one"),
        ({}, "one"),
    ],
)
def test_every_archive_names_the_same_mgrs_tile(properties, tile):
    assert mgrs_tile({"id": "one", "properties": properties}) == tile
