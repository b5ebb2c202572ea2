"""Rows of windows over what was read, and the batches that are cut out of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from mapper.area.grid import PixelBox
from mapper.area.window import Window
from mapper.inference.engine import Engine
from mapper.inference.rows import Stored


@dataclass(frozen=True, slots=True)
class WindowRow:
    """Windows of one lattice row: those to run, and those left out."""

    number: int
    run: tuple[Window, ...]
    left_out: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class Slab:
    """The cube under one row of windows."""

    row: WindowRow
    box: PixelBox | None = None
    stored: Stored = ()
    usable: np.ndarray | None = None
    """`(y, x)` bool: every required band is data; None where that holds everywhere."""

    @classmethod
    def of(cls, engine: Engine, row: WindowRow, box: PixelBox, stored: Stored) -> "Slab":
        """A slab that was read."""
        usable = None
        if not engine.always_usable:
            usable = engine.coding.usable(stored, engine.card.required_channels)
        return cls(row, box, stored, usable)

    def windows(self, core: bool) -> Iterator[Window]:
        """Those of its windows that hold any usable pixel where they have a say."""
        for window in self.row.run:
            mine = window.core if core else window.extent
            if self._holds_data(mine):
                yield window

    def _holds_data(self, mine: PixelBox) -> bool:
        if self.usable is None or self.box is None:
            return True
        return bool(self.usable[mine.slices_in(self.box)].any())


@dataclass(frozen=True, slots=True)
class RowEnd:
    """All windows of a row have been given."""

    row: WindowRow
    box: PixelBox | None
    usable: np.ndarray | None


@dataclass(slots=True)
class Batch:
    """Windows for one run, and the ends of rows among them, in lattice order."""

    stored: Stored = ()
    count: int = 0
    entries: list[Window | RowEnd] = field(default_factory=list)


def batches(engine: Engine, slabs: Iterator[Slab]) -> Iterator[Batch]:
    """Full batches, across rows; the last one is padded where the runtime needs it."""
    batch = Batch()
    for slab in slabs:
        for window in slab.windows(engine.plan.mode == "core"):
            if not batch.count:
                batch.stored = _room(engine)
            _copy(slab, window, batch)
            if batch.count == engine.plan.batch:
                yield batch
                batch = Batch()
        batch.entries.append(RowEnd(slab.row, slab.box, slab.usable))
    if batch.count and not engine.plan.batch_matters:
        batch.stored = tuple(s[: batch.count] for s in batch.stored)
    if batch.entries:
        yield batch


def _room(engine: Engine) -> Stored:
    """Space for the windows of a batch, without data."""
    plan = engine.plan
    return tuple(
        np.broadcast_to(
            layer.empty(1, 1), (plan.batch, len(layer.channels), plan.size, plan.size)
        ).copy()
        if engine.plan.batch_matters
        else np.empty((plan.batch, len(layer.channels), plan.size, plan.size), layer.dtype)
        for layer in engine.coding.layers
    )


def _copy(slab: Slab, window: Window, batch: Batch) -> None:
    if slab.box is None:
        return
    place = window.extent.slices_in(slab.box)
    for room, layer in zip(batch.stored, slab.stored, strict=True):
        room[batch.count] = layer[(slice(None), *place)]
    batch.entries.append(window)
    batch.count += 1
