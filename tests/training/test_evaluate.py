"""A tiny model against labels made on the spot, next to a plain evaluation of whole images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)

from mapper.classes import ClassTable, MapClass
from mapper.errors import DataError, ModelError, UsageError
from mapper.inference.card import load_card
from mapper.inference.runtime import load_runtime
from mapper.training import evaluate as module
from mapper.training.counterparts import Crosswalk
from mapper.training.data.labelled import IGNORED, LabelledImage, LabelledSet, Pixels
from mapper.training.evaluate import evaluate, store_temperature
from mapper.training.temperature import likelihood_loss
from tests.inference.tiny_models import (
    CLASSES,
    model_item,
    tiny_answer,
    tiny_graph,
    write_folder,
    write_model,
)

COLORS = ("FF0000", "00FF00", "0000FF", "FFFF00", "00FFFF")
BANDS = ("s2:swir", "s2:nir", "s2:red")
"""Of the data set: one more than the model's, in another order."""
SCALE = 0.01


def table(*names, values=None):
    values = values or range(len(names))
    return ClassTable(
        classes=tuple(
            MapClass(value=v, name=n, title=n.title(), color=c)
            for v, n, c in zip(values, names, COLORS, strict=False)
        )
    )


def labelled(classes=None, shapes=((60, 70), (33, 90)), bands=BANDS, edit=None):
    """Images of random values; labels of random classes, a tenth of them ignored."""
    classes = classes or table(*[name for name, _ in CLASSES])
    rng, content, images = np.random.default_rng(4), {}, []
    for number, shape in enumerate(shapes):
        values = rng.integers(1, 400, (len(bands), *shape)).astype(np.uint16)
        label = rng.choice(classes.values, shape).astype(np.uint8)
        label[rng.random(shape) < 0.1] = IGNORED
        content[f"image{number}"] = Pixels(values=values, valid=None, label=label)
        path = Path(f"/data/image{number}.tif")
        group = "east" if number else "west"
        images.append(
            LabelledImage(name=f"image{number}", image=path, label=path, shape=shape, group=group)
        )
    if edit:
        content = {name: edit(pixels) for name, pixels in content.items()}

    def read(image, box):
        whole = content[image.name]
        if box is None:
            return whole
        row, col, height, width = box
        place = (slice(row, row + height), slice(col, col + width))
        valid = None if whole.valid is None else whole.valid[:, *place]
        return Pixels(values=whole.values[:, *place], valid=valid, label=whole.label[place])

    return LabelledSet(
        layout="images",
        root=Path("/data/towns"),
        bands=bands,
        scale=SCALE,
        classes=classes,
        images=tuple(images),
        read=read,
    )


def opened(folder, **options):
    card = load_card(str(write_model(folder / "tiny", **options)))
    return card, load_runtime(card, 1)


def run(opened, data, crosswalk=None, **options):
    return evaluate(*opened, data, data.images, crosswalk, **options)


def plain(data, kernel=1):
    """Logits `(pixel, class)` and labels of every labelled pixel, without windows or blocks."""
    logits, labels = [], []
    for image in data.images:
        pixels = data.read(image, None)
        values = pixels.values[[data.bands.index(b) for b in ("s2:red", "s2:nir")]] * SCALE
        known = pixels.label != IGNORED
        logits.append(tiny_answer(values[None], kernel=kernel)[0][:, known].T)
        labels.append(pixels.label[known])
    return np.concatenate(logits), np.concatenate(labels).astype(np.int64)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return opened(tmp_path_factory.mktemp("local"), kernel=5)


@pytest.mark.parametrize("held", [module.HELD, 3 * 32 * 32])
def test_matches_torchmetrics(model, monkeypatch, held):
    """Whole images at once, and blocks of 32 pixels."""
    monkeypatch.setattr(module, "HELD", held)
    data, told = labelled(), []
    found = run(model, data, listener=told.append)
    logits, labels = plain(data, kernel=5)
    given = torch.from_numpy(logits), torch.from_numpy(labels)
    matrix = multiclass_confusion_matrix(*given, num_classes=3)
    np.testing.assert_array_equal(found.scores.matrix, matrix.numpy())
    error = multiclass_calibration_error(*given, num_classes=3, n_bins=15)
    assert found.before.error == pytest.approx(float(error), abs=1e-5)
    assert found.pixels == found.before.pixels == found.after.pixels == len(labels)
    assert found.pixels + found.ignored == 60 * 70 + 33 * 90
    assert (found.images, found.unmapped) == (2, 0)
    assert [e.message for e in told] == ["image0 scored", "image1 scored"]
    # random labels: what says least is best
    assert found.fit.nll_after < found.fit.nll_before
    assert found.after.error < found.before.error


