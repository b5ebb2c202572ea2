"""A plain folder of GeoTIFFs is a catalog."""

import numpy as np
import pytest
import rasterio
from affine import Affine

from mapper.catalog.bands import find_band
from mapper.catalog.folder import folder_items
from mapper.catalog.source import open_catalog


@pytest.fixture
def picture(tmp_path):
    def write(name, count=3, *, tags=None, described=(), **profile):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if count >= 3:
            profile = {"photometric": "RGB"} | profile
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=8, width=8, dtype="uint8",
            crs="EPSG:32633", transform=Affine(1, 0, 500_000, 0, -1, 5_200_000), **profile,
        ) as target:  # fmt: skip
            target.write(np.ones((count, 8, 8), "uint8"))
            target.update_tags(**(tags or {}))
            for index, text in enumerate(described, start=1):
                target.set_band_description(index, text)
        return path

    return write


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("city_20220614.tif", "2022-06-14"),
        ("2022-06-14_city.tif", "2022-06-14"),
        ("m_3008501_ne_16_1_20110815.tif", "2011-08-15"),
        ("a20190230b_2021_12_31.TIF", "2021-12-31"),
        ("120220614_1999-01-02.tiff", "1999-01-02"),
    ],
)
def test_the_date_is_in_the_name(picture, tmp_path, name, day):
    picture(name)
    assert folder_items(tmp_path)[0]["properties"]["datetime"] == f"{day}T00:00:00Z"


def test_or_in_the_files_tag(picture, tmp_path):
    picture("city.tif", tags={"TIFFTAG_DATETIME": "2021:03:04 05:06:07"})
    properties = folder_items(tmp_path)[0]["properties"]
    assert properties["datetime"] == "2021-03-04T05:06:07Z"
    assert "mapper:undated" not in properties


@pytest.mark.parametrize("name", ["city.tif", "tile_18_123456.tif", "x20221399.tif"])
def test_or_nowhere(picture, tmp_path, name):
    picture(name)
    assert folder_items(tmp_path)[0]["properties"]["mapper:undated"] is True


@pytest.mark.parametrize(
    ("count", "profile", "described", "names"),
    [
        (3, {}, (), ["red", "green", "blue"]),
        (4, {"alpha": "YES"}, (), ["red", "green", "blue", "alpha"]),
        (4, {"alpha": "NO"}, (), ["red", "green", "blue", "nir"]),
        (1, {}, (), ["gray"]),
        (
            4,
            {"photometric": "MINISBLACK"},
            ("NIR", "Red", "Green", "Blue"),
            ["nir", "red", "green", "blue"],
        ),
    ],
)
def test_bands_are_named_by_colour_or_description(
    picture, tmp_path, count, profile, described, names
):
    picture("a.tif", count, described=described, **profile)
    item = folder_items(tmp_path)[0]
    assert [b["name"] for b in item["assets"]["image"]["bands"]] == names
    for index, name in enumerate(names, start=1):
        assert find_band(item, name).index == index
    if "nir" not in names:
        assert find_band(item, "nir") is None


def test_the_footprint_is_that_of_the_file(picture, tmp_path):
    path = picture("a.tif")
    item = folder_items(tmp_path)[0]
    with rasterio.open(path) as source:
        bounds = rasterio.warp.transform_bounds(source.crs, "EPSG:4326", *source.bounds)
    assert item["bbox"] == pytest.approx(bounds)
    assert item["properties"]["proj:code"] == "EPSG:32633"


def test_folders_within_are_read_and_other_files_are_not(picture, tmp_path):
    picture("b/c/20200101.tif")
    picture("a.tiff")
    (tmp_path / "note.txt").write_text("20200101.tif")
    found = folder_items(tmp_path)
    assert [i["id"] for i in found] == ["a", "b_c_20200101"]
    assert all(i["assets"]["image"]["href"].startswith(str(tmp_path.resolve())) for i in found)


def test_no_two_files_share_an_id(picture, tmp_path):
    for name in ("a-b.tif", "a_b.tif", "a/b.tif", "a b.tif", "a_b.tiff"):
        picture(name)
    found = folder_items(tmp_path)
    assert len({i["id"] for i in found}) == len(found) == 5


def test_a_folder_opens_as_a_catalog_of_any_collection(picture, tmp_path):
    picture("a_20220614.tif")
    lon, lat = 15.0, 46.95
    found = list(
        open_catalog(str(tmp_path)).search("any", [(lon - 1, lat - 1, lon + 1, lat + 1)], None)
    )
    assert [i["id"] for i in found] == ["a_20220614"]
    assert not list(open_catalog(str(tmp_path)).search("any", [(0, 0, 1, 1)], None))
