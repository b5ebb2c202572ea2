"""Quicklooks: the colours of the classes, each where it belongs."""

import numpy as np
import pytest
from PIL import Image

from mapper.product.quicklook import Caption, shrink_factor, write_quicklook
from tests.product.conftest import CLASSES

LEFT, TOP = 16, 56
GREY = (232, 232, 232)
COLORS = {c.value: c.rgb for c in CLASSES.classes} | {255: GREY}


@pytest.fixture
def draw(tmp_path):
    """Draws a map; gives the sheet as `(y, x, 3)`."""

    def draw_map(values, resolution=10, name="quicklook.png"):
        caption = Caption(title="Bozen – 北京", subtitle="words", resolution=resolution, shares={})
        write_quicklook(tmp_path / name, values.astype(np.uint8), CLASSES, caption)
        with Image.open(tmp_path / name) as picture:
            return np.asarray(picture.convert("RGB"))

    return draw_map


def cut(sheet, shape):
    """The map on the sheet, one sample in the middle of each of its pixels."""
    zoom = max(1, 480 // max(shape))
    rows = TOP + np.arange(shape[0]) * zoom + zoom // 2
    cols = LEFT + np.arange(shape[1]) * zoom + zoom // 2
    return sheet[np.ix_(rows, cols)]


@pytest.mark.parametrize("shape", [(1, 1), (5, 9), (9, 5), (300, 481), (700, 40)], ids=str)
def test_every_pixel_has_the_colour_of_its_class(draw, shape):
    values = np.random.default_rng(0).choice(np.array([0, 2, 7, 255], np.uint8), shape)
    expected = np.array([[COLORS[v] for v in row] for row in values.tolist()])
    np.testing.assert_array_equal(cut(draw(values), shape), expected)


def test_north_is_up_and_east_is_right(draw):
    values = np.full((40, 60), 2)
    values[:10, :20] = 0
    values[-10:, -20:] = 7
    sheet = cut(draw(values), values.shape)
    assert tuple(sheet[0, 0]) == COLORS[0]
    assert tuple(sheet[-1, -1]) == COLORS[7]
    assert tuple(sheet[0, -1]) == tuple(sheet[-1, 0]) == COLORS[2]


def test_the_legend_shows_every_class_and_no_data(draw):
    sheet = draw(np.full((40, 60), 2))
    legend = sheet[TOP:, LEFT + 480 + 8 :].reshape(-1, 3)
    shown = {tuple(int(v) for v in c) for c in np.unique(legend, axis=0)}
    assert set(COLORS.values()) <= shown


def test_a_map_without_data_is_grey(draw):
    assert (cut(draw(np.full((30, 30), 255)), (30, 30)) == GREY).all()


def test_a_value_without_class_is_grey(draw):
    assert (cut(draw(np.full((30, 30), 99)), (30, 30)) == GREY).all()


def test_the_same_map_gives_the_same_bytes(draw, tmp_path):
    values = np.random.default_rng(0).choice(np.array([0, 2, 7]), (50, 50))
    draw(values, name="one.png")
    draw(values, name="two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("resolution", [0.3, 0.5, 10, 20, 37, 160, 6.25, 625])
def test_the_scale_bar_is_of_a_round_length(draw, resolution):
    shape = (600, 600)
    sheet = draw(np.full(shape, 2), resolution)
    ink = (sheet[:, LEFT + shape[1] + 16 :] == (40, 40, 40)).all(axis=2)
    runs = ink.sum(axis=1)
    bars = [n for n in runs if n > 40 and ink[list(runs).index(n)][: int(n)].all()]
    length = max(bars) - 1
    metres = length * resolution
    assert 64 - 1 <= length <= 160
    digits = [n * 10.0**k for k in range(-1, 7) for n in (1, 2, 5)]
    assert min(abs(metres - d) for d in digits) <= resolution / 2 + 1e-9


@pytest.mark.parametrize(
    ("shape", "factor"), [((1, 1), 1), ((1200, 900), 1), ((1201, 900), 2), ((900, 12_001), 11)]
)
def test_maps_are_thinned_to_fit(shape, factor):
    assert shrink_factor(shape) == factor
    assert max(-(-side // factor) for side in shape) <= 1200
