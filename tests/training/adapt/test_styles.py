"""Colours of the target: moments by numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mapper.training.adapt.styles import restyled

pytestmark = pytest.mark.usefixtures("one_thread")

LIGHT = torch.tensor([True, True, False])


def drawn(seed, batch=3, shape=(9, 11), mean=0.0, spread=1.0, missing=0.3):
    rng = np.random.default_rng(seed)
    image = rng.normal(mean, spread, (batch, 3, *shape)).astype(np.float32)
    image *= np.arange(1, batch + 1, dtype=np.float32)[:, None, None, None]
    valid = (rng.random(image.shape) >= missing).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy(valid)


def moments(image, valid):
    values = image.numpy()[valid.numpy() > 0].astype(np.float64)
    return values.mean(), values.std()


@given(seed=st.integers(0, 10**6), sizes=st.sampled_from([(3, 3), (4, 2), (2, 5)]))
def test_moments_are_those_of_a_target_image(seed, sizes):
    image, valid = drawn(seed, sizes[0])
    target, known = drawn(seed + 1, sizes[1], (7, 8), mean=2.0, spread=0.5)
    torch.manual_seed(seed)
    found = restyled(image, valid, target, known, LIGHT)
    torch.manual_seed(seed)
    order = torch.randperm(sizes[1]).tolist()
    for k, band in np.ndindex(sizes[0], 2):
        of = order[k % sizes[1]]
        expected = moments(target[of, band], known[of, band])
        np.testing.assert_allclose(moments(found[k, band], valid[k, band]), expected, rtol=1e-4)
        there = valid[k, band] > 0
        own = image[k, band][there].numpy()
        # the same picture: a straight line leads from one to the other
        assert np.corrcoef(own, found[k, band][there].numpy())[0, 1] > 0.9999
    assert torch.equal(found[:, 2], image[:, 2])
    assert torch.equal(found[valid == 0], image[valid == 0])


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_a_strength_goes_only_so_far(strength):
    image, valid = drawn(0)
    target, known = drawn(1, 1, mean=3.0, spread=2.0)
    found = restyled(image, valid, target, known, LIGHT, strength)
    if not strength:
        torch.testing.assert_close(found, image, atol=1e-5, rtol=1e-5)
    for k, band in np.ndindex(3, 2):
        own = np.array(moments(image[k, band], valid[k, band]))
        other = np.array(moments(target[0, band], known[0, band]))
        expected = own + strength * (other - own)
        np.testing.assert_allclose(moments(found[k, band], valid[k, band]), expected, rtol=1e-4)


@pytest.mark.parametrize("worth", [1e6, float("nan")])
def test_missing_values_have_no_say(worth):
    image, valid = drawn(0)
    target, known = drawn(1)
    found = []
    for fill in (0.0, worth):
        ours, theirs = torch.where(valid > 0, image, fill), torch.where(known > 0, target, fill)
        torch.manual_seed(2)
        found.append(restyled(ours, valid, theirs, known, LIGHT)[valid > 0])
    assert torch.equal(*found)


@pytest.mark.parametrize("value", [0.0, 0.3, 5000.0])
def test_flat_bands_are_shifted_alone(value):
    target, known = drawn(1, 1, mean=3.0)
    flat = torch.full((1, 3, 9, 11), value)
    full = torch.ones_like(flat)
    found = restyled(flat, full, target, known, LIGHT)
    wanted = moments(target[0, 0], known[0, 0])[0]
    np.testing.assert_allclose(found[0, 0].numpy(), wanted, rtol=1e-3)
    found = restyled(target, known, flat, full, LIGHT)
    mean, spread = moments(found[0, 0], known[0, 0])
    assert mean == pytest.approx(value, rel=1e-4, abs=1e-5)
    assert spread == pytest.approx(moments(target[0, 0], known[0, 0])[1], rel=1e-2)


def test_bands_without_data_stay():
    image, valid = drawn(0)
    target, known = drawn(1, 1, mean=3.0)
    known[:, 0] = 0
    valid[1, 1] = 0
    found = restyled(image, valid, target, known, LIGHT)
    assert torch.equal(found[:, 0], image[:, 0])
    assert torch.equal(found[1, 1], image[1, 1])
    assert not torch.equal(found[0, 1], image[0, 1])
    assert torch.isfinite(found).all()
