"""Arrays to maps: windows of the lattice through a model, exactly and in bounded memory.

A label depends on the ground, the model folder and the inference plan. It never depends on
the tile, the block, the batch, the number of workers or the AOI.

Four stages work at once, each a bounded way ahead of the next: read rows, cut windows, run the
model, and write finished rows.
"""

from collections.abc import Callable, Iterator

import numpy as np

from mapper.area.grid import PixelBox
from mapper.area.window import Window
from mapper.inference.engine import Engine
from mapper.inference.outputs import Strip
from mapper.inference.rows import RollingRows, Source
from mapper.inference.stages import ahead, side_by_side
from mapper.inference.windows import Batch, RowEnd, Slab, WindowRow, batches
from mapper.inference.writers import BlendWriter, CoreWriter

Selector = Callable[[Window], bool]


def everything(window: Window) -> bool:
    """Selects all windows."""
    return True


def predict_rows(
    engine: Engine, source: Source, pixels: PixelBox, selected: Selector = everything
) -> Iterator[Strip]:
    """Finished rows of a lattice box, from north to south, without a gap.

    Args:
        engine: the model and its plan.
        source: gives the cube; each of its rows is read once.
        pixels: the box.
        selected: which windows to run; pixels that any other window has a say in get nodata.

    Raises: ModelError where the model's output is not what its card says, or is not finite.
    """
    read = _extent(_window_rows(engine, pixels, selected))
    if read is None:
        yield Strip.empty(engine.arrays, pixels)
        return
    rows = _window_rows(engine, pixels, selected)
    work = ahead(batches(engine, ahead(_slabs(engine, source, rows, read), 1)), 2)
    done = side_by_side(work, lambda batch: (batch, _run(engine, batch)), engine.program.parallel)
    writer = CoreWriter if engine.plan.mode == "core" else BlendWriter
    yield from ahead(_written(writer(engine, pixels), done), 1)


def predict_box(
    engine: Engine, source: Source, pixels: PixelBox, selected: Selector = everything
) -> Strip:
    """The whole of a box at once; see `predict_rows`."""
    whole = Strip.empty(engine.arrays, pixels)
    for strip in predict_rows(engine, source, pixels, selected):
        place = strip.box.slices_in(pixels)
        for name, values in strip.arrays.items():
            whole.arrays[name][(..., *place)] = values
    return whole


def _window_rows(engine: Engine, pixels: PixelBox, selected: Selector) -> Iterator[WindowRow]:
    """Rows of windows from north to south; an area has too many windows to list them all."""
    windows = engine.plan.windows
    cols = windows.rows_of(pixels.col0, pixels.col1)
    for number in windows.rows_of(pixels.row0, pixels.row1):
        run: list[Window] = []
        left_out: list[Window] = []
        for window in (windows.window(number, col) for col in cols):
            (run if selected(window) else left_out).append(window)
        yield WindowRow(number, tuple(run), tuple(left_out))


def _extent(rows: Iterator[WindowRow]) -> PixelBox | None:
    """All that windows to run read; None where there is no window to run."""
    found: PixelBox | None = None
    for row in rows:
        if row.run:
            # of a row, the outermost windows say it all
            ends = row.run[0].extent.union(row.run[-1].extent)
            found = ends if found is None else found.union(ends)
    return found


def _slabs(
    engine: Engine, source: Source, rows: Iterator[WindowRow], read: PixelBox
) -> Iterator[Slab]:
    """What each row of windows reads. Rows without windows to run are passed on unread."""
    columns, last = (read.col0, read.col1), read.row1
    buffer = RollingRows(source, columns)
    for row in rows:
        if not row.run:
            yield Slab(row)
            continue
        top, bottom = row.run[0].extent.row0, row.run[0].extent.row1
        box = PixelBox(row0=top, col0=columns[0], row1=bottom, col1=columns[1])
        yield Slab.of(engine, row, box, buffer.take(top, bottom, last))


def _run(engine: Engine, batch: Batch) -> list[dict[str, np.ndarray]]:
    """Outputs of each window of a batch."""
    if not batch.count:
        return []
    found = engine.run(batch.stored)
    return [{name: v[i] for name, v in found.items()} for i in range(batch.count)]


def _written(
    writer: CoreWriter | BlendWriter,
    done: Iterator[tuple[Batch, list[dict[str, np.ndarray]]]],
) -> Iterator[Strip]:
    """Windows and ends of rows, in lattice order, to finished strips."""
    try:
        for batch, outputs in done:
            left = iter(outputs)
            for entry in batch.entries:
                if isinstance(entry, RowEnd):
                    yield from writer.end_row(entry)
                else:
                    writer.add(entry, next(left))
    finally:
        done.close()  # type: ignore[attr-defined]
