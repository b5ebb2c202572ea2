"""`mapper model`: check, field, convert and probe, and the real pixels that they are fed with."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from typer.testing import CliRunner

from mapper.area.grid import Grid
from mapper.cli.commands import app
from mapper.errors import ImageError, ModelError, UsageError
from mapper.inference.card import load_card
from mapper.run.calibrate import calibration_windows
from mapper.run.images import ImageWishes
from mapper.store.shards import write_shards
from mapper.store.template import ArrayTemplate
from mapper.store.view import write_view
from tests.inference.tiny_models import model_item, tiny_graph, write_folder, write_model

PLACE = Affine(10, 0, 500_000.0, 0, -10, 4_500_000.0)
GRID = Grid(epsg=32633, resolution=10, tile=256)
pytestmark = pytest.mark.filterwarnings(
    "ignore:Use `@` matmul instead of:PendingDeprecationWarning",
)


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def folder(tmp_path):
    return write_model(tmp_path / "tiny", kernel=3)


def output_of(*arguments):
    result = CliRunner().invoke(app, ["model", *map(str, arguments)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(*arguments):
    result = CliRunner().invoke(app, ["model", *map(str, arguments)])
    assert result.exit_code == 1
    return result


def properties_of(folder):
    return json.loads((folder / "item.json").read_text())["properties"]


# check -------------------------------------------------------------------------------------


def test_check_tells_that_there_is_no_reference_and_write_makes_one(folder):
    (found,) = json.loads(output_of("check", folder, "--json"))["forms"]
    assert found["state"] == "no reference"
    assert "no reference (--write makes one)" in output_of("check", folder)
    output_of("check", folder, "--write")
    (found,) = json.loads(output_of("check", folder, "--json", "--device", "cpu"))["forms"]
    assert (found["state"], found["name"], found["precision"]) == ("ok", "model", "float32")
    assert found["measured"] == {"relative": 0.0, "changed": 0.0}
    assert found["tolerance"] == {"relative": 1e-4}


def test_check_fails_where_a_form_is_off_its_reference(folder):
    output_of("check", folder, "--write")
    item = json.loads((folder / "item.json").read_text())
    item["assets"]["model"] = {"href": "./model.onnx", "roles": ["mlm:model"]}
    (folder / "item.json").write_text(json.dumps(item))
    (folder / "model.onnx").write_bytes(tiny_graph(kernel=3, seed=4))
    result = refused("check", folder)
    assert isinstance(result.exception, ModelError)
    assert result.exception.exit_code == 3
    assert "1 of 1 forms of 'tiny' are refused: model: relative is" in str(result.exception)
    assert "refused" in result.stdout


@pytest.mark.parametrize("name", ["spectral-baseline", "rgb-baseline"])
def test_shipped_models_give_the_reference_that_numpy_worked_out(name):
    (found,) = json.loads(output_of("check", name, "--json"))["forms"]
    assert found["state"] == "ok"
    assert found["measured"]["relative"] < 1e-6
    assert isinstance(refused("check", name, "--write").exception, UsageError)


# field -------------------------------------------------------------------------------------


def test_a_field_larger_than_the_card_says_is_refused_until_it_is_written(tmp_path):
    item = model_item(kernel=3)
    folder = write_folder(tmp_path / "tiny", item, tiny_graph(kernel=7))
    result = refused("field", folder, "--limit", "128")
    assert result.exception.exit_code == 3
    assert "sees 7 pixels, its card says 3" in str(result.exception)
    assert "7 px" in output_of("field", folder, "--limit", "128", "--write")
    assert properties_of(folder)["mapper:receptive_field"] == 7
    assert properties_of(folder)["mapper:global_context"] is False
    assert json.loads(output_of("field", folder, "--limit", "128", "--json"))["pixels"] == 7


def test_a_field_smaller_than_the_card_says_is_no_fault(tmp_path):
    folder = write_folder(tmp_path / "tiny", model_item(kernel=9), tiny_graph(kernel=3))
    assert "3 px" in output_of("field", folder, "--limit", "128")
    assert properties_of(folder)["mapper:receptive_field"] == 9


def test_a_field_beyond_the_limit_needs_global_context(tmp_path):
    folder = write_folder(tmp_path / "tiny", model_item(kernel=3), tiny_graph(kernel=61))
    result = refused("field", folder, "--limit", "64")
    assert "looks beyond windows of 64 pixels" in str(result.exception)
    output_of("field", folder, "--limit", "64", "--write")
    assert properties_of(folder)["mapper:global_context"] is True
    assert properties_of(folder)["mapper:receptive_field"] == 3
    output_of("field", folder, "--limit", "64")


# convert and probe -------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path):
    """Two bands of reflectance times 10000; the left half has no data."""
    values = np.random.default_rng(3).integers(1, 10_000, (2, 120, 200)).astype(np.uint16)
    values[:, :, :100] = 0
    path = tmp_path / "scene.tif"
    options = {"driver": "GTiff", "height": 120, "width": 200, "count": 2, "dtype": "uint16"}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=PLACE, nodata=0, **options) as file:
        file.write(values)
    return path, values


def test_convert_prints_what_it_measured_and_probe_times_both_forms(folder, image, tmp_path):
    out = tmp_path / "out"
    real = ["--calibrate", image[0], "--scale", "0.0001", "--samples", "8"]
    told = output_of("convert", folder, "--to", "int8", "-o", out, *real)
    assert "model-int8" in told
    assert "2 held-out windows" in told
    rows = json.loads(output_of("probe", out, "--json"))["measured"]
    assert {(r["form"], r["precision"]) for r in rows} == {
        ("model", "float32"),
        ("model-int8", "int8"),
    }
    assert [r["batch"] for r in rows if r["form"] == "model"][:2] == [1, 2]
    assert all(r["rate"] > 0 and r["window"] >= r["core"] for r in rows)
    assert "core pixels a second" in output_of("probe", out)


def test_probe_takes_the_window_sizes_of_the_card(tmp_path):
    window = {"size": 64, "mode": "core", "sizes": [48, 80]}
    folder = write_model(tmp_path / "tiny", kernel=3, mapper_window=window)
    rows = json.loads(output_of("probe", folder, "--json"))["measured"]
    # the largest usual core that leaves a halo of a pixel on each side
    assert {(r["window"], r["core"]) for r in rows} == {(48, 32), (80, 64)}


def test_a_form_that_cannot_be_timed_is_told_with_its_reason(folder):
    item = json.loads((folder / "item.json").read_text())
    (folder / "model.pt").write_bytes(b"code")
    item["assets"]["script"] = {"href": "./model.pt", "roles": ["mlm:model"]}
    (folder / "item.json").write_text(json.dumps(item))
    rows = json.loads(output_of("probe", folder, "--json"))["measured"]
    (script,) = [r for r in rows if r["form"] == "script"]
    assert script["rate"] is None
    assert "--trust-model" in script["text"]


# real pixels -------------------------------------------------------------------------------


def test_windows_of_an_image_are_its_pixels_scaled_where_half_is_data(image, tmp_path):
    item = model_item(mapper_fill=-5)
    item["properties"]["mlm:input"][0]["value_scaling"] = [{"type": "offset", "value": 0.25}]
    card = load_card(str(write_folder(tmp_path / "tiny", item, tiny_graph())))
    path, values = image
    found = calibration_windows([path], card, 40, 6, ImageWishes(scale=1e-4))
    assert len(found) == 6
    for window, valid in found:
        assert window.shape == valid.shape == (1, 2, 40, 40)
        assert valid.mean() >= 0.5
        np.testing.assert_array_equal(window[valid == 0], -5)
        corner = np.round((window[0, :, -1, -1] + 0.25) * 1e4).astype(int)
        rows, cols = np.where((values == corner[:, None, None]).all(axis=0))
        places = [
            values[:, r - 39 : r + 1, c - 39 : c + 1] for r, c in zip(rows, cols, strict=True)
        ]
        shown = np.where(valid[0] > 0, np.round((window[0] + 0.25) * 1e4), 0)
        assert any(np.array_equal(place, shown) for place in places)
    again = calibration_windows([path], card, 40, 6, ImageWishes(scale=1e-4))
    np.testing.assert_array_equal(found[5][0], again[5][0])


def cube(tmp_path, **arrays):
    """A run's cube of one tile, with arrays by source: bands, stored type, fill and scale."""
    key = GRID.key(2000, 200)
    templates, values = [], {}
    for name, (bands, dtype, fill, scale, content) in arrays.items():
        attributes = {"scale_factor": scale} if scale else {}
        template = ArrayTemplate(
            name=name, dtype=dtype, fill=fill, bands=bands, attributes=attributes
        )
        templates.append(template)
        values[name] = content
    pairs = [(t, values[t.name]) for t in templates]
    shards = write_shards(tmp_path, key, "step", "abc", pairs)
    files = {t: {key: tmp_path / s.path} for t, s in zip(templates, shards, strict=True)}
    write_view(tmp_path / "cube.zarr", GRID, files, {})
    return tmp_path / "cube.zarr"


