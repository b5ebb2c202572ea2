"""Clouds and shadows against a plain reading of the rule, and whoever asks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter

from mapper.area.grid import Grid, PixelBox
from mapper.cube.masks import CloudBands, Place, clear_of_clouds, sun_azimuth, water_of
from mapper.cube.masks.clouds import cast
from mapper.errors import CatalogError
from mapper.recipe.masks import CloudMask

SMALL = CloudMask(kind="clouds", shadow_distance=160, erode=1, dilate=20)
"""Radii of 2, 1 and 8 squares of 20 m."""


def place(shape, row0=0, col0=0, resolution=10.0):
    box = PixelBox(row0=row0, col0=col0, row1=row0 + shape[0], col1=col0 + shape[1])
    return Place(grid=Grid(epsg=32632, resolution=resolution, tile=256), box=box)


def scene(seed, shape):
    """Blobs of cloud and of dark ground, a lake and a corner without data."""
    rng = np.random.default_rng(seed)
    rough = [gaussian_filter(rng.standard_normal(shape), 3) for _ in range(4)]
    rough = [one / one.std() for one in rough]
    return CloudBands(
        probability=np.clip(50 + 40 * (rough[0] - 1.1), 0, 100).astype("uint8"),
        nir=np.clip(0.15 + 0.08 * rough[1], 0, 1).astype("float32"),
        water=rough[2] > 1,
        valid=rough[3] < 1.3,
    )


def part(bands, rows, cols):
    return CloudBands(
        **{
            name: getattr(bands, name)[rows, cols]
            for name in ("probability", "nir", "water", "valid")
        }
    )


def disc(radius):
    side = np.arange(-int(radius) - 1, int(radius) + 2)
    return side[:, None] ** 2 + side[None] ** 2 <= radius**2


def plain(bands, rule, azimuth, block):
    """The rule as it reads, one square after the other; whole squares only."""
    shape = tuple(n // block for n in bands.valid.shape)
    cloud, dark, known = (np.zeros(shape, bool) for _ in range(3))
    for row, col in np.ndindex(shape):
        here = np.s_[row * block : (row + 1) * block, col * block : (col + 1) * block]
        valid = bands.valid[here]
        if not valid.any():
            continue
        known[row, col] = True
        cloud[row, col] = bands.probability[here][valid].mean() > rule.probability
        dim = bands.nir[here][valid].astype(float).mean() < rule.shadow_nir
        dark[row, col] = dim and bands.water[here][valid].mean() < 0.5
    size, shadow = 20, np.zeros(shape, bool)
    way = math.radians(azimuth + 180)
    for row, col in np.argwhere(cloud):
        for step in range(1, int(rule.shadow_distance // size) + 1):
            r = row + math.floor(-math.cos(way) * step + 0.5)
            c = col + math.floor(math.sin(way) * step + 0.5)
            if 0 <= r < shape[0] and 0 <= c < shape[1]:
                shadow[r, c] |= dark[r, c]
    worn = binary_erosion(cloud | shadow | ~known, disc(rule.erode), border_value=1) & known
    grown = binary_dilation(worn, disc(2 * rule.dilate / size))
    return bands.valid & ~np.kron(grown, np.ones((block, block), bool))


@pytest.mark.parametrize("block", [1, 2, 4])
@pytest.mark.parametrize("azimuth", [13.0, 90.5, 166.18, 301.7])
def test_it_is_the_rule_as_it_reads(block, azimuth):
    for seed in range(3):
        bands = scene(seed, (64, 96))
        found = clear_of_clouds(
            bands, SMALL, azimuth, place((64, 96), -128, 64, resolution=20 / block)
        )
        expected = plain(bands, SMALL, azimuth, block)
        assert 0.2 < expected[bands.valid].mean() < 0.98
        np.testing.assert_array_equal(found, expected)


@given(
    st.integers(0, 20),
    st.floats(0, 360),
    st.sampled_from([5.0, 10.0, 20.0]),
    st.tuples(*[st.integers(-9, 9)] * 2, *[st.integers(1, 25)] * 2),
)
def test_a_value_does_not_depend_on_the_window_asked_for(seed, azimuth, resolution, window):
    shape = (190, 190)
    row0, col0 = window[0] - 500, window[1] + 300
    bands = scene(seed, shape)
    whole = clear_of_clouds(bands, SMALL, azimuth, place(shape, row0, col0, resolution))
    reach = SMALL.reach(resolution)
    top, left = 75 + window[0], 70 + window[1]
    rows, cols = (slice(a - reach, a + n + reach) for a, n in ((top, window[2]), (left, window[3])))
    asked = part(bands, rows, cols)
    where = place(asked.valid.shape, row0 + rows.start, col0 + cols.start, resolution)
    found = clear_of_clouds(asked, SMALL, azimuth, where)
    inner = np.s_[reach : reach + window[2], reach : reach + window[3]]
    expected = whole[top : top + window[2], left : left + window[3]]
    np.testing.assert_array_equal(found[inner], expected)


def bare(shape=(40, 40), **given):
    """Bright clear ground but for what is given."""
    bands = {
        "probability": np.zeros(shape),
        "nir": np.full(shape, 0.3, "float32"),
        "water": np.zeros(shape, bool),
        "valid": np.ones(shape, bool),
    }
    return CloudBands(**(bands | given))


def far_cloud():
    """A scene, and a row of pixels whose mask hangs on a cloud as far away as can be.

    Sun in the south. A bank of cloud is one row of squares too thin to outlast the wear; the far
    cloud's shadow ends in the only dark row, which is the one that the bank lacks. What is left
    of the bank then grows up to the row asked for. The far square is cloud by its last pixels.
    """
    grow, wear, throw = 2, 1, 8
    row = 20
    bank = row + grow
    lacking = bank + wear
    probability = np.zeros((80, 40), "float32")
    probability[2 * (bank - wear) : 2 * lacking] = 100
    probability[2 * (lacking + throw) + 1] = 101
    nir = np.full((80, 40), 0.3, "float32")
    nir[2 * lacking : 2 * lacking + 2] = 0.05
    return bare((80, 40), probability=probability, nir=nir), 2 * row


@pytest.mark.parametrize(("short", "same"), [(0, True), (1, False), (4, False)])
def test_the_reach_is_what_it_takes_and_no_pixel_less(short, same):
    bands, row = far_cloud()
    whole = clear_of_clouds(bands, SMALL, 180, place(bands.valid.shape))
    assert not whole[row].any()
    halo = SMALL.reach(10) - short
    asked = part(bands, slice(row - halo, row + 1 + halo), slice(None))
    found = clear_of_clouds(asked, SMALL, 180, place(asked.valid.shape, row - halo))
    assert (found[halo] == whole[row]).all() == same


@pytest.mark.parametrize(
    ("azimuth", "tip"),
    [(180, (-5, 0)), (0, (5, 0)), (90, (0, -5)), (270, (0, 5)), (135, (-4, -4)), (315, (4, 4))],
)
def test_shadows_fall_away_from_the_sun(azimuth, tip):
    cloud = np.zeros((21, 21), bool)
    cloud[10, 10] = True
    found = np.argwhere(cast(cloud, azimuth, 5)) - 10
    along = found @ np.array(tip)
    assert (along >= 0).all()
    assert found[along.argmax()].tolist() == list(tip)
    steps = found[np.argsort(along)]
    assert np.abs(np.diff(steps, axis=0)).max() == 1


def test_a_shadow_longer_than_the_array_stays_in_it():
    cloud = np.zeros((4, 30), bool)
    cloud[3, 0] = True
    assert np.argwhere(cast(cloud, 180, 50)).tolist() == [[0, 0], [1, 0], [2, 0], [3, 0]]


def test_bright_ground_and_water_under_a_cloud_are_not_shadow():
    probability = np.zeros((60, 60))
    probability[40:50, 20:40] = 90
    dark = np.full((60, 60), 0.1, "float32")
    rule = SMALL.model_copy(update={"dilate": 0.0, "erode": 0})

    def hidden(**bands):
        made = bare((60, 60), probability=probability, **bands)
        return int((~clear_of_clouds(made, rule, 180, place((60, 60)))).sum())

    assert hidden() == 200
    assert hidden(nir=dark, water=np.ones((60, 60), bool)) == 200
    assert hidden(nir=dark) == 200 + 16 * 20


def test_a_probability_at_the_threshold_is_clear():
    rule = SMALL.model_copy(update={"dilate": 0.0, "erode": 0})
    for probability, clear in ((50, True), (51, False)):
        bands = bare(probability=np.full((40, 40), probability))
        assert (clear_of_clouds(bands, rule, 180, place((40, 40))) == clear).all()


def test_a_reflectance_at_the_threshold_is_no_shadow():
    rule = SMALL.model_copy(update={"dilate": 0.0, "erode": 0})
    probability = np.zeros((20, 20))
    probability[10:] = 100
    for nir, clear in ((0.15, True), (0.1499, False)):
        bands = bare((20, 20), probability=probability, nir=np.full((20, 20), nir, "float32"))
        assert (clear_of_clouds(bands, rule, 180, place((20, 20)))[:10] == clear).all()


def test_a_cloud_on_the_edge_of_the_data_is_not_worn_away_from_there():
    probability, valid = np.zeros((40, 40)), np.ones((40, 40), bool)
    valid[:, :10] = False
    probability[:, 10:14] = 100
    clear = clear_of_clouds(
        bare(probability=probability, valid=valid), SMALL, 90, place((40, 40), 0, 0)
    )
    assert not clear[:, :14].any()
    assert clear[:, 20:].all()


def test_specks_are_worn_away_and_clouds_grow_by_five_pixels_of_20_m():
    rule = CloudMask(kind="clouds")
    probability = np.zeros((120, 120))
    probability[4:8, 4:8] = 100
    probability[50:70, 50:70] = 100
    hidden = ~clear_of_clouds(
        bare((120, 120), probability=probability), rule, 180, place((120,) * 2)
    )
    rows = np.flatnonzero(hidden.any(axis=1))
    assert (rows[0], rows[-1]) == (50 + 4 - 10, 69 - 4 + 10)


def test_water_is_what_the_scene_classification_says_and_ndwi_where_it_is_silent():
    scl = np.array([6, 4, 0, 0, 3], "uint8")
    green, nir = np.array([0.1, 0.1, 0.1, 0.1, 0.2]), np.array([0.3, 0.02, 0.05, 0.3, 0.1])
    assert water_of(scl, green, nir).tolist() == [True, False, True, False, False]
    assert water_of(None, green, nir).tolist() == [False, True, True, False, True]


@pytest.mark.parametrize(
    ("properties", "azimuth"),
    [
        ({"view:sun_azimuth": 166.2}, 166.2),
        ({"s2:mean_solar_azimuth": 35}, 35.0),
        ({"view:sun_azimuth": None, "s2:mean_solar_azimuth": -10.0}, 350.0),
        ({"view:sun_azimuth": 166.2, "s2:mean_solar_azimuth": 35}, 166.2),
    ],
)
def test_the_sun_is_where_the_item_says(properties, azimuth):
    assert sun_azimuth({"id": "s", "properties": properties}) == azimuth


def test_an_item_without_the_sun_is_refused():
    with pytest.raises(CatalogError, match=r"scene7 has no view:sun_azimuth.*kind scl"):
        sun_azimuth({"id": "scene7", "properties": {}})
