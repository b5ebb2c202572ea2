"""Where samples lie: pixels drawn for each stratum, and squares around them that keep apart.

Everything is counted in lattice pixels (`mapper.area.grid`), so that nothing depends on how a
city is tiled or on which other cities there are.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mapper.area.grid import PixelBox

_SIDE = 1024
"""Labels are read in lattice squares of this side, in pixels: it bounds the memory."""
_TRIES = 16
"""Candidates drawn for each point that is wanted."""

ReadLabels = Callable[[PixelBox], np.ndarray]
"""Gives `(y, x)` uint8 class values of a lattice box."""
Corner = tuple[int, int]
"""Lattice row and column of the north-western pixel of a square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Pixels that points are drawn from."""

    name: str
    values: tuple[int, ...]
    """Class values of its pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """A random sample of a stratum's pixels, in the order in which they are to be tried."""

    rows: np.ndarray
    """Lattice rows, int64."""
    cols: np.ndarray
    total: int
    """Pixels of the stratum that there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many squares of one city are wanted."""

    total: int
    each: int
    """At most, of one stratum."""

    @property
    def candidates(self) -> int:
        """Pixels to draw for each stratum."""
        return _TRIES * min(self.total, self.each) + 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """What came of the candidates of one city."""

    taken: Mapping[str, int]
    """Squares per stratum."""
    dropped: Mapping[str, int]
    """Candidates that became no square, by reason."""


