"""`mapper train`, `export` and `evaluate` one after the other, and what they refuse."""

import json

import jsonschema
import numpy as np
import pytest
import rasterio
import yaml
from typer.testing import CliRunner

from mapper.cli.commands import app
from mapper.cli.library import RECIPE_COLUMNS
from mapper.errors import DataError, UsageError
from mapper.inference.card import load_card
from mapper.recipe import load_recipe
from tests.training.lessons import make_recipe, town, write_images, write_tiff

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use `@` matmul instead of:PendingDeprecationWarning",
)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name))


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(make_recipe(epochs=2).model_dump(mode="json")))
    return path


def ran(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code != 0
    return result.exception


def test_from_labelled_images_to_a_map(recipe, tmp_path):
    data, training = write_images(tmp_path / "set"), tmp_path / "training"
    ran(
        "train",
        recipe,
        "--data",
        data,
        "--out",
        training,
        "--set",
        "epochs=8",
        "--set",
        "patches=24",
    )
    again = ran(
        "train",
        recipe,
        "--data",
        data,
        "--out",
        training,
        "--set",
        "epochs=8",
        "--set",
        "patches=24",
        "--json",
    )
    assert json.loads(again.splitlines()[-1])["resumed"]
    said = ran("export", training, "--out", tmp_path / "model", "--name", "own-model")
    assert "sees" in said
    plain = load_card(str(tmp_path / "model"))
    about = ("--data", data, "--recipe", recipe, "--part", "validation", "--write", "--json")
    lines = ran("evaluate", tmp_path / "model", *about, "--out", tmp_path / "report").splitlines()
    found = json.loads(lines[-1])
    assert found["images"] == 2
    assert found["scores"]["mean_iou"] > 0.8
    card = load_card(str(tmp_path / "model"))
    assert card.temperature != plain.temperature
    assert card.item["properties"]["mapper:evaluation"]["mean_iou"] == pytest.approx(
        found["scores"]["mean_iou"]
    )
    assert (tmp_path / "report" / "evaluation.png").stat().st_size > 10_000
    image, label = town(99)
    path = write_tiff(tmp_path / "new" / "town99.tif", image)
    ran("predict", path, "--model", tmp_path / "model", "--out", tmp_path / "maps")
    with rasterio.open(tmp_path / "maps" / "town99.tif") as mapped:
        assert (mapped.read(1) == label).mean() > 0.8


def test_settings_that_cannot_be(recipe, tmp_path):
    data = write_images(tmp_path / "set", count=4)
    for setting, says in (
        ("epochs", "KEY=VALUE"),
        ("epochs=0", "train.epochs"),
        ("epoch=3", "epoch"),
        ("network.nothing.here=1", "no part 'nothing'"),
        ("network.options={width: [", "no YAML"),
    ):
        error = refused("train", recipe, "--data", data, "--out", tmp_path / "t", "--set", setting)
        assert isinstance(error, UsageError)
        assert says in str(error)
    assert not (tmp_path / "t").exists()
    error = refused("train", "green-highres", "--data", data, "--out", tmp_path / "t")
    assert "no `train` section" in str(error)


def test_a_model_of_other_classes_needs_a_crosswalk(recipe, tmp_path):
    data = write_images(tmp_path / "set", count=4)
    about = ("--data", data, "--recipe", recipe)
    error = refused("evaluate", "rgb-baseline", *about)
    assert isinstance(error, DataError)
    assert "crosswalk" in str(error)
    walk = tmp_path / "walk.yaml"
    walk.write_text("{classes: [other, green], labels: {land: other, road: green, water: other}}")
    found = ran("evaluate", "rgb-baseline", *about, "--crosswalk", walk, "--json").splitlines()
    scores = json.loads(found[-1])["scores"]
    assert {c["name"] for c in scores["classes"]} == {"other", "green"}
    # roads are drawn green, and green is what the rules see
    assert scores["overall_accuracy"] > 0.95
    walk.write_text("{class: [other]}")
    assert "class" in str(refused("evaluate", "rgb-baseline", *about, "--crosswalk", walk))


def test_the_schema_of_recipes_holds_those_that_are_shipped():
    schema = json.loads(ran("recipe", "show", "ugs-1m", "--schema"))
    for name in ("ugs-1m", "urban-10m", "openearthmap", "subpixel-2m", "fbp-24", "spectral-10m"):
        shown = yaml.safe_load(ran("recipe", "show", name))
        jsonschema.validate(shown, schema)
        assert shown == load_recipe(name).model_dump(mode="json")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "x"}, schema)


def test_lists_say_what_there_is():
    header, *rows = ran("recipes").splitlines()
    assert [*header.split()] == RECIPE_COLUMNS
    line = next(row for row in rows if row.startswith("fbp-24"))
    assert "and 16 more" in line
    assert "not shipped: train it" in line
    assert "none: written rules" in ran("models")


def test_published_tables_are_those_of_the_facts():
    """Ids and colours as published; class weights fit 1 / ln(1.02 + share)."""
    oem = load_recipe("openearthmap").train.table
    assert [(c.value, c.rgb) for c in oem.classes] == [
        (1, (128, 0, 0)),
        (2, (0, 255, 36)),
        (3, (148, 148, 148)),
        (4, (255, 255, 255)),
        (5, (34, 97, 38)),
        (6, (0, 69, 255)),
        (7, (75, 181, 73)),
        (8, (222, 31, 7)),
    ]
    daspm = load_recipe("subpixel-2m").train.table
    assert [c.rgb for c in daspm.classes] == [
        (0, 238, 0),
        (205, 20, 20),
        (255, 255, 0),
        (196, 196, 0),
        (2, 2, 141),
    ]
    gum = load_recipe("urban-10m").train
    assert [c.rgb for c in gum.table.classes] == [(0, 0, 0), (255, 255, 255)]
    fbp = load_recipe("fbp-24").train
    assert fbp.table.values == tuple(range(1, 25))
    assert [fbp.table.classes[k].rgb for k in (0, 11, 23)] == [
        (200, 0, 0),
        (250, 0, 150),
        (200, 150, 0),
    ]
    shares = np.exp(1 / np.array(fbp.loss.class_weights)) - 1.02
    assert shares.sum() == pytest.approx(0.747, abs=0.001)
    assert len({c.rgb for c in fbp.table.classes}) == 24


def test_without_the_training_extra_the_remedy_is_named(recipe, tmp_path, monkeypatch, capsys):
    from mapper.cli import app as command_line

    def missing():
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning")

    monkeypatch.setattr(command_line, "app", missing)
    monkeypatch.setattr(command_line.signal, "signal", lambda *about: None)
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    assert "install mapper[train]" in capsys.readouterr().err
