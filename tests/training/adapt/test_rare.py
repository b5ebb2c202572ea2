"""Rare class sampling against its formula, and patches that hold what they were drawn for."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.errors import DataError
from mapper.recipe.adapting import RareClasses
from mapper.training.adapt.rare import ClassIndex, RareClassPatches
from mapper.training.data.augment import BandKinds
from mapper.training.data.labelled import IGNORED, Pixels
from mapper.training.networks.build import source_channels
from tests.training.lessons import train_section
from tests.training.test_patches import PLAIN, STILL, images_of, labelled


def index_of(counts):
    counts = np.array(counts, np.int64)
    return ClassIndex(counts=counts, names=tuple(f"c{n}" for n in range(counts.shape[1])))


def painted(*labels):
    """Images whose three bands hold the pixel's number within its image."""
    content = []
    for label in labels:
        number = np.arange(label.size).reshape(label.shape)
        values = np.repeat(number[None], 3, axis=0)
        content.append(Pixels(values=values, valid=None, label=label.astype(np.uint8)))
    return labelled(content)[0]


def sampled(data, seed=0, augment=STILL, rare=None, **changed):
    train = train_section(**PLAIN | {"augment": augment} | changed)
    kinds = BandKinds.of(train.bands, source_channels(train.bands), train.bands)
    return RareClassPatches(images_of(data, train), train, kinds, seed, rare or RareClasses())


def uneven(side=200):
    """Land, a strip of road along the top, and a pond of 20 x 20 pixels."""
    label = np.zeros((side, side), np.uint8)
    label[:16] = 1
    label[100:120, 150:170] = 2
    return label


# probabilities ------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 10**9), min_size=2, max_size=8).filter(any),
    st.sampled_from([0.01, 0.1, 1.0, 100.0]),
)
def test_probabilities_follow_the_formula(counts, temperature):
    index = index_of([counts, [0] * len(counts)])
    total = sum(counts)
    frequencies = [count / total for count in counts]
    np.testing.assert_allclose(index.frequencies, frequencies)
    weights = [
        np.exp((1 - f) / np.longdouble(temperature)) if count else 0
        for f, count in zip(frequencies, counts, strict=True)
    ]
    wanted = [float(w / sum(weights)) for w in weights]
    found = index.probabilities(temperature)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-300)
    assert found.sum() == pytest.approx(1)


def test_a_worked_example():
    """Half, a quarter, a quarter, none: e^-50, e^-75 below the rarest."""
    found = index_of([[50, 25, 20, 0], [0, 0, 5, 0]]).probabilities(0.25)
    small = np.exp(-1.0)
    np.testing.assert_allclose(found, np.array([small, 1, 1, 0]) / (2 + small))


def test_a_temperature_that_would_overflow_does_not():
    found = index_of([[999, 1]]).probabilities(1e-6)
    np.testing.assert_array_equal(found, [0, 1])


def test_classes_that_do_not_occur_are_named_and_never_drawn(caplog):
    with caplog.at_level(logging.WARNING):
        patches = sampled(painted(uneven() % 2), rare=RareClasses(tries=500))
    assert patches.index.absent == ("water",)
    assert patches.shares[2] == 0
    assert "never sampled, no pixel is water" in caplog.text
    assert {1} == {int(patches[0, n][2].max()) for n in range(20)}


def test_one_class_alone_is_refused():
    with pytest.raises(DataError, match=r"no pixel is road, water.*crosswalk"):
        sampled(painted(np.zeros((40, 40))))


def test_counts_are_those_of_the_labels():
    label = uneven()
    label[150:] = IGNORED
    index = sampled(painted(label, uneven())).index
    assert index.names == ("land", "road", "water")
    assert index.counts.tolist() == [
        [np.count_nonzero(one == value) for value in range(3)] for one in (label, uneven())
    ]


# images -------------------------------------------------------------------------------------


