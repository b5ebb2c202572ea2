"""One city's steps, in the order in which they become possible.

Inspect every scene, ingest every tile, predict a block as soon as its own and its neighbours'
tiles are there, publish last. What the ledger holds is not done again.
"""

from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mapper.area.grid import TileKey
from mapper.catalog.bands import Item
from mapper.cube.ingest import TileScenes
from mapper.cube.inspect import Inspection
from mapper.cube.template import PIXELS_VERSION, source_templates
from mapper.recipe import Source, digest_of
from mapper.run.facts import (
    missing_modalities,
    product_facts,
    read_failures,
    scene_components,
    scene_facts,
)
from mapper.run.ledger import Entry, Ledger
from mapper.run.plan import CityPlan, area_wkb, block_tiles
from mapper.run.publish import PUBLISH_VERSION, ArraySet, PublishTask
from mapper.run.step import STAGES, Block, Progress, Step
from mapper.run.tasks import (
    MAP_STEP,
    CubeInputs,
    IngestTask,
    InspectTask,
    ModelUse,
    Outcome,
    PredictTask,
    array_directory,
    data_template,
    inspection_from_json,
    map_templates,
)


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
    _blocks: list[Block] = field(default_factory=list)
    _blocks_by_input: dict[tuple[str, TileKey], list[Block]] = field(
        default_factory=lambda: defaultdict(list)
    )

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

    def _offer(self, step: Step) -> None:
        """Take what the ledger has of a step, and make the rest ready."""
        progress = self.progress[step.stage]
        progress.total += 1
        found = self.known(step)
        if found is not None:
            progress.skipped += 1
            for entry in found:
                self._accept(step.stage, entry)
            return
        self._waiting += 1
        self.ready.append(step)

    def _may_serve(self, entry: Entry) -> bool:
        """A tile made without a scene that could not be read serves its own version alone."""
        return not entry.facts.get("failures") or entry.facts.get("token") == self.plan.token

    def known(self, step: Step) -> list[Entry] | None:
        """The ledger's entries of a step, where it has all of them; None where it has not."""
        found = [
            self.ledger.find(key, digest, self.root) for key, (digest, _) in step.entries.items()
        ]
        good = [e for e in found if e is not None and self._may_serve(e)]
        return good if len(good) == len(found) else None

    def _accept(self, stage: str, entry: Entry) -> None:
        """Remember what a finished step gave."""
        _, rest = entry.key.split("/", 1)
        if stage == "inspect":
            found = inspection_from_json(entry.facts["inspection"])
            self._inspections[entry.facts["source"]][found.item] = found
        elif stage == "ingest":
            name, tile = rest.split("/", 1)
            self._ingested[name, TileKey.parse(tile)] = entry
            for block in self._blocks_by_input.get((name, TileKey.parse(tile)), ()):
                block.missing.discard((name, TileKey.parse(tile)))
        elif stage == "predict":
            self._predicted[TileKey.parse(rest)] = entry
        else:
            self.published = True
            self.plan.version.finish()

    def _advance(self) -> None:
        """Make ready whatever has become possible."""
        count = sum(map(len, self._inspections.values()))
        if count < sum(map(len, self.plan.items.by_source.values())):
            return
        if not self.progress["ingest"].total:
            self._make_blocks()
            self._offer_ingest()
        self._offer_predict()
        # sources that the model does not read are published too
        ingested = len(self._ingested) == self.progress["ingest"].total
        predicted = len(self._predicted) == len(self.plan.predict_tiles)
        if ingested and predicted and not self.progress["publish"].total:
            self._offer_publish()

    # inspect ------------------------------------------------------------------------------

    def _inspect_step(self, name: str, source: Source, item: Item) -> Step:
        key = f"inspect/{self.plan.version.key}/{self.plan.token}/{name}/{item['id']}"
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
            "scenes": {
                i["id"]: digest_of(scene_components(i, source, inspections[i["id"]])) for i in items
            },
            "recipe": digest_of(section),
            "pixels_version": PIXELS_VERSION[source.kind],
        }
        digest = digest_of(components)
        key = f"ingest/{name}/{tile}"
        task = IngestTask(
            root=self.root,
            ledger_key=key,
            digest=digest,
            token=self.plan.token,
            scenes=TileScenes(name=name, key=tile, items=items, inspections=inspections),
            source=source,
        )
        return Step(city=self.slug, stage="ingest", task=task, entries={key: (digest, components)})

    # predict ------------------------------------------------------------------------------

    def _make_blocks(self) -> None:
        """Predict tiles in squares of the lattice, each with what it has to wait for."""
        side = block_tiles(self.plan.request.inference, self.plan.grid.tile)
        squares: dict[tuple[int, int], list[TileKey]] = defaultdict(list)
        for tile in self.plan.predict_tiles:
            squares[tile.row // side, tile.col // side].append(tile)
        sources = self._model_sources()
        for tiles in squares.values():
            needed = sorted({t for tile in tiles for t in self._needs(tile)})
            missing = {(name, t) for t in needed for name in sources}
            block = Block(tiles, needed, missing)
            self._blocks.append(block)
            for each in missing:
                self._blocks_by_input[each].append(block)

    def _needs(self, tile: TileKey) -> list[TileKey]:
        """Ingested tiles that have a say in a tile."""
        return [t for t in self._context(tile) if t in self.plan.ingest_set]

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
        for block in self._blocks:
            if not block.missing and not block.offered:
                block.offered = True
                self._offer(self._predict_step(block.tiles, block.needed))

    def _predict_step(self, block: list[TileKey], needed: list[TileKey]) -> Step:
        plan, sources = self.plan, self._model_sources()
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
            absent=tuple(sorted(context - plan.ingest_set)),
            inputs=CubeInputs(
                templates={n: data_template(n, self.sources[n]) for n in sources},
                shards=shards,
                tile=plan.grid.tile,
            ),
            model=ModelUse(
                folder=plan.request.card.folder,
                plan=plan.request.inference,
                trust=plan.request.trust_model,
            ),
            area=area_wkb(plan.geometry),
        )
        return Step(city=self.slug, stage="predict", task=task, entries=entries)

    def _predict_components(self, tile: TileKey, sources: list[str]) -> dict[str, Any]:
        inference = self.plan.request.inference
        selected = self.plan.selected
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
            facts=product_facts(self.plan, self._inspections, self._ingested),
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
            "scenes": digest_of(scene_facts(self.plan, self._inspections)),
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

    def missing(self) -> list[str]:
        """Modalities that the model could use and this city lacks."""
        return missing_modalities(self.plan, self._ingested)

    def read_failures(self) -> list[str]:
        """Scenes that were left out because they could not be read."""
        return read_failures(self._inspections, self._ingested)


def _checksum(entry: Entry, array: str) -> str:
    """Of one array among a step's outputs."""
    return next(o.sha256 for o in entry.outputs if o.name == array)
