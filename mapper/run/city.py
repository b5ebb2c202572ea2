"""One city's state in the driver: which steps have become possible, and what is done.

Inspect every scene, ingest every tile, predict a block as soon as its own and its neighbours'
tiles are there, reduce a tile whose dates are all mapped, publish last. What the ledger holds is
not done again.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field

from mapper.area.grid import TileKey
from mapper.cube.inspect import Inspection
from mapper.run.estimate import predict_blocks
from mapper.run.facts import missing_modalities, read_failures
from mapper.run.ledger import Entry, Ledger
from mapper.run.manifest import keep_shards
from mapper.run.parts import MapPart
from mapper.run.plan import CityPlan
from mapper.run.step import STAGES, Block, Progress, Step
from mapper.run.steps import CitySteps, part_of_key
from mapper.run.tasks import Outcome, inspection_from_json


@dataclass(slots=True)
class CityJob:
    """The state of one city in the driver."""

    plan: CityPlan
    ledger: Ledger
    ready: dict[str, deque[Step]] = field(
        default_factory=lambda: {stage: deque() for stage in reversed(STAGES)}
    )
    """Steps that can be carried out, by stage; the last stages first: what is ready to be
    finished goes before what is still to be read."""
    progress: dict[str, Progress] = field(
        default_factory=lambda: {stage: Progress() for stage in STAGES}
    )
    failures: list[str] = field(default_factory=list)
    published: bool = False
    unchanged: bool = False
    """A refresh found that nothing changed."""
    _steps: CitySteps = field(init=False)
    _waiting: int = 0
    _inspections: dict[str, dict[str, Inspection]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    _ingested: dict[tuple[str, TileKey], Entry] = field(default_factory=dict)
    _predicted: dict[tuple[str, TileKey], Entry] = field(default_factory=dict)
    _mapped: dict[TileKey, Entry] = field(default_factory=dict)
    _whole: deque[Block] = field(default_factory=deque)
    """Blocks of which all that they read is there, and which are not offered yet."""
    _looked_at: int = 0
    _blocks_by_input: dict[tuple[str, TileKey], list[Block]] = field(
        default_factory=lambda: defaultdict(list)
    )
    _dates_left: dict[TileKey, int] = field(default_factory=dict)
    _to_reduce: deque[TileKey] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._steps = CitySteps(self.plan)

    @property
    def slug(self) -> str:
        """The city."""
        return self.plan.area.slug

    def start(self) -> None:
        """Make the first steps ready."""
        for composite in self.plan.request.recipe.composites:
            for item in self.plan.items.by_source.get(composite.name, ()):
                self._offer(self._steps.inspect(composite.name, composite.source, item))
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
        self.ready[step.stage].append(step)

    def take(self, held: Container[str]) -> Step | None:
        """The next step that is of none of some stages; None where there is none."""
        for stage, steps in self.ready.items():
            if steps and stage not in held:
                return steps.popleft()
        return None

    def _may_serve(self, entry: Entry) -> bool:
        """A tile made without a scene that could not be read serves its own version alone."""
        if entry.facts.get("inspection", {}).get("failure"):
            # look again: it may be readable by now
            return False
        return not entry.facts.get("failures") or entry.facts.get("token") == self.plan.token

    def known(self, step: Step) -> list[Entry] | None:
        """The ledger's entries of a step, where it has all of them; None where it has not."""
        root = self.plan.version.root
        found = [self.ledger.find(key, digest, root) for key, (digest, _) in step.entries.items()]
        good = [e for e in found if e is not None and self._may_serve(e)]
        return good if len(good) == len(found) else None

    def _accept(self, stage: str, entry: Entry) -> None:
        """Remember what a finished step gave."""
        _, rest = entry.key.split("/", 1)
        if stage == "inspect":
            found = inspection_from_json(entry.facts["inspection"])
            self._inspections[entry.facts["source"]][found.item] = found
            self._looked_at += 1
        elif stage == "ingest":
            name, text = rest.split("/", 1)
            tile = TileKey.parse(text)
            self._ingested[name, tile] = entry
            for block in self._blocks_by_input.pop((name, tile), ()):
                block.missing.discard((name, tile))
                if not block.missing:
                    self._whole.append(block)
        elif stage == "predict":
            tile = TileKey.parse(rest)
            self._predicted[part_of_key(entry.key), tile] = entry
            self._dates_left[tile] -= 1
            if not self._dates_left[tile]:
                self._to_reduce.append(tile)
            if not self._steps.reduces:
                self._mapped[tile] = entry
        elif stage == "reduce":
            self._mapped[TileKey.parse(rest)] = entry
        else:
            self.published = True
            keep_shards(self.plan.version, self._shards())
            self.plan.version.finish()

    def _advance(self) -> None:
        """Make ready whatever has become possible."""
        if self._looked_at < sum(map(len, self.plan.items.by_source.values())):
            return
        if not self.progress["ingest"].total:
            self._make_blocks()
            self._offer_ingest()
        self._offer_predict()
        self._offer_reduce()
        # sources that the model does not read are published too
        ingested = len(self._ingested) == self.progress["ingest"].total
        mapped = len(self._mapped) == len(self.plan.predict_tiles)
        if ingested and mapped and not self.progress["publish"].total:
            self._offer_publish()

    def _offer_ingest(self) -> None:
        for tile in self.plan.ingest_tiles:
            for part in self._steps.cube.values():
                if tile in part.scenes:
                    self._offer(self._steps.ingest(part, tile, self._inspections))

    def _make_blocks(self) -> None:
        """Predict tiles in squares of the lattice, each with what it has to wait for."""
        self._dates_left = dict.fromkeys(self.plan.predict_tiles, 0)
        for part in self._steps.maps:
            for tile in part.tiles:
                self._dates_left[tile] += 1
            for tiles in predict_blocks(self.plan, part.tiles):
                self._make_block(part, tiles)
        self._to_reduce.extend(tile for tile, left in self._dates_left.items() if not left)

    def _make_block(self, part: MapPart, tiles: list[TileKey]) -> None:
        missing = {need for tile in tiles for need in self._steps.needs(part, tile)}
        block = Block(part, tiles, missing)
        if not missing:
            self._whole.append(block)
        for each in missing:
            self._blocks_by_input[each].append(block)

    def _offer_predict(self) -> None:
        while self._whole:
            block = self._whole.popleft()
            self._offer(self._steps.predict(block.part, block.tiles, self._ingested))

    def _offer_reduce(self) -> None:
        if not self._steps.reduces:
            return
        if len(self._ingested) < self.progress["ingest"].total:
            # counts of observations are summed too, so a tile waits for those that gave no map
            return
        while self._to_reduce:
            tile = self._to_reduce.popleft()
            self._offer(self._steps.reduce(tile, self._predicted, self._ingested))

    def _offer_publish(self) -> None:
        step = self._steps.publish(self._mapped, self._ingested, self._inspections)
        (digest, _), *_ = step.entries.values()
        if self.plan.version.number > 1 and self._same_as_before(digest):
            self.unchanged = self.published = True
            return
        self._offer(step)

    def _same_as_before(self, digest: str) -> bool:
        before = self.plan.version.numbered(self.plan.version.number - 1)
        found = self.ledger.find(f"publish/{before.key}", digest, self.plan.version.root)
        return found is not None

    def _shards(self) -> Iterator[Entry]:
        """Entries of every shard that the version is a view of."""
        yield from self._ingested.values()
        yield from self._predicted.values()
        if self._steps.reduces:
            yield from self._mapped.values()

    def missing(self) -> list[str]:
        """Modalities that the model could use and this city lacks."""
        return missing_modalities(self.plan, self._ingested)

    def reads(self) -> dict[str, float]:
        """What ingest read in all, and how much was decoded for what was wanted."""
        total: Counter[str] = Counter()
        for entry in self._ingested.values():
            total.update(entry.facts.get("reads", {}))
        wanted, decoded = total["pixels_wanted"], total["pixels_decoded"]
        return {**total, "amplification": round(decoded / wanted, 3) if wanted else 1.0}

    def read_failures(self) -> list[str]:
        """Scenes that were left out because they could not be read."""
        return read_failures(self._inspections, self._ingested)
