"""Whole adaptations of tiny networks: what they gain, leave behind, refuse and survive."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mapper.errors import DataError, ModelError, UsageError
from mapper.inference.card import load_card
from mapper.inference.runtime import load_runtime
from mapper.training.adapt.driver import AdaptOptions, adapt_model
from mapper.training.adapt.target import open_target
from mapper.training.evaluate import evaluate
from mapper.training.export import ExportOptions, export_model
from mapper.training.journal import read_journal
from mapper.training.train import TrainOptions, train_model
from mapper.training.weights import load_weights
from tests.training.adapt.shifted import METHODS, adapting, labelled, write_source, write_target
from tests.training.lessons import write_tiff

pytestmark = pytest.mark.usefixtures("one_thread")

LEARNED = METHODS[2:]
TIMES = ("seconds", "megapixels_per_second", "memory_gib")


@pytest.fixture(scope="module")
def near(tmp_path_factory):
    return write_source(tmp_path_factory.mktemp("near"))


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    return write_target(tmp_path_factory.mktemp("far"))


@pytest.fixture(scope="module")
def base(near, tmp_path_factory):
    """A network that knows the source well."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("base") / "training"
    recipe = adapting("source", "epochs=8", "patches=32", "keep=last")
    train_model(TrainOptions(recipe=recipe, data=near, out=out, device="cpu"))
    return out


def adapted(recipe, places, out, start=None, judge=None, **options):
    """Adapt from the same random numbers as ever."""
    torch.manual_seed(7)
    near, far = places
    target = open_target(far, recipe.train)
    judged = None if judge is None else labelled(recipe, judge)
    return adapt_model(
        AdaptOptions(
            recipe=recipe,
            source=near,
            target=target,
            out=out,
            start=start,
            judge=judged,
            device="cpu",
            **options,
        )
    )


def timeless(lines):
    """What does not depend on the clock; NaN is equal to itself."""
    return [{k: str(v) for k, v in line.items() if k not in TIMES} for line in lines]


def same_bits(one, other):
    mine, theirs = (load_file(out / "model.safetensors") for out in (one, other))
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


# what it leaves behind ----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_weights_and_a_card(method, near, far, base, tmp_path):
    recipe = adapting(method)
    report = adapted(recipe, (near, far), tmp_path / "out", start=base)
    assert report.finished
    assert report.method == method
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    about = card["adapted"]
    assert (about["method"], about["source"], about["target"]["set"]) == (
        method,
        near.name,
        far.name,
    )
    assert card["lineage"]["from"] == "tiny"
    assert about["target"]["images"] == 6
    trained = load_weights(tmp_path / "out")
    found = export_model(trained, ExportOptions(out=tmp_path / "model", name="far"))
    assert found.forms["model"]["relative"] < 1e-4
    text = (tmp_path / "model" / "README.md").read_text()
    assert f"by {method}: from {near.name} to {far.name}, 6 images" in text


@pytest.mark.parametrize("method", LEARNED)
def test_the_journal_measures_without_labels(method, near, far, base, tmp_path):
    adapted(adapting(method), (near, far), tmp_path / "out", start=base)
    lines = read_journal(tmp_path / "out" / "metrics.csv")
    assert [line["epoch"] for line in lines] == [0, 1]
    for line in lines:
        assert all(np.isfinite(line[k]) for k in ("loss", "miou", "entropy", "information"))
        assert 0 <= line["agreement"] <= 1
        assert line["megapixels_per_second"] > 0
        assert line["memory_gib"] > 0
        assert np.isnan(line["target_miou"])


def test_labels_of_the_target_change_nothing(near, far, base, tmp_path):
    """Damaged, missing or judging: the weights are the same."""
    recipe = adapting("consistent")
    bare = tmp_path / far.name
    shutil.copytree(far / "images", bare / "images")
    shutil.copytree(far / "labels", bare / "labels")
    for path in (bare / "labels").iterdir():
        path.write_bytes(b"no image")
    adapted(recipe, (near, far), tmp_path / "plain", start=base)
    adapted(recipe, (near, bare), tmp_path / "damaged", start=base)
    shutil.rmtree(bare / "labels")
    adapted(recipe, (near, bare), tmp_path / "missing", start=base)
    adapted(recipe, (near, far), tmp_path / "judged", start=base, judge=far)
    for other in ("damaged", "missing", "judged"):
        assert same_bits(tmp_path / "plain", tmp_path / other)
    lines = read_journal(tmp_path / "judged" / "metrics.csv")
    assert all(0 < line["target_miou"] <= 1 for line in lines)


