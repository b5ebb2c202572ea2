"""Everything about a stored array that is known before any pixel is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mapper.area.grid import BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayTemplate:
    """One array of a cube or map: a tile of it is one Zarr shard."""

    name: str
    """Variable name in the Zarr group."""
    dtype: str
    """Numpy name, e.g. `uint16`."""
    fill: float
    """Value of pixels without data."""
    bands: tuple[str, ...] | None = None
    """Names along the band axis; None for an array of (y, x)."""
    attributes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """CF attributes of the variable."""

    @property
    def band_dimension(self) -> str:
        """Name of the band axis; each array has its own, so that arrays can differ."""
        return f"{self.name}_band"

    @property
    def dimensions(self) -> tuple[str, ...]:
        """`(band, y, x)` or `(y, x)`."""
        return ("y", "x") if self.bands is None else (self.band_dimension, "y", "x")

    def shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the array over so many pixels."""
        return (height, width) if self.bands is None else (len(self.bands), height, width)

    @property
    def chunk(self) -> tuple[int, ...]:
        """Shape of the unit that is read at once."""
        return self.shape(BLOCK, BLOCK)

    def empty(self, height: int, width: int) -> np.ndarray:
        """An array of fill values."""
        return np.full(self.shape(height, width), self.fill, dtype=self.dtype)

    def decode(self, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Stored values as float32 in their unit, 0 where not valid, and which are valid."""
        valid = np.isfinite(raw) if np.isnan(self.fill) else raw != self.fill
        scale = np.float32(self.attributes.get("scale_factor", 1.0))
        return np.where(valid, raw.astype(np.float32) * scale, np.float32(0)), valid
