"""Growing and shrinking masks by a disc, exactly.

The disc of a radius holds every offset of whole pixels at most that far away, Euclidean, centre
to centre. It is taken apart into one horizontal run for each row: runs are widened by doubling,
and rows are laid over each other eight pixels to a byte.
"""

import math

import numpy as np

_SLACK = 1e-9
"""50 m / 0.1 m is to be 500 pixels whatever the division leaves."""


def dilate(mask: np.ndarray, radius: float) -> np.ndarray:
    """True within a radius of a true pixel.

    Outside the array counts as False: nothing grows in over the border.

    Args:
        mask: `(y, x)` bool.
        radius: in pixels; below 1 nothing grows.

    Returns: a new `(y, x)` bool.
    """
    mask = np.asarray(mask, dtype=bool)
    widths = half_widths(radius)
    if len(widths) < 2 or not mask.any():
        return mask.copy()
    found = np.zeros((mask.shape[0], -(-mask.shape[1] // 8)), dtype=np.uint8)
    run, width = mask, 0
    packed = np.packbits(run, axis=1)
    for row in reversed(range(len(widths))):
        if widths[row] > width:
            run = _widened(run, width, widths[row])
            width, packed = widths[row], np.packbits(run, axis=1)
        _lay(found, packed, row)
    return np.unpackbits(found, axis=1, count=mask.shape[1]).view(bool)


def erode(mask: np.ndarray, radius: float) -> np.ndarray:
    """True where every pixel within a radius is true.

    Outside the array counts as True: the border never eats in.

    Args:
        mask: `(y, x)` bool.
        radius: in pixels; below 1 nothing shrinks.

    Returns: a new `(y, x)` bool.
    """
    return ~dilate(~np.asarray(mask, dtype=bool), radius)


def half_widths(radius: float) -> list[int]:
    """Half-width of a disc's run in each row from its centre outward, in pixels.

    The disc is 2 n - 1 rows high for n entries.
    """
    square = radius * radius + _SLACK * max(1.0, radius)
    rows = range(math.floor(math.sqrt(square)) + 1)
    return [math.floor(math.sqrt(square - row * row)) for row in rows]


def _widened(run: np.ndarray, width: int, wanted: int) -> np.ndarray:
    """Runs of one half-width made into runs of a larger one.

    A step of at most width + 1 leaves no gap, at the border neither.
    """
    while width < wanted:
        step = min(wanted - width, width + 1)
        wider = run.copy()
        wider[:, step:] |= run[:, :-step]
        wider[:, :-step] |= run[:, step:]
        run, width = wider, width + step
    return run


def _lay(found: np.ndarray, packed: np.ndarray, rows: int) -> None:
    """OR an array onto another, shifted so many rows up and down."""
    if rows == 0:
        found |= packed
        return
    found[rows:] |= packed[:-rows]
    found[:-rows] |= packed[rows:]