def test_without_weights_the_source_is_trained_on_first(near, far, tmp_path):
    recipe = adapting("dpa")
    adapted(recipe, (near, far), tmp_path / "out")
    source = load_weights(tmp_path / "out" / "source")
    assert source.about["data"]["set"] == near.name
    assert load_weights(tmp_path / "out").about["lineage"]["from"] == "tiny"


def test_from_scratch_there_is_no_training_on_the_source(near, far, tmp_path):
    recipe = adapting("dpa", "adapt.start=scratch")
    adapted(recipe, (near, far), tmp_path / "out")
    assert not (tmp_path / "out" / "source").exists()
    scaling = load_weights(tmp_path / "out").train.scaling
    assert [entry["type"] for entry in scaling] == ["z-score"] * 3


# what it gains ------------------------------------------------------------------------------


def scored(out, recipe, far):
    model = out.parent / f"{out.name}-model"
    export_model(load_weights(out), ExportOptions(out=model, name="far"))
    data = labelled(recipe, far)
    card = load_card(str(model))
    return evaluate(card, load_runtime(card, 1, False), data, data.images).scores.mean_iou


@pytest.mark.parametrize("method", ["adabn", "dpa", "consistent"])
def test_another_sensor_is_learned_without_a_label(method, near, far, base, tmp_path):
    """A flat and hazy sensor, of which the source's network makes little."""
    plain = adapting("source")
    adapted(plain, (near, far), tmp_path / "source", start=base)
    recipe = adapting(method, "adapt.patches=32", "adapt.consistent.momentum=0.9")
    adapted(recipe, (near, far), tmp_path / method, start=base)
    before = scored(tmp_path / "source", plain, far)
    after = scored(tmp_path / method, recipe, far)
    assert before < 0.6
    assert after > before + 0.2


def test_prediction_is_scaled_as_training_was(near, far, base, tmp_path):
    """The published code used other means in prediction; here the card carries the very ones."""
    recipe = adapting("dpa")
    report = adapted(recipe, (near, far), tmp_path / "out", start=base, judge=far)
    through_the_card = scored(tmp_path / "out", recipe, far)
    assert through_the_card == pytest.approx(report.scores["target_miou"], abs=0.02)
    entries = load_weights(tmp_path / "out").train.scaling
    stated = json.loads((tmp_path / "out" / "card.json").read_text())["adapted"]["target"]
    assert entries != recipe.train.scaling
    pixels = np.stack(
        [labelled(recipe, far).read(i, None).values for i in labelled(recipe, far).images]
    )
    means = pixels.mean(axis=(0, 2, 3))
    for band, mean in zip(recipe.train.bands, means, strict=True):
        assert stated["statistics"]["mean"][band] == pytest.approx(mean, rel=1e-5)


# going on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LEARNED)
def test_going_on_is_not_seen_in_the_result(method, near, far, base, tmp_path):
    recipe = adapting(method)
    adapted(recipe, (near, far), tmp_path / "whole", start=base)
    first = adapted(recipe, (near, far), tmp_path / "parts", start=base, stop_after=1)
    assert not first.finished
    assert not (tmp_path / "parts" / "card.json").exists()
    second = adapted(recipe, (near, far), tmp_path / "parts", start=base)
    assert second.finished
    assert second.resumed
    lines = [read_journal(tmp_path / name / "metrics.csv") for name in ("whole", "parts")]
    assert timeless(lines[0]) == timeless(lines[1])
    assert same_bits(tmp_path / "whole", tmp_path / "parts")


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from mapper.training.adapt import lesson
from mapper.training.adapt.driver import AdaptOptions, adapt_model
from mapper.training.adapt.target import open_target
from tests.training.adapt.shifted import adapting

step = lesson.AdaptLesson.training_step

def fatal(self, batch, batch_idx):
    if (self.current_epoch, batch_idx) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)

