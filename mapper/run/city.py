"""One city's steps, in the order in which they become possible.

Inspect every scene, ingest every tile, predict a block as soon as its own and its neighbours'
tiles are there, publish last. What the ledger holds is not done again.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mapper.area.grid import TileKey
from mapper.catalog.access import unsigned
from mapper.catalog.bands import Item, find_band
from mapper.catalog.observation import moment
from mapper.cube.ingest import TileScenes
from mapper.cube.inspect import Inspection, bands_to_read
from mapper.cube.template import PIXELS_VERSION, source_templates
from mapper.product.item import ProductFacts
from mapper.recipe import Source, digest_of
from mapper.run.ledger import Entry, Ledger, Output
from mapper.run.plan import CityPlan, area_wkb, block_tiles, check_bands
from mapper.run.publish import PUBLISH_VERSION, ArraySet, PublishTask
from mapper.run.steps import (
    MAP_STEP,
    CubeInputs,
    IngestTask,
    InspectTask,
    ModelUse,
    Outcome,
    PredictTask,
    Task,
    array_directory,
    data_template,
    inspection_from_json,
    map_templates,
    window_selector,
)

STAGES = ("inspect", "ingest", "predict", "publish")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A task and the ledger entries that it will make."""

    city: str
    stage: str
    task: Task
    entries: Mapping[str, tuple[str, Mapping[str, Any]]]
    """Per ledger key: digest and its components."""

    @property
    def identity(self) -> tuple[tuple[str, str], ...]:
        """Keys and digests: two steps with the same identity are one."""
        return tuple(sorted((key, digest) for key, (digest, _) in self.entries.items()))


@dataclass(slots=True)
class Progress:
    """How far a stage is."""

    done: int = 0
    skipped: int = 0
    total: int = 0


