"""Search for the scenes of a city's tiles, and say what each filter took away.

The search is that of the tiles, not of the polygon, and its limits count per MGRS tile, never
per AOI: so what a composite is made of does not depend on who asked.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np
import shapely
from shapely import box
from shapely.geometry.base import BaseGeometry

from mapper.area.grid import WGS84, TileKey, cells_of, cells_under, project
from mapper.catalog.bands import Item, check_item, cloud_cover, find_band, flat_bbox
from mapper.catalog.items import geometry_of
from mapper.catalog.observation import moment
from mapper.catalog.sentinel2 import mgrs_tile
from mapper.catalog.source import Bbox, Catalog, Period, open_catalog
from mapper.errors import CatalogError, NothingFoundError
from mapper.recipe import ElevationSource, ImagerySource, Recipe, Sentinel2Source, Source

_CELLS = "mapper:cells"
_FOOTPRINT_SLACK = 0.01
"""Degrees by which a footprint is widened: published ones are simplified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """What one filter of a search did."""

    name: str
    kept: int
    removed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSearch:
    """Items found for one source of a recipe."""

    source: str
    collection: str
    items: tuple[Item, ...]
    filters: tuple[Filtered, ...]
    reason: str = ""
    """Why there was no search."""

    @property
    def account(self) -> str:
        """What every filter removed, in a line."""
        if self.reason:
            return self.reason
        lines = [f"{f.name} removed {f.removed}" for f in self.filters[1:] if f.removed]
        return f"{self.filters[0].kept} found over the tiles" + "".join(f", {x}" for x in lines)


def search_city(
    recipe: Recipe,
    tiles: Sequence[TileKey],
    period: Period,
    opener: Callable[[str], Catalog] = open_catalog,
) -> dict[str, SourceSearch]:
    """Items of every source of a recipe that touch the tiles.

    Raises: NothingFoundError where a source that is not optional is left without an item;
        CatalogError where a catalog does not answer.
    """
    found = {}
    for composite in recipe.composites:
        name, source = composite.name, composite.source
        # without a scene in one season, that season is a missing modality
        optional = source.optional or bool(composite.season)
        try:
            result = search_source(name, source, tiles, period, opener)
        except CatalogError:
            if not source.optional:
                raise
            result = _nothing(name, source, "the catalog does not answer; the source is left out")
        if not result.items and not optional:
            raise NothingFoundError(
                f"no scene for source {name!r} ({', '.join(source.collections) or 'any'}, "
                f"{period.interval}): {result.account}; widen that filter or the period"
            )
        found[name] = result
    for source_name, source in recipe.sources.items():
        seasons = [c.name for c in recipe.composites if c.known_as == source_name]
        if seasons and not source.optional and not any(found[n].items for n in seasons):
            accounts = "; ".join(f"{n}: {found[n].account}" for n in seasons)
            raise NothingFoundError(
                f"no scene for any season of source {source_name!r} ({period.interval}): "
                f"{accounts}; widen a filter or the period"
            )
    return found


def search_source(
    name: str,
    source: Source,
    tiles: Sequence[TileKey],
    period: Period,
    opener: Callable[[str], Catalog] = open_catalog,
) -> SourceSearch:
    """Items of one source: the first of its collections that has any."""
    catalog = opener(source.catalog)
    empty = []
    for collection in source.collections or [""]:
        candidate = _search_collection(name, source, collection, catalog, (tiles, period))
        if candidate.items:
            return candidate
        empty.append(candidate)
    return max(empty, key=lambda c: c.filters[0].kept)


def _nothing(name: str, source: Source, why: str) -> SourceSearch:
    return SourceSearch(
        source=name,
        collection=",".join(source.collections),
        items=(),
        filters=(Filtered(name="area", kept=0, removed=0),),
        reason=why,
    )


