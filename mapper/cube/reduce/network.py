"""Sorting along time by a fixed network of comparators, each a vectorised minimum and maximum.

A comparison sort decides pixel by pixel; a network does the same comparisons for all pixels, so
each is one call over a row of pixels. Comparators that cannot reach a wanted rank are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

PIECE_BYTES = 4 * 1024 * 1024
"""What the rows of one piece may take together, so that they stay in a cache."""
_MOST_PIXELS = 32768
_LEAST_PIXELS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparator:
    """Two rows are put in order: the lesser values to `low`, the greater to `high`."""

    low: int
    high: int
    keeps_low: bool
    """Whether the lesser values can still reach a wanted rank."""
    keeps_high: bool
    """Whether the greater values can."""


@lru_cache(maxsize=256)
def network(length: int, wanted: frozenset[int] | None = None) -> tuple[Comparator, ...]:
    """Comparators that put the wanted ranks of `length` rows in place, ties among equals free.

    Batcher's odd-even merge exchange for any length (Knuth, The Art of Computer Programming,
    volume 3, 5.2.2, algorithm M), pruned from its end.

    Args:
        length: number of rows.
        wanted: ranks from 0; None wants all. Rows of other ranks hold anything afterwards.
    """
    needed = set(range(length)) if wanted is None else set(wanted)
    kept: list[Comparator] = []
    for low, high in reversed(list(_exchanges(length))):
        if low in needed or high in needed:
            kept.append(
                Comparator(low=low, high=high, keeps_low=low in needed, keeps_high=high in needed)
            )
            needed.update((low, high))
    return tuple(reversed(kept))


def order_rows(rows: np.ndarray, wanted: frozenset[int] | None = None) -> list[int]:
    """Put each pixel's values over time in ascending order, in place.

    Args:
        rows: `(time + 1, ...)` of any real dtype, without NaN; the last row is room to work in.
        wanted: ranks that are looked at afterwards; None for all.

    Returns: the row that holds each rank; those of ranks not wanted hold anything.
    """
    spare = len(rows) - 1
    places = list(range(spare))
    for step in network(spare, wanted):
        one, other = rows[places[step.low]], rows[places[step.high]]
        if not step.keeps_high:
            np.minimum(one, other, out=one)
        elif not step.keeps_low:
            np.maximum(one, other, out=other)
        else:
            np.minimum(one, other, out=rows[spare])
            np.maximum(one, other, out=other)
            places[step.low], spare = spare, places[step.low]
    return places


def middle(rows: np.ndarray) -> np.ndarray:
    """Median of every pixel, the mean of the middle two of an even count; overwrites `rows`.

    Args:
        rows: `(time + 1, ...)` float, every value valid; the last row is room to work in.
    """
    length = len(rows) - 1
    low, high = (length - 1) // 2, length // 2
    places = order_rows(rows, frozenset((low, high)))
    if low == high:
        return rows[places[low]].copy()
    return (rows[places[low]] + rows[places[high]]) / rows.dtype.type(2)


def pieces(shape: tuple[int, int], pixel_bytes: int) -> Iterator[slice]:
    """Slices of whole lines of `(y, x)`, each small enough for the cache.

    Args:
        shape: `(y, x)`.
        pixel_bytes: what one pixel takes over all times.
    """
    height, width = shape
    pixels = min(max(PIECE_BYTES // max(pixel_bytes, 1), _LEAST_PIXELS), _MOST_PIXELS)
    lines = max(1, pixels // max(width, 1))
    for top in range(0, height, lines):
        yield slice(top, min(top + lines, height))


def _exchanges(length: int) -> Iterator[tuple[int, int]]:
    """Pairs of rows that a full sort compares, in order."""
    top = 1 << max((length - 1).bit_length() - 1, 0)
    part = top
    while part > 0 and length > 1:
        reach, rest, distance = top, 0, part
        while True:
            for low in range(length - distance):
                if low & part == rest:
                    yield low, low + distance
            if reach == part:
                break
            distance, reach, rest = reach - part, reach >> 1, part
        part >>= 1
