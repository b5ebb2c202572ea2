"""COGs: valid, exact, with overviews that never invent a class."""

import itertools
import os
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import rasterio
from rio_cogeo.cogeo import cog_info, cog_validate

from mapper.errors import StoreError
from mapper.product.cog import RasterSpec, write_cog
from tests.product.conftest import CLASSES

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use `@` matmul instead of:PendingDeprecationWarning"
)
SHAPES = [(1, 1), (37, 700), (512, 512), (513, 2), (1500, 1100), (2049, 600)]


@pytest.fixture
def write(place, tmp_path):
    """Writes an array as a COG; gives path and spec."""
    grid, box = place

    def write_array(values, name="map.tif", **changes):
        bands = values.shape[0] if values.ndim == 3 else 1
        pixels = box(*values.shape[-2:])
        options = {
            "dtype": str(values.dtype),
            "nodata": 255,
            "overviews": "AVERAGE",
            "descriptions": tuple(f"band {n}" for n in range(bands)),
        }
        spec = RasterSpec(grid=grid, pixels=pixels, **(options | changes))
        write_cog(
            tmp_path / name, spec, lambda strip: values[(..., *strip.slices_in(pixels))].copy()
        )
        return tmp_path / name, spec

    return write_array


@pytest.fixture
def write_classes(write):
    def write_map(values, name="classes.tif"):
        return write(
            values.astype(np.uint8),
            name,
            overviews="MODE",
            descriptions=("class",),
            colormap=CLASSES.colormap(),
            category_names=("Water", "", "Green & gardens", "", "", "", "", "Built"),
        )

    return write_map


def random_classes(shape, seed=0):
    return np.random.default_rng(seed).choice(np.array([0, 2, 7, 255], np.uint8), shape)


def overview(path, level=0, band=1):
    with rasterio.open(path, OVERVIEW_LEVEL=level) as dataset:
        return dataset.read(band)


# exactness ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_maps_of_every_size_are_strictly_valid_and_exact(write_classes, shape):
    values = random_classes(shape)
    path, spec = write_classes(values)
    valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(1), values)
        assert dataset.crs.to_epsg() == spec.grid.epsg
        assert dataset.transform == spec.grid.transform_of(spec.pixels)
        assert tuple(dataset.bounds) == spec.grid.bounds_of(spec.pixels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_rasters_of_several_bands_are_exact(write, dtype):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 250, (3, 700, 530)).astype(dtype)
    path, _ = write(values, overviews="NEAREST", descriptions=("a", "b", "c"))
    assert cog_validate(path, strict=True, quiet=True)[0]
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), values)
        assert dataset.descriptions == ("a", "b", "c")
        assert set(dataset.dtypes) == {dtype}


def test_a_pixel_is_found_at_its_coordinates(write_classes):
    values = np.full((600, 700), 2, np.uint8)
    values[13, 457] = 7
    path, spec = write_classes(values)
    left, _, _, top = spec.grid.bounds_of(spec.pixels)
    with rasterio.open(path) as dataset:
        places = [(left + 4575, top - 135), (left + 4565, top - 135), (left + 4575, top - 145)]
        assert [v[0] for v in dataset.sample(places)] == [7, 2, 2]


def test_the_same_pixels_give_the_same_bytes(write_classes, tmp_path):
    values = random_classes((900, 700))
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    one, _ = write_classes(values, "one/classes.tif")
    two, _ = write_classes(values, "two/classes.tif")
    assert one.read_bytes() == two.read_bytes()
    beside = [p.with_name("classes.tif.aux.xml").read_bytes() for p in (one, two)]
    assert beside[0] == beside[1]


