"""A common name finds its band in every archive's items."""

import json
import os
from fnmatch import fnmatch
from pathlib import Path

import pytest
import rasterio

from mapper.catalog.bands import find_band

OPTICAL = ("blue", "green", "red", "nir", "swir16", "scl")


@pytest.mark.archive
def test_earth_search_and_planetary_computer_sentinel_2(recorded):
    numbers = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11"}
    complete = 0
    for item in recorded("sentinel-2-l2a"):
        if "B04_10m" in item["assets"]:
            continue
        for name in OPTICAL:
            band = find_band(item, name)
            if band is None:
                assert name not in item["assets"]
                assert numbers.get(name, "SCL") not in item["assets"]
                continue
            assert band.index == 1
            assert numbers.get(name, "SCL") in band.href
            assert "?" not in band.href
        complete += all(find_band(item, name) for name in OPTICAL)
    assert complete > 50


@pytest.mark.archive
@pytest.mark.parametrize("name", OPTICAL)
def test_collection_1_bands_have_scale_and_offset(recorded, name):
    for item in recorded("sentinel-2-c1-l2a"):
        band = find_band(item, name)
        assert band.index == 1
        if name != "scl":
            assert (band.scale, band.offset, band.nodata) == (0.0001, -0.1, 0)
        assert "preview" not in band.href


@pytest.mark.archive
def test_naip_bands_are_numbered_in_their_one_file(recorded):
    for item in recorded("naip"):
        found = [find_band(item, name) for name in ("red", "green", "blue", "nir")]
        assert [band.index for band in found] == [1, 2, 3, 4]
        assert {band.href for band in found} == {item["assets"]["image"]["href"]}


@pytest.mark.archive
@pytest.mark.parametrize("collection", ["nasadem", "cop-dem-glo-30"])
def test_elevation_is_found_under_any_name(recorded, collection):
    for item in recorded(collection):
        key = "elevation" if collection == "nasadem" else "data"
        band = find_band(item, "elevation")
        assert band.href == item["assets"][key]["href"].partition("?")[0]
        assert band.index == 1
        assert find_band(item, "red") is None


@pytest.mark.archive
def test_radar_bands(recorded):
    for item in recorded("sentinel-1-rtc"):
        for name in ("vv", "vh"):
            band = find_band(item, name)
            assert band.href.endswith(f"iw-{name}.rtc.tiff")
            assert band.nodata == -32768


RECORDED = Path(os.environ.get("MAPPER_TEST_ARCHIVE", "/nowhere")) / "stac"
FILES = sorted(str(path.relative_to(RECORDED)) for path in RECORDED.glob("*/*.json"))
NAMES = ("red", "green", "blue", "nir", "swir16", "scl", "clp", "vv", "vh", "elevation", "classes")
NUMBERS = {"red": "B04", "green": "B03", "blue": "B02", "nir": "B08", "swir16": "B11"}


def optical(template, *, without=(), scl="SCL.tif", **more):
    """File names of the reflectance bands and, unless it is empty, of the mask."""
    sizes = {name: "20m" if name == "swir16" else "10m" for name in NUMBERS}
    found = {n: template.format(b=NUMBERS[n], m=sizes[n]) for n in NUMBERS if n not in without}
    return found | ({"scl": scl} if scl else {}) | more


def same(bands, file):
    """One file for all bands."""
    return dict.fromkeys(bands.split(), file)


