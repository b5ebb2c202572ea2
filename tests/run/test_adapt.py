"""Cities learn their own models: targets are pieces of cubes, and the next map is by them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import zarr
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from mapper.cli.commands import app
from mapper.errors import DataError, LockedError, MapperError, PartlyDoneError, UsageError
from mapper.inference.card import load_card
from mapper.recipe.settings import changed
from mapper.run.adapt import batch as adapt
from mapper.run.adapt import city as adaptcity
from mapper.run.adapt import target as adapttarget
from mapper.run.adapt.batch import adapt_cities
from mapper.run.adapt.city import CityAdapted, CityWork, adapt_city, changed_share, pinned
from mapper.run.adapt.request import CitiesReport
from mapper.run.adapt.target import target_of
from mapper.run.chosen import latest_versions
from mapper.run.layout import Version
from mapper.run.lock import hold_folder

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use `@` matmul instead of:PendingDeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]

SLUGS = ["plainville", "zweistadt"]
BANDS = ["sentinel2:red", "sentinel2:green", "sentinel2:nir"]
PRODUCT = "tiny-10m-2022"


def latest(mapped, slug, number):
    return Version(root=mapped, slug=slug, product=PRODUCT, number=number)


def item_of(version):
    return json.loads((version.product_folder / "item.json").read_text())


# targets -----------------------------------------------------------------------------------


def run_target(run, city, product, bands, **options):
    """One city of a run, or all of them together."""
    versions = latest_versions(run, [city] if city else [], product)
    return target_of(versions, bands, **options)


def test_a_city_is_its_cube_without_labels(mapped_once):
    found = run_target(mapped_once, "Zweistadt", None, BANDS)
    group = zarr.open_group(latest(mapped_once, "zweistadt", 1).path / "cube.zarr", mode="r")
    (image,) = found.images
    assert (image.name, image.label, image.group) == ("zweistadt-000-000", None, "zweistadt")
    assert (found.bands, found.scale, found.layout) == (tuple(BANDS), 1.0, "run")
    pixels = found.read(image, None)
    assert pixels.values.dtype == np.float32
    assert pixels.label is None
    # looked up by coordinates, not by rows and columns
    height, width = image.shape
    east = image.place[0] + 10 * (np.arange(width) - (width - 1) / 2)
    north = image.place[1] - 10 * (np.arange(height) - (height - 1) / 2)
    cols, rows = np.searchsorted(group["x"][:], east), np.searchsorted(-group["y"][:], -north)
    np.testing.assert_allclose(group["x"][:][cols], east)
    stored = group["sentinel2"][:][:, rows][:, :, cols]
    names = group["sentinel2_band"][:].tolist()
    for index, band in enumerate(BANDS):
        expected = stored[names.index(band.split(":")[1])]
        np.testing.assert_array_equal(pixels.valid[index], expected > 0)
        known = expected > 0
        np.testing.assert_array_equal(
            pixels.values[index][known], (expected * np.float32(0.0001))[known]
        )
        assert np.isnan(pixels.values[index][~known]).all()
    piece = found.read(image, (3, 5, 20, 30))
    np.testing.assert_array_equal(piece.values, pixels.values[:, 3:23, 5:35])


def test_pieces_fill_the_mapped_box_once(mapped_once, monkeypatch):
    """Nearly equal pieces, named by row and column, whatever their side."""
    whole = run_target(mapped_once, "plainville", None, BANDS)
    (image,) = whole.images
    all_of_it = whole.read(image, None).values
    monkeypatch.setattr(adapttarget, "SIDE", 30)
    parts = run_target(mapped_once, "plainville", None, BANDS)
    sides = {side for part in parts.images for side in part.shape}
    assert max(sides) <= 30
    assert max(sides) - min(sides) <= 1
    left, top = image.place[0] - image.half[0], image.place[1] + image.half[1]
    seen = np.full(all_of_it.shape, -1, np.float32)
    for part in parts.images:
        col = round((part.place[0] - part.half[0] - left) / 10)
        row = round((top - part.place[1] - part.half[1]) / 10)
        place = np.s_[:, row : row + part.shape[0], col : col + part.shape[1]]
        assert (seen[place] == -1).all()
        seen[place] = parts.read(part, None).values
    np.testing.assert_array_equal(seen, all_of_it)
    assert [part.name for part in parts.images] == sorted(part.name for part in parts.images)


def test_pieces_begin_where_cells_of_a_sensor_do(mapped_once, monkeypatch):
    """Lattice pixels are counted from the origin of the CRS."""
    monkeypatch.setattr(adapttarget, "SIDE", 30)
    for cell in (1, 7):
        found = run_target(mapped_once, "plainville", None, BANDS, cell=cell)
        for image in found.images:
            west, north = image.place[0] - image.half[0], image.place[1] + image.half[1]
            assert round(west / 10) % cell == 0
            assert round(north / 10) % cell == 0


@given(start=st.integers(-50, 50), length=st.integers(1, 90), cell=st.integers(1, 40))
def test_parts_are_never_empty(start, length, cell):
    """They follow on each other, from the first edge of a cell to the end."""
    stop = start + length
    parts = adapttarget._parts(start, stop, cell)
    first = -(-start // cell) * cell
    covered = [pixel for one, other in parts for pixel in range(one, other)]
    assert covered == list(range(first, stop))
    assert all(one < other for one, other in parts)


def test_all_cities_are_one_set(mapped_once):
    found = run_target(mapped_once, None, PRODUCT, BANDS)
    assert {image.group for image in found.images} == set(SLUGS)
    assert len({image.crs for image in found.images}) == 2
    assert all(np.isfinite(found.read(image, None).values).any() for image in found.images)


def test_what_a_city_lacks_is_named(mapped_once, mapped):
    with pytest.raises(DataError, match=r"zweistadt.*needs sentinel2:coastal"):
        run_target(mapped_once, "zweistadt", None, [*BANDS, "sentinel2:coastal"])
    lacking = run_target(mapped_once, "zweistadt", None, [*BANDS, "radar:vv"], required=BANDS)
    values = lacking.read(lacking.images[0], None).values
    assert np.isnan(values[3]).all()
    assert np.isfinite(values[:3]).any()
    with pytest.raises(UsageError, match="no mapped city is called 'Nirgendwo'"):
        run_target(mapped_once, "Nirgendwo", None, BANDS)
    group = zarr.open_group(latest(mapped, "zweistadt", 1).path / "cube.zarr", mode="r")
    shards = [p for p in (group.store.root / "sentinel2" / "c").rglob("*") if p.is_file()]
    for shard in shards:
        shard.unlink()
    with pytest.raises(DataError, match=r"zweistadt.*no value of sentinel2:red"):
        run_target(mapped, "zweistadt", None, BANDS)


# cities ------------------------------------------------------------------------------------


def test_each_city_has_its_own_model_and_its_next_map(request_, mapped):
    events = []
    recipe = changed(request_.recipe, ["adapt.method=dpa", "adapt.choose=entropy"])
    request_ = replace(request_, recipe=recipe)
    report = adapt_cities(request_, events.append)
    report.check()
    assert [city.slug for city in report.cities] == SLUGS
    digests = set()
    for city in report.cities:
        assert (city.state, city.method, city.chosen_by) == ("adapted", "dpa", "entropy")
        card = load_card(str(request_.out / city.model))
        digests.add(card.sha256)
        item = item_of(latest(mapped, city.slug, 2))
        assert item["properties"]["mapper:model"]["name"] == f"tiny-10m-{city.slug}"
        assert item["properties"]["mapper:model"]["sha256"] == card.sha256
        assert item_of(latest(mapped, city.slug, 1))["properties"]["mapper:model"]["name"] != (
            f"tiny-10m-{city.slug}"
        )
        assert city.map == f"cities/{city.slug}/{PRODUCT}/v2/product"
        assert 0 <= city.changed <= 1
    assert len(digests) == 2
    summary = json.loads((request_.out / "adapt.json").read_text())
    assert [city["slug"] for city in summary["cities"]] == SLUGS
    assert str(request_.target) not in (request_.out / "adapt.json").read_text()
    before = {p: p.stat().st_mtime_ns for p in mapped.rglob("*.tif")}
    again = adapt_cities(request_)
    assert [city.state for city in again.cities] == ["finished", "finished"]
    assert [city.map for city in again.cities] == [city.map for city in report.cities]
    assert {p: p.stat().st_mtime_ns for p in mapped.rglob("*.tif")} == before


def test_a_stopped_batch_goes_on(request_, monkeypatch):
    """What is done is not done again, and imagery stays that of the first start."""
    request_ = replace(request_, predict=False, cluster="local")

    def stop(event):
        if event.kind == "city":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt_cities(request_, stop)
    model = request_.out / "cities" / "plainville" / "model" / "model.onnx"
    made = model.stat().st_mtime_ns
    assert not (request_.out / "cities" / "zweistadt" / "model").exists()
    report = adapt_cities(request_)
    assert {city.slug: city.state for city in report.cities} == {
        "plainville": "finished",
        "zweistadt": "adapted",
    }
    assert model.stat().st_mtime_ns == made
    # a model folder that was lost is made again out of the finished adaptation
    shutil.rmtree(model.parent)
    monkeypatch.setattr(adaptcity, "target_of", counted := Counted(adaptcity.target_of))
    assert adapt_cities(request_).cities[0].state == "adapted"
    assert model.is_file()
    assert counted.calls == 1


def test_what_nobody_foresaw_is_a_failure_of_one_city(request_, monkeypatch, caplog):
    """GDAL's and Dask's errors too, with a traceback in the log; what is learned stays."""

    def broken(options, slug, told):
        raise RuntimeError(f"no memory for {slug}")

    monkeypatch.setattr(adapt, "map_city", broken)
    report = adapt_cities(replace(request_, cities=("zweistadt",)))
    (city,) = report.cities
    assert (city.state, city.model) == ("failed", "cities/zweistadt/model")
    assert city.reason == "its map failed: RuntimeError: no memory for zweistadt"
    assert "Traceback" in caplog.text
    monkeypatch.setattr(adaptcity, "export_once", broken)
    (city,) = adapt_cities(replace(request_, cities=("plainville",))).cities
    assert city.reason.startswith("RuntimeError: no memory for")
    assert caplog.text.count("Traceback") == 2


def test_a_city_is_held_while_it_learns(request_):
    """A worker that was given up may still be at it."""
    work = CityWork(
        slug="zweistadt", folder=request_.out / "zweistadt", recipe=request_.recipe,
        source=request_.source, start=request_.start, versions=(), out=request_.out,
    )  # fmt: skip
    with hold_folder(work.folder), pytest.raises(LockedError, match="is in use by"):
        adapt_city(work)


class Counted:
    def __init__(self, inner):
        self.inner, self.calls = inner, 0

    def __call__(self, *arguments):
        self.calls += 1
        return self.inner(*arguments)


def test_a_failing_city_stops_no_other(request_, mapped, recipe_file):
    shards = latest(mapped, "plainville", 1).path / "cube.zarr" / "sentinel2" / "c"
    for shard in [p for p in shards.rglob("*") if p.is_file()]:
        shard.unlink()
    request_ = replace(request_, predict=False)
    report = adapt_cities(request_)
    assert [city.state for city in report.cities] == ["failed", "adapted"]
    assert "no value of sentinel2:red" in report.cities[0].reason
    with pytest.raises(PartlyDoneError, match=r"1 of 2 cities not adapted: plainville: .*no value"):
        report.check()
    told = CliRunner().invoke(
        app,
        [
            *("adapt", str(recipe_file), "--source", str(request_.source)),
            *("--target", str(mapped), "--out", str(request_.out), "--from", str(request_.start)),
            *("--set", "split.block=60", "--no-predict", "--json"),
            *("--catalog", request_.catalog),
        ],
    )
    assert isinstance(told.exception, PartlyDoneError)
    last = json.loads(told.stdout.splitlines()[-1])
    assert [city["state"] for city in last["cities"]] == ["failed", "finished"]


@pytest.mark.slow
def test_areas_are_mapped_by_the_source_first(request_, world, tmp_path):
    """The source is trained on once; its maps are the first versions, the adapted the second."""
    areas = world / "cities.geojson"
    request_ = replace(
        request_, target=areas, year=2022, start=None, cities=("zweistadt",), tile_size=256
    )
    report = adapt_cities(request_)
    report.check()
    assert report.run == request_.out / "maps"
    names = [
        item_of(latest(report.run, "zweistadt", number))["properties"]["mapper:model"]["name"]
        for number in (1, 2)
    ]
    assert names == ["tiny-10m-source", "tiny-10m-zweistadt"]
    assert (request_.out / "source" / "model.safetensors").is_file()
    assert not (request_.out / "cities" / "zweistadt" / "adapt" / "source").exists()
    assert [city.state for city in adapt_cities(request_).cities] == ["finished"]
    with pytest.raises(UsageError, match="another adaptation"):
        adapt_cities(replace(request_, year=2021))
    content = json.loads(areas.read_text())
    for feature in content["features"]:
        feature["geometry"]["coordinates"][0][1][0] += 1e-6
    moved = tmp_path / areas.name
    moved.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="another area for zweistadt"):
        adapt_cities(replace(request_, target=moved))


def test_the_imagery_stays_that_of_the_first_start(mapped, tmp_path):
    """A map by its own model is the latest version then, and is not what it learns of."""
    folder, first, second = tmp_path / "city", *(latest(mapped, "zweistadt", n) for n in (1, 2))
    assert pinned(folder, first) == first
    shutil.copytree(first.path, second.path)
    state = second.state()
    second.state_file.write_text(json.dumps(state | {"token": "another"}))
    assert pinned(folder, second) == first
    first.state_file.write_text(json.dumps(state | {"token": "third"}))
    with pytest.raises(UsageError, match="of another run, or that version is gone"):
        pinned(folder, second)


def test_the_exit_code_says_how_many_are_done(tmp_path):
    def ended(*states):
        cities = tuple(CityAdapted(slug=f"c{n}", state=s) for n, s in enumerate(states))
        return CitiesReport(out=tmp_path, run=tmp_path, cities=cities, seconds=0).check

    assert ended("adapted", "finished")() is None
    with pytest.raises(PartlyDoneError):
        ended("adapted", "failed")()
    with pytest.raises(MapperError, match="no city was adapted") as whole:
        ended("failed", "not mapped")()
    assert whole.value.exit_code == 1


def test_the_share_that_changed_counts_what_both_have(mapped):
    """Against a count by hand of two maps of one city."""
    one = latest(mapped, "zweistadt", 1)
    two = latest(mapped, "zweistadt", 2)
    shutil.copytree(one.path, two.path)
    path = two.product_folder / "classes.tif"
    with rasterio.open(path) as dataset:
        values, profile = dataset.read(1), dataset.profile
    item = item_of(one)
    listed = item["assets"]["classes"]["classification:classes"]
    known = [c["value"] for c in listed if not c.get("nodata")]
    inside = np.argwhere(np.isin(values, known))
    after = values.copy()
    for row, col in inside[:30]:
        after[row, col] = next(v for v in known if v != values[row, col])
    for row, col in inside[30:50]:
        after[row, col] = 255
    with rasterio.open(path, "w", **{**profile, "driver": "GTiff"}) as dataset:
        dataset.write(after, 1)
    assert changed_share(one, two) == round(30 / (len(inside) - 20), 6)
    listed[0]["name"] = "something-else"
    (two.product_folder / "item.json").write_text(json.dumps(item))
    assert changed_share(one, two) is None
