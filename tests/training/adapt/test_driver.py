"""Whole adaptations of tiny networks: what they gain, leave behind and survive."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mapper.errors import UsageError
from mapper.inference.card import load_card
from mapper.inference.runtime import load_runtime
from mapper.training.adapt import driver
from mapper.training.adapt.checks import warn_of_warmup
from mapper.training.adapt.feed import TargetPatches
from mapper.training.evaluate import evaluate
from mapper.training.export import ExportOptions, export_model
from mapper.training.journal import read_journal
from mapper.training.trainer import network_device
from mapper.training.weights import load_weights
from tests.training.adapt.running import adapted, narrow, same_bits, timeless
from tests.training.adapt.shifted import METHODS, adapting, labelled, write_target

pytestmark = pytest.mark.usefixtures("one_thread", "small_sample")

LEARNED = METHODS[2:]


# what it leaves behind ----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_weights_and_a_card(method, near, far, done):
    report = done(method)
    assert report.finished
    assert report.method == method
    card = json.loads((report.out / "card.json").read_text())
    about = card["adapted"]
    assert (about["method"], about["source"], about["target"]["set"]) == (
        method,
        near.name,
        far.name,
    )
    assert card["lineage"]["from"] == "tiny"
    assert about["target"]["images"] == 6
    state = load_weights(report.out).network.state_dict()
    assert all(torch.isfinite(values).all() for values in state.values())


@pytest.mark.parametrize("method", ["adabn", "consistent"])
def test_what_was_adapted_is_exported(method, near, far, done, tmp_path):
    trained = load_weights(done(method).out)
    found = export_model(trained, ExportOptions(out=tmp_path / "model", name="far"))
    assert found.forms["model"]["relative"] < 1e-4
    text = (tmp_path / "model" / "README.md").read_text()
    assert f"by {method}: from {near.name} to {far.name}, 6 images" in text


@pytest.mark.parametrize("method", LEARNED)
def test_the_journal_measures_without_labels(method, done):
    lines = read_journal(done(method).out / "metrics.csv")
    assert [line["epoch"] for line in lines] == [0, 1]
    for line in lines:
        assert all(np.isfinite(line[k]) for k in ("loss", "miou", "entropy", "information"))
        assert 0 <= line["agreement"] <= 1
        assert line["megapixels_per_second"] > 0
        assert line["memory_gib"] > 0
        assert np.isnan(line["target_miou"])


def test_labels_of_the_target_change_nothing(near, far, base, done, tmp_path):
    """Damaged, missing or judging: the weights are the same."""
    recipe = adapting("consistent")
    bare = tmp_path / far.name
    shutil.copytree(far / "images", bare / "images")
    shutil.copytree(far / "labels", bare / "labels")
    for path in (bare / "labels").iterdir():
        path.write_bytes(b"no image")
    adapted(recipe, (near, bare), tmp_path / "damaged", start=base)
    shutil.rmtree(bare / "labels")
    adapted(recipe, (near, bare), tmp_path / "missing", start=base)
    adapted(recipe, (near, far), tmp_path / "judged", start=base, judge=far)
    for other in ("damaged", "missing", "judged"):
        assert same_bits(done("consistent").out, tmp_path / other)
    lines = read_journal(tmp_path / "judged" / "metrics.csv")
    assert all(0 < line["target_miou"] <= 1 for line in lines)


def test_without_weights_the_source_is_trained_on_first(near, far, tmp_path):
    """A folder that somebody holds is as good as an empty one."""
    recipe = adapting("dpa")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()
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


@pytest.fixture(scope="module")
def unadapted(near, far, base, tmp_path_factory):
    """Score of the source's network on the target."""
    out = tmp_path_factory.mktemp("unadapted") / "out"
    report = adapted(adapting("source"), (near, far), out, start=base, judge=far)
    return report.scores["target_miou"]


