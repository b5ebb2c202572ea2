"""Samples of a run: patches are pieces of its cubes, labels are what the rasters say there."""

import hashlib
import json
import math
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import shapely
import zarr
from jsonschema import Draft7Validator
from pystac.validation import JsonSchemaSTACValidator
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from mapper.area.aoi import read_areas
from mapper.area.grid import Grid
from mapper.classes import ClassTable
from mapper.errors import DataError, StoreError, UsageError
from mapper.recipe.load import data_directory
from mapper.recipe.training import Data
from mapper.run.run import RunOptions, run
from mapper.run.samples.cut import _known_as
from mapper.run.samples.labels import find_labels, fitting, label_reader
from mapper.run.samples.legend import read_legend
from mapper.run.samples.samples import SampleOptions, make_samples
from mapper.simulate import SimulatedCity, WorldOptions, write_archive
from mapper.simulate.spectra import TRUTH_CLASSES
from mapper.training.data import write
from mapper.training.data.layouts import open_data

CITIES = (
    SimulatedCity(
        name="Zweistadt", country="Nowhere", iso="XXA", lon=6.0004, lat=45.6412, size_m=800,
        seed=7,
    ),
    SimulatedCity(
        name="Plainville", country="Nowhere", iso="XXA", lon=-30.2, lat=-35.1, size_m=1000,
        seed=8, orbits=(),
    ),
)  # fmt: skip
SLUGS = ["plainville", "zweistadt"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two small cities, one of them on the border of two zones and with radar."""
    folder = tmp_path_factory.mktemp("samples-world")
    bands = ("green", "red", "nir")
    options = WorldOptions(scenes=2, s1_dates=1, margin_m=600, bands=bands, highres=False)
    write_archive(folder, CITIES, options)
    return folder


@pytest.fixture(scope="module")
def mapped(world, tmp_path_factory):
    """Folder of a run over them."""
    from distributed import LocalCluster

    out = tmp_path_factory.mktemp("samples-run")
    recipe = tmp_path_factory.mktemp("samples-recipe") / "recipe.yaml"
    shipped = (data_directory("pipelines") / "spectral-10m.yaml").read_text()
    # nothing is left open, so nothing is measured
    recipe.write_text(f"{shipped}predict: {{form: model, batch: 1, size: 256}}\n")
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        options = RunOptions(
            aoi=world / "cities.geojson",
            year=2022,
            catalog=str(world / "catalog.json"),
            out=out,
            recipe=str(recipe),
            cluster=cluster.scheduler_address,
            tile_size=256,
        )
        run(options).check()
    return out


@pytest.fixture(scope="module")
def options(world, mapped):
    """Three samples of each class of a city, 24 pixels wide."""
    return SampleOptions(
        run=mapped, out=Path("nowhere"), labels=world / "simulated-truth", size=24, per_class=3
    )


@pytest.fixture(scope="module")
def made(options, tmp_path_factory):
    """A set of samples and its report."""
    out = tmp_path_factory.mktemp("samples") / "set"
    return out, make_samples(replace(options, out=out))


def index_of(out):
    return json.loads((out / "samples.json").read_text())


def read(path, band=None):
    with rasterio.open(path) as dataset:
        return dataset.read(band)


def version_of(mapped, slug):
    return mapped / "cities" / slug / "spectral-10m-2022" / "v1"


def centres(sample):
    """Easting and northing of every pixel centre, by the index alone."""
    (x, y), (height, width) = sample["place"], sample["shape"]
    east = x + 10 * (np.arange(width) - (width - 1) / 2)
    north = y - 10 * (np.arange(height) - (height - 1) / 2)
    return np.meshgrid(east, north)


def inside(world, sample, grid_of):
    """Which pixel centres lie in the city's area."""
    area = next(a for a in read_areas(world / "cities.geojson") if a.slug == sample["city"])
    east, north = centres(sample)
    return shapely.contains_xy(area.on(grid_of(sample)), east, north)


def grid_of(sample):
    return Grid(epsg=sample["epsg"], resolution=10, tile=256)


def checksums(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# pixels ------------------------------------------------------------------------------------


def expected_image(mapped, sample, bands):
    """Values of the cube at the sample's pixel centres, looked up by coordinates."""
    group = zarr.open_group(version_of(mapped, sample["city"]) / "cube.zarr", mode="r")
    east, north = centres(sample)
    # positions on the axes; a place that is not on them is beyond the cube
    cols = [np.flatnonzero(group["x"][:] == x) for x in east[0]]
    rows = [np.flatnonzero(group["y"][:] == y) for y in north[:, 0]]
    found = np.full((len(bands), *sample["shape"]), np.nan, np.float32)
    for index, band in enumerate(bands):
        source, name = band.split(":")
        if source not in group:
            continue
        array = group[source][group[f"{source}_band"][:].tolist().index(name)]
        if source == "sentinel2":
            array = np.where(array, array * np.float32(0.0001), np.nan)
        for row, col in np.ndindex(*sample["shape"]):
            if rows[row].size and cols[col].size:
                found[index, row, col] = array[rows[row][0], cols[col][0]]
    return found


def test_patches_are_pieces_of_the_cube(made, mapped):
    out, _ = made
    index = index_of(out)
    for sample in index["samples"][::5]:
        image = read(out / sample["image"])
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, expected_image(mapped, sample, index["bands"]))


def test_files_say_where_they_lie_and_what_they_hold(made):
    out, _ = made
    index = index_of(out)
    assert index["bands"][:4] == [f"sentinel2:{b}" for b in ("red", "green", "nir", "blue")]
    assert {b.split(":")[0] for b in index["bands"]} == {"sentinel2", "sentinel1", "elevation"}
    assert ClassTable.from_stac(index["classes"]) == TRUTH_CLASSES
    for sample in index["samples"]:
        east, north = centres(sample)
        with (
            rasterio.open(out / sample["image"]) as image,
            rasterio.open(out / sample["label"]) as label,
        ):
            assert image.descriptions == tuple(index["bands"])
            assert np.isnan(image.nodata)
            assert image.profile["compress"] == "deflate"
            assert image.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
            assert (label.nodata, label.dtypes) == (255, ("uint8",))
            assert label.colormap(1)[2] == TRUTH_CLASSES.colormap()[2]
            for dataset in (image, label):
                assert dataset.crs.to_epsg() == sample["epsg"]
                assert dataset.shape == tuple(sample["shape"]) == (24, 24)
                assert dataset.xy(0, 0) == (east[0, 0], north[0, 0])
                assert dataset.xy(23, 23) == (east[23, 23], north[23, 23])


def test_a_band_that_a_city_lacks_is_nan_and_counts_for_nothing(made):
    out, report = made
    index = index_of(out)
    radar = [i for i, band in enumerate(index["bands"]) if band.startswith("sentinel1")]
    for sample in index["samples"]:
        lacks = np.isnan(read(out / sample["image"])[radar]).all()
        assert lacks == (sample["city"] == "plainville")
    assert {city.slug for city in report.cities if city.samples} == set(SLUGS)


def test_labels_are_the_truth_at_pixel_centres_and_nothing_outside(made, world):
    out, _ = made
    for sample in index_of(out)["samples"]:
        truth = world / f"simulated-truth/{sample['city']}/truth-{sample['city']}/truth_10m.tif"
        east, north = centres(sample)
        with rasterio.open(truth) as dataset:
            places = zip(east.ravel(), north.ravel(), strict=True)
            values = np.array([v[0] for v in dataset.sample(places)]).reshape(east.shape)
        wanted = np.where(inside(world, sample, grid_of), values, 255)
        label = read(out / sample["label"], 1)
        np.testing.assert_array_equal(label, wanted)
        counts = {c.name: int((label == c.value).sum()) for c in TRUTH_CLASSES.classes}
        assert sample["pixels"] == {name: n for name, n in counts.items() if n}


def test_strata_are_the_classes_in_the_middle(made, world):
    out, report = made
    counted = {slug: {} for slug in SLUGS}
    for sample in index_of(out)["samples"]:
        middle = read(out / sample["label"], 1)[12, 12]
        assert TRUTH_CLASSES.values[middle] == middle
        assert sample["stratum"] == TRUTH_CLASSES.classes[middle].name
        of_city = counted[sample["city"]]
        of_city[sample["stratum"]] = of_city.get(sample["stratum"], 0) + 1
    assert counted == {city.slug: dict(city.classes) for city in report.cities}
    for city in report.cities:
        for entry in TRUTH_CLASSES.classes:
            assert city.classes.get(entry.name, 0) + city.short.get(entry.name, 0) == 3


def test_training_reads_what_was_written(made):
    out, report = made
    index = index_of(out)
    data = open_data(out, Data(layout="samples"), TRUTH_CLASSES)
    assert len(data.images) == report.samples
    assert data.bands == tuple(index["bands"])
    for image, sample in zip(data.images, index["samples"], strict=True):
        assert (image.name, image.group) == (sample["id"], sample["group"])
        assert image.place == tuple(sample["place"])
    pixels = data.read(data.images[3], None)
    np.testing.assert_array_equal(pixels.values, read(data.images[3].image))
    np.testing.assert_array_equal(pixels.label, read(data.images[3].label, 1))


# where they lie ----------------------------------------------------------------------------


def test_no_two_patches_share_more_than_half(made):
    out, _ = made
    samples = index_of(out)["samples"]
    for one, other in combinations(samples, 2):
        if one["city"] == other["city"]:
            down, right = (
                abs(a - b) / 10 for a, b in zip(one["place"], other["place"], strict=True)
            )
            assert max(0, 24 - down) * max(0, 24 - right) <= 24 * 24 / 2


def test_a_block_holds_one_centre(options, tmp_path):
    report = make_samples(replace(options, out=tmp_path / "set", size=48, per_class=5, block=300))
    cells = [
        (s["epsg"], math.floor(s["place"][0] / 300), math.floor(-s["place"][1] / 300))
        for s in index_of(tmp_path / "set")["samples"]
    ]
    assert len(set(cells)) == len(cells) == report.samples > 12


def test_the_same_seed_gives_the_same_bytes(made, options, world, tmp_path):
    """However the cities are named, and whether labels are in a folder or a catalog."""
    changes = {"labels": world / "catalog.json", "cities": ("Zweistadt", "plainville")}
    make_samples(replace(options, out=tmp_path / "set", **changes))
    assert checksums(tmp_path / "set") == checksums(made[0])
    run_facts = index_of(tmp_path / "set")["run"]
    assert run_facts["labels"] == {slug: ["truth_10m.tif"] for slug in SLUGS}
    assert run_facts["licenses"] == {"images": ["CC-BY-4.0"], "labels": ["CC0-1.0"]}


def test_a_city_alone_gives_the_samples_it_gives_among_others(made, options, tmp_path):
    listed = [s for s in index_of(made[0])["samples"] if s["city"] == "zweistadt"]
    alone = replace(options, cities=("zweistadt",))
    report = make_samples(replace(alone, out=tmp_path / "one"))
    assert report.cities == made[1].cities[1:]
    assert index_of(tmp_path / "one")["samples"] == listed
    make_samples(replace(alone, out=tmp_path / "other", seed=1, per_class=1))
    other = [s["place"] for s in index_of(tmp_path / "other")["samples"]]
    assert not any(s["place"] in other for s in listed[:5])


@pytest.mark.parametrize("stratify", ["class", "city", "none"])
def test_a_count_is_shared_by_the_cities(options, tmp_path, stratify):
    report = make_samples(
        replace(options, out=tmp_path / "set", per_class=None, count=13, stratify=stratify, size=8)
    )
    shares = {city.slug: city.samples for city in report.cities}
    # 1 and 0.64 square kilometres
    assert shares == {
        "plainville": 8 if stratify == "none" else 7,
        "zweistadt": 13 - shares["plainville"],
    }
    if stratify == "class":
        assert max(report.cities[0].classes.values()) == 2


def test_patches_of_little_else_than_nothing_are_dropped(options, tmp_path):
    with pytest.raises(DataError, match=r"no sample is left \(\d+ nodata\)"):
        make_samples(replace(options, out=tmp_path / "set", size=1024))
    assert not (tmp_path / "set").exists()


# the user's points -------------------------------------------------------------------------


def test_points_of_the_user_are_kept_with_their_names(options, tmp_path):
    lons = [city.lon for city in CITIES] + [CITIES[0].lon + 0.0001, 50.0]
    lats = [city.lat for city in CITIES] + [CITIES[0].lat, 50.0]
    frame = geopandas.GeoDataFrame(
        {"name": ["A", None, "C", "D"], "Group": ["north", None, "x", "y"]},
        geometry=geopandas.points_from_xy(lons, lats),
        crs="EPSG:4326",
    ).to_crs("EPSG:3857")
    frame.to_file(tmp_path / "points.gpkg")
    report = make_samples(
        replace(options, out=tmp_path / "set", points=tmp_path / "points.gpkg", per_class=None)
    )
    samples = {s["city"]: s for s in index_of(tmp_path / "set")["samples"]}
    assert (report.samples, report.outside) == (2, 1)
    assert report.cities[1].dropped == {"overlap": 1}
    assert (samples["zweistadt"]["name"], samples["zweistadt"]["group"]) == ("A", "north")
    assert samples["plainville"]["group"] == "plainville"
    assert "name" not in samples["plainville"]
    for city in CITIES:
        # a square of even size has its point in the pixel south-east of the middle
        offset = np.array(samples[city.slug]["place"]) - city.area.bounds[:2] - city.size_m / 2
        assert (abs(offset) <= 10).all()


def test_points_must_be_points(options, tmp_path):
    path = tmp_path / "areas.geojson"
    geopandas.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=4326).to_file(path)
    with pytest.raises(DataError, match="feature 0 is a Polygon"):
        make_samples(replace(options, out=tmp_path / "set", per_class=None, points=path))


# labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.0, 0.6])
def test_pseudo_labels_are_the_map_where_it_is_sure(options, mapped, tmp_path, confidence):
    changes = {"labels": None, "pseudo": True, "confidence": confidence, "per_class": 1}
    make_samples(replace(options, out=tmp_path / "set", cities=("zweistadt",), **changes))
    index = index_of(tmp_path / "set")
    assert index["run"]["model"]["name"] == "spectral-baseline"
    assert index["run"]["confidence"] == confidence
    unsure = 0
    for sample in index["samples"]:
        product = version_of(mapped, sample["city"]) / "product"
        found = []
        for name in ("classes.tif", "confidence.tif"):
            with rasterio.open(product / name) as dataset:
                places = zip(*(axis.ravel() for axis in centres(sample)), strict=True)
                values = [int(v[0]) for v in dataset.sample(places)]
                found.append(np.array(values).reshape(sample["shape"]))
                if name == "classes.tif":
                    left, bottom, right, top = dataset.bounds
        east, north = centres(sample)
        known = (east > left) & (east < right) & (north > bottom) & (north < top)
        sure = known & (found[1] != 255) & (found[1] * 0.004 >= confidence - 1e-9)
        unsure += (known & ~sure & (found[0] != 255)).sum()
        wanted = np.where(sure, found[0], 255)
        np.testing.assert_array_equal(read(tmp_path / "set" / sample["label"], 1), wanted)
    assert bool(unsure) == (confidence > 0)


