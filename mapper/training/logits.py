"""Raw output of a model over an image held in memory, window by window as a map is made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mapper.area.grid import PixelBox
from mapper.area.window import Window, WindowPlan
from mapper.errors import ModelError
from mapper.inference.card import ModelCard
from mapper.inference.plan import DEFAULT_BATCH
from mapper.inference.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A rectangle of an image, in memory."""

    box: PixelBox
    """Where it lies in the image."""
    values: np.ndarray
    """`(band, y, x)` float32 in physical units, in the order of the card's bands."""
    valid: np.ndarray
    """`(band, y, x)` bool."""


def logits_within(
    card: ModelCard, runtime: Runtime, windows: WindowPlan, piece: Piece, wanted: PixelBox
) -> np.ndarray:
    """What a model yields for a box of an image, `(channel, y, x)` float32.

    Windows lie where they lie in the whole image, counted from its first pixel, and overhang its
    border with pixels that are not valid. In core crop each gives the middle that it owns; blended
    ones count alike, as logits.

    Args:
        card: of the model.
        runtime: that runs it.
        windows: as they lie for the model, see `mapper.inference.plan.window_layout`.
        piece: holds `windows.reach(wanted)` as far as the image goes.
        wanted: pixels of the image.

    Raises: ModelError where the model yields NaN or has another output than its card promises.
    """
    sums = np.zeros((card.channels, *wanted.shape), dtype=np.float32)
    counts = np.zeros(wanted.shape, dtype=np.float32)
    for some in _batches(windows.cover(wanted)):
        # not every runtime gives the same numbers for batches of other sizes
        count = DEFAULT_BATCH if runtime.fixed_batch else len(some)
        shape = (count, len(card.bands), windows.size, windows.size)
        raw = _run(card, runtime, *_cut(shape, piece, some))
        for window, found in zip(some, raw, strict=False):
            mine = window.core.intersect(wanted)
            sums[(slice(None), *mine.slices_in(wanted))] += found[
                (slice(None), *mine.slices_in(window.extent))
            ]
            counts[mine.slices_in(wanted)] += 1
    if windows.mode == "blend":
        sums /= counts
    return sums


def _batches(windows: Sequence[Window]) -> Iterator[Sequence[Window]]:
    for start in range(0, len(windows), DEFAULT_BATCH):
        yield windows[start : start + DEFAULT_BATCH]


def _cut(
    shape: tuple[int, int, int, int], piece: Piece, windows: Sequence[Window]
) -> tuple[np.ndarray, np.ndarray]:
    """Values and validity of a batch, without data behind where there are fewer windows."""
    values, valid = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
    for index, window in enumerate(windows):
        shared = window.extent.intersect(piece.box)
        if shared.empty:
            continue
        to = (index, slice(None), *shared.slices_in(window.extent))
        of = (slice(None), *shared.slices_in(piece.box))
        valid[to] = piece.valid[of]
        values[to] = np.where(piece.valid[of], piece.values[of], np.float32(0))
    return values, valid


def _run(card: ModelCard, runtime: Runtime, values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    raw = runtime.run(card.scale(values, valid), valid.astype(np.float32))
    if not np.isfinite(raw).all():
        raise ModelError(
            f"model {card.name!r} yields NaN or infinity; export it again and check its scaling"
        )
    return raw
