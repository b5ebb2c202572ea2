"""The plan: what will be read, computed and written for each city. Reads no pixel."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from mapper.area.aoi import AreaOfInterest
from mapper.area.grid import Grid, PixelBox, TileKey
from mapper.area.window import Window
from mapper.catalog.coverage import ScenePlan, scene_plan
from mapper.catalog.items import ItemTable, freeze, thaw
from mapper.catalog.search import FootprintTest, search_city
from mapper.catalog.source import Catalog, Period, open_catalog
from mapper.cube.looks import halo_of
from mapper.cube.reduce.indices import index_layers, sure_index
from mapper.cube.template import PIXELS_VERSION
from mapper.errors import NothingFoundError, RecipeError, UsageError
from mapper.inference.card import ModelCard
from mapper.inference.coding import Coding
from mapper.inference.plan import InferencePlan
from mapper.product.item import Credits
from mapper.recipe import (
    Composite,
    Recipe,
    Sentinel1Source,
    Sentinel2Source,
    Source,
    digest_of,
    layers_of,
    sure_layers,
)
from mapper.run.corrections import Correction, digest_of_corrections, read_corrections
from mapper.run.layout import Version, fixed_grid, keep_grid, latest_version
from mapper.run.masker import ModelMasker
from mapper.run.publish import PUBLISH_VERSION
from mapper.run.selector import window_selector
from mapper.run.terms import city_terms

DEFAULT_TILE = 2048
FEWEST_VIEWS = 3
"""Clear views of which `mapper plan` calls less few."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What the user asked for, checked and loaded."""

    areas: tuple[AreaOfInterest, ...]
    period: Period
    recipe: Recipe
    card: ModelCard
    inference: InferencePlan
    coding: Coding
    """How the model's channels are stored in the cube."""
    out: Path
    tile_size: int | None = None
    """None takes the city's own, or 2048 at its first run."""
    refresh: bool = False
    trust_model: bool = False
    allow_missing: bool = False
    """Leave out whatever cannot be read, and publish with the holes marked."""

    masks: Mapping[str, ModelMasker] = field(default_factory=dict)
    """Per composite, the model that masks its scenes."""

    def reach(self, composite: Composite) -> int:
        """Pixels beyond a tile that its masks and scores depend on."""
        source = composite.source
        if not isinstance(source, Sentinel2Source):
            return 0
        masker = self.masks.get(composite.name)
        reach = source.mask.reach(self.recipe.resolution) if source.mask else 0
        return halo_of(source, self.recipe.resolution) + (masker.reach if masker else reach)

    def budgeted(self, source: Source) -> Source:
        """A source with the failure budget that this run allows."""
        return source.model_copy(update={"failure_budget": 1.0}) if self.allow_missing else source

    @property
    def product(self) -> str:
        """Recipe and period as a folder name."""
        start, end = self.period.start, self.period.end
        whole_year = (start.month, start.day, end.month, end.day) == (1, 1, 12, 31)
        if whole_year and start.year == end.year:
            return f"{self.recipe.name}-{start.year}"
        return f"{self.recipe.name}-{start:%Y%m%d}-{end:%Y%m%d}"

    def fingerprint(self, area: AreaOfInterest, grid: Grid, corrected: str = "") -> str:
        """Hash of everything that makes a version what it is, scenes apart.

        `corrected` is the hash of the city's corrections.
        """
        return digest_of(
            {
                "recipe": self.recipe.digest,
                "model": self.card.digest,
                "inference": self.inference.digest,
                **({"masks": {n: m.digest for n, m in self.masks.items()}} if self.masks else {}),
                "area": area.digest,
                "period": self.period.interval,
                "grid": [grid.epsg, grid.resolution, grid.tile],
                "versions": [PIXELS_VERSION, PUBLISH_VERSION],
                **({"corrections": corrected} if corrected else {}),
            }
        )


# not slotted: the footprint index is worked out once and kept
@dataclass(frozen=True, kw_only=True)
class CityPlan:
    """One city, up to the first pixel."""

    area: AreaOfInterest
    request: RunRequest
    grid: Grid
    geometry: BaseGeometry
    """The AOI in the grid's CRS."""
    version: Version
    fingerprint: str
    items: ItemTable
    accounts: Mapping[str, str]
    """Per source, what the search found and what its filters removed."""
    frozen: bool
    """True where the items come from a version that was begun before."""
    finished: bool
    """True where there is nothing to do."""
    corrections: tuple[Correction, ...] = ()
    """What people mended by hand."""
    token: str = ""
    """Of the freezing: scenes are looked at once for each, so a refresh looks again."""

    @cached_property
    def predict_tiles(self) -> list[TileKey]:
        """Tiles that hold part of the AOI."""
        return self.grid.tiles_touching(self.geometry)

    @cached_property
    def ingest_tiles(self) -> list[TileKey]:
        """Tiles that windows with a say in the AOI can read."""
        return self.grid.tiles_touching(self.geometry, self.request.inference.context)

    @cached_property
    def ingest_set(self) -> frozenset[TileKey]:
        """The same, to look tiles up."""
        return frozenset(self.ingest_tiles)

    @cached_property
    def selected(self) -> Callable[[Window], bool]:
        """Which windows have a say inside the AOI."""
        return window_selector(self.grid, self.geometry, self.request.inference)

    @cached_property
    def terms(self) -> Credits:
        """Licence and attributions that follow from its scenes and its model."""
        return city_terms(self.request.recipe, self.request.card, self.items)

    @cached_property
    def coverage(self) -> ScenePlan:
        """How often each part of the area will be seen clear, by source and month."""
        dated = {
            c.name: self.items.by_source.get(c.name, ())
            for c in self.request.recipe.composites
            if isinstance(c.source, Sentinel2Source | Sentinel1Source)
        }
        return scene_plan(dated, self.area.geometry, self.request.period, FEWEST_VIEWS)

    @property
    def extent(self) -> PixelBox:
        """The AOI's bounds snapped outward: the extent of the product."""
        return self.grid.box_of(self.geometry.bounds)

    @property
    def missing_sources(self) -> list[str]:
        """Optional sources without a scene."""
        return [
            c.name for c in self.request.recipe.composites if not self.items.by_source.get(c.name)
        ]

    @cached_property
    def scenes_by_tile(self) -> dict[str, Mapping[TileKey, Any]]:
        """Per source, the items that touch each tile."""
        reaches = {c.name: self.request.reach(c) for c in self.request.recipe.composites}
        tests = {r: FootprintTest(self.ingest_tiles, r) for r in {0, *reaches.values()}}
        return {
            name: tests[reaches.get(name, 0)].by_tile(items)
            for name, items in self.items.by_source.items()
        }

    def freeze(self) -> "CityPlan":
        """Write the items and begin the version; from here on it resumes without a search."""
        self.version.sweep()
        if self.frozen:
            return self
        keep_grid(self.version.root, self.area, self.grid)
        self.version.forget()
        table = freeze(self.version.items, self.items.by_source, self.items.superseded)
        token = uuid.uuid4().hex
        facts = {"name": self.area.name, "accounts": self.accounts, "token": token}
        self.version.begin(self.fingerprint, facts)
        return replace(self, items=table, frozen=True, token=token)


