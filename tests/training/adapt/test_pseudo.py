"""Pseudo-labels against loops of numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mapper.training.adapt.pseudo import (
    confident,
    dpa_share,
    entropy,
    lowest_entropy,
    surest_by_class,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def drawn(seed=0, classes=4, shape=(2, 5, 6), bands=3, missing=0.3):
    """Probabilities and validity; some pixels have a part of their bands, some none."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (shape[0], classes, *shape[1:])).astype(np.float32)
    valid = rng.random((shape[0], bands, *shape[1:])) >= missing
    valid[0, :, 0, :2] = False
    return torch.from_numpy(logits).softmax(dim=1), torch.from_numpy(valid).float()


def pixels(probabilities):
    return np.moveaxis(probabilities.numpy().astype(np.float64), 1, -1)


def rounded(value):
    return math.floor(value + 0.5)


def entropies(probabilities):
    values = pixels(probabilities)
    bits = [-sum(p * np.log2(p) for p in pixel if p > 0) for pixel in values.reshape(-1, 4)]
    return np.array(bits).reshape(values.shape[:-1]) / np.log2(4)


# entropy ------------------------------------------------------------------------------------


def test_entropy_is_that_of_a_loop():
    shares, _ = drawn()
    np.testing.assert_allclose(entropy(shares).numpy(), entropies(shares), atol=1e-6)


def test_entropy_runs_from_certain_to_all_alike():
    shares = torch.zeros(1, 25, 1, 3)
    shares[0, 7, 0, 0] = 1.0
    shares[0, :, 0, 1] = 1 / 25
    shares[0, :5, 0, 2] = 0.2
    expected = [[[0.0, 1.0, math.log(5) / math.log(25)]]]
    np.testing.assert_allclose(entropy(shares).numpy(), expected, atol=1e-6)


# dynamic assignment -------------------------------------------------------------------------


def test_the_share_grows_to_a_half():
    assert dpa_share(0, 120, 0.5) == pytest.approx(0.0041666, abs=1e-6)
    assert dpa_share(59, 120, 0.5) == pytest.approx(0.25)
    assert dpa_share(119, 120, 0.5) == 0.5


@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
def test_lowest_entropy_is_that_of_a_loop(seed, share):
    shares, valid = drawn(seed)
    found = lowest_entropy(shares, valid, share).numpy()
    seen = valid.numpy().any(axis=1)
    ranked = sorted(zip(entropies(shares)[seen], np.argwhere(seen).tolist(), strict=True))
    expected = np.full(seen.shape, -1)
    for _, place in ranked[: rounded(share * seen.sum())]:
        expected[tuple(place)] = pixels(shares)[tuple(place)].argmax()
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.int64


def test_images_are_ranked_together():
    shares = torch.full((2, 2, 4, 4), 0.5)
    shares[1, 0], shares[1, 1] = 0.1, 0.9
    label = lowest_entropy(shares, None, 0.5)
    assert (label[0] == -1).all()
    assert (label[1] == 1).all()


def test_equal_pixels_are_taken_in_the_order_of_the_batch():
    shares = torch.zeros(3, 2, 8, 8)
    shares[:, 1] = 1.0
    valid = torch.ones(3, 1, 8, 8)
    valid[0, :, 0, 0] = 0
    label = lowest_entropy(shares, valid, 100 / 191).flatten()
    assert label[0] == -1
    assert (label[1:101] == 1).all()
    assert (label[101:] == -1).all()


def test_a_product_that_floats_spoil_counts_right():
    """0.29 * 100 is 28.999999999999996."""
    shares, _ = drawn(shape=(1, 10, 10))
    assert (lowest_entropy(shares, None, 0.29) >= 0).sum() == 29


# one weight for all -------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), threshold=st.floats(0.3, 0.99))
def test_confident_is_that_of_a_loop(seed, threshold):
    shares, valid = drawn(seed)
    label, weight = confident(shares, valid, threshold)
    seen = valid.numpy().any(axis=1)
    values = pixels(shares)
    np.testing.assert_array_equal(label.numpy(), np.where(seen, values.argmax(axis=-1), -1))
    sure = sum(float(p.max()) >= threshold for p in values[seen])
    assert weight.shape == ()
    assert float(weight) == pytest.approx(sure / seen.sum())


def test_a_probability_at_the_threshold_is_sure():
    shares = torch.tensor([0.75, 0.25, 0.5, 0.5]).reshape(1, 2, 2, 1).transpose(1, 2)
    assert float(confident(shares, None, 0.75)[1]) == 0.5


def test_no_valid_pixel_at_all():
    shares, valid = drawn()
    nothing = torch.zeros_like(valid)
    label, weight = confident(shares, nothing, 0.5)
    assert float(weight) == 0
    for found in (
        label,
        lowest_entropy(shares, nothing, 0.5),
        surest_by_class(shares, nothing, 0.5),
    ):
        assert (found == -1).all()


# by class -----------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), keep=st.floats(0.01, 1))
def test_surest_by_class_is_that_of_a_loop(seed, keep):
    shares, valid = drawn(seed)
    found = surest_by_class(shares, valid, keep).numpy()
    values, seen = pixels(shares), valid.numpy().any(axis=1)
    likeliest, highest = values.argmax(axis=-1), values.max(axis=-1)
    expected = np.full(seen.shape, -1)
    for kind in range(4):
        places = np.argwhere(seen & (likeliest == kind))
        ranked = sorted(places.tolist(), key=lambda p: -highest[tuple(p)])
        for place in ranked[: max(1, rounded(keep * len(ranked)))]:
            expected[tuple(place)] = kind
    np.testing.assert_array_equal(found, expected)


def test_a_rare_class_keeps_its_surest_pixel():
    shares = torch.zeros(1, 3, 10, 10)
    shares[:, 0], shares[:, 1] = 0.99, 0.01
    shares[0, :, 4, 5] = torch.tensor([0.3, 0.0, 0.7])
    label = surest_by_class(shares, None, 0.1)
    assert label[0, 4, 5] == 2
    assert (label == 0).sum() == 10
    assert (label == 1).sum() == 0


def test_nothing_depends_on_what_invalid_pixels_hold():
    shares, valid = drawn()
    other = torch.where(valid.any(dim=1, keepdim=True), shares, torch.eye(4)[3].reshape(1, 4, 1, 1))
    assert not torch.equal(shares, other)
    for choose in (
        lambda p: lowest_entropy(p, valid, 0.4),
        lambda p: confident(p, valid, 0.6)[0],
        lambda p: confident(p, valid, 0.6)[1],
        lambda p: surest_by_class(p, valid, 0.4),
    ):
        assert torch.equal(choose(shares), choose(other))