def _search_collection(
    name: str,
    source: Source,
    collection: str,
    catalog: Catalog,
    where: tuple[Sequence[TileKey], Period],
) -> SourceSearch:
    tiles, period = where
    limited = isinstance(source, Sentinel2Source)
    # scenes are counted in fixed squares, so all of those has to be searched
    boxes = lonlat_boxes(cells_of(tiles) if limited else tiles)
    asked = None if ignores_period(source) else period
    found = _sound(catalog.search(collection, boxes, asked))
    if not found and asked is not None:
        found = _sound(catalog.search(collection, boxes, None))
    items, filters = found, [Filtered(name="area", kept=len(found), removed=0)]
    ground, tests = FootprintTest(tiles), _tests(source, period)
    for label, keep in [("the footprint test", ground.touches), *tests]:
        kept = [i for i in items if keep(i)]
        filters.append(Filtered(name=label, kept=len(kept), removed=len(items) - len(kept)))
        items = kept
    if isinstance(source, Sentinel2Source):
        usable = [i for i in found if all(keep(i) for _, keep in tests)]
        marked = _mark_cells(usable, tiles, source.scenes_per_tile)
        by_tile = ground.by_tile([marked[i["id"]] for i in items if i["id"] in marked])
        used = {i["id"] for chosen in by_tile.values() for i in chosen}
        kept = [marked[i["id"]] for i in items if i["id"] in used]
        label = f"the limit of {source.scenes_per_tile} scenes per MGRS tile"
        filters.append(Filtered(name=label, kept=len(kept), removed=len(items) - len(kept)))
        items = kept
    ordered = tuple(sorted(items, key=lambda i: (moment(i), i["id"])))
    return SourceSearch(source=name, collection=collection, items=ordered, filters=tuple(filters))


def _sound(items: Iterable[Item]) -> list[Item]:
    """Items that say what an item must, each id once."""
    return list({item["id"]: item for item in map(check_item, items)}.values())


def _mark_cells(items: Sequence[Item], tiles: Sequence[TileKey], limit: int) -> dict[str, Item]:
    """Items that are among the least cloudy of their MGRS tile over some cell, by id.

    Each is marked with the cells for which it was chosen; it is used in their tiles alone.
    """
    chosen: dict[str, list[str]] = defaultdict(list)
    for cell, candidates in FootprintTest(cells_of(tiles)).by_tile(items).items():
        for item in least_cloudy(candidates, limit):
            chosen[item["id"]].append(str(cell))
    return {
        item["id"]: item | {"properties": item["properties"] | {_CELLS: chosen[item["id"]]}}
        for item in items
        if item["id"] in chosen
    }


def ignores_period(source: Source) -> bool:
    """True for what does not change with the year, or is wanted from any."""
    return isinstance(source, ElevationSource) or (
        isinstance(source, ImagerySource) and source.ignore_period
    )


def _tests(source: Source, period: Period) -> list[tuple[str, Callable[[Item], bool]]]:
    """The filters of a source, each with the words that an error will use for it."""
    tests: list[tuple[str, Callable[[Item], bool]]] = []
    if not ignores_period(source):
        tests.append((f"the period {period.interval}", lambda i: _within(i, period)))
    months = getattr(source, "months", [])
    if months:
        listed = ", ".join(map(str, months))
        tests.append((f"the months {listed}", lambda i: _in_months(i, months)))
    if isinstance(source, Sentinel2Source):
        limit = source.max_cloud_cover
        tests.append(
            (
                f"cloud cover above {limit:g} %",
                lambda i: cloud_cover(i) <= limit,
            )
        )
        if source.mask is not None and source.mask.required:
            tests.append(("the need for an scl mask", lambda i: find_band(i, "scl") is not None))
    for band in source.bands.required:
        if isinstance(source, ElevationSource) and band != "elevation":
            continue
        tests.append(
            (f"the need for band {band}", lambda i, b=band: find_band(i, b) is not None)  # type: ignore[misc]
        )
    return tests


def _in_months(item: Item, months: Sequence[int]) -> bool:
    if item["properties"].get("mapper:undated"):
        return True
    month = moment(item)[5:7]
    return month.isdigit() and int(month) in months


