"""Why a pixel has no value."""

import numpy as np

_FIRST = (0, 5, 4, 3, 2)
"""Which of two statuses says more about a pixel, first come first."""


def merged_status(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Status of a pixel over two lots of scenes."""
    rank = np.full(256, len(_FIRST), dtype=np.uint8)
    rank[list(_FIRST)] = np.arange(len(_FIRST))
    return np.where(rank[other] < rank[one], other, one)


def status_of(observed: np.ndarray, used: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """Why a pixel has no value, `(y, x)` uint8 by `mapper.cube.template.STATUS`.

    Args:
        observed: `(y, x)` bool, some scene has data here.
        used: `(y, x)` bool, some observation was used here.
        lost: `(y, x)` bool, a scene that could not be read lies here: it might have given one.
    """
    empty = np.where(lost, 4, np.where(observed, 3, 2))
    return np.where(used, 0, empty).astype(np.uint8)