COG, JP2 = "/{b}.tif", "/{b}.jp2"
UNDECLARED, PLAIN = (None, None, None), (None, None, 0)
OFFSET, NO_OFFSET = (0.0001, -0.1, 0), (0.0001, 0, 0)
FOUND = [
    # files, scheme, end of each band's address, (scale, offset, nodata) of the first, of the mask
    ("cop-dem-glo-*/*_N53_*", "", {"elevation": "_DEM.tif"}, UNDECLARED, None),
    ("cop-dem-glo-30/*", "s3", {"elevation": "_DEM.tif"}, UNDECLARED, None),
    ("cop-dem-glo-90/*", "https", {"elevation": "_DEM.tif"}, UNDECLARED, None),
    ("nasadem/*", "https", {"elevation": "NASADEM_HGT_s56w072.tif"}, UNDECLARED, None),
    ("esa-worldcover/*", "https", {"classes": "_Map.tif"}, PLAIN, None),
    ("io-lulc*/*", "https", {"classes": "0101.tif"}, PLAIN, None),
    ("naip/*", "https", same("red green blue nir", ".tif"), UNDECLARED, None),
    ("sentinel-1-grd/*SDV*", "https", {"vv": "iw-vv.tiff", "vh": "iw-vh.tiff"}, UNDECLARED, None),
    ("sentinel-1-grd/*", "", {}, None, None),
    ("sentinel1-grd/*SDV*", "", {"vv": "-001.tiff", "vh": "-002.tiff"}, UNDECLARED, None),
    ("sentinel1-grd/*", "", {}, None, None),
    ("sentinel1-slc/*", "", {}, None, None),
    (
        "sentinel-1-rtc/*",
        "https",
        {"vv": "iw-vv.rtc.tiff", "vh": "iw-vh.rtc.tiff"},
        (None, None, -32768),
        None,
    ),
    ("sentinel1-rtc-aws/*", "https", {"vv": "Gamma0_VV.tif", "vh": "Gamma0_VH.tif"}, PLAIN, None),
    ("sentinel-2-c1-l2a/*", "https", optical(COG, clp="/CLD_20m.tif"), OFFSET, 0),
    (
        "sentinel-2-global-mosaics/*",
        "s3",
        optical(COG, without=["swir16"], scl=""),
        (None, None, -32768),
        None,
    ),
    ("sentinel-2-l1c/*", "s3", optical(JP2, scl=""), OFFSET, None),
    ("sentinel2-l1c-example/*", "", optical("_{b}.jp2", scl=""), NO_OFFSET, None),
    ("sentinel2-l2a-example/*", "", optical("_{b}_{m}.tif", scl="_SCL_20m.tif"), NO_OFFSET, 0),
    ("sentinel-2-l2a/*_14TPL_*", "https", optical(COG, without=["nir", "swir16"]), OFFSET, 0),
    (
        "sentinel-2-l2a/*_31TCJ_*",
        "https",
        optical(COG, without=["nir", "swir16"], scl=""),
        OFFSET,
        None,
    ),
    ("sentinel-2-l2a/S2A_2[89]*", "https", optical(COG), NO_OFFSET, 0),
    ("sentinel-2-l2a/*_52HGH_*", "s3", optical(JP2, scl="R20m/SCL.jp2"), OFFSET, 0),
    ("sentinel-2-l2a/*_5CNL_*", "s3", optical(JP2, scl="R20m/SCL.jp2"), OFFSET, 0),
    ("sentinel-2-l2a/S2B_24M*", "https", optical(COG, clp="/CLD_20m.jp2"), OFFSET, 0),
    ("sentinel-2-l2a/*_0_L2A.json", "https", optical(COG), OFFSET, 0),
    ("sentinel-2-l2a/*_N0500_*", "s3", optical("_{b}_{m}.jp2", scl="_SCL_20m.jp2"), OFFSET, 0),
    (
        "sentinel-2-l2a/*_MSIL2A_*",
        "https",
        optical("_{b}_{m}.tif", scl="_SCL_20m.tif"),
        UNDECLARED,
        None,
    ),
    ("sentinel-s2-l2a-cogs/*_34SGA_*", "", {}, None, None),
    (
        "sentinel-s2-l2a-cogs/*_33SVB_*",
        "https",
        optical(COG, without=["nir", "swir16"]),
        PLAIN,
        None,
    ),
    ("sentinel-s2-l2a-cogs/*", "https", optical(COG), UNDECLARED, None),
    (
        "sentinel-s2-l2a/*_T26SKD_*",
        "s3",
        optical("{m}/{b}.jp2", scl="R20m/SCL.jp2", clp="qi/CLD_20m.jp2"),
        UNDECLARED,
        None,
    ),
    ("sentinel-s2-l2a/*_33SVB_*", "", optical("{b}.tif"), UNDECLARED, None),
]


