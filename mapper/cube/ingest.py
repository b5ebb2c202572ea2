"""Items to pixels: one source of one tile, whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mapper.area.grid import TileKey
from mapper.catalog.bands import Item
from mapper.catalog.observation import group_observations
from mapper.cube.clear import scene_mask
from mapper.cube.elevation import elevation_tile
from mapper.cube.failures import ReadFailures, readable
from mapper.cube.imagery import mosaic_tile
from mapper.cube.inspect import Inspection
from mapper.cube.load import Target
from mapper.cube.looks import LookReader, halo_of
from mapper.cube.made import Made
from mapper.cube.masks import Masker
from mapper.cube.optical import optical_tile
from mapper.cube.radar import radar_tile
from mapper.cube.readlog import ReadLog, read_log
from mapper.cube.template import source_templates
from mapper.recipe import (
    ElevationSource,
    ImagerySource,
    LayerSource,
    Sentinel1Source,
    Sentinel2Source,
    Source,
)
from mapper.store.template import ArrayTemplate
from mapper.transport.traffic import Traffic, traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class TileLayers:
    """Arrays of one source over one tile, and what went wrong on the way."""

    arrays: tuple[tuple[ArrayTemplate, np.ndarray], ...]
    failures: tuple[str, ...] = ()
    observations: int = 0
    missing_bands: tuple[str, ...] = field(default=())
    """Bands that no scene of the tile has."""
    reads: Mapping[str, int] = field(default_factory=dict)
    """Requests, bytes and pixels that it took; see `read_counts`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileScenes:
    """What one source of one tile is made from."""

    name: str
    """Of the source in the recipe."""
    key: TileKey
    items: tuple[Item, ...]
    """Every frozen item that touches the tile."""
    inspections: Mapping[str, Inspection]


def ingest_tile(scenes: TileScenes, source: Source, masker: Masker | None = None) -> TileLayers:
    """Composite, observation count and status of one source over one tile.

    Args:
        scenes: which, and where.
        source: how.
        masker: runs the model of a mask by a model.

    Raises: ReadError where more scenes cannot be read than the source's failure budget allows.
    """
    with traffic() as seen, read_log() as log:
        made, failures = _made(scenes, source, masker)
    arrays = tuple(zip(source_templates(scenes.name, source), made.arrays, strict=True))
    return TileLayers(
        arrays=arrays,
        failures=failures.messages,
        observations=made.observations,
        missing_bands=made.missing,
        reads=read_counts(seen, log),
    )


def read_counts(seen: Traffic, log: ReadLog) -> dict[str, int]:
    """What a task read: of the network, and of the files' pixels."""
    return {
        "requests": seen.requests,
        "bytes": seen.received,
        "retries": seen.retries,
        "bytes_twice": seen.twice,
        "pixels_wanted": log.wanted,
        "pixels_decoded": log.decoded,
    }


def _made(scenes: TileScenes, source: Source, masker: Masker | None) -> tuple[Made, ReadFailures]:
    target = Target(grid=scenes.key.grid, pixels=scenes.key.box)
    failures = ReadFailures(source.failure_budget, scenes.items)
    items = readable(scenes.items, scenes.inspections, failures)
    match source:
        case Sentinel2Source():
            made = _optical(scenes, source, target, (items, failures), masker)
        case Sentinel1Source():
            made = radar_tile(source, target, items, failures)
        case ElevationSource():
            made = elevation_tile(source, target, items, failures)
        case ImagerySource():
            made = mosaic_tile(source, target, items, failures, (65535, 65534))
        case LayerSource():
            made = mosaic_tile(source, target, items, failures, (255, 254))
    return made, failures


def _optical(
    scenes: TileScenes,
    source: Sentinel2Source,
    target: Target,
    using: tuple[tuple[Item, ...], ReadFailures],
    masker: Masker | None,
) -> Made:
    items, failures = using
    halo = halo_of(source, target.grid.resolution)
    reader = LookReader(
        source=source,
        target=target,
        inspections=scenes.inspections,
        mask=scene_mask(source, target.grow(halo), masker),
    )
    return optical_tile(source, reader, group_observations(items, target.grid.epsg), failures)
