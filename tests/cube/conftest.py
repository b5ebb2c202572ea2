"""Rasters, simulated and real archives for the tests of `mapper.cube`."""

import itertools
import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from scipy.ndimage import map_coordinates

from mapper.catalog.bands import BandAsset
from mapper.simulate import TEST_CITIES, WorldOptions, write_archive

OPTIONS = WorldOptions(margin_m=600, bands=("blue", "green", "red", "nir", "swir16"))


@pytest.fixture(scope="session")
def real_item(archive):
    """A real item by collection and id, with absolute addresses."""

    def load(collection, name):
        path = archive / collection / name / f"{name}.json"
        item = json.loads(path.read_text())
        for asset in item["assets"].values():
            asset["href"] = str((path.parent / asset["href"]).resolve())
        return item

    return load


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """Folder of a small simulated archive."""
    return write_archive(tmp_path_factory.mktemp("world"), TEST_CITIES, OPTIONS).parent


@pytest.fixture(scope="session")
def items(simulated):
    """Simulated items of a collection and a city."""
    features = json.loads((simulated / "items.json").read_text())["features"]

    def select(collection, city="", *parts):
        found = [i for i in features if i["collection"] == collection and i["id"].endswith(city)]
        found = [i for i in found if all(part in i["id"] for part in parts)]
        assert found, (collection, city, parts)
        return found

    return select


@pytest.fixture(scope="session")
def dn_offsets(simulated):
    """What is really in the digital numbers, by item."""
    truth = json.loads((simulated / "truth.json").read_text())
    return {name: value["dn_offset"] for name, value in truth.items()}


@pytest.fixture
def asset():
    """A band of a file."""

    def make(href, index=1, nodata=None):
        return BandAsset(href=str(href), index=index, nodata=nodata, scale=None, offset=None)

    return make


@pytest.fixture
def raster(tmp_path, asset):
    """Write an array as a GeoTIFF; gives its band."""
    numbers = itertools.count()

    def write(values, transform, crs, *, mask=None, declared=None, **profile):
        values = np.atleast_3d(values.T).T if values.ndim == 2 else values
        path = tmp_path / f"raster{next(numbers)}.tif"
        profile = {"blockxsize": 128, "blockysize": 128, "tiled": True} | profile
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(
                path,
                "w",
                driver="GTiff",
                count=values.shape[0],
                height=values.shape[1],
                width=values.shape[2],
                dtype=values.dtype,
                crs=crs,
                transform=transform,
                **profile,
            ) as target,
        ):
            target.write(values)
            if mask is not None:
                target.write_mask(mask)
        return asset(path, nodata=declared)

    return write


@pytest.fixture
def unique():
    """An array in which no two pixels are alike and neighbours have nothing in common."""

    def make(height, width, dtype="int32"):
        order = np.random.default_rng(height * 7919 + width).permutation(height * width)
        return (order + 1).reshape(height, width).astype(dtype)

    return make


@pytest.fixture(scope="session")
def places():
    """Fractional source rows and columns of the lattice pixel centres, by pyproj alone."""

    def compute(transform, crs, grid, pixels):
        rows = np.arange(pixels.row0, pixels.row1) + 0.5
        cols = np.arange(pixels.col0, pixels.col1) + 0.5
        x, y = np.meshgrid(cols * grid.resolution, -rows * grid.resolution)
        if crs != grid.crs:
            x, y = Transformer.from_crs(grid.crs, crs, always_xy=True).transform(x, y)
        back = ~Affine(*transform[:6])
        return (
            back.d * x + back.e * y + back.f - 0.5,
            back.a * x + back.b * y + back.c - 0.5,
        )

    return compute


@pytest.fixture(scope="session")
def interpolate():
    """Bilinear over the valid neighbours, or nearest, by scipy; gives values and validity."""

    def compute(values, valid, places, order):
        def at(array, power):
            return map_coordinates(array, places, order=power, mode="grid-constant", cval=0)

        inside = at(valid.astype(float), 0) > 0
        if order == 0:
            return at(values.astype(float), 0), inside
        weight = at(valid.astype(float), 1)
        total = at(np.where(valid, values, 0).astype(float), 1)
        inside &= weight > 1e-9
        return total / np.where(inside, weight, 1), inside

    return compute
