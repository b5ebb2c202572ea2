"""Points of samples: drawn alike, in bounded memory, and squares that keep apart."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapper.area.grid import PixelBox
from mapper.training.data.points import (
    Candidates,
    Quota,
    Spacing,
    Stratum,
    blocks_of,
    draw,
    generator,
    pick,
    shared_out,
    square_around,
)

AREA = PixelBox(row0=-1300, col0=900, row1=200, col1=2300)
WATER, GREEN = Stratum(name="water", values=(0,)), Stratum(name="green", values=(3,))
RARE = Stratum(name="rare", values=(9,))


def ground(pixels):
    """Stripes of water and green, a few pixels of something rare, the rest without a class."""
    rows, cols = np.mgrid[pixels.row0 : pixels.row1, pixels.col0 : pixels.col1]
    label = np.full(pixels.shape, 255, dtype=np.uint8)
    label[cols % 5 == 0] = 0
    label[cols % 5 == 1] = 3
    label[(rows % 500 == 0) & (cols % 700 == 0)] = 9
    return label


def places(candidates):
    return list(zip(candidates.rows.tolist(), candidates.cols.tolist(), strict=True))


# drawing -----------------------------------------------------------------------------------


def test_squares_cover_a_box_once_and_lie_on_the_lattice():
    seen = np.zeros(AREA.shape, dtype=int)
    for block in blocks_of(AREA):
        seen[block.slices_in(AREA)] += 1
        assert max(block.shape) <= 1024
        assert block.row0 in (AREA.row0, -1024, 0)
    assert (seen == 1).all()


def test_pixels_are_of_their_stratum_and_all_different():
    drawn = draw(ground, AREA, (WATER, GREEN, RARE), 400, (0, "city"))
    label = ground(AREA)
    for stratum in (WATER, GREEN, RARE):
        one = drawn[stratum.name]
        assert one.total == np.isin(label, stratum.values).sum()
        assert len(set(places(one))) == one.rows.size == min(400, one.total)
        values = label[one.rows - AREA.row0, one.cols - AREA.col0]
        assert np.isin(values, stratum.values).all()


def test_a_stratum_without_pixels_has_no_candidates():
    drawn = draw(ground, AREA, (Stratum(name="none", values=(7,)),), 10, (0,))
    assert (drawn["none"].total, drawn["none"].rows.size) == (0, 0)


def test_every_pixel_has_the_same_chance():
    counts = np.zeros(4)
    for seed in range(16):
        one = draw(ground, AREA, (WATER,), 200, (seed,))["water"]
        quarter = 2 * (one.rows >= (AREA.row0 + AREA.row1) // 2) + (
            one.cols >= (AREA.col0 + AREA.col1) // 2
        )
        counts += np.bincount(quarter, minlength=4)
    # 3200 draws, 800 expected in each quarter, standard deviation 24
    assert (abs(counts - 800) < 100).all()


def test_a_draw_depends_on_its_seed_and_stratum_alone():
    one = draw(ground, AREA, (WATER, GREEN), 50, (0, "city"))
    again = draw(ground, AREA, (GREEN,), 50, (0, "city"))
    assert places(one["green"]) == places(again["green"])
    other = draw(ground, AREA, (GREEN,), 50, (1, "city"))
    assert places(one["green"]) != places(other["green"])


def test_fewer_candidates_are_the_first_of_more():
    few = draw(ground, AREA, (WATER,), 20, (0,))["water"]
    more = draw(ground, AREA, (WATER,), 300, (0,))["water"]
    assert places(few) == places(more)[:20]


def test_random_numbers_stay_what_they_are():
    assert generator(0, "city", "water").integers(0, 1 << 30, 3).tolist() == PINNED


PINNED = [709457633, 738086572, 31210314]


# squares -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "before"), [(1, 0), (2, 1), (5, 2), (256, 128)])
def test_a_square_holds_its_pixel_in_the_middle(size, before):
    square = square_around(-7, 40, size)
    assert square.shape == (size, size)
    assert (-7 - square.row0, 40 - square.col0) == (before, before)


def shared(one, other):
    """Pixels that two squares have in common."""
    return math.prod(one.intersect(other).shape)


centres = st.lists(st.tuples(st.integers(-60, 60), st.integers(-60, 60)), max_size=60)


@given(centres, st.integers(1, 40))
def test_squares_share_at_most_half_and_none_is_refused_without_need(found, size):
    spacing, taken = Spacing(size), []
    for row, col in found:
        square = square_around(row, col, size)
        crowded = any(2 * shared(square, other) > size**2 for other in taken)
        assert spacing.fits(square) is not crowded
        if not crowded:
            spacing.take(square)
            taken.append(square)


@given(centres, st.integers(1, 20), st.floats(0.5, 50))
def test_a_cell_holds_one_square(found, size, cell):
    spacing, cells = Spacing(size, cell), set()
    for row, col in found:
        square = square_around(row, col, size)
        place = (
            math.floor((square.row0 + size / 2) / cell),
            math.floor((square.col0 + size / 2) / cell),
        )
        assert spacing.fits(square) is (place not in cells)
        if spacing.fits(square):
            spacing.take(square)
            cells.add(place)


# picking -----------------------------------------------------------------------------------


def candidates(rows, total=None):
    rows = np.array(rows, dtype=np.int64)
    return Candidates(rows=rows, cols=rows * 0, total=len(rows) if total is None else total)


def test_strata_take_turns_and_the_rarest_is_first():
    order = []
    found = {"many": candidates(range(0, 900, 10)), "few": candidates([1005, 1015, 1025])}
    quota = Quota(total=9, each=5)
    picked = pick(found, quota, 4, Spacing(4), lambda square: order.append(square.row0 + 2) or "")
    assert order == [1005, 0, 1015, 10, 1025, 20, 30, 40]
    assert picked.taken == {"few": 3, "many": 5}
    assert picked.dropped == {}


def test_the_total_is_not_exceeded():
    found = {name: candidates(range(n, 9000, 20)) for n, name in ((0, "a"), (10, "b"))}
    picked = pick(found, Quota(total=7, each=7), 4, Spacing(4), lambda _: "")
    assert picked.taken == {"a": 4, "b": 3}


def test_what_is_dropped_is_counted_by_reason():
    found = {"a": candidates([0, 1, 100, 200])}
    picked = pick(
        found, Quota(total=9, each=9), 10, Spacing(10), lambda s: "nodata" * (s.row0 == 95)
    )
    assert picked.taken == {"a": 2}
    assert picked.dropped == {"overlap": 1, "nodata": 1}


def test_a_dropped_square_blocks_nothing():
    seen = []
    pick(
        {"a": candidates([0, 1])},
        Quota(total=1, each=1),
        10,
        Spacing(10),
        lambda s: seen.append(s.row0) or "nodata" * (len(seen) == 1),
    )
    assert seen == [-5, -4]


# sharing -----------------------------------------------------------------------------------


@settings(max_examples=100)
@given(st.integers(0, 500), st.lists(st.floats(0.01, 100), min_size=1, max_size=12))
def test_shares_add_up_and_are_off_by_less_than_one(count, weights):
    parts = shared_out(count, weights)
    assert sum(parts) == count
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - count * weight / sum(weights)) < 1 + 1e-9


def test_without_weight_nothing_is_shared():
    assert shared_out(5, [0.0, 0.0]) == [0, 0]
    assert shared_out(10, [1.0, 1.0, 1.0]) == [4, 3, 3]
