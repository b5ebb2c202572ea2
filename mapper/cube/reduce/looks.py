"""The valid looks at pixels, gathered so that pixels of as many looks are worked on together."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_GATHER_BYTES = 16 * 1024 * 1024
"""What the looks of one gathering may take, as uint16."""
_MOST_PIXELS = 65536
_LEAST_PIXELS = 2048
_GROUP_BYTES = 2 * 1024 * 1024
"""What the looks of one group may take, as float32, so that they stay in a cache."""
_LEAST_GROUP = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """Pixels that have the same number of valid looks."""

    pixels: np.ndarray
    """`(pixel,)` intp, position in the flattened `(y, x)`."""
    times: np.ndarray
    """`(look, pixel)` intp, ascending: which look of the series each one is."""
    values: np.ndarray
    """`(look, band, pixel)` float32, whole numbers."""


def looks_of(stack: np.ndarray, valid: np.ndarray) -> Iterator[Looks]:
    """Groups of pixels with all their valid looks; pixels without one are in no group.

    A pixel's looks do not depend on the group it is in, and what is worked out of them must not
    either: sums over looks belong in a loop or in exact arithmetic, because `np.sum` adds in
    another order where there is one pixel.

    Args:
        stack: `(time, band, y, x)` uint16.
        valid: `(time, y, x)` bool, True = valid in all bands.
    """
    length, bands, height, width = stack.shape
    room = _GATHER_BYTES // max(2 * length * bands, 1)
    lines = max(1, min(max(room, _LEAST_PIXELS), _MOST_PIXELS) // max(width, 1))
    for top in range(0, height, lines):
        part = np.ascontiguousarray(stack[:, :, top : top + lines]).reshape(-1)
        good = valid[:, top : top + lines].reshape(length, -1).T
        for pixels, times in _same_count(np.ascontiguousarray(good), bands):
            index = times * (bands * len(good)) + pixels
            values = np.empty((len(times), bands, len(pixels)), dtype=np.float32)
            for band in range(bands):
                values[:, band] = part.take(index + band * len(good))
            yield Looks(pixels=pixels + top * width, times=times, values=values)


def _same_count(good: np.ndarray, bands: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pixels of as many valid looks, and which looks; `good` is `(pixel, time)`."""
    count = np.count_nonzero(good, axis=1)
    for number in np.unique(count):
        if number == 0:
            continue
        pixels = np.flatnonzero(count == number)
        size = max(_GROUP_BYTES // (4 * int(number) * bands), _LEAST_GROUP)
        for start in range(0, len(pixels), size):
            some = pixels[start : start + size]
            times = np.nonzero(good[some])[1].reshape(len(some), number)
            yield some, np.ascontiguousarray(times.T)
