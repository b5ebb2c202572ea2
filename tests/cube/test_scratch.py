"""Looks on disk come back as they were, in strips of bounded size."""

import numpy as np
import pytest

from mapper.cube.scratch import Scratch, StackShape
from mapper.errors import StoreError

SHAPE = StackShape(looks=5, bands=3, height=37, width=29)


def test_every_strip_is_what_was_written():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 65535, (5, 3, 37, 29), dtype=np.uint16)
    flags = rng.integers(0, 8, (5, 37, 29), dtype=np.uint8)
    with Scratch(SHAPE) as scratch:
        for look in (3, 0, 4, 1):
            scratch.write(look, list(values[look]), flags[look])
        values[2], flags[2] = 0, 0
        rows = list(SHAPE.strips(most=SHAPE.size // 4))
        assert len(rows) > 4
        np.testing.assert_array_equal(
            np.concatenate([scratch.values(r) for r in rows], axis=2), values
        )
        np.testing.assert_array_equal(
            np.concatenate([scratch.flags(r) for r in rows], axis=1), flags
        )
        np.testing.assert_array_equal(scratch.look(4), values[4])
        np.testing.assert_array_equal(scratch.flags_of(4), flags[4])


@pytest.mark.parametrize("looks", [1, 20, 100, 3000])
def test_strips_cover_all_rows_once_and_are_bounded(looks):
    shape = StackShape(looks=looks, bands=4, height=2048, width=2048)
    strips = list(shape.strips())
    assert [r.start for r in strips[1:]] == [r.stop for r in strips[:-1]]
    assert (strips[0].start, strips[-1].stop) == (0, 2048)
    row = shape.size // 2048
    assert all((r.stop - r.start) * row <= max(48 << 20, row) for r in strips)


def test_a_tile_without_a_look_takes_no_room():
    shape = StackShape(looks=0, bands=3, height=37, width=29)
    with Scratch(shape) as scratch:
        assert scratch.values(slice(0, 37)).shape == (0, 3, 37, 29)
        assert scratch.flags(slice(0, 37)).shape == (0, 37, 29)


def test_a_disk_that_is_too_small_is_told_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(StoreError, match=r"needs \d+ MiB of temporary space.*TMPDIR"):
        Scratch(StackShape(looks=100_000, bands=100, height=100_000, width=10_000))
    assert not list(tmp_path.iterdir())
