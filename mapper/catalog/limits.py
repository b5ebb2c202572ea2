"""The scene limit: which scenes of an MGRS tile a cell of the lattice is made of.

The rule is that of the cell alone, so it is the same for every AOI and every tile size up to a
cell. Over the cell lie 8 x 8 points. Of a set of scenes, each point counts

    sum over months of sqrt(sum over the scenes of the month that hold it of (1 - cloud share))

and scenes are taken one at a time, that which adds most first, ties by id, until the limit. The
root makes a second scene of the same month and ground worth less than the first of another
(Nemhauser, Wolsey and Fisher, 1978: for such a sum the greedy choice is within 1 - 1/e of the
best), so months are spread and both sides of a swath's edge are seen.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer

from mapper.area.grid import WGS84, TileKey, cells_of
from mapper.catalog.bands import Item, cloud_cover
from mapper.catalog.baselines import newest_baselines
from mapper.catalog.footprint import CELLS, FootprintTest, footprints
from mapper.catalog.observation import moment
from mapper.catalog.sentinel2 import mgrs_tile

_POINTS = 8
"""Points of a cell along one side."""


def choose_for_cells(
    items: Sequence[Item], tiles: Sequence[TileKey], limit: int, reach: int = 0
) -> tuple[dict[str, Item], dict[str, str]]:
    """Choose scenes for every cell that holds some of the tiles.

    Returns: the chosen items by id, each marked with the cells for which it was chosen (it is
        used in their tiles alone), and by id of each item that stands back for a chosen one of a
        newer processing baseline, in every cell, the id of that one.
    """
    chosen: dict[str, list[str]] = defaultdict(list)
    superseded: dict[str, str] = {}
    for cell, candidates in FootprintTest(cells_of(tiles), reach).by_tile(items).items():
        newest, older = newest_baselines(candidates)
        superseded |= older
        for item in best_coverage(newest, cell, limit):
            chosen[item["id"]].append(str(cell))
    marked = {
        item["id"]: item | {"properties": item["properties"] | {CELLS: chosen[item["id"]]}}
        for item in items
        if item["id"] in chosen
    }
    replaced = {o: n for o, n in superseded.items() if n in marked and o not in marked}
    return marked, replaced


def best_coverage(items: Iterable[Item], cell: TileKey, limit: int) -> list[Item]:
    """At most `limit` scenes of each MGRS tile, by the rule at the head of this module."""
    by_tile: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_tile[mgrs_tile(item)].append(item)
    kept: list[Item] = []
    for scenes in by_tile.values():
        if len(scenes) > limit:
            ordered = sorted(scenes, key=lambda i: str(i["id"]))
            clear = clear_coverage(ordered, cell)
            months = [moment(item)[:7] for item in ordered]
            kept.extend(ordered[n] for n in _greedy(clear, months, limit))
        else:
            kept.extend(scenes)
    return kept


def clear_coverage(items: Sequence[Item], cell: TileKey) -> NDArray[np.float64]:
    """(scenes, points): 1 - cloud share where a scene's footprint holds a point of the cell."""
    lon, lat = _points(cell)
    grounds = footprints(items)
    shapely.prepare(grounds)
    holds = shapely.contains_xy(grounds[:, None], lon[None], lat[None])
    clear = 1 - np.array([cloud_cover(item) for item in items]) / 100
    return np.asarray(holds * clear[:, None].clip(0, 1), dtype=np.float64)


def _greedy(clear: NDArray[np.float64], months: Sequence[str], limit: int) -> list[int]:
    """Numbers of the chosen scenes, in the order of choice."""
    _, month = np.unique(np.array(months), return_inverse=True)
    held = np.zeros((month.max() + 1, clear.shape[1]))
    gains = np.sqrt(clear).sum(axis=1)
    chosen: list[int] = []
    for _ in range(limit):
        # rounded, so that a tie is one on every machine; the first is the lowest id
        best = int(np.argmax(np.round(gains, 9)))
        chosen.append(best)
        held[month[best]] += clear[best]
        same = np.flatnonzero(month == month[best])
        already = held[month[best]]
        gains[same] = np.where(
            np.isneginf(gains[same]),
            -np.inf,
            (np.sqrt(already + clear[same]) - np.sqrt(already)).sum(axis=1),
        )
        gains[best] = -np.inf
    return chosen


@lru_cache(maxsize=4096)
def _points(cell: TileKey) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes and latitudes of the middles of a cell's 8 x 8 parts."""
    left, bottom, right, top = cell.grid.bounds_of(cell.box)
    middles = (np.arange(_POINTS) + 0.5) / _POINTS
    x, y = np.meshgrid(left + (right - left) * middles, bottom + (top - bottom) * middles)
    back = Transformer.from_crs(cell.grid.crs, WGS84, always_xy=True)
    lon, lat = back.transform(x.ravel(), y.ravel())
    return np.asarray(lon), np.asarray(lat)
