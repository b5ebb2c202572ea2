"""`mapper adapt` on folders of images: what it prints, leaves behind and refuses."""

import json

import numpy as np
import pytest
import rasterio
import yaml
from typer.testing import CliRunner

from mapper.cli.commands import app
from mapper.errors import (
    AreaError,
    DataError,
    InputError,
    LockedError,
    RecipeError,
    UsageError,
)
from mapper.inference.card import load_card
from mapper.run.lock import hold_folder
from tests.training.lessons import make_recipe, town, write_images, write_tiff

pytestmark = pytest.mark.filterwarnings(
    "ignore:Use `@` matmul instead of:PendingDeprecationWarning",
)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    import torch

    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    adapt = {"method": "source", "epochs": 2, "patches": 8, "adabn": {"batches": 2}}
    content = make_recipe(epochs=6, patches=24, adapt=adapt).model_dump(mode="json")
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def source(tmp_path):
    return write_images(tmp_path / "source", count=6)


@pytest.fixture
def target(tmp_path):
    """A plain folder of images of the same towns, darker."""
    for number in range(20, 24):
        write_tiff(tmp_path / "target" / f"town{number}.tif", town(number)[0] // 2 + 10)
    return tmp_path / "target"


def invoked(*arguments):
    return CliRunner().invoke(app, ["adapt", *(str(a) for a in arguments)])


def ran(*arguments):
    result = invoked(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(*arguments):
    result = invoked(*arguments)
    assert result.exit_code != 0
    return result.exception


def test_a_folder_of_images_gets_a_model(recipe, source, target, tmp_path):
    judge = tmp_path / "judge"
    for number in range(30, 33):
        image, label = town(number)
        write_tiff(judge / "images" / f"town{number}.tif", image // 2 + 10)
        write_tiff(judge / "labels" / f"town{number}.tif", label[None])
    about = (recipe, "--source", source, "--target", target, "--out", tmp_path / "out")
    more = ("--method", "adabn", "--judge", judge)
    said = ran(*about, *more)
    assert "adabn" in said
    done = json.loads(ran(*about, *more, "--json").splitlines()[-1])
    assert (done["kind"], done["method"], done["resumed"]) == ("done", "adabn", True)
    assert (tmp_path / "out" / "source" / "model.safetensors").is_file()
    card = load_card(done["model"])
    assert card.name == "tiny-adapted"
    image, label = town(99)
    path = write_tiff(tmp_path / "new" / "town99.tif", image // 2 + 10)
    result = CliRunner().invoke(
        app, ["predict", str(path), "--model", done["model"], "--out", str(tmp_path / "maps")]
    )
    assert result.exit_code == 0, result.output
    with rasterio.open(tmp_path / "maps" / "town99.tif") as mapped:
        assert np.mean(mapped.read(1) == label) > 0.5
    # the folder is that of this adaptation and no other
    assert "another adaptation" in str(refused(*about, "--method", "dpa"))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (["--method", "magic"], UsageError, "use one of source, adabn, dpa, daspm"),
        (["--together"], UsageError, "--together: not of a target that is a folder of images"),
        (["--city", "Rome", "--year", "2022"], UsageError, "--city, --year: not of a target"),
        (["--set", "adapt.dpa.part=1"], UsageError, "part"),
        (["--device", "tpu"], SystemExit, ""),
        (["--from", "nowhere"], InputError, "nowhere"),
    ],
)
def test_options_that_cannot_be(recipe, source, target, tmp_path, options, error, says):
    found = refused(
        recipe, "--source", source, "--target", target, "--out", tmp_path / "out", *options
    )
    assert isinstance(found, error)
    assert says in str(found)
    assert not (tmp_path / "out" / "model").exists()


def test_settings_lead_into_a_method(recipe, source, target, tmp_path):
    """`--set adapt.dpa.share` is read; a value that cannot be is refused by its name."""
    about = (recipe, "--source", source, "--target", target, "--out", tmp_path / "out")
    error = refused(*about, "--set", "adapt.dpa.share=3")
    assert isinstance(error, UsageError)
    assert "adapt.dpa.share" in str(error)


def test_a_target_without_a_band_is_refused_by_name(recipe, source, target, tmp_path):
    about = (recipe, "--source", source, "--target", target, "--out", tmp_path / "out")
    error = refused(*about, "--set", "bands=['highres:red','highres:nir']")
    assert isinstance(error, DataError)
    assert "highres:nir" in str(error)


def test_areas_are_checked_before_anything_is_learned(recipe, source, tmp_path):
    areas = tmp_path / "towns.geojson"
    about = (recipe, "--source", source, "--target", areas, "--out", tmp_path / "out")
    assert "neither a folder of images" in str(refused(*about))
    areas.write_text("{}")
    assert "--year" in str(refused(*about))
    error = refused(*about, "--year", 2022, "--set", "bands=['highres:red','highres:swir16']")
    assert isinstance(error, RecipeError)
    assert "highres:swir16, which none of its sources gives" in str(error)
    assert isinstance(refused(*about, "--year", 2022), AreaError)
    error = refused(*about, "--year", 2022, "--target-layout", "images")
    assert "--target-layout is of a folder of images" in str(error)
    assert not (tmp_path / "out").exists()


def test_a_run_without_a_map_is_refused(recipe, source, tmp_path):
    (tmp_path / "run" / "cities").mkdir(parents=True)
    out = ("--out", tmp_path / "out")
    error = refused(recipe, "--source", source, "--target", tmp_path / "run", *out)
    assert isinstance(error, UsageError)
    assert "holds no finished map" in str(error)
    error = refused(
        recipe, "--source", tmp_path / "none", "--target", tmp_path / "run", *out, "--no-predict"
    )
    assert isinstance(error, DataError)
    assert "--source" in str(error)


def test_a_folder_without_images_is_told_by_its_option(recipe, source, target, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    about = (recipe, "--source", source, "--out", tmp_path / "out")
    error = refused(*about, "--target", empty)
    assert isinstance(error, DataError)
    assert f"--target: {empty} holds no raster and no folder images" in str(error)
    error = refused(*about, "--target", target, "--judge", empty)
    assert str(error).startswith("--judge: ")
    error = refused(*about, "--target", target, "--judge", tmp_path / "none")
    assert f"--judge {tmp_path / 'none'} is no folder" in str(error)
    error = refused(recipe, "--source", empty, "--target", target, "--out", tmp_path / "out")
    assert str(error).startswith("--source: ")
    error = refused(*about, "--target", target, "--no-predict")
    assert "--no-predict: not of a target that is a folder of images" in str(error)
    error = refused(*about[:3], "--out", target / "out", "--target", target)
    assert "lies in --target" in str(error)
    assert not (tmp_path / "out").exists()
    assert not (target / "out").exists()


def test_areas_that_are_none_are_told_by_their_option(recipe, source, tmp_path):
    areas = tmp_path / "areas.json"
    areas.write_text('{"name": "x"}')
    about = (recipe, "--source", source, "--target", areas, "--out", tmp_path / "out")
    error = refused(*about, "--year", 2022)
    assert isinstance(error, AreaError)
    assert f"--target: {areas} cannot be read" in str(error)


def test_a_folder_of_images_is_held(recipe, source, target, tmp_path, monkeypatch):
    """By the first of several processes alone, which alone writes a model and prints."""
    out, further = tmp_path / "out", tmp_path / "further"
    about = (recipe, "--source", source, "--target", target, "--method", "adabn", "--out")
    with hold_folder(out):
        assert isinstance(refused(*about, out), LockedError)
    said = ran(*about, out)
    assert "adabn" in said
    assert "GiB" in said
    assert (out / "model").is_dir()
    with hold_folder(further):
        monkeypatch.setenv("LOCAL_RANK", "1")
        assert ran(*about, further) == ""
    assert not (further / "model").exists()


def test_a_folder_of_something_else_is_left_alone(recipe, source, target, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    about = (recipe, "--source", source, "--target", target, "--out", tmp_path / "out")
    assert "not empty and holds no adaptation" in str(refused(*about))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["notes.txt"]