def test_images_with_enough_of_a_class_are_preferred():
    index = index_of([[900, 5, 0], [100, 30, 7], [100, 31, 0]])
    assert index.images_with(0, 30).tolist() == [0, 1, 2]
    assert index.images_with(1, 30).tolist() == [2]
    assert index.images_with(1, 4.5).tolist() == [0, 1, 2]
    assert index.images_with(2, 30).tolist() == [1]
    assert index.scarce(30) == ("c2",)
    assert index.scarce(31) == ("c1", "c2")


def test_classes_that_are_scarce_in_every_image_are_told(caplog):
    with caplog.at_level(logging.WARNING):
        sampled(painted(uneven()), rare=RareClasses(least=0.9))
    assert "with any: water" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        sampled(painted(uneven()), rare=RareClasses(least=0.1))
    assert not caplog.text


# patches ------------------------------------------------------------------------------------


def test_a_patch_is_a_function_of_seed_epoch_and_index():
    augment = {"gain": 0.3, "scale": (0.7, 1.4), "noise": 0.1}
    data = painted(uneven(), uneven(120))
    one, again, other = (sampled(data, seed, augment) for seed in (5, 5, 6))
    keys = [(0, 0), (0, 1), (1, 0), (7, 3)]
    found = {key: one[key] for key in keys}
    for key in reversed(keys):
        for mine, theirs in zip(found[key], again[key], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert len({image.tobytes() for image, _, _ in found.values()}) == len(keys)
    assert not np.array_equal(found[0, 0][0], other[0, 0][0])


def test_a_patch_is_a_piece_of_an_image_that_holds_the_class():
    """Of two images, only one has the rarest class; labels stay where they are."""
    labels = (uneven() % 2, uneven(160))
    patches = sampled(painted(*labels), rare=RareClasses(temperature=0.01, least=0.2))
    for n in range(30):
        image, valid, label = patches[0, n]
        assert (image.shape, label.shape, label.dtype) == ((3, 32, 32), (32, 32), np.int64)
        assert (valid == 1).all()
        number = image[0].astype(int)
        # the pond is in the second image alone
        np.testing.assert_array_equal(label, labels[1].ravel()[number])


def test_classes_are_drawn_by_their_probabilities():
    """An image a class, so that what is drawn can be told."""
    sides = {0: 160, 1: 80, 2: 40}
    data = painted(*(np.full((side, side), value) for value, side in sides.items()))
    patches = sampled(data, rare=RareClasses(temperature=0.5, least=0.1))
    total = sum(side**2 for side in sides.values())
    weight = np.exp([(1 - side**2 / total) / 0.5 for side in sides.values()])
    drawn = np.bincount([patches[0, n][2][0, 0] for n in range(600)], minlength=3) / 600
    np.testing.assert_allclose(drawn, weight / weight.sum(), atol=0.05)
    np.testing.assert_allclose(patches.shares, weight / weight.sum())


def test_crops_are_drawn_again_until_they_hold_enough():
    """More than half of `least` of the patch; ten tries hold far more often than one."""
    least = 0.2
    held = []
    for tries in (1, 10, 200):
        patches = sampled(painted(uneven()), rare=RareClasses(least=least, tries=tries))
        share = np.array([(patches[0, n][2] == 2).mean() for n in range(150)])
        held.append((share > least / 2).mean())
    # where a square must lie for more than 102 pixels of the pond to be in it
    hits = sum(
        max(0, min(r + 32, 120) - max(r, 100)) * max(0, min(c + 32, 170) - max(c, 150)) > 102.4
        for r in range(169)
        for c in range(169)
    )
    once = hits / 169**2
    assert held[0] == pytest.approx(once, abs=0.05)
    assert held[1] == pytest.approx(1 - (1 - once) ** 10, abs=0.13)
    assert held[2] == 1.0


@pytest.mark.parametrize("patches", [None, 5])
def test_an_epoch_is_what_the_recipe_says(patches):
    assert len(sampled(painted(uneven(160)), patches=patches)) == (patches or 25)
