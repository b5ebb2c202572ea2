"""Arrays to classes: windows of the lattice through a model, exactly and in bounded memory.

A label depends on the ground, the model folder and the inference plan. It never depends on
the tile, the block, the batch, the number of workers or the AOI.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from mapper.area.grid import PixelBox
from mapper.area.window import Window
from mapper.errors import ModelError
from mapper.inference.blend import SlabSum, lattice_sum, window_weights
from mapper.inference.card import ModelCard
from mapper.inference.plan import InferencePlan
from mapper.inference.runtime import Runtime, probabilities

CONFIDENCE_STEPS = 250
"""Confidence is stored as uint8: 0 to 250 for probabilities 0 to 1."""
CONFIDENCE_NODATA = 255

Reader = Callable[[PixelBox], tuple[np.ndarray, np.ndarray]]
"""Gives physical values `(band, y, x)` float32 and validity `(band, y, x)` bool of a box."""


@dataclass(frozen=True, slots=True)
class Labels:
    """A map of a box."""

    classes: np.ndarray
    """`(y, x)` uint8, the class table's nodata where there is no class."""
    confidence: np.ndarray
    """`(y, x)` uint8, 0 to 250; 255 where there is no class."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A model, ready to run by a plan."""

    card: ModelCard
    plan: InferencePlan
    runtime: Runtime


def predict_box(
    engine: Engine,
    read: Reader,
    pixels: PixelBox,
    selected: Callable[[Window], bool] = lambda window: True,
) -> Labels:
    """Class and confidence of every pixel of a lattice box.

    Args:
        engine: the model and its plan.
        read: gives the cube; it is asked for one row of windows at a time.
        pixels: the box.
        selected: which windows to run; pixels that any other window has a say in get nodata.

    Raises: ModelError where the model's output is not what its card says, or is not finite.
    """
    rows = groupby(engine.plan.windows.cover(pixels), key=lambda w: w.row)
    groups = [list(group) for _, group in rows]
    method = _core_crop if engine.plan.mode == "core" else _blend
    return method(engine, read, pixels, [_split(group, selected) for group in groups])


@dataclass(frozen=True, slots=True)
class _WindowRow:
    """Windows of one lattice row: those to run, and those left out."""

    run: list[Window]
    left_out: list[Window]


def _split(windows: list[Window], selected: Callable[[Window], bool]) -> _WindowRow:
    chosen = [selected(w) for w in windows]
    return _WindowRow(
        [w for w, yes in zip(windows, chosen, strict=True) if yes],
        [w for w, yes in zip(windows, chosen, strict=True) if not yes],
    )


@dataclass(frozen=True, slots=True)
class _Slab:
    """The cube under one row of windows, scaled."""

    box: PixelBox
    image: np.ndarray
    valid: np.ndarray
    usable: np.ndarray
    """`(y, x)` bool: every required band is data."""

    @classmethod
    def read(cls, engine: Engine, read: Reader, windows: Sequence[Window]) -> "_Slab":
        """Read what the windows of one row need."""
        box = windows[0].extent.union(windows[-1].extent)
        image, valid = read(box)
        required = [engine.card.bands.index(b) for b in engine.card.required]
        usable = np.asarray(valid[required].all(axis=0))
        return cls(box, engine.card.scale(image, valid), valid, usable)

    def usable_in(self, pixels: PixelBox) -> np.ndarray:
        """The usable pixels of a box inside the slab."""
        return self.usable[pixels.slices_in(self.box)]


def _core_crop(engine: Engine, read: Reader, pixels: PixelBox, rows: list[_WindowRow]) -> Labels:
    """Each window decides its core alone."""
    labels = _no_labels(engine, pixels)
    for row in rows:
        if not row.run:
            continue
        slab = _Slab.read(engine, read, row.run)
        windows = [w for w in row.run if slab.usable_in(w.core).any()]
        for window, scores in _outputs(engine, slab, windows):
            common = window.core.intersect(pixels)
            inside = scores[(slice(None), *common.slices_in(window.extent))]
            _write(engine, labels, (pixels, common), (inside.argmax(0), inside.max(0)))
            blank(engine, labels, (pixels, common), ~slab.usable_in(common))
    return labels


