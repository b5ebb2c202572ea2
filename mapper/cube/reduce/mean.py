"""Means that stream: one scene is added at a time, and memory does not grow with the scenes."""

import numpy as np


class ReflectanceMean:
    """Running mean of reflectances in exact integer sums: the order of adding does not matter."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Start with nothing observed.

        Args:
            shape: of one scene, such as `(band, y, x)`.
        """
        self._total = np.zeros(shape, dtype=np.uint32)
        self.count = np.zeros(shape, dtype=np.uint16)
        """Valid values added so far; up to 65535 are summed without overflow."""

    def add(self, values: np.ndarray, valid: np.ndarray) -> None:
        """Add one scene.

        Args:
            values: of `shape`, uint16.
            valid: broadcast to `shape`, bool, True = valid.
        """
        self._total += np.multiply(values, valid, dtype=np.uint16)
        self.count += valid

    def result(self) -> np.ndarray:
        """Mean of `shape`, uint16, halves rounded up; 0 where nothing was valid."""
        found = np.zeros(self._total.shape, dtype=np.uint16)
        # a plane at a time: wide numbers of all bands at once would be most of a tile's memory
        for place in np.ndindex(self._total.shape[:-2]):
            count = np.maximum(self.count[place], 1).astype(np.uint64)
            total = self._total[place].astype(np.uint64)
            found[place] = (2 * total + count) // (2 * count)
        return found


class PowerMean:
    """Running mean of backscatter in linear power, float64 sums in the order of adding."""

    def __init__(self, shape: tuple[int, int]) -> None:
        """Start with nothing observed; `shape` is `(y, x)`."""
        self._total = np.zeros(shape, dtype=np.float64)
        self.count = np.zeros(shape, dtype=np.uint16)
        """Observations of a pixel that were data."""

    def add(self, power: np.ndarray, valid: np.ndarray) -> None:
        """Add one observation: `(y, x)` linear power and which of it is data.

        Power of 0 or less, and NaN, is no observation.
        """
        usable = valid & (power > 0)
        self._total += np.where(usable, power, 0)
        self.count += usable

    def result(self) -> np.ndarray:
        """`(y, x)` float64 in linear power, NaN where nothing was observed."""
        with np.errstate(invalid="ignore"):
            return self._total / np.where(self.count > 0, self.count, np.nan)

    def decibel(self) -> np.ndarray:
        """`(y, x)` float32 in dB, NaN where nothing was observed."""
        return (10 * np.log10(self.result())).astype(np.float32)
