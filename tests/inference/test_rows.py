"""Rows that roll: what comes again is kept, and the file is read once, from north to south."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.area.grid import PixelBox
from mapper.inference.rows import RollingRows, Source

WHOLE = PixelBox(row0=-200, col0=-20, row1=600, col1=60)
_RNG = np.random.default_rng(4)
LAYERS = (
    _RNG.integers(0, 60000, (2, *WHOLE.shape)).astype(np.uint16),
    _RNG.normal(size=(1, *WHOLE.shape)).astype(np.float32),
)


class Watched:
    """A source that remembers what was asked of it."""

    def __init__(self, block=16, origin=0):
        self.boxes: list[PixelBox] = []
        self.source = Source(read=self._read, block=block, origin=origin)

    def _read(self, box):
        assert not box.empty
        self.boxes.append(box)
        return tuple(layer[(slice(None), *box.slices_in(WHOLE))].copy() for layer in LAYERS)

    @property
    def rows(self) -> np.ndarray:
        """How often each row was read."""
        count = np.zeros(WHOLE.shape[0], dtype=int)
        for box in self.boxes:
            count[box.row0 - WHOLE.row0 : box.row1 - WHOLE.row0] += 1
        return count


@st.composite
def walks(draw):
    """Slabs from north to south, as rows of windows are, with some of them left out."""
    size = draw(st.integers(1, 40))
    stride = draw(st.integers(1, size))
    first = draw(st.integers(-100, 100))
    numbers = draw(st.lists(st.integers(0, 12), min_size=1, unique=True))
    tops = [first + stride * number for number in sorted(numbers)]
    return [(top, top + size) for top in tops]


@given(walks(), st.integers(1, 70), st.integers(-50, 50), st.integers(-20, 20), st.integers(1, 40))
def test_rolling_rows_are_those_of_the_whole_array(slabs, block, origin, left, width):
    watched = Watched(block, origin)
    buffer = RollingRows(watched.source, (left, left + width))
    first, last = slabs[0][0], slabs[-1][1]
    for top, bottom in slabs:
        box = PixelBox(row0=top, col0=left, row1=bottom, col1=left + width)
        taken = buffer.take(top, bottom, last)
        assert len(taken) == len(LAYERS)
        for values, layer in zip(taken, LAYERS, strict=True):
            expected = layer[(slice(None), *box.slices_in(WHOLE))]
            assert values.dtype == expected.dtype
            np.testing.assert_array_equal(values, expected)
    assert watched.rows.max() == 1
    for box in watched.boxes:
        assert (box.col0, box.col1) == (left, left + width)
        assert first <= box.row0 < box.row1 <= last
    starts = [box.row0 for box in watched.boxes]
    assert starts == sorted(starts)


@given(walks(), st.integers(1, 70), st.integers(-50, 50))
def test_reading_ends_at_a_block_or_at_the_end(slabs, block, origin):
    watched = Watched(block, origin)
    buffer = RollingRows(watched.source, (0, 5))
    last = slabs[-1][1]
    for top, bottom in slabs:
        buffer.take(top, bottom, last)
    for box in watched.boxes:
        assert box.row1 == last or (box.row1 - origin) % block == 0


@given(walks(), st.integers(1, 70))
def test_no_more_is_read_than_the_block_that_is_needed(slabs, block):
    watched = Watched(block)
    buffer = RollingRows(watched.source, (0, 5))
    for top, bottom in slabs:
        before = len(watched.boxes)
        buffer.take(top, bottom, slabs[-1][1])
        for box in watched.boxes[before:]:
            assert box.row0 < bottom
            assert box.row1 < bottom + block


def test_rows_that_are_at_hand_are_not_asked_for():
    watched = Watched(block=64)
    buffer = RollingRows(watched.source, (0, 5))
    for top in range(0, 60, 10):
        buffer.take(top, top + 10, 500)
    assert [(b.row0, b.row1) for b in watched.boxes] == [(0, 64)]


def test_rows_between_slabs_that_nobody_wants_are_not_read():
    watched = Watched(block=8)
    buffer = RollingRows(watched.source, (0, 5))
    buffer.take(0, 8, 500)
    buffer.take(400, 410, 500)
    assert [(b.row0, b.row1) for b in watched.boxes] == [(0, 8), (400, 416)]


def test_memory_does_not_grow_with_the_area():
    watched = Watched(block=16)
    buffer = RollingRows(watched.source, (0, 5))
    for top in range(0, 480, 8):
        (values, _) = buffer.take(top, top + 24, 504)
        assert values.base is not None
        assert values.base.shape[1] <= 24 + 16 + 8


@pytest.mark.parametrize(
    ("row", "block", "origin", "expected"),
    [
        (0, 16, 0, 0),
        (1, 16, 0, 16),
        (16, 16, 0, 16),
        (17, 16, 0, 32),
        (-1, 16, 0, 0),
        (-16, 16, 0, -16),
        (-17, 16, 0, -16),
        (5, 16, 5, 5),
        (6, 16, 5, 21),
        (0, 16, 5, 5),
        (7, 1, 0, 7),
    ],
)
def test_boundaries_are_where_blocks_begin(row, block, origin, expected):
    source = Source(read=lambda box: (), block=block, origin=origin)
    assert source.boundary(row) == expected


@given(st.integers(-1000, 1000), st.integers(1, 300), st.integers(-1000, 1000))
def test_a_boundary_is_the_next_one(row, block, origin):
    found = Source(read=lambda box: (), block=block, origin=origin).boundary(row)
    assert row <= found < row + block
    assert (found - origin) % block == 0
