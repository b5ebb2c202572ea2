"""What an adaptation refuses: before it trains anything where that can be known."""

import json

import numpy as np
import pytest
import torch

from mapper.errors import DataError, ModelError, RecipeError, UsageError
from mapper.training.adapt.checks import check_recipe, check_start
from mapper.training.adapt.driver import AdaptOptions, adapt_model
from mapper.training.adapt.target import open_target
from mapper.training.weights import WEIGHTS, load_weights, save_weights
from tests.training.adapt.running import adapted
from tests.training.adapt.shifted import adapting, write_source
from tests.training.lessons import BANDS, make_trained, train_section, write_tiff

pytestmark = pytest.mark.usefixtures("one_thread", "small_sample")

HALF = [{"type": "z-score", "mean": 128, "stddev": 20}]


# before anything is trained -----------------------------------------------------------------


def test_a_folder_of_something_else_is_left_alone(near, far, base, tmp_path):
    """With weights of the source and without, when it would be trained first."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for start in (base, None):
        with pytest.raises(UsageError, match="holds no adaptation"):
            adapted(adapting("dpa"), (near, far), tmp_path / "out", start=start)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("settings", "network", "message"),
    [
        (["adapt.batch=1"], "deeplabv3", "which takes 2 images at once"),
        (["patch=34"], "gum", "patch is 34; gum takes multiples of 4"),
        (["precision=16-mixed", "adapt.method=adversarial"], "unet", "take bf16-mixed"),
    ],
)
def test_sizes_and_precision_come_before_the_source(
    settings, network, message, near, far, tmp_path
):
    recipe = adapting("dpa", *settings, network=network)
    with pytest.raises(RecipeError, match=message):
        adapted(recipe, (near, far), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "precision"), [("adversarial", "bf16-mixed"), ("dpa", "16-mixed")]
)
def test_other_precisions_are_taken(method, precision):
    check_recipe(adapting(method, f"precision={precision}").train)


# weights of another scale -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scaling": HALF}, r"scaling of highres:red, highres:green, highres:blue is .*128"),
        ({"scaling": [None, *(2 * HALF)]}, r"scaling of highres:red, .* in the recipe and None in"),
        ({"fill": 0.5}, r"fill is 0\.0 in the recipe and 0\.5 in the weights"),
        ({"presence": True}, r"network\.presence is False in the recipe and True in"),
        (
            {"required": [BANDS[0]]},
            r"required is \[.*green.*\] in the recipe and \['highres:red'\]",
        ),
    ],
)
def test_weights_of_another_scale(changed, message, tmp_path):
    with pytest.raises(UsageError, match=message) as told:
        check_start(train_section(), tmp_path, make_trained(**changed))
    assert "set train.scaling, fill, required and network.presence to theirs" in str(told.value)


def test_bands_are_compared_by_name(tmp_path):
    """Another order, one band more, and the same scale said otherwise are no difference."""
    same = {"type": "scale", "value": 255}
    bands = ["elevation:height", *reversed(BANDS)]
    data = {"layout": "images", "bands": bands}
    source = make_trained(bands=bands, scaling=[*HALF, same, same, same], data=data)
    check_start(train_section(), tmp_path, source)
    other = make_trained(bands=bands, scaling=[same, same, same, *HALF], data=data)
    with pytest.raises(UsageError, match="scaling of highres:red is"):
        check_start(train_section(), tmp_path, other)


def test_adapted_weights_are_no_weights_of_the_source(near, far, done, tmp_path):
    with pytest.raises(UsageError, match="carry the scaling of that target"):
        adapted(adapting("dpa"), (near, far), tmp_path / "out", start=done("dpa").out)
    assert not (tmp_path / "out").exists()


def test_weights_for_what_begins_at_random(near, far, base, tmp_path):
    recipe = adapting("dpa", "adapt.start=scratch")
    with pytest.raises(UsageError, match=r"train\.adapt\.start is scratch"):
        adapted(recipe, (near, far), tmp_path / "out", start=base)


# learning that goes astray ------------------------------------------------------------------


def test_a_result_that_the_last_step_spoils_is_named(near, far, base, tmp_path):
    """A single step: no loss is seen after it."""
    settings = ("adapt.dpa.optimizer.rate=1e38", "adapt.epochs=1", "adapt.patches=4")
    with pytest.raises(ModelError, match=r"dpa diverged in epoch 1: .*adapt\.dpa\.optimizer\.rate"):
        adapted(adapting("dpa", *settings), (near, far), tmp_path / "out", start=base)
    assert not (tmp_path / "out" / "model.safetensors").exists()


@pytest.mark.parametrize(("value", "what"), [(float("nan"), "tensors"), (1e38, "of the target")])
def test_weights_that_are_no_numbers_are_named(value, what, near, far, base, tmp_path):
    """Of which `source` would make nothing at all."""
    trained = load_weights(base)
    state = {
        name: torch.full_like(t, value) if name.endswith("weight") else t
        for name, t in trained.network.state_dict().items()
    }
    save_weights(tmp_path / WEIGHTS, state, trained.train, trained.about)
    with pytest.raises(ModelError, match=f"source: .*{what}.* not finite.*; give other weights"):
        adapted(adapting("source"), (near, far), tmp_path / "out", start=tmp_path / WEIGHTS)
    assert not (tmp_path / "out" / "card.json").exists()


def test_a_learning_that_diverges_is_named(near, far, base, tmp_path):
    recipe = adapting("dpa", "adapt.dpa.optimizer.rate=1e30", "adapt.epochs=4")
    with pytest.raises(ModelError, match=r"dpa diverged in step \d+.*adapt\.dpa\.optimizer\.rate"):
        adapted(recipe, (near, far), tmp_path / "out", start=base)
    assert not (tmp_path / "out" / "model.safetensors").exists()


# domains that do not fit --------------------------------------------------------------------


def test_a_target_that_is_all_nodata(near, base, tmp_path):
    for number in range(3):
        blank = np.zeros((3, 64, 64), np.uint8)
        write_tiff(tmp_path / "far" / "images" / f"blank{number}.tif", blank, nodata=0)
    for method in ("source", "dpa"):
        with pytest.raises(DataError, match="no valid pixel in any band: all of it is nodata"):
            adapted(adapting(method), (near, tmp_path / "far"), tmp_path / method, start=base)


def test_domains_without_a_common_band(near, base, tmp_path):
    for number in range(3):
        image = np.full((2, 64, 64), 90, np.uint8)
        write_tiff(tmp_path / "far" / "images" / f"dim{number}.tif", image)
    recipe = adapting("dpa")
    other = recipe.train.data.model_copy(update={"bands": ["radar:vv", "radar:vh"], "labels": ""})
    target = open_target(tmp_path / "far", recipe.train, other)
    with pytest.raises(DataError, match=r"the target .* lacks highres:red.*no band in common"):
        adapt_model(
            AdaptOptions(
                recipe=recipe, source=near, target=target, out=tmp_path / "out", start=base
            )
        )


def test_classes_that_do_not_map(near, far, base, tmp_path):
    other = [
        {"value": 0, "name": "ice", "color": "FFFFFF"},
        {"value": 1, "name": "sand", "color": "EEDD82"},
        {"value": 2, "name": "salt", "color": "EEEEEE"},
    ]
    recipe = adapting("dpa", f"data.classes={json.dumps(other)}")
    with pytest.raises(DataError, match=r"'ice' .* has no counterpart among land, road, water"):
        adapted(recipe, (near, far), tmp_path / "out", start=base)


def test_a_class_that_the_source_never_holds(far, tmp_path, caplog):
    """It is named, never drawn and never taught; one class alone is refused."""
    near = write_source(tmp_path / "near", count=6)
    for path in (near / "labels").iterdir():
        path.unlink()
    rng = np.random.default_rng(1)
    for path in sorted((near / "images").iterdir()):
        write_tiff(near / "labels" / path.name, rng.integers(0, 2, (1, 64, 64), np.uint8))
    recipe = adapting("daspm")
    with caplog.at_level("WARNING"):
        adapted(recipe, (near, far), tmp_path / "out")
    assert "water" in caplog.text
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["data"]["untaught"] == ["water"]
    for path in (near / "labels").iterdir():
        write_tiff(path, np.zeros((1, 64, 64), np.uint8))
    with pytest.raises(DataError, match="no pixel of road, water"):
        adapted(recipe, (near, far), tmp_path / "other")


def test_weights_of_another_network(near, far, base, tmp_path):
    recipe = adapting("dpa", network="gum")
    with pytest.raises(ModelError, match="name weights of that network"):
        adapted(recipe, (near, far), tmp_path / "out", start=base)
