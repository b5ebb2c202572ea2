"""Seams and mean confidence, against a loop and by how they should behave."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.area.grid import PixelBox
from mapper.product.measures import ConfidenceMean, SeamCounter

NODATA = 255


def counted(values, row0, col0, tile, cuts=()):
    counter = SeamCounter(tile=tile, nodata=NODATA)
    edges = [0, *sorted(set(cuts)), len(values)]
    for top, bottom in itertools.pairwise(edges):
        if bottom > top:
            box = PixelBox(
                row0=row0 + top, col0=col0, row1=row0 + bottom, col1=col0 + values.shape[1]
            )
            counter.add(values[top:bottom], box)
    return counter


def by_loop(values, row0, col0, tile):
    """Pairs and differing pairs, on borders and elsewhere."""
    found = np.zeros((2, 2), dtype=int)
    height, width = values.shape
    for row in range(height):
        for col in range(width):
            for down, right in ((1, 0), (0, 1)):
                r, c = row + down, col + right
                if r >= height or c >= width:
                    continue
                one, other = values[row, col], values[r, c]
                if NODATA in (one, other):
                    continue
                border = (down and (row0 + r) % tile == 0) or (right and (col0 + c) % tile == 0)
                found[int(bool(border))] += [1, int(one != other)]
    return found


@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    corner=st.tuples(st.integers(-40, 40), st.integers(-40, 40)),
    tile=st.sampled_from([4, 7, 16]),
    cuts=st.lists(st.integers(1, 23), max_size=3),
)
def test_pairs_are_those_of_a_loop_however_it_is_cut(seed, shape, corner, tile, cuts):
    values = np.random.default_rng(seed).choice([0, 1, 2, NODATA], shape).astype(np.uint8)
    counter = counted(values, *corner, tile, [c for c in cuts if c < shape[0]])
    inside, border = by_loop(values, *corner, tile)
    assert (counter._inside.all, counter._inside.differing) == tuple(inside)
    assert (counter._border.all, counter._border.differing) == tuple(border)


def test_a_map_without_seams_has_an_index_of_about_one_and_one_of_tiles_far_more():
    rng = np.random.default_rng(1)
    ground = (rng.random((512, 512)) < 0.5).astype(np.uint8)
    assert counted(ground, 64, -128, 64).index == pytest.approx(1, abs=0.05)
    tiles = np.kron(rng.integers(0, 4, (8, 8)), np.ones((64, 64))).astype(np.uint8)
    speckled = np.where(rng.random(tiles.shape) < 0.01, 9, tiles).astype(np.uint8)
    assert counted(speckled, 64, -128, 64).index > 20


def test_a_map_too_small_to_say_has_no_index():
    assert counted(np.zeros((40, 40), np.uint8), 0, 0, 16).index is None
    assert counted(np.full((600, 600), NODATA, np.uint8), 0, 0, 16).index is None


def test_mean_confidence_is_of_pixels_that_have_one():
    mean = ConfidenceMean(steps=250, nodata=255)
    assert mean.value is None
    mean.add(np.array([[250, 255], [125, 255]], np.uint8))
    mean.add(np.array([[0]], np.uint8))
    assert mean.value == 0.5
