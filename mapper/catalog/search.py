"""Search for the scenes of a city's tiles, and say what each filter took away.

The search is that of the tiles, not of the polygon, and its limits count per MGRS tile, never
per AOI: so what a composite is made of does not depend on who asked.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import compress
from typing import Any

import numpy as np

from mapper.area.grid import TileKey, cells_of
from mapper.catalog.api import Answer
from mapper.catalog.archives import refusal
from mapper.catalog.bands import Item, check_item, find_band
from mapper.catalog.footprint import FootprintTest, lonlat_boxes
from mapper.catalog.items import SUPERSEDED_BY
from mapper.catalog.limits import choose_for_cells
from mapper.catalog.observation import azimuth_of, moment, orbit_state
from mapper.catalog.query import Bbox, Catalog, Period, PropertyFilter
from mapper.catalog.source import ask, open_catalog, sample
from mapper.catalog.tilecatalog import TileCatalog
from mapper.catalog.tilefetch import fetch_tile
from mapper.errors import CatalogError, NothingFoundError, RecipeError
from mapper.recipe import (
    CloudMask,
    Composite,
    ElevationSource,
    ImagerySource,
    Recipe,
    SclMask,
    Sentinel1Source,
    Sentinel2Source,
    Source,
)

__all__ = [
    "Filtered",
    "FootprintTest",
    "SourceSearch",
    "ignores_period",
    "lonlat_boxes",
    "property_filter",
    "search_city",
    "search_source",
]


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
    asked: str = ""
    """What the server was asked to leave out, so that no filter here could count it."""
    superseded: tuple[Item, ...] = ()
    """Older processings of items that are used, each marked with the id of the newer."""
    reason: str = ""
    """Why there was no search."""
    partly: bool = False
    """True where the filters' account is of the first page alone."""

    @property
    def account(self) -> str:
        """What every filter removed, in a line."""
        if self.reason:
            return self.reason
        lines = [f"{f.name} removed {f.removed}" for f in self.filters[1:] if f.removed]
        server = f" ({self.asked} asked of the server)" if self.asked else ""
        least = "at least " if self.partly else ""
        found = f"{least}{self.filters[0].kept} found over the tiles{server}"
        return found + "".join(f", {x}" for x in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Where:
    """Tiles, time, and how far around a tile its masks look."""

    tiles: Sequence[TileKey]
    period: Period
    reach: int = 0
    answers: dict[Any, Answer] = field(default_factory=dict)
    """What catalogs said: the parts of a year are one search."""

    def ask(
        self,
        catalog: Catalog,
        collection: str,
        boxes: Sequence[Bbox],
        timed: Period | None,
        wanted: PropertyFilter,
    ) -> Answer:
        """A catalog's answer, asked once."""
        key = id(catalog), collection, tuple(boxes), timed, wanted
        if key not in self.answers:
            self.answers[key] = ask(catalog, collection, boxes, timed, wanted)
        return self.answers[key]

    def sample(self, catalog: Catalog, collection: str, boxes: Sequence[Bbox]) -> Answer:
        """What a catalog has of any time, a page of it, asked once."""
        key = id(catalog), collection, tuple(boxes), "sample"
        if key not in self.answers:
            self.answers[key] = sample(catalog, collection, boxes)
        return self.answers[key]

    def boxes(self, source: Source) -> list[Bbox]:
        """Where a source's scenes are searched; those that are counted, in whole cells."""
        tiles = cells_of(self.tiles) if isinstance(source, Sentinel2Source) else self.tiles
        return lonlat_boxes(tiles, self.reach)


def search_city(
    recipe: Recipe,
    tiles: Sequence[TileKey],
    period: Period,
    opener: Callable[[str], Catalog] = open_catalog,
    reach: Callable[[Composite], int] = lambda _: 0,
) -> dict[str, SourceSearch]:
    """Items of every source of a recipe that touch the tiles; one search per source.

    Args:
        recipe: its sources.
        tiles: where.
        period: when.
        opener: of catalogs.
        reach: pixels around a tile that the masks of a composite look at.

    Raises: NothingFoundError where a source that is not optional is left without an item;
        CatalogError where a catalog does not answer.
    """
    found = {}
    answers: dict[Any, Answer] = {}
    for composite in recipe.composites:
        name, source = composite.name, composite.source
        # without a scene in one season, that season is a missing modality
        optional = source.optional or bool(composite.season)
        try:
            where = _Where(tiles=tiles, period=period, reach=reach(composite), answers=answers)
            result = _search(name, source, where, opener)
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
    """Items of one source: the first of its collections that has any.

    Raises: RecipeError where a collection cannot be used for what it is.
    """
    return _search(name, source, _Where(tiles=tiles, period=period), opener)


def _search(
    name: str, source: Source, where: "_Where", opener: Callable[[str], Catalog]
) -> SourceSearch:
    service = source.tiles if isinstance(source, ImagerySource) else None
    catalog = TileCatalog(service, fetch_tile) if service else opener(source.catalog)
    empty = []
    for collection in ["tiles"] if service else source.collections or [""]:
        refused = refusal(collection)
        if refused:
            raise RecipeError(f"source {name!r}: {refused}")
        timed = None if ignores_period(source) else where.period
        boxes = where.boxes(source)
        answer = where.ask(catalog, collection, boxes, timed, property_filter(source))
        candidate = _sifted(name, source, collection, answer, where)
        if candidate.items:
            return candidate
        empty.append(candidate)
    if not any(c.filters[0].kept for c in empty) and not ignores_period(source):
        empty = [_at_other_times(c, source, catalog, where) for c in empty]
    return max(empty, key=lambda c: c.filters[0].kept)


def _at_other_times(
    nothing: SourceSearch, source: Source, catalog: Catalog, where: "_Where"
) -> SourceSearch:
    """A search that found nothing, with the account of what there is of other times."""
    try:
        answer = where.sample(catalog, nothing.collection, where.boxes(source))
    except CatalogError:
        return nothing
    told = _sifted(nothing.source, source, nothing.collection, answer, where)
    return replace(nothing, filters=told.filters, partly=answer.partly)


def _nothing(name: str, source: Source, why: str) -> SourceSearch:
    return SourceSearch(
        source=name,
        collection=",".join(source.collections),
        items=(),
        filters=(Filtered(name="area", kept=0, removed=0),),
        reason=why,
    )


def _sifted(
    name: str, source: Source, collection: str, answer: Answer, where: _Where
) -> SourceSearch:
    """What all filters leave of an answer, and the account."""
    tiles, period = where.tiles, where.period
    found = _sound(answer)
    ground, tests = FootprintTest(tiles, where.reach), _tests(source, collection, period)
    touching = ground.touching(found)
    passed = [(label, np.array([keep(i) for i in found], dtype=bool)) for label, keep in tests]
    filters, kept = _account(len(found), [("the footprint test", touching), *passed])
    items = list(compress(found, kept))
    superseded: list[Item] = []
    if isinstance(source, Sentinel2Source):
        usable = np.logical_and.reduce([np.ones(len(found), dtype=bool), *(m for _, m in passed)])
        whole = list(compress(found, usable))
        items, superseded, more = _limited(source, items, (whole, where), ground)
        filters += more
    return SourceSearch(
        source=name,
        collection=collection,
        items=_in_order(items),
        filters=tuple(filters),
        asked=answer.asked,
        superseded=_in_order(superseded),
    )


def _in_order(items: Iterable[Item]) -> tuple[Item, ...]:
    """By time, then id."""
    return tuple(sorted(items, key=lambda i: (moment(i), i["id"])))


def _account(
    count: int, passed: Sequence[tuple[str, np.ndarray]]
) -> tuple[list[Filtered], np.ndarray]:
    """What each filter took of what those before it left, and what all leave."""
    filters = [Filtered(name="area", kept=count, removed=0)]
    kept = np.ones(count, dtype=bool)
    for label, mask in passed:
        before, kept = int(kept.sum()), kept & mask
        left = int(kept.sum())
        filters.append(Filtered(name=label, kept=left, removed=before - left))
    return filters, kept


def _limited(
    source: Sentinel2Source,
    items: Sequence[Item],
    usable: tuple[Sequence[Item], _Where],
    ground: FootprintTest,
) -> tuple[list[Item], list[Item], list[Filtered]]:
    """Keep the newest processing of each scene, and so many scenes of each MGRS tile.

    Args:
        source: has the limit.
        items: those that touch the tiles.
        usable: all that are over the tiles' cells, and where.
        ground: the tiles' ground.

    Returns: the items to use, those on record only, and the account.
    """
    whole, where = usable
    limit = source.scenes_per_tile
    marked, replaced = choose_for_cells(whole, where.tiles, limit, where.reach)
    by_tile = ground.by_tile([marked[i["id"]] for i in items if i["id"] in marked])
    used = {i["id"] for chosen in by_tile.values() for i in chosen}
    kept = [marked[i["id"]] for i in items if i["id"] in used]
    older = [
        i | {"properties": i["properties"] | {SUPERSEDED_BY: replaced[i["id"]]}}
        for i in items
        if replaced.get(i["id"]) in used
    ]
    left = len(items) - len(older)
    label = f"the limit of {source.scenes_per_tile} scenes per MGRS tile"
    return (
        kept,
        older,
        [
            Filtered(name="a newer processing baseline", kept=left, removed=len(older)),
            Filtered(name=label, kept=len(kept), removed=left - len(kept)),
        ],
    )


def _sound(answer: Answer) -> list[Item]:
    """Items that say what an item must, each id once."""
    items = answer.items if answer.sound else map(check_item, answer.items)
    return list({item["id"]: item for item in items}.values())


def property_filter(source: Source) -> PropertyFilter:
    """What of a source's wishes a server may be asked for."""
    limit = source.max_cloud_cover if isinstance(source, Sentinel2Source) else 100
    return PropertyFilter(
        cloud_cover=limit if limit < 100 else None,
        orbit_state=getattr(source, "orbit_state", None),
        platforms=tuple(getattr(source, "platforms", ())),
    )


def ignores_period(source: Source) -> bool:
    """True for what does not change with the year, or is wanted from any."""
    return isinstance(source, ElevationSource) or bool(getattr(source, "ignore_period", False))


def _tests(
    source: Source, collection: str, period: Period
) -> list[tuple[str, Callable[[Item], bool]]]:
    """The filters of a source, each with the words that an error will use for it."""
    tests: list[tuple[str, Callable[[Item], bool]]] = []
    if not ignores_period(source):
        tests.append((f"the period {period.interval}", lambda i: _within(i, period)))
    months = getattr(source, "months", [])
    if months:
        listed = ", ".join(map(str, months))
        tests.append((f"the months {listed}", lambda i: _in_months(i, months)))
    asked = property_filter(source)
    if asked.cloud_cover is not None:
        clouds = PropertyFilter(cloud_cover=asked.cloud_cover)
        tests.append((f"cloud cover above {asked.cloud_cover:g} %", clouds.keeps))
    if asked.orbit_state or asked.platforms:
        passes = PropertyFilter(orbit_state=asked.orbit_state, platforms=asked.platforms)
        tests.append((f"the need for {passes.words}", passes.keeps))
    mask = getattr(source, "mask", None)
    if isinstance(mask, SclMask | CloudMask) and mask.required:
        need = mask.bands[0]
        tests.append((f"the need for an {need} mask", lambda i: find_band(i, need) is not None))
    if isinstance(mask, CloudMask):
        tests.append(("the need for the sun's azimuth", lambda i: azimuth_of(i) is not None))
    if isinstance(source, Sentinel1Source) and source.orbits == "apart":
        tests.append(("the need for a known orbit", lambda i: orbit_state(i) != "unknown"))
    tests.append(("the need for processed scenes", lambda i: not refusal(collection, i)))
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
