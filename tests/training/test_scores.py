"""Scores against torchmetrics and by hand."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassCohenKappa,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
    MulticlassPrecision,
    MulticlassRecall,
)

from mapper.training.scores import Calibration, Scores, confusion

NAMES = ("water", "green", "built", "bare")


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(1)
    truth = rng.choice(4, (60, 70), p=(0.6, 0.25, 0.1, 0.05)).astype(np.uint8)
    noise = rng.integers(0, 4, truth.shape).astype(np.uint8)
    return truth, np.where(rng.random(truth.shape) < 0.3, noise, truth)


def metric(kind, labels, **options):
    truth, predicted = (torch.from_numpy(v.ravel().astype(np.int64)) for v in labels)
    return kind(num_classes=4, **options)(predicted, truth).numpy()


def test_matches_torchmetrics(labels):
    matrix = confusion(*labels, 4)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(matrix, metric(MulticlassConfusionMatrix, labels))
    found = Scores.of(matrix, NAMES)
    assert found.pixels == 60 * 70
    for value, kind, options in (
        (found.accuracy, MulticlassAccuracy, {"average": "micro"}),
        (found.kappa, MulticlassCohenKappa, {}),
        (found.mean_iou, MulticlassJaccardIndex, {}),
        (found.mean_f1, MulticlassF1Score, {"average": "macro"}),
        ([c.iou for c in found.classes], MulticlassJaccardIndex, {"average": "none"}),
        ([c.f1 for c in found.classes], MulticlassF1Score, {"average": "none"}),
        ([c.users for c in found.classes], MulticlassPrecision, {"average": "none"}),
        ([c.producers for c in found.classes], MulticlassRecall, {"average": "none"}),
    ):
        np.testing.assert_allclose(value, metric(kind, labels, **options), rtol=1e-6)


def test_hand_worked():
    """Congalton's usual layout: rows are the reference, columns the map."""
    found = Scores.of(np.array([[30, 10], [5, 55]]), ("a", "b"))
    a = found.classes[0]
    assert found.accuracy == 0.85
    assert a.producers == 30 / 40
    assert a.users == 30 / 35
    assert a.iou == 30 / 45
    assert a.f1 == 60 / 75
    chance = (40 * 35 + 60 * 65) / 100**2
    assert found.kappa == pytest.approx((0.85 - chance) / (1 - chance))
    assert (a.pixels, a.mapped) == (40, 35)


def test_rows_are_the_reference():
    matrix = confusion(np.array([0, 0, 0, 1]), np.array([1, 1, 0, 1]), 2)
    assert matrix.tolist() == [[1, 2], [0, 1]]


def test_what_is_not_defined_is_none():
    # class 2 is only in the map, class 3 in neither
    matrix = np.array([[5, 0, 1, 0], [1, 3, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = Scores.of(matrix, NAMES)
    only_mapped, nowhere = found.classes[2:]
    assert (only_mapped.producers, only_mapped.users, only_mapped.iou) == (None, 0, 0)
    assert (nowhere.producers, nowhere.users, nowhere.iou, nowhere.f1) == (None,) * 4
    # neither has a vote in the means
    assert found.mean_iou == pytest.approx((5 / 7 + 3 / 4) / 2)
    assert found.mean_f1 == pytest.approx((10 / 12 + 6 / 7) / 2)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["classes"][3]["iou"] is None


@pytest.mark.parametrize(("matrix", "accuracy"), [(np.zeros((2, 2)), None), (np.diag([7, 0]), 1.0)])
def test_no_kappa_without_a_choice(matrix, accuracy):
    found = Scores.of(matrix.astype(np.int64), ("a", "b"))
    assert (found.accuracy, found.kappa) == (accuracy, None)
    json.dumps(found.to_dict(), allow_nan=False)


def test_counts_of_billions_do_not_overflow():
    found = Scores.of(np.array([[6_000_000_000, 0], [0, 6_000_000_000]]), ("a", "b"))
    assert found.kappa == 1
    assert found.pixels == 12_000_000_000


@given(st.data())
def test_confusion_adds_up(data):
    classes = data.draw(st.integers(1, 25))
    pairs = st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), max_size=40)
    pixels = np.array(data.draw(pairs), dtype=np.uint8).reshape(-1, 2)
    cut = data.draw(st.integers(0, len(pixels)))
    parts = [confusion(p[:, 0], p[:, 1], classes) for p in (pixels[:cut], pixels[cut:])]
    np.testing.assert_array_equal(sum(parts), confusion(pixels[:, 0], pixels[:, 1], classes))
    assert sum(parts).sum() == len(pixels)


def test_confusion_refuses_other_classes():
    with pytest.raises(ValueError, match="255"):
        confusion(np.array([0, 255], dtype=np.uint8), np.array([0, 0]), 2)


@pytest.mark.parametrize("classes", [2, 5])
def test_calibration_error_matches_torchmetrics(classes):
    rng = np.random.default_rng(classes)
    raw = rng.normal(0, 2, (5000, classes))
    shares = (np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)).astype(np.float32)
    truth = rng.integers(0, classes, 5000)
    expected = MulticlassCalibrationError(num_classes=classes, n_bins=15, norm="l1")(
        torch.from_numpy(shares), torch.from_numpy(truth)
    )
    calibration = Calibration()
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == truth
    for part in (slice(0, 100), slice(100, None)):
        calibration.add(sure[part], right[part])
    assert calibration.error == pytest.approx(float(expected), abs=1e-6)
    assert sum(b.pixels for b in calibration.table()) == calibration.pixels == 5000


def test_reliability_by_hand():
    calibration = Calibration(bins=4)
    calibration.add(np.array([0.0, 0.25, 0.9, 1.0]), np.array([False, True, True, False]))
    first, second, _, last = calibration.table()
    assert (first.pixels, first.confidence, first.accuracy) == (2, 0.125, 0.5)
    assert (second.pixels, second.confidence, second.accuracy) == (0, None, None)
    assert (last.pixels, last.confidence) == (2, 0.95)
    assert calibration.error == pytest.approx(0.5 * 0.375 + 0.5 * 0.45)
    assert Calibration().error is None
    json.dumps(Calibration().to_dict(), allow_nan=False)