@pytest.fixture
def truth(world):
    """A city's truth of one resolution."""

    def path(metres, slug="zweistadt"):
        return world / "simulated-truth" / slug / f"truth-{slug}" / f"truth_{metres}m.tif"

    return path


def test_coarser_labels_are_taken_only_when_named(options, truth, tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    with rasterio.open(truth(10)) as fine:
        profile = fine.profile | {
            "transform": fine.transform @ fine.transform.scale(4),
            "width": fine.width // 4,
            "height": fine.height // 4,
        }
        with rasterio.open(folder / "coarse.tif", "w", **profile) as coarse:
            coarse.write(fine.read(1)[2::4, 2::4][: fine.height // 4, : fine.width // 4], 1)
            coarse.write_colormap(1, fine.colormap(1))
            coarse.update_tags(**fine.tags())
    one = replace(options, out=tmp_path / "set", size=16, per_class=1, cities=("zweistadt",))
    with pytest.raises(DataError, match=r"pixels of 10 m.*or finer: .*has 40 m"):
        make_samples(replace(one, labels=folder))
    assert make_samples(replace(one, labels=folder / "coarse.tif")).samples


def test_finer_labels_are_sampled_at_the_centres_of_pixels(options, truth, tmp_path):
    folder = tmp_path / "labels"
    folder.mkdir()
    shutil.copy(truth(1), folder / "truth_1m.tif")
    one = replace(options, out=tmp_path / "set", size=16, per_class=1, cities=("zweistadt",))
    make_samples(replace(one, labels=folder))
    index = index_of(tmp_path / "set")
    # without an item, names are those of the tags
    assert [c["title"] for c in index["classes"]][:2] == ["water", "green"]
    sample = index["samples"][0]
    with rasterio.open(truth(1)) as dataset:
        places = zip(*(axis.ravel() for axis in centres(sample)), strict=True)
        values = np.array([v[0] for v in dataset.sample(places)]).reshape(16, 16)
    label = read(tmp_path / "set" / sample["label"], 1)
    assert (label != 255).any()
    assert (label == values)[label != 255].all()


def test_cities_without_labels_are_skipped(options, truth, tmp_path):
    report = make_samples(replace(options, out=tmp_path / "set", labels=truth(10)))
    assert [city.slug for city in report.cities] == ["zweistadt"]
    assert report.skipped == {"plainville": "no labels lie over it"}
    far = replace(options, out=tmp_path / "none", labels=truth(10), cities=("plainville",))
    with pytest.raises(DataError, match="lies over none of the cities"):
        make_samples(far)


def plain_raster(path, values, transform, **more):
    profile = {"driver": "GTiff", "count": 1, "crs": "EPSG:32631", "transform": transform}
    height, width = values.shape
    with rasterio.open(
        path, "w", dtype=values.dtype, height=height, width=width, **profile, **more
    ) as target:
        target.write(values, 1)
    return path


PLACE = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
NUMBERS = np.array([[10, 20], [300, 0]], dtype=np.uint16)


def test_classes_of_a_plain_raster_come_from_a_file(tmp_path):
    path = plain_raster(tmp_path / "lulc.tif", NUMBERS, PLACE, nodata=0)
    with pytest.raises(DataError, match=r"holds no label raster.*--classes"):
        find_labels(path, None)
    (tmp_path / "classes.yaml").write_text(
        "classes:\n- {value: 10, name: tree cover, color: '#006400'}\n- {value: 20, name: shrub}\n"
        "- {value: 0, name: unknown, nodata: true}\n"
    )
    legend = read_legend(tmp_path / "classes.yaml")
    assert [(c.value, c.name, c.title) for c in legend.classes] == [
        (10, "tree-cover", "tree cover"),
        (20, "shrub", "shrub"),
    ]
    assert legend.classes[0].color == "006400"
    files = find_labels(path, legend)
    grid = Grid(epsg=32631, resolution=10, tile=256)
    box = grid.box_of((500_000, 4_999_980, 500_030, 5_000_000))
    label = label_reader(files.rasters, grid)(box)
    assert label.dtype == np.uint8
    assert label.tolist() == [[10, 20, 255], [255, 255, 255]]


def test_rasters_side_by_side_are_one_and_other_classes_are_refused(tmp_path):
    legends = [{"CLASS_10": "tree", "CLASS_20": "shrub"}, {"CLASS_10": "tree", "CLASS_20": "road"}]
    east = rasterio.Affine(10, 0, 500_020, 0, -10, 5_000_000)
    for name, place in (("a.tif", PLACE), ("b.tif", east)):
        with rasterio.open(plain_raster(tmp_path / name, NUMBERS, place), "r+") as target:
            target.update_tags(**legends[0])
    grid = Grid(epsg=32631, resolution=10, tile=256)
    bounds = (500_000, 4_999_980, 500_040, 5_000_000)
    area = shapely.box(*bounds)
    lonlat = shapely.box(2.99, 45.14, 3.01, 45.16)
    rasters = fitting(find_labels(tmp_path, None), grid, area, lonlat)
    label = label_reader(rasters, grid)(grid.box_of(bounds))
    assert label[0].tolist() == [10, 20, 10, 20]
    with rasterio.open(tmp_path / "b.tif", "r+") as target:
        target.update_tags(**legends[1])
    with pytest.raises(DataError, match="have different classes"):
        fitting(find_labels(tmp_path, None), grid, area, lonlat)


def test_classes_of_an_item_take_the_place_of_tags(tmp_path):
    plain_raster(tmp_path / "data.tif", NUMBERS, PLACE, nodata=0)
    classes = [{"value": 0, "name": "nothing"}, {"value": 10, "name": "tree"}]
    item = {
        "type": "Feature",
        "properties": {"license": "MIT"},
        "assets": {"data": {"href": "./data.tif", "classification:classes": classes}},
    }
    (tmp_path / "item.json").write_text(json.dumps(item))
    (tmp_path / "broken.json").write_text("{")
    for path in (tmp_path, tmp_path / "data.tif", tmp_path / "item.json"):
        (raster,) = find_labels(path, None).rasters
        assert [c.name for c in raster.classes.classes] == ["tree"]
        assert raster.license == "MIT"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("5", "lists no classes"),
        ("- {name: a}", "has no value"),
        ("- {value: 300, name: a}", "use 0 to 254"),
        ("- {value: 1, name: a}\n- {value: 1, name: b}", "share a value"),
        ("- {value: 1, name: a, color: red}", "write it like 397D49"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_wrong_legend_says_what_is_wrong(tmp_path, content, reason):
    path = tmp_path / "classes.yaml"
    path.write_text(content)
    with pytest.raises(DataError, match=reason):
        read_legend(path)


# files -------------------------------------------------------------------------------------


def test_zarr_holds_the_same_pixels(made, options, tmp_path):
    out, one = tmp_path / "set", replace(options, format="zarr", cities=("zweistadt",))
    make_samples(replace(one, out=out))
    index, other = index_of(out), index_of(made[0])
    other["samples"] = [s for s in other["samples"] if s["city"] == "zweistadt"]
    group = zarr.open_group(out / "samples.zarr", mode="r")
    count = len(index["samples"])
    assert group["image"].shape == (count, len(index["bands"]), 24, 24)
    assert group["image"].chunks == (1, len(index["bands"]), 24, 24)
    assert group["label"].chunks == (1, 24, 24)
    assert group.attrs["bands"] == index["bands"]
    epsg, transform = group["epsg"][:], group["transform"][:]
    images, labels = group["image"][:], group["label"][:]
    for sample, twin in zip(index["samples"], other["samples"], strict=True):
        place, files = sample.pop("index"), ("image", "label")
        assert [sample.pop(key) for key in files] == ["samples.zarr"] * 2
        twin_files = [made[0] / twin.pop(key) for key in files]
        assert sample == twin
        assert epsg[place] == sample["epsg"]
        np.testing.assert_array_equal(images[place], read(twin_files[0]))
        np.testing.assert_array_equal(labels[place], read(twin_files[1], 1))
        with rasterio.open(twin_files[0]) as dataset:
            assert transform[place].tolist() == list(dataset.transform)[:6]
    make_samples(replace(one, out=tmp_path / "again"))
    assert checksums(out) == checksums(tmp_path / "again")


@pytest.mark.parametrize("form", ["geotiff", "zarr"])
def test_the_index_is_last_and_what_fails_leaves_nothing(options, tmp_path, monkeypatch, form):
    out = tmp_path / "set"
    out.mkdir()
    written = []

    def refuse(path, content):
        written.append(path.name)
        assert not (out / "samples.json").exists()
        if path.name == "samples.json":
            raise StoreError("the disk is full")

    monkeypatch.setattr(write, "write_json", refuse)
    with pytest.raises(StoreError, match="full"):
        make_samples(replace(options, out=out, per_class=1, size=8, format=form))
    assert written[-3:] == ["collection.json", "catalog.json", "samples.json"]
    assert list(out.iterdir()) == []


def test_a_folder_that_holds_something_is_refused(options, made, tmp_path):
    with pytest.raises(UsageError, match="is not empty; delete it"):
        make_samples(replace(options, out=made[0]))
    (tmp_path / "images").mkdir()
    with pytest.raises(UsageError, match="what a killed command left"):
        make_samples(replace(options, out=tmp_path))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pseudo": True}, "either --labels or --pseudo"),
        ({"labels": None}, "either --labels or --pseudo"),
        ({"count": 5}, "not both"),
        ({"stratify": "city"}, "--stratify class"),
        ({"stratify": "region"}, "--stratify is 'region'; give class, city, none"),
        ({"format": "png"}, "--format is 'png'; give geotiff, zarr"),
        ({"per_class": 0}, "--per-class is 0"),
        ({"points": Path("points.geojson")}, "leave the numbers out"),
        ({"size": 0}, "--size is 0"),
        ({"confidence": 1.5}, "--confidence is 1.5"),
        ({"block": 0.0}, "--block is 0"),
        ({"cities": ("Plainvile",)}, "did you mean plainville"),
        ({"product": "other-2022"}, "there are spectral-10m-2022"),
        ({"run": Path("nowhere")}, "holds no finished map"),
    ],
)
def test_options_that_cannot_be_are_refused(options, tmp_path, changes, reason):
    with pytest.raises(UsageError, match=reason):
        make_samples(replace(options, out=tmp_path / "set", **changes))
    assert not (tmp_path / "set").exists()


def test_seasons_are_part_of_the_names_of_bands():
    arrays = {f"sentinel2_{s}": ("red", "nir") for s in ("dry", "wet")} | {"open_data": ("dem",)}
    assert _known_as(arrays | {"s1_spring": ("vv",)}) == {
        "sentinel2_dry": ("sentinel2", "_dry"),
        "sentinel2_wet": ("sentinel2", "_wet"),
        "open_data": ("open_data", ""),
        "s1_spring": ("s1", "_spring"),
    }


# STAC --------------------------------------------------------------------------------------


def test_pystac_walks_the_set(made):
    out, _ = made
    root = pystac.Catalog.from_file(str(out / "catalog.json"))
    images, labels = root.get_children()
    assert (images.id, labels.id) == ("images", "labels")
    listed = [s["id"] for s in index_of(out)["samples"]]
    assert [item.id for item in images.get_items()] == listed
    for item in labels.get_items():
        said = {k.removeprefix("label:"): v for k, v in item.properties.items()}
        assert said["type"] == "raster"
        assert said["classes"][0]["classes"] == [c.name for c in TRUTH_CLASSES.classes]
        assert (said["tasks"], said["methods"]) == (["segmentation"], ["manual"])
        (link,) = item.get_links("source")
        source = link.resolve_stac_object(item.get_root()).target
        assert source.id == item.id.removesuffix("-label")
        assert source.geometry == item.geometry
        for found in (item, source):
            (asset,) = found.assets.values()
            content = Path(asset.get_absolute_href()).read_bytes()
            assert asset.extra_fields["file:size"] == len(content)
            digest = hashlib.sha256(content).hexdigest()
            assert asset.extra_fields["file:checksum"] == "1220" + digest
    west, south, east, north = labels.extent.spatial.bboxes[0]
    assert west < -30.1 < 6 < east
    assert south < -35.1 < 45.6 < north


def test_every_document_is_valid(made):
    out, _ = made
    validator = JsonSchemaSTACValidator()
    for path in [out / "catalog.json", *sorted(out.glob("*/*.json"))[::9]]:
        content = json.loads(path.read_text())
        kind = {"Feature": "ITEM", "Catalog": "CATALOG", "Collection": "COLLECTION"}
        which = pystac.STACObjectType[kind[content["type"]]]
        assert validator.validate_core(content, which, "1.1.0")
    for kind in ("images", "labels"):
        content = json.loads((out / kind / "collection.json").read_text())
        assert validator.validate_core(content, pystac.STACObjectType.COLLECTION, "1.1.0")


@pytest.mark.archive
@pytest.mark.parametrize("form", ["geotiff", "zarr"])
def test_items_keep_the_extensions_that_they_declare(made, options, tmp_path, archive, form):
    contents = dict(get_local_schema_cache())
    for path in (archive / "schemas").glob("*.json"):
        schema = json.loads(path.read_text(encoding="utf-8"))
        contents[schema.pop("$id").rstrip("#")] = schema
    pairs = [(u, Resource.from_contents(s, DRAFT7)) for u, s in contents.items()]
    registry = Registry().with_resources(pairs)
    out = made[0]
    if form == "zarr":
        out = tmp_path / "set"
        make_samples(replace(options, out=out, per_class=1, format=form))
    found = set()
    for path in sorted(out.glob("*/*-0000*.json")):
        item = json.loads(path.read_text())
        for uri in item["stac_extensions"]:
            found.add(uri.split("/")[3])
            faults = Draft7Validator({"$ref": uri}, registry=registry).iter_errors(item)
            assert [f"{path.name} {e.json_path}: {e.message}" for e in faults] == []
    assert found == {"label", "projection", "raster", "classification", "file"}
