"""Weights of overlapping windows, positive to the last pixel, and what they sum to."""

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
    """Weighted sums over the rows that are not yet final; memory is set by the slab."""

    def __init__(self, shape: tuple[int, int, int], first_row: int, first_col: int) -> None:
        """Start with `(class, y, x)` zeros whose corner is the lattice pixel given."""
        self._sum = np.zeros(shape, dtype=np.float32)
        self.first_row = first_row
        self._first_col = first_col

    def add(self, row: int, col: int, weighted: np.ndarray) -> None:
        """Add one window's `(class, y, x)`, whose corner is the lattice pixel given."""
        top, left = row - self.first_row, col - self._first_col
        height, width = weighted.shape[1:]
        self._sum[:, top : top + height, left : left + width] += weighted

    def take(self, rows: int) -> np.ndarray:
        """The first rows, final now, `(class, rows, x)`; the slab moves down by as many."""
        done = self._sum[:, :rows].copy()
        self._sum[:, :-rows] = self._sum[:, rows:].copy()
        self._sum[:, -rows:] = 0
        self.first_row += rows
        return done
