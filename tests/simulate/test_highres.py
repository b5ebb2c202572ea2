"""The camera of the orthophotos: shadows, blur, exposure, noise, and pieces that fit together."""

from types import SimpleNamespace

import numpy as np
import pytest

from mapper.simulate import STYLES, TEST_CITIES, World, highres
from mapper.simulate.extent import Extent, Frame
from mapper.simulate.spectra import Material, spectra_at
from mapper.simulate.style import Sensor

CITY = TEST_CITIES[1]
X, Y = CITY.centre


def little(material, sensor):
    """A 1 m ground of its own around some materials."""
    height, width = material.shape
    area = Extent(epsg=32632, left=500_000, top=5_000_000, resolution=1, width=width, height=height)
    world = SimpleNamespace(seed=1)
    return SimpleNamespace(area=area, materials=material, world=world), Frame.around(area, 10)


@pytest.mark.parametrize("move", [(-4.0, 4.0), (0.0, 7.0), (3.0, -3.0)])
def test_shadows_fall_where_the_sensor_says_and_hang_on_the_building(move):
    ground = np.full((40, 40), Material.GRASS, np.uint8)
    ground[20:23, 12:30] = Material.ROOF_DARK
    sensor = Sensor(shadow=move)
    _, shaded = highres._lit(*little(ground, sensor), sensor)
    east, north = (int(v) for v in move)
    expected = np.zeros((40, 40), bool)
    steps = {(-4.0, 4.0): [4], (0.0, 7.0): [4, 7], (3.0, -3.0): [3]}[move]
    for step in steps:
        part = step / max(abs(east), abs(north))
        down, right = -round(north * part), round(east * part)
        expected[20 + down : 23 + down, 12 + right : 30 + right] = True
    expected[20:23, 12:30] = False
    np.testing.assert_array_equal(shaded, expected)


def test_blur_is_a_gaussian():
    seen = np.random.default_rng(1).random((30, 26), np.float32)
    offsets = np.arange(-3, 4)
    weights = np.exp(-0.5 * (offsets / 0.8) ** 2)
    weights /= weights.sum()
    rows = np.apply_along_axis(np.convolve, 0, seen.astype(float), weights, "valid")
    both = np.apply_along_axis(np.convolve, 1, rows, weights, "valid")
    np.testing.assert_allclose(highres._blurred(seen, 0.8, 3), both, atol=1e-6)


def test_grey_values_follow_haze_gain_and_gamma():
    sensor = Sensor(gain=(0.9, 1.1, 1.0, 1.2), haze=(0.0, 0.02, 0.05, 0.01), gamma=0.7, noise=0.0)
    reflectance = np.array([0.03, 0.2, 0.5], np.float32)
    for channel in range(4):
        value = (reflectance + sensor.haze[channel]) * sensor.gain[channel] / 0.55
        expected = np.minimum(255.0 * value**0.7, 255.0)
        found = highres._grey(highres._exposed(reflectance, sensor, channel))
        np.testing.assert_allclose(found, expected, atol=0.51)


def test_noise_has_the_deviation_asked_for():
    x, y = np.meshgrid(np.arange(400), np.arange(400))
    noise = highres._bell(x, y, 9)
    assert noise.mean() == pytest.approx(0.0, abs=0.01)
    assert noise.std() == pytest.approx(1.0, abs=0.01)
    assert abs(np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]) < 0.01


def test_a_photograph_is_blurred_before_it_is_exposed_and_noisy_after():
    material = np.full((60, 80), Material.GRASS, np.uint8)
    material[:, 37:] = Material.ROOF_BRIGHT
    radiance = np.full((1, 2, len(Material), 16), 0.1, np.float32)
    radiance[:, :, Material.ROOF_BRIGHT] = 0.4
    soft = Sensor(blur=1.2, shadow=(0.0, 0.0))
    image = highres.photograph(*little(material, soft), soft, radiance)[0]
    offsets = np.arange(-4, 5)
    weights = np.exp(-0.5 * (offsets / 1.2) ** 2)
    line = np.pad(np.where(np.arange(80) < 37, 0.1, 0.4), 4, mode="edge")
    line = np.convolve(line, weights / weights.sum(), "valid")
    expected = np.rint(255.0 * (line / 0.55) ** 0.6)
    assert np.abs(image - expected).max() <= 1
    rough = Sensor(noise=3.0, shadow=(0.0, 0.0))
    image = highres.photograph(*little(material, rough), rough, radiance)[0]
    assert image[:, :37].std() == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("name", [name for name in STYLES if name != "default"])
def test_a_piece_of_a_photograph_is_the_piece_of_the_whole(name, monkeypatch):
    """Blur and shadows reach over the edges of tiles and strips."""
    style = STYLES[name]
    world = World.of(CITY, 0, style)
    area = Extent(epsg=CITY.epsg, left=X, top=Y, resolution=1, width=150, height=150)
    ground = SimpleNamespace(area=area, world=world, materials=world.render(X, Y, 150, 150))
    spectra = spectra_at(highres.taken(style, 2022, CITY.lat), CITY.lat, style.surfaces)
    radiance = highres._radiance(spectra, style.sensor)
    frame = Frame.around(area, style.sensor.decimetres)
    whole = highres.photograph(ground, frame, style.sensor, radiance)
    rows, columns = slice(20, 97), slice(33, 120)
    monkeypatch.setattr(highres, "_STRIP", 16)
    piece = highres.photograph(ground, frame.part(rows, columns), style.sensor, radiance)
    np.testing.assert_array_equal(piece, whole[:, rows, columns])
