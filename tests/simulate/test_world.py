"""The painted ground: a function of coordinates alone, and something like a town."""

import numpy as np
import pytest

from mapper.errors import UsageError
from mapper.simulate import TEST_CITIES, SimulatedCity, World
from mapper.simulate.elevation import elevation
from mapper.simulate.noise import LATTICE, uniform, upsample, value_noise
from mapper.simulate.spectra import (
    BACKSCATTER,
    BANDS,
    CLASS_OF_MATERIAL,
    TRUTH_CLASSES,
    Material,
    spectra_at,
)

CITY = TEST_CITIES[0]
WORLD = World.of(CITY, 0)
X, Y = CITY.centre


@pytest.mark.parametrize(
    ("left", "up", "width", "height"),
    [(-500, 400, 733, 411), (-100, 90, 1, 1), (37, 13, 200, 399), (-13, -200, 365, 41)],
)
def test_a_rectangle_alone_equals_the_same_rectangle_in_a_larger_one(left, up, width, height):
    whole = WORLD.render(X - 600, Y + 500, 1200, 1000)
    alone = WORLD.render(X + left, Y + up, width, height)
    row, column = 500 - up, left + 600
    np.testing.assert_array_equal(alone, whole[row : row + height, column : column + width])


def test_a_coarse_step_samples_the_centres_of_its_cells():
    fine = WORLD.render(X - 300, Y + 300, 600, 600)
    coarse = WORLD.render(X - 300, Y + 300, 120, 120, step=5)
    np.testing.assert_array_equal(coarse, fine[2::5, 2::5])


def test_every_class_occurs_and_the_town_is_built_up():
    half = CITY.size_m
    classes = CLASS_OF_MATERIAL[WORLD.render(X - half, Y + half, half, half, step=2)]
    share = np.bincount(classes.ravel(), minlength=5) / classes.size
    assert (share > 0.005).all(), share
    middle = CLASS_OF_MATERIAL[WORLD.render(X - 200, Y + 200, 400, 400)]
    assert 0.25 < (middle == 2).mean() < 0.9


def test_another_seed_is_another_town():
    other = World.of(CITY, 1).render(X, Y, 200, 200)
    assert (other != WORLD.render(X, Y, 200, 200)).mean() > 0.3


def test_noise_is_uniform_and_smooth():
    i, j = np.meshgrid(np.arange(300), np.arange(300))
    draws = uniform(i, j, 7)
    counts, _ = np.histogram(draws, 10, (0, 1))
    assert abs(counts / draws.size - 0.1).max() < 0.01
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.02
    x = np.arange(-500.0, 500.0)
    line = value_noise(x, np.zeros_like(x), 100.0, 3)
    assert np.abs(np.diff(line)).max() < 0.02


def test_upsampled_fields_agree_with_the_field_at_its_nodes():
    def field(x, y):
        return 2.0 * x - y

    x, y = np.arange(-40.0, 40.0), np.arange(5.0, 60.0)
    np.testing.assert_allclose(upsample(field, x, y), field(x[None], y[:, None]), atol=1e-4)
    assert LATTICE == 16


def test_spectra_are_physical_and_follow_the_season():
    from datetime import UTC, datetime

    summer = spectra_at(datetime(2022, 6, 20, tzinfo=UTC), 46.0)
    winter = spectra_at(datetime(2022, 1, 15, tzinfo=UTC), 46.0)
    south = spectra_at(datetime(2022, 1, 15, tzinfo=UTC), -40.0)
    for table in (summer, winter, south):
        assert table.shape == (len(Material), len(BANDS))
        assert (table > 0).all()
        assert (table < 0.7).all()
    red, nir = BANDS.index("red"), BANDS.index("nir")
    ndvi = [(t[:, nir] - t[:, red]) / (t[:, nir] + t[:, red]) for t in (summer, winter, south)]
    assert ndvi[0][Material.TREE] > 0.7 > 0.5 > ndvi[1][Material.TREE]
    assert ndvi[2][Material.TREE] > 0.7
    assert ndvi[0][Material.CONIFER] == ndvi[1][Material.CONIFER]
    assert len(BACKSCATTER) == len(Material)
    assert set(CLASS_OF_MATERIAL) == set(TRUTH_CLASSES.values)


def test_elevation_has_relief_and_a_valley():
    x, y = np.meshgrid(np.arange(-3000.0, 3000, 60), np.arange(-3000.0, 3000, 60))
    height = elevation(WORLD, x, y)
    river = WORLD.river(x, y) < 0
    assert 20 < np.ptp(height) < 600
    assert height[river].mean() < height[~river].mean()


@pytest.mark.parametrize(
    "wrong", [{"size_m": 1234567}, {"size_m": 100}, {"orbits": ("sideways",)}, {"lat": 85.0}]
)
def test_impossible_cities_are_refused(wrong):
    good = {
        "name": "A", "country": "B", "iso": "XSA", "lon": 0.0, "lat": 0.0, "size_m": 1000,
        "seed": 1,
    }  # fmt: skip
    SimulatedCity(**good)
    with pytest.raises(UsageError):
        SimulatedCity(**good | wrong)
