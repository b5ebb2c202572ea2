"""Patches of labelled images made on the spot, each pixel of which says where it is from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mapper.errors import DataError
from mapper.recipe.learning import Augment
from mapper.training.data import patches as module
from mapper.training.data.augment import BandKinds
from mapper.training.data.crosswalk import UNTAUGHT, channel_lookup
from mapper.training.data.labelled import IGNORED, LabelledImage, LabelledSet, Pixels
from mapper.training.data.patches import (
    Channels,
    EpochBatches,
    Images,
    TrainingPatches,
    ValidationPatches,
)
from mapper.training.networks.build import source_channels
from tests.training.lessons import BANDS, train_section

STILL = {"flip": False, "turn": False}
PLAIN = {"scaling": [None], "fill": -5.0, "patch": 32}


def numbered(shapes=((50, 70), (33, 40), (90, 35)), bands=BANDS):
    """Values are the number of the pixel within the set, the same in all bands."""
    content, first = [], 1
    for shape in shapes:
        number = np.arange(first, first + shape[0] * shape[1]).reshape(shape)
        first += number.size
        label = (number % 3).astype(np.uint8)
        label[number % 7 == 0] = IGNORED
        content.append(
            Pixels(values=np.repeat(number[None], len(bands), axis=0), valid=None, label=label)
        )
    return labelled(content, bands)


def labelled(content, bands=BANDS, scale=1.0):
    """A set of pieces that lie in memory; counts how often it is read."""
    named = {f"image{n}": pixels for n, pixels in enumerate(content)}
    reads = []

    def read(image, box):
        reads.append((image.name, box))
        whole = named[image.name]
        if box is None:
            return whole
        row, col, height, width = box
        assert 0 <= row <= row + height <= image.shape[0]
        assert 0 <= col <= col + width <= image.shape[1]
        place = (..., slice(row, row + height), slice(col, col + width))
        return Pixels(
            values=whole.values[place],
            valid=None if whole.valid is None else whole.valid[place],
            label=None if whole.label is None else whole.label[place],
        )

    images = tuple(
        LabelledImage(name=name, image=None, label=None, shape=pixels.values.shape[1:])
        for name, pixels in named.items()
    )
    found = LabelledSet(
        layout="images",
        root=None,
        bands=tuple(bands),
        scale=scale,
        classes=train_section().table,
        images=images,
        read=read,
    )
    return found, reads


def images_of(data, train):
    lookup = channel_lookup(data.classes, [c.name for c in train.classes], {})
    return Images(data, data.images, Channels.of(train, data, lookup))


def training(data, train, seed=0):
    about = BandKinds.of(train.bands, source_channels(train.bands), train.bands)
    return TrainingPatches(images_of(data, train), train, about, seed)


# training patches ---------------------------------------------------------------------------


def test_a_patch_is_a_function_of_seed_epoch_and_index():
    train = train_section(
        **PLAIN, augment={"gain": 0.3, "scale": (0.7, 1.4), "rare_classes": 0.5, "noise": 0.1}
    )
    data, _ = numbered()
    one, again, other = (training(data, train, seed) for seed in (5, 5, 6))
    keys = [(0, 0), (0, 1), (1, 0), (7, 3)]
    found = {key: one[key] for key in keys}
    # in another order, and after others were drawn
    for key in reversed(keys):
        for mine, theirs in zip(found[key], again[key], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    distinct = {image.tobytes() for image, _, _ in found.values()}
    assert len(distinct) == len(keys)
    assert not np.array_equal(found[0, 0][0], other[0, 0][0])


@pytest.mark.parametrize("augment", [STILL, {"scale": (0.5, 2.0), "rare_classes": 0.5}])
def test_sets_beyond_the_memory_give_the_same_patches(augment, monkeypatch):
    train = train_section(**PLAIN, augment=augment)
    data, reads = numbered()
    kept = training(data, train)
    assert [box for _, box in reads] == [None] * 3
    expected = [kept[0, index] for index in range(12)]
    assert len(reads) == 3
    monkeypatch.setattr(module, "_KEPT", 0)
    lean = training(data, train)
    found = [lean[0, index] for index in range(12)]
    assert len(reads) > 6
    assert None not in [box for _, box in reads[6:]]
    for mine, theirs in zip(expected, found, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_patch_is_a_piece_of_one_image():
    train = train_section(**PLAIN, augment=STILL)
    data, _ = numbered()
    patches = training(data, train)
    seen = set()
    for index in range(40):
        image, valid, label = patches[0, index]
        assert (image.dtype, valid.dtype, label.dtype) == (np.float32, np.float32, np.int64)
        assert image.shape == valid.shape == (3, 32, 32)
        number = image[0].astype(int)
        assert (valid == 1).all()
        np.testing.assert_array_equal(np.diff(number, axis=1), 1)
        assert len(np.unique(np.diff(number, axis=0))) == 1
        taught = number % 7 != 0
        np.testing.assert_array_equal(label, np.where(taught, number % 3, UNTAUGHT))
        seen.add(int(number[0, 0]))
    assert len(seen) > 30


def test_images_are_drawn_by_their_size():
    train = train_section(**PLAIN, augment=STILL)
    data, _ = numbered(shapes=((96, 96), (48, 48)))
    patches = training(data, train)
    large = [patches[0, index][0].max() <= 96 * 96 for index in range(400)]
    assert np.mean(large) == pytest.approx(0.8, abs=0.06)
    assert len(patches) == 8
    assert len(training(data, train_section(**PLAIN | {"patches": None}))) == 11


def test_smaller_images_lie_in_the_middle():
    train = train_section(**PLAIN, augment=STILL)
    data, _ = numbered(shapes=((20, 50),))
    image, valid, label = training(data, train)[0, 0]
    assert valid[0].sum() == 20 * 32
    assert (valid[:, 6:26] == 1).all()
    assert (image[valid == 0] == -5).all()
    assert (label[valid[0] == 0] == UNTAUGHT).all()


def test_pieces_beyond_the_edge_hold_nothing():
    train = train_section(**PLAIN)
    data, _ = numbered(shapes=((10, 12),))
    images = images_of(data, train)
    for box in ((-5, -5, 8, 8), (7, 9, 8, 8), (-3, -3, 20, 20), (40, 0, 8, 8), (-9, 0, 8, 8)):
        patch = images.piece(0, box)
        rows, cols = np.mgrid[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
        inside = (rows >= 0) & (rows < 10) & (cols >= 0) & (cols < 12)
        assert (patch.valid == inside).all()
        assert (patch.label[~inside] == UNTAUGHT).all()
        expected = (1 + rows * 12 + cols)[inside]
        np.testing.assert_array_equal(patch.image[:, inside], np.stack([expected] * 3))
        image, valid, label = images.scaled(patch)
        assert (image[:, ~inside] == -5).all()
        assert (valid[:, ~inside] == 0).all()
        assert (label[~inside] == UNTAUGHT).all()


@pytest.mark.parametrize("marker", [np.nan, np.inf, -9999.0, 0.0])
def test_missing_values_are_fill_and_teach_nothing(marker):
    rng = np.random.default_rng(2)
    values = rng.uniform(1, 9, (3, 40, 40)).astype(np.float32)
    valid = rng.random((3, 40, 40)) > 0.3
    valid[:, :6] = False
    values[~valid] = marker
    label = np.ones((40, 40), np.uint8)
    # NaN needs no mask to be seen
    masks = [valid] if np.isfinite(marker) else [valid, None]
    for mask in masks:
        data, _ = labelled([Pixels(values=values, valid=mask, label=label)], scale=2.0)
        train = train_section(**PLAIN | {"scaling": [{"type": "offset", "value": 1}]})
        images = images_of(data, train)
        image, known, taught = images.scaled(images.piece(0, (0, 0, 40, 40)))
        np.testing.assert_array_equal(known, valid)
        assert (image[~valid] == -5).all()
        np.testing.assert_allclose(image[valid], 2 * values[valid] - 1, rtol=1e-6)
        np.testing.assert_array_equal(taught, np.where(valid.any(axis=0), 1, UNTAUGHT))


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_what_no_data_is_stored_as_has_no_influence_on_patches(seed):
    """Neither zoom nor blur mixes it into what is data."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.1, 1, (3, 40, 40)).astype(np.float32)
    valid = np.broadcast_to(rng.random((40, 40)) > 0.1, values.shape)
    train = train_section(
        **PLAIN, augment={"scale": (0.6, 1.6), "blur": 0.5, "gamma": 0.2, "gain": 0.2}
    )
    found = []
    for marker in (0.0, -9999.0):
        stored = np.where(valid, values, np.float32(marker))
        label = np.ones((40, 40), np.uint8)
        data, _ = labelled([Pixels(values=stored, valid=valid, label=label)])
        found.append(training(data, train, seed)[0, 0])
    (image, known, label), (other, also, beside) = found
    np.testing.assert_array_equal(known, also)
    np.testing.assert_array_equal(label, beside)
    np.testing.assert_allclose(image, other, rtol=1e-3, atol=1e-3)