def plan_city(
    area: AreaOfInterest,
    request: RunRequest,
    opener: Callable[[str], Catalog] = open_catalog,
) -> CityPlan:
    """Search a city's scenes, or take those that a begun version froze.

    Raises: NothingFoundError, CatalogError, AreaError, UsageError.
    """
    wanted = area.grid(request.recipe.resolution, request.tile_size or DEFAULT_TILE)
    grid = fixed_grid(request.out, area, wanted, request.tile_size is not None)
    geometry = area.on(grid)
    first = Version(root=request.out, slug=area.slug, product=request.product, number=1)
    corrections = read_corrections(first)
    fingerprint = request.fingerprint(area, grid, digest_of_corrections(corrections))
    common: dict[str, Any] = {
        "area": area,
        "request": request,
        "grid": grid,
        "geometry": geometry,
        "fingerprint": fingerprint,
        "corrections": corrections,
    }
    latest = latest_version(request.out, area.slug, request.product)
    state = (latest.state() if latest else None) or {}
    if latest and not request.refresh:
        if state["fingerprint"] != fingerprint:
            raise UsageError(
                f"{latest.path} was made with another recipe, model, window plan, area or "
                "corrections, or by an earlier mapper; --refresh makes the next version, or "
                "choose another --out"
            )
        return CityPlan(
            **common,
            version=latest,
            items=thaw(latest.items),
            accounts=state.get("accounts", {}),
            frozen=True,
            finished=bool(state["finished"]) and latest.published,
            token=state["token"],
        )
    number = 1 if latest is None else latest.number + int(bool(state.get("finished")))
    version = Version(root=request.out, slug=area.slug, product=request.product, number=number)
    tiles = grid.tiles_touching(geometry, request.inference.context)
    found = search_city(request.recipe, tiles, request.period, opener, request.reach)
    _check_seasons(request, {name for name, search in found.items() if search.items})
    return CityPlan(
        **common,
        version=version,
        items=ItemTable(
            by_source={n: r.items for n, r in found.items() if r.items},
            superseded={n: r.superseded for n, r in found.items() if r.superseded},
        ),
        accounts={n: r.account for n, r in found.items()},
        frozen=False,
        finished=False,
    )


def _check_seasons(request: RunRequest, found: set[str]) -> None:
    """A season without a scene is a missing modality, unless the model cannot do without it."""
    for composite in request.recipe.composites:
        if composite.name in found or not composite.suffix:
            continue
        bands = {composite.band(layer) for layer in layers_of(composite.source)}
        needed = sorted(bands & set(request.card.required))
        if needed:
            raise NothingFoundError(
                f"no scene in {composite.season} for source {composite.known_as!r}, and model "
                f"{request.card.name!r} needs {', '.join(needed)}; widen a filter of the source"
            )


def all_finished(request: RunRequest) -> bool:
    """True where every city has a finished version and no search is asked for."""
    if request.refresh:
        return False
    versions = [latest_version(request.out, a.slug, request.product) for a in request.areas]
    return all(v and (v.state() or {}).get("finished") and v.published for v in versions)


def check_bands(recipe: Recipe, card: ModelCard) -> list[str]:
    """Hold a model's bands against a recipe's.

    Returns: bands that the model can use and the recipe does not give.

    Raises: RecipeError where a band that the model needs comes from no source, or only from
        an optional one.
    """
    given, sure = set(), set()
    for composite in recipe.composites:
        source = composite.source
        given |= {composite.band(layer) for layer in [*layers_of(source), *index_layers(source)]}
        if not source.optional:
            sure |= {composite.band(layer) for layer in sure_layers(source)}
            sure |= {composite.band(i) for i in index_layers(source) if sure_index(source, i)}
    for band in card.required:
        if band not in given:
            raise RecipeError(
                f"model {card.name!r} needs band {band}, which no source of recipe "
                f"{recipe.name!r} gives; add it to a source's bands or choose another model"
            )
        if band not in sure:
            raise RecipeError(
                f"model {card.name!r} needs band {band}, which recipe {recipe.name!r} marks as "
                "optional; make source and band required"
            )
    return [band for band in card.bands if band not in given]


def area_wkb(geometry: BaseGeometry) -> bytes:
    """A geometry as bytes for workers."""
    return bytes(shapely.to_wkb(geometry))
