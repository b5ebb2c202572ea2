"""Losses against torch's own and against loops of numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn import functional

from mapper.errors import DataError
from mapper.recipe.training import Loss
from mapper.training.losses import (
    IGNORED,
    class_weights,
    dice_loss,
    focal_loss,
    make_criterion,
)

pytestmark = pytest.mark.usefixtures("one_thread")

FBP = """22.7467 24.6431 3.2611 12.7603 37.6410 15.1353 27.0354 49.7190 38.1156 45.3688 19.8079
15.6410 14.6416 35.8430 34.6233 49.8047 45.1986 17.1660 50.2263 50.1459 22.2144 46.8094 48.8383
48.9092"""
"""Published weights of the 24 classes of Five-Billion-Pixels."""

KINDS = [
    Loss(),
    Loss(cross_entropy=0, dice=1),
    Loss(cross_entropy=0, focal=1),
    Loss(cross_entropy=0.7, dice=0.2, focal=2.0, gamma=1.5),
]


def drawn(seed=0, classes=4, shape=(2, 5, 6), ignored=0.3):
    """Logits and labels, a part of them ignored."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (shape[0], classes, *shape[1:]))
    label = rng.integers(0, classes, shape)
    label[rng.random(shape) < ignored] = IGNORED
    return torch.from_numpy(logits), torch.from_numpy(label)


def pixels(logits, label):
    """Probabilities `(n, class)` and labels `(n,)` of the pixels that teach."""
    values = np.moveaxis(logits.numpy(), 1, -1).reshape(-1, logits.shape[1])
    truth = label.numpy().ravel()
    values, truth = values[truth != IGNORED], truth[truth != IGNORED]
    scores = np.exp(values - values.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True), truth


@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0, 0.5]])
def test_cross_entropy_is_torchs(weights):
    logits, label = drawn()
    found = make_criterion(Loss(), weights)(logits, label)
    table = None if weights is None else torch.tensor(weights)
    expected = functional.cross_entropy(logits.float(), label, table, ignore_index=IGNORED)
    torch.testing.assert_close(found, expected)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0, 4), st.booleans())
def test_focal_by_hand(seed, gamma, weighted):
    logits, label = drawn(seed)
    weights = np.array([0.2, 1.0, 3.0, 0.5]) if weighted else np.ones(4)
    scores, truth = pixels(logits, label)
    if not len(truth):
        return
    right = scores[np.arange(len(truth)), truth]
    own = weights[truth]
    expected = (own * (1 - right) ** gamma * -np.log(right)).sum() / own.sum()
    table = torch.from_numpy(weights) if weighted else None
    assert float(focal_loss(logits, label, gamma, table)) == pytest.approx(expected, rel=1e-6)


def test_focal_without_focus_is_cross_entropy():
    logits, label = drawn()
    table = torch.tensor([0.2, 1.0, 3.0, 0.5], dtype=torch.float64)
    expected = functional.cross_entropy(logits, label, table, ignore_index=IGNORED)
    torch.testing.assert_close(focal_loss(logits, label, 0.0, table), expected)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_dice_by_hand(seed, present):
    logits, label = drawn(seed)
    label = torch.where(label >= present, 0, label)
    scores, truth = pixels(logits, label)
    if not len(truth):
        return
    losses = []
    for c in range(4):
        here = truth == c
        if here.any():
            losses.append(1 - 2 * scores[here, c].sum() / (scores[:, c].sum() + here.sum()))
    assert float(dice_loss(logits, label)) == pytest.approx(np.mean(losses), rel=1e-6)


def test_a_sum_of_losses():
    logits, label = drawn()
    loss = Loss(cross_entropy=0.7, dice=0.2, focal=2.0, gamma=1.5)
    table = [0.2, 1.0, 3.0, 0.5]
    parts = [
        0.7 * make_criterion(Loss(), table)(logits, label),
        0.2 * dice_loss(logits.float(), label),
        2.0 * focal_loss(logits.float(), label, 1.5, torch.tensor(table)),
    ]
    torch.testing.assert_close(make_criterion(loss, table)(logits, label), sum(parts))


@pytest.mark.parametrize("loss", KINDS)
@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0, 0.5]])
def test_ignored_pixels_teach_nothing(loss, weights):
    logits, label = drawn()
    logits.requires_grad_()
    criterion = make_criterion(loss, weights)
    criterion(logits, label).backward()
    gradient = logits.grad.movedim(1, -1)
    assert not gradient[label == IGNORED].any()
    assert (gradient[label != IGNORED] != 0).all()
    other = logits.detach().clone()
    other.movedim(1, -1)[label == IGNORED] += 7
    torch.testing.assert_close(criterion(other, label), criterion(logits.detach(), label))


@pytest.mark.parametrize("loss", KINDS)
@pytest.mark.parametrize("weights", [None, [0.2, 1.0, 3.0, 0.5]])
def test_a_batch_without_a_label_is_nothing(loss, weights):
    logits, label = drawn(ignored=1.0)
    logits.requires_grad_()
    found = make_criterion(loss, weights)(logits, label)
    found.backward()
    assert found.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf, math.nan])
def test_classes_of_no_weight_are_refused(weight):
    """A batch of nothing but them would be zero by zero."""
    with pytest.raises(ValidationError, match="more than 0"):
        Loss(class_weights=[1.0, weight, 2.0])


@pytest.mark.parametrize("loss", KINDS)
@pytest.mark.parametrize("scale", [0.0, 1e3])
def test_certain_networks_have_finite_losses(loss, scale):
    """All right and all wrong by a thousand: where naive logarithms end."""
    _, label = drawn(ignored=0.0)
    right = functional.one_hot(label, 4).movedim(-1, 1).float() * scale
    for logits in (right, -right):
        logits = logits.clone().requires_grad_()
        found = make_criterion(loss, None)(logits, label)
        found.backward()
        assert torch.isfinite(found)
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", KINDS)
def test_half_precision_is_raised_first(loss, dtype):
    logits, label = drawn(shape=(2, 40, 40))
    found = make_criterion(loss, None)(logits.to(dtype), label)
    assert found.dtype == torch.float32
    expected = make_criterion(loss, None)(logits, label)
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("loss", KINDS)
def test_points_are_pixels_in_a_row(loss):
    logits, label = drawn()
    criterion = make_criterion(loss, None)
    flat = criterion(logits.flatten(2), label.flatten(1))
    torch.testing.assert_close(flat, criterion(logits, label))


def test_published_weights_come_from_shares():
    published = [float(weight) for weight in FBP.split()]
    assert len(published) == 24
    shares = [math.exp(1 / weight) - 1.02 for weight in published]
    assert sum(shares) == pytest.approx(0.747, abs=0.0005)
    assert shares[2] == pytest.approx(0.339, abs=0.0005)
    pixels = 150 * 6800 * 7200
    counts = [round(share * pixels) for share in shares]
    assert sum(counts) == pytest.approx(5.48e9, rel=0.002)
    np.testing.assert_allclose(class_weights(counts, pixels), published, rtol=1e-6)


def test_weights_fall_with_the_share():
    found = class_weights([0, 1, 50, 100], 100)
    assert found == sorted(found, reverse=True)
    assert found[0] == pytest.approx(1 / math.log(1.02))
    assert found[3] == pytest.approx(1 / math.log(2.02))
    with pytest.raises(DataError, match="no pixel"):
        class_weights([0, 0], 0)
