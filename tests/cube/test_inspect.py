"""One look at a scene finds what its pixels say, real and simulated."""

import copy

import numpy as np
import pytest
import rasterio
from affine import Affine

from mapper.cube.inspect import bands_to_read, first_percentiles, inspect_item
from mapper.errors import ReadError
from mapper.recipe import Bands, ElevationSource, Sentinel1Source, Sentinel2Source

SOURCE = Sentinel2Source(kind="sentinel-2", bands=Bands(required=["red"], optional=["swir16"]))


@pytest.mark.archive
@pytest.mark.parametrize(
    ("name", "declared", "offset"),
    [
        ("S2_32TPS_20220612_bolzano", 0.0, 0.0),
        ("S2_44QQE_2024_paralakhemundi", -0.1, -0.1),
        ("S2_433D_629L_3_1", 0.0, -0.1),
        ("S2_609U_541L_3_0", 0.0, 0.0),
        ("S2_12VVH_20190522_alberta", 0.0, 0.0),
    ],
)
def test_the_verdict_on_a_real_scene(real_item, name, declared, offset):
    verdict = inspect_item(real_item("sentinel-2-l2a", name), SOURCE).verdict
    assert (verdict.declared, verdict.offset) == (declared, offset)
    assert verdict.contradiction == (declared != offset)


@pytest.mark.archive
def test_snow_is_not_taken_for_an_offset_even_where_the_item_promises_one(real_item):
    item = real_item("sentinel-2-l2a", "S2_609U_541L_3_0")
    item["properties"] |= {"earthsearch:boa_offset_applied": False}
    for asset in item["assets"].values():
        for band in asset.get("raster:bands", []):
            band["offset"] = -0.1
    found = inspect_item(item, SOURCE)
    assert found.percentiles["blue"] > 1300
    assert found.percentiles["swir16"] < 900
    assert (found.verdict.declared, found.verdict.offset) == (-0.1, 0.0)


def test_every_simulated_verdict_is_the_truth(items, dn_offsets):
    found = {i["id"]: inspect_item(i, SOURCE) for i in items("sentinel-2-l2a")}
    assert {n: round(-f.verdict.offset * 10_000) for n, f in found.items()} == dn_offsets
    contradicted = [n for n, f in found.items() if f.verdict.contradiction]
    assert contradicted, "some simulated items are wrong about their offset"
    assert set(dn_offsets.values()) == {0, 1000}


def test_percentiles_are_those_of_the_valid_pixels(raster):
    values = np.random.default_rng(8).integers(0, 9000, (250, 200)).astype("uint16")
    values[:100] = 0
    href = raster(values, Affine(10, 0, 0, 0, -10, 0), "EPSG:32727", nodata=0).href
    item = {"id": "one", "properties": {}, "assets": {"B04": {"href": href}}}
    assert first_percentiles(item) == {"red": np.percentile(values[values > 0], 1)}


def test_a_scene_without_any_pixel_leaves_it_to_the_metadata(raster, items):
    item = copy.deepcopy(items("sentinel-2-l2a", "probetown", "20220714")[0])
    empty = raster(
        np.zeros((60, 60), "uint16"), Affine(10, 0, 0, 0, -10, 0), "EPSG:32727", nodata=0
    )
    for asset in item["assets"].values():
        asset["href"] = empty.href
    found = inspect_item(item, SOURCE)
    assert found.percentiles == {}
    assert found.verdict.offset == found.verdict.declared


def test_a_recipe_reads_its_bands_and_the_mask_alone():
    assert bands_to_read(SOURCE) == ["red", "swir16", "scl"]
    assert bands_to_read(SOURCE.model_copy(update={"mask": None})) == ["red", "swir16"]
    assert bands_to_read(ElevationSource(kind="elevation")) == ["elevation"]
    assert bands_to_read(Sentinel1Source(kind="sentinel-1")) == ["vv", "vh"]


def test_contents_change_with_the_file(tmp_path, items):
    item = copy.deepcopy(items("sentinel-2-l2a", "probetown")[0])
    path = tmp_path / "B04.tif"
    with open(item["assets"]["red"]["href"], "rb") as source:
        path.write_bytes(source.read())
    item["assets"]["red"]["href"] = str(path)
    before = inspect_item(item, SOURCE)
    assert set(before.contents) == {"red", "swir16", "scl"}
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as target:
        target.update_tags(note="another content")
    after = inspect_item(item, SOURCE)
    assert before.contents["red"] != after.contents["red"]
    assert before.digest_fields != after.digest_fields


def test_a_checksum_in_the_item_is_its_content(items):
    item = copy.deepcopy(items("sentinel-2-l2a", "probetown")[0])
    item["assets"]["red"]["file:checksum"] = "1220abcd"
    assert inspect_item(item, SOURCE).contents["red"] == "1220abcd"


@pytest.mark.parametrize("budget", [0, 1])
def test_a_missing_asset_fails_or_is_noted(items, budget):
    item = copy.deepcopy(items("sentinel-2-l2a", "probetown")[0])
    item["assets"]["red"]["href"] = "/nowhere/B04.tif"
    source = SOURCE.model_copy(update={"failure_budget": budget})
    if not budget:
        with pytest.raises(ReadError, match=r"/nowhere/B04\.tif"):
            inspect_item(item, source)
    else:
        found = inspect_item(item, source)
        assert "/nowhere/B04.tif" in found.failure
        assert found.verdict is None
