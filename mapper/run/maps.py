"""What workers do to make maps: predict a block of tiles, reduce the dates of a tile.

Here cube and inference meet, which do not know each other.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from mapper.area.grid import PixelBox, TileKey
from mapper.cube.status import merged_status
from mapper.cube.template import count_templates, data_templates
from mapper.errors import ModelError
from mapper.inference.card import ModelCard, load_card
from mapper.inference.coding import Coding, Layer
from mapper.inference.composition import CONFIDENCE_STEPS, Decision
from mapper.inference.engine import Engine, make_engine
from mapper.inference.outputs import STEPS_NODATA, MapArray, Strip, map_arrays
from mapper.inference.plan import InferencePlan
from mapper.inference.predict import predict_box
from mapper.inference.reduce import DatedMap, Method, reduce_maps
from mapper.inference.rows import Source as Pixels
from mapper.inference.runtime import load_runtime, programs_made
from mapper.recipe import Recipe
from mapper.run.ledger import Output
from mapper.run.selector import window_selector
from mapper.run.tasks import Outcome, outputs_of
from mapper.store.shards import read_box, write_shards
from mapper.store.template import ArrayTemplate
from mapper.store.view import extent_of

MAP_STEP = "map"


def map_templates(card: ModelCard, decision: Decision) -> tuple[ArrayTemplate, ...]:
    """The arrays of a map as they are stored."""
    return tuple(_map_template(array, card) for array in map_arrays(card, decision))


def _map_template(array: MapArray, card: ModelCard) -> ArrayTemplate:
    attributes: dict[str, Any] = {"long_name": array.long_name, "_FillValue": array.nodata}
    if array.name == "classes":
        attributes |= card.classes.cf_attributes()
    else:
        attributes |= {"units": "1", "scale_factor": array.scale, "add_offset": 0.0}
    return ArrayTemplate(
        name=array.name,
        dtype=array.dtype,
        fill=array.nodata,
        bands=array.bands,
        attributes=attributes,
    )


def coding_of(card: ModelCard, recipe: Recipe) -> Coding:
    """How the channels of a model are stored in the cube of a recipe."""
    layers: dict[str, Layer] = {}
    for composite in recipe.composites:
        for template in data_templates(composite.name, composite.source):
            slot = composite.slot + template.name.removeprefix(composite.name)
            known = {composite.band(band): band for band in template.bands or ()}
            wanted = [name for name in known if name in card.bands]
            if wanted and slot not in layers:
                layers[slot] = Layer(
                    name=slot,
                    dtype=template.dtype,
                    scale=float(template.attributes.get("scale_factor", 1.0)),
                    nodata=template.fill,
                    channels=tuple(card.bands.index(name) for name in wanted),
                    bands=tuple(known[name] for name in wanted),
                )
    return Coding(layers=tuple(layers.values()), bands=len(card.bands))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUse:
    """A model folder, how it is run, and whether its code may be."""

    folder: Path
    plan: InferencePlan
    coding: Coding
    trust: bool

    def engine(self) -> Engine:
        """Load the model once per process.

        Raises: ModelError where the folder changed, or this process would run something else
            than the plan says.
        """
        plan = self.plan
        card = _card(self.folder, plan.artifact, plan.model_digest)
        runtime = load_runtime(card, plan.threads, self.trust, plan.device)
        engine = make_engine(card, plan, self.coding, runtime)
        if runtime.version != plan.runtime:
            raise ModelError(
                f"this worker would run {runtime.version}, the plan was made for {plan.runtime}; "
                "give workers the same software and device as the driver"
            )
        if engine.program.digest != plan.composition:
            raise ModelError(
                f"this worker composes another graph around model {card.name!r} than the driver "
                "did; give both the same versions of mapper and onnx"
            )
        return engine


@lru_cache(maxsize=4)
def _card(folder: Path, artifact: str, digest: str) -> ModelCard:
    card = load_card(str(folder), artifact)
    if card.digest != digest:
        raise ModelError(
            f"model folder {folder} changed while the run was going on; put it back or --refresh"
        )
    return card


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShards:
    """Where the arrays that fill one layer of a model lie."""

    template: ArrayTemplate
    shards: Mapping[TileKey, Path]
    """Per tile, the directory of the array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CubeInputs:
    """The cube as a model reads it; layers without shards are missing everywhere."""

    layers: Mapping[str, LayerShards]
    tile: int

    def pixels(self, coding: Coding) -> Pixels:
        """Reads the model's layers of any lattice box, as stored."""
        places = {layer.name: self._places(layer) for layer in coding.layers}

        def read(box: PixelBox) -> tuple[np.ndarray, ...]:
            return tuple(self._read(layer, places[layer.name], box) for layer in coding.layers)

        return Pixels(read=read)

    def _places(self, layer: Layer) -> list[int]:
        """Where a layer's channels lie in its array."""
        found = self.layers.get(layer.name)
        if found is None:
            return []
        bands = list(found.template.bands or ())
        return [bands.index(band) for band in layer.bands]

    def _read(self, layer: Layer, places: list[int], box: PixelBox) -> np.ndarray:
        found = self.layers.get(layer.name)
        if found is None:
            return layer.empty(*box.shape)
        stored = read_box(found.shards, found.template, box, self.tile)
        return stored if places == list(range(len(stored))) else stored[places]


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
        before = engine.meter.seconds
        grid = self.tiles[0][0].grid
        selected = window_selector(grid, shapely.from_wkb(self.area), self.model.plan)
        pixels = self.inputs.pixels(engine.coding)
        outputs = {}
        for box_of_tiles, tiles in self._rectangles():
            strip = predict_box(engine, pixels, box_of_tiles, selected)
            for tile in self.absent:
                strip.blank(engine.arrays, tile.box.grow(self.model.plan.context))
            for key, ledger_key, digest in tiles:
                outputs[ledger_key] = self._write(engine, key, digest, strip)
        return Outcome(
            outputs=outputs,
            # models are loaded once per process, which the ledger shows
            facts={"process": os.getpid(), "programs": programs_made()},
            seconds=time.perf_counter() - began,
            measures={
                "pixels": len(self.tiles) * grid.tile**2,
                "model_seconds": (engine.meter.seconds - before) / engine.program.parallel,
            },
        )

    def _rectangles(self) -> list[tuple[PixelBox, list[tuple[TileKey, str, str]]]]:
        """The block whole where its tiles fill a rectangle, else tile by tile."""
        rows = {k.row for k, _, _ in self.tiles}
        cols = {k.col for k, _, _ in self.tiles}
        if len(rows) * len(cols) != len(self.tiles):
            return [(tile[0].box, [tile]) for tile in self.tiles]
        return [(extent_of(key for key, _, _ in self.tiles), list(self.tiles))]

    def _write(self, engine: Engine, key: TileKey, digest: str, strip: Strip) -> tuple[Output, ...]:
        place = key.box.slices_in(strip.box)
        templates = map_templates(engine.card, engine.plan.decision)
        arrays = [(t, strip.arrays[t.name][(..., *place)]) for t in templates]
        return outputs_of(write_shards(self.root, key, MAP_STEP, digest, arrays))


