"""What workers do: inspect a scene, ingest a tile, predict a block. Idempotent for their keys.

Here cube and inference meet, which do not know each other.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import shapely
from shapely import box

from mapper.area.grid import Grid, PixelBox, TileKey
from mapper.area.window import Window
from mapper.catalog.bands import Item
from mapper.classes import ClassTable
from mapper.cube.ingest import TileScenes, ingest_tile
from mapper.cube.inspect import Inspection, inspect_item
from mapper.cube.template import source_templates
from mapper.errors import ModelError
from mapper.inference.card import ModelCard, load_card
from mapper.inference.plan import InferencePlan
from mapper.inference.predict import (
    CONFIDENCE_NODATA,
    CONFIDENCE_STEPS,
    Engine,
    Labels,
    Reader,
    blank,
    predict_box,
)
from mapper.inference.runtime import load_runtime
from mapper.recipe import Source
from mapper.run.ledger import Output
from mapper.store.shards import Shard, read_box, shard_directory, write_shards
from mapper.store.template import ArrayTemplate
from mapper.store.view import extent_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a step gives back to the driver."""

    outputs: Mapping[str, tuple[Output, ...]] = field(default_factory=dict)
    """Files written, per ledger key."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class Task(Protocol):
    """Something that a worker carries out."""

    def run(self) -> Outcome:
        """Do it; doing it again changes nothing."""
        ...


def outputs_of(shards: list[Shard]) -> tuple[Output, ...]:
    """Shards as ledger outputs."""
    return tuple(Output(path=s.path, size=s.size, sha256=s.sha256, name=s.array) for s in shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectTask:
    """Look at one scene once."""

    key: str
    name: str
    """Of the source in the recipe."""
    item: Item
    source: Source

    def run(self) -> Outcome:
        """See `mapper.cube.inspect.inspect_item`."""
        began = time.perf_counter()
        found = inspect_item(self.item, self.source)
        return Outcome(
            outputs={self.key: ()},
            facts={"source": self.name, "inspection": inspection_to_json(found)},
            seconds=time.perf_counter() - began,
        )


def inspection_to_json(found: Inspection) -> dict[str, Any]:
    """An inspection as the ledger keeps it."""
    verdict = found.verdict
    return {
        "item": found.item,
        "contents": dict(found.contents),
        "failure": found.failure,
        "percentiles": dict(found.percentiles),
        "verdict": None
        if verdict is None
        else {"offset": verdict.offset, "declared": verdict.declared, "basis": verdict.basis},
    }


def inspection_from_json(kept: Mapping[str, Any]) -> Inspection:
    """The inverse of `inspection_to_json`."""
    from mapper.catalog.sentinel2 import OffsetVerdict

    verdict = OffsetVerdict(**kept["verdict"]) if kept["verdict"] else None
    return Inspection(**{**kept, "verdict": verdict})


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestTask:
    """One source of one tile."""

    root: Path
    ledger_key: str
    digest: str
    token: str
    """Of the version that asks: a tile that lacks a scene serves no other."""
    scenes: TileScenes
    source: Source

    def run(self) -> Outcome:
        """Composite, count and status as shards."""
        began = time.perf_counter()
        layers = ingest_tile(self.scenes, self.source)
        shards = write_shards(
            self.root, self.scenes.key, self.scenes.name, self.digest, layers.arrays
        )
        return Outcome(
            outputs={self.ledger_key: outputs_of(shards)},
            facts={
                "observations": layers.observations,
                "missing_bands": list(layers.missing_bands),
                "failures": list(layers.failures),
                "token": self.token,
            },
            seconds=time.perf_counter() - began,
        )


MAP_STEP = "map"


def map_templates(classes: ClassTable) -> tuple[ArrayTemplate, ArrayTemplate]:
    """Class and confidence arrays of a map."""
    return (
        ArrayTemplate(
            name="classes",
            dtype="uint8",
            fill=classes.nodata,
            attributes={
                "long_name": "class",
                "_FillValue": classes.nodata,
                **classes.cf_attributes(),
            },
        ),
        ArrayTemplate(
            name="confidence",
            dtype="uint8",
            fill=CONFIDENCE_NODATA,
            attributes={
                "long_name": "probability of the class",
                "units": "1",
                "scale_factor": 1 / CONFIDENCE_STEPS,
                "add_offset": 0.0,
                "_FillValue": CONFIDENCE_NODATA,
            },
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """A model folder, how it is run, and whether its code may be."""

    folder: Path
    plan: InferencePlan
    trust: bool

    def engine(self) -> Engine:
        """Load the model once per process. Raises: ModelError where the folder changed."""
        card = _card(self.folder, self.plan.model_digest)
        return Engine(card, self.plan, load_runtime(card, self.plan.threads, self.trust))


@lru_cache(maxsize=4)
def _card(folder: Path, digest: str) -> ModelCard:
    card = load_card(str(folder))
    if card.digest != digest:
        raise ModelError(
            f"model folder {folder} changed while the run was going on; put it back or --refresh"
        )
    return card


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeInputs:
    """Where the cube's arrays lie, for the sources that a model reads."""

    templates: Mapping[str, ArrayTemplate]
    """Data array of each source."""
    shards: Mapping[str, Mapping[TileKey, Path]]
    """Per source and tile, the directory of that array."""
    tile: int

    def reader(self, card: ModelCard) -> Reader:
        """Reads the model's bands of any lattice box, in physical units."""

        def read(pixels: PixelBox) -> tuple[np.ndarray, np.ndarray]:
            decoded = {
                name: template.decode(
                    read_box(self.shards.get(name, {}), template, pixels, self.tile)
                )
                for name, template in self.templates.items()
            }
            shape = (len(card.bands), *pixels.shape)
            image, valid = np.zeros(shape, np.float32), np.zeros(shape, bool)
            for channel, reference in enumerate(card.bands):
                name, band = reference.split(":")
                template = self.templates.get(name)
                if template is not None and band in (template.bands or ()):
                    index = (template.bands or ()).index(band)
                    image[channel] = decoded[name][0][index]
                    valid[channel] = decoded[name][1][index]
            return image, valid

        return read


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictTask:
    """A block of whole tiles."""

    root: Path
    tiles: tuple[tuple[TileKey, str, str], ...]
    """Tile, ledger key and digest of each; together they fill a rectangle or part of one."""
    absent: tuple[TileKey, ...]
    """Tiles near by that were not ingested: what they could have a say in gets no class."""
    inputs: CubeInputs
    model: ModelUse
    area: bytes
    """The AOI in the grid's CRS as WKB: windows that do not touch it are not run."""

    def run(self) -> Outcome:
        """Class and confidence shards of every tile of the block."""
        began = time.perf_counter()
        engine = self.model.engine()
        grid = self.tiles[0][0].grid
        selected = window_selector(grid, shapely.from_wkb(self.area), self.model.plan)
        outputs = {}
        for pixels, tiles in self._rectangles():
            labels = predict_box(engine, self.inputs.reader(engine.card), pixels, selected)
            for tile in self.absent:
                beyond = tile.box.grow(self.model.plan.context).intersect(pixels)
                blank(engine, labels, (pixels, beyond))
            for key, ledger_key, digest in tiles:
                outputs[ledger_key] = self._write(engine, key, digest, (pixels, labels))
        return Outcome(outputs=outputs, seconds=time.perf_counter() - began)

    def _rectangles(self) -> list[tuple[PixelBox, list[tuple[TileKey, str, str]]]]:
        """The block whole where its tiles fill a rectangle, else tile by tile."""
        rows = {k.row for k, _, _ in self.tiles}
        cols = {k.col for k, _, _ in self.tiles}
        if len(rows) * len(cols) != len(self.tiles):
            return [(tile[0].box, [tile]) for tile in self.tiles]
        return [(extent_of(key for key, _, _ in self.tiles), list(self.tiles))]

    def _write(
        self, engine: Engine, key: TileKey, digest: str, block: tuple[PixelBox, Labels]
    ) -> tuple[Output, ...]:
        pixels, labels = block
        place = key.box.slices_in(pixels)
        classes, confidence = map_templates(engine.card.classes)
        arrays = [(classes, labels.classes[place]), (confidence, labels.confidence[place])]
        return outputs_of(write_shards(self.root, key, MAP_STEP, digest, arrays))


def window_selector(
    grid: Grid, area: shapely.Geometry, plan: InferencePlan
) -> Callable[[Window], bool]:
    """Which windows have a say inside an AOI (in the grid's CRS)."""
    shapely.prepare(area)

    def selected(window: Window) -> bool:
        mine = window.core if plan.mode == "core" else window.extent
        return bool(shapely.intersects(area, box(*grid.bounds_of(mine))))

    return selected


def array_directory(root: Path, key: TileKey, step: str, digest: str, array: str) -> Path:
    """Where one array of one shard lies."""
    return shard_directory(root, key, step, digest) / array


def data_template(name: str, source: Source) -> ArrayTemplate:
    """The array of a source that holds its pixels."""
    return source_templates(name, source)[0]
