"""A city's group: what xarray and rioxarray see of it, and that it costs no pixel."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray
import zarr
from pyproj import CRS

from mapper.errors import StoreError
from mapper.store.view import extent_of, write_view
from tests.store.conftest import GRID, HEIGHT, KEYS, MISSING, REFLECTANCE, STATUS, TEMPLATES

old_affine_product = pytest.mark.filterwarnings(
    "ignore:Use `@` matmul instead of:PendingDeprecationWarning"
)


@pytest.fixture(scope="module")
def city(stored, tmp_path_factory):
    path = tmp_path_factory.mktemp("city", numbered=True) / "cube.zarr"
    write_view(path, GRID, {t: stored.files(t) for t in TEMPLATES}, {"title": "A city"})
    return path


@pytest.fixture(params=[True, False], ids=["consolidated", "plain"])
def raw(city, request):
    """The group as it is stored."""
    with xarray.open_zarr(city, consolidated=request.param, mask_and_scale=False) as dataset:
        yield dataset


@pytest.fixture(params=[None, True, False], ids=["default", "consolidated", "plain"])
def decoded(city, request):
    """The group as people open it."""
    with xarray.open_zarr(city, consolidated=request.param) as dataset:
        yield dataset


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.name)
def test_the_group_holds_the_mosaic(raw, stored, template):
    assert raw[template.name].dtype == template.dtype
    assert raw[template.name].dims == template.dimensions
    np.testing.assert_array_equal(raw[template.name].values, stored.mosaic(template))


def test_reflectance_is_decoded_with_nan_where_there_is_none(decoded, stored):
    numbers = stored.mosaic(REFLECTANCE)
    expected = np.where(numbers == 0, np.nan, numbers * 1e-4)
    assert np.isnan(expected).any()
    np.testing.assert_allclose(decoded["s2"].values, expected, rtol=1e-5)


def test_a_missing_tile_is_fill(decoded, stored):
    place = MISSING.box.slices_in(stored.extent)
    assert np.isnan(decoded["s2"].values[(..., *place)]).all()
    assert np.isnan(decoded["height"].values[place]).all()
    assert (decoded["status"].values[place] == STATUS.fill).all()


def test_bands_have_names(decoded):
    assert decoded["s2_band"].values.tolist() == ["red", "green", "swir16"]
    assert decoded["s2"].sel(s2_band="swir16").shape == (1024, 1024)


def test_coordinates_are_pixel_centres(decoded, stored):
    left, bottom, right, top = GRID.bounds_of(stored.extent)
    x, y = decoded["x"].values, decoded["y"].values
    assert (x[0], x[-1]) == (left + 5, right - 5)
    assert (y[0], y[-1]) == (top - 5, bottom + 5)
    np.testing.assert_array_equal(np.diff(x), 10)
    np.testing.assert_array_equal(np.diff(y), -10)
    assert decoded["x"].attrs["standard_name"] == "projection_x_coordinate"


def test_a_pixel_is_found_by_its_coordinates(raw, stored):
    corner = KEYS[1].box
    left, _, _, top = GRID.bounds_of(corner)
    found = raw["status"].sel(x=left + 25, y=top - 35)
    row, col = corner.row0 + 3 - stored.extent.row0, corner.col0 + 2 - stored.extent.col0
    assert found == stored.mosaic(STATUS)[row, col]


@old_affine_product
def test_rioxarray_reads_crs_and_transform(city, stored):
    with xarray.open_zarr(city, decode_coords="all") as dataset:
        for template in TEMPLATES:
            variable = dataset[template.name]
            assert variable.rio.crs.to_epsg() == 32633
            assert variable.rio.transform() == GRID.transform_of(stored.extent)
            assert variable.rio.bounds() == GRID.bounds_of(stored.extent)


def test_the_grid_mapping_is_complete(raw, stored):
    mapping = raw["spatial_ref"].attrs
    assert CRS.from_wkt(mapping["crs_wkt"]) == CRS.from_epsg(32633)
    left, _, _, top = GRID.bounds_of(stored.extent)
    assert [float(v) for v in mapping["GeoTransform"].split()] == [left, 10, 0, top, 0, -10]
    for template in TEMPLATES:
        assert raw[template.name].attrs["grid_mapping"] == "spatial_ref"


def test_the_group_says_where_it_lies(raw, stored):
    assert raw.attrs["title"] == "A city"
    assert raw.attrs["proj:code"] == "EPSG:32633"
    assert raw.attrs["spatial:bbox"] == list(GRID.bounds_of(stored.extent))
    assert raw.attrs["spatial:shape"] == [1024, 1024]
    assert raw.attrs["spatial:transform"] == list(GRID.transform_of(stored.extent))[:6]
    uuids = {c["uuid"] for c in raw.attrs["zarr_conventions"]}
    assert "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4" in uuids
    assert "f17cb550-5864-4468-aeb7-f3180cfb622f" in uuids


def test_shards_are_linked_and_not_copied(city, stored):
    for template in TEMPLATES:
        inodes = {os.stat(p).st_ino for p in stored.files(template).values()}
        linked = [p for p in (city / template.name / "c").rglob("*") if p.is_file()]
        assert {os.stat(p).st_ino for p in linked} == inodes
        assert len(linked) == len(KEYS)


def test_arrays_are_sharded_by_tile(city):
    for template in TEMPLATES:
        content = json.loads((city / template.name / "zarr.json").read_text())
        assert [c["name"] for c in content["codecs"]] == ["sharding_indexed"]
        shards = content["chunk_grid"]["configuration"]["chunk_shape"]
        assert shards == list(template.shape(512, 512))


def test_a_copy_takes_the_place_of_a_link(stored, tmp_path, monkeypatch):
    link = os.link

    def refuse(source, *rest, **more):
        if stored.root in Path(source).parents:
            raise OSError("no links here")
        return link(source, *rest, **more)

    monkeypatch.setattr(os, "link", refuse)
    write_view(tmp_path / "cube.zarr", GRID, {STATUS: stored.files(STATUS)}, {})
    array = zarr.open_array(tmp_path / "cube.zarr" / "status", mode="r")
    np.testing.assert_array_equal(array[...], stored.mosaic(STATUS))


def test_a_view_is_replaced_as_a_whole(stored, tmp_path):
    path = tmp_path / "cube.zarr"
    write_view(path, GRID, {t: stored.files(t) for t in TEMPLATES}, {})
    one = {KEYS[1]: stored.files(HEIGHT)[KEYS[1]]}
    write_view(path, GRID, {HEIGHT: one}, {})
    assert not (path / "s2").exists()
    with xarray.open_zarr(path) as dataset:
        assert set(dataset.data_vars) - {"spatial_ref"} == {"height"}
        assert dataset["height"].shape == (512, 512)
        assert dataset["x"].values[0] == GRID.bounds_of(KEYS[1].box)[0] + 5
    assert [p.name for p in tmp_path.iterdir()] == ["cube.zarr"]
    assert all(p.exists() for t in TEMPLATES for p in stored.files(t).values())


def test_a_view_that_cannot_be_made_leaves_the_old_one(stored, tmp_path):
    path = tmp_path / "cube.zarr"
    write_view(path, GRID, {STATUS: stored.files(STATUS)}, {})
    with pytest.raises(StoreError, match="could not be written"):
        write_view(path, GRID, {STATUS: {KEYS[0]: tmp_path / "no such shard"}}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["cube.zarr"]
    array = zarr.open_array(path / "status", mode="r")
    np.testing.assert_array_equal(array[...], stored.mosaic(STATUS))


def test_the_extent_holds_all_tiles_and_no_more():
    extent = extent_of(KEYS)
    assert extent.shape == (1024, 1024)
    assert (extent.row0, extent.col0) == (KEYS[0].box.row0, KEYS[0].box.col0)
    assert extent_of(KEYS[:1]) == KEYS[0].box