def test_strips_are_asked_for_in_order_and_cover_the_raster_once(place, tmp_path):
    grid, box = place
    pixels, asked = box(5000, 2100), []

    def read(strip):
        asked.append(strip)
        return np.zeros(strip.shape, np.uint8)

    spec = RasterSpec(
        grid=grid,
        pixels=pixels,
        dtype="uint8",
        nodata=255,
        overviews="MODE",
        descriptions=("class",),
    )
    write_cog(tmp_path / "a.tif", spec, read)
    assert asked[0].row0 == pixels.row0
    assert asked[-1].row1 == pixels.row1
    assert all(a.row1 == b.row0 for a, b in itertools.pairwise(asked))
    assert {(s.col0, s.col1) for s in asked} == {(pixels.col0, pixels.col1)}
    assert len(asked) > 1
    assert max(s.shape[0] * s.shape[1] for s in asked) <= 1 << 23


# what travels with the pixels --------------------------------------------------------------


def test_classes_carry_colours_names_and_nodata(write_classes):
    path, _ = write_classes(random_classes((600, 520)))
    with rasterio.open(path) as dataset:
        table = dataset.colormap(1)
        assert dataset.nodata == 255
        assert dataset.descriptions == ("class",)
        assert dataset.tags(1)["CLASS_2"] == "Green & gardens"
        assert dataset.colorinterp[0].name == "palette"
    for entry in CLASSES.classes:
        assert table[entry.value] == (*entry.rgb, 255)
    assert table[255] == (0, 0, 0, 0)


def test_category_names_lie_beside_the_file(write_classes):
    path, _ = write_classes(random_classes((30, 30)))
    tree = ElementTree.parse(path.with_name("classes.tif.aux.xml"))
    names = [node.text or "" for node in tree.iterfind("./PAMRasterBand/CategoryNames/Category")]
    assert names == ["Water", "", "Green & gardens", "", "", "", "", "Built"]


def test_gdal_translates_class_names_into_a_vrt(write_classes, tmp_path):
    import rasterio.shutil

    path, _ = write_classes(random_classes((30, 30)))
    rasterio.shutil.copy(path, tmp_path / "names.vrt", driver="VRT")
    tree = ElementTree.parse(tmp_path / "names.vrt")
    names = [node.text or "" for node in tree.iterfind("./VRTRasterBand/CategoryNames/Category")]
    assert names == ["Water", "", "Green & gardens", "", "", "", "", "Built"]


def test_scale_and_tags_are_written(write):
    values = np.arange(250, dtype=np.uint8).reshape(10, 25)
    path, _ = write(values, scale=1 / 250, descriptions=("confidence",), tags={"TITLE": "São"})
    with rasterio.open(path) as dataset:
        assert dataset.scales == (0.004,)
        assert dataset.offsets == (0.0,)
        assert dataset.tags()["TITLE"] == "São"
    assert not path.with_name("map.tif.aux.xml").exists()


def test_blocks_are_512_pixels_and_compressed(write):
    path, _ = write(np.zeros((1200, 1300), np.uint8))
    with rasterio.open(path) as dataset:
        assert set(dataset.block_shapes) == {(512, 512)}
        assert dataset.compression.name == "deflate"
    assert path.stat().st_size < 100_000


# overviews ---------------------------------------------------------------------------------


def test_large_rasters_have_overviews_down_to_one_block(write_classes):
    path, _ = write_classes(random_classes((600, 2300)))
    levels = [o.Decimation for o in cog_info(path).IFD]
    assert levels == [0, 2, 4, 8]


def test_overviews_of_classes_hold_classes_alone(write_classes):
    values = np.random.default_rng(3).choice(np.array([0, 7], np.uint8), (1100, 1100))
    path, _ = write_classes(values)
    for level in (0, 1):
        assert set(np.unique(overview(path, level))) == {0, 7}


