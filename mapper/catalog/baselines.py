"""Reprocessed scenes: of one acquisition and MGRS tile the newest processing baseline is used.

Sentinel-2 products were processed again (Collection 1, and single scenes before it), and archives
hold both. Two items of one baseline may also be the two ends of a tile that one pass wrote in two
datastrips: these are both used, so an item gives way only to one over the same ground.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mapper.catalog.bands import Item
from mapper.catalog.footprint import footprint
from mapper.catalog.observation import moment
from mapper.catalog.sentinel2 import PRODUCTS, baseline_of, mgrs_tile

_SAME_GROUND = 0.5
"""Share of the smaller footprint that two versions of a scene have in common at least."""
_SAME_PASS = timedelta(minutes=10)
"""Versions of a granule differ by seconds in their times, passes over it by 100 minutes."""
_TAKES = (re.compile(r"_(\d{8}T\d{6})_"), re.compile(r"_MSIL2A_(\d{8}T\d{6})_"))
"""When sensing began: in a datatake's name, and in a product's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquisition:
    """What of a scene is the same in every processing of it, times aside."""

    platform: str
    tile: str
    """MGRS, with two digits of zone."""
    take: str
    """When sensing began for the whole pass, as its products write it; empty where unknown."""
    instant: datetime | None
    """The scene's own time, which processings change by seconds; None where it says none."""

    def same_as(self, other: "Acquisition") -> bool:
        """True for one pass: by when sensing began where both know, else by their own times."""
        if self.take and other.take:
            return self.take == other.take
        if self.instant is None or other.instant is None:
            return False
        return abs(self.instant - other.instant) < _SAME_PASS


def acquisition(item: Item) -> Acquisition | None:
    """Platform, pass and MGRS tile of a scene.

    Returns: None where the item names no tile, or neither its pass nor its baseline.
    """
    tile = mgrs_tile(item)
    if tile == str(item["id"]):
        return None
    take = _take_of(item)
    if not take and not baseline_of(item):
        return None
    platform = str(item["properties"].get("platform", "")).lower()
    return Acquisition(platform=platform, tile=tile, take=take, instant=_instant(item))


def newest_baselines(items: Sequence[Item]) -> tuple[list[Item], dict[str, str]]:
    """Items of which none is an older version of another, in the given order.

    The newest baseline wins, then the newest generation time (`s2:generation_time`, else
    `created`), then the id that sorts last.

    Returns: the items to use, and for each other item's id the id of the one that is used.
    """
    groups: dict[tuple[str, str], list[tuple[Item, Acquisition]]] = defaultdict(list)
    for item in items:
        known = acquisition(item)
        if known is not None:
            groups[known.platform, known.tile].append((item, known))
    superseded: dict[str, str] = {}
    for group in groups.values():
        if len(group) > 1:
            superseded |= _superseded(sorted(group, key=lambda x: _rank(x[0]), reverse=True))
    return [item for item in items if item["id"] not in superseded], superseded


def _superseded(ranked: Sequence[tuple[Item, Acquisition]]) -> dict[str, str]:
    """For ids of items that give way, the id of the best item of the same pass and ground."""
    used: list[tuple[Item, Acquisition]] = []
    found = {}
    for item, known in ranked:
        better = next(
            (o for o, its in used if known.same_as(its) and _same_ground(o, item)),
            None,
        )
        if better is None:
            used.append((item, known))
        else:
            found[item["id"]] = better["id"]
    return found


def _take_of(item: Item) -> str:
    """When sensing began, such as `20220808T104631`; empty where no name says."""
    properties = item["properties"]
    in_take, in_product = _TAKES
    found = in_take.search(str(properties.get("s2:datatake_id") or ""))
    for text in (*(properties.get(name) for name in PRODUCTS), item["id"]):
        found = found or in_product.search(str(text or ""))
    return found.group(1) if found else ""


def _instant(item: Item) -> datetime | None:
    try:
        found = datetime.fromisoformat(moment(item).replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _same_ground(one: Item, other: Item) -> bool:
    first, second = footprint(one), footprint(other)
    smaller = min(first.area, second.area)
    return smaller == 0 or first.intersection(second).area > _SAME_GROUND * smaller


def _rank(item: Item) -> tuple[tuple[int, ...], str, str]:
    properties = item["properties"]
    made = properties.get("s2:generation_time") or properties.get("created") or ""
    numbers = tuple(int(n) for n in baseline_of(item).split(".") if n.isdecimal())
    # archives write times with and without fractions and with Z or +00:00
    return numbers, str(made)[:19], str(item["id"])
