"""What a mask that looks at reflectances must offer, and where on the ground it is asked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mapper.area.grid import Grid, PixelBox


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where on the lattice an array lies."""

    grid: Grid
    box: PixelBox

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of an array over the box."""
        return self.box.shape

    @property
    def resolution(self) -> float:
        """Metres per pixel."""
        return self.grid.resolution

    def grow(self, pixels: int) -> "Place":
        """The place with so many pixels more on each side."""
        return Place(grid=self.grid, box=self.box.grow(pixels))


class Masker(Protocol):
    """Says which pixels of one scene are ground, from its reflectances.

    Its answer for a pixel depends on the ground within `reach` pixels alone, never on the box it
    is asked for. What runs a model lies above this room; it is handed in.
    """

    @property
    def bands(self) -> tuple[str, ...]:
        """Common names of the bands it must be given."""

    @property
    def reach(self) -> int:
        """Pixels beyond a box that `clear` of the box depends on, growth included."""

    @property
    def digest(self) -> str:
        """Of all that its answer depends on; a part of the digest of an ingest."""

    def clear(self, bands: Mapping[str, np.ndarray], valid: np.ndarray, place: Place) -> np.ndarray:
        """True where a pixel is ground.

        Args:
            bands: for each name `(y, x)` float32, reflectance 0 to 1; anything where not valid.
            valid: `(y, x)` bool, True where every band is data.
            place: of the arrays, halo included; its shape is theirs.

        Returns: `(y, x)` bool, False wherever `valid` is.
        """
