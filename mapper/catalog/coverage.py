"""The scene plan: how often each part of an area will be seen clear, month by month.

Over the bounds of the area lie 64 x 64 points, of which those inside it count. A scene gives each
point in its footprint 1 - its cloud share; granules of one pass are one view, of which the
clearest counts. So a number of views is an expectation: it knows how much of a scene is cloud,
not where.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from mapper.catalog.bands import Item, cloud_cover
from mapper.catalog.footprint import footprints
from mapper.catalog.observation import datatake, moment
from mapper.catalog.query import Period

_SIDE = 64
"""Points along each side of the area's bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthOfScenes:
    """What a source has of one month."""

    month: str
    """`2022-07`."""
    scenes: int
    views: float
    """Expected clear views, averaged over the area."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceCoverage:
    """What a source has of an area."""

    source: str
    scenes: int
    views: float
    """Expected clear views of the whole period, averaged over the area."""
    fewest: int
    """What `share_below` is measured against."""
    share_below: float
    """Share of the area with fewer than `fewest` expected clear views, 0 to 1."""
    months: tuple[MonthOfScenes, ...]
    """Every month of the period, with scenes or without."""

    @property
    def empty_months(self) -> tuple[str, ...]:
        """Months of the period without a scene."""
        return tuple(m.month for m in self.months if not m.scenes)

    @property
    def text(self) -> str:
        """The coverage in a line."""
        said = f"{self.scenes} scenes, {self.views:.1f} clear views expected, "
        said += f"{100 * self.share_below:.0f} % of the area with fewer than {self.fewest}"
        return said + (f"; none in {', '.join(self.empty_months)}" if self.empty_months else "")

    def to_dict(self) -> dict[str, Any]:
        """As plain values for a report."""
        return {
            "scenes": self.scenes,
            "views": round(self.views, 2),
            "fewest": self.fewest,
            "share_below": round(self.share_below, 4),
            "months": {
                m.month: {"scenes": m.scenes, "views": round(m.views, 2)} for m in self.months
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePlan:
    """What the sources of a recipe have of an area."""

    sources: Mapping[str, SourceCoverage]


def scene_plan(
    by_source: Mapping[str, Sequence[Item]],
    area: BaseGeometry,
    period: Period,
    fewest: int = 3,
) -> ScenePlan:
    """Count what a search found.

    Args:
        by_source: items by source of the recipe; of one that does not change with time the
            months say nothing, so leave it out.
        area: polygons in EPSG:4326, on one side of the antimeridian or split along it.
        period: months without a scene are counted in it.
        fewest: clear views of which less is few.
    """
    lon, lat = _points(area)
    return ScenePlan(
        sources={
            name: _coverage(name, items, (lon, lat), (period, fewest))
            for name, items in by_source.items()
        }
    )


def _coverage(
    name: str,
    items: Sequence[Item],
    points: tuple[NDArray[np.float64], NDArray[np.float64]],
    wanted: tuple[Period, int],
) -> SourceCoverage:
    period, fewest = wanted
    total = np.zeros(len(points[0]))
    views: dict[str, float] = defaultdict(float)
    scenes: dict[str, int] = defaultdict(int)
    for month, count, view in _views(items, points):
        total += view
        views[month] += float(view.mean())
        scenes[month] += count
    months = dict.fromkeys([*_months(period), *sorted(scenes)])
    return SourceCoverage(
        source=name,
        scenes=len(items),
        views=float(total.mean()),
        fewest=fewest,
        # sums of tenths come out a little below the whole number they stand for
        share_below=float((total < fewest - 1e-9).mean()),
        months=tuple(MonthOfScenes(month=m, scenes=scenes[m], views=views[m]) for m in months),
    )


def _views(
    items: Sequence[Item], points: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> Iterator[tuple[str, int, NDArray[np.float64]]]:
    """Of each pass: its month, its scenes, and (points,) how likely each point is seen clear."""
    passes: dict[str, list[int]] = defaultdict(list)
    for number, item in enumerate(items):
        passes[datatake(item)].append(number)
    holds = _holds(items, points)
    for numbers in passes.values():
        clear = np.zeros(len(points[0]))
        for number in numbers:
            share = 1 - min(100.0, max(0.0, cloud_cover(items[number]))) / 100
            np.maximum(clear, share * holds[number], out=clear)
        yield min(moment(items[n]) for n in numbers)[:7], len(numbers), clear


def _holds(
    items: Sequence[Item], points: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> NDArray[np.bool_]:
    """(items, points) True where a footprint holds a point."""
    lon, lat = points
    grounds = footprints(items)
    found = np.zeros((len(items), len(lon)), dtype=bool)
    # most footprints hold all of a city; its hull is tested once for all its points
    hull = shapely.MultiPoint(np.column_stack([lon, lat])).convex_hull
    whole = np.asarray(shapely.contains_properly(grounds, hull), dtype=bool)
    found[whole] = True
    part = np.flatnonzero(~whole)
    shapely.prepare(grounds[part])
    for number in part.tolist():
        found[number] = shapely.contains_xy(grounds[number], lon, lat)
    return found


def _points(area: BaseGeometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes and latitudes of the points in an area; one in it where it is a sliver."""
    west, south, east, north = area.bounds
    middles = (np.arange(_SIDE) + 0.5) / _SIDE
    lon = np.tile(west + (east - west) * middles, _SIDE)
    lat = np.repeat(south + (north - south) * middles, _SIDE)
    shapely.prepare(area)
    inside = np.asarray(shapely.contains_xy(area, lon, lat), dtype=bool)
    if not inside.any():
        one = area.representative_point()
        return np.array([one.x]), np.array([one.y])
    return lon[inside], lat[inside]


def _months(period: Period) -> list[str]:
    """`2022-07` for every month that holds part of the period."""
    first = period.start.year * 12 + period.start.month - 1
    last = period.end.year * 12 + period.end.month - 1
    return [f"{n // 12:04d}-{n % 12 + 1:02d}" for n in range(first, last + 1)]
