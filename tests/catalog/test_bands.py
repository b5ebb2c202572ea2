"""A common name finds its band in every archive's items."""

import json

import pytest

from mapper.catalog.bands import find_band, need_band
from mapper.errors import CatalogError

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


def test_a_band_that_is_needed_and_absent_is_an_error():
    with pytest.raises(CatalogError, match="item one has no band 'nir'; its assets are red"):
        need_band(item_of(red={"href": "/r.tif"}), "nir")
