"""Footprints and tiles in EPSG:4326: which items can hold pixels of which tiles."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely import box
from shapely.geometry.base import BaseGeometry

from mapper.area.grid import WGS84, TileKey, cells_under, project
from mapper.catalog.bands import Item, flat_bbox
from mapper.catalog.items import geometry_of
from mapper.catalog.query import Bbox

CELLS = "mapper:cells"
"""Property that lists the cells for which a scene limit chose an item."""
_SLACK = 0.01
"""Degrees by which a footprint may be too small: published ones are simplified."""


def footprint(item: Item) -> BaseGeometry:
    """The item's ground: its geometry, else its bbox, else the whole world."""
    found = geometry_of(item)
    if found is not None:
        return found
    if not item.get("bbox"):
        return box(-180, -90, 180, 90)
    west, south, east, north = flat_bbox(item)
    if east < west:
        return shapely.MultiPolygon([box(west, south, 180, north), box(-180, south, east, north)])
    return box(west, south, east, north)


def footprints(items: Sequence[Item]) -> NDArray[np.object_]:
    """(n,) the ground of each item."""
    found = np.empty(len(items), dtype=object)
    found[:] = [footprint(item) for item in items]
    return found


class FootprintTest:
    """Which items can hold pixels of which tiles, by footprint."""

    def __init__(self, tiles: Sequence[TileKey], reach: int = 0) -> None:
        """Prepare the tiles' ground once.

        Args:
            tiles: which.
            reach: pixels around a tile that its masks look at.
        """
        self._tiles = {key: _unwrapped(key) for key in tiles}
        self._slack = {key: _SLACK + _degrees(key, reach) for key in tiles}
        shapely.prepare(list(self._tiles.values()))

    def touches(self, item: Item) -> bool:
        """True where the item may hold pixels of any tile."""
        return bool(self.touching([item])[0])

    def touching(self, items: Sequence[Item]) -> NDArray[np.bool_]:
        """(n,) True where an item may hold pixels of any tile."""
        grounds = footprints(items)
        near = [self._near(key, grounds) for key in self._tiles]
        return np.logical_or.reduce([np.zeros(len(items), dtype=bool), *near])

    def by_tile(self, items: Sequence[Item]) -> Mapping[TileKey, tuple[Item, ...]]:
        """The items that may hold pixels of each tile, in the given order."""
        grounds = footprints(items)
        return {
            key: tuple(
                items[n]
                for n in np.flatnonzero(self._near(key, grounds)).tolist()
                if _is_for(items[n], key)
            )
            for key in self._tiles
        }

    def _near(self, key: TileKey, grounds: NDArray[np.object_]) -> NDArray[np.bool_]:
        ground, slack = self._tiles[key], self._slack[key]
        found = _close(ground, grounds, slack)
        # beside the antimeridian, what lies on its other side has longitudes of its own
        for beyond, turn in (
            (ground.bounds[2] + slack > 180, 360.0),
            (ground.bounds[0] - slack < -180, -360.0),
        ):
            if beyond:
                found |= _close(ground, shapely.transform(grounds, _turned(turn)), slack)
        return found


def _turned(degrees: float) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Moves longitudes around the world."""
    return lambda corners: corners + np.array([degrees, 0.0])


def _unwrapped(key: TileKey) -> BaseGeometry:
    """A tile's ground in EPSG:4326; east of 180 where it lies across the antimeridian."""
    ground = lonlat(key)
    if ground.bounds[2] - ground.bounds[0] <= 180:
        return ground

    def counted_on(corners: NDArray[np.float64]) -> NDArray[np.float64]:
        lon = np.where(corners[:, :1] < 0, corners[:, :1] + 360, corners[:, :1])
        return np.hstack([lon, corners[:, 1:]])

    return shapely.transform(ground, counted_on)


def _close(ground: BaseGeometry, grounds: NDArray[np.object_], slack: float) -> NDArray[np.bool_]:
    """(n,) True where a footprint meets a tile's ground, or lies as close as the slack."""
    found = np.asarray(shapely.intersects(ground, grounds), dtype=bool)
    # distances take far longer, and few footprints lie beside the tile and close to it
    beside = np.flatnonzero(~found & _reach(ground, grounds, slack))
    found[beside] = shapely.dwithin(ground, grounds[beside], slack)
    return found


def _reach(ground: BaseGeometry, grounds: NDArray[np.object_], slack: float) -> NDArray[np.bool_]:
    """(n,) True where the bounds of a footprint are as close as the slack."""
    west, south, east, north = ground.bounds
    left, bottom, right, top = shapely.bounds(grounds).T
    slack += 1e-9
    found = (left <= east + slack) & (right >= west - slack)
    return np.asarray(found & (bottom <= north + slack) & (top >= south - slack), dtype=bool)


def _degrees(key: TileKey, pixels: int) -> float:
    """So many pixels of a tile in degrees of longitude, which are the shorter ones."""
    if not pixels:
        return 0.0
    lat = max(map(abs, lonlat(key).bounds[1::2]))
    return pixels * key.resolution / (111_000 * math.cos(math.radians(min(lat, 89.0))))


def _is_for(item: Item, key: TileKey) -> bool:
    """False where a scene limit left the item out of the tile's cell."""
    cells = item["properties"].get(CELLS) if "properties" in item else None
    return cells is None or any(str(cell) in cells for cell in cells_under(key))


def lonlat_boxes(tiles: Sequence[TileKey], reach: int = 0) -> list[Bbox]:
    """Boxes in EPSG:4326 that hold all ground on which `FootprintTest` accepts a footprint.

    Args:
        tiles: which.
        reach: pixels around a tile that its masks look at.

    Returns: one box; two where it lies across the antimeridian.
    """
    bounds = [_unwrapped_bounds(key, reach) for key in tiles]
    if max(b[2] for b in bounds) - min(b[0] for b in bounds) > 180:
        bounds = [(b[0] + 360, b[1], b[2] + 360, b[3]) if b[0] < 0 else b for b in bounds]
    west, east = min(b[0] for b in bounds), max(b[2] for b in bounds)
    south, north = min(b[1] for b in bounds), max(b[3] for b in bounds)
    if west < -180:
        return [(-180.0, south, east, north), (west + 360, south, 180.0, north)]
    if east <= 180:
        return [(west, south, east, north)]
    return [(west, south, 180.0, north), (-180.0, south, east - 360, north)]


def _unwrapped_bounds(key: TileKey, reach: int) -> Bbox:
    """A tile's bounds and the slack around them; beyond 180 where they cross the antimeridian."""
    west, south, east, north = lonlat(key).bounds
    if east - west > 180:
        lons = shapely.get_coordinates(lonlat(key))[:, 0]
        lons = np.where(lons < 0, lons + 360, lons)
        west, east = float(lons.min()), float(lons.max())
    slack = _SLACK + _degrees(key, reach)
    return west - slack, max(south - slack, -90.0), east + slack, min(north + slack, 90.0)


@lru_cache(maxsize=4096)
def lonlat(key: TileKey) -> BaseGeometry:
    """A tile's ground in EPSG:4326."""
    return project(box(*key.grid.bounds_of(key.box)), key.grid.crs, WGS84)
