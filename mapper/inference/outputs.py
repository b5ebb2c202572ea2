"""Which arrays a map consists of, and the strips in which they leave the engine."""

from dataclasses import dataclass

import numpy as np

from mapper.area.grid import PixelBox
from mapper.inference.card import ModelCard
from mapper.inference.composition import CONFIDENCE_STEPS, Decision

STEPS_NODATA = 255
"""Of confidence, entropy and probabilities, which go from 0 to 250."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapArray:
    """One array of a map."""

    name: str
    dtype: str
    nodata: float
    bands: tuple[str, ...] | None = None
    """Names along the band axis; None for an array of (y, x)."""
    long_name: str
    scale: float = 1.0
    """Stored value times this is the value."""

    def empty(self, height: int, width: int) -> np.ndarray:
        """Nothing but nodata."""
        shape = (height, width) if self.bands is None else (len(self.bands), height, width)
        return np.full(shape, self.nodata, dtype=self.dtype)


def map_arrays(card: ModelCard, decision: Decision) -> tuple[MapArray, ...]:
    """The arrays that a model and a plan give."""
    names = tuple(c.name for c in card.classes.classes)
    step = 1 / CONFIDENCE_STEPS
    probabilities = MapArray(
        name="probabilities",
        dtype="uint8",
        nodata=STEPS_NODATA,
        bands=names,
        long_name="probability of each class",
        scale=step,
    )
    if card.head == "labels":
        return (probabilities,)
    if card.head == "values":
        return (
            MapArray(
                name="values",
                dtype="float32",
                nodata=float("nan"),
                bands=names,
                long_name="values",
            ),
        )
    found = [
        MapArray(name="classes", dtype="uint8", nodata=card.classes.nodata, long_name="class"),
        MapArray(
            name="confidence",
            dtype="uint8",
            nodata=STEPS_NODATA,
            long_name="probability of the class",
            scale=step,
        ),
    ]
    if decision.entropy:
        found.append(
            MapArray(
                name="entropy",
                dtype="uint8",
                nodata=STEPS_NODATA,
                long_name="entropy of the probabilities over its largest value",
                scale=step,
            )
        )
    if decision.probabilities:
        found.append(probabilities)
    return tuple(found)


@dataclass(slots=True)
class Strip:
    """Finished rows of a map."""

    box: PixelBox
    arrays: dict[str, np.ndarray]
    """`(y, x)` or `(band, y, x)` by name."""

    @classmethod
    def empty(cls, arrays: tuple[MapArray, ...], box: PixelBox) -> "Strip":
        """Nothing but nodata."""
        return cls(box, {a.name: a.empty(*box.shape) for a in arrays})

    def blank(
        self, arrays: tuple[MapArray, ...], inner: PixelBox, mask: np.ndarray | None = None
    ) -> None:
        """Take the value away in an inner box, everywhere or where the mask `(y, x)` is True."""
        common = inner.intersect(self.box)
        if common.empty:
            return
        place = common.slices_in(self.box)
        chosen = None if mask is None else mask[common.slices_in(inner)]
        for array in arrays:
            part = self.arrays[array.name][(..., *place)]
            if chosen is None:
                part[...] = array.nodata
            else:
                np.copyto(part, np.array(array.nodata, dtype=array.dtype), where=chosen)
