"""North-up raster windows whose edges are multiples of their pixel size from the zone's origin."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.transform import Affine

Bounds = tuple[float, float, float, float]
"""Left, bottom, right, top; always used beside an EPSG code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """A window of a UTM zone's global lattice."""

    epsg: int
    left: int
    """Easting of the left edge, metres."""
    top: int
    """Northing of the top edge, metres."""
    resolution: int
    """Pixel size, metres."""
    width: int
    """Columns."""
    height: int
    """Rows."""

    @classmethod
    def snapped(cls, epsg: int, bounds: Bounds, resolution: int, align: int = 0) -> "Extent":
        """The smallest window around `bounds` with edges on multiples of `align` metres."""
        align = align or resolution
        left, bottom = (math.floor(v / align) * align for v in bounds[:2])
        right, top = (math.ceil(v / align) * align for v in bounds[2:])
        return cls(
            epsg=epsg,
            left=left,
            top=top,
            resolution=resolution,
            width=(right - left) // resolution,
            height=(top - bottom) // resolution,
        )

    @property
    def bounds(self) -> Bounds:
        """Left, bottom, right, top in metres."""
        r = self.resolution
        return self.left, self.top - self.height * r, self.left + self.width * r, self.top

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        return self.height, self.width

    @property
    def transform(self) -> Affine:
        """Pixel corner to metres."""
        r = self.resolution
        return Affine(r, 0, self.left, 0, -r, self.top)

    def at(self, resolution: int) -> "Extent":
        """The same ground in pixels of another size."""
        return Extent.snapped(self.epsg, self.bounds, resolution)

    def grown(self, metres: int, align: int = 0) -> "Extent":
        """The window grown on all sides, then snapped outward to `align`."""
        left, bottom, right, top = self.bounds
        grown = (left - metres, bottom - metres, right + metres, top + metres)
        return Extent.snapped(self.epsg, grown, self.resolution, align)

    def slices(self, inner: "Extent") -> tuple[slice, slice]:
        """Rows and columns of this window that `inner` (same lattice, inside) covers."""
        row = (self.top - inner.top) // self.resolution
        column = (inner.left - self.left) // self.resolution
        return slice(row, row + inner.height), slice(column, column + inner.width)

    def intersection(self, other: "Extent") -> "Extent | None":
        """What two windows of one lattice share; None where that is nothing."""
        a, b = self.bounds, other.bounds
        shared = (max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
        if shared[0] >= shared[2] or shared[1] >= shared[3]:
            return None
        return Extent.snapped(self.epsg, shared, self.resolution)

    def columns_x(self) -> NDArray[np.float64]:
        """Eastings of the pixel centres, one per column."""
        return self.left + (np.arange(self.width, dtype=np.float64) + 0.5) * self.resolution

    def rows_y(self) -> NDArray[np.float64]:
        """Northings of the pixel centres, one per row, north first."""
        return self.top - (np.arange(self.height, dtype=np.float64) + 0.5) * self.resolution

    def projected_bounds(self, epsg: int) -> Bounds:
        """Bounds in another reference system; the edges are densified."""
        transformer = Transformer.from_crs(self.epsg, epsg, always_xy=True)
        return transformer.transform_bounds(*self.bounds)

    def outline(self, steps: int = 8) -> list[list[float]]:
        """Closed ring of [longitude, latitude], counter-clockwise, `steps` points a side."""
        return outline(self.epsg, self.bounds, steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A window of the lattice of pixels of some decimetres, counted from the zone's origin."""

    epsg: int
    column: int
    """Pixels from the origin to the left edge."""
    row: int
    """Pixels from the origin to the top edge; northward, so rows count down from it."""
    decimetres: int
    """Pixel size."""
    width: int
    height: int

    @classmethod
    def around(cls, extent: Extent, decimetres: int) -> "Frame":
        """The smallest window that holds an extent."""
        left, bottom, right, top = (round(10 * edge) for edge in extent.bounds)
        column, row = left // decimetres, -(-top // decimetres)
        return cls(
            epsg=extent.epsg,
            column=column,
            row=row,
            decimetres=decimetres,
            width=-(-right // decimetres) - column,
            height=row - bottom // decimetres,
        )

    def part(self, rows: slice, columns: slice) -> "Frame":
        """Some rows and columns of it, which may lie outside."""
        return Frame(
            epsg=self.epsg,
            column=self.column + columns.start,
            row=self.row - rows.start,
            decimetres=self.decimetres,
            width=columns.stop - columns.start,
            height=rows.stop - rows.start,
        )

    def grown(self, pixels: int) -> "Frame":
        """The window and some pixels on every side."""
        rows = slice(-pixels, self.height + pixels)
        return self.part(rows, slice(-pixels, self.width + pixels))

    @property
    def bounds(self) -> Bounds:
        """Left, bottom, right, top in metres, each rounded once."""
        columns, rows = (self.column, self.column + self.width), (self.row - self.height, self.row)
        (left, right), (bottom, top) = (
            [n * self.decimetres / 10 for n in ends] for ends in (columns, rows)
        )
        return left, bottom, right, top

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, columns."""
        return self.height, self.width

    @property
    def transform(self) -> Affine:
        """Pixel corner to metres."""
        left, _, _, top = self.bounds
        pixel = self.decimetres / 10
        return Affine(pixel, 0, left, 0, -pixel, top)

    def outline(self) -> list[list[float]]:
        """Closed ring of [longitude, latitude]."""
        return outline(self.epsg, self.bounds)


def outline(epsg: int, bounds: Bounds, steps: int = 8) -> list[list[float]]:
    """Closed ring of [longitude, latitude], counter-clockwise, `steps` points a side."""
    left, bottom, right, top = bounds
    corners = [(left, bottom), (right, bottom), (right, top), (left, top), (left, bottom)]
    to_lonlat = Transformer.from_crs(epsg, 4326, always_xy=True)
    ring = []
    for (x0, y0), (x1, y1) in itertools.pairwise(corners):
        for t in np.arange(steps) / steps:
            lon, lat = to_lonlat.transform(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t)
            ring.append([round(float(lon), 7), round(float(lat), 7)])
    return [*ring, ring[0]]
