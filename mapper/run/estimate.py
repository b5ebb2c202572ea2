"""What a city will take: scenes, bytes, windows and memory, before any pixel is read."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mapper.area.grid import TileKey
from mapper.cube.inspect import bands_to_read
from mapper.cube.looks import reading_bytes
from mapper.cube.scratch import STRIP_BYTES
from mapper.inference.memory import pixel_bytes, predict_memory
from mapper.recipe import Sentinel1Source, Sentinel2Source, Source, layers_of
from mapper.run.parts import cube_parts, map_parts
from mapper.run.plan import CityPlan
from mapper.store.view import extent_of

_CORE_BLOCK = 2048
"""Pixels: with a core that divides the tile nothing is run twice, and small tasks spread."""
_BLEND_BLOCK = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class CityEstimate:
    """What a city will take."""

    scenes: Mapping[str, int]
    read_bytes: int
    """Uncompressed pixels to read; what travels is less."""
    ingest_tiles: int
    predict_tiles: int
    dates: int
    """Maps to make and reduce to one; 1 for a composite."""
    windows: int
    """To run for each of them, each counted once."""
    recompute: float
    """Pixels that the model computes for each pixel that it decides: windows overlap, and those
    on the border of a block are run for both sides."""
    memory_bytes: int
    """Of the largest task."""
    scratch_bytes: int
    """Temporary disk of the largest task."""
    write_bytes: int
    """Uncompressed shards and products."""
    megapixels: float
    """Of the product."""


_ITEM_BYTES = {"sentinel-2": 2, "sentinel-1": 4, "elevation": 4, "imagery": 1, "layer": 1}
_COARSE_BANDS = {"swir16": 20, "swir22": 20, "scl": 20, "nir08": 20, "coastal": 60, "nir09": 60}


def estimate_city(plan: CityPlan) -> CityEstimate:
    """Scenes, bytes, tiles, windows and memory of a city."""
    request, grid = plan.request, plan.grid
    tiles = plan.ingest_tiles
    pixels = grid.tile**2
    windows = sum(map(plan.selected, request.inference.windows.cover(plan.extent)))
    run = sum(
        sum(map(plan.selected, request.inference.windows.cover(extent_of(block))))
        for block in predict_blocks(plan, plan.predict_tiles)
    )
    height, width = plan.extent.shape
    composites = request.recipe.composites
    layers = sum(len(layers_of(c.source)) * _ITEM_BYTES[c.source.kind] + 3 for c in composites)
    dates = len(map_parts(plan, cube_parts(plan)))
    return CityEstimate(
        scenes={c.name: len(plan.items.by_source.get(c.name, ())) for c in composites},
        dates=dates,
        read_bytes=_bytes_to_read(plan, tiles),
        ingest_tiles=len(tiles),
        predict_tiles=len(plan.predict_tiles),
        windows=windows,
        recompute=run / max(1, windows) * (request.inference.size / request.inference.stride) ** 2,
        memory_bytes=max(_ingest_memory(plan, pixels), _predict_memory(plan)),
        scratch_bytes=_scratch(plan, pixels),
        write_bytes=len(tiles) * pixels * layers
        + dates
        * len(plan.predict_tiles)
        * pixels
        * pixel_bytes(request.card, request.inference.decision)
        + height * width * (2 + 4 * len(composites)),
        megapixels=height * width / 1e6,
    )


def _bytes_to_read(plan: CityPlan, tiles: Sequence[TileKey]) -> int:
    ground = (plan.grid.tile * plan.grid.resolution) ** 2
    total = 0.0
    for composite in plan.request.recipe.composites:
        name, source = composite.name, composite.source
        looks = sum(len(plan.scenes_by_tile.get(name, {}).get(t, ())) for t in tiles)
        for band in bands_to_read(source):
            native: float = _COARSE_BANDS.get(band, 30 if source.kind == "elevation" else 10)
            if source.kind == "imagery":
                native = plan.grid.resolution
            total += looks * ground / native**2 * _ITEM_BYTES[source.kind]
    return int(total)


def _ingest_memory(plan: CityPlan, pixels: int) -> int:
    """Looks that are read at once, a strip of all of them, and the finished layers.

    The number of scenes does not matter: their looks lie on the disk.
    """
    bands = [
        len(c.source.bands.all)
        for c in plan.request.recipe.composites
        if c.source.kind == "sentinel-2"
    ]
    masks = [m.memory(plan.grid.tile) for m in plan.request.masks.values()]
    reading = reading_bytes(pixels, max(bands, default=2)) + max(masks, default=0)
    means = [
        2 * 6 * pixels * len(c.source.bands.all)
        for c in plan.request.recipe.composites
        if isinstance(c.source, Sentinel2Source) and c.source.composite.method == "mean"
    ]
    return reading + 5 * STRIP_BYTES + pixels * 30 + max(means, default=0)


def _scratch(plan: CityPlan, pixels: int) -> int:
    """Temporary disk of the deepest tile: values and flags of every look."""
    return max(
        (
            len(items) * _look_bytes(part.source, pixels)
            for part in cube_parts(plan).values()
            for items in part.scenes.values()
        ),
        default=0,
    )


def _look_bytes(source: Source, pixels: int) -> int:
    """Temporary disk of a look."""
    if isinstance(source, Sentinel1Source) and source.speckle:
        return pixels * (4 * len(source.bands.all) + 1)
    if isinstance(source, Sentinel2Source) and source.composite.method != "mean":
        planes = len(source.bands.all) + (source.composite.method == "best")
        return pixels * (2 * planes + 1)
    return 0


def _predict_memory(plan: CityPlan) -> int:
    """A block of tiles: what its rows of windows need, and the finished map of it."""
    request, side = plan.request, block_tiles(plan) * plan.grid.tile
    return predict_memory(request.card, request.inference, request.coding, side, whole_rows=side)


def predict_blocks(plan: CityPlan, tiles: Sequence[TileKey]) -> list[list[TileKey]]:
    """Tiles in squares of the lattice: what one predict task does."""
    side = block_tiles(plan)
    squares: dict[tuple[int, int], list[TileKey]] = defaultdict(list)
    for tile in tiles:
        squares[tile.row // side, tile.col // side].append(tile)
    return list(squares.values())


def block_tiles(plan: CityPlan) -> int:
    """Side of a predict task in tiles: blended windows on its border are run for both sides."""
    side = _CORE_BLOCK if plan.request.inference.mode == "core" else _BLEND_BLOCK
    return max(1, side // plan.grid.tile)
