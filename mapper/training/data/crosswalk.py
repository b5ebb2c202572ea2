"""Class values of labels to channels of a model, by name."""

from collections.abc import Mapping, Sequence

import numpy as np

from mapper.classes import ClassTable
from mapper.errors import DataError

UNTAUGHT = -1
"""Channel of pixels that teach nothing."""


def channel_lookup(
    labels: ClassTable, wanted: Sequence[str], crosswalk: Mapping[str, str | None]
) -> np.ndarray:
    """int64 of 256 entries: label value to channel, UNTAUGHT where there is none.

    Args:
        labels: classes of the data set.
        wanted: class names in channel order.
        crosswalk: label class to model class where the names differ; None teaches nothing. It may
            serve several data sets, so names that these labels lack are passed over.

    Raises: DataError where a class of the labels has no counterpart.
    """
    lookup = np.full(256, UNTAUGHT, dtype=np.int64)
    for entry in labels.classes:
        name = crosswalk.get(entry.name, entry.name)
        if name is None:
            continue
        if name not in wanted:
            raise DataError(
                f"class {entry.name!r} of the labels is {name!r} in the model, which has "
                f"{', '.join(wanted)}; add it to the crosswalk (null teaches nothing)"
            )
        lookup[entry.value] = wanted.index(name)
    return lookup