lesson.AdaptLesson.training_step = fatal
torch.manual_seed(7)
near, far, base, out = map(Path, sys.argv[1:])
recipe = adapting("adversarial")
target = open_target(far, recipe.train)
options = {"source": near, "target": target, "out": out, "start": base, "device": "cpu"}
adapt_model(AdaptOptions(recipe=recipe, **options))
"""


def test_a_killed_adaptation_goes_on(near, far, base, tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, *map(str, (near, far, base, killed))],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert not (killed / "model.safetensors").exists()
    recipe = adapting("adversarial")
    assert adapted(recipe, (near, far), killed, start=base).resumed
    adapted(recipe, (near, far), whole, start=base)
    assert same_bits(whole, killed)


def test_a_finished_adaptation_has_nothing_to_do(near, far, base, tmp_path):
    recipe = adapting("dpa")
    first = adapted(recipe, (near, far), tmp_path / "out", start=base)
    stamp = (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns
    again = adapted(recipe, (near, far), tmp_path / "out", start=base)
    assert again.finished
    assert again.scores == first.scores
    assert (tmp_path / "out" / "model.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("other", ["adapt.dpa.share=0.3", "adapt.method=daspm", "seed=4"])
def test_other_settings_need_another_folder(other, near, far, base, tmp_path):
    adapted(adapting("dpa"), (near, far), tmp_path / "out", start=base)
    with pytest.raises(UsageError, match="holds another adaptation"):
        adapted(adapting("dpa", other), (near, far), tmp_path / "out", start=base)


def test_another_target_needs_another_folder(near, far, base, tmp_path):
    adapted(adapting("adabn"), (near, far), tmp_path / "out", start=base)
    other = write_target(tmp_path / far.name, count=3)
    with pytest.raises(UsageError, match="holds another adaptation"):
        adapted(adapting("adabn"), (near, other), tmp_path / "out", start=base)


def test_a_folder_of_something_else_is_left_alone(near, far, base, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no adaptation"):
        adapted(adapting("dpa"), (near, far), tmp_path / "out", start=base)


# choosing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["source", "entropy", "information", "density", "agreement"])
def test_the_chosen_epoch_is_the_one_that_is_kept(criterion, near, far, base, tmp_path):
    recipe = adapting("dpa", f"adapt.choose={criterion}", "adapt.epochs=4")
    report = adapted(recipe, (near, far), tmp_path / "out", start=base)
    lines = read_journal(tmp_path / "out" / "metrics.csv")
    key = "miou" if criterion == "source" else criterion
    sign = -1 if criterion == "entropy" else 1
    values = [sign * line[key] for line in lines]
    assert values[report.epoch] == max(values)
    assert report.chosen_by == criterion
    kept = tmp_path / "out" / "checkpoints" / "best.ckpt"
    stored = torch.load(kept, map_location="cpu", weights_only=True)
    assert stored["epoch"] == report.epoch
    mine = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(stored["state_dict"][f"network.{n}"], t) for n, t in mine.items())


def test_the_teacher_is_what_is_kept(near, far, base, tmp_path):
    adapted(adapting("consistent"), (near, far), tmp_path / "out", start=base)
    path = tmp_path / "out" / "checkpoints" / "last.ckpt"
    stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    mine = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(stored[f"method.teacher.copy.{n}"], t) for n, t in mine.items())
    assert any(not torch.equal(stored[f"network.{n}"], t) for n, t in mine.items())


def test_stops_where_nothing_gets_better(near, far, base, tmp_path):
    settings = ("adapt.choose=source", "adapt.patience=2", "adapt.epochs=12")
    still = ("adapt.dpa.optimizer.rate=1e-12", "adapt.dpa.normalise=false")
    recipe = adapting("dpa", *settings, *still)
    report = adapted(recipe, (near, far), tmp_path / "out", start=base)
    assert report.finished
    assert report.epochs < 12
    assert adapted(recipe, (near, far), tmp_path / "out", start=base).epochs == report.epochs


# refused ------------------------------------------------------------------------------------


def test_a_learning_that_diverges_is_named(near, far, base, tmp_path):
    recipe = adapting("dpa", "adapt.dpa.optimizer.rate=1e30", "adapt.epochs=4")
    with pytest.raises(ModelError, match=r"dpa diverged in step \d+.*adapt\.dpa\.optimizer\.rate"):
        adapted(recipe, (near, far), tmp_path / "out", start=base)
    assert not (tmp_path / "out" / "model.safetensors").exists()


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
