"""Styles: the default is what it was, others are another town, another season, another sensor."""

import hashlib
import json
from datetime import UTC, datetime

import numpy as np
import pystac
import pystac.validation
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rio_cogeo.cogeo import cog_validate
from typer.testing import CliRunner

from mapper.cli import demo
from mapper.cli.commands import app
from mapper.errors import UsageError
from mapper.simulate import (
    STYLES,
    TEST_CITIES,
    SimulatedCity,
    Style,
    World,
    WorldOptions,
    find_style,
    highres,
    write_archive,
)
from mapper.simulate.extent import Extent, Frame
from mapper.simulate.spectra import BANDS, CLASS_OF_MATERIAL, Material, spectra_at

CITY = SimulatedCity(
    name="Styleham", country="Ruidosia", iso="XSC", lon=-21.3, lat=-35.2, size_m=800, seed=6
)
X, Y = CITY.centre
OTHERS = [name for name in STYLES if name != "default"]


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """Items of one small town by style."""
    found = {}
    for name, style in STYLES.items():
        options = WorldOptions(
            margin_m=120, bands=("red", "nir"), scenes=1, s1_dates=0, style=style
        )
        catalog = write_archive(tmp_path_factory.mktemp(name), [CITY], options)
        features = json.loads((catalog.parent / "items.json").read_text())["features"]
        found[name] = catalog, features
    return found


def images(archives, name):
    items = [i for i in archives[name][1] if i["collection"] == "highres"]
    return sorted(i["assets"]["image"]["href"] for i in items)


def truth_of(archives, name):
    (item,) = [i for i in archives[name][1] if i["collection"] == "simulated-truth"]
    with rasterio.open(item["assets"]["truth_1m"]["href"]) as source:
        return source.read(1), source.transform


def at_truth(archives, name, east=0.0, north=0.0):
    """Grey values (channel, y, x) at the centres of the truth's pixels, or beside them."""
    truth, transform = truth_of(archives, name)
    y, x = np.indices(truth.shape)
    x = transform.c + x + 0.5 + east
    y = transform.f - y - 0.5 + north
    out = None
    for path in images(archives, name):
        with rasterio.open(path) as source:
            pixels = source.read()
            column = np.floor((x - source.transform.c) / source.res[0]).astype(int)
            row = np.floor((source.transform.f - y) / source.res[1]).astype(int)
        if out is None:
            out = np.zeros((len(pixels), *truth.shape), np.float64)
        inside = (column >= 0) & (column < pixels.shape[2]) & (row >= 0) & (row < pixels.shape[1])
        out[:, inside] = pixels[:, row[inside], column[inside]]
    return out


