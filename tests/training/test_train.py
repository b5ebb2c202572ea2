"""Whole trainings of tiny networks: what they learn, leave behind, and survive."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch.nn import functional

from mapper.errors import DataError, InputError, MapperError, ModelError, UsageError
from mapper.training.data.feed import Feed
from mapper.training.data.layouts import open_data
from mapper.training.data.split import split_blocks
from mapper.training.finetune import start_from
from mapper.training.module import Lesson
from mapper.training.networks import build_network
from mapper.training.networks.build import NETWORKS
from mapper.training.train import TrainOptions, train_model
from mapper.training.weights import load_weights, save_weights
from tests.training.lessons import (
    BANDS,
    CLASSES,
    TINY,
    listed,
    make_recipe,
    make_trained,
    town,
    train_section,
    write_images,
    write_tiff,
)

pytestmark = pytest.mark.usefixtures("one_thread")

PLATEAU = {"optimizer": {"kind": "sgd", "rate": 1e-12}, "schedule": {"kind": "constant"}}
"""Learns nothing, so that its score stays."""


@pytest.fixture(scope="module")
def towns(tmp_path_factory):
    """Eight images of three classes that their colours give away."""
    return write_images(tmp_path_factory.mktemp("towns"))


def trained(recipe, data, out, listener=None, **options):
    """Train from the same random numbers as ever."""
    torch.manual_seed(7)
    options = TrainOptions(recipe=recipe, data=data, out=out, device="cpu", **options)
    return train_model(options) if listener is None else train_model(options, listener)


def journal(out):
    with (out / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in line.items()} for line in csv.DictReader(file)]


def without_time(lines):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def tensors(out):
    return load_file(out / "model.safetensors")


def same_bits(one, other):
    """True where two trainings left the same tensors."""
    mine, theirs = tensors(one), tensors(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


# learning -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(towns, tmp_path_factory):
    """A training that came to its end, and what it told."""
    events = []
    out = tmp_path_factory.mktemp("learned") / "out"
    recipe = make_recipe(epochs=6, patches=32, augment={"gain": 0.1})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        report = trained(recipe, towns, out, events.append)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    return out, report, events


def test_learns_colours(learned):
    out, report, _ = learned
    lines = journal(out)
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert lines[-1]["validation_loss"] < lines[0]["validation_loss"]
    assert report.scores["miou"] > 0.8
    assert report.finished
    assert not report.resumed


def test_journal_has_a_line_an_epoch(learned):
    out, report, events = learned
    lines = journal(out)
    assert [line["epoch"] for line in lines] == list(range(6))
    assert report.epochs == 6
    for line in lines:
        assert all(math.isfinite(value) for value in line.values())
        assert 0 <= line["miou"] <= 1
        assert line["seconds"] > 0
    rates = [line["rate"] for line in lines]
    # poly over 6 epochs of 8 steps, as it stands after each epoch
    assert rates == pytest.approx([0.02 * (1 - (k + 1) / 6) ** 0.9 for k in range(6)])
    told = [e for e in events if e.stage == "train"]
    assert [(e.done, e.total) for e in told] == [(k + 1, 6) for k in range(6)]
    assert told[2].data["loss"] == lines[2]["loss"]
    assert "3 of 6" in told[2].message


def test_the_card_is_of_what_was_kept(learned):
    out, report, _ = learned
    text = (out / "card.json").read_text()
    card = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    best = max(journal(out), key=lambda line: line["miou"])
    assert card["scores"] == report.scores
    assert card["scores"]["miou"] == best["miou"]
    assert card["epochs"] == 6
    learned_ones = [t for n, t in tensors(out).items() if "running" not in n and "num_b" not in n]
    assert card["parameters"] == sum(t.numel() for t in learned_ones)
    assert card["data"]["train"]["images"] == 6
    assert card["data"]["validation"]["images"] == 2
    assert sum(card["data"]["train"]["pixels"].values()) == 6 * 64 * 64
    assert card["lineage"] is None
    assert card["pretrained"].startswith("none")


def held_out(towns, settings):
    data = open_data(towns, settings.data, settings.table)
    return data, split_blocks(data.images, settings.split)[1]


def test_scores_are_those_of_the_weights(learned, towns):
    """Worked out once more by numpy, from whole images."""
    out, report, _ = learned
    found = load_weights(out)
    data, images = held_out(towns, found.train)
    truth, drawn, losses = [], [], []
    for image in images:
        pixels = data.read(image, None)
        scaled = torch.from_numpy(pixels.values.astype(np.float32) / 255)[None]
        with torch.inference_mode():
            # patches of 32, as validation has them
            rows = [
                torch.cat([found.network(part) for part in band.split(32, 3)], dim=3)
                for band in scaled.split(32, 2)
            ]
        logits = torch.cat(rows, dim=2)
        label = torch.from_numpy(pixels.label.astype(np.int64))[None]
        losses.append(functional.cross_entropy(logits, label).item())
        truth.append(pixels.label.ravel())
        drawn.append(logits.argmax(dim=1).numpy().ravel())
    truth, drawn = np.concatenate(truth), np.concatenate(drawn)
    ious = [
        ((truth == c) & (drawn == c)).sum() / ((truth == c) | (drawn == c)).sum() for c in range(3)
    ]
    assert report.scores["miou"] == pytest.approx(np.mean(ious), abs=1e-4)
    assert report.scores["accuracy"] == pytest.approx((truth == drawn).mean(), abs=1e-4)
    assert report.scores["validation_loss"] == pytest.approx(np.mean(losses), rel=1e-3)


def test_weights_carry_their_recipe(learned, towns):
    out, _, _ = learned
    found = load_weights(out)
    assert found.train == make_recipe(epochs=6, patches=32, augment={"gain": 0.1}).train
    assert found.about["recipe"] == "tiny"
    assert found.about["scores"]["miou"] > 0.8
    assert not found.network.training
    for path in (out / "model.safetensors", out / "checkpoints" / "best.ckpt"):
        other = load_weights(path)
        image = torch.rand(1, 3, 32, 32)
        with torch.inference_mode():
            torch.testing.assert_close(other.network(image), found.network(image), rtol=0, atol=0)


def test_checkpoints_hold_no_code(learned):
    out, _, _ = learned
    for name in ("last.ckpt", "best.ckpt"):
        stored = torch.load(out / "checkpoints" / name, weights_only=True)
        assert json.loads(stored["mapper"])["about"]["recipe"] == "tiny"
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 5


def test_a_second_start_has_nothing_to_do(learned, towns, tmp_path):
    out, report, _ = learned
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    again = trained(make_recipe(epochs=6, patches=32, augment={"gain": 0.1}), towns, copy)
    assert again.scores == report.scores
    assert again.finished
    assert again.resumed
    assert journal(copy) == journal(out)
    assert same_bits(copy, out)


def test_each_epoch_leaves_its_checkpoint(towns, tmp_path):
    """Also one that is no better than those before it: a resumed training goes on behind it."""
    recipe = make_recipe(**PLATEAU)
    for epoch in range(3):
        trained(recipe, towns, tmp_path / "out", stop_after=1)
        last = torch.load(tmp_path / "out" / "checkpoints" / "last.ckpt", weights_only=True)
        assert last["epoch"] == epoch
        assert len(journal(tmp_path / "out")) == epoch + 1
    best = torch.load(tmp_path / "out" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == 0


def test_the_last_epoch_may_be_kept(towns, tmp_path):
    report = trained(make_recipe(keep="last", **PLATEAU), towns, tmp_path / "out")
    lines = journal(tmp_path / "out")
    assert lines[0]["miou"] == lines[2]["miou"]
    assert report.scores["loss"] == lines[-1]["loss"]
    stored = torch.load(tmp_path / "out" / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["epoch"] == 2
    kept = tensors(tmp_path / "out")
    assert all(torch.equal(kept[name], stored["state_dict"][f"network.{name}"]) for name in kept)


# randomness ---------------------------------------------------------------------------------


def test_the_seed_is_all_that_matters(towns, tmp_path):
    """Not what else drew random numbers before."""
    torch.manual_seed(1)
    for name, seed in (("one", 3), ("other", 3), ("third", 4)):
        train_model(
            TrainOptions(
                recipe=make_recipe(seed=seed, epochs=1),
                data=towns,
                out=tmp_path / name,
                device="cpu",
            )
        )
        torch.rand(17)
    assert same_bits(tmp_path / "one", tmp_path / "other")
    assert not same_bits(tmp_path / "one", tmp_path / "third")


@pytest.mark.parametrize("seed", [20261121, 2**40])
def test_any_seed_will_do(seed, towns, tmp_path):
    assert trained(make_recipe(seed=seed, epochs=1), towns, tmp_path / "out").finished


def test_readers_beside_give_the_same(towns, tmp_path):
    for workers in (0, 1):
        trained(make_recipe(epochs=1), towns, tmp_path / str(workers), workers=workers)
    assert same_bits(tmp_path / "0", tmp_path / "1")


# going on -----------------------------------------------------------------------------------

RESUMED = {
    "unet": {"augment": {"gain": 0.3, "scale": (0.7, 1.4)}, "loss": {"dice": 0.5}},
    "gum": {"patches": 6},
    "ugsnet": {"patch": 64, "patches": 2, "batch": 2, "epochs": 2},
}


@pytest.mark.parametrize("network", RESUMED)
def test_going_on_is_not_seen_in_the_result(network, towns, tmp_path):
    """Dropout and points are drawn as if nothing had been."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changed = RESUMED[network] | {"schedule": {"kind": "cosine", "warmup": 2}}
    recipe = make_recipe(network=network, **changed)
    report = trained(recipe, towns, whole)
    last = recipe.train.epochs
    for epoch in range(1, last + 1):
        state = trained(recipe, towns, parts, stop_after=1)
        assert (state.epochs, state.finished, state.resumed) == (epoch, epoch == last, epoch > 1)
    assert without_time(journal(parts)) == without_time(journal(whole))
    assert state.scores == report.scores
    assert same_bits(whole, parts)


