"""Changes of patches: what belongs together stays together, whatever the bands are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.recipe.learning import Augment
from mapper.training.data.augment import (
    BandKinds,
    Patch,
    augmented,
    blurred,
    coarsened,
    grown_holes,
)
from mapper.training.networks.build import source_channels

BANDS = (
    "sentinel2:red",
    "sentinel2:nir",
    "sentinel1:vv_ascending",
    "sentinel1:vh_ascending",
    "sentinel1:vv_descending",
    "sentinel1:vh_descending",
    "elevation:elevation",
    "elevation:slope",
    "elevation:aspect",
)
LIGHT, DARK, ASPECT = [0, 1], [2, 3, 4, 5, 6, 7, 8], 8
STILL = Augment(flip=False, turn=False)
ALL = Augment(
    gain=0.5,
    band_gain=0.2,
    offset=0.1,
    gamma=0.3,
    noise=0.05,
    blur=0.5,
    drop_sources=0.5,
    clouds=0.5,
)


def kinds(bands=BANDS, required=()):
    return BandKinds.of(bands, source_channels(bands), required)


def drawn(seed=0, bands=9, shape=(16, 16)):
    rng = np.random.default_rng(seed)
    return Patch(
        image=rng.uniform(0.1, 1, (bands, *shape)).astype(np.float32),
        valid=rng.random((bands, *shape)) > 0.2,
        label=rng.integers(-1, 5, shape),
    )


def changed(patch, how, about, seed=0):
    """A changed copy."""
    copy = Patch(image=patch.image.copy(), valid=patch.valid.copy(), label=patch.label.copy())
    return augmented(copy, how, about, np.random.default_rng(seed))


# flips and turns ----------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(1, 6), st.sampled_from([(8, 8), (8, 12)]))
def test_everything_turns_together(seed, bands, shape):
    """Each pixel carries its number in image, validity and label."""
    number = np.arange(shape[0] * shape[1]).reshape(shape)
    patch = Patch(
        image=np.repeat(number[None], bands, axis=0).astype(np.float32),
        valid=np.stack([number % (band + 2) == 0 for band in range(bands)]),
        label=number.astype(np.int64),
    )
    names = [f"source:band{n}" for n in range(bands)]
    found = changed(patch, Augment(), kinds(names), seed)
    assert sorted(found.label.ravel()) == list(number.ravel())
    for band in range(bands):
        np.testing.assert_array_equal(found.image[band], found.label)
        np.testing.assert_array_equal(found.valid[band], found.label % (band + 2) == 0)
    neighbours = np.abs(np.diff(found.label, axis=1))
    assert np.unique(neighbours).tolist() in ([1], [shape[1]])


def test_all_eight_positions_come_up():
    patch = drawn(bands=1, shape=(5, 5))
    found = {
        changed(patch, Augment(), kinds(["a:red"]), seed).image.tobytes() for seed in range(99)
    }
    assert len(found) == 8
    for how, number in ((Augment(turn=False), 4), (Augment(flip=False), 4), (STILL, 1)):
        found = {changed(patch, how, kinds(["a:red"]), s).image.tobytes() for s in range(60)}
        assert len(found) == number


def aspect_of(elevation):
    """Degrees clockwise from north in which the ground falls; rows go south."""
    south, east = np.gradient(elevation.astype(np.float64))
    return np.degrees(np.arctan2(-east, south)) % 360


def hill(slope_east, slope_north, bend, side=12):
    rows, cols = np.mgrid[0:side, 0:side] - side / 2
    return slope_east * cols - slope_north * rows + bend * rows * cols / 20


@pytest.mark.parametrize(
    ("slope", "expected"), [((0, -1), 0), ((-1, 0), 90), ((0, 1), 180), ((1, 0), 270)]
)
def test_directions_are_what_they_are_called(slope, expected):
    """Ground that falls to the north faces north."""
    np.testing.assert_allclose(aspect_of(hill(*slope, bend=0)) % 360, expected, atol=1e-9)


steep = st.floats(0.5, 2).flatmap(lambda v: st.sampled_from([v, -v]))


@given(steep, steep, st.floats(-0.3, 0.3), st.integers(0, 10**6))
def test_directions_turn_with_the_ground(east, north, bend, seed):
    elevation = hill(east, north, bend)
    image = np.stack([elevation, aspect_of(elevation)]).astype(np.float32)
    patch = Patch(
        image=image, valid=np.ones(image.shape, bool), label=np.zeros(image.shape[1:], np.int64)
    )
    names = ["elevation:elevation", "elevation:aspect"]
    found = changed(patch, Augment(gain=1, noise=1), kinds(names), seed)
    off = (found.image[1] - aspect_of(found.image[0]) + 180) % 360 - 180
    np.testing.assert_allclose(off, 0, atol=0.01)
    assert ((found.image[1] >= 0) & (found.image[1] < 360)).all()


def test_directions_are_not_blurred():
    """Between 350 and 10 degrees lies north, not south."""
    elevation = hill(0.17, -1, 0)
    angle = np.where(np.arange(12) % 2, 350, 10).astype(np.float32)
    image = np.stack([elevation, np.broadcast_to(angle, (12, 12))]).astype(np.float32)
    patch = Patch(image=image, valid=np.ones(image.shape, bool), label=np.zeros((12, 12), np.int64))
    names = ["elevation:elevation", "elevation:aspect"]
    found = changed(patch, Augment(flip=False, turn=False, blur=1.0), kinds(names))
    off = np.abs((found.image[1] + 180) % 360 - 180)
    assert off.max() <= 10.01


# light --------------------------------------------------------------------------------------


@given(st.integers(0, 10**6))
def test_radar_and_terrain_are_not_lit(seed):
    patch = drawn(seed)
    how = Augment(flip=False, turn=False, gain=0.5, band_gain=0.2, offset=0.1, gamma=0.3, noise=0.1)
    found = changed(patch, how, kinds(), seed)
    np.testing.assert_array_equal(found.image[DARK], patch.image[DARK])
    assert (found.image[LIGHT] != patch.image[LIGHT]).mean() > 0.9


def test_a_gain_is_one_for_all_and_a_band_gain_is_not():
    patch = drawn()
    common = changed(patch, Augment(flip=False, turn=False, gain=0.5), kinds()).image
    apart = changed(patch, Augment(flip=False, turn=False, band_gain=0.5), kinds()).image
    ratio = common[LIGHT] / patch.image[LIGHT]
    assert np.ptp(ratio) < 1e-5
    assert np.exp(-0.5) <= ratio[0, 0, 0] <= np.exp(0.5)
    ratio = (apart[LIGHT] / patch.image[LIGHT]).reshape(2, -1)
    assert (np.ptp(ratio, axis=1) < 1e-5).all()
    assert abs(ratio[0, 0] - ratio[1, 0]) > 1e-3


@pytest.mark.parametrize("unit", [1.0, 255.0, 10_000.0])
def test_gamma_means_the_same_in_every_unit(unit):
    patch = drawn()
    how = Augment(flip=False, turn=False, gamma=0.8)
    expected = changed(patch, how, kinds(), 3).image[LIGHT] * unit
    patch.image[LIGHT] *= np.float32(unit)
    np.testing.assert_allclose(changed(patch, how, kinds(), 3).image[LIGHT], expected, rtol=1e-4)


@given(st.integers(0, 10**6))
def test_the_order_of_values_stays(seed):
    """Light changes how bright pixels are, not which is brighter."""
    patch = drawn(seed)
    how = Augment(flip=False, turn=False, gain=0.5, band_gain=0.2, gamma=0.5)
    found = changed(patch, how, kinds(), seed)
    for band in LIGHT:
        order = np.argsort(patch.image[band].ravel())
        assert (np.diff(found.image[band].ravel()[order]) >= -1e-5).all()


def test_blur_keeps_the_mean_of_flat_ground():
    flat = np.full((2, 9, 9), 3.5, np.float32)
    np.testing.assert_allclose(blurred(flat, 0.8), flat, rtol=1e-6)
    spike = np.zeros((1, 9, 9), np.float32)
    spike[0, 4, 4] = 1
    found = blurred(spike, 0.8)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    offsets = np.arange(-3, 4)
    kernel = np.exp(-(offsets**2) / (2 * 0.8**2))
    kernel /= kernel.sum()
    np.testing.assert_allclose(found[0, 1:8, 1:8], np.outer(kernel, kernel), atol=1e-6)


# a coarser sensor ---------------------------------------------------------------------------


def coarse_pixel(values, row, col, side):
    """One pixel of one band: means of the four nearest squares, weighted by their distance."""
    cells = [-(-size // side) for size in values.shape]

    def mean(i, j):
        return values[i * side : (i + 1) * side, j * side : (j + 1) * side].mean()

    total = 0.0
    at = [(place + 0.5) / side - 0.5 for place in (row, col)]
    for i in range(cells[0]):
        for j in range(cells[1]):
            # beyond the middle of the outermost squares they go on as they are
            near = [np.clip(a, 0, n - 1) for a, n in zip(at, cells, strict=True)]
            weight = [max(0.0, 1 - abs(p - k)) for p, k in zip(near, (i, j), strict=True)]
            total += weight[0] * weight[1] * mean(i, j)
    return total


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(5, 13), st.integers(5, 13))
def test_a_coarser_sensor_sees_means_of_squares(seed, side, height, width):
    image = np.random.default_rng(seed).uniform(0, 1, (2, height, width)).astype(np.float32)
    found = coarsened(image, side)
    assert found.dtype == np.float32
    for row, col in ((0, 0), (height - 1, width - 1), (height // 2, width // 2), (1, width - 2)):
        for band in (0, 1):
            expected = coarse_pixel(image[band].astype(np.float64), row, col, side)
            assert found[band, row, col] == pytest.approx(expected, rel=1e-5)


def test_what_is_missing_has_no_say_in_a_coarser_view():
    patch = drawn(shape=(20, 20))
    patch.image[:] = 0.75
    patch.image[~patch.valid] = 0
    found = changed(patch, STILL.model_copy(update={"coarsen": 5}), kinds())
    np.testing.assert_allclose(found.image[LIGHT][patch.valid[LIGHT]], 0.75, rtol=1e-5)
    np.testing.assert_array_equal(found.valid, patch.valid)
    np.testing.assert_array_equal(found.label, patch.label)


def test_radar_and_terrain_keep_their_resolution():
    patch = drawn(shape=(20, 20))
    patch.valid[:] = True
    found = changed(patch, STILL.model_copy(update={"coarsen": 5}), kinds())
    np.testing.assert_array_equal(found.image[DARK], patch.image[DARK])
    np.testing.assert_array_equal(found.image[LIGHT], coarsened(patch.image[LIGHT], 5))


@given(st.integers(0, 10**6))
def test_a_coarser_view_draws_nothing(seed):
    """All other changes are those of the same patch without it."""
    patch = drawn(seed)
    flat = Patch(image=patch.image * 0 + 0.5, valid=patch.valid, label=patch.label)
    one = changed(flat, ALL, kinds(), seed)
    other = changed(flat, ALL.model_copy(update={"coarsen": 4}), kinds(), seed)
    np.testing.assert_array_equal(other.valid, one.valid)
    np.testing.assert_array_equal(other.label, one.label)
    np.testing.assert_allclose(other.image[one.valid], one.image[one.valid], rtol=1e-4)


# missing data -------------------------------------------------------------------------------


@given(st.integers(0, 10**6))
def test_only_optional_sources_are_dropped(seed):
    patch = drawn(seed)
    patch.valid[:] = True
    about = kinds(required=["sentinel2:red"])
    found = changed(patch, Augment(flip=False, turn=False, drop_sources=0.7), about, seed)
    gone = [not found.valid[band].any() for band in range(len(BANDS))]
    assert gone[0:2] == [False, False]
    sources = [(2, 3), (4, 5), (6, 7, 8)]
    assert all(gone[s[0]] == gone[c] for s in sources for c in s)
    assert sum(gone[s[0]] for s in sources) <= 1
    assert found.valid.all(axis=(1, 2)).tolist() == [not g for g in gone]
    np.testing.assert_array_equal(found.image, patch.image)
    np.testing.assert_array_equal(found.label, patch.label)


def test_each_optional_source_is_dropped_now_and_then():
    patch, about = drawn(), kinds(required=["sentinel2:red"])
    patch.valid[:] = True
    how = Augment(flip=False, turn=False, drop_sources=0.5)
    dropped = np.zeros(len(BANDS))
    for seed in range(300):
        dropped += ~changed(patch, how, about, seed).valid.any(axis=(1, 2))
    assert dropped[:2].tolist() == [0, 0]
    assert (np.abs(dropped[2:] - 50) < 25).all()


def test_nothing_is_dropped_where_all_is_required():
    patch = drawn()
    how = Augment(flip=False, turn=False, drop_sources=0.99)
    for seed in range(20):
        found = changed(patch, how, kinds(required=BANDS), seed)
        np.testing.assert_array_equal(found.valid, patch.valid)


@given(st.integers(0, 10**6))
def test_clouds_hide_the_ground_and_not_the_radar(seed):
    patch = drawn(seed, shape=(32, 32))
    patch.valid[:] = True
    found = changed(patch, Augment(flip=False, turn=False, clouds=0.99), kinds(), seed)
    assert found.valid[2:].all()
    np.testing.assert_array_equal(found.valid[0], found.valid[1])


@given(st.integers(0, 10**6), st.integers(8, 70), st.integers(8, 70))
def test_holes_are_a_part_of_the_patch(seed, height, width):
    holes = grown_holes((height, width), np.random.default_rng(seed))
    assert holes.shape == (height, width)
    assert holes.dtype == bool
    assert 0.02 < holes.mean() < 0.53


# all of it ----------------------------------------------------------------------------------


@given(st.integers(0, 10**6))
def test_the_same_generator_gives_the_same_patch(seed):
    patch = drawn(seed)
    one, other = (changed(patch, ALL, kinds(), seed) for _ in range(2))
    for name in ("image", "valid", "label"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    third = changed(patch, ALL, kinds(), seed + 1)
    assert not np.array_equal(one.image, third.image)


@given(st.integers(1, 20), st.integers(0, 10**6))
def test_any_number_of_bands(bands, seed):
    names = [f"source{n // 3}:band{n}" for n in range(bands)]
    found = changed(drawn(seed, bands), ALL, kinds(names), seed)
    assert found.image.shape == found.valid.shape == (bands, 16, 16)
    assert (found.image.dtype, found.valid.dtype) == (np.float32, bool)
    assert np.isfinite(found.image).all()
    assert found.label.shape == (16, 16)


def test_nothing_happens_where_nothing_is_asked_for():
    patch = drawn()
    found = changed(patch, STILL, kinds())
    for name in ("image", "valid", "label"):
        np.testing.assert_array_equal(getattr(found, name), getattr(patch, name))


def test_kinds_of_bands():
    about = kinds(required=["sentinel2:red"])
    assert about.light.tolist() == [True] * 2 + [False] * 7
    assert np.flatnonzero(about.directions).tolist() == [ASPECT]
    assert about.optional == ((2, 3), (4, 5), (6, 7, 8))
    assert about.clouded == ((0, 1),)
