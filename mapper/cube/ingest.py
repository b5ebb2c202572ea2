"""Items to pixels: one source of one tile, whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mapper.area.grid import TileKey
from mapper.catalog.bands import Item, cloud_cover
from mapper.catalog.observation import Observation, group_observations, moment, orbit_state
from mapper.cube.composite import PowerMean, median_uint16, status_of
from mapper.cube.inspect import Inspection
from mapper.cube.load import ReadFailures, Target, read_mosaic, read_reflectance, readable
from mapper.cube.mask import clear_of_scl, rescued
from mapper.cube.template import source_templates
from mapper.cube.terrain import slope_aspect
from mapper.errors import ReadError
from mapper.recipe import (
    ElevationSource,
    ImagerySource,
    Resampling,
    Sentinel1Source,
    Sentinel2Source,
    Source,
)
from mapper.store.template import ArrayTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class TileLayers:
    """Arrays of one source over one tile, and what went wrong on the way."""

    arrays: tuple[tuple[ArrayTemplate, np.ndarray], ...]
    failures: tuple[str, ...] = ()
    observations: int = 0
    missing_bands: tuple[str, ...] = field(default=())
    """Bands that no scene of the tile has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TileScenes:
    """What one source of one tile is made from."""

    name: str
    """Of the source in the recipe."""
    key: TileKey
    items: tuple[Item, ...]
    """Every frozen item that touches the tile."""
    inspections: Mapping[str, Inspection]