def _blend(engine: Engine, read: Reader, pixels: PixelBox, rows: list[_WindowRow]) -> Labels:
    """Every window has a say in all it covers; rows leave as soon as no later window does."""
    labels, plan = _no_labels(engine, pixels), engine.plan
    if plan.weights == "none":
        raise ModelError("a blended plan needs weights; freeze the plan anew")
    weights = window_weights(plan.size, plan.weights)
    square = np.outer(weights, weights).astype(np.float32)
    norm = lattice_sum(weights, plan.stride)
    reach = plan.windows.reach(pixels)
    shape = (len(engine.card.classes.classes), plan.size, reach.shape[1])
    slab_sum = SlabSum(shape, reach.row0, reach.col0)
    usable = np.zeros(pixels.shape, dtype=bool)
    for row in rows:
        if row.run:
            slab = _Slab.read(engine, read, row.run)
            windows = [w for w in row.run if slab.usable_in(w.extent).any()]
            for window, scores in _outputs(engine, slab, windows):
                slab_sum.add(window.extent.row0, window.extent.col0, scores * square)
            seen = slab.box.intersect(pixels)
            usable[seen.slices_in(pixels)] |= slab.usable_in(seen)
        top = slab_sum.first_row
        done = PixelBox(row0=top, col0=reach.col0, row1=top + plan.stride, col1=reach.col1)
        total = slab_sum.take(plan.stride)
        common = done.intersect(pixels)
        if not common.empty:
            inside = total[(slice(None), *common.slices_in(done))]
            share = inside.max(0) / _norm(norm, common)
            _write(engine, labels, (pixels, common), (inside.argmax(0), share))
    blank(engine, labels, (pixels, pixels), ~usable)
    for row in rows:
        for window in row.left_out:
            blank(engine, labels, (pixels, window.extent.intersect(pixels)))
    return labels


def _norm(norm: np.ndarray, pixels: PixelBox) -> np.ndarray:
    """Sum of all weights at each pixel of a box, `(y, x)` float32."""
    rows = norm[np.arange(pixels.row0, pixels.row1) % len(norm)]
    cols = norm[np.arange(pixels.col0, pixels.col1) % len(norm)]
    return np.asarray(np.outer(rows, cols).astype(np.float32))


def _outputs(
    engine: Engine, slab: _Slab, windows: list[Window]
) -> Iterator[tuple[Window, np.ndarray]]:
    """Probabilities `(class, y, x)` of each window, in lattice order."""
    size = engine.plan.batch
    for start in range(0, len(windows), size):
        group = windows[start : start + size]
        places = [(slice(None), *w.extent.slices_in(slab.box)) for w in group]
        image = np.stack([slab.image[p] for p in places])
        valid = np.stack([slab.valid[p] for p in places]).astype(np.float32)
        if engine.runtime.fixed_batch and len(group) < size:
            image, valid = _padded(image, size), _padded(valid, size)
        raw = engine.runtime.run(image, valid)[: len(group)]
        expected = (len(group), len(engine.card.classes.classes), *image.shape[2:])
        if raw.shape != expected:
            raise ModelError(
                f"model {engine.card.name!r} yields {raw.shape} for windows of "
                f"{image.shape[2]} pixels, its card promises {expected}"
            )
        yield from zip(group, probabilities(raw, engine.card), strict=True)


def _padded(batch: np.ndarray, size: int) -> np.ndarray:
    """The batch with zeros appended, so that every run has the same shape."""
    padding = np.zeros((size - len(batch), *batch.shape[1:]), dtype=batch.dtype)
    return np.concatenate([batch, padding])


def _no_labels(engine: Engine, pixels: PixelBox) -> Labels:
    return Labels(
        np.full(pixels.shape, engine.card.classes.nodata, dtype=np.uint8),
        np.full(pixels.shape, CONFIDENCE_NODATA, dtype=np.uint8),
    )


def _write(
    engine: Engine,
    labels: Labels,
    where: tuple[PixelBox, PixelBox],
    what: tuple[np.ndarray, np.ndarray],
) -> None:
    """Put channel numbers and probabilities of an inner box into the map of an outer one."""
    outer, inner = where
    channel, share = what
    place = inner.slices_in(outer)
    values = np.array(engine.card.classes.values, dtype=np.uint8)
    labels.classes[place] = values[channel]
    steps = np.floor(np.clip(share, 0, 1) * np.float32(CONFIDENCE_STEPS) + np.float32(0.5))
    labels.confidence[place] = steps.astype(np.uint8)


def blank(
    engine: Engine,
    labels: Labels,
    where: tuple[PixelBox, PixelBox],
    mask: np.ndarray | None = None,
) -> None:
    """Take the class away in an inner box, everywhere or where the mask is True."""
    outer, inner = where
    if inner.empty:
        return
    place = inner.slices_in(outer)
    chosen = slice(None) if mask is None else mask
    labels.classes[place][chosen] = engine.card.classes.nodata
    labels.confidence[place][chosen] = CONFIDENCE_NODATA
