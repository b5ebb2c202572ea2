"""Windows on the lattice, held against a search through all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.area.grid import PixelBox
from mapper.area.window import WindowPlan
from mapper.errors import RecipeError
from tests.strategies import boxes, window_plans

small_boxes = boxes(reach=40, longest=18)


def says(plan, number):
    """First and last pixel that a window decides on one axis, by the definition of the modes."""
    start = number * plan.stride
    return start, start + (plan.stride if plan.mode == "core" else plan.size) - 1


def reads(plan, number):
    """First and last pixel that a window reads on one axis."""
    margin = (plan.size - plan.stride) / 2 if plan.mode == "core" else 0
    start = number * plan.stride - margin
    return start, start + plan.size - 1


def search(plan, start, stop):
    """Numbers of all windows with a say in pixels start..stop-1, by trying very many."""
    return [k for k in range(-130, 131) if says(plan, k)[0] < stop and says(plan, k)[1] >= start]


@given(window_plans(), small_boxes)
def test_cover_is_what_a_search_finds(plan, pixels):
    expected = [
        (row, col)
        for row in search(plan, pixels.row0, pixels.row1)
        for col in search(plan, pixels.col0, pixels.col1)
    ]
    assert [(w.row, w.col) for w in plan.cover(pixels)] == expected


@given(window_plans(), small_boxes)
def test_windows_read_and_decide_what_the_mode_says(plan, pixels):
    for window in plan.cover(pixels):
        extent, core = window.extent, window.core
        assert (extent.row0, extent.row1 - 1) == reads(plan, window.row)
        assert (extent.col0, extent.col1 - 1) == reads(plan, window.col)
        assert (core.row0, core.row1 - 1) == says(plan, window.row)
        assert (core.col0, core.col1 - 1) == says(plan, window.col)


@given(window_plans().filter(lambda p: p.mode == "core"), small_boxes)
def test_cores_partition_every_box(plan, pixels):
    count = np.zeros(pixels.shape, dtype=int)
    for window in plan.cover(pixels):
        count[window.core.intersect(pixels).slices_in(pixels)] += 1
    assert (count == 1).all()


@given(window_plans(), small_boxes)
def test_windows_come_row_by_row(plan, pixels):
    numbers = [(w.row, w.col) for w in plan.cover(pixels)]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == len(numbers)


@given(window_plans(), small_boxes)
def test_reach_is_what_the_windows_read(plan, pixels):
    extents = [w.extent for w in plan.cover(pixels)]
    assert plan.reach(pixels) == PixelBox(
        row0=min(e.row0 for e in extents),
        col0=min(e.col0 for e in extents),
        row1=max(e.row1 for e in extents),
        col1=max(e.col1 for e in extents),
    )


@given(window_plans(), st.integers(-50, 50))
def test_overhang_is_enough_and_not_more(plan, offset):
    farthest = 0
    for pixel in range(offset, offset + plan.stride):
        for number in search(plan, pixel, pixel + 1):
            first, last = reads(plan, number)
            farthest = max(farthest, pixel - first, last - pixel)
    assert plan.overhang == farthest


@given(window_plans(), small_boxes)
def test_what_a_box_needs_lies_within_its_overhang(plan, pixels):
    reach = plan.reach(pixels)
    assert pixels.grow(plan.overhang).intersect(reach) == reach


@given(window_plans(longest=12), boxes(reach=20, longest=12), boxes(reach=20, longest=12))
def test_two_boxes_agree_on_the_windows_of_shared_ground(plan, one, other):
    shared = one.intersect(other)
    if shared.empty:
        return

    def deciding(pixels):
        return [w for w in plan.cover(pixels) if not w.core.intersect(shared).empty]

    assert deciding(one) == deciding(other) == plan.cover(shared)


@pytest.mark.parametrize("mode", ["core", "blend"])
@pytest.mark.parametrize("row", [-7, 0, 5])
def test_an_empty_box_needs_no_window(mode, row):
    plan = WindowPlan(size=8, stride=4, mode=mode)
    empty = PixelBox(row0=row, col0=0, row1=row, col1=10)
    assert plan.cover(empty) == []
    assert plan.reach(empty).empty


@pytest.mark.parametrize(("size", "stride"), [(8, 0), (8, -2), (8, 9), (0, 0)])
@pytest.mark.parametrize("mode", ["core", "blend"])
def test_strides_that_leave_gaps_are_refused(size, stride, mode):
    with pytest.raises(RecipeError, match="stride"):
        WindowPlan(size=size, stride=stride, mode=mode)


def test_core_crop_refuses_an_odd_margin():
    with pytest.raises(RecipeError, match="even margin"):
        WindowPlan(size=9, stride=4, mode="core")
    assert WindowPlan(size=9, stride=4, mode="blend").halo == 0