def ingest_tile(scenes: TileScenes, source: Source) -> TileLayers:
    """Composite, observation count and status of one source over one tile.

    Raises: ReadError where a scene cannot be read and the source says `on_read_error: fail`.
    """
    target = Target(grid=scenes.key.grid, pixels=scenes.key.box)
    items, failed = readable(scenes.items, scenes.inspections)
    failures = ReadFailures(source.on_read_error == "skip", failed)
    match source:
        case Sentinel2Source():
            made = _sentinel2(scenes, source, target, (items, failures))
        case Sentinel1Source():
            made = _sentinel1(source, target, items, failures)
        case ElevationSource():
            made = _elevation(source, target, items, failures)
        case ImagerySource():
            made = _imagery(source, target, items, failures)
    arrays = tuple(zip(source_templates(scenes.name, source), made.arrays, strict=True))
    return TileLayers(
        arrays=arrays,
        failures=tuple(failures.messages),
        observations=made.observations,
        missing_bands=made.missing,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """Data, count and status, in template order."""

    arrays: tuple[np.ndarray, np.ndarray, np.ndarray]
    observations: int
    missing: tuple[str, ...] = ()


def _sentinel2(
    scenes: TileScenes,
    source: Sentinel2Source,
    target: Target,
    using: tuple[tuple[Item, ...], ReadFailures],
) -> _Made:
    items, failures = using
    reader = _Looks(source, target, (scenes.inspections, source.resampling))
    looks = []
    for observation in group_observations(items, target.grid.epsg):
        try:
            look = reader.read(observation)
        except ReadError as reason:
            failures.note(reason)
            continue
        if look is not None:
            looks.append(look)
    data = np.zeros((len(source.bands.all), *target.shape), dtype=np.uint16)
    if not looks:
        nothing = np.zeros(target.shape, dtype=bool)
        status = status_of(nothing, nothing, failures.any)
        return _Made(arrays=(data, nothing.astype(np.uint16), status), observations=0)
    observed = np.stack([look.valid for look in looks])
    clear, kept = _clear(observed, np.stack([look.scl for look in looks]), source)
    missing = []
    for index, band in enumerate(source.bands.all):
        stack, valid = reader.stack(looks, band, failures)
        if not valid.any():
            missing.append(band)
        data[index] = median_uint16(stack, valid & clear)
    status = status_of(_any(observed), _any(clear), failures.any)
    status[kept & (status == 0)] = 5
    count = clear.sum(axis=0).astype(np.uint16)
    return _Made(arrays=(data, count, status), observations=len(looks), missing=tuple(missing))


@dataclass(frozen=True, slots=True)
class _Look:
    """One observation over a tile."""

    observation: Observation
    required: dict[str, np.ndarray]
    """`(y, x)` uint16 reflectance of each required band."""
    valid: np.ndarray
    """`(y, x)` bool: every required band is data."""
    scl: np.ndarray
    """`(y, x)` uint8; 4 (vegetation, clear) all over where a scene without SCL is allowed."""


@dataclass(frozen=True, slots=True)
class _Looks:
    """Reads observations of one source over one tile."""

    source: Sentinel2Source
    target: Target
    how: tuple[Mapping[str, Inspection], Resampling]

    def read(self, observation: Observation) -> _Look | None:
        """An observation with data in every required band; None where it has none here."""
        required, valid = {}, np.ones(self.target.shape, dtype=bool)
        for band in self.source.bands.required:
            pixels = read_reflectance(observation, band, self.target, self.how)
            if pixels is None or not pixels.valid.any():
                return None
            required[band] = pixels.values
            valid &= pixels.valid
        classes = None
        if self.source.mask is not None:
            classes = read_mosaic(observation.items, "scl", self.target, "nearest")
        scl = np.full(self.target.shape, 4, dtype=np.uint8)
        if classes is not None:
            scl = np.where(classes.valid, classes.values, 0).astype(np.uint8)
        return _Look(observation, required, valid, scl)

    def stack(
        self, looks: list[_Look], band: str, failures: ReadFailures
    ) -> tuple[np.ndarray, np.ndarray]:
        """`(time, y, x)` values and validity of one band."""
        if band in self.source.bands.required:
            values = [look.required[band] for look in looks]
            return np.stack(values), np.stack([look.valid for look in looks])
        stack = np.zeros((len(looks), *self.target.shape), dtype=np.uint16)
        valid = np.zeros(stack.shape, dtype=bool)
        for index, look in enumerate(looks):
            try:
                pixels = read_reflectance(look.observation, band, self.target, self.how)
            except ReadError as reason:
                failures.note(reason)
                continue
            if pixels is not None:
                stack[index], valid[index] = pixels.values, pixels.valid
        return stack, valid


def _any(over_time: np.ndarray) -> np.ndarray:
    """`(y, x)` bool, True where any time is."""
    return np.asarray(over_time.any(axis=0))


def _clear(
    observed: np.ndarray, scl: np.ndarray, source: Sentinel2Source
) -> tuple[np.ndarray, np.ndarray]:
    """Which observations are used, `(time, y, x)`, and which pixels only against the mask."""
    if source.mask is None:
        return observed, np.zeros(observed.shape[1:], dtype=bool)
    clear = observed & clear_of_scl(scl, source.mask)
    saved = rescued(observed, clear, scl, source.mask)
    return clear | saved, _any(saved)


def _sentinel1(
    source: Sentinel1Source, target: Target, items: tuple[Item, ...], failures: ReadFailures
) -> _Made:
    looks = group_observations(items, target.grid.epsg)
    groups = {"": looks}
    if source.orbits == "apart":
        groups = {
            f"_{orbit}": [k for k in looks if orbit_state(k.items[0]) == orbit]
            for orbit in ("ascending", "descending")
        }
    data = np.full((len(source.layers), *target.shape), np.nan, dtype=np.float32)
    count = np.zeros(target.shape, dtype=np.uint16)
    missing = []
    for suffix, members in groups.items():
        for number, band in enumerate(source.bands.all):
            mean = _power_mean(members, band, target, (source, failures))
            data[source.layers.index(band + suffix)] = mean.decibel()
            if number == 0:
                count += mean.count
            if not mean.count.any():
                missing.append(band + suffix)
    status = status_of(count > 0, count > 0, failures.any)
    return _Made(arrays=(data, count, status), observations=len(looks), missing=tuple(missing))


def _power_mean(
    looks: list[Observation],
    band: str,
    target: Target,
    how: tuple[Sentinel1Source, ReadFailures],
) -> PowerMean:
    source, failures = how
    mean = PowerMean(target.shape)
    for look in looks:
        try:
            pixels = read_mosaic(look.items, band, target, source.resampling)
        except ReadError as reason:
            failures.note(reason)
            continue
        if pixels is not None:
            mean.add(pixels.values, pixels.valid)
    return mean


def _elevation(
    source: ElevationSource, target: Target, items: tuple[Item, ...], failures: ReadFailures
) -> _Made:
    grown = Target(grid=target.grid, pixels=target.pixels.grow(1))
    heights = np.full(grown.shape, np.nan, dtype=np.float32)
    for item in sorted(items, key=lambda i: str(i["id"])):
        try:
            pixels = read_mosaic((item,), "elevation", grown, source.resampling)
        except ReadError as reason:
            failures.note(reason)
            continue
        if pixels is not None:
            take = pixels.valid & np.isnan(heights)
            heights[take] = pixels.values[take]
    slope, aspect = slope_aspect(heights, target.grid.resolution)
    layers = {"elevation": heights[1:-1, 1:-1], "slope": slope, "aspect": aspect}
    data = np.stack([layers[band] for band in source.bands.all]).astype(np.float32)
    known = np.isfinite(layers["elevation"])
    status = status_of(known, known, failures.any)
    return _Made(
        arrays=(data, known.astype(np.uint16), status), observations=1 if known.any() else 0
    )


def _imagery(
    source: ImagerySource, target: Target, items: tuple[Item, ...], failures: ReadFailures
) -> _Made:
    data = np.full((len(source.bands.all), *target.shape), 65535, dtype=np.uint16)
    used = np.zeros(target.shape, dtype=bool)
    found: set[str] = set()
    for item in _in_order(items, source):
        try:
            layers = [read_mosaic((item,), b, target, source.resampling) for b in source.bands.all]
        except ReadError as reason:
            failures.note(reason)
            continue
        required = [p for p in layers[: len(source.bands.required)] if p is not None]
        if len(required) < len(source.bands.required):
            continue
        whole = np.logical_and.reduce([p.valid for p in required]) & ~used
        for index, pixels in enumerate(layers):
            if pixels is not None:
                found.add(source.bands.all[index])
                take = whole & pixels.valid
                rounded = np.floor(pixels.values[take].astype(np.float64) + 0.5)
                data[index][take] = np.clip(rounded, 0, 65534)
        used |= whole
        if used.all():
            break
    status = status_of(used, used, failures.any)
    missing = tuple(b for b in source.bands.all if b not in found) if used.any() else ()
    return _Made(
        arrays=(data, used.astype(np.uint16), status), observations=len(items), missing=missing
    )


def _in_order(items: tuple[Item, ...], source: ImagerySource) -> list[Item]:
    """Items with the preferred one first; ties by id."""
    by_id = sorted(items, key=lambda i: str(i["id"]))
    newest = sorted(by_id, key=moment, reverse=True)
    if source.order == "newest":
        return newest
    return sorted(newest, key=cloud_cover)
