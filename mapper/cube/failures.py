"""What to do about scenes that cannot be read: a budget per tile, and a name for each."""

import threading
from collections.abc import Mapping

from mapper.catalog.bands import Item
from mapper.cube.inspect import Inspection
from mapper.errors import ReadError


class ReadFailures:
    """Scenes of one tile that could not be read; more than the budget allows are an error."""

    def __init__(self, budget: float, items: tuple[Item, ...]) -> None:
        """`budget` is the share of the tile's scenes that may be left out."""
        self._scenes = len(items)
        self._allowed = int(budget * len(items) + 1e-9)
        self._messages: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def any(self) -> bool:
        """True where a scene was left out."""
        return bool(self._messages)

    @property
    def messages(self) -> tuple[str, ...]:
        """Why each was left out, in the order of their names."""
        return tuple(self._messages[name] for name in sorted(self._messages))

    def note(self, name: str, reason: ReadError) -> None:
        """Leave a scene out. Raises: ReadError where that is one more than may be."""
        with self._lock:
            self._messages.setdefault(name, str(reason))
            count = len(self._messages)
        if count <= self._allowed:
            return
        if not self._allowed:
            raise reason
        raise ReadError(
            f"{count} of {self._scenes} scenes of the tile cannot be read and its failure budget "
            f"is {self._allowed}; mend them, or publish without them by --allow-missing. The "
            f"last: {reason}"
        )


def readable(
    items: tuple[Item, ...], inspections: Mapping[str, Inspection], failures: ReadFailures
) -> tuple[Item, ...]:
    """Items without those that failed their inspection, which are noted."""
    good = []
    for item in items:
        failure = inspections[item["id"]].failure
        if failure:
            failures.note(item["id"], ReadError(failure))
        else:
            good.append(item)
    return tuple(good)
