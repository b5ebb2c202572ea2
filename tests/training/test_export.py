"""Exported networks: every form, held against the network that it was made of."""

import json
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
import rasterio
import torch

from mapper.errors import ModelError, UsageError
from mapper.inference.card import load_card
from mapper.inference.convert import convert_model
from mapper.inference.folder import Opening, check_forms, open_unchecked
from mapper.inference.parity import check_parity, read_reference
from mapper.inference.runtime import load_runtime
from mapper.run.images import ImageWishes
from mapper.run.predict import PredictOptions, predict_images
from mapper.training import export as module
from mapper.training.export import ExportOptions, export_formats, export_model
from mapper.training.networks.build import NETWORKS
from tests.schemas import faults
from tests.training.lessons import BANDS, make_trained, town, write_tiff

pytestmark = pytest.mark.usefixtures("one_thread", "own_home")

CARD = {
    "title": "Towns of three colours",
    "license": "CC-BY-4.0",
    "data_license": "CC0-1.0",
    "attribution": "Made for tests",
    "limits": ["Cadastral work", "Anything at night"],
}
PROGRAMS = [
    pytest.param(name, marks=() if name == "unet" else pytest.mark.slow) for name in NETWORKS
]
"""Programs of torch.export take seconds each."""


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    """What was exported and measured here is noted in a folder of the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_REFERENCE_SIDE", 64)


def exported(folder, *formats, trained=None, field_limit=64, **changed):
    """A model folder, and the network that it was made of."""
    trained = trained or make_trained(card=CARD, **changed)
    options = ExportOptions(
        out=folder, name="towns", formats=formats or ("onnx",), field_limit=field_limit
    )
    return trained, export_model(trained, options)


def agree(trained, card, shapes=((2, 64, 96),)):
    """The form that a card chose gives the network's logits, at several sizes and batches."""
    runtime = open_unchecked(card, Opening())
    rng = np.random.default_rng(9)
    multiple = max(32, trained.network.network.multiple)
    for batch, *sides in shapes:
        height, width = (-(-side // multiple) * multiple for side in sides)
        shape = (batch, len(card.bands), height, width)
        image = rng.normal(0, 1, shape).astype(np.float32)
        valid = (rng.random(shape) > 0.2).astype(np.float32)
        with torch.inference_mode():
            known = valid if trained.train.needs_validity else np.ones_like(valid)
            expected = trained.network(torch.from_numpy(image), torch.from_numpy(known)).numpy()
        found = runtime.run(image, valid)
        if trained.network.network.stepwise:
            same = (found.argmax(axis=1) == expected.argmax(axis=1)).mean()
            assert same > 0.999
        else:
            span = expected.max() - expected.min()
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * span)


# forms --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_and_scripts_are_the_network(name, tmp_path):
    trained, made = exported(tmp_path / "model", "onnx", "torchscript", network=name)
    assert set(made.forms) == {"model", "model-torchscript"}
    for key in made.forms:
        card = load_card(str(made.folder), key)
        assert card.artifact.shape == (None, None)
        assert card.global_context or name in ("unet", "fbp-unet")
        agree(trained, card)
    assert made.bytes == sum(p.stat().st_size for p in made.folder.iterdir())
    assert [p.name for p in tmp_path.iterdir() if "model" in p.name] == ["model"]


def test_a_folder_opens_as_any_other(tmp_path):
    _, made = exported(tmp_path / "model", "onnx", "torchscript")
    checks = check_forms(load_card(str(made.folder)), "all", Opening())
    assert [(c.form, c.state, c.reason) for c in checks] == [
        ("onnx", "ok", ""),
        ("torchscript", "ok", ""),
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_the_network(name, tmp_path):
    trained, made = exported(tmp_path / "model", "pt2", network=name)
    card = load_card(str(made.folder))
    check_parity(card, load_runtime(card, 1))
    agree(trained, card)


@pytest.mark.parametrize("presence", [False, True])
def test_what_is_missing_enters_the_graph(presence, tmp_path):
    trained, made = exported(
        tmp_path / "model",
        "onnx",
        "torchscript",
        presence=presence,
        required=[BANDS[0]],
        bands=[*BANDS, "sentinel1:vv"],
        fill=0.25,
    )
    for key in made.forms:
        card = load_card(str(made.folder), key)
        assert card.required == (BANDS[0],)
        assert card.validity_input == "valid"
        assert card.fill == 0.25
        agree(trained, card)


def test_a_graph_for_every_runtime(tmp_path):
    _, made = exported(tmp_path / "model")
    graph = onnx.load(made.folder / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    assert [i.name for i in graph.graph.input] == ["image"]
    assert [o.name for o in graph.graph.output] == ["logits"]
    assert {o.version for o in graph.opset_import if o.domain in ("", "ai.onnx")} == {17}
    shape = graph.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in shape] == [0, 3, 0, 0]


def test_the_reference_has_a_hole(tmp_path):
    trained, made = exported(tmp_path / "model", required=[], fill=-3.0)
    image, valid, output = read_reference(load_card(str(made.folder)))
    assert 0 < (valid == 0).mean() < 0.1
    assert (image[valid == 0] == -3).all()
    with torch.inference_mode():
        expected = trained.network(torch.from_numpy(image), torch.from_numpy(valid)).numpy()
    np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize(("depth", "field"), [(1, 5), (2, 21)])
def test_the_receptive_field_is_what_convolutions_add_up_to(depth, field, tmp_path):
    """Two 3x3 see 5 pixels. A level below, two more of twice the stride, bilinear and two on top.

    Along one axis and to one side, at depth 2: 2 for the outer pair above, 1 coarse pixel by the
    bilinear step, 2 coarse pixels by the pair below, then 2 of the inner pair, where the coarse
    pixels cover two: 2 + 2 * (1 + 2) + 2 = 10.
    """
    _, made = exported(tmp_path / "model", options={"width": 4, "depth": depth})
    assert made.receptive_field == field
    assert not made.global_context
    assert load_card(str(made.folder)).receptive_field == field


def test_a_field_beyond_the_limit_is_global(tmp_path):
    _, made = exported(
        tmp_path / "model", options={"width": 2, "depth": 4}, window={"size": 128, "mode": "core"}
    )
    assert made.global_context
    assert made.receptive_field == 128


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_other_precisions(precision, tmp_path):
    _, made = exported(tmp_path / "model")
    card = load_card(str(made.folder))
    rng = np.random.default_rng(4)
    windows = []
    for number in range(6):
        image = town(number)[0][None] / np.float32(255) + rng.normal(0, 0.01, (1, 3, 64, 64))
        windows.append((image.astype(np.float32), np.ones((1, 3, 64, 64), np.float32)))
    out = tmp_path / "converted"
    found = convert_model(card, precision, out, windows, Opening())
    assert found.windows >= 1
    assert found.disagreement["changed"] < 0.1
    checks = check_forms(load_card(str(out)), "all", Opening())
    assert [(c.precision, c.state) for c in checks] == [("float32", "ok"), (precision, "ok")]


# the folder ---------------------------------------------------------------------------------


def test_the_card_is_that_of_the_recipe(tmp_path):
    trained, made = exported(
        tmp_path / "model",
        bands=[BANDS[2], BANDS[0]],
        scaling=[
            {"type": "min-max", "minimum": 0, "maximum": 255},
            {"type": "z-score", "mean": 3, "stddev": 2, "mapper:clip": [-1, 1]},
        ],
        fill=0.5,
        data_type="uint8",
        classes=[
            {"value": 7, "name": "land", "color": "8429f6"},
            {"value": 2, "name": "road", "color": "6EC1E4", "title": "Roads"},
        ],
    )
    card = load_card(str(made.folder))
    assert card.bands == card.required == (BANDS[2], BANDS[0])
    assert card.classes.values == (7, 2)
    assert [c.title for c in card.classes.classes] == ["land", "Roads"]
    assert [c.color for c in card.classes.classes] == ["8429F6", "6EC1E4"]
    assert (card.fill, card.data_type, card.activation, card.temperature) == (
        0.5,
        "uint8",
        "softmax",
        1.0,
    )
    assert card.validity_input is None
    assert dict(card.window)["size"] == 64
    assert card.license == "CC-BY-4.0"
    raw = np.array([[255.0, 4.0]], np.float32).reshape(1, 2, 1, 1)
    scaled = card.scale(raw, np.ones_like(raw, bool))
    assert scaled.ravel().tolist() == pytest.approx([1.0, 0.5])
    properties = card.item["properties"]
    assert properties["mlm:total_parameters"] == sum(
        p.numel() for p in trained.network.parameters()
    )
    assert properties["mlm:architecture"] == "UNet"
    assert properties["mapper:limits"] == CARD["limits"]
    assert properties["mapper:training"]["scores"]["miou"] == 0.8125


def test_the_readme_tells_limits_and_scores(tmp_path):
    trained, made = exported(tmp_path / "model")
    text = (made.folder / "README.md").read_text()
    for limit in CARD["limits"]:
        assert f"- {limit}." in text
    assert text.index("Must not be used for") < text.index("Cadastral work")
    assert "| mIoU | 0.8125 |" in text
    assert "| overall accuracy | 0.9375 |" in text
    assert "CC-BY-4.0" in text
    assert "CC0-1.0" in text
    assert "1,234 pixels" in text
    assert "chico" in text
    assert "started at random" in text
    parameters = sum(p.numel() for p in trained.network.parameters())
    assert f"{parameters:,} parameters" in text


def test_sentences_end_once(tmp_path):
    limits = ["Ends with a full stop.", "Does not"]
    _, made = exported(tmp_path / "model", trained=make_trained(card=CARD | {"limits": limits}))
    assert ".." not in (made.folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["gum", "unet"])
def test_networks_that_see_everything_say_so(name, tmp_path):
    _, made = exported(tmp_path / "model", network=name)
    card = load_card(str(made.folder))
    assert card.global_context == made.global_context == (name == "gum")
    if name == "gum":
        assert card.receptive_field == 64


def test_lineage_and_scores_that_there_are_not(tmp_path):
    trained = make_trained()
    about = {"lineage": {"from": "older"}, "scores": {}}
    trained = type(trained)(network=trained.network, train=trained.train, about=about)
    _, made = exported(tmp_path / "model", trained=trained)
    text = (made.folder / "README.md").read_text()
    assert "Started from: older" in text
    assert "None were kept" in text
    assert "Nothing was stated" in text


# adapted ------------------------------------------------------------------------------------


def adapted(method, folder, kept="last", start="weights of the source", **scores):
    """The README of a model that was adapted."""
    trained = make_trained()
    about = trained.about | {
        "kept": kept,
        "scores": {"miou": 0.75, "accuracy": 0.5, "entropy": 0.25, "loss": 1.5} | scores,
        "adapted": {
            "method": method,
            "source": "towns",
            "target": {"set": "far", "images": 6},
            "start": start,
            "normalised": True,
            "chosen_by": kept,
        },
    }
    _, made = exported(folder, trained=replace(trained, about=about))
    return (made.folder / "README.md").read_text()


def test_scores_of_an_adapted_model_are_called_those_of_the_source(tmp_path):
    text = adapted("dpa", tmp_path / "model")
    assert (
        "by dpa: from towns to far, 6 images, each scaled by its own statistics. The last" in text
    )
    scores = text[text.index("## Scores") :]
    assert scores.startswith("## Scores on the held-out part of the source\n")
    assert scores.count("| ") == 3 * 2
    assert "On the target, far, nothing was scored." in scores
    assert "of the source" in scores
    assert "0.25" not in scores
    assert "1.5" not in scores
    _, made = exported(tmp_path / "plain")
    assert "source" not in (made.folder / "README.md").read_text().split("## Scores")[1]


def test_scores_of_the_target_are_named(tmp_path):
    text = adapted("consistent", tmp_path / "model", "entropy", target_miou=0.625)
    assert "The epoch was chosen by entropy." in text
    assert "The scores are those of the epoch that entropy on the target chose." in text
    assert "On the target, far, the mIoU is 0.6250, by labels that nothing was learned" in text
    assert "flattering" not in text
    assert "flattering" in adapted("consistent", tmp_path / "best", "source")


@pytest.mark.parametrize("start", ["weights of the source", "random weights"])
def test_what_was_not_adapted_says_so(start, tmp_path):
    text = adapted("source", tmp_path / "model", start=start)
    assert f"- Not adapted: {start} as they are.\n" in text
    assert "epoch" not in text
    text = adapted("adabn", tmp_path / "statistics")
    assert "by adabn: from towns to far" in text
    assert "no weight was moved" in text
    assert "epoch" not in text


# refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0.001, 10.0])
def test_a_form_that_is_off_is_refused(size, tmp_path, monkeypatch):
    """And nothing is left of it."""
    honest = module._save_onnx

    def broken(trained, sample, path):
        with torch.no_grad():
            weight = trained.network.network.classify.weight
            weight += size
            honest(trained, sample, path)
            weight -= size

    monkeypatch.setattr(module, "_save_onnx", broken)
    with pytest.raises(ModelError, match="off the network"):
        exported(tmp_path / "model")
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("state", "cache")] == []


def test_an_exporter_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def failing(*_, **__):
        raise RuntimeError("no such operator\nand a long story")

    monkeypatch.setattr(torch.onnx, "export", failing)
    with pytest.raises(ModelError, match=r"unet cannot be exported as onnx: no such operator$"):
        exported(tmp_path / "model")
    assert not list(tmp_path.glob("*model*"))


def test_networks_that_went_astray_are_refused(tmp_path):
    trained = make_trained()
    with torch.no_grad():
        trained.network.network.classify.bias[0] = torch.nan
    with pytest.raises(ModelError, match="NaN"):
        exported(tmp_path / "model", trained=trained)
    assert not list(tmp_path.glob("*model*"))


def test_folders_are_not_written_over(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(UsageError, match="there already"):
        exported(tmp_path / "model")
    with pytest.raises(UsageError, match="no format"):
        export_model(make_trained(), ExportOptions(out=tmp_path / "x", name="x", formats=()))


def test_formats_by_name():
    assert export_formats(["pt2", "onnx", "pt2"]) == ("pt2", "onnx")
    with pytest.raises(UsageError, match="tflite"):
        export_formats(["onnx", "tflite"])


def test_code_from_elsewhere_is_not_run(tmp_path, monkeypatch):
    """TorchScript runs where it was exported, and nowhere else unasked."""
    _, made = exported(tmp_path / "model", "torchscript")
    card = load_card(str(made.folder))
    assert check_forms(card, "all", Opening())[0].state == "ok"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    found = check_forms(card, "all", Opening())[0]
    assert found.state == "refused"
    assert re.search("trust", found.reason)


# the item -----------------------------------------------------------------------------------


@pytest.mark.archive
@pytest.mark.parametrize("required", [None, [BANDS[0]]])
def test_the_item_is_valid_stac(required, tmp_path, archive):
    _, made = exported(tmp_path / "model", "onnx", "torchscript", required=required)
    item = json.loads((made.folder / "item.json").read_text())
    assert faults(item, archive) == []
    del item["properties"]["mlm:output"]
    assert faults(item, archive)


# maps ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Use `@` matmul instead of:PendingDeprecationWarning")
def test_an_exported_model_maps_an_image(tmp_path):
    """The map is what the network says of the scaled image, in the classes' values."""
    classes = [
        {"value": 3, "name": "land", "color": "8429F6"},
        {"value": 9, "name": "road", "color": "6EC1E4"},
        {"value": 4, "name": "water", "color": "E2A929"},
    ]
    trained, made = exported(tmp_path / "model", classes=classes)
    image, _ = town(5, side=96)
    path = write_tiff(tmp_path / "images" / "town.tif", image)
    options = PredictOptions(
        image=path,
        model=str(made.folder),
        out=tmp_path / "maps",
        settings=("threads=1", "batch=2"),
        images=ImageWishes(),
        device="cpu",
    )
    report = predict_images(options)
    report.check()
    assert [r.state for r in report.results] == ["mapped"]
    with rasterio.open(tmp_path / "maps" / "town.tif") as raster:
        found, nodata = raster.read(1), raster.nodata
    with torch.inference_mode():
        logits = trained.network(torch.from_numpy(image[None] / np.float32(255)))
    expected = np.array([3, 9, 4])[logits[0].argmax(dim=0).numpy()]
    # the border aside, where the image ends
    inner = np.s_[12:-12, 12:-12]
    assert (found[inner] == expected[inner]).mean() > 0.999
    assert (found != nodata).all()
