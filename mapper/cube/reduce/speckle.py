"""Multitemporal speckle filter: a pixel's speckle is averaged over dates, its level is kept.

The filtered look k is <I_k> / N times the sum over the N looks of I_i / <I_i>, where <> is the
mean of the valid pixels of a window around the pixel (Quegan and Yu 2001, doi 10.1109/36.964973,
equations for uncorrelated looks). All in linear power; power of 0 or less, and NaN, is no look.
Beyond the array nothing is valid, so a halo of half a window makes the inside independent of the
cut.
"""

from collections.abc import Iterator

import numpy as np

from mapper.errors import RecipeError

WINDOW = 7
_WIDEST = 255
"""A window's pixels are counted in uint16."""
_LINES = 32
"""Lines that are summed at a time, so that they stay in a cache."""


class SpeckleFilter:
    """Two passes over the looks; memory does not grow with their number."""

    def __init__(self, shape: tuple[int, int], window: int = WINDOW) -> None:
        """Start the first pass.

        Args:
            shape: `(y, x)` with the halo of `window // 2`.
            window: pixels, odd, to 255.

        Raises: RecipeError for another window.
        """
        if not 1 <= window <= _WIDEST or window % 2 == 0:
            raise RecipeError(
                f"a speckle window of {window} cannot be used; give an odd number to {_WIDEST}"
            )
        self._window = window
        self._ratios = np.zeros(shape, dtype=np.float64)
        self.count = np.zeros(shape, dtype=np.uint16)
        """Looks at each pixel."""

    def add(self, power: np.ndarray, valid: np.ndarray) -> None:
        """First pass: `(y, x)` linear power and which of it is data."""
        usable = valid & (power > 0)
        mean = local_mean(power, usable, self._window)
        self._ratios += np.divide(power, mean, out=np.zeros_like(mean), where=usable)
        self.count += usable

    def filtered(self, power: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Second pass, after all looks were added: `(y, x)` float32, NaN where it is no data."""
        usable = valid & (power > 0)
        mean = local_mean(power, usable, self._window)
        factor = self._ratios / np.maximum(self.count, 1)
        return np.where(usable, mean * factor, np.nan).astype(np.float32)


def despeckled(stack: np.ndarray, valid: np.ndarray, window: int = WINDOW) -> Iterator[np.ndarray]:
    """Both passes over looks in memory.

    Args:
        stack: `(time, y, x)` float32 linear power, with the halo of `window // 2`.
        valid: `(time, y, x)` bool, True = data.
        window: pixels, odd, to 255.

    Yields: the looks in their order, `(y, x)` float32, NaN where they are no data.

    Raises: RecipeError for another window.
    """
    looks = SpeckleFilter((stack.shape[1], stack.shape[2]), window)
    for power, good in zip(stack, valid, strict=True):
        looks.add(power, good)
    for power, good in zip(stack, valid, strict=True):
        yield looks.filtered(power, good)


def local_mean(power: np.ndarray, usable: np.ndarray, window: int) -> np.ndarray:
    """Mean of the usable pixels of a window around each pixel.

    Terms are added in the order of the window, so a value does not depend on where the array
    begins.

    Args:
        power: `(y, x)`.
        usable: `(y, x)` bool.
        window: pixels, odd, to 255.

    Returns: `(y, x)` float64, NaN where the window has no usable pixel.
    """
    half = window // 2
    height, width = power.shape
    known = np.pad(np.where(usable, power, 0).astype(np.float64), half)
    there = np.pad(usable.astype(np.uint16), half)
    result = np.empty((height, width), dtype=np.float64)
    for top in range(0, height, _LINES):
        lines = slice(top, min(top + _LINES, height) + 2 * half)
        total = _window_sum(known[lines], window)
        count = _window_sum(there[lines], window)
        np.divide(total, np.where(count > 0, count, np.nan), out=result[top : top + _LINES])
    return result


def _window_sum(padded: np.ndarray, window: int) -> np.ndarray:
    """Sum over each square window that lies in the array."""
    width = padded.shape[1] - window + 1
    height = padded.shape[0] - window + 1
    lines = padded[:, :width].copy()
    for shift in range(1, window):
        lines += padded[:, shift : shift + width]
    total = lines[:height].copy()
    for shift in range(1, window):
        total += lines[shift : shift + height]
    return total
