"""Strong changes against plain numpy, for any bands, with nothing out of missing values."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mapper.recipe.adapting import Mixing
from mapper.training.adapt.strong import Palette, strong
from tests.training.lessons import train_section

pytestmark = pytest.mark.usefixtures("one_thread")

JITTER = Mixing(jitter=0.3, jittered=1, blurred=0)
BLUR = Mixing(jittered=0, blurred=1)
BOTH = Mixing(jittered=1, blurred=1)


def palette(light, other=0, zero=-0.5):
    count = light + other
    return Palette(
        light=torch.arange(count) < light, zero=torch.full((count,), zero) + torch.arange(count) / 8
    )


def drawn(count, batch=2, shape=(10, 12), seed=0, missing=0.2):
    rng = np.random.default_rng(seed)
    image = rng.normal(0, 1, (batch, count, *shape)).astype(np.float32)
    valid = (rng.random(image.shape) >= missing).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy(valid)


def numbers(batch, light, seed):
    """What is drawn: `(batch, 6 + bands of light)` uniform numbers."""
    torch.manual_seed(seed)
    return torch.rand(batch, 6 + light).numpy().astype(np.float64)


def changed(image, valid, about, how, seed=3):
    torch.manual_seed(seed)
    return strong(image, valid, about, how)


def factors(draw, strength):
    wide = 1 + strength * (2 * draw[3:6] - 1)
    gains = 1 + strength / 2 * (2 * draw[6:] - 1)
    return np.maximum(wide, 0), np.maximum(gains, 0)


def jittered(image, known, zero, draw, strength):
    """One image `(band, y, x)`, the light alone, all in float64 and by loops."""
    (brightness, contrast, saturation), gains = factors(draw, strength)
    image = np.array(image, dtype=np.float64)
    for band in range(len(image)):
        image[band] = zero[band] + (image[band] - zero[band]) * brightness * gains[band]
        mean = image[band][known[band]].mean() if known[band].any() else 0.0
        image[band] = mean + (image[band] - mean) * contrast
    if len(image) < 2:
        return image
    for y, x in np.ndindex(*image.shape[1:]):
        there = known[:, y, x]
        if there.any():
            grey = image[there, y, x].mean()
            image[:, y, x] = grey + (image[:, y, x] - grey) * saturation
    return image


def blurred(image, known, sigma):
    """One band: the Gaussian mean of what is data, pixel by pixel."""
    found = np.zeros(image.shape)
    rows, cols = np.indices(image.shape)
    for y, x in np.ndindex(*image.shape):
        weight = np.exp(-((rows - y) ** 2 + (cols - x) ** 2) / (2 * sigma**2))
        weight = weight * known * (abs(rows - y) <= 4) * (abs(cols - x) <= 4)
        found[y, x] = (weight * image).sum() / max(weight.sum(), 1e-12)
    return found


# colours ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("light", "other"), [(1, 0), (3, 0), (4, 0), (10, 0), (10, 3), (1, 2)])
def test_the_jitter_is_that_of_a_loop(light, other):
    image, valid = drawn(light + other)
    about = palette(light, other)
    found = changed(image, valid, about, JITTER).numpy()
    draw = numbers(2, light, 3)
    for k in range(2):
        known = valid[k, :light].numpy() > 0
        zero = about.zero[:light].numpy()
        expected = jittered(image[k, :light].numpy(), known, zero, draw[k], 0.3)
        np.testing.assert_allclose(found[k, :light][known], expected[known], atol=1e-5)
        assert np.abs(expected - image[k, :light].numpy())[known].max() > 0.01


@given(seed=st.integers(0, 10**6), light=st.integers(0, 13), other=st.integers(0, 3))
def test_only_light_that_is_data_changes(seed, light, other):
    if not light + other:
        return
    image, valid = drawn(light + other, seed=seed)
    before = image.clone()
    found = changed(image, valid, palette(light, other), BOTH, seed)
    assert torch.equal(image, before)
    assert found.shape == image.shape
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    assert torch.equal(found[:, light:], image[:, light:])
    missing = valid == 0
    assert torch.equal(found[missing], image[missing])


@pytest.mark.parametrize("how", [JITTER, BLUR, BOTH])
@pytest.mark.parametrize("worth", [1e6, float("nan")])
def test_missing_values_have_no_say(how, worth):
    image, valid = drawn(4)
    about = palette(3, 1)
    other = torch.where(valid > 0, image, worth)
    found, same = (changed(i, valid, about, how) for i in (image, other))
    known = valid > 0
    assert torch.equal(found[known], same[known])


def test_brightness_leaves_physical_zero_where_it_is():
    """With contrast and saturation that zero is the mean of, too."""
    image, valid = torch.zeros(4, 2, 6, 6), torch.ones(4, 2, 6, 6)
    about = Palette(light=torch.tensor([True, True]), zero=torch.zeros(2))
    assert torch.equal(changed(image, valid, about, JITTER), image)
    image = image + 1
    assert not torch.equal(changed(image, valid, about, JITTER), image)


def test_a_share_of_the_images_is_changed():
    image, valid = drawn(3, batch=400, shape=(4, 4))
    about = palette(3)
    for how, share in ((Mixing(jittered=0.8, blurred=0), 0.8), (Mixing(jittered=0), 0.5)):
        found = changed(image, valid, about, how)
        count = int((found != image).any(dim=3).any(dim=2).any(dim=1).sum())
        # 5 standard deviations of a binomial
        assert abs(count - 400 * share) < 5 * np.sqrt(400 * share * (1 - share))
    still = Mixing(jittered=0, blurred=0)
    assert torch.equal(changed(image, valid, about, still), image)


def test_images_do_not_depend_on_each_other():
    image, valid = drawn(4, batch=2)
    other = image.clone()
    other[1] += 5
    found, same = (changed(i, valid, palette(4), BOTH) for i in (image, other))
    assert torch.equal(found[0], same[0])


# blur ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_the_blur_is_that_of_a_loop(missing):
    image, valid = drawn(2, missing=missing)
    found = changed(image, valid, palette(2), BLUR).numpy()
    draw = numbers(2, 2, 3)
    for k, band in np.ndindex(2, 2):
        known = valid[k, band].numpy() > 0
        sigma = 0.15 + draw[k, 2]
        expected = blurred(image[k, band].numpy().astype(np.float64), known, sigma)
        np.testing.assert_allclose(found[k, band][known], expected[known], atol=1e-5)


def test_a_flat_image_stays_flat_beside_holes_and_edges():
    _, valid = drawn(2, missing=0.6)
    image = torch.where(valid > 0, 3.0, -99.0)
    found = changed(image, valid, palette(2), BLUR)
    torch.testing.assert_close(found, image)


def test_no_sigma_is_no_blur():
    image, valid = drawn(2)
    how = Mixing(jittered=0, blurred=1, sigma=(0, 0))
    torch.testing.assert_close(changed(image, valid, palette(2), how), image)


def test_patches_smaller_than_the_kernel():
    image, valid = drawn(2, shape=(1, 3))
    assert torch.isfinite(changed(image, valid, palette(2), BLUR)).all()


# palettes -----------------------------------------------------------------------------------


def test_a_palette_of_a_recipe():
    names = ["sentinel2:red", "sentinel2:nir", "sentinel1:vv_descending", "elevation:aspect"]
    scaling = [
        {"type": "min-max", "minimum": 100, "maximum": 300},
        {"type": "z-score", "mean": 8, "stddev": 4},
        {"type": "clip", "minimum": 3, "maximum": 5},
        None,
    ]
    found = Palette.of(train_section(bands=names, scaling=scaling))
    assert found.light.tolist() == [True, True, False, False]
    torch.testing.assert_close(found.zero, torch.tensor([-0.5, -2.0, 3.0, 0.0]))


def test_one_scaling_is_that_of_all_bands():
    section = train_section(scaling=[{"type": "z-score", "mean": 1, "stddev": 2}])
    assert Palette.of(section).zero.tolist() == [-0.5] * 3
