"""Pixels that have no value because a scene could not be read: counted, and refused."""

from collections.abc import Sequence

import numpy as np

from mapper.cube.template import STATUS
from mapper.errors import ReadError

_FAILED = next(value for value, name in STATUS.items() if name == "failed")


class HoleCounter:
    """Counts the holes of each source while the observations of a product are written."""

    def __init__(self, sources: Sequence[str]) -> None:
        """`sources` in the order of the bands of `observations.tif`."""
        self._sources = tuple(sources)
        self._found = dict.fromkeys(self._sources, 0)

    @property
    def pixels(self) -> dict[str, int]:
        """Per source with any, how many."""
        return {name: count for name, count in self._found.items() if count}

    def add(self, layers: np.ndarray) -> None:
        """Count a strip: `(band, y, x)`, count and status of each source in turn."""
        for name, status in zip(self._sources, layers[1::2], strict=True):
            self._found[name] += int((status == _FAILED).sum())

    def check(self, whole: Sequence[str]) -> None:
        """Raise: ReadError where a source that must be whole has a hole."""
        found = {name: count for name, count in self.pixels.items() if name in whole}
        if found:
            told = ", ".join(f"{count} pixels of {name}" for name, count in found.items())
            raise ReadError(
                f"{told} have no value because scenes could not be read; mend the archive and run "
                "with --refresh, or publish with the holes marked by --allow-missing"
            )
