"""What to do about scenes that cannot be read: a budget per tile, a name and a ground for each."""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
from rasterio.features import geometry_mask

from mapper.area.grid import WGS84, project
from mapper.catalog.bands import Item
from mapper.catalog.items import geometry_of
from mapper.cube.inspect import Inspection
from mapper.cube.load import Target
from mapper.errors import ReadError


class ReadFailures:
    """Scenes of one tile that could not be read; more than the budget allows are an error."""

    def __init__(self, budget: float, items: tuple[Item, ...]) -> None:
        """`budget` is the share of the tile's scenes that may be left out."""
        self._scenes = len(items)
        self._allowed = int(budget * len(items) + 1e-9)
        self._lost: dict[str, tuple[Item, str]] = {}
        self._lock = threading.Lock()

    @property
    def messages(self) -> tuple[str, ...]:
        """Why scenes were left out, in the order of their names."""
        return tuple(dict.fromkeys(self._lost[name][1] for name in sorted(self._lost)))

    def note(self, items: Sequence[Item], reason: ReadError) -> None:
        """Leave scenes out. Raises: ReadError where those are more than may be."""
        with self._lock:
            for item in items:
                self._lost.setdefault(item["id"], (item, str(reason)))
            count = len(self._lost)
        if count <= self._allowed:
            return
        if not self._allowed:
            raise reason
        raise ReadError(
            f"{count} of {self._scenes} scenes of the tile cannot be read and its failure budget "
            f"is {self._allowed}; mend them and run again, or publish without them by "
            f"--allow-missing. The last: {reason}"
        )

    def over(self, target: Target) -> np.ndarray:
        """`(y, x)` bool: ground of the scenes that were left out, by their footprints."""
        found = np.zeros(target.shape, dtype=bool)
        for item, _ in self._lost.values():
            ground = geometry_of(item)
            if ground is None:
                return np.ones(target.shape, dtype=bool)
            found |= geometry_mask(
                [project(ground, WGS84, target.grid.crs)],
                out_shape=target.shape,
                transform=target.grid.transform_of(target.pixels),
                all_touched=True,
                invert=True,
            )
        return found


def readable(
    items: tuple[Item, ...], inspections: Mapping[str, Inspection], failures: ReadFailures
) -> tuple[Item, ...]:
    """Items without those that failed their inspection, which are noted."""
    good = []
    for item in items:
        failure = inspections[item["id"]].failure
        if failure:
            failures.note((item,), ReadError(failure))
        else:
            good.append(item)
    return tuple(good)
