"""What a map is made of: one composite, a map for every season, or one for every observation."""

from collections.abc import Mapping
from dataclasses import dataclass

from mapper.area.grid import TileKey
from mapper.catalog.bands import Item
from mapper.catalog.observation import datatake
from mapper.recipe import Source
from mapper.run.plan import CityPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class CubePart:
    """Scenes of one source that become one set of arrays."""

    name: str
    """In ledger keys, e.g. `sentinel2` or `sentinel2@sentinel-2a:GS2A_20220612T100601`."""
    arrays: str
    """Name of the arrays, e.g. `sentinel2`."""
    slot: str
    """Which of the model's layers it fills."""
    source: Source
    scenes: Mapping[TileKey, tuple[Item, ...]]
    """Items of each tile to ingest; where they are those of one observation, of the tiles that
    it touches."""
    dated: bool
    """True where it is one of several that are mapped apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPart:
    """One map among those that are reduced; the only one of a composite."""

    name: str
    """Empty for the only one."""
    cube: Mapping[str, str]
    """Per layer of the model, the cube part that fills it."""
    tiles: tuple[TileKey, ...]
    """Tiles of the AOI that it maps."""


def cube_parts(plan: CityPlan) -> dict[str, CubePart]:
    """Everything to ingest, by name."""
    found = {}
    over = plan.request.recipe.predict.over
    for composite in plan.request.recipe.composites:
        if not plan.items.by_source.get(composite.name):
            continue
        by_tile = {t: plan.scenes_by_tile[composite.name][t] for t in plan.ingest_tiles}
        apart = over == "scene" and composite.source.kind == "sentinel-2"
        for name, scenes in _looks(composite.name, by_tile) if apart else [("", by_tile)]:
            part = CubePart(
                name=name or composite.name,
                arrays=composite.name,
                slot=composite.slot,
                source=composite.source,
                scenes=scenes,
                dated=apart or (over == "season" and bool(composite.season)),
            )
            found[part.name] = part
    return found


def _looks(
    name: str, by_tile: Mapping[TileKey, tuple[Item, ...]]
) -> list[tuple[str, Mapping[TileKey, tuple[Item, ...]]]]:
    """The observations of a source, each with the tiles that it touches."""
    looks: dict[str, dict[TileKey, list[Item]]] = {}
    for tile, items in by_tile.items():
        for item in items:
            look = looks.setdefault(datatake(item).replace("/", ":"), {})
            look.setdefault(tile, []).append(item)
    return [
        (f"{name}@{key}", {tile: tuple(items) for tile, items in tiles.items()})
        for key, tiles in sorted(looks.items())
    ]


def map_parts(plan: CityPlan, cube: Mapping[str, CubePart]) -> tuple[MapPart, ...]:
    """Everything to predict."""
    always = {part.slot: part.name for part in cube.values() if not part.dated}
    if plan.request.recipe.predict.over == "composite":
        return (MapPart(name="", cube=always, tiles=tuple(plan.predict_tiles)),)
    dates: dict[str, list[CubePart]] = {}
    for part in cube.values():
        if part.dated:
            dates.setdefault(_date(plan, part), []).append(part)
    found = []
    for date, parts in sorted(dates.items()):
        touched = {tile for part in parts for tile, items in part.scenes.items() if items}
        found.append(
            MapPart(
                name=date,
                cube={**always, **{part.slot: part.name for part in parts}},
                tiles=tuple(tile for tile in plan.predict_tiles if tile in touched),
            )
        )
    return tuple(part for part in found if part.tiles)


def _date(plan: CityPlan, part: CubePart) -> str:
    """What the parts of one map share: the datatake, or the season."""
    if "@" in part.name:
        return part.name.split("@", 1)[1]
    return next(c.season for c in plan.request.recipe.composites if c.name == part.name)
