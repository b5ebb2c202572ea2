"""Observations of an optical source over one tile, read side by side and kept in a scratch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mapper.catalog.observation import Observation
from mapper.cube.clear import SceneMask
from mapper.cube.failures import ReadFailures
from mapper.cube.inspect import Inspection
from mapper.cube.load import Target, read_reflectance
from mapper.cube.parallel import read_each
from mapper.cube.reduce.best import distance_score
from mapper.errors import ReadError
from mapper.recipe import FARTHEST, Sentinel2Source

READERS = 8
"""Observations of a tile that are read at once: waiting for a server costs no processor."""
_READING_BYTES = 512 << 20
OBSERVED, CLEAR, SAVED = 1, 2, 4
"""Flags of a pixel of a look: every required band is data; the mask lets it through; the
always-masked rule may use it in spite of the mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One observation over a tile."""

    number: int
    """Place among the tile's observations, in order of time."""
    values: tuple[np.ndarray, ...]
    """`(y, x)` uint16 reflectance x 10000 of each band, required ones first; 0 is nodata."""
    flags: np.ndarray
    """`(y, x)` uint8 of OBSERVED, CLEAR and SAVED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookReader:
    """Reads observations of one source over one tile."""

    source: Sentinel2Source
    target: Target
    inspections: Mapping[str, Inspection]
    mask: SceneMask

    def each(
        self,
        observations: Sequence[Observation],
        take: Callable[[Look], None],
        failures: ReadFailures,
    ) -> None:
        """Read every observation, several at once, and hand over those that have data here.

        `take` is called from the reading threads, in any order. A look of which a band cannot be
        read is noted and left out.

        Raises: ReadError where failures are more than the budget allows.
        """

        def one(numbered: tuple[int, Observation]) -> None:
            number, observation = numbered
            try:
                look = self.read(number, observation)
            except ReadError as reason:
                failures.note(observation.items, reason)
                return
            if look is not None:
                take(look)

        read_each(one, list(enumerate(observations)), self._at_once())

    @property
    def planes(self) -> int:
        """Arrays of a look: its bands, and the nearness to the mask where a score wants it."""
        return len(self.source.bands.all) + bool(self.halo)

    @property
    def halo(self) -> int:
        """Pixels around the tile in which a masked pixel counts against one inside."""
        return halo_of(self.source, self.target.grid.resolution)

    def _at_once(self) -> int:
        height, width = self.target.shape
        return at_once(height * width, len(self.source.bands.all))

    def read(self, number: int, observation: Observation) -> Look | None:
        """One observation; None where it has no data in some required band."""
        how = (self.inspections, self.source.resampling)
        required = self.source.bands.required
        values, observed = [], np.ones(self.target.shape, dtype=bool)
        for band in self.source.bands.all:
            pixels = read_reflectance(observation, band, self.target, how)
            if band in required:
                if pixels is None or not pixels.valid.any():
                    return None
                observed &= pixels.valid
            values.append(
                np.zeros(self.target.shape, np.uint16) if pixels is None else pixels.values
            )
        if not observed.any():
            return None
        halo = self.halo
        clear, never = self.mask(observation, self.inspections)
        if halo:
            nearness = distance_score(clear, halo) * 65535
            values.append(np.rint(_inner(nearness, halo)).astype(np.uint16))
            clear, never = _inner(clear, halo), _inner(never, halo)
        used, saved = observed & clear, observed & ~(clear | never)
        flags = observed * np.uint8(OBSERVED) + used * np.uint8(CLEAR) + saved * np.uint8(SAVED)
        return Look(number=number, values=tuple(values), flags=flags)


def at_once(pixels: int, bands: int) -> int:
    """Looks that are read side by side."""
    return int(np.clip(_READING_BYTES // _look_bytes(pixels, bands), 2, READERS))


def reading_bytes(pixels: int, bands: int) -> int:
    """Memory of the looks that are read at once."""
    return at_once(pixels, bands) * _look_bytes(pixels, bands)


def _look_bytes(pixels: int, bands: int) -> int:
    """A look while it is read: its bands, and what sampling one of them takes."""
    return pixels * (2 * bands + 24)


def halo_of(source: Sentinel2Source, resolution: float) -> int:
    """Pixels around a tile that a best-pixel score looks at."""
    rule = source.composite
    if rule.method != "best" or source.mask is None:
        return 0
    return min(FARTHEST, int(rule.score.distance / resolution))


def _inner(array: np.ndarray, halo: int) -> np.ndarray:
    return array[halo:-halo, halo:-halo]
