"""How much memory a plan takes: set by a slab of rows, never by the area."""

import numpy as np

from mapper.errors import ResourceError
from mapper.inference.card import ModelCard
from mapper.inference.coding import Coding
from mapper.inference.composition import Decision
from mapper.inference.outputs import map_arrays
from mapper.inference.plan import InferencePlan

_SLABS = 4
"""Of stored rows: kept, being read, waiting, being cut."""
_BATCHES = 4
"""Of windows: being cut, two waiting, being run; more where several run at once."""
_STRIPS = 3
_INTERMEDIATE = 24
"""Float tensors of a window's input size that a network holds while it runs, per channel, where
no probe has measured it."""


def predict_memory(
    card: ModelCard, plan: InferencePlan, coding: Coding, width: int, whole_rows: int = 0
) -> int:
    """Bytes that predicting an area of so many columns takes.

    Args:
        card: of the model.
        plan: how it is run.
        coding: how its channels are stored.
        width: of the area in pixels.
        whole_rows: rows whose finished map is held at once; 0 where they leave as strips.
    """
    across = width + 2 * plan.size
    stored = sum(len(la.channels) * np.dtype(la.dtype).itemsize for la in coding.layers)
    window = plan.size**2
    slab = _SLABS * (plan.size + 256) * across * (stored + 1)
    parallel = min(plan.threads, 4) if plan.device == "cpu" else 1
    batches = (_BATCHES + parallel) * plan.batch * window * stored
    classes = card.channels_decided
    scores = 0
    if plan.mode == "blend" or plan.augmentation != "none":
        scores = (plan.size + 2 * plan.stride) * across * classes * 4
        scores += (2 + parallel) * plan.batch * window * classes * 4
    running = parallel * plan.batch * window * 4 * (len(card.bands) + classes + _INTERMEDIATE)
    strips = (_STRIPS * plan.stride * width + whole_rows * width) * pixel_bytes(card, plan.decision)
    return slab + batches + scores + running + strips


def pixel_bytes(card: ModelCard, decision: Decision) -> int:
    """Bytes of a finished pixel."""
    return sum(
        np.dtype(a.dtype).itemsize * len(a.bands or (1,)) for a in map_arrays(card, decision)
    )


def check_memory(needed: int, limit: int, what: str) -> None:
    """Refuse a plan that would not fit. Raises: ResourceError with both numbers."""
    if needed > limit:
        raise ResourceError(
            f"{what} would take {needed / 2**30:.2f} GiB, {limit / 2**30:.2f} GiB are there; use "
            "a smaller predict.size or predict.batch, smaller tiles, or fewer workers with more "
            "memory each"
        )