def test_overviews_of_classes_are_the_most_frequent_class(write_classes):
    rng = np.random.default_rng(4)
    most = rng.choice(np.array([0, 2, 7], np.uint8), (300, 300))
    values = np.repeat(np.repeat(most, 2, 0), 2, 1)
    odd = values.reshape(300, 2, 300, 2).swapaxes(1, 2).reshape(300, 300, 4)
    place = rng.integers(0, 4, (300, 300, 1))
    np.put_along_axis(odd, place, rng.choice(np.array([0, 2, 7], np.uint8), place.shape), 2)
    values = odd.reshape(300, 300, 2, 2).swapaxes(1, 2).reshape(600, 600)
    path, _ = write_classes(values)
    assert (values[::2, ::2] != most).any()
    np.testing.assert_array_equal(overview(path), most)


def test_overviews_of_confidence_are_averages(write):
    rng = np.random.default_rng(5)
    values = rng.integers(0, 251, (600, 600)).astype(np.uint8)
    path, _ = write(values)
    mean = values.reshape(300, 2, 300, 2).mean(axis=(1, 3))
    assert np.abs(overview(path) - mean).max() <= 0.5


def test_overviews_of_confidence_leave_nodata_out(write):
    values = np.full((600, 600), 100, np.uint8)
    values[::2, ::2] = 255
    values[:100, :100] = 255
    path, _ = write(values)
    expected = np.full((300, 300), 100, np.uint8)
    expected[:50, :50] = 255
    np.testing.assert_array_equal(overview(path), expected)


def test_overviews_of_counts_are_values_that_occur(write):
    values = np.random.default_rng(6).choice(np.array([3, 900], np.uint16), (600, 600))
    path, _ = write(values, nodata=65535, overviews="NEAREST")
    assert set(np.unique(overview(path))) == {3, 900}


# failures ----------------------------------------------------------------------------------


def test_an_error_while_reading_leaves_nothing(write, tmp_path):
    path, spec = write(np.zeros((20, 20), np.uint8))
    before = path.read_bytes()

    def read(strip):
        raise KeyError("a shard")

    with pytest.raises(KeyError, match="a shard"):
        write_cog(path, spec, read)
    assert os.listdir(tmp_path) == ["map.tif"]
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_a_store_error(write, tmp_path):
    with pytest.raises(StoreError, match="could not be written"):
        write(np.zeros((20, 20), np.uint8), "missing/map.tif")


def test_a_disk_that_fills_up_at_any_moment_is_a_store_error(tmp_path):
    body = """
    import os, resource, sys
    from pathlib import Path
    import numpy as np
    import rasterio
    from mapper.area.grid import Grid, PixelBox
    from mapper.errors import StoreError
    from mapper.product.cog import RasterSpec, write_cog

    spec = RasterSpec(
        grid=Grid(epsg=32632, resolution=10, tile=512),
        pixels=PixelBox(row0=0, col0=0, row1=1100, col1=1100),
        dtype="uint8", nodata=255, overviews="AVERAGE", descriptions=("noise",),
    )
    noise = np.random.default_rng(0).integers(0, 250, spec.pixels.shape, dtype=np.uint8)
    path = Path(sys.argv[1]) / "a.tif"

    def limit(size):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def outcome(size):
        limit(size)
        try:
            write_cog(path, spec, lambda strip: noise[strip.row0:strip.row1])
        except StoreError:
            return "refused"
        except BaseException as reason:
            return f"{type(reason).__name__}: {reason}"
        finally:
            limit(resource.RLIM_INFINITY)
        return "written"

    def intact():
        try:
            with rasterio.open(path) as dataset:
                return (dataset.read(1) == noise).all()
        except rasterio.errors.RasterioError:
            return False

    assert outcome(resource.RLIM_INFINITY) == "written" and intact()
    whole = path.stat().st_size
    path.unlink()
    for share in (0.01, 0.3, 0.6, 0.7, 0.76, 0.78, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.999):
        said = outcome(int(whole * share))
        if said != "refused" or os.listdir(path.parent):
            state = "intact" if path.exists() and intact() else "broken"
            print(f"at {share:.1%}: {said}; left {os.listdir(path.parent)}, {state}")
        path.unlink(missing_ok=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
