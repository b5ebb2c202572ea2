"""What workers do: inspect a scene, ingest a tile, predict a block. Idempotent for their keys.

Here cube and inference meet, which do not know each other.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mapper.area.grid import TileKey
from mapper.catalog.bands import Item
from mapper.cube.ingest import TileScenes, ingest_tile
from mapper.cube.inspect import Inspection, inspect_item
from mapper.cube.masks import Masker
from mapper.recipe import Source
from mapper.run.ledger import Output
from mapper.store.shards import Shard, shard_directory, write_shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a step gives back to the driver."""

    outputs: Mapping[str, tuple[Output, ...]] = field(default_factory=dict)
    """Files written, per ledger key."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    measures: Mapping[str, float] = field(default_factory=dict)
    """What is watched while a run goes on: pixels, bytes read, seconds of the model."""


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
    masker: Masker | None = None
    """Runs the model of a source's mask; loads it once per process."""

    def run(self) -> Outcome:
        """Composite, count and status as shards."""
        began = time.perf_counter()
        layers = ingest_tile(self.scenes, self.source, self.masker)
        shards = write_shards(
            self.root, self.scenes.key, self.scenes.name, self.digest, layers.arrays
        )
        return Outcome(
            outputs={self.ledger_key: outputs_of(shards)},
            facts={
                "observations": layers.observations,
                "missing_bands": list(layers.missing_bands),
                "failures": list(layers.failures),
                "reads": dict(layers.reads),
                "token": self.token,
            },
            seconds=time.perf_counter() - began,
            measures={"bytes_read": layers.reads["bytes"]},
        )


def array_directory(root: Path, key: TileKey, step: str, digest: str, array: str) -> Path:
    """Where one array of one shard lies."""
    return shard_directory(root, key, step, digest) / array