def expected_of(file):
    return next(row[1:] for row in FOUND if fnmatch(file, row[0]))


@pytest.mark.archive
@pytest.mark.parametrize("file", FILES)
def test_every_recorded_item_gives_the_bands_that_it_has_and_no_other(file):
    item = json.loads((RECORDED / file).read_text())
    scheme, ends, declared, of_mask = expected_of(file)
    found = {name: find_band(item, name) for name in NAMES}
    assert {name for name, band in found.items() if band} == set(ends)
    for name, end in ends.items():
        band = found[name]
        assert band.href.endswith(end)
        if name != "clp":
            assert band.href.partition("://")[0] == scheme or not scheme
        # relative addresses are made absolute where items are read
        assert ("://" in band.href) == bool(scheme)
        assert "?" not in band.href
        if name not in {"scl", "clp"}:
            assert (band.scale, band.offset, band.nodata) == declared
    if "scl" in ends:
        mask = found["scl"]
        assert (mask.scale, mask.offset, mask.nodata) == (None, None, of_mask)
    if "clp" in ends:
        assert (found["clp"].scale, found["clp"].offset) == (1, None)


@pytest.mark.archive
def test_the_table_of_recorded_items_has_no_row_to_spare(archive):
    rows = {next(row[0] for row in FOUND if fnmatch(file, row[0])) for file in FILES}
    assert rows == {row[0] for row in FOUND}


@pytest.mark.archive
def test_both_cloud_probabilities_of_the_cloudy_scene_come_in_per_cent(archive):
    folder = archive / "sentinel-2-l2a" / "S2_12VVH_20190522_alberta"
    item = json.loads((folder / "S2_12VVH_20190522_alberta.json").read_text())
    highest = {}
    for key in ("clp", "cld"):
        assets = {k: a for k, a in item["assets"].items() if k not in {"clp", "cld"} - {key}}
        band = find_band({**item, "assets": assets}, "clp")
        with rasterio.open(folder / band.href) as dataset:
            highest[key] = dataset.read(1).max() * band.scale
    assert highest == pytest.approx({"clp": 100, "cld": 100})
    assert find_band(item, "clp").href.endswith("clp.tif")


@pytest.mark.parametrize("order", [1, -1])
def test_the_finest_of_several_resolutions_is_taken(order):
    keys = ["B04_60m", "B04_10m", "B04_20m", "B04", "red_20m", "B8A_20m"][::order]
    item = item_of(**{key: {"href": f"/{key}.jp2", "type": "image/jp2"} for key in keys})
    assert find_band(item, "red").href == "/red_20m.jp2", "a common name goes first"
    for expected in ("red_20m", "B04", "B04_10m", "B04_20m", "B04_60m"):
        assert find_band(item, "red").href == f"/{expected}.jp2"
        del item["assets"][expected]
    assert find_band(item, "red") is None
    assert find_band(item, "nir08").href == "/B8A_20m.jp2"


@pytest.mark.parametrize("key", ["MSK_CLDPRB", "MSK_CLDPRB_20m", "cloud", "CLD_20m", "cld"])
def test_cloud_probability_has_many_names(key):
    band = find_band(item_of(**{key: {"href": "/c.tif"}, "red": {"href": "/r.tif"}}), "clp")
    assert (band.href, band.scale) == ("/c.tif", 1)