@dataclass(slots=True)
class CityJob:
    """The state of one city in the driver."""

    plan: CityPlan
    ledger: Ledger
    ready: deque[Step] = field(default_factory=deque)
    progress: dict[str, Progress] = field(
        default_factory=lambda: {stage: Progress() for stage in STAGES}
    )
    failures: list[str] = field(default_factory=list)
    published: bool = False
    unchanged: bool = False
    """A refresh found that nothing changed."""
    _waiting: int = 0
    _inspections: dict[str, dict[str, Inspection]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    _ingested: dict[tuple[str, TileKey], Entry] = field(default_factory=dict)
    _predicted: dict[TileKey, Entry] = field(default_factory=dict)
    _blocks: list[list[TileKey]] = field(default_factory=list)

    @property
    def slug(self) -> str:
        """The city."""
        return self.plan.area.slug

    @property
    def root(self) -> Path:
        """The run's folder."""
        return self.plan.version.root

    @property
    def sources(self) -> dict[str, Source]:
        """Sources that have scenes."""
        recipe = self.plan.request.recipe
        return {n: s for n, s in recipe.sources.items() if self.plan.items.by_source.get(n)}

    def start(self) -> None:
        """Make the first steps ready."""
        for name, source in self.sources.items():
            for item in self.plan.items.by_source[name]:
                self._offer(self._inspect_step(name, source, item))
        self._advance()

    def finish(self, step: Step, outcome: Outcome) -> list[Entry]:
        """Take a step's outcome; returns the entries to commit before `committed` is called."""
        return [
            Entry(
                key=key,
                digest=digest,
                outputs=outcome.outputs[key],
                components=components,
                facts=outcome.facts,
                seconds=round(outcome.seconds, 3),
            )
            for key, (digest, components) in step.entries.items()
        ]

    def committed(self, step: Step, entries: Iterable[Entry]) -> None:
        """The entries are in the ledger: go on from there."""
        self._waiting -= 1
        self.progress[step.stage].done += 1
        for entry in entries:
            self._accept(step.stage, entry)
        self._advance()

    def failed(self, step: Step, reason: str) -> None:
        """A step failed for good; what does not depend on it goes on."""
        self._waiting -= 1
        self.failures.append(f"{step.stage} {next(iter(step.entries))}: {reason}")

    @property
    def over(self) -> bool:
        """True where nothing is running, ready or to come."""
        return self._waiting == 0

    def _offer(self, step: Step) -> None:
        """Take what the ledger has of a step, and make the rest ready."""
        progress = self.progress[step.stage]
        progress.total += 1
        known = {
            key: self.ledger.find(key, digest, self.root)
            for key, (digest, _) in step.entries.items()
        }
        found = [entry for entry in known.values() if entry is not None]
        if len(found) == len(known):
            progress.skipped += 1
            for entry in found:
                self._accept(step.stage, entry)
            return
        self._waiting += 1
        self.ready.append(step)

    def _accept(self, stage: str, entry: Entry) -> None:
        """Remember what a finished step gave."""
        _, rest = entry.key.split("/", 1)
        if stage == "inspect":
            found = inspection_from_json(entry.facts["inspection"])
            self._inspections[entry.facts["source"]][found.item] = found
        elif stage == "ingest":
            name, tile = rest.split("/", 1)
            self._ingested[name, TileKey.parse(tile)] = entry
        elif stage == "predict":
            self._predicted[TileKey.parse(rest)] = entry
        else:
            self.published = True

    def _advance(self) -> None:
        """Make ready whatever has become possible."""
        count = sum(map(len, self._inspections.values()))
        if count < sum(map(len, self.plan.items.by_source.values())):
            return
        if not self.progress["ingest"].total:
            self._offer_ingest()
            self._blocks = self._make_blocks()
        self._offer_predict()
        if not self.progress["publish"].total and len(self._predicted) == len(
            self.plan.predict_tiles
        ):
            self._offer_publish()

    # inspect ------------------------------------------------------------------------------

    def _inspect_step(self, name: str, source: Source, item: Item) -> Step:
        key = f"inspect/{self.plan.version.key}/{name}/{item['id']}"
        components = {"item": digest_of(item), "version": PIXELS_VERSION[source.kind]}
        return Step(
            city=self.slug,
            stage="inspect",
            task=InspectTask(key=key, name=name, item=item, source=source),
            entries={key: (digest_of(components), components)},
        )

    # ingest -------------------------------------------------------------------------------

    def _offer_ingest(self) -> None:
        for tile in self.plan.ingest_tiles:
            for name, source in self.sources.items():
                self._offer(self._ingest_step(tile, name, source))

    def _ingest_step(self, tile: TileKey, name: str, source: Source) -> Step:
        items = self.plan.scenes_by_tile[name][tile]
        inspections = {i["id"]: self._inspections[name][i["id"]] for i in items}
        section = source.model_dump(mode="json", exclude={"catalog", "collections", "optional"})
        components = {
            "scenes": {i["id"]: _scene_facts(i, source, inspections[i["id"]]) for i in items},
            "recipe": digest_of(section),
            "pixels_version": PIXELS_VERSION[source.kind],
        }
        digest = digest_of(components)
        key = f"ingest/{name}/{tile}"
        task = IngestTask(
            root=self.root,
            ledger_key=key,
            digest=digest,
            scenes=TileScenes(name=name, key=tile, items=items, inspections=inspections),
            source=source,
        )
        return Step(city=self.slug, stage="ingest", task=task, entries={key: (digest, components)})

    # predict ------------------------------------------------------------------------------

    def _make_blocks(self) -> list[list[TileKey]]:
        """Predict tiles in squares of the lattice."""
        side = block_tiles(self.plan.request.inference, self.plan.grid.tile)
        blocks: dict[tuple[int, int], list[TileKey]] = defaultdict(list)
        for tile in self.plan.predict_tiles:
            blocks[tile.row // side, tile.col // side].append(tile)
        return list(blocks.values())

    def _needs(self, tile: TileKey) -> list[TileKey]:
        """Ingested tiles that have a say in a tile."""
        known = set(self.plan.ingest_tiles)
        return [t for t in self._context(tile) if t in known]

    def _context(self, tile: TileKey) -> list[TileKey]:
        """Tiles that could have a say in a tile, ingested or not."""
        inference = self.plan.request.inference
        reach = inference.windows.reach(tile.box).intersect(tile.box.grow(inference.context))
        return self.plan.grid.tiles_in(reach.union(tile.box))

    def _model_sources(self) -> list[str]:
        """Sources with scenes that the model reads."""
        wanted = {band.split(":")[0] for band in self.plan.request.card.bands}
        return [name for name in self.sources if name in wanted]

    def _offer_predict(self) -> None:
        sources, later = self._model_sources(), []
        for block in self._blocks:
            needed = {t for tile in block for t in self._needs(tile)}
            if all((name, t) in self._ingested for t in needed for name in sources):
                self._offer(self._predict_step(block, sources, sorted(needed)))
            else:
                later.append(block)
        self._blocks = later

    def _predict_step(
        self, block: list[TileKey], sources: list[str], needed: list[TileKey]
    ) -> Step:
        plan = self.plan
        entries, tiles = {}, []
        for tile in block:
            components = self._predict_components(tile, sources)
            digest, key = digest_of(components), f"predict/{tile}"
            entries[key] = (digest, components)
            tiles.append((tile, key, digest))
        shards = {
            name: {
                t: array_directory(self.root, t, name, self._ingested[name, t].digest, name)
                for t in needed
            }
            for name in sources
        }
        context = {t for tile in block for t in self._context(tile)}
        task = PredictTask(
            root=self.root,
            tiles=tuple(tiles),
            absent=tuple(sorted(context - set(plan.ingest_tiles))),
            inputs=CubeInputs(
                templates={n: data_template(n, self.sources[n]) for n in sources},
                shards=shards,
                tile=plan.grid.tile,
            ),
            model=ModelUse(
                folder=plan.request.card.artifact.parent,
                plan=plan.request.inference,
                trust=plan.request.trust_model,
            ),
            area=area_wkb(plan.geometry),
        )
        return Step(city=self.slug, stage="predict", task=task, entries=entries)

    def _predict_components(self, tile: TileKey, sources: list[str]) -> dict[str, Any]:
        inference = self.plan.request.inference
        selected = window_selector(self.plan.grid, self.plan.geometry, inference)
        windows = [(w.row, w.col) for w in inference.windows.cover(tile.box) if selected(w)]
        return {
            "inputs": {
                name: {str(t): _checksum(self._ingested[name, t], name) for t in self._needs(tile)}
                for name in sources
            },
            "inference": inference.digest,
            "windows": digest_of(windows),
        }

    # publish ------------------------------------------------------------------------------

    def _offer_publish(self) -> None:
        components = self._publish_components()
        digest = digest_of(components)
        if self.plan.version.number > 1 and self._same_as_before(digest):
            self.unchanged = self.published = True
            return
        key = f"publish/{self.plan.version.key}"
        task = PublishTask(
            ledger_key=key,
            version=self.plan.version,
            facts=self._facts(),
            lonlat=area_wkb(self.plan.area.geometry),
            area=area_wkb(self.plan.geometry),
            cube=self._cube(),
            maps=self._maps(),
            sources=tuple(self.sources),
        )
        self._offer(
            Step(city=self.slug, stage="publish", task=task, entries={key: (digest, components)})
        )

    def _publish_components(self) -> dict[str, Any]:
        return {
            "maps": {str(t): [o.sha256 for o in e.outputs] for t, e in self._predicted.items()},
            "cube": {
                f"{n}/{t}": [o.sha256 for o in e.outputs] for (n, t), e in self._ingested.items()
            },
            "fingerprint": self.plan.fingerprint,
            "scenes": digest_of(self._scenes()),
            "publish_version": PUBLISH_VERSION,
        }

    def _same_as_before(self, digest: str) -> bool:
        before = self.plan.version.numbered(self.plan.version.number - 1)
        return self.ledger.find(f"publish/{before.key}", digest, self.root) is not None

    def _cube(self) -> ArraySet:
        arrays = {}
        for name, source in self.sources.items():
            for template in source_templates(name, source):
                arrays[template] = {
                    t: array_directory(self.root, t, name, e.digest, template.name)
                    for (n, t), e in self._ingested.items()
                    if n == name
                }
        return ArraySet(arrays=arrays)

    def _maps(self) -> ArraySet:
        return ArraySet(
            arrays={
                template: {
                    t: array_directory(self.root, t, MAP_STEP, e.digest, template.name)
                    for t, e in self._predicted.items()
                }
                for template in map_templates(self.plan.request.card.classes)
            }
        )

    def _facts(self) -> ProductFacts:
        plan, request = self.plan, self.plan.request
        return ProductFacts(
            item_id=f"{request.product}-{self.slug}-v{plan.version.number}",
            title=f"{request.recipe.title}: {plan.area.name}",
            city=plan.area.name,
            country=plan.area.country,
            geometry=plan.area.to_geojson(),
            bbox=plan.area.bbox,
            interval=request.period.interval,
            version=plan.version.number,
            grid=plan.grid,
            pixels=plan.extent,
            classes=request.card.classes,
            license=request.recipe.license,
            recipe={
                "name": request.recipe.name,
                "title": request.recipe.title,
                "sha256": request.recipe.digest,
            },
            model={
                "name": request.card.name,
                "license": request.card.license,
                "sha256": request.card.sha256,
                "inference": request.inference.to_dict(),
            },
            scenes=self._scenes(),
            missing=self.missing(),
            warnings=self.read_failures(),
        )

    def _scenes(self) -> dict[str, list[dict[str, Any]]]:
        return {
            name: [_scene(i, self._inspections[name][i["id"]]) for i in items]
            for name, items in self.plan.items.by_source.items()
        }

    def missing(self) -> list[str]:
        """Modalities that the model could use and this city lacks: sources, or single bands."""
        request = self.plan.request
        absent = {b.split(":")[0] for b in check_bands(request.recipe, request.card)}
        absent = {n for n in absent if n not in request.recipe.sources}
        absent |= set(self.plan.missing_sources)
        for name in self.sources:
            lacking = [
                set(e.facts["missing_bands"])
                for (n, _), e in self._ingested.items()
                if n == name and e.facts["observations"]
            ]
            if lacking:
                absent |= {f"{name}:{band}" for band in set.intersection(*lacking)}
        return sorted(absent)

    def read_failures(self) -> list[str]:
        """Scenes that were left out because they could not be read."""
        found = {m for e in self._ingested.values() for m in e.facts["failures"]}
        found |= {i.failure for kept in self._inspections.values() for i in kept.values()}
        return sorted(found - {""})


def _scene_facts(item: Item, source: Source, inspection: Inspection) -> dict[str, Any]:
    """What of a scene decides the pixels of a tile."""
    bands = {}
    for name in bands_to_read(source):
        band = find_band(item, name)
        if band is not None:
            bands[name] = [band.href, band.index, band.scale, band.nodata]
    return {
        "bands": bands,
        "baseline": item["properties"].get("s2:processing_baseline"),
        **inspection.digest_fields,
    }


def _checksum(entry: Entry, array: str) -> str:
    """Of one array among a step's outputs."""
    return next(o.sha256 for o in entry.outputs if o.name == array)


def _scene(item: Item, inspection: Inspection) -> dict[str, Any]:
    """A scene as the product's item lists it."""
    href = next((k["href"] for k in item.get("links", []) if k["rel"] == "self"), "")
    scene = {"id": item["id"], "datetime": moment(item), "href": unsigned(href)}
    verdict = inspection.verdict
    if verdict is not None:
        scene["offset"] = verdict.offset
        scene["offset_basis"] = verdict.basis
        if verdict.contradiction:
            scene["offset_declared"] = verdict.declared
    if inspection.failure:
        scene["failure"] = inspection.failure
    return scene


def output_bytes(outputs: Iterable[Output]) -> int:
    """Size of files together."""
    return sum(o.size for o in outputs)
