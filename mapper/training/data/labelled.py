"""Labelled images of a data set: where they are and how a piece of one is read.

Labels are arrays of class values of the set's table, 255 where nothing is known or taught.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mapper.classes import ClassTable

IGNORED = 255
"""Label value of pixels that teach nothing and are not scored."""

Subset = Literal["", "train", "validation", "test"]
Box = tuple[int, int, int, int]
"""Row, column, height and width of a piece, all inside the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """A piece of a labelled image."""

    values: np.ndarray
    """`(band, y, x)` as stored, of any number type; times the set's scale it is physical."""
    valid: np.ndarray | None
    """`(band, y, x)` bool, or None where all of it is data."""
    label: np.ndarray | None
    """`(y, x)` uint8 class values, IGNORED where nothing is known; None without a label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """One image with its label, not read yet."""

    name: str
    """Unique within the set, made of the files' names, e.g. `chico_2020_0`."""
    image: Path
    label: Path | None
    shape: tuple[int, int]
    """Height and width in pixels."""
    group: str = ""
    """City, region or mosaic that it belongs to; empty where the layout does not say."""
    subset: Subset = ""
    """Where the data set itself says what is trained on and what is not."""
    place: tuple[float, float] | None = None
    """Easting and northing of its centre in its CRS; None where it is not georeferenced."""
    half: tuple[float, float] = (0.0, 0.0)
    """Half its width and height on the ground, in units of its CRS."""
    crs: str = ""
    """Name of its CRS, where it has one: places of different ones are not compared."""


Reader = Callable[[LabelledImage, Box | None], Pixels]
"""Reads a piece of an image, or all of it. Raises: DataError naming the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSet:
    """A data set as one of the layouts found it. Nothing but headers has been read."""

    layout: str
    root: Path
    bands: tuple[str, ...]
    """What `Pixels.values` holds, as `source:band`."""
    scale: float
    classes: ClassTable
    """Of the labels."""
    images: tuple[LabelledImage, ...]
    """In the order of their names."""
    read: Reader
    license: str = "other"
    facts: dict[str, Any] | None = None
    """What else is known of it, for the card of a model: counts, origin."""