def test_windows_of_a_cube_find_their_bands_by_name(tmp_path):
    rng = np.random.default_rng(5)
    optical = rng.integers(1, 9999, (3, 256, 256)).astype(np.uint16)
    radar = rng.normal(-12, 3, (1, 256, 256)).astype(np.float32)
    radar[0, 100:140] = np.nan
    path = cube(
        tmp_path,
        s2=(("green", "nir", "red"), "uint16", 0, 1e-4, optical),
        s1=(("vv",), "float32", float("nan"), None, radar),
    )
    bands = ("s2:red", "s1:vv", "s2:nir")
    card = load_card(str(write_model(tmp_path / "tiny", bands=bands)))
    ((window, valid),) = calibration_windows([path], card, 256, 1, ImageWishes())
    np.testing.assert_allclose(window[0, 0], optical[2] * 1e-4, rtol=1e-5)
    np.testing.assert_allclose(window[0, 2], optical[1] * 1e-4, rtol=1e-5)
    np.testing.assert_array_equal(window[0, 1], np.nan_to_num(radar[0], nan=0))
    np.testing.assert_array_equal(valid[0, 1] == 0, np.isnan(radar[0]))
    lacking = load_card(str(write_model(tmp_path / "other", bands=("s2:red", "dem:height"))))
    with pytest.raises(ImageError, match="lacks dem:height"):
        calibration_windows([path], lacking, 64, 1, ImageWishes())


def test_images_without_a_window_of_data_are_refused(image, folder):
    with pytest.raises(ImageError, match="half filled with data"):
        calibration_windows([image[0]], load_card(str(folder)), 400, 2, ImageWishes(scale=1e-4))


@pytest.mark.archive
def test_float16_of_the_visible_baseline_agrees_on_real_pixels(archive, tmp_path):
    images = sorted((archive / "pnoa-high-resolution").glob("*/image.tif"))[:3]
    real = [part for path in images for part in ("--calibrate", path)]
    out = tmp_path / "out"
    told = output_of(
        "convert", "rgb-baseline", "--to", "float16", "-o", out, *real, "--samples", 12, "--json"
    )
    found = json.loads(told)
    assert found["windows"] == 3
    assert found["disagreement"]["changed"] < 0.001
    assert 0 < found["disagreement"]["relative"] < 0.01
    assert json.loads(output_of("check", out, "--json"))["forms"][1]["state"] == "ok"