def test_groups_add_up_to_the_whole(model):
    data = labelled()
    found = run(model, data)
    assert list(found.groups) == ["east", "west"]
    total = sum(np.array(scores.matrix) for scores in found.groups.values())
    np.testing.assert_array_equal(total, found.scores.matrix)
    west = evaluate(*model, data, data.images[:1])
    assert west.scores == found.groups["west"]
    nameless = [replace(image, group="") for image in data.images]
    assert evaluate(*model, data, nameless).groups == {}


def test_card_temperature_is_replaced(tmp_path):
    data = labelled()
    first = run(opened(tmp_path / "one"), data)
    card, runtime = opened(tmp_path / "two", mapper_temperature=first.fit.temperature)
    second = evaluate(card, runtime, data, data.images)
    assert second.fit.temperature == pytest.approx(first.fit.temperature, rel=1e-3)
    assert second.fit.nll_before == pytest.approx(first.fit.nll_after, rel=1e-6)
    assert second.before.error == pytest.approx(first.after.error, abs=1e-4)


def test_stored_temperature(tmp_path, model):
    card, runtime = opened(tmp_path)
    data = labelled()
    found = evaluate(card, runtime, data, data.images)
    store_temperature(card.folder, found)
    again = load_card(str(card.folder))
    assert again.temperature == found.fit.temperature
    assert again.sha256 == card.sha256
    summary = again.item["properties"]["mapper:evaluation"]
    assert summary["data"] == "towns"
    assert summary["overall_accuracy"] == found.scores.accuracy
    assert summary["ece_after"] == found.after.error < summary["ece_before"]


def test_one_channel_for_two_classes(tmp_path):
    two = (("other", "D9D4C7"), ("green", "397D49"))
    item = model_item(classes=two, mapper_activation="sigmoid")
    card = load_card(str(write_folder(tmp_path / "binary", item, tiny_graph(classes=1, seed=5))))
    assert card.binary
    data = labelled(table("other", "green"))
    found = evaluate(card, load_runtime(card, 1), data, data.images)
    image = data.read(data.images[0], None)
    values = image.values[[2, 1]] * SCALE
    logit = tiny_answer(values[None], classes=1, seed=5)[0, 0]
    known = image.label != IGNORED
    west = np.array(found.groups["west"].matrix)
    assert west[1, 1] == (known & (image.label == 1) & (logit > 0)).sum()
    assert west[0, 1] == (known & (image.label == 0) & (logit > 0)).sum()
    assert found.fit.nll_after <= found.fit.nll_before
    lowest = min(b.low for b in found.before.table() if b.pixels)
    assert lowest >= 0.4, "the chosen one of two classes has at least half of the probability"


def test_one_yes_or_no_a_class(tmp_path):
    """Confidence is the chosen class's own sigmoid; the temperature is fitted to all of them."""
    data = labelled()
    found = run(opened(tmp_path, mapper_activation="sigmoid"), data)
    logits, labels = plain(data)
    sure = 1 / (1 + np.exp(-logits.max(axis=1)))
    right = logits.argmax(axis=1) == labels
    assert found.scores.accuracy == right.mean()
    mean = sum(b.pixels * b.confidence for b in found.before.table() if b.pixels)
    assert mean == pytest.approx(sure.sum(), rel=1e-6)
    assert found.fit.nll_before == pytest.approx(likelihood_loss(logits, labels, 1, "sigmoid"))


def test_crosswalk_of_labels(model):
    """Other values, other names, many to one and left out."""
    data = labelled(table("sea", "lake", "green", "roof", "cloud", values=(10, 20, 30, 40, 50)))
    names = {"sea": "water", "lake": "water", "roof": "built", "cloud": None, "other set": "ice"}
    found = run(model, data, Crosswalk(labels=names))
    labels = np.concatenate([data.read(i, None).label.ravel() for i in data.images])
    rows = np.array(found.scores.matrix).sum(axis=1)
    expected = [np.isin(labels, values).sum() for values in ([10, 20], [30], [40])]
    np.testing.assert_array_equal(rows, expected)
    assert found.ignored == np.isin(labels, [50, IGNORED]).sum()
    assert found.fit is not None


def test_merged_classes_of_the_model(tmp_path):
    """Probabilities of merged classes are summed; no temperature can be fitted."""
    local, data = opened(tmp_path), labelled(table("plants", "other"))
    crosswalk = Crosswalk(labels={"plants": "green"}, model={"water": "other", "built": "other"})
    found = run(local, data, crosswalk)
    assert [c.name for c in found.classes.classes] == ["other", "green"]
    assert [c.color for c in found.classes.classes] == ["00FF00", "397D49"]
    logits, labels = plain(data)
    shares = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    truth = 1 - labels
    chosen = (shares.argmax(axis=1) == 1).astype(int)
    matrix = [[((truth == r) & (chosen == c)).sum() for c in (0, 1)] for r in (0, 1)]
    np.testing.assert_array_equal(found.scores.matrix, matrix)
    sure = np.where(chosen == 1, shares[:, 1], shares[:, 0] + shares[:, 2])
    mean = sum(b.pixels * b.confidence for b in found.before.table() if b.pixels)
    assert mean == pytest.approx(sure.sum(), rel=1e-6)
    assert (found.fit, found.after) == (None, None)
    with pytest.raises(UsageError, match="temperature"):
        store_temperature(local[0].folder, found)
    json.dumps(found.to_dict(), allow_nan=False)