def generator(*parts: object) -> np.random.Generator:
    """Random numbers that depend on the parts alone, whatever Python or machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def blocks_of(pixels: PixelBox) -> Iterator[PixelBox]:
    """The parts of a box in the squares of the lattice that labels are read in."""
    for row in range(pixels.row0 // _SIDE, -(-pixels.row1 // _SIDE)):
        for col in range(pixels.col0 // _SIDE, -(-pixels.col1 // _SIDE)):
            yield PixelBox(
                row0=row * _SIDE, col0=col * _SIDE, row1=(row + 1) * _SIDE, col1=(col + 1) * _SIDE
            ).intersect(pixels)


def draw(
    read: ReadLabels,
    pixels: PixelBox,
    strata: Sequence[Stratum],
    most: int,
    seed: Sequence[object],
) -> dict[str, Candidates]:
    """Draw pixels of each stratum without replacement, each with the same chance.

    Reads every label once. Every pixel gets a random number and those with the smallest are
    kept, so that memory depends on `most` alone.

    Args:
        read: labels of a lattice box.
        pixels: where to draw.
        strata: what to draw from; their names are part of the seed.
        most: pixels to draw of each stratum.
        seed: what the random numbers depend on.
    """
    kept = {stratum.name: _Kept.nothing() for stratum in strata}
    for block in blocks_of(pixels):
        label = read(block)
        for stratum in strata:
            found = np.flatnonzero(np.isin(label, stratum.values))
            if found.size:
                rows, cols = np.divmod(found, label.shape[1])
                # numbers belong to a stratum and a square: no other city or class moves them
                square = block.row0 // _SIDE, block.col0 // _SIDE
                keys = generator(*seed, stratum.name, *square).random(found.size)
                more = _Kept(keys, rows + block.row0, cols + block.col0, found.size)
                kept[stratum.name] = kept[stratum.name].joined(more, most)
    return {name: one.in_order() for name, one in kept.items()}


@dataclass(frozen=True, slots=True)
class _Kept:
    """The pixels with the smallest random numbers so far."""

    keys: np.ndarray
    rows: np.ndarray
    cols: np.ndarray
    total: int

    @classmethod
    def nothing(cls) -> "_Kept":
        empty = np.empty(0, dtype=np.int64)
        return cls(np.empty(0), empty, empty, 0)

    def joined(self, other: "_Kept", most: int) -> "_Kept":
        keys = np.concatenate((self.keys, other.keys))
        rows = np.concatenate((self.rows, other.rows))
        cols = np.concatenate((self.cols, other.cols))
        total = self.total + other.total
        if keys.size > most:
            least = np.argpartition(keys, most - 1)[:most]
            keys, rows, cols = keys[least], rows[least], cols[least]
        return _Kept(keys, rows, cols, total)

    def in_order(self) -> Candidates:
        order = np.argsort(self.keys, kind="stable")
        return Candidates(rows=self.rows[order], cols=self.cols[order], total=self.total)


def square_around(row: int, col: int, size: int) -> PixelBox:
    """The square whose pixel (size // 2, size // 2) is that pixel of the lattice."""
    row0, col0 = row - size // 2, col - size // 2
    return PixelBox(row0=row0, col0=col0, row1=row0 + size, col1=col0 + size)


class Spacing:
    """The squares of one city keep apart: one a cell, or at most half of the area in common."""

    def __init__(self, size: int, cell: float | None = None) -> None:
        """For squares of a size in pixels.

        Args:
            size: side of the squares.
            cell: side of cells in pixels, counted from the CRS origin; at most one square has
                its centre in each. None: no two squares share more than half of their area.
        """
        self._size, self._cell = size, cell
        self._taken: dict[tuple[int, int], list[Corner]] = {}

    def fits(self, square: PixelBox) -> bool:
        """True where the square may be taken."""
        row, col = self._place(square)
        if self._cell is not None:
            return (row, col) not in self._taken
        corner = square.row0, square.col0
        return not any(
            self._too_close(corner, other)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            for other in self._taken.get((row + down, col + right), ())
        )

    def take(self, square: PixelBox) -> None:
        """Keep the square's place."""
        self._taken.setdefault(self._place(square), []).append((square.row0, square.col0))

    def _place(self, square: PixelBox) -> tuple[int, int]:
        """The cell that the centre lies in; without cells, one as large as a square."""
        side, half = self._cell or self._size, self._size / 2
        return math.floor((square.row0 + half) / side), math.floor((square.col0 + half) / side)

    def _too_close(self, one: Corner, other: Corner) -> bool:
        height = self._size - abs(one[0] - other[0])
        width = self._size - abs(one[1] - other[1])
        return height > 0 and width > 0 and 2 * height * width > self._size**2


Use = Callable[[PixelBox], str]
"""Takes a square, or says in a word why it cannot be used."""


def pick(
    candidates: Mapping[str, Candidates], quota: Quota, size: int, spacing: Spacing, use: Use
) -> Picked:
    """Take squares around candidates, the strata in turn and the rarest first.

    Args:
        candidates: per stratum.
        quota: how many squares are wanted.
        size: side of the squares in pixels.
        spacing: which squares were taken before; more are added.
        use: called for every square that fits.
    """
    taken: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    # a rare class has few places to go to, so it chooses first
    names = sorted(candidates, key=lambda name: (candidates[name].total, name))
    queues = {name: _pixels(candidates[name]) for name in names}
    while queues:
        for name in list(queues):
            if taken.total() >= quota.total:
                queues.clear()
                break
            wanted = taken[name] < quota.each
            if wanted and _take_next(queues[name], size, (spacing, use, dropped)):
                taken[name] += 1
            else:
                del queues[name]
    return Picked(taken=dict(taken), dropped=dict(dropped))


def _pixels(candidates: Candidates) -> Iterator[tuple[int, int]]:
    return zip(candidates.rows.tolist(), candidates.cols.tolist(), strict=True)


def _take_next(
    queue: Iterator[tuple[int, int]], size: int, rules: tuple[Spacing, Use, Counter[str]]
) -> bool:
    """Take the first square that may be; False where none is left."""
    spacing, use, dropped = rules
    for row, col in queue:
        square = square_around(row, col, size)
        reason = use(square) if spacing.fits(square) else "overlap"
        if not reason:
            spacing.take(square)
            return True
        dropped[reason] += 1
    return False


def shared_out(count: int, weights: Sequence[float]) -> list[int]:
    """A whole number in parts, in proportion to weights as nearly as whole numbers allow."""
    total = sum(weights)
    if not total:
        return [0] * len(weights)
    exact = [count * weight / total for weight in weights]
    parts = [math.floor(value) for value in exact]
    by_rest = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for index in by_rest[: count - sum(parts)]:
        parts[index] += 1
    return parts