@pytest.mark.parametrize("method", ["adabn", "dpa", "consistent"])
def test_another_sensor_is_learned_without_a_label(method, near, far, base, unadapted, tmp_path):
    """A flat and hazy sensor, of which the source's network makes little."""
    recipe = adapting(method, "adapt.patches=32", "adapt.consistent.momentum=0.9")
    report = adapted(recipe, (near, far), tmp_path / "out", start=base, judge=far)
    assert unadapted < 0.6
    assert report.scores["target_miou"] > unadapted + 0.2


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
def test_going_on_is_not_seen_in_the_result(method, near, far, base, done, tmp_path):
    recipe = narrow(method)
    first = adapted(recipe, (near, far), tmp_path / "parts", start=base, stop_after=1)
    assert not first.finished
    assert not (tmp_path / "parts" / "card.json").exists()
    second = adapted(recipe, (near, far), tmp_path / "parts", start=base)
    assert second.finished
    assert second.resumed
    whole = done(method).out
    lines = [read_journal(out / "metrics.csv") for out in (whole, tmp_path / "parts")]
    assert timeless(lines[0]) == timeless(lines[1])
    assert same_bits(whole, tmp_path / "parts")


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
recipe = adapting("consistent")
target = open_target(far, recipe.train)
options = {"source": near, "target": target, "out": out, "start": base, "device": "cpu"}
adapt_model(AdaptOptions(recipe=recipe, **options))
"""


def test_a_killed_adaptation_goes_on(near, far, base, done, tmp_path):
    killed = tmp_path / "killed"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, *map(str, (near, far, base, killed))],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert not (killed / "model.safetensors").exists()
    assert adapted(adapting("consistent"), (near, far), killed, start=base).resumed
    assert same_bits(done("consistent").out, killed)


def test_a_finished_adaptation_has_nothing_to_do(near, far, base, done):
    first = done("dpa")
    stamp = (first.out / "model.safetensors").stat().st_mtime_ns
    again = adapted(adapting("dpa"), (near, far), first.out, start=base)
    assert again.finished
    assert again.scores == first.scores
    assert (first.out / "model.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("other", ["adapt.dpa.share=0.3", "adapt.method=daspm", "seed=4"])
def test_other_settings_need_another_folder(other, near, far, base, done):
    with pytest.raises(UsageError, match="holds another adaptation"):
        adapted(adapting("dpa", other), (near, far), done("dpa").out, start=base)


def test_another_target_needs_another_folder(near, far, base, done, tmp_path):
    other = write_target(tmp_path / far.name, count=3)
    with pytest.raises(UsageError, match="holds another adaptation"):
        adapted(adapting("adabn"), (near, other), done("adabn").out, start=base)


# choosing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["source", "entropy", "information", "density", "agreement"])
def test_the_chosen_epoch_is_the_one_that_is_kept(criterion, near, far, base, tmp_path):
    recipe = adapting("dpa", f"adapt.choose={criterion}", "adapt.epochs=3", "adapt.patches=4")
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


def test_the_teacher_is_what_is_kept(done):
    out = done("consistent").out
    path = out / "checkpoints" / "last.ckpt"
    stored = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    mine = load_file(out / "model.safetensors")
    assert all(torch.equal(stored[f"method.teacher.copy.{n}"], t) for n, t in mine.items())
    assert any(not torch.equal(stored[f"network.{n}"], t) for n, t in mine.items())


def test_stops_where_nothing_gets_better(near, far, base, tmp_path):
    settings = ("adapt.choose=source", "adapt.patience=2", "adapt.epochs=12", "adapt.patches=4")
    still = ("adapt.dpa.optimizer.rate=1e-12", "adapt.dpa.normalise=false")
    recipe = adapting("dpa", *settings, *still)
    report = adapted(recipe, (near, far), tmp_path / "out", start=base)
    assert report.finished
    assert report.epochs < 12
    assert adapted(recipe, (near, far), tmp_path / "out", start=base).epochs == report.epochs


# the clock, the device and what has no number -----------------------------------------------


def test_the_pace_counts_the_reading(near, far, base, tmp_path, monkeypatch):
    read, slept = TargetPatches.__getitem__, 0.03

    def slow(self, key):
        time.sleep(slept)
        return read(self, key)

    monkeypatch.setattr(TargetPatches, "__getitem__", slow)
    report = adapted(adapting("dpa"), (near, far), tmp_path / "out", start=base)
    pixels, seconds = 2 * 8 * 32 * 32, 8 * slept
    assert 0 < report.megapixels_per_second < pixels / seconds / 1e6


def test_statistics_are_taken_on_the_device(near, far, base, tmp_path, monkeypatch):
    """There and back, whatever has the accelerator."""
    calls, move, measure = [], torch.nn.Module.to, driver.adapted_statistics

    def moved(self, *place, **how):
        calls.extend(name for name in place if isinstance(name, str))
        return self if "there" in place else move(self, *place, **how)

    def measured(*args):
        calls.append("statistics")
        return measure(*args)

    monkeypatch.setattr(driver, "network_device", lambda device: "there")
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    monkeypatch.setattr(driver, "adapted_statistics", measured)
    adapted(adapting("adabn", "adapt.adabn.batches=2"), (near, far), tmp_path / "out", start=base)
    assert calls[:3] == ["there", "statistics", "cpu"]


@pytest.mark.parametrize(
    ("device", "there", "expected"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cuda", True, "cuda"), ("cpu", True, "cpu")],
)
def test_auto_is_the_accelerator_where_there_is_one(device, there, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert network_device(device) == expected


@pytest.mark.parametrize(("judged", "lost"), [(False, []), (True, ["target_miou"])])
def test_a_score_without_a_number_is_told(judged, lost, caplog):
    line = {"epoch": 2.0, "miou": 0.5, "target_miou": float("nan"), "target_loss": float("nan")}
    with caplog.at_level("WARNING"):
        assert driver._scores(line, judged) == {"miou": 0.5}
    assert [str(lost) in text for text in caplog.messages] == [True] * len(lost)
    caplog.clear()
    with caplog.at_level("WARNING"):
        driver._scores(line | {"density": float("nan")}, judged)
    assert "epoch 3 has no number for ['" in caplog.text
    assert "'density']" in caplog.text


@pytest.mark.parametrize(("warmup", "steps", "told"), [(0, 0, False), (3, 4, False), (4, 4, True)])
def test_a_warm_up_that_never_ends_is_told(warmup, steps, told, caplog):
    train = adapting("dpa", f"adapt.dpa.schedule.warmup={warmup}").train
    method = SimpleNamespace(learns=True, schedule=train.adapt.dpa.schedule)
    with caplog.at_level("WARNING"):
        warn_of_warmup(train, method, steps)
    assert ("adapt.dpa.schedule.warmup is 4" in caplog.text) == told


def test_the_warm_up_is_held_against_all_steps(near, far, base, tmp_path, caplog):
    recipe = adapting("dpa", "adapt.dpa.schedule.warmup=1500", "adapt.patches=4")
    with caplog.at_level("WARNING"):
        adapted(recipe, (near, far), tmp_path / "out", start=base)
    assert "warmup is 1500 and the whole adaptation has 2 steps" in caplog.text