def test_classes_in_another_order(model):
    """The same evaluation, its table turned round; the temperature stays."""
    data = labelled()
    first = run(model, data)
    second = run(model, data, Crosswalk(classes=("built", "green", "water")))
    turned = np.array(first.scores.matrix)[::-1, ::-1]
    np.testing.assert_array_equal(second.scores.matrix, turned)
    assert second.fit == first.fit
    assert second.before.error == first.before.error


def test_class_that_the_model_leaves_out(model):
    data = labelled()
    whole = run(model, data)
    crosswalk = Crosswalk(model={"built": None}, labels={"built": None})
    found = run(model, data, crosswalk)
    matrix = np.array(whole.scores.matrix)
    np.testing.assert_array_equal(found.scores.matrix, matrix[:2, :2])
    assert found.unmapped == matrix[:2, 2].sum()
    assert found.fit is None
    nothing = {"water": None, "green": None, "built": None}
    with pytest.raises(DataError, match="given no class"):
        run(model, data, Crosswalk(model=nothing, classes=("water", "green", "built")))


def test_pixels_without_a_required_band_get_no_class(model):
    def edit(pixels):
        valid = np.ones(pixels.values.shape, dtype=bool)
        # a band that the model does not read, and one that it does
        valid[0, :5], valid[1, :, :7] = False, False
        return replace(pixels, valid=valid)

    data = labelled(edit=edit)
    found = run(model, data)
    known = [data.read(i, None).label != IGNORED for i in data.images]
    assert found.unmapped == sum(k[:, :7].sum() for k in known)
    assert found.pixels == sum(k[:, 7:].sum() for k in known)


def test_optional_bands_may_be_missing(tmp_path):
    options = {"validity": True, "mapper_required": ["s2:red"]}
    local = opened(tmp_path, **options)
    data = labelled(bands=("s2:red",))
    found = run(local, data)
    assert found.missing == ("s2:nir",)
    pixels = data.read(data.images[0], None)
    values = np.stack([pixels.values[0] * SCALE, np.zeros_like(pixels.values[0])])
    chosen = tiny_answer(values[None])[0].argmax(axis=0)
    known = pixels.label != IGNORED
    assert found.groups["west"].accuracy == np.mean((chosen == pixels.label)[known])


def test_values_that_are_no_numbers_are_not_data(model):
    def edit(pixels):
        values = pixels.values.astype(np.float64)
        values[1, 0, 0], values[2, 1, 1] = np.nan, -1e308
        label = pixels.label.copy()
        label[:2, :2] = 0
        return replace(pixels, values=values, label=label)

    assert run(model, labelled(edit=edit)).unmapped == 4


@pytest.mark.parametrize(
    ("data", "crosswalk", "message"),
    [
        (labelled(bands=("s2:red", "s2:swir")), None, "towns has no band s2:nir"),
        (labelled(table("water", "sand")), None, "'sand' .* no counterpart .*null to leave"),
        (labelled(), Crosswalk(model={"snow": "water"}), "snow"),
        (labelled(), Crosswalk(labels={"green": "gren"}), "'gren', which is no class"),
        (labelled(), Crosswalk(classes=("water", "green")), "'built' of model"),
        (labelled(edit=lambda p: replace(p, label=p.label + 100)), None, "label 10[0-2]"),
        (labelled(edit=lambda p: replace(p, label=None)), None, "image0.tif has no label"),
        (labelled(edit=lambda p: replace(p, label=p.label[1:])), None, "59, 70"),
        (labelled(edit=lambda p: replace(p, label=p.label | 255)), None, "no pixel of .*7170 are"),
        (labelled(shapes=()), None, "no image"),
    ],
)
def test_data_that_do_not_fit_are_refused(model, data, crosswalk, message):
    with pytest.raises(DataError, match=message):
        run(model, data, crosswalk)


def test_heads_without_one_class_a_pixel_are_refused(model):
    card = replace(model[0], head="labels", activation="sigmoid")
    data = labelled()
    with pytest.raises(ModelError, match="one class a pixel"):
        evaluate(card, model[1], data, data.images)


def test_probabilities_as_they_are(tmp_path):
    """A model without activation yields probabilities, and has no temperature."""
    found = run(opened(tmp_path, mapper_activation="none"), labelled())
    assert found.fit is None
    assert found.before.pixels == found.pixels
