"""A tile of Sentinel-2: looks read once, kept on disk, and made one in row strips."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from mapper.catalog.observation import Observation
from mapper.cube.failures import ReadFailures
from mapper.cube.looks import CLEAR, OBSERVED, SAVED, Look, LookReader
from mapper.cube.made import Made
from mapper.cube.masks import always_masked
from mapper.cube.reducers import MeanReducer, Reduced, StripReducer, empty_layers
from mapper.cube.scratch import Scratch, StackShape
from mapper.cube.status import status_of
from mapper.recipe import Mask, Sentinel2Source


@dataclass(slots=True)
class _Tally:
    """How often each pixel was seen, and how often the mask took it."""

    shape: tuple[int, int]
    bands: int
    seen: np.ndarray = field(init=False)
    masked: np.ndarray = field(init=False)
    found: set[int] = field(default_factory=set)
    """Bands, by number, of which some look has data."""
    looks: int = 0

    def __post_init__(self) -> None:
        self.seen = np.zeros(self.shape, dtype=np.uint16)
        self.masked = np.zeros(self.shape, dtype=np.uint16)

    def add(self, look: Look) -> None:
        """Count a look."""
        observed = (look.flags & OBSERVED) > 0
        self.seen += observed
        self.masked += observed & ((look.flags & CLEAR) == 0)
        self.looks += 1
        for band, values in enumerate(look.values[: self.bands]):
            if band not in self.found and (values[observed] > 0).any():
                self.found.add(band)

    def always(self, rule: Mask | None) -> np.ndarray:
        """`(y, x)` bool: masked so often that the mask must be wrong, bright roofs mostly."""
        if rule is None:
            return np.zeros(self.shape, dtype=bool)
        return always_masked(self.seen, self.masked, rule)


def optical_tile(
    source: Sentinel2Source,
    reader: LookReader,
    observations: Sequence[Observation],
    failures: ReadFailures,
) -> Made:
    """Composite, further layers, count and status of one tile.

    Memory does not grow with the number of looks: they lie in a temporary file, unless the
    reducer streams.
    """
    reduced, tally = _reduced(source, reader, observations, failures)
    missing = tuple(b for i, b in enumerate(source.bands.all) if i not in tally.found)
    status = status_of(tally.seen > 0, reduced.count > 0, failures.over(reader.target))
    status[reduced.kept & (status == 0)] = 5
    return Made(
        arrays=(*reduced.layers, reduced.count, status),
        observations=tally.looks,
        missing=missing if tally.looks else (),
    )


def _reduced(
    source: Sentinel2Source,
    reader: LookReader,
    observations: Sequence[Observation],
    failures: ReadFailures,
) -> tuple[Reduced, _Tally]:
    tally, lock = _Tally(reader.target.shape, len(source.bands.all)), Lock()
    if source.composite.method == "mean":
        mean = MeanReducer(source, reader.target.shape)

        def add(look: Look) -> None:
            with lock:
                tally.add(look)
                mean.add(look)

        reader.each(observations, add, failures)
        return mean.result(tally.always(source.mask)), tally
    height, width = reader.target.shape
    shape = StackShape(looks=len(observations), bands=reader.planes, height=height, width=width)
    with Scratch(shape) as scratch:

        def keep(look: Look) -> None:
            scratch.write(look.number, look.values, look.flags)
            with lock:
                tally.add(look)

        reader.each(observations, keep, failures)
        exact = StripReducer.of(source, observations)
        return _by_strips(exact, scratch, tally.always(source.mask)), tally


def _by_strips(reducer: StripReducer, scratch: Scratch, always: np.ndarray) -> Reduced:
    """All strips of a tile, each from every look at its rows."""
    parts = []
    for rows in scratch.shape.strips():
        flags = scratch.flags(rows)
        clear = (flags & CLEAR) > 0
        saved = ((flags & SAVED) > 0) & always[rows]
        used = clear | saved
        if used.any():
            layers = reducer.strip(scratch.values(rows), used)
        else:
            layers = empty_layers(reducer.source, (rows.stop - rows.start, scratch.shape.width))
        parts.append(
            Reduced(
                layers=layers,
                count=used.sum(axis=0).astype(np.uint16),
                kept=np.asarray(saved.any(axis=0)),
            )
        )
    return Reduced.joined(parts)