@pytest.mark.parametrize(
    "told",
    [
        {"file:values": [{"values": [1], "summary": "Water"}]},
        {"classification:classes": [{"value": 1, "name": "water"}]},
        {"bands": [{"classification:classes": [{"value": 1, "name": "water"}]}]},
        {"raster:bands": [{"classification:classes": [{"value": 1, "name": "water"}]}]},
    ],
)
def test_class_values_are_never_taken_for_heights_nor_heights_for_classes(told):
    heights, classes = {"href": "/d.tif"}, {"href": "/d.tif"} | told
    assert find_band(item_of(data=heights), "elevation").href == "/d.tif"
    assert find_band(item_of(data=heights), "classes") is None
    assert find_band(item_of(data=classes), "classes").href == "/d.tif"
    assert find_band(item_of(data=classes), "elevation") is None
    assert find_band(item_of(map=heights), "classes").href == "/d.tif"


def test_what_the_asset_says_of_all_its_bands_holds_where_the_band_says_nothing():
    asset = {"href": "/a.jp2", "raster:scale": 0.0001, "raster:offset": -0.1, "nodata": 0}
    band = find_band(item_of(B04_10m=asset | {"bands": [{"name": "B04"}]}), "red")
    assert (band.scale, band.offset, band.nodata) == (0.0001, -0.1, 0)
    own = asset | {"bands": [{"name": "B04", "raster:offset": -0.2, "nodata": 7}]}
    band = find_band(item_of(B04_10m=own), "red")
    assert (band.scale, band.offset, band.nodata) == (0.0001, -0.2, 7)


def item_of(**assets):
    return {"id": "one", "properties": {}, "assets": assets}


def test_the_key_goes_before_the_number_and_the_number_before_a_mosaic():
    item = item_of(
        a={"href": "/a.tif", "bands": [{"name": "red"}]},
        B04={"href": "/b.tif"},
        red={"href": "/c.tif"},
    )
    for expected in ("/c.tif", "/b.tif", "/a.tif"):
        assert find_band(item, "red").href == expected
        del item["assets"][{"/c.tif": "red", "/b.tif": "B04", "/a.tif": "a"}[expected]]
    assert find_band(item, "red") is None


@pytest.mark.parametrize("spelling", ["bands", "eo:bands"])
def test_bands_of_old_and_new_items_are_found_by_common_name(spelling):
    common = "eo:common_name" if spelling == "bands" else "common_name"
    listed = [{"name": "B1", common: "red"}, {"name": "B2", common: "nir"}]
    band = find_band(item_of(image={"href": "/i.tif", spelling: listed}), "nir")
    assert band.index == 2


def test_thumbnails_and_previews_are_never_read():
    rgb = [{"name": "red"}, {"name": "green"}, {"name": "blue"}]
    item = item_of(
        thumbnail={"href": "/t.jpg", "eo:bands": rgb, "roles": ["thumbnail"]},
        visual={"href": "/v.tif", "eo:bands": rgb, "roles": ["visual"]},
        rendered_preview={"href": "/p.png", "eo:bands": rgb, "roles": ["overview"]},
        L2A_PVI={"href": "/v.tif", "eo:bands": rgb, "roles": ["overview"]},
        preview={"href": "/q.tif", "eo:bands": rgb},
    )
    assert find_band(item, "red") is None


def test_what_the_band_says_of_itself_is_kept():
    told = {"nodata": 7, "raster:scale": 0.5, "raster:offset": -3}
    image = {"href": "/i.tif", "bands": [{"name": "red"}, {"name": "nir", **told}], "nodata": 1}
    item = item_of(image=image | {"file:checksum": "1220aa"})
    band = find_band(item, "nir")
    assert (band.nodata, band.scale, band.offset, band.checksum) == (7, 0.5, -3, "1220aa")
    assert find_band(item, "red").nodata == 1


def test_a_signed_address_is_found_unsigned():
    item = item_of(red={"href": "https://host/r.tif?sig=hidden&se=2030"})
    assert find_band(item, "red").href == "https://host/r.tif"
    assert "hidden" not in json.dumps(str(find_band(item, "red")))
