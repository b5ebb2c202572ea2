"""Many looks at the ground made one, and how many there were."""

import numpy as np

from mapper.area.grid import BLOCK

_INVALID = np.uint16(65535)


def median_uint16(stack: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Median over time of the valid values; 0 where there is none.

    Of an even count it is the mean of the middle two, halves rounded up.

    Args:
        stack: `(time, y, x)` uint16, values 0 to 65534.
        valid: `(time, y, x)` bool.

    Returns: `(y, x)` uint16.
    """
    result = np.zeros(stack.shape[1:], dtype=np.uint16)
    for row in range(0, stack.shape[1], BLOCK):
        if not valid[:, row : row + BLOCK].any():
            continue
        strip = np.where(valid[:, row : row + BLOCK], stack[:, row : row + BLOCK], _INVALID)
        strip.sort(axis=0)
        count = valid[:, row : row + BLOCK].sum(axis=0)
        low = np.maximum(count - 1, 0) // 2
        high = np.minimum(count // 2, len(strip) - 1)
        pair = np.take_along_axis(strip, np.stack([low, high]), axis=0).astype(np.uint32)
        middle = (pair[0] + pair[1] + 1) // 2
        result[row : row + BLOCK] = np.where(count > 0, middle, 0)
    return result


class PowerMean:
    """Running mean of backscatter in linear power; memory does not grow with the scenes."""

    def __init__(self, shape: tuple[int, int]) -> None:
        """Start with nothing observed."""
        self._total = np.zeros(shape, dtype=np.float64)
        self.count = np.zeros(shape, dtype=np.uint16)

    def add(self, power: np.ndarray, valid: np.ndarray) -> None:
        """Add one observation: `(y, x)` linear power and which of it is data."""
        usable = valid & (power > 0)
        self._total += np.where(usable, power, 0)
        self.count += usable

    def decibel(self) -> np.ndarray:
        """`(y, x)` float32 in dB, NaN where nothing was observed."""
        with np.errstate(divide="ignore", invalid="ignore"):
            mean = self._total / self.count
            return np.where(self.count > 0, 10 * np.log10(mean), np.nan).astype(np.float32)


_FIRST_STATUS = (0, 5, 3, 4, 2)
"""Which of two statuses says more about a pixel, first come first."""


def merged_status(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Status of a pixel over two lots of scenes."""
    rank = np.full(256, len(_FIRST_STATUS), dtype=np.uint8)
    rank[list(_FIRST_STATUS)] = np.arange(len(_FIRST_STATUS))
    return np.where(rank[other] < rank[one], other, one)


def status_of(observed: np.ndarray, used: np.ndarray, failed: bool) -> np.ndarray:
    """Why a pixel has no value, `(y, x)` uint8 by `mapper.cube.template.STATUS`.

    Args:
        observed: `(y, x)` bool, some scene has data here.
        used: `(y, x)` bool, some observation was used here.
        failed: a scene of this tile could not be read.
    """
    empty = np.where(observed, 3, 4 if failed else 2)
    return np.where(used, 0, empty).astype(np.uint8)
