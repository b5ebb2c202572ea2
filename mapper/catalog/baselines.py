"""Reprocessed scenes: of one acquisition and MGRS tile the newest processing baseline is used.

Sentinel-2 products were processed again (Collection 1, and single scenes before it), and archives
hold both. Two items of one baseline may also be the two ends of a tile that one pass wrote in two
datastrips: these are both used, so an item gives way only to one over the same ground.
"""

from collections import defaultdict
from collections.abc import Sequence

from mapper.catalog.bands import Item
from mapper.catalog.footprint import footprint
from mapper.catalog.observation import datatake, moment

_SAME_GROUND = 0.5
"""Share of the smaller footprint that two versions of a scene have in common at least."""


def acquisition(item: Item) -> str | None:
    """Platform, pass and MGRS tile of a scene, the same in every processing baseline.

    Returns: None where the item names no tile, or neither its datatake nor its baseline.
    """
    properties = item["properties"]
    tile = str(properties.get("grid:code") or properties.get("s2:mgrs_tile") or "")
    tile = tile.removeprefix("MGRS-")
    if not tile:
        return None
    if not properties.get("s2:datatake_id"):
        if not _baseline_text(item):
            return None
        return f"{properties.get('platform', '')}/{moment(item)[:19]}/{tile}".lower()
    return f"{datatake(item)}/{tile}"


def newest_baselines(items: Sequence[Item]) -> tuple[list[Item], dict[str, str]]:
    """Items of which none is an older version of another, in the given order.

    The newest baseline wins, then the newest generation time (`s2:generation_time`, else
    `created`), then the id that sorts last.

    Returns: the items to use, and for each other item's id the id of the one that is used.
    """
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        key = acquisition(item)
        if key is not None:
            groups[key].append(item)
    superseded: dict[str, str] = {}
    for group in groups.values():
        if len(group) > 1:
            superseded |= _superseded(sorted(group, key=_rank, reverse=True))
    return [item for item in items if item["id"] not in superseded], superseded


def _superseded(ranked: Sequence[Item]) -> dict[str, str]:
    """For ids of items that give way, the id of the best item over the same ground."""
    used: list[Item] = []
    found = {}
    for item in ranked:
        better = next((other for other in used if _same_ground(other, item)), None)
        if better is None:
            used.append(item)
        else:
            found[item["id"]] = better["id"]
    return found


def _same_ground(one: Item, other: Item) -> bool:
    first, second = footprint(one), footprint(other)
    smaller = min(first.area, second.area)
    return smaller == 0 or first.intersection(second).area > _SAME_GROUND * smaller


def _rank(item: Item) -> tuple[tuple[int, ...], str, str]:
    properties = item["properties"]
    made = properties.get("s2:generation_time") or properties.get("created") or ""
    numbers = tuple(int(n) for n in _baseline_text(item).split(".") if n.isdecimal())
    # archives write times with and without fractions and with Z or +00:00
    return numbers, str(made)[:19], str(item["id"])


def _baseline_text(item: Item) -> str:
    properties = item["properties"]
    found = properties.get("s2:processing_baseline") or properties.get("processing:version")
    return str(found or "")
