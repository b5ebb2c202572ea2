"""The reducer that a recipe asks for, over the strips of a tile."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

import numpy as np

from mapper.catalog.bands import cloud_cover
from mapper.catalog.observation import Observation, moment
from mapper.cube.looks import CLEAR, SAVED, Look
from mapper.cube.reduce.best import best, cloud_score, day_score, greenness
from mapper.cube.reduce.dates import date_of_look, nearest_date
from mapper.cube.reduce.geomedian import geomedian
from mapper.cube.reduce.indices import INDICES
from mapper.cube.reduce.mean import ReflectanceMean
from mapper.cube.reduce.median import median, percentiles
from mapper.cube.reduce.medoid import medoid
from mapper.recipe import MADS, Sentinel2Source

Layers = tuple[np.ndarray, ...]
"""Arrays of a strip in the order of the source's templates, up to the count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """What a reducer makes of some rows, or of a tile."""

    layers: Layers
    count: np.ndarray
    """`(y, x)` uint16: looks that were used."""
    kept: np.ndarray
    """`(y, x)` bool: some look was used in spite of its mask."""

    @classmethod
    def joined(cls, parts: Sequence["Reduced"]) -> "Reduced":
        """Strips one below the other."""
        kinds = zip(*(part.layers for part in parts), strict=True)
        return cls(
            layers=tuple(np.concatenate(strips, axis=-2) for strips in kinds),
            count=np.concatenate([part.count for part in parts]),
            kept=np.concatenate([part.kept for part in parts]),
        )


class Exact(Protocol):
    """A reducer that wants every look at a strip at once."""

    def strip(self, stack: np.ndarray, used: np.ndarray) -> Layers:
        """Layers of a strip.

        Args:
            stack: `(look, plane, y, x)` uint16: the source's bands, then what `LookReader` adds.
            used: `(look, y, x)` bool.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StripReducer:
    """The exact reducers: median, percentiles, medoid, geometric median, best pixel."""

    source: Sentinel2Source
    days: np.ndarray
    """`(look,)` days since 1970-01-01."""
    clouds: np.ndarray
    """`(look,)` per cent."""

    @classmethod
    def of(cls, source: Sentinel2Source, observations: Sequence[Observation]) -> "StripReducer":
        """For the observations of a tile, in order of time."""
        return cls(
            source=source,
            days=np.array([_day(o) for o in observations], dtype=np.uint16),
            clouds=np.array([max(map(cloud_cover, o.items)) for o in observations], dtype=float),
        )

    def strip(self, stack: np.ndarray, used: np.ndarray) -> Layers:
        """See `Exact`."""
        bands, required = self.source.bands.all, len(self.source.bands.required)
        rule, values = self.source.composite, stack[:, : len(bands)]
        chosen, mads = None, None
        if rule.method == "medoid":
            _, chosen = medoid(values[:, :required], used)
            data = _picked(values, chosen)
        elif rule.method == "best":
            data, chosen = best(values, used, self._scores(stack))
        elif rule.method == "geomedian":
            data, mads = geomedian(values, used)
        elif rule.method == "percentiles":
            valid = [used & (values[:, b] > 0) for b in range(len(bands))]
            data = np.concatenate(
                [percentiles(values[:, b], v, rule.percentiles) for b, v in enumerate(valid)]
            )
        else:
            data = np.stack(
                [median(values[:, b], used & (values[:, b] > 0)) for b in range(len(bands))]
            )
        more = [*_indices(self.source, data)]
        if rule.mads and mads is not None:
            more.append(mads)
        if rule.dates and chosen is not None:
            more.append(date_of_look(chosen, self.days))
        elif rule.dates:
            near = nearest_date(values[:, :required], used, data[:required], self.days)
            more.append(near)
        return (data, *more)

    def _scores(self, stack: np.ndarray) -> np.ndarray:
        """`(look, y, x)` float32; a plane after the bands holds the distance to the mask."""
        rule, bands = self.source.composite.score, self.source.bands.all
        scene = rule.clouds * cloud_score(self.clouds)
        if rule.day is not None:
            scene = scene + day_score(_day_of_year(self.days), rule.day, rule.spread)
        scores = np.broadcast_to(
            scene.astype(np.float32)[:, None, None], (len(stack), *stack.shape[2:])
        ).copy()
        if stack.shape[1] > len(bands):
            scores += stack[:, len(bands)].astype(np.float32) / np.float32(65535)
        if rule.greenness:
            nir, red = (stack[:, bands.index(name)] for name in ("nir", "red"))
            scores += np.float32(rule.greenness) * greenness({"nir": nir, "red": red})
        return scores


class MeanReducer:
    """The mean, which streams: memory does not grow with the number of looks."""

    def __init__(self, source: Sentinel2Source, shape: tuple[int, int]) -> None:
        """Start with nothing observed."""
        self._source = source
        self._clear = ReflectanceMean((len(source.bands.all), *shape))
        # whether a masked look may be used is known when all have been seen
        self._all = ReflectanceMean((len(source.bands.all), *shape))
        self._counts = np.zeros((2, *shape), dtype=np.uint16)

    def add(self, look: Look) -> None:
        """Add a look."""
        values = np.stack(look.values)
        pairs = ((self._clear, CLEAR), (self._all, CLEAR | SAVED))
        for number, (mean, flag) in enumerate(pairs):
            usable = (look.flags & flag) > 0
            if usable.any():
                mean.add(values, usable[None] & (values > 0))
                self._counts[number] += usable

    def result(self, always: np.ndarray) -> Reduced:
        """The tile; `always` is where the mask took almost every look."""
        data = np.where(always[None], self._all.result(), self._clear.result())
        return Reduced(
            layers=(data, *_indices(self._source, data)),
            count=np.where(always, self._counts[1], self._counts[0]),
            kept=always & (self._counts[1] > self._counts[0]),
        )


def empty_layers(source: Sentinel2Source, shape: tuple[int, int]) -> Layers:
    """Layers of rows that no look has data for."""
    rule = source.composite
    layers = [np.zeros((len(rule.layers(source.bands.all)), *shape), dtype=np.uint16)]
    if source.indices:
        layers.append(np.full((len(source.indices), *shape), np.nan, dtype=np.float32))
    if rule.mads:
        layers.append(np.full((len(MADS), *shape), np.nan, dtype=np.float32))
    if rule.dates:
        layers.append(np.zeros(shape, dtype=np.uint16))
    return tuple(layers)


def _indices(source: Sentinel2Source, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Indices of a composite, as one layer."""
    if not source.indices:
        return ()
    bands = dict(zip(source.bands.all, data, strict=True))
    return (np.stack([INDICES[name].of(bands) for name in source.indices]),)


def _picked(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """`(band, y, x)` of the chosen look of each pixel; 0 where there is none."""
    index = np.maximum(chosen, 0)[None, None].astype(np.intp)
    picked = np.take_along_axis(values, np.broadcast_to(index, (1, *values.shape[1:])), axis=0)[0]
    return np.where(chosen[None] >= 0, picked, np.uint16(0))


def _day(observation: Observation) -> int:
    """Days since 1970-01-01; 0 where the scene has no date."""
    try:
        found = date.fromisoformat(min(map(moment, observation.items))[:10])
    except ValueError:
        return 0
    return max(0, (found - date(1970, 1, 1)).days)


def _day_of_year(days: np.ndarray) -> np.ndarray:
    when = np.datetime64("1970-01-01") + days.astype("timedelta64[D]")
    return (when - when.astype("datetime64[Y]")).astype(np.int64) + 1
