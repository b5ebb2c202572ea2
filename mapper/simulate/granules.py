"""Which windows of which UTM zones the satellites deliver of a city, and how to fill them.

The city is painted in its own zone. A window of the neighbouring zone is filled by projecting
its pixel centres into that plane and reading the 10 m mosaic there, bilinear.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from mapper.simulate.cities import SimulatedCity
from mapper.simulate.extent import Bounds, Extent

ALIGN = 60
"""Edges of all Sentinel-2 windows are multiples of this, so that 10, 20 and 60 m pixels nest."""
_SHARE = 0.62
"""Part of the height that the northern and the southern granule each cover."""
_ACROSS = 0.2
"""How far a granule reaches past the zone's boundary, as a part of the width."""

_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_ROWS = "ABCDEFGHJKLMNPQRSTUV"


@dataclass(frozen=True, slots=True, kw_only=True)
class Granule:
    """A crop of a Sentinel-2 tile."""

    code: str
    """MGRS tile, as in `32TPS`."""
    extent: Extent
    """At 10 m, edges on multiples of 60 m."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A zone's window and the mosaic positions its pixels are read at."""

    extent: Extent
    granules: tuple[Granule, ...]
    row: NDArray[np.float32] | None = None
    """Fractional mosaic row of each pixel; None where window and mosaic share a lattice."""
    column: NDArray[np.float32] | None = None
    """Fractional mosaic column of each pixel."""

    def sample(self, mosaic: NDArray[np.generic], extent: Extent) -> NDArray[np.float32]:
        """Read a mosaic (rows, columns) that covers `extent` at this window's pixels."""
        if self.row is None or self.column is None:
            return mosaic[extent.slices(self.extent)].astype(np.float32)
        row, column = np.floor(self.row), np.floor(self.column)
        t, s = self.row - row, self.column - column
        flat, width = mosaic.astype(np.float32, copy=False).ravel(), mosaic.shape[1]
        start = row.astype(np.int64) * width + column.astype(np.int64)
        high = flat[start] * (1 - s) + flat[start + 1] * s
        low = flat[start + width] * (1 - s) + flat[start + width + 1] * s
        return high * (1 - t) + low * t


def imagery(city: SimulatedCity, margin: int) -> Extent:
    """The area of interest and its margin in the city's plane, 10 m pixels."""
    return city.area.grown(margin, ALIGN)


def zone_extent(city: SimulatedCity, margin: int, epsg: int, *, whole: bool) -> Extent:
    """A zone's window on the city; not `whole`: only a little past the zone's boundary."""
    own = imagery(city, margin)
    bounds = own.bounds if epsg == city.epsg else own.projected_bounds(epsg)
    if len(city.zones) > 1 and not whole:
        bounds = _clipped(city, epsg, bounds)
    return Extent.snapped(epsg, bounds, 10, ALIGN)


def _clipped(city: SimulatedCity, epsg: int, bounds: Bounds) -> Bounds:
    left, bottom, right, top = bounds
    other = next(zone for zone in city.zones if zone != epsg) % 100
    east = (other - epsg % 100) % 60 == 1
    meridian = (epsg % 100 if east else epsg % 100 - 1) * 6.0 - 180.0
    to_zone = Transformer.from_crs(4326, epsg, always_xy=True)
    x, _ = to_zone.transform(meridian, city.lat)
    reach = _ACROSS * (right - left)
    if east:
        return left, bottom, min(right, x + reach), top
    return max(left, x - reach), bottom, right, top


def granules_of(city: SimulatedCity, extent: Extent) -> tuple[Granule, ...]:
    """A northern and a southern granule that overlap inside the city."""
    left, bottom, right, top = extent.bounds
    reach = _SHARE * (top - bottom)
    windows = ((left, top - reach, right, top), (left, bottom, right, bottom + reach))
    return tuple(
        Granule(
            code=_mgrs(extent, city.lat, rows_south=south),
            extent=Extent.snapped(extent.epsg, window, 10, ALIGN),
        )
        for south, window in enumerate(windows)
    )


def _mgrs(extent: Extent, lat: float, *, rows_south: int) -> str:
    """MGRS 100 km square of the window's centre, or of one of the squares south of it."""
    zone = extent.epsg % 100
    left, bottom, right, top = extent.bounds
    column = int((left + right) / 2 // 100_000) - 1
    row = int((bottom + top) / 2 // 100_000) - rows_south
    letters = _COLUMNS[(zone - 1) % 3]
    return (
        f"{zone}{_BANDS[min(int((lat + 80) // 8), 19)]}"
        f"{letters[column % 8]}{_ROWS[(row + (0 if zone % 2 else 5)) % 20]}"
    )


def view_of(mosaic: Extent, extent: Extent, granules: tuple[Granule, ...] = ()) -> View:
    """Prepare reading a window from the city's mosaic, which must contain it."""
    if extent.epsg == mosaic.epsg:
        return View(extent=extent, granules=granules)
    to_plane = Transformer.from_crs(extent.epsg, mosaic.epsg, always_xy=True)
    x, y = np.meshgrid(extent.columns_x(), extent.rows_y())
    x, y = to_plane.transform(x, y)
    row = (mosaic.top - y) / mosaic.resolution - 0.5
    column = (x - mosaic.left) / mosaic.resolution - 0.5
    return View(
        extent=extent,
        granules=granules,
        row=row.astype(np.float32),
        column=column.astype(np.float32),
    )
