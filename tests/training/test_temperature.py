"""The temperature against scipy's optimiser and torch's likelihood."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from mapper.training.temperature import (
    HIGHEST,
    LOWEST,
    PixelSample,
    fit_temperature,
    golden_section,
    likelihood_loss,
)


def drawn(factor, classes=4, pixels=4000, seed=0):
    """Logits that are `factor` times those which the labels were drawn by."""
    rng = np.random.default_rng(seed)
    right = rng.normal(0, 2, (pixels, classes))
    truth = (right + rng.gumbel(size=right.shape)).argmax(axis=1)
    return (factor * right).astype(np.float32), truth


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_matches_scipy(factor, kind):
    logits, truth = drawn(factor)
    fit = fit_temperature(logits, truth, kind)
    expected = minimize_scalar(
        lambda t: likelihood_loss(logits.astype(np.float64), truth, t, kind),
        bounds=(LOWEST, HIGHEST),
        method="bounded",
        options={"xatol": 1e-7},
    )
    assert fit.temperature == pytest.approx(expected.x, rel=1e-3)
    assert fit.nll_after == pytest.approx(expected.fun, abs=1e-7)
    if kind == "softmax":
        assert fit.temperature == pytest.approx(factor, rel=0.06)


def test_likelihood_matches_torch():
    logits, truth = drawn(2.0, pixels=500)
    values = torch.from_numpy(logits.astype(np.float64)) / 1.7
    expected = torch.nn.functional.cross_entropy(values, torch.from_numpy(truth))
    found = likelihood_loss(logits.astype(np.float64), truth, 1.7)
    assert found == pytest.approx(float(expected))
    wanted = torch.nn.functional.one_hot(torch.from_numpy(truth), 4).double()
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    expected = loss(values, wanted, reduction="none").sum(dim=1).mean()
    found = likelihood_loss(logits.astype(np.float64), truth, 1.7, "sigmoid")
    assert found == pytest.approx(float(expected))


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    factor=st.floats(0.01, 200),
    current=st.floats(0.1, 10),
    kind=st.sampled_from(["softmax", "sigmoid"]),
)
def test_never_raises_the_loss_and_changes_no_class(seed, factor, current, kind):
    logits, truth = drawn(factor, classes=3, pixels=60, seed=seed)
    fit = fit_temperature(logits, truth, kind, current)
    assert fit.nll_after <= fit.nll_before
    assert LOWEST * 0.99 <= fit.temperature <= HIGHEST * 1.01
    before = (logits / np.float32(current)).argmax(axis=1)
    after = (logits / np.float32(fit.temperature)).argmax(axis=1)
    top = np.sort(logits, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-5 * np.abs(top[:, -1])
    np.testing.assert_array_equal(before[clear], after[clear])


def test_a_model_that_is_always_right_keeps_to_the_bounds():
    truth = np.arange(30) % 3
    logits = 5 * np.eye(3, dtype=np.float32)[truth]
    assert fit_temperature(logits, truth).temperature == pytest.approx(LOWEST, rel=1e-3)


def test_golden_section():
    assert golden_section(lambda x: (x - 1.234) ** 2, -3, 8, 1e-6) == pytest.approx(1.234, abs=1e-5)


def offered(order, size=300):
    sample = PixelSample(2, size=size)
    for number in order:
        values = np.arange(500, dtype=np.float32) + 500 * number
        sample.add(np.stack([values, -values]), np.full(500, number), (7, number))
    return sample.pixels()


def test_sample_is_bounded_uniform_and_free_of_order():
    logits, truth = offered(range(40))
    assert logits.shape == (300, 2)
    assert len(np.unique(logits[:, 0])) == 300
    np.testing.assert_array_equal(logits[:, 0] // 500, truth)
    # 7.5 pixels of each piece are expected; a biased sample would favour first or last
    assert np.bincount(truth, minlength=40).max() < 22
    assert 150 - 45 < (truth < 20).sum() < 150 + 45
    again, _ = offered(reversed(range(40)))
    np.testing.assert_array_equal(logits, again)


def test_small_sample_keeps_everything():
    logits, truth = offered(range(2), size=5000)
    assert len(logits) == len(truth) == 1000
    assert set(logits[:, 0].astype(int)) == set(range(1000))
