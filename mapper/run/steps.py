"""A city's steps: the task of each, and the digest of all that it depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mapper.area.grid import TileKey
from mapper.catalog.bands import Item
from mapper.cube.ingest import TileScenes
from mapper.cube.inspect import Inspection
from mapper.cube.template import PIXELS_VERSION, count_templates, data_templates, source_templates
from mapper.inference.reduce import REDUCE_VERSION
from mapper.product.item import ProductLayer
from mapper.recipe import Source, digest_of
from mapper.run.corrections import Overlay
from mapper.run.facts import product_facts, scene_components, scene_facts
from mapper.run.ledger import Entry
from mapper.run.maps import (
    MAP_STEP,
    CubeInputs,
    LayerShards,
    ModelUse,
    PredictTask,
    ReduceTask,
    map_templates,
    reduced_templates,
)
from mapper.run.parts import CubePart, MapPart, cube_parts, map_parts
from mapper.run.plan import CityPlan, area_wkb
from mapper.run.publish import PUBLISH_VERSION, ArraySet, PublishTask
from mapper.run.step import Step
from mapper.run.tasks import IngestTask, InspectTask, array_directory
from mapper.store.template import ArrayTemplate

Inspections = Mapping[str, Mapping[str, Inspection]]
Ingested = Mapping[tuple[str, TileKey], Entry]
"""Per cube part and tile."""
Predicted = Mapping[tuple[str, TileKey], Entry]
"""Per map part and tile."""

# which scenes there are says all that a source's choice of them could
_CHOICE = {
    "catalog",
    "collections",
    "optional",
    "months",
    "every",
    "failure_budget",
    "license",
    "attribution",
    "terms_url",
    "tiles",
    "scenes_per_tile",
    "max_cloud_cover",
    "platforms",
    "orbit_state",
    "ignore_period",
}


# not slotted: the parts are worked out once and kept
@dataclass(frozen=True)
class CitySteps:
    """Makes the steps of one city."""

    plan: CityPlan

    @cached_property
    def cube(self) -> dict[str, CubePart]:
        """What is ingested, by name."""
        return cube_parts(self.plan)

    @cached_property
    def maps(self) -> tuple[MapPart, ...]:
        """What is predicted."""
        return map_parts(self.plan, self.cube)

    @property
    def root(self) -> Path:
        """The run's folder."""
        return self.plan.version.root

    @property
    def reduces(self) -> bool:
        """True where maps of several dates become one."""
        return self.plan.request.recipe.predict.over != "composite"

    def inspect(self, name: str, source: Source, item: Item) -> Step:
        """Look at a scene once."""
        key = f"inspect/{self.plan.version.key}/{self.plan.token}/{name}/{item['id']}"
        components = {"item": digest_of(item), "version": PIXELS_VERSION[source.kind]}
        task = InspectTask(key=key, name=name, item=item, source=self.plan.request.budgeted(source))
        return self._step("inspect", task, {key: (digest_of(components), components)})

    def ingest(self, part: CubePart, tile: TileKey, inspections: Inspections) -> Step:
        """One tile of one cube part."""
        source, items = part.source, part.scenes[tile]
        seen = {i["id"]: inspections[part.arrays][i["id"]] for i in items}
        components = {
            "scenes": {
                i["id"]: digest_of(scene_components(i, source, seen[i["id"]])) for i in items
            },
            "recipe": digest_of(source.model_dump(mode="json", exclude=_CHOICE)),
            "pixels_version": PIXELS_VERSION[source.kind],
        }
        masker = self.plan.request.masks.get(part.arrays)
        if masker is not None:
            components["mask"] = masker.digest
        digest, key = digest_of(components), f"ingest/{part.name}/{tile}"
        task = IngestTask(
            root=self.root,
            ledger_key=key,
            digest=digest,
            token=self.plan.token,
            scenes=TileScenes(name=part.arrays, key=tile, items=items, inspections=seen),
            source=self.plan.request.budgeted(source),
            masker=masker,
        )
        return self._step("ingest", task, {key: (digest, components)})

    def context(self, tile: TileKey) -> list[TileKey]:
        """Tiles that could have a say in a tile, ingested or not."""
        inference = self.plan.request.inference
        reach = inference.windows.reach(tile.box).intersect(tile.box.grow(inference.context))
        return self.plan.grid.tiles_in(reach.union(tile.box))

    def needs(self, part: MapPart, tile: TileKey) -> list[tuple[str, TileKey]]:
        """Cube parts and tiles that have a say in a tile of a map part."""
        near = [t for t in self.context(tile) if t in self.plan.ingest_set]
        return [(n, t) for n in self.read_by(part) for t in near if t in self.cube[n].scenes]

    def read_by(self, part: MapPart) -> list[str]:
        """Cube parts that the model reads for a map part."""
        return [name for name in part.cube.values() if self.read_arrays(self.cube[name])]

    def read_arrays(self, cube: CubePart) -> dict[str, ArrayTemplate]:
        """Arrays of a cube part that the model reads, by its layers."""
        layers = {layer.name for layer in self.plan.request.coding.layers}
        found = {
            cube.slot + template.name.removeprefix(cube.arrays): template
            for template in data_templates(cube.arrays, cube.source)
        }
        return {slot: template for slot, template in found.items() if slot in layers}

    def predict(self, part: MapPart, block: Sequence[TileKey], ingested: Ingested) -> Step:
        """A block of tiles of a map part."""
        plan, entries, tiles = self.plan, {}, []
        for tile in block:
            components = self._predict_components(part, tile, ingested)
            digest, key = digest_of(components), predict_key(part, tile)
            entries[key] = (digest, components)
            tiles.append((tile, key, digest))
        needed = {need for tile in block for need in self.needs(part, tile)}
        context = {t for tile in block for t in self.context(tile)}
        layers = {}
        for name in self.read_by(part):
            cube = self.cube[name]
            for slot, template in self.read_arrays(cube).items():
                shards = {
                    t: self._array(t, cube.arrays, ingested[name, t], template.name)
                    for n, t in sorted(needed)
                    if n == name
                }
                layers[slot] = LayerShards(template=template, shards=shards)
        task = PredictTask(
            root=self.root,
            tiles=tuple(tiles),
            absent=tuple(sorted(context - plan.ingest_set)),
            inputs=CubeInputs(layers=layers, tile=plan.grid.tile),
            model=ModelUse(
                folder=plan.request.card.folder,
                plan=plan.request.inference,
                coding=plan.request.coding,
                trust=plan.request.trust_model,
            ),
            area=area_wkb(plan.geometry),
        )
        return self._step("predict", task, entries)

    def _predict_components(
        self, part: MapPart, tile: TileKey, ingested: Ingested
    ) -> dict[str, Any]:
        inputs: dict[str, dict[str, str]] = {}
        for name in self.read_by(part):
            inputs |= {slot: {} for slot in self.read_arrays(self.cube[name])}
        for name, near in self.needs(part, tile):
            for slot, template in self.read_arrays(self.cube[name]).items():
                inputs[slot][str(near)] = checksum(ingested[name, near], template.name)
        return {"inputs": inputs, **self.predict_setting(tile)}

    def predict_setting(self, tile: TileKey) -> dict[str, Any]:
        """What a tile's map depends on beside its cube."""
        inference, selected = self.plan.request.inference, self.plan.selected
        windows = [(w.row, w.col) for w in inference.windows.cover(tile.box) if selected(w)]
        absent = [t for t in self.context(tile) if t not in self.plan.ingest_set]
        return {
            "inference": inference.digest,
            "windows": digest_of(windows),
            # what lies beyond the ingested tiles takes labels away
            "absent": [str(t) for t in sorted(absent)],
        }

    def reduce(self, tile: TileKey, predicted: Predicted, ingested: Ingested) -> Step:
        """Maps of several dates to one."""
        request = self.plan.request
        dated = [p.name for p in self.maps if tile in p.tiles]
        counted = [c for c in self.cube.values() if "@" in c.name and tile in c.scenes]
        components = {
            "maps": {n: [o.sha256 for o in predicted[n, tile].outputs] for n in dated},
            "counts": {
                c.name: [checksum(ingested[c.name, tile], f"{c.arrays}_{what}") for what in _COUNTS]
                for c in counted
            },
            "sources": self._apart(),
            "method": request.recipe.predict.reduce,
            "version": REDUCE_VERSION,
        }
        digest, key = digest_of(components), f"reduce/{tile}"
        task = ReduceTask(
            root=self.root,
            tile=tile,
            ledger_key=key,
            digest=digest,
            method=request.recipe.predict.reduce,
            card_folder=request.card.folder,
            inference=request.inference,
            maps=tuple(self._map_arrays(tile, predicted[n, tile]) for n in dated),
            sources=tuple(self._apart()),
            counts=tuple((c.arrays, self._counts(tile, c, ingested)) for c in counted),
        )
        return self._step("reduce", task, {key: (digest, components)})

    def _apart(self) -> list[str]:
        """Sources whose observations are mapped one by one."""
        return sorted({part.arrays for part in self.cube.values() if "@" in part.name})

    def _counts(self, tile: TileKey, part: CubePart, ingested: Ingested) -> tuple[Path, Path]:
        """Count and status of an observation."""
        entry, name = ingested[part.name, tile], part.arrays
        count, status = (self._array(tile, name, entry, f"{name}_{what}") for what in _COUNTS)
        return count, status

    def _map_arrays(self, tile: TileKey, entry: Entry) -> dict[str, Path]:
        return {o.name: self._array(tile, MAP_STEP, entry, o.name) for o in entry.outputs}

    def publish(
        self, mapped: Mapping[TileKey, Entry], ingested: Ingested, inspections: Inspections
    ) -> Step:
        """The city's product."""
        plan = self.plan
        components = {
            "maps": {str(t): [o.sha256 for o in e.outputs] for t, e in mapped.items()},
            "cube": {f"{n}/{t}": [o.sha256 for o in e.outputs] for (n, t), e in ingested.items()},
            # corrections are part of it
            "fingerprint": plan.fingerprint,
            "scenes": digest_of(scene_facts(plan, inspections)),
            "terms": digest_of(asdict(plan.terms)),
            "publish_version": PUBLISH_VERSION,
        }
        key = f"publish/{plan.version.key}"
        task = PublishTask(
            ledger_key=key,
            version=plan.version,
            facts=product_facts(plan, inspections, ingested, self._more_layers()),
            lonlat=area_wkb(plan.area.geometry),
            area=area_wkb(plan.geometry),
            overlay=Overlay.of(plan.corrections, plan.grid),
            cube=self._cube(ingested, mapped),
            maps=self._maps(mapped),
            sources=tuple(dict.fromkeys(c.arrays for c in self.cube.values())),
            whole=()
            if plan.request.allow_missing
            else tuple({c.arrays: None for c in self.cube.values() if not c.source.optional}),
        )
        return self._step("publish", task, {key: (digest_of(components), components)})

    def _cube(self, ingested: Ingested, mapped: Mapping[TileKey, Entry]) -> ArraySet:
        """Arrays of the cube; of observations that are mapped apart, their sums alone."""
        arrays = {}
        for part in self.cube.values():
            if "@" in part.name:
                for template in count_templates(part.arrays):
                    arrays[template] = {
                        t: self._array(t, MAP_STEP, e, template.name) for t, e in mapped.items()
                    }
                continue
            for template in source_templates(part.arrays, part.source):
                arrays[template] = {
                    t: self._array(t, part.arrays, e, template.name)
                    for (n, t), e in ingested.items()
                    if n == part.name
                }
        return ArraySet(arrays=arrays)

    def _maps(self, mapped: Mapping[TileKey, Entry]) -> ArraySet:
        return ArraySet(
            arrays={
                template: {t: self._array(t, MAP_STEP, e, template.name) for t, e in mapped.items()}
                for template in self._templates()
            }
        )

    def _templates(self) -> tuple[ArrayTemplate, ...]:
        """Arrays of the finished map."""
        request = self.plan.request
        if self.reduces:
            return reduced_templates(request.card)
        return map_templates(request.card, request.inference.decision)

    def _more_layers(self) -> tuple[ProductLayer, ...]:
        """What is published beside class and confidence."""
        return tuple(
            ProductLayer(
                name=template.name,
                title=str(template.attributes["long_name"]),
                dtype=template.dtype,
                nodata=template.fill,
                scale=float(template.attributes.get("scale_factor", 1.0)),
                bands=template.bands or (template.name,),
            )
            for template in self._templates()
            if template.name not in ("classes", "confidence")
        )

    def _array(self, tile: TileKey, step: str, entry: Entry, array: str) -> Path:
        return array_directory(self.root, tile, step, entry.digest, array)

    def _step(
        self, stage: str, task: Any, entries: Mapping[str, tuple[str, Mapping[str, Any]]]
    ) -> Step:
        return Step(city=self.plan.area.slug, stage=stage, task=task, entries=entries)


_COUNTS = ("count", "status")


def predict_key(part: MapPart, tile: TileKey) -> str:
    return f"predict@{part.name}/{tile}" if part.name else f"predict/{tile}"


def part_of_key(key: str) -> str:
    """The map part in a ledger key of `predict`."""
    head = key.split("/", 1)[0]
    return head.partition("@")[2]


def checksum(entry: Entry, array: str) -> str:
    """Of one array among a step's outputs."""
    return next(o.sha256 for o in entry.outputs if o.name == array)
