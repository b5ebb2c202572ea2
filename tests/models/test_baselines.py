"""The two formula models: their graphs, their cards, and what they say about real pixels."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import rasterio

from mapper.classes import ClassTable
from tests.schemas import faults

MODELS = Path(__file__).parents[2] / "models"
NAMES = ("spectral-baseline", "rgb-baseline")
WATER, GREEN, BUILT, BARE, OTHER = range(5)


def load(name):
    return onnxruntime.InferenceSession(
        str(MODELS / name / "model.onnx"), providers=["CPUExecutionProvider"]
    )


@pytest.fixture(scope="module")
def spectral():
    return load("spectral-baseline")


@pytest.fixture(scope="module")
def rgb():
    return load("rgb-baseline")


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def card(name):
    return json.loads((MODELS / name / "item.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def archive():
    path = Path(os.environ.get("MAPPER_TEST_ARCHIVE", "/nonexistent"))
    if not path.is_dir():
        pytest.skip("MAPPER_TEST_ARCHIVE does not name the folder of real rasters")
    return path


def logits(session, image, valid):
    return session.run(None, {"image": image, "valid": valid})[0]


def pixel(**values):
    """One pixel of the spectral model from the named bands; all others are missing."""
    order = ("red", "green", "nir", "blue", "swir", "vv", "vh")
    image, valid = np.zeros((2, 1, 7, 1, 1), np.float32)
    for band, value in values.items():
        image[0, order.index(band)] = value
        valid[0, order.index(band)] = 1
    return image, valid


def winner(session, **values):
    return int(logits(session, *pixel(**values)).argmax())


def noise(channels, scale, seed=0, shape=(2, 33, 47)):
    rng = np.random.default_rng(seed)
    n, h, w = shape
    image = rng.random((n, channels, h, w), np.float32) * np.float32(scale)
    valid = (rng.random(image.shape) < 0.7).astype(np.float32)
    return np.where(valid > 0, image, 0).astype(np.float32), valid


# the graph ----------------------------------------------------------------------------------


def test_graph_keeps_the_contract(name, card):
    proto = onnx.load(MODELS / name / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version <= 10
    assert [o.version for o in proto.opset_import if o.domain == ""] in ([17], [18])
    assert not any(t.external_data for t in proto.graph.initializer)
    assert len(proto.graph.node) <= 15
    inputs = {i["name"]: i["input"]["shape"] for i in card["properties"]["mlm:input"]}
    for port in proto.graph.input:
        dims = port.type.tensor_type.shape.dim
        assert [d.dim_value or -1 for d in dims] == inputs[port.name]
    outputs = card["properties"]["mlm:output"][0]
    dims = proto.graph.output[0].type.tensor_type.shape.dim
    assert proto.graph.output[0].name == outputs["name"] == "logits"
    assert [d.dim_value or -1 for d in dims] == outputs["result"]["shape"]


@pytest.mark.parametrize("fill", [0.5, -1e30, 3.4e38, np.nan, np.inf, -np.inf])
def test_missing_values_have_no_influence(name, fill):
    session = load(name)
    channels = session.get_inputs()[0].shape[1]
    image, valid = noise(channels, 255 if channels == 3 else 0.6)
    expected = logits(session, image, valid)
    filled = np.where(valid > 0, image, np.float32(fill)).astype(np.float32)
    result = logits(session, filled, valid)
    assert np.isfinite(result).all()
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("value", [0.0, 1e-30, -0.2, 1e6])
def test_odd_but_valid_values_stay_finite(name, value):
    session = load(name)
    image = np.full((1, session.get_inputs()[0].shape[1], 3, 3), value, np.float32)
    assert np.isfinite(logits(session, image, np.ones_like(image))).all()


def test_every_pixel_is_judged_alone(name):
    session = load(name)
    channels = session.get_inputs()[0].shape[1]
    image, valid = noise(channels, 255 if channels == 3 else 0.6, shape=(3, 61, 70))
    whole = logits(session, image, valid)
    part = np.s_[1:2, :, 7:40, 13:44]
    crop = logits(session, image[part].copy(), valid[part].copy())
    np.testing.assert_array_equal(crop, whole[part])
    order = np.random.default_rng(1).permutation(70)
    shuffled = logits(session, image[..., order].copy(), valid[..., order].copy())
    np.testing.assert_array_equal(shuffled, whole[..., order])


def test_build_writes_the_shipped_bytes(name, tmp_path):
    shutil.copytree(MODELS, tmp_path / "models", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "models" / name
    for made in ("model.onnx", "reference.npz", "item.json"):
        (folder / made).unlink()
    subprocess.run([sys.executable, "-B", folder / "build.py"], check=True, cwd=tmp_path)
    for made in ("model.onnx", "reference.npz", "item.json"):
        assert (folder / made).read_bytes() == (MODELS / name / made).read_bytes(), made


# the card -----------------------------------------------------------------------------------


def test_card_describes_the_files_beside_it(name, card):
    for asset in card["assets"].values():
        content = (MODELS / name / asset["href"]).read_bytes()
        assert asset["file:size"] == len(content)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()


def test_card_names_bands_once_and_in_order(name, card):
    fields = card["properties"]
    image, valid = fields["mlm:input"]
    assert (image["name"], valid["name"]) == ("image", fields["mapper:validity_input"])
    assert image["bands"] == valid["bands"] == [b["name"] for b in fields["bands"]]
    required = fields["mapper:required"]
    assert required == image["bands"][: len(required)]
    assert set(fields["mapper:units"]) == set(image["bands"])
    assert fields["mlm:name"] == card["id"] == name
    assert fields["mlm:total_parameters"] == 0


def test_classes_follow_the_channels(name, card):
    output = card["properties"]["mlm:output"][0]
    table = ClassTable.from_stac(output["classification:classes"])
    assert table.values == tuple(range(output["result"]["shape"][1]))
    green = {c.name: c.color for c in table.classes}["green"]
    assert green == "397D49"


@pytest.mark.archive
def test_card_is_valid_stac(card, archive):
    assert faults(card, archive) == []


@pytest.mark.archive
@pytest.mark.parametrize("field", ["mlm:name", "mlm:output", "bands"])
def test_validation_notices_a_missing_field(card, archive, field):
    del card["properties"][field]
    assert faults(card, archive)


# what the rules say -------------------------------------------------------------------------

LAKE = {"red": 0.03, "green": 0.06, "nir": 0.02}
FOREST = {"red": 0.03, "green": 0.05, "nir": 0.35}
CONCRETE = {"red": 0.18, "green": 0.17, "nir": 0.21}
SOIL = {"red": 0.22, "green": 0.15, "nir": 0.28}
MEADOW_IN_DROUGHT = {"red": 0.10, "green": 0.09, "nir": 0.20}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (LAKE, WATER),
        (LAKE | {"swir": 0.01, "vv": -20, "vh": -27}, WATER),
        (FOREST, GREEN),
        (FOREST | {"swir": 0.15, "blue": 0.02, "vv": -9, "vh": -15}, GREEN),
        (CONCRETE, BUILT),
        (CONCRETE | {"blue": 0.15, "swir": 0.23, "vv": -4, "vh": -12}, BUILT),
        (SOIL, BARE),
        (SOIL | {"blue": 0.10, "swir": 0.38, "vv": -14, "vh": -21}, BARE),
        (MEADOW_IN_DROUGHT, OTHER),
    ],
)
def test_textbook_spectra(spectral, values, expected):
    assert winner(spectral, **values) == expected


def test_short_wave_infrared_unmasks_a_blue_roof(spectral):
    roof = {"red": 0.16, "green": 0.20, "nir": 0.14}
    assert winner(spectral, **roof) == WATER
    assert winner(spectral, **roof, swir=0.25) == BUILT


def test_short_wave_infrared_tells_soil_from_street(spectral):
    grey = {"red": 0.20, "green": 0.18, "nir": 0.24, "blue": 0.14}
    assert winner(spectral, **grey) == BUILT
    assert winner(spectral, **grey, swir=0.40) == BARE
    assert winner(spectral, **grey, swir=0.24) == BUILT


def test_double_bounce_speaks_for_buildings(spectral):
    tiles = {"red": 0.24, "green": 0.17, "nir": 0.30}
    assert winner(spectral, **tiles) == BARE
    assert winner(spectral, **tiles, vv=-3, vh=-11) == BUILT


def test_smooth_surface_speaks_for_water(spectral):
    turbid = {"red": 0.11, "green": 0.11, "nir": 0.12}
    alone = logits(spectral, *pixel(**turbid))[0, WATER, 0, 0]
    smooth = logits(spectral, *pixel(**turbid, vv=-21, vh=-28))[0, WATER, 0, 0]
    rough = logits(spectral, *pixel(**turbid, vv=-9, vh=-16))[0, WATER, 0, 0]
    assert smooth - alone == pytest.approx(3, abs=1e-4)
    assert alone - rough == pytest.approx(1.5, abs=1e-4)


def test_green_grows_with_ndvi(spectral):
    scores = []
    for nir in (0.10, 0.15, 0.20, 0.25, 0.30):
        raw = logits(spectral, *pixel(red=0.1, green=0.1, nir=nir))[0, :, 0, 0]
        scores.append(np.exp(raw[GREEN]) / np.exp(raw).sum())
    assert np.all(np.diff(scores) > 0)
    assert scores[0] < 0.01 < 0.5 < scores[-1]


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ((60, 90, 50), 1),
        ((35, 48, 30), 1),
        ((150, 170, 90), 1),
        ((190, 110, 80), 0),
        ((128, 128, 128), 0),
        ((90, 110, 140), 0),
        ((0, 0, 0), 0),
        ((255, 255, 255), 0),
    ],
)
def test_colours(rgb, color, expected):
    image = np.array(color, np.float32)[None, :, None, None]
    assert int(logits(rgb, image, np.ones_like(image)).argmax()) == expected


# real pixels --------------------------------------------------------------------------------


def read(path):
    with rasterio.open(path) as raster:
        return raster.read()


@pytest.fixture(scope="module")
def bolzano(archive, spectral):
    """Classes of the Bolzano scene from red, green, nir and blue, and its scene classes."""
    folder = archive / "sentinel-2-l2a" / "S2_32TPS_20220612_bolzano"
    numbers = np.concatenate([read(folder / f"{b}.tif") for b in ("B04", "B03", "B08", "B02")])
    image = np.zeros((1, 7, *numbers.shape[1:]), np.float32)
    image[0, :4] = np.clip(numbers / 1e4, 0, 1)
    valid = np.zeros_like(image)
    valid[0, :4] = numbers > 0
    return logits(spectral, image, valid)[0].argmax(0), read(folder / "SCL.tif")[0]


@pytest.mark.archive
def test_bolzano_agrees_with_its_scene_classes(bolzano):
    classes, scene = bolzano
    assert (classes[scene == 4] == GREEN).mean() > 0.95
    assert (classes[scene == 6] == WATER).mean() > 0.7
    assert (classes[scene == 5] == BUILT).mean() > 0.5
    assert (classes[scene == 4] == BUILT).mean() < 0.01


@pytest.mark.archive
@pytest.mark.parametrize(
    ("rows", "columns", "expected", "share"),
    [
        ((440, 600), (330, 420), BUILT, 0.75),
        ((250, 320), (540, 620), BUILT, 0.6),
        ((500, 700), (600, 800), GREEN, 0.95),
        ((395, 402), (440, 470), WATER, 0.5),
    ],
    ids=["industry", "old town", "forest", "river"],
)
def test_bolzano_places(bolzano, rows, columns, expected, share):
    part = bolzano[0][slice(*rows), slice(*columns)]
    assert (part == expected).mean() > share


@pytest.mark.archive
def test_valencia_gardens_are_greener_than_streets(archive, rgb):
    inside, outside = [], []
    for block in ("26160_19946", "26160_19947"):
        folder = f"pnoa_valencia_{block}"
        image = read(archive / "pnoa-high-resolution" / folder / "image.tif")[None]
        park = read(archive / "labels-green" / f"green_{folder}" / "data.tif")[0] == 1
        green = logits(rgb, image.astype(np.float32), np.ones(image.shape, np.float32))
        green = green[0].argmax(0) == 1
        inside.append(green[park].mean())
        outside.append(green[~park].mean())
    assert np.mean(inside) > 0.5
    assert np.mean(outside) < 0.25
