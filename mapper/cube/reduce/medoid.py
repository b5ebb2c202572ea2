"""Medoid over time: the one real look that is nearest to all others."""

import numpy as np

from mapper.cube.reduce.looks import looks_of


def medoid(stack: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The look with the least sum of Euclidean distances to the other looks, over all bands.

    Of equals the first in time; so of two looks it is the first. Distances are float32, 0 or at
    least 1, and their sums in float64 are exact up to 4096 looks: they depend neither on the
    order of adding nor on the pixels beside.

    Args:
        stack: `(time, band, y, x)` uint16 reflectance x 10^4.
        valid: `(time, y, x)` bool, True = valid in all bands.

    Returns: values `(band, y, x)` uint16, 0 where there is no look; index of the chosen look
        `(y, x)` int16, -1 where there is none.

    Source: Flood 2013, "Seasonal composite Landsat TM/ETM+ images using the medoid",
        doi 10.3390/rs5126481.
    """
    _, bands, height, width = stack.shape
    values = np.zeros((bands, height * width), dtype=np.uint16)
    index = np.full(height * width, -1, dtype=np.int16)
    for looks in looks_of(stack, valid):
        chosen = np.argmin(_sums(looks.values), axis=0)
        index[looks.pixels] = np.take_along_axis(looks.times, chosen[None], axis=0)[0]
        picked = np.take_along_axis(looks.values, chosen[None, None], axis=0)[0]
        values[:, looks.pixels] = picked
    return values.reshape(bands, height, width), index.reshape(height, width)


def _sums(values: np.ndarray) -> np.ndarray:
    """Sum of the distances of each look to the others, `(look, pixel)` float64."""
    count, bands, pixels = values.shape
    sums = np.zeros((count, pixels), dtype=np.float64)
    for look in range(count - 1):
        apart = values[look + 1 :] - values[look]
        apart *= apart
        distance = apart[:, 0]
        for band in range(1, bands):
            distance += apart[:, band]
        exact = np.sqrt(distance).astype(np.float64)
        sums[look + 1 :] += exact
        sums[look] += exact.sum(axis=0)
    return sums