def test_an_unfinished_training_leaves_no_model(towns, tmp_path):
    trained(make_recipe(), towns, tmp_path / "out", stop_after=1)
    assert not (tmp_path / "out" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "card.json").exists()
    with pytest.raises(ModelError, match="finished"):
        load_weights(tmp_path / "out")
    assert load_weights(tmp_path / "out" / "checkpoints" / "last.ckpt").train.epochs == 3


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from mapper.training import module
from tests.training.lessons import make_recipe
from mapper.training.train import TrainOptions, train_model

step = module.Lesson.training_step

def fatal(self, batch, batch_idx):
    if (self.current_epoch, batch_idx) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)

module.Lesson.training_step = fatal
torch.manual_seed(7)
data, out = map(Path, sys.argv[1:])
train_model(TrainOptions(recipe=make_recipe(network="gum"), data=data, out=out, device="cpu"))
"""


def test_a_killed_training_goes_on(towns, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(towns), str(killed)],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert [line["epoch"] for line in journal(killed)] == [0]
    assert not (killed / "model.safetensors").exists()
    recipe = make_recipe(network="gum")
    report = trained(recipe, towns, killed)
    assert report.resumed
    trained(recipe, towns, whole)
    assert without_time(journal(killed)) == without_time(journal(whole))
    assert same_bits(whole, killed)


def test_an_epoch_that_was_written_and_not_kept_is_trained_again(towns, tmp_path):
    """Killed after the line of an epoch, before its checkpoint."""
    out, recipe = tmp_path / "out", make_recipe()
    trained(recipe, towns, out, stop_after=1)
    before = (out / "checkpoints").rename(tmp_path / "kept")
    shutil.copytree(before, out / "checkpoints")
    trained(recipe, towns, out, stop_after=1)
    shutil.rmtree(out / "checkpoints")
    before.rename(out / "checkpoints")
    assert len(journal(out)) == 2
    trained(recipe, towns, out)
    trained(recipe, towns, tmp_path / "whole")
    assert without_time(journal(out)) == without_time(journal(tmp_path / "whole"))
    assert same_bits(out, tmp_path / "whole")


def test_a_folder_that_was_moved_keeps_its_best_epoch(towns, tmp_path):
    recipe = make_recipe(**PLATEAU)
    trained(recipe, towns, tmp_path / "here", stop_after=1)
    (tmp_path / "here").rename(tmp_path / "there")
    report = trained(recipe, towns, tmp_path / "there")
    best = torch.load(tmp_path / "there" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == report.epoch == 0


def test_a_checkpoint_that_is_cut_off(towns, tmp_path):
    recipe = make_recipe()
    trained(recipe, towns, tmp_path / "out", stop_after=1)
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(MapperError, match=r"last\.ckpt"):
        trained(recipe, towns, tmp_path / "out")


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"epochs": 4}, {"optimizer": {"rate": 0.01}}, {"bands": list(BANDS[:2])}],
)
def test_other_settings_need_another_folder(changed, towns, tmp_path):
    out = tmp_path / "out"
    trained(make_recipe(), towns, out, stop_after=1)
    before = (out / "metrics.csv").read_bytes()
    with pytest.raises(UsageError, match="another training"):
        trained(make_recipe(**changed), towns, out)
    assert (out / "metrics.csv").read_bytes() == before


def test_other_data_need_another_folder(towns, tmp_path):
    trained(make_recipe(), towns, tmp_path / "out", stop_after=1)
    other = shutil.copytree(towns, tmp_path / "other")
    write_tiff(other / "labels" / "town2.tif", np.zeros((1, 64, 64), np.uint8))
    with pytest.raises(UsageError, match="another training"):
        trained(make_recipe(), other, tmp_path / "out")


def test_other_first_weights_need_another_folder(towns, tmp_path, learned):
    """Or the card would name weights that it did not begin with."""
    out = tmp_path / "out"
    trained(make_recipe(), towns, out, start=learned[0], stop_after=1)
    with pytest.raises(UsageError, match="another training"):
        trained(make_recipe(), towns, out)
    report = trained(make_recipe(), towns, out, start=learned[0])
    assert report.resumed
    assert json.loads((out / "card.json").read_text())["lineage"]["from"] == "tiny"


def test_a_folder_of_something_else_is_left_alone(towns, tmp_path):
    (tmp_path / "thesis.tex").write_text("2017")
    with pytest.raises(UsageError, match="is not empty"):
        trained(make_recipe(), towns, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_training_that_did_not_begin_claims_nothing(towns, tmp_path):
    """A wrong option is mended without another folder."""
    wrong = make_recipe(options={"widht": 4})
    with pytest.raises(InputError, match="widht"):
        trained(wrong, towns, tmp_path / "out")
    assert trained(make_recipe(epochs=1), towns, tmp_path / "out").finished


@pytest.mark.usefixtures("offline")
def test_going_on_needs_no_published_weights(towns, tmp_path):
    """They are in the checkpoint already."""
    known = NETWORKS["deeplabv3"](3, 3, **TINY["deeplabv3"])
    known.backbone.body.save_pretrained(tmp_path / "published")
    recipe = make_recipe(
        network="deeplabv3", epochs=2, patches=2, batch=2, pretrained=str(tmp_path / "published")
    )
    trained(recipe, towns, tmp_path / "out", stop_after=1)
    shutil.rmtree(tmp_path / "published")
    assert trained(recipe, towns, tmp_path / "out").finished
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["pretrained"] == str(tmp_path / "published")


# stopping -----------------------------------------------------------------------------------


def test_stops_where_nothing_gets_better(towns, tmp_path):
    recipe = make_recipe(epochs=9, patches=4, patience=2, **PLATEAU)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    report = trained(recipe, towns, whole)
    assert report.epochs == 3
    assert report.finished
    states = [trained(recipe, towns, parts, stop_after=1) for _ in range(3)]
    assert [s.finished for s in states] == [False, False, True]
    assert without_time(journal(parts)) == without_time(journal(whole))
    assert same_bits(whole, parts)


def test_what_stopped_early_does_not_go_on(towns, tmp_path):
    """Also where it was killed after its last epoch, before its weights were written."""
    recipe = make_recipe(epochs=9, patches=4, patience=2, **PLATEAU)
    out = tmp_path / "out"
    trained(recipe, towns, out)
    before = journal(out)
    (out / "model.safetensors").unlink()
    (out / "card.json").unlink()
    for _ in range(3):
        report = trained(recipe, towns, out)
        assert report.finished
        assert (out / "model.safetensors").exists()
        assert journal(out) == before


def test_no_patience_no_stop(towns, tmp_path):
    assert trained(make_recipe(epochs=4, patches=4, **PLATEAU), towns, tmp_path / "o").epochs == 4


# what cannot be -----------------------------------------------------------------------------


def test_a_training_that_goes_astray_is_no_success(towns, tmp_path):
    wild = make_recipe(optimizer={"kind": "sgd", "rate": 1e30})
    with pytest.raises(MapperError, match=r"NaN|finite"):
        trained(wild, towns, tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_band_that_the_data_lack(towns, tmp_path):
    recipe = make_recipe(bands=[*BANDS, "highres:nir"])
    with pytest.raises(DataError, match=r"highres:nir"):
        trained(recipe, towns, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bands_that_no_card_could_name():
    """Before hours of training, not when its weights are exported."""
    for band in ("red", "S2:red", "sentinel2:red edge"):
        with pytest.raises(ValidationError, match="source:band"):
            train_section(bands=[band, *BANDS])


def test_a_recipe_without_a_train_section(towns, tmp_path):
    recipe = make_recipe().model_copy(update={"train": None})
    with pytest.raises(UsageError, match="no `train` section"):
        trained(recipe, towns, tmp_path / "out")


@pytest.mark.parametrize("network", ["gum", "deeplabv3", "ugsnet"])
def test_batches_of_one_that_cannot_be_normalised(network, towns, tmp_path):
    recipe = make_recipe(network=network, batch=1, patch=64)
    with pytest.raises(InputError, match="batch"):
        trained(recipe, towns, tmp_path / "out")


@pytest.mark.parametrize("network", ["unet", "gum"])
def test_patches_that_a_network_cannot_halve(network, towns, tmp_path):
    with pytest.raises(InputError, match="patch"):
        trained(make_recipe(network=network, patch=37), towns, tmp_path / "out")
    with pytest.raises(InputError, match="window"):
        trained(make_recipe(network=network, window={"size": 65}), towns, tmp_path / "out")


def grouped(root, labels):
    """Images `east0`, `west0` and so on, with labels made by `labels(group, label)`."""
    for number, group in enumerate(["east"] * 3 + ["west"]):
        image, label = town(number)
        write_tiff(root / "images" / f"{group}{number}.tif", image)
        write_tiff(root / "labels" / f"{group}{number}.tif", labels(group, label)[None])
    return root


WEST = {
    "split": {"held_out": ["west"]},
    "data": {
        "layout": "images",
        "bands": list(BANDS),
        "group": r"([a-z]+)",
        "ignored": [9],
    },
}


def test_nothing_to_judge_by(tmp_path):
    """All of the held-out pixels are ignored: no score is the best of none."""

    def labels(group, label):
        return np.full_like(label, 9) if group == "west" else label

    root = grouped(tmp_path / "set", labels)
    with pytest.raises(DataError, match="judge"):
        trained(make_recipe(**WEST), root, tmp_path / "out")


def test_nothing_to_learn(tmp_path):
    def labels(group, label):
        return np.zeros_like(label) if group == "east" else label

    root = grouped(tmp_path / "set", labels)
    with pytest.raises(DataError, match="road, water"):
        trained(make_recipe(**WEST), root, tmp_path / "out")


def test_classes_that_are_not_held_out_are_not_scored(tmp_path):
    """The mean is over the classes that the labels hold; batches without any label pass."""

    def labels(group, label):
        if group == "west":
            return np.where(label == 2, 9, label).astype(np.uint8)
        return np.where(np.arange(64) < 40, 9, label).astype(np.uint8)

    root = grouped(tmp_path / "set", labels)
    recipe = make_recipe(**WEST, patches=32, epochs=6, loss={"class_weights": "log"})
    report = trained(recipe, root, tmp_path / "out")
    # with the missing class as a zero it could not be over two thirds
    assert report.scores["miou"] > 0.75
    assert all(math.isfinite(v) for line in journal(tmp_path / "out") for v in line.values())
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["data"]["validation"]["groups"] == ["west"]
    assert card["data"]["validation"]["pixels"]["water"] == 0
    assert card["data"]["train"]["groups"] == ["east"]


def test_a_class_that_does_not_occur_at_all(tmp_path):
    root = grouped(tmp_path / "set", lambda group, label: np.where(label == 2, 9, label))
    recipe = make_recipe(**WEST, loss={"class_weights": "log", "dice": 1.0}, patches=4)
    report = trained(recipe, root, tmp_path / "out")
    assert all(math.isfinite(v) for v in report.scores.values())


def test_sides_share_no_image(towns):
    settings = train_section()
    data = open_data(towns, settings.data, settings.table)
    feed = Feed(settings, data, split_blocks(data.images, settings.split))
    sides = [{i.name for i in images.images} for images in (feed.learned, feed.judged)]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 8


# losses and precision -----------------------------------------------------------------------


@pytest.mark.parametrize("network", ["ugsnet", "gum"])
def test_brain_floats(network, towns, tmp_path):
    recipe = make_recipe(
        network=network, precision="bf16-mixed", patch=64, patches=4, epochs=1, batch=2
    )
    report = trained(recipe, towns, tmp_path / "out")
    assert all(math.isfinite(v) for v in report.scores.values())
    assert {t.dtype for n, t in tensors(tmp_path / "out").items() if "num_b" not in n} == {
        torch.float32
    }


def test_the_weight_of_the_point_head():
    image, valid = torch.rand(2, 3, 64, 64), torch.ones(2, 3, 64, 64)
    label = torch.randint(0, 3, (2, 64, 64))
    losses = []
    for weight in (0.0, 1.0, 3.0):
        options = TINY["ugsnet"] | {"point_weight": weight}
        train = train_section(network="ugsnet", options=options)
        torch.manual_seed(2)
        lesson = Lesson(build_network(train), train, None, 10, {})
        torch.manual_seed(3)
        losses.append(lesson.network.loss(image, valid, label, lesson.criterion).item())
    assert losses[1] > losses[0] + 0.1
    assert losses[2] - losses[0] == pytest.approx(3 * (losses[1] - losses[0]), rel=1e-4)


# from other weights -------------------------------------------------------------------------


@pytest.mark.parametrize("presence", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_names_in_another_order_change_nothing(name, presence):
    """Bands and classes are found by their names: the network does what it did."""
    bands = [*BANDS, "sentinel1:vv_ascending", "sentinel1:vv_descending"]
    order, turned = [3, 2, 0, 4, 1], [2, 0, 1]
    source = make_trained(network=name, bands=bands, presence=presence, required=[])
    settings = train_section(
        network=name,
        bands=[bands[n] for n in order],
        classes=[listed()[n] for n in turned],
        presence=presence,
        required=[],
    )
    network = build_network(settings).eval()
    about = start_from(network, settings, source)
    assert about["random"] == []
    image, valid = torch.rand(1, 5, 64, 64), (torch.rand(1, 5, 64, 64) > 0.3).float()
    with torch.inference_mode():
        expected = source.network(image, valid)[:, turned]
        found = network(image[:, order], valid[:, order])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["unet", "fbp-unet", "ugsnet"])
def test_new_bands_and_classes_begin_as_the_mean(name):
    source = make_trained(network=name)
    classes = [*CLASSES[1:], ("roof", "112233")]
    settings = train_section(
        network=name, bands=[BANDS[2], "highres:nir", BANDS[0]], classes=listed(classes)
    )
    network = build_network(settings)
    start_from(network, settings, source)
    mine, theirs = network.state_dict(), source.network.state_dict()
    kernels = [n for n, t in theirs.items() if t.dim() == 4]
    first, last = kernels[0], "network.classify.weight"
    old, new = theirs[first], mine[first]
    expected = torch.stack([old[:, 2], old.mean(dim=1), old[:, 0]], dim=1)
    torch.testing.assert_close(new, expected)
    for key in (last, "network.classify.bias"):
        # the unlabelled class of the published U-Net stays in front
        before = len(theirs[key]) - 3
        known = theirs[key][before:]
        expected = torch.cat([theirs[key][:before], known[1:], known.mean(dim=0, keepdim=True)])
        torch.testing.assert_close(mine[key], expected)
    others = [n for n in theirs if not n.startswith((first, "network.classify", "network.points"))]
    assert others
    assert all(torch.equal(mine[n], theirs[n]) for n in others)


def test_a_training_starts_from_another(towns, tmp_path, learned):
    classes = [("water", "E2A929"), ("land", "8429F6"), ("roof", "112233")]
    # labels know three classes by number; the second is another for the new model
    entries = [{"value": v, "name": n, "color": c} for v, (n, c) in enumerate(CLASSES)]
    recipe = make_recipe(
        bands=[BANDS[1], BANDS[0]],
        classes=listed(classes),
        data={
            "layout": "images",
            "bands": list(BANDS),
            "classes": entries,
            "crosswalk": {"road": "roof"},
        },
        optimizer={"kind": "sgd", "rate": 1e-12},
        epochs=1,
    )
    report = trained(recipe, towns, tmp_path / "out", start=learned[0])
    assert report.finished
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["lineage"]["from"] == "tiny"
    assert card["lineage"]["copied"] > 10
    assert card["lineage"]["random"] == []
    assert len(card["lineage"]["adapted"]) == 3
    mine, theirs = tensors(tmp_path / "out"), tensors(learned[0])
    first = next(n for n, t in theirs.items() if t.dim() == 4 and t.shape[1] == 3)
    torch.testing.assert_close(mine[first], theirs[first][:, [1, 0]])
    known = theirs["network.classify.bias"]
    expected = torch.stack([known[2], known[0], known.mean()])
    torch.testing.assert_close(mine["network.classify.bias"], expected)


def test_weights_of_another_network_are_no_start():
    """All of it would stay random, and the card would say otherwise."""
    source = make_trained(network="segformer")
    settings = train_section(network="unet")
    with pytest.raises(InputError, match="segformer"):
        start_from(build_network(settings), settings, source)


# weights on disk ----------------------------------------------------------------------------


class Trap:
    """Unpickling it leaves a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt", "model.bin"])
