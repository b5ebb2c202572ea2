"""Class values of labels to channels of a model, by name."""

from collections.abc import Mapping, Sequence

import numpy as np

from mapper.classes import ClassTable
from mapper.errors import DataError

UNTAUGHT = -1
"""Channel of pixels that teach nothing."""


Names = Mapping[str, str | None]
"""Class names to names of other classes; None leaves the class out."""


def channel_lookup(labels: ClassTable, wanted: Sequence[str], crosswalk: Names) -> np.ndarray:
    """int64 of 256 entries: label value to channel, UNTAUGHT where there is none.

    Args:
        labels: classes of the data set.
        wanted: class names in channel order.
        crosswalk: label class to model class where the names differ; None teaches nothing. It may
            serve several data sets, so names that these labels lack are passed over.

    Raises: DataError where a class of the labels has no counterpart.
    """
    places = {name: channel for channel, name in enumerate(wanted)}
    lookup = np.full(256, UNTAUGHT, dtype=np.int64)
    for entry in labels.classes:
        lookup[entry.value] = place_of(entry.name, crosswalk, places, "the labels")
    return lookup


def place_of(name: str, given: Names, places: Mapping[str, int], what: str) -> int:
    """Number of the class that a name corresponds to. Raises: DataError."""
    target = given.get(name, name)
    if target is None:
        return UNTAUGHT
    if target in places:
        return places[target]
    known = ", ".join(places)
    if name in given:
        raise DataError(
            f"the crosswalk makes {name!r} of {what} {target!r}, which is no class here; "
            f"use one of {known}, or null to leave it out"
        )
    raise DataError(
        f"class {name!r} of {what} has no counterpart among {known}; add it to the crosswalk: "
        f"{name}: one of these, or null to leave it out"
    )