def short(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def test_the_default_style_has_the_pixels_it_always_had(archives):
    town = World.of(TEST_CITIES[0], 0)
    x, y = TEST_CITIES[0].centre
    assert short(town.render(x - 200, y + 200, 400, 400)) == "6e4a9d8fffff4e29"
    table = spectra_at(datetime(2022, 4, 3, tzinfo=UTC), 46.0)
    assert short(np.round(table, 6)) == "7a6eaee6828e007f"
    with rasterio.open(images(archives, "default")[0]) as source:
        assert short(source.read()) == "2f7497fc0049854d"


@pytest.mark.parametrize("name", OTHERS)
def test_another_style_is_the_same_place_and_another_town(name):
    one, other = (
        World.of(CITY, 0, style).render(X - 700, Y + 700, 700, 700, 2)
        for style in (STYLES["default"], STYLES[name])
    )
    assert (one != other).mean() > 0.1
    water = (one == Material.WATER) | (other == Material.WATER)
    assert (one == other)[water].mean() > 0.9
    streets = one == Material.ASPHALT
    assert (other == Material.ASPHALT)[streets].mean() > 0.7
    share = np.bincount(CLASS_OF_MATERIAL[other].ravel(), minlength=5) / other.size
    assert (share > 0.005).all(), share


@pytest.mark.parametrize("style", STYLES.values(), ids=lambda s: s.name)
def test_styles_are_whole(style: Style):
    assert len(style.town.mix) == len(STYLES["default"].town.mix)
    for mix in style.town.mix:
        assert sum(share for _, share in mix) == pytest.approx(1.0)
        assert len({kind for kind, _ in mix}) == len(mix)
    for month in range(1, 13):
        table = spectra_at(datetime(2022, month, 15, tzinfo=UTC), 55.0, style.surfaces)
        assert table.shape == (len(Material), len(BANDS))
        assert (table > 0).all()
        assert (table < 0.7).all()
    assert all(len(s) == len(BANDS) for s in style.surfaces.full.values())
    # by dark ground a scene's pixels show whether they carry the offset
    dark = table[[Material.WATER, Material.CONIFER], BANDS.index("blue") :][:, :3]
    assert dark.max() < 0.05
    assert dark[1].max() < 0.035
    assert all(len(s) == len(BANDS) for s in style.surfaces.dormant.values())


def test_a_style_changes_the_season_and_the_surfaces_it_names_only():
    when = datetime(2022, 8, 25, tzinfo=UTC)
    plain, dry = (spectra_at(when, 46.0, STYLES[n].surfaces) for n in ("default", "dry"))
    red, nir = BANDS.index("red"), BANDS.index("nir")
    ndvi = [(t[:, nir] - t[:, red]) / (t[:, nir] + t[:, red]) for t in (plain, dry)]
    assert ndvi[0][Material.GRASS] > 0.7 > 0.5 > ndvi[1][Material.GRASS]
    np.testing.assert_array_equal(plain[Material.SUMMER_CROP], dry[Material.SUMMER_CROP])
    spring = datetime(2022, 4, 22, tzinfo=UTC)
    bare = spectra_at(spring, 46.0, STYLES["northern"].surfaces)[Material.TREE]
    assert (bare[nir] - bare[red]) / (bare[nir] + bare[red]) < 0.5


@pytest.mark.parametrize(("latitude", "month"), [(46.0, 8), (-35.0, 2)])
def test_photographs_are_half_a_year_later_in_the_south(latitude, month):
    when = highres.taken(STYLES["dry"], 2022, latitude)
    assert (when.month, when.day) == (month, 25)
    assert highres.taken(STYLES["default"], 2022, -35.0).month == 12


# the lattice of 0.6 m


@given(
    edges=st.tuples(*[st.integers(0, 900_000)] * 2),
    size=st.tuples(*[st.integers(1, 300)] * 2),
    decimetres=st.sampled_from([6, 10, 3, 20]),
)
def test_a_frame_is_the_smallest_on_its_lattice_around_an_extent(edges, size, decimetres):
    left, top = edges[0], edges[1] + 5000
    extent = Extent(epsg=32632, left=left, top=top, resolution=1, width=size[0], height=size[1])
    frame = Frame.around(extent, decimetres)
    pixel = decimetres / 10
    for edge, inner in zip(frame.bounds, extent.bounds, strict=True):
        assert edge / pixel == pytest.approx(round(edge / pixel), abs=1e-6)
        assert abs(edge - inner) < pixel
    outer = frame.bounds
    assert outer[0] <= left
    assert outer[1] <= top - size[1]
    assert outer[2] >= left + size[0]
    assert outer[3] >= top
    corner = frame.transform @ (frame.width, frame.height)
    assert corner == pytest.approx((outer[2], outer[1]), abs=1e-6)
    part = frame.part(slice(0, 1), slice(0, frame.width)).grown(2)
    assert part.shape == (5, frame.width + 4)
    assert part.bounds[0] == pytest.approx(outer[0] - 2 * pixel)
    assert part.bounds[3] == pytest.approx(outer[3] + 2 * pixel)


def test_six_decimetre_cells_lie_where_metres_lie():
    """The centres of every fifth 0.6 m cell are those of every third 1 m cell."""
    world = World.of(CITY, 0, STYLES["dry"])
    left, top = X // 30 * 30 - 300, Y // 30 * 30 + 300
    fine = world.render(left, top, 1000, 1000, 0.6)
    metres = world.render(left, top, 600, 600)
    np.testing.assert_array_equal(metres.shape, (600, 600))
    assert (fine[2::5, 2::5] == metres[1::3, 1::3]).mean() > 0.9995
    assert (fine[2::5, 2::5] == metres[1::3, 0::3]).mean() < 0.97
    part = world.render(left + 0.6 * 371, top - 0.6 * 45, 300, 417, 0.6)
    np.testing.assert_array_equal(part, fine[45 : 45 + 417, 371 : 371 + 300])


def test_tiles_of_six_decimetres_adjoin_and_cover_the_truth(archives):
    truth, transform = truth_of(archives, "dry")
    boxes = []
    for path in images(archives, "dry"):
        with rasterio.open(path) as source:
            assert source.res == (0.6, 0.6)
            assert source.descriptions == ("red", "green", "blue", "nir")
            assert source.transform.e < 0 < source.transform.a
            for edge in (source.transform.c, source.transform.f):
                assert edge / 0.6 == pytest.approx(round(edge / 0.6), abs=1e-5)
            boxes.append(source.bounds)
            assert source.read(1).std() > 10
        valid, errors, _ = cog_validate(path)
        assert valid, errors
    assert len(boxes) == 4
    nw, ne, sw, se = boxes
    assert nw.right == pytest.approx(ne.left, abs=1e-6) == sw.right
    assert nw.bottom == pytest.approx(sw.top, abs=1e-6) == ne.bottom
    assert se.left == pytest.approx(nw.right, abs=1e-6)
    height, width = truth.shape
    assert 0 <= transform.c - nw.left < 0.6
    assert 0 <= nw.top - transform.f < 0.6
    assert 0 <= se.right - (transform.c + width) < 0.6
    assert 0 <= (transform.f - height) - se.bottom < 0.6


@pytest.mark.parametrize("name", ["default", "dry"])
def test_the_photograph_shows_the_truth_where_it_says_it_is(archives, name):
    """Water is dark in the near-infrared at the very pixels of the truth, nowhere beside them."""
    truth, _ = truth_of(archives, name)
    water = truth == 0

    def agreement(east, north):
        nir = at_truth(archives, name, east, north)[3]
        return ((nir < 45) == water)[8:-8, 8:-8].mean()

    here = agreement(0.0, 0.0)
    assert here > 0.995
    beside = [agreement(*move) for move in ((3, 0), (-3, 0), (0, 3), (0, -3))]
    assert max(beside) < here
    flipped = (at_truth(archives, name)[3] < 45)[::-1]
    assert (flipped == water).mean() < 0.97


# what the archive says


@pytest.mark.parametrize("name", STYLES)
def test_the_archive_names_its_style_and_is_valid(archives, name):
    catalog, features = archives[name]
    sensor = STYLES[name].sensor
    assert json.loads(catalog.read_text())["simulated:style"] == name
    for path in catalog.parent.glob("*/collection.json"):
        collection = json.loads(path.read_text())
        assert collection["summaries"]["simulated:style"] == [name]
        if collection["id"] == "highres":
            assert collection["title"].endswith(sensor.title)
    validator = pystac.validation.RegisteredValidator.get_validator()
    root = pystac.Catalog.from_file(str(catalog))
    for item in root.get_items(recursive=True):
        validator.validate_core(item.to_dict(), pystac.STACObjectType.ITEM, "1.1.0")
    assert all(f["properties"]["simulated:style"] == name for f in features)
    for item in features:
        if item["collection"] == "highres":
            assert item["properties"]["gsd"] == sensor.pixel
            image = item["assets"]["image"]
            assert tuple(b["common_name"] for b in image["eo:bands"]) == sensor.channels
            with rasterio.open(image["href"]) as source:
                assert source.count == len(sensor.channels) == len(image["raster:bands"])
                assert item["properties"]["proj:shape"] == list(source.shape)
                assert item["properties"]["proj:transform"] == list(source.transform)[:6]


def histogram(pixels, truth):
    """The most frequent class of each colour of 10 grey values a side; the nearest one's else."""
    means = np.stack([pixels[truth == c].mean(axis=0) for c in range(5)])
    counts = np.zeros((26, 26, 26, 5))
    np.add.at(counts, (*(pixels // 10).astype(int).T, truth), 1)

    def predict(found):
        seen = counts[tuple((found // 10).astype(int).T)]
        nearest = ((found[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        return np.where(seen.sum(axis=1) > 0, seen.argmax(axis=1), nearest)

    return predict


@pytest.mark.parametrize("name", OTHERS)
def test_colours_learned_in_one_style_fail_in_another_that_can_be_learned(archives, name):
    known = {}
    for style in ("default", name):
        grey = at_truth(archives, style)[:3].reshape(3, -1).T
        known[style] = grey, truth_of(archives, style)[0].ravel()
    grey, truth = known[name]
    accuracy = {}
    for style, (pixels, classes) in known.items():
        predict = histogram(pixels[::2], classes[::2])
        accuracy[style] = (predict(grey[1::2]) == truth[1::2]).mean()
    assert accuracy["default"] < 0.7 < 0.85 < accuracy[name]


# the command


def test_an_unknown_style_is_a_usage_error_that_lists_them(tmp_path):
    with pytest.raises(UsageError, match=r"'wet'.*default, dry, northern"):
        find_style("wet")
    result = CliRunner().invoke(app, ["simulate", "--style", "wet", "--out", str(tmp_path / "w")])
    assert result.exit_code != 0
    assert isinstance(result.exception, UsageError)
    assert not (tmp_path / "w").exists()


def test_the_command_hands_the_style_on(tmp_path, monkeypatch):
    asked = []

    def write(out, cities, options):
        asked.append(options)
        return out / "catalog.json"

    monkeypatch.setattr(demo, "write_archive", write)
    for more in ([], ["--style", "dry"]):
        result = CliRunner().invoke(app, ["simulate", "--out", str(tmp_path), *more])
        assert result.exit_code == 0, result.output
    assert [options.style for options in asked] == [STYLES["default"], STYLES["dry"]]