_REDUCED_ROWS = 256
"""Reduced at once: sums of all classes over a whole tile would take gigabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReduceTask:
    """A tile's maps of several dates to one."""

    root: Path
    tile: TileKey
    ledger_key: str
    digest: str
    method: Method
    card_folder: Path
    inference: InferencePlan
    maps: tuple[Mapping[str, Path], ...]
    """Array directories of each date's map, by name."""
    sources: tuple[str, ...]
    """Those whose observations are mapped apart."""
    counts: tuple[tuple[str, tuple[Path, Path]], ...]
    """Per observation its source, and the directories of its count and status."""

    def run(self) -> Outcome:
        """Class, confidence, agreement and count, and what each source had to give."""
        began = time.perf_counter()
        card = _card(self.card_folder, self.inference.artifact, self.inference.model_digest)
        stored = map_templates(card, self.inference.decision)
        side, templates = self.tile.tile, reduced_templates(card)
        values: dict[str, np.ndarray] = {t.name: t.empty(side, side) for t in templates}
        for row in range(0, side if self.maps else 0, _REDUCED_ROWS):
            top = self.tile.box.row0 + row
            rows = replace(self.tile.box, row0=top, row1=min(top + _REDUCED_ROWS, top + side - row))
            dated = (self._dated(paths, stored, rows) for paths in self.maps)
            made = reduce_maps(dated, card.classes, self.method)
            place = slice(row, row + rows.shape[0])
            values["classes"][place] = made.classes
            values["confidence"][place] = made.confidence
            values["agreement"][place] = made.agreement
            values["dates"][place] = made.count
        arrays: list[tuple[ArrayTemplate, np.ndarray]] = [(t, values[t.name]) for t in templates]
        arrays += self._observations()
        shards = write_shards(self.root, self.tile, MAP_STEP, self.digest, arrays)
        return Outcome(
            outputs={self.ledger_key: outputs_of(shards)}, seconds=time.perf_counter() - began
        )

    def _dated(
        self, paths: Mapping[str, Path], templates: tuple[ArrayTemplate, ...], rows: PixelBox
    ) -> DatedMap:
        found = {t.name: self._array(paths[t.name], t, rows) for t in templates}
        return DatedMap(
            classes=found["classes"],
            confidence=found["confidence"],
            probabilities=found.get("probabilities"),
        )

    def _array(self, path: Path, template: ArrayTemplate, rows: PixelBox) -> np.ndarray:
        return read_box({self.tile: path}, template, rows, self.tile.tile)

    def _observations(self) -> list[tuple[ArrayTemplate, np.ndarray]]:
        """Count and status of each source over all of its observations."""
        side, whole = self.tile.tile, self.tile.box
        # a tile that no observation touches was never observed
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {
            name: (np.zeros((side, side), np.uint16), np.full((side, side), 2, np.uint8))
            for name in self.sources
        }
        for name, (count_path, status_path) in self.counts:
            count_template, status_template = count_templates(name)
            count = self._array(count_path, count_template, whole)
            status = self._array(status_path, status_template, whole)
            found[name] = (found[name][0] + count, merged_status(found[name][1], status))
        return [
            pair
            for name, values in found.items()
            for pair in zip(count_templates(name), values, strict=True)
        ]


def reduced_templates(card: ModelCard) -> tuple[ArrayTemplate, ...]:
    """The arrays of a map that was reduced from several dates."""
    classes, confidence, *_ = map_templates(card, Decision())
    step = {"units": "1", "scale_factor": 1 / CONFIDENCE_STEPS, "add_offset": 0.0}
    return (
        classes,
        confidence,
        ArrayTemplate(
            name="agreement",
            dtype="uint8",
            fill=STEPS_NODATA,
            attributes={
                "long_name": "share of the dates whose class this is",
                "_FillValue": STEPS_NODATA,
                **step,
            },
        ),
        ArrayTemplate(
            name="dates",
            dtype="uint16",
            fill=0,
            attributes={"long_name": "number of dates with a class", "units": "1"},
        ),
    )