def _within(item: Item, period: Period) -> bool:
    if item["properties"].get("mapper:undated"):
        return True
    try:
        when = datetime.fromisoformat(moment(item).replace("Z", "+00:00"))
    except ValueError:
        return False
    return period.start <= (when if when.tzinfo else when.replace(tzinfo=UTC)) <= period.end


def least_cloudy(items: Iterable[Item], limit: int) -> list[Item]:
    """At most `limit` scenes of each MGRS tile, the least cloudy first, ties by id."""
    by_tile: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_tile[mgrs_tile(item)].append(item)
    kept = []
    for scenes in by_tile.values():
        scenes.sort(key=lambda i: (cloud_cover(i), i["id"]))
        kept.extend(scenes[:limit])
    return kept


def lonlat_boxes(tiles: Sequence[TileKey]) -> list[Bbox]:
    """Bounding boxes of tiles in EPSG:4326: two where the tiles lie across the antimeridian."""
    bounds = [_unwrapped_bounds(key) for key in tiles]
    if max(b[2] for b in bounds) - min(b[0] for b in bounds) > 180:
        bounds = [(b[0] + 360, b[1], b[2] + 360, b[3]) if b[2] <= 0 else b for b in bounds]
    west, east = min(b[0] for b in bounds), max(b[2] for b in bounds)
    south, north = min(b[1] for b in bounds), max(b[3] for b in bounds)
    if east <= 180:
        return [(west, south, east, north)]
    return [(west, south, 180.0, north), (-180.0, south, east - 360, north)]


def _unwrapped_bounds(key: TileKey) -> Bbox:
    """A tile's bounds; east of 180 where it straddles the antimeridian."""
    west, south, east, north = _lonlat(key).bounds
    if east - west <= 180:
        return west, south, east, north
    lons = shapely.get_coordinates(_lonlat(key))[:, 0]
    lons = np.where(lons < 0, lons + 360, lons)
    return float(lons.min()), south, float(lons.max()), north


@lru_cache(maxsize=4096)
def _lonlat(key: TileKey) -> BaseGeometry:
    """A tile's ground in EPSG:4326."""
    return project(box(*key.grid.bounds_of(key.box)), key.grid.crs, WGS84)


class FootprintTest:
    """Which items can hold pixels of which tiles, by footprint."""

    def __init__(self, tiles: Sequence[TileKey]) -> None:
        """Prepare the tiles' ground once."""
        self._tiles = {key: _lonlat(key) for key in tiles}
        self._wraps = any(g.bounds[2] - g.bounds[0] > 180 for g in self._tiles.values())
        self._ground = shapely.union_all(list(self._tiles.values()))
        shapely.prepare(self._ground)

    def touches(self, item: Item) -> bool:
        """True where the item may hold pixels of any tile."""
        return self._wraps or bool(self._ground.intersects(_footprint(item)))

    def by_tile(self, items: Sequence[Item]) -> Mapping[TileKey, tuple[Item, ...]]:
        """The items that may hold pixels of each tile, in the given order."""
        footprints = [(item, _footprint(item)) for item in items]
        return {
            key: tuple(
                i
                for i, f in footprints
                if (self._wraps or ground.intersects(f)) and _is_for(i, key)
            )
            for key, ground in self._tiles.items()
        }


def _is_for(item: Item, key: TileKey) -> bool:
    """False where a scene limit left the item out of the tile's cell."""
    cells = item["properties"].get(_CELLS) if "properties" in item else None
    return cells is None or any(str(cell) in cells for cell in cells_under(key))


def _footprint(item: Item) -> BaseGeometry:
    """The item's ground in EPSG:4326, a little widened."""
    found = geometry_of(item)
    if found is not None:
        return found.buffer(_FOOTPRINT_SLACK)
    if item.get("bbox"):
        return box(*flat_bbox(item)).buffer(_FOOTPRINT_SLACK)
    return box(-180, -90, 180, 90)
