"""A step of a run: a task, what it will make, and how far a stage of them is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mapper.area.grid import TileKey
from mapper.run.parts import MapPart
from mapper.run.tasks import Task

STAGES = ("inspect", "ingest", "predict", "reduce", "publish")
"""In the order in which a city goes through them."""


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
class Block:
    """Tiles that are predicted together, and what of the cube they still wait for."""

    part: MapPart
    tiles: list[TileKey]
    missing: set[tuple[str, TileKey]]