def test_pickles_are_refused_unread(name, tmp_path):
    torch.save({"state_dict": {"x": Trap(tmp_path / "sprung")}}, tmp_path / name)
    with pytest.raises(ModelError, match=name):
        load_weights(tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def test_weights_there_and_back(tmp_path):
    source = make_trained(network="ugsnet")
    path = tmp_path / "model.safetensors"
    save_weights(path, source.network.state_dict(), source.train, source.about)
    found = load_weights(tmp_path)
    assert (found.train, found.about) == (source.train, source.about)
    for name, tensor in source.network.state_dict().items():
        assert torch.equal(tensor, found.network.state_dict()[name]), name
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_weights_that_are_not_whole(tmp_path):
    source = make_trained()
    path = tmp_path / "model.safetensors"
    save_weights(path, source.network.state_dict(), source.train, source.about)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(ModelError, match="safetensors"):
        load_weights(path)
    save_file({"x": torch.ones(3)}, path)
    with pytest.raises(ModelError, match="how it was trained"):
        load_weights(path)
    state = dict(source.network.state_dict())
    state.pop("network.classify.bias")
    save_weights(path, state, source.train, source.about)
    with pytest.raises(ModelError, match=r"classify\.bias"):
        load_weights(path)
    with pytest.raises(ModelError, match="not there"):
        load_weights(tmp_path / "elsewhere")
