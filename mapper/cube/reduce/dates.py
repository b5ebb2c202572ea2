"""Date of a pixel: when the look that a composite shows, or lies nearest to, was taken."""

import numpy as np

from mapper.cube.reduce.network import pieces


def date_of_look(index: np.ndarray, days: np.ndarray) -> np.ndarray:
    """Date of a chosen look.

    Args:
        index: `(y, x)` int16, -1 = none, as `medoid` and `best` return it.
        days: `(time,)` whole days since 1970-01-01, 1 to 65535.

    Returns: `(y, x)` uint16 days since 1970-01-01, 0 = none.
    """
    table = np.append(np.asarray(days, dtype=np.uint16), np.uint16(0))
    return table[index]


def nearest_date(
    stack: np.ndarray, valid: np.ndarray, composite: np.ndarray, days: np.ndarray
) -> np.ndarray:
    """Date of the valid look that is nearest to a composite; of equals the first in time.

    For median, mean, percentiles and geometric median, which show no look of their own. Nearest
    by the exact squared distance over bands; bands in which the composite has no value do not
    count.

    Args:
        stack: `(time, band, y, x)` uint16.
        valid: `(time, y, x)` bool, True = valid in all bands; or `(time, band, y, x)`, of which
            a look counts where all bands are valid.
        composite: `(band, y, x)` uint16, 0 = none.
        days: `(time,)` whole days since 1970-01-01, 1 to 65535.

    Returns: `(y, x)` uint16 days since 1970-01-01; 0 where no look is valid or the composite has
        no value in any band.
    """
    _, bands, height, width = stack.shape
    good: np.ndarray = np.all(valid, axis=1) if valid.ndim == stack.ndim else valid
    dates = np.asarray(days, dtype=np.uint16)
    result = np.zeros((height, width), dtype=np.uint16)
    for lines in pieces((height, width), 32 * bands):
        wanted = composite[:, lines].astype(np.int64)
        result[lines] = _nearest(stack[:, :, lines], good[:, lines], wanted, dates)
    return result


def _nearest(
    stack: np.ndarray, good: np.ndarray, composite: np.ndarray, dates: np.ndarray
) -> np.ndarray:
    """As `nearest_date`, of one piece."""
    shown = composite > 0
    anything = shown.any(axis=0)
    least = np.full(anything.shape, np.iinfo(np.int64).max)
    result = np.zeros(anything.shape, dtype=np.uint16)
    for look, usable, date in zip(stack, good, dates, strict=True):
        apart = np.where(shown, look - composite, 0)
        distance = np.einsum("byx,byx->yx", apart, apart)
        better = usable & anything & (distance < least)
        np.copyto(least, distance, where=better)
        result[better] = date
    return result
