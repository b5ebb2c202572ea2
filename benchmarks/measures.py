"""What a label map is worth: agreement, seams, and whether it stays when the windows move.

Maps are read strip by strip, so any size will do. A map made over a picture that begins `shift`
pixels further south and east is held against the first one ground by ground.

    python benchmarks/measures.py
"""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

STRIP = 1024
HALF = -1
"""Stands for half of the stride."""


def agreement(first: Path, second: Path) -> float:
    """Share of pixels with the same label in two maps of one size."""
    return _equal(first, second, 0)


def translation_consistency(first: Path, shifted: Path, shift: int = 37) -> float:
    """Share of the common ground with the same label in a map whose picture was shifted.

    1.0 is a map that follows from the ground alone.
    """
    return _equal(first, shifted, shift)


def seam_index(
    first: Path,
    shifted: Path,
    stride: int,
    *,
    shift: int = HALF,
    start: tuple[int, int] = (0, 0),
    edges: tuple[int, ...] = (0,),
) -> float:
    """How much more often labels change across the lines of a lattice than they would anyway.

    The rate of change across rows and columns at multiples of `stride` (or at other places that
    repeat with it), over the rate across the very same lines of the ground in a map whose lattice
    lies half a stride off. 1.0 means that nothing of the lattice shows.

    Args:
        first: a map whose windows meet at the lines.
        shifted: a map of a picture that begins `shift` pixels further on.
        stride: distance of the lines.
        shift: half of the stride unless told otherwise.
        start: row and column of the first line in the first map.
        edges: where lines run within one stride; blended windows begin in one place and end in
            another, and either can show.
    """
    shift = stride // 2 if shift == HALF else shift
    here, there = _Changes(), _Changes()
    for strip in _strips(first, shifted, shift, overlap=1):
        lines = _lines(strip.row, strip.first.shape[0], start[0] - shift, stride, edges)
        columns = _lines(0, strip.first.shape[1], start[1] - shift, stride, edges)
        for part, count in ((strip.first, here), (strip.second, there)):
            count.add(part[lines - 1] != part[lines])
            # a strip's overlapping row was counted by the strip before
            inner = part[1:] if strip.row else part
            count.add(inner[:, columns - 1] != inner[:, columns])
    if not there.changed:
        return 1.0 if not here.changed else float("inf")
    return here.rate / there.rate


@dataclass
class _Changes:
    """A tally of neighbours that differ."""

    changed: int = 0
    seen: int = 0

    def add(self, differs: np.ndarray) -> None:
        self.changed += int(differs.sum())
        self.seen += differs.size

    @property
    def rate(self) -> float:
        return self.changed / max(1, self.seen)


@dataclass(frozen=True, slots=True)
class _Strip:
    """The same ground in two maps; `row` is counted in the common ground."""

    row: int
    first: np.ndarray
    second: np.ndarray


def _lines(begin: int, length: int, start: int, stride: int, edges: tuple[int, ...]) -> np.ndarray:
    """Places 1..length-1 of a stretch that begins at `begin` where a line runs before a pixel."""
    places = np.arange(1, length)
    return np.asarray(places[np.isin((places + begin - start) % stride, edges)])


def _strips(first: Path, second: Path, shift: int, overlap: int = 0) -> Iterator[_Strip]:
    """The ground that two maps share; all strips but the first begin `overlap` rows earlier."""
    with rasterio.open(first) as one, rasterio.open(second) as two:
        height = min(one.height - shift, two.height)
        width = min(one.width - shift, two.width)
        if height <= 0 or width <= 0:
            raise ValueError(f"{first} and {second} share no ground at a shift of {shift}")
        for begin in range(0, height, STRIP):
            row = max(0, begin - overlap)
            rows = min(height, begin + STRIP) - row
            yield _Strip(
                row,
                one.read(1, window=Window(shift, row + shift, width, rows)),
                two.read(1, window=Window(0, row, width, rows)),
            )


def _equal(first: Path, second: Path, shift: int) -> float:
    same = seen = 0
    for strip in _strips(first, second, shift):
        same += int((strip.first == strip.second).sum())
        seen += strip.first.size
    return same / seen


def _write(path: Path, labels: np.ndarray) -> Path:
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8"}
    height, width = labels.shape
    place = {"crs": "EPSG:32633", "transform": from_origin(9, 9, 1, 1)}
    with rasterio.open(path, "w", height=height, width=width, **profile, **place) as file:
        file.write(labels, 1)
    return path


def _chequered(labels: np.ndarray, stride: int, shift: int) -> np.ndarray:
    """Labels with a seam along every line of a lattice."""
    row, col = (n + shift for n in np.indices(labels.shape))
    return np.asarray(labels + (row // stride + col // stride) % 2, dtype=np.uint8)


def _check(folder: Path) -> dict[str, float]:
    """Maps whose answer is known."""
    rng = np.random.default_rng(0)
    side, stride = 2 * STRIP + 100, 128
    ground = rng.integers(0, 8, (side, side)).astype(np.uint8)
    plain = _write(folder / "plain.tif", ground)
    moved = _write(folder / "moved.tif", ground[37:, 37:])
    half = _write(folder / "half.tif", ground[64:, 64:])
    fields = 4 * (rng.random((side, side)) < 0.05)
    broken = _write(folder / "broken.tif", _chequered(fields, stride, 0))
    off = _write(folder / "off.tif", _chequered(fields, stride, 64)[64:, 64:])
    found = {
        "same": agreement(plain, plain),
        "unrelated": agreement(plain, _write(folder / "u.tif", ground[::-1])),
        "moved": translation_consistency(plain, moved),
        "not_moved": translation_consistency(plain, plain),
        "seamless": seam_index(plain, half, stride),
        "seamed": seam_index(broken, off, stride),
    }
    assert found["same"] == found["moved"] == found["seamless"] == 1.0, found
    assert abs(found["unrelated"] - 1 / 8) < 0.01, found
    assert abs(found["not_moved"] - 1 / 8) < 0.01, found
    # labels change across every line of the chequers, and across 2 * 0.05 * 0.95 of the others
    assert abs(found["seamed"] - 1 / 0.095) < 0.5, found
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(_check(Path(name)), indent=2))
