"""Weights of overlapping windows, positive to the last pixel, and what they sum to."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np


def window_weights(size: int, kind: Literal["hann", "gaussian"]) -> np.ndarray:
    """Weights along one side of a window, float64, all of them above zero.

    `hann` is sampled at pixel centres, so that it never reaches zero; `gaussian` has a standard
    deviation of an eighth of the window.
    """
    place = np.arange(size) + 0.5
    if kind == "hann":
        return np.asarray(np.sin(np.pi * place / size) ** 2)
    return np.asarray(np.exp(-0.5 * ((place - size / 2) / (size / 8)) ** 2))


@lru_cache(maxsize=8)
def window_square(size: int, kind: Literal["hann", "gaussian"]) -> np.ndarray:
    """Weights of a window, `(y, x)` float32."""
    side = window_weights(size, kind)
    square = np.outer(side, side).astype(np.float32)
    square.flags.writeable = False
    return square


def lattice_sum(weights: np.ndarray, stride: int) -> np.ndarray:
    """What the weights of all windows that cover a pixel sum to, by place modulo stride.

    The lattice is endless, so the sum has the stride as its period and needs no count map.
    """
    total = np.zeros(stride)
    for start in range(0, len(weights), stride):
        part = weights[start : start + stride]
        total[: len(part)] += part
    return total


class SlabSum:
    """Weighted sums over the rows that are not yet final; memory is set by the slab.

    The rows form a ring, so that nothing moves when the first ones leave.
    """

    def __init__(self, shape: tuple[int, int, int], first_row: int, first_col: int) -> None:
        """Start with `(class, y, x)` zeros whose corner is the lattice pixel given."""
        self._sum = np.zeros(shape, dtype=np.float32)
        self.first_row = first_row
        self._first_col = first_col

    def add(self, row: int, col: int, weighted: np.ndarray) -> None:
        """Add one window's `(class, y, x)`, whose corner is the lattice pixel given."""
        left = col - self._first_col
        height, width = weighted.shape[1:]
        for place, part in self._pieces(row, height):
            self._sum[:, place, left : left + width] += weighted[:, part]

    def take(self, rows: int, most: int) -> Iterator[np.ndarray]:
        """The first rows, final now, as views `(class, up to most rows, x)` from north to south.

        Each view is cleared as soon as the next one is asked for; the slab moves down by `rows`.
        """
        for place, _ in self._pieces(self.first_row, rows):
            for start in range(place.start, place.stop, most):
                part = self._sum[:, start : min(start + most, place.stop)]
                yield part
                part[...] = 0
        self.first_row += rows

    def _pieces(self, row: int, count: int) -> list[tuple[slice, slice]]:
        """Where lattice rows lie in the ring, in one piece or in two."""
        height = self._sum.shape[1]
        start = row % height
        first = min(count, height - start)
        pieces = [(slice(start, start + first), slice(0, first))]
        if first < count:
            pieces.append((slice(0, count - first), slice(first, count)))
        return pieces
