"""Why a refresh would redo a tile: what of its inputs is not as the last version had it.

Read from the frozen items of the plan, the ledger and the last version's list of shards; no pixel
is read and no scene is looked at. What only a look can tell, that a file was replaced under its
old name, is found by the run and not here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mapper.area.grid import TileKey
from mapper.catalog.bands import Item
from mapper.catalog.items import freeze
from mapper.cube.inspect import Inspection
from mapper.recipe import digest_of
from mapper.run.facts import scene_components
from mapper.run.layout import Version
from mapper.run.ledger import Entry, Ledger
from mapper.run.manifest import step_digests
from mapper.run.parts import CubePart, MapPart
from mapper.run.plan import CityPlan
from mapper.run.steps import CitySteps, predict_key
from mapper.run.tasks import inspection_from_json

Looks = Mapping[tuple[str, str], Inspection]
"""By source and item id."""
NEW_TILE = "the tile is new: the area's border moved"
_SECTION = {
    "recipe": "its section of the recipe changed",
    "pixels_version": "mapper makes other pixels by now",
    "mask": "its mask changed",
}
_SETTING = {
    "inference": "another model, or another plan for it",
    "windows": "the area's border moved",
    "absent": "the area's border moved",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """A step that would be done again."""

    stage: str
    part: str
    """Of the cube or the map; empty for the only map."""
    tile: TileKey
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a refresh would redo in a city."""

    version: int | None
    """The one that it is held against; None where there is none."""
    touched: tuple[Touched, ...]
    same: int
    """Steps of ingest and predict that would not be done again."""
    unknown: str = ""
    """Why nothing can be said."""

    def counts(self) -> list[tuple[str, int]]:
        """Reasons and how many steps each of them touches, most first."""
        return Counter(reason for each in self.touched for reason in each.reasons).most_common()


def changes(plan: CityPlan, ledger: Ledger) -> Changes:
    """Hold a planned refresh against the last finished version of its product."""
    last = _last_finished(plan.version)
    if last is None:
        return Changes(version=None, touched=(), same=0, unknown="there is no finished version")
    before = step_digests(last)
    if before is None:
        reason = f"v{last.number} was made by an earlier mapper and does not note its shards"
        return Changes(version=last.number, touched=(), same=0, unknown=reason)
    steps = CitySteps(_as_frozen(plan))
    plan, looks = steps.plan, _looks(last, ledger)
    cube = [
        Touched(stage="ingest", part=part.name, tile=tile, reasons=reasons)
        for part in steps.cube.values()
        for tile in plan.ingest_tiles
        if tile in part.scenes
        and (reasons := _why_ingest(steps, part, tile, _cube(ledger, before, part, tile), looks))
    ]
    redone = {(each.part, each.tile): each.reasons for each in cube}
    maps = [
        Touched(stage="predict", part=part.name, tile=tile, reasons=reasons)
        for part in steps.maps
        for tile in part.tiles
        if (reasons := _why_predict(steps, part, tile, _map(ledger, before, part, tile), redone))
    ]
    total = sum(len(part.scenes.keys() & plan.ingest_set) for part in steps.cube.values())
    total += sum(len(part.tiles) for part in steps.maps)
    touched = (*cube, *maps)
    return Changes(version=last.number, touched=touched, same=total - len(touched))


def _as_frozen(plan: CityPlan) -> CityPlan:
    """With the items as a run would read them back: a file knows fewer types than an answer."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "items.parquet"
        return replace(plan, items=freeze(path, plan.items.by_source, plan.items.superseded))


def _last_finished(version: Version) -> Version | None:
    for number in range(version.number, 0, -1):
        found = version.numbered(number)
        if (found.state() or {}).get("finished"):
            return found
    return None


def _entry(ledger: Ledger, before: Mapping[str, str], key: str) -> Entry | None:
    digest = before.get(key)
    return None if digest is None else ledger.entry(key, digest)


def _cube(ledger: Ledger, before: Mapping[str, str], part: CubePart, tile: TileKey) -> Entry | None:
    return _entry(ledger, before, f"ingest/{part.name}/{tile}")


def _map(ledger: Ledger, before: Mapping[str, str], part: MapPart, tile: TileKey) -> Entry | None:
    return _entry(ledger, before, predict_key(part, tile))


def _looks(last: Version, ledger: Ledger) -> Looks:
    """What the last version saw of its scenes."""
    token = (last.state() or {}).get("token", "")
    found = {}
    for entry in ledger.starting(f"inspect/{last.key}/{token}/"):
        seen = inspection_from_json(entry.facts["inspection"])
        found[entry.facts["source"], seen.item] = seen
    return found


def _why_ingest(
    steps: CitySteps,
    part: CubePart,
    tile: TileKey,
    entry: Entry | None,
    looks: Looks,
) -> tuple[str, ...]:
    if entry is None:
        return (NEW_TILE,)
    items = part.scenes[tile]
    known = entry.components["scenes"]
    reasons = [f"scene {name} is new" for name in _ids(items) if name not in known]
    reasons += [f"scene {name} is gone" for name in sorted(known.keys() - set(_ids(items)))]
    reasons += [
        f"scene {item['id']} has other metadata"
        for item in items
        if (before := known.get(item["id"]))
        and _digest(item, part, looks.get((part.arrays, item["id"]))) != before
    ]
    if not reasons:
        seen = {item["id"]: looks[part.arrays, item["id"]] for item in items}
        step = steps.ingest(part, tile, {part.arrays: seen})
        ((_, components),) = step.entries.values()
        reasons += _differing(_SECTION, components, entry.components)
    return tuple(reasons)


def _ids(items: Iterable[Item]) -> list[str]:
    return [str(item["id"]) for item in items]


def _digest(item: Item, part: CubePart, look: Inspection | None) -> str | None:
    """Of what decides the pixels of a tile, as the scene was last seen."""
    return None if look is None else digest_of(scene_components(item, part.source, look))


def _why_predict(
    steps: CitySteps,
    part: MapPart,
    tile: TileKey,
    entry: Entry | None,
    redone: Mapping[tuple[str, TileKey], tuple[str, ...]],
) -> tuple[str, ...]:
    if entry is None:
        return (NEW_TILE,)
    reasons = [
        reason if near == tile else f"{reason} (near by)"
        for name, near in steps.needs(part, tile)
        for reason in redone.get((name, near), ())
    ]
    reasons += _differing(_SETTING, steps.predict_setting(tile), entry.components)
    return tuple(dict.fromkeys(reasons))


def _differing(
    named: Mapping[str, str], now: Mapping[str, Any], before: Mapping[str, Any]
) -> list[str]:
    """Sentences of what differs."""
    ours = [text for name, text in named.items() if now.get(name) != before.get(name)]
    return list(dict.fromkeys(ours))
