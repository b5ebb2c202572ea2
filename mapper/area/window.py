"""Inference windows on the global lattice: which ones cover a box, and what each one owns.

Windows are never shifted to fit an image: window k starts where the lattice says, overhangs
data and AOI where it must, and so means the same ground for every tile, block and AOI.
"""

from dataclasses import dataclass
from typing import Literal

from mapper.area.grid import PixelBox
from mapper.errors import RecipeError

Mode = Literal["core", "blend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One inference window: what the model reads, and the core that it owns in core crop."""

    row: int
    """Lattice row number of the window (not of a pixel), southward."""
    col: int
    extent: PixelBox
    core: PixelBox


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPlan:
    """How windows lie on the lattice.

    Core crop: each window owns the `stride`-sized square in its middle, with a halo of
    (size - stride) / 2 around it. Blend: windows start at multiples of `stride`, overlap, and
    every one of them contributes to each pixel that it covers.
    """

    size: int
    """Side of what the model reads, in pixels."""
    stride: int
    """Distance between windows, in pixels; in core crop also the side of the core."""
    mode: Mode = "core"

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.size:
            raise RecipeError(
                f"window stride {self.stride} must lie between 1 and the size {self.size}"
            )
        if self.mode == "core" and (self.size - self.stride) % 2:
            raise RecipeError(
                f"core crop needs an even margin; window {self.size} minus stride "
                f"{self.stride} is odd"
            )

    @property
    def halo(self) -> int:
        """Pixels that core crop reads around each core; 0 in blend."""
        return (self.size - self.stride) // 2 if self.mode == "core" else 0

    def window(self, row: int, col: int) -> Window:
        """The window with these lattice numbers."""
        top, left = row * self.stride, col * self.stride
        extent = PixelBox(
            row0=top - self.halo,
            col0=left - self.halo,
            row1=top - self.halo + self.size,
            col1=left - self.halo + self.size,
        )
        core = extent
        if self.mode == "core":
            core = PixelBox(row0=top, col0=left, row1=top + self.stride, col1=left + self.stride)
        return Window(row=row, col=col, extent=extent, core=core)

    def rows_of(self, start: int, stop: int) -> range:
        """Lattice numbers of the windows whose core touches pixels start..stop-1 of one axis."""
        if stop <= start:
            return range(0)
        reach = self.stride if self.mode == "core" else self.size
        return range((start - reach) // self.stride + 1, (stop - 1) // self.stride + 1)

    def cover(self, pixels: PixelBox) -> list[Window]:
        """Windows with a say in any pixel of the box, row by row: the order of summation."""
        return [
            self.window(row, col)
            for row in self.rows_of(pixels.row0, pixels.row1)
            for col in self.rows_of(pixels.col0, pixels.col1)
        ]

    def reach(self, pixels: PixelBox) -> PixelBox:
        """Everything that the windows covering a box read."""
        if pixels.empty:
            return pixels
        rows = self.rows_of(pixels.row0, pixels.row1)
        cols = self.rows_of(pixels.col0, pixels.col1)
        return self.window(rows[0], cols[0]).extent.union(self.window(rows[-1], cols[-1]).extent)

    @property
    def overhang(self) -> int:
        """How far beyond a pixel the windows that decide it can read, whichever pixel it is."""
        return self.stride - 1 + self.halo if self.mode == "core" else self.size - 1
