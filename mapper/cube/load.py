"""Scenes of one tile as arrays: granules of an observation laid over each other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mapper.area.grid import Grid, PixelBox
from mapper.catalog.bands import Item, find_band
from mapper.catalog.observation import Observation
from mapper.cube.inspect import Inspection
from mapper.cube.sample import Pixels
from mapper.cube.warp import read_band
from mapper.recipe import Resampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where on the lattice pixels are wanted."""

    grid: Grid
    pixels: PixelBox

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape

    def grow(self, pixels: int) -> "Target":
        """The target with so many pixels more on each side."""
        return replace(self, pixels=self.pixels.grow(pixels)) if pixels else self

    def inner(self, array: np.ndarray, target: "Target") -> np.ndarray:
        """The part of an array over this target that lies over a smaller one."""
        return array[target.pixels.slices_in(self.pixels)]


def read_mosaic(
    items: tuple[Item, ...], name: str, target: Target, resampling: Resampling
) -> Pixels | None:
    """One band of several items, the first valid value of each pixel; None where none has it.

    Raises: ReadError where an asset cannot be read.
    """
    result: Pixels | None = None
    for item in items:
        band = find_band(item, name)
        if band is None:
            continue
        result = _laid_under(result, read_band(band, target.grid, target.pixels, resampling))
        if result.valid.all():
            break
    return result


def read_reflectance(
    observation: Observation,
    name: str,
    target: Target,
    how: tuple[Mapping[str, Inspection], Resampling],
) -> Pixels | None:
    """One Sentinel-2 band of an observation as stored reflectance (uint16, reflectance x 10000).

    Offset and scale are each granule's own. Valid pixels are clamped to 1..65534: a dark pixel
    never becomes nodata.
    """
    inspections, resampling = how
    result: Pixels | None = None
    for item in observation.items:
        band = find_band(item, name)
        if band is None:
            continue
        verdict = inspections[item["id"]].verdict
        offset = verdict.offset if verdict else 0.0
        # 0 is Sentinel-2's nodata, whether or not item and file say so
        part = read_band(replace(band, nodata=0.0), target.grid, target.pixels, resampling)
        result = _laid_under(result, _to_stored(part, band.scale or 0.0001, offset))
    return result


def _laid_under(top: Pixels | None, part: Pixels) -> Pixels:
    """Pixels with the gaps of what lies on top filled."""
    if top is None:
        return part
    take = part.valid & ~top.valid
    return Pixels(np.where(take, part.values, top.values), top.valid | take)


def _to_stored(pixels: Pixels, scale: float, offset: float) -> Pixels:
    """Digital numbers to reflectance x 10000, rounded half up, clamped to 1..65534."""
    factor, shift = scale * 10_000, round(offset * 10_000)
    if pixels.values.dtype == np.uint16 and factor == 1 and shift <= 0:
        # whole numbers stay whole, and clamping first keeps them from running over
        stored = np.clip(pixels.values, 1 - shift, min(65535, 65534 - shift))
        stored -= np.uint16(-shift)
    else:
        numbers = np.where(pixels.valid, pixels.values, 0).astype(np.float64)
        stored = np.clip(np.floor(numbers * factor + shift + 0.5), 1, 65534).astype(np.uint16)
    return Pixels(np.where(pixels.valid, stored, np.uint16(0)), pixels.valid)
