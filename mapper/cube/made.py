"""What one source of one tile comes to."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Arrays in the order of the source's templates: data, further ones, count, status."""

    arrays: tuple[np.ndarray, ...]
    observations: int
    missing: tuple[str, ...] = ()
    """Bands that no scene of the tile has."""