@settings(max_examples=20)
@given(st.floats(0.3, 3), st.integers(0, 10**6))
def test_a_zoom_shows_the_same_ground(factor, seed):
    """Halves of an image stay halves: values, validity and labels by the same rule."""
    values = np.zeros((3, 128, 128), np.float32)
    values[:, :, 64:] = 10
    label = np.where(values[0] > 5, 2, 1).astype(np.uint8)
    valid = np.broadcast_to((np.arange(128) // 32 % 2 == 0)[:, None], values.shape)
    data, _ = labelled([Pixels(values=values, valid=valid, label=label)])
    how = STILL | {"scale": (factor, factor)}
    train = train_section(**PLAIN, augment=how)
    image, known, taught = training(data, train, seed)[0, 0]
    assert image.shape == (3, 32, 32)
    np.testing.assert_array_equal(known[0], known[2])
    assert (taught[known[0] == 0] == UNTAUGHT).all()
    assert (np.diff(taught.astype(int), axis=1)[known[0, :, 1:] > 0] >= 0).all()
    # but for the pixels along the border
    right = (taught == 2) == (image[0] > 5)
    assert right[known[0] > 0].sum() >= 0.9 * known[0].sum()


def test_directions_are_not_averaged_by_a_zoom():
    """Between 350 and 10 degrees lies north, not south."""
    bands = ["elevation:elevation", "elevation:aspect"]
    angle = np.where(np.arange(64) % 2, 350, 10)
    values = np.stack([np.ones((64, 64)), np.broadcast_to(angle, (64, 64))]).astype(np.float32)
    label = np.ones((64, 64), np.uint8)
    data, _ = labelled([Pixels(values=values, valid=None, label=label)], bands)
    how = STILL | {"scale": (0.7, 0.7)}
    train = train_section(**PLAIN | {"bands": bands, "data": {"bands": bands}}, augment=how)
    image = training(data, train)[0, 0][0]
    assert np.abs((image[1] + 180) % 360 - 180).max() <= 10.01


# rare classes -------------------------------------------------------------------------------


def test_every_class_is_drawn_as_often():
    """One image a class, of very different sizes."""
    content = []
    for value, side in ((0, 150), (1, 60), (2, 34)):
        label = np.full((side, side), value, np.uint8)
        content.append(Pixels(values=np.ones((3, side, side)), valid=None, label=label))
    data, _ = labelled(content)
    train = train_section(**PLAIN, augment=STILL | {"rare_classes": 1.0})
    patches = training(data, train)
    drawn = [int(patches[0, index][2][16, 16]) for index in range(300)]
    assert np.bincount(drawn).tolist() == pytest.approx([100] * 3, abs=30)
    plain = training(data, train_section(**PLAIN, augment=STILL))
    drawn = [int(plain[0, index][2][16, 16]) for index in range(300)]
    assert np.bincount(drawn, minlength=3)[0] > 220


def test_a_small_object_is_found_more_often():
    """Several tries a patch: of those drawn for a class, far more than by chance hold it."""
    label = np.zeros((400, 400), np.uint8)
    label[120:160, 310:350] = 1
    data, _ = labelled([Pixels(values=np.ones((3, 400, 400)), valid=None, label=label)])
    shares = []
    for share in (0.0, 1.0):
        train = train_section(**PLAIN, augment=STILL | {"rare_classes": share})
        patches = training(data, train)
        shares.append(np.mean([(patches[0, n][2] == 1).any() for n in range(300)]))
    assert shares[0] == pytest.approx((40 + 31) ** 2 / 369**2, abs=0.04)
    assert shares[1] > 2 * shares[0]


def test_classes_that_do_not_occur_are_not_looked_for():
    data, _ = labelled(
        [Pixels(values=np.ones((3, 40, 40)), valid=None, label=np.full((40, 40), 2, np.uint8))]
    )
    train = train_section(**PLAIN, augment={"rare_classes": 1.0})
    assert (training(data, train)[0, 0][2] == 2).all()
    empty, _ = labelled(
        [Pixels(values=np.ones((3, 40, 40)), valid=None, label=np.full((40, 40), 255, np.uint8))]
    )
    assert (training(empty, train)[0, 0][2] == UNTAUGHT).all()


def test_patches_without_a_label_are_drawn_again():
    """A label in one corner is found far more often than its area would have it."""
    label = np.full((160, 160), IGNORED, np.uint8)
    label[:40, :40] = 1
    data, _ = labelled([Pixels(values=np.ones((3, 160, 160)), valid=None, label=label)])
    patches = training(data, train_section(**PLAIN, augment=STILL))
    taught = [(patches[0, index][2] >= 0).any() for index in range(100)]
    assert np.mean(taught) > 0.35


# validation patches -------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(5, 90), st.integers(5, 90)), min_size=1, max_size=3),
    st.sampled_from([32, 40, 64]),
)
def test_every_pixel_is_judged_once(shapes, side):
    train = train_section(**PLAIN | {"patch": side})
    data, _ = numbered(shapes=shapes)
    held = ValidationPatches(images_of(data, train), side)
    pieces = [held[index] for index in range(len(held))]
    assert {image.shape for image, _, _ in pieces} == {(3, side, side)}
    seen = np.concatenate([image[0][valid[0] > 0] for image, valid, _ in pieces]).astype(int)
    assert sorted(seen) == list(range(1, 1 + sum(h * w for h, w in shapes)))
    for image, valid, label in pieces:
        number = image[0].astype(int)
        taught = (valid[0] > 0) & (number % 7 != 0)
        np.testing.assert_array_equal(label, np.where(taught, number % 3, UNTAUGHT))
    again = [held[index] for index in range(len(held))]
    for mine, theirs in zip(pieces, again, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


# bands and batches --------------------------------------------------------------------------


def test_bands_are_taken_by_name():
    values = np.arange(3)[:, None, None] * np.ones((3, 40, 40))
    data, _ = labelled([Pixels(values=values, valid=None, label=np.zeros((40, 40), np.uint8))])
    train = train_section(**PLAIN | {"bands": [BANDS[2], BANDS[0]]})
    images = images_of(data, train)
    image, _, _ = images.scaled(images.piece(0, (0, 0, 4, 4)))
    assert image[:, 0, 0].tolist() == [2, 0]


def test_a_band_that_is_missing():
    data, _ = numbered()
    train = train_section(**PLAIN | {"bands": [*BANDS, "highres:nir"]})
    with pytest.raises(DataError, match=r"needs highres:nir.*data\.bands"):
        images_of(data, train)


@given(st.integers(0, 9), st.integers(1, 40), st.integers(1, 9))
def test_batches_are_full(epoch, count, batch):
    batches = EpochBatches(epoch, count, batch)
    found = list(batches)
    assert len(found) == len(batches) == -(-count // batch)
    assert all(len(keys) == batch for keys in found)
    keys = [key for keys in found for key in keys]
    assert keys == [(epoch, index) for index in range(len(keys))]
    assert len(keys) >= count


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4))
def test_processes_share_an_epoch(count, batch, processes):
    """None takes what another takes, and each has as many batches."""
    shares = [list(EpochBatches(3, count, batch, rank, processes)) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    keys = [key for share in shares for keys in share for key in keys]
    assert sorted(keys) == [(3, index) for index in range(len(keys))]
    assert count <= len(keys) < count + batch * processes


def test_pixels_of_each_class_are_counted():
    data, _ = numbered(shapes=((14, 30),))
    images = images_of(data, train_section(**PLAIN))
    number = np.arange(1, 421)
    expected = np.bincount((number % 3)[number % 7 != 0])
    np.testing.assert_array_equal(images.counts, [expected])
    assert images.sizes.tolist() == [420]


@pytest.mark.parametrize("scale", [(0, 1), (1.4, 0.7), (-1, 1), (1, np.inf)])
def test_zooms_are_a_range(scale):
    with pytest.raises(ValidationError, match="scale"):
        Augment(scale=scale)


def test_no_recipe_changes_a_patch_unasked():
    assert Augment().model_dump(exclude={"flip", "turn", "scale", "coarsen"}) == dict.fromkeys(
        (
            "gain",
            "band_gain",
            "offset",
            "gamma",
            "noise",
            "blur",
            "drop_sources",
            "clouds",
            "rare_classes",
        ),
        0.0,
    )
    assert Augment().coarsen == 1
