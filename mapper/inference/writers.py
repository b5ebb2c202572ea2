"""Outputs of windows to finished rows: each window its own core, or weighted sums."""

from collections import deque
from collections.abc import Iterator

import numpy as np

from mapper.area.grid import PixelBox
from mapper.area.window import Window
from mapper.inference.blend import SlabSum
from mapper.inference.engine import FINISH_PIXELS, Engine
from mapper.inference.outputs import Strip
from mapper.inference.windows import RowEnd


class CoreWriter:
    """Core crop: each window decides its core alone."""

    def __init__(self, engine: Engine, pixels: PixelBox) -> None:
        """For a lattice box."""
        self._engine, self._pixels = engine, pixels
        self._strip: Strip | None = None

    def add(self, window: Window, output: dict[str, np.ndarray]) -> None:
        """Put a window's core into the rows at hand."""
        strip = self._current(window.row)
        common = window.core.intersect(strip.box)
        inside = (slice(None), *common.slices_in(window.core))
        if "scores" in output:
            scores = np.ascontiguousarray(output["scores"][inside])
            views = np.full(common.shape, self._engine.views, dtype=np.float32)
            decided = self._engine.finish(scores, views)
        else:
            decided = {name: v[inside] for name, v in output.items()}
        put(self._engine, strip, common, decided)

    def end_row(self, end: RowEnd) -> Iterator[Strip]:
        """The rows at hand are finished."""
        strip = self._current(end.row.number)
        self._strip = None
        if end.usable is not None and end.box is not None:
            strip.blank(self._engine.arrays, end.box, ~end.usable)
        if not strip.box.empty:
            yield strip

    def _current(self, row: int) -> Strip:
        if self._strip is None:
            stride, pixels = self._engine.plan.stride, self._pixels
            rows = PixelBox(
                row0=row * stride, col0=pixels.col0, row1=(row + 1) * stride, col1=pixels.col1
            )
            self._strip = Strip.empty(self._engine.arrays, rows.intersect(pixels))
        return self._strip


class BlendWriter:
    """Every window has a say in all it covers; rows leave when no later window does."""

    def __init__(self, engine: Engine, pixels: PixelBox) -> None:
        """For a lattice box."""
        self._engine, self._pixels = engine, pixels
        plan = engine.plan
        self._reach = plan.windows.reach(pixels)
        shape = (engine.card.channels_decided, plan.size, self._reach.shape[1])
        self._sums = SlabSum(shape, self._reach.row0, self._reach.col0)
        self._left_out: deque[Window] = deque()
        self._usable: deque[tuple[PixelBox, np.ndarray]] = deque()

    def add(self, window: Window, output: dict[str, np.ndarray]) -> None:
        """Add a window's weighted scores; the order of calls is the order of summation."""
        self._sums.add(window.extent.row0, window.extent.col0, output["scores"])

    def end_row(self, end: RowEnd) -> Iterator[Strip]:
        """No later window has a say in the first rows of the slab."""
        plan, pixels, top = self._engine.plan, self._pixels, self._sums.first_row
        done = PixelBox(
            row0=top, col0=self._reach.col0, row1=top + plan.stride, col1=self._reach.col1
        )
        strip = Strip.empty(self._engine.arrays, done.intersect(pixels))
        self._decide(strip, top)
        self._left_out.extend(end.row.left_out)
        if end.box is not None and end.usable is not None:
            self._usable.append((end.box, end.usable))
        if not strip.box.empty:
            self._blank(strip)
            yield strip
        while self._left_out and self._left_out[0].extent.row1 <= done.row1:
            self._left_out.popleft()
        while self._usable and self._usable[0][0].row1 <= done.row1:
            self._usable.popleft()

    def _decide(self, strip: Strip, top: int) -> None:
        """Put the finished rows into a strip, few enough at a time to stay in the cache."""
        engine, box, reach = self._engine, strip.box, self._reach
        cols = engine.norm[np.arange(box.col0, box.col1) % len(engine.norm)]
        most = max(1, FINISH_PIXELS // reach.shape[1])
        for sums in self._sums.take(engine.plan.stride, most):
            rows = PixelBox(row0=top, col0=reach.col0, row1=top + sums.shape[1], col1=reach.col1)
            top, common = rows.row1, rows.intersect(box)
            if common.empty:
                continue
            across = engine.norm[np.arange(common.row0, common.row1) % len(engine.norm)]
            weights = (np.outer(across, cols) * engine.views).astype(np.float32)
            inside = sums[(slice(None), *common.slices_in(rows))]
            put(engine, strip, common, engine.finish(inside, weights))

    def _blank(self, strip: Strip) -> None:
        """Take away what no usable pixel or a window that was left out has a say in."""
        engine = self._engine
        if not engine.always_usable:
            strip.blank(engine.arrays, strip.box, ~self._usable_in(strip.box))
        for window in self._left_out:
            strip.blank(engine.arrays, window.extent)

    def _usable_in(self, box: PixelBox) -> np.ndarray:
        found = np.zeros(box.shape, dtype=bool)
        for place, usable in self._usable:
            common = place.intersect(box)
            if not common.empty:
                found[common.slices_in(box)] |= usable[common.slices_in(place)]
        return found


def put(engine: Engine, strip: Strip, box: PixelBox, decided: dict[str, np.ndarray]) -> None:
    """Put finished values `(band, y, x)` of an inner box into a strip."""
    place = box.slices_in(strip.box)
    for array in engine.arrays:
        values = decided[array.name]
        if array.name == "classes" and engine.values is not None:
            values = engine.values[values]
        strip.arrays[array.name][(..., *place)] = values[0] if array.bands is None else values
