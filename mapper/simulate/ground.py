"""The painted ground of one city: 1 m truth of its area, 10 m material shares all around."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mapper.simulate.cities import SimulatedCity, WorldOptions
from mapper.simulate.extent import Extent
from mapper.simulate.granules import ALIGN, imagery, zone_extent
from mapper.simulate.spectra import CLASS_OF_MATERIAL, Material, spectra_at
from mapper.simulate.style import Style
from mapper.simulate.world import World

_BLOCK = 720
"""Side in metres of the squares the ground is painted in; bounds the memory used."""
_STRIP = 2400
"""Height in metres of the strips painted at the coarse step."""
_COARSE = 5
"""Step in metres outside the area that has 1 m truth."""
_PAD = 20
"""1 m truth reaches this many metres past the area of interest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What all of a city's imagery is computed from."""

    city: SimulatedCity
    style: Style
    world: World
    extent: Extent
    """10 m window of the mosaic in the city's plane; contains every image's window."""
    shares: NDArray[np.uint8]
    """Per cent of each material, (material, y, x) on `extent`."""
    area: Extent
    """1 m window with truth: the area of interest and 20 m around it."""
    materials: NDArray[np.uint8]
    """Material per square metre on `area`."""

    def mix(self, table: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mean of a per-material value over each 10 m pixel, (y, x)."""
        total = np.zeros(self.extent.shape, np.float32)
        for share, value in zip(self.shares, table, strict=True):
            total += share * np.float32(value / 100.0)
        return total

    def spectra(self, when: datetime) -> NDArray[np.float32]:
        """Reflectance (0 to 1) by (material, band of `BANDS`) on a date."""
        return spectra_at(when, self.city.lat, self.style.surfaces)

    def classes_10m(self) -> tuple[Extent, NDArray[np.uint8]]:
        """Class with the largest share of each 10 m pixel of `area`; ties go to the lower id."""
        window = self.area.at(10)
        shares = self.shares[(slice(None), *self.extent.slices(window))]
        totals = np.zeros((int(CLASS_OF_MATERIAL.max()) + 1, *window.shape), np.uint8)
        for material in Material:
            totals[CLASS_OF_MATERIAL[material]] += shares[material]
        return window, totals.argmax(axis=0).astype(np.uint8)

    def local(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Metres from the city's centre of the mosaic's columns (1, x) and rows (y, 1)."""
        x0, y0 = self.world.centre
        return self.extent.columns_x()[None, :] - x0, self.extent.rows_y()[:, None] - y0


def mosaic_extent(city: SimulatedCity, margin: int) -> Extent:
    """10 m window in the city's plane that holds every zone's window of the city."""
    bounds = [imagery(city, margin).bounds]
    for epsg in city.zones[1:]:
        window = zone_extent(city, margin, epsg, whole=True)
        bounds.append(window.projected_bounds(city.epsg))
    columns = list(zip(*bounds, strict=True))
    around = (min(columns[0]), min(columns[1]), max(columns[2]), max(columns[3]))
    return Extent.snapped(city.epsg, around, 10, ALIGN).grown(ALIGN)


def paint_ground(city: SimulatedCity, options: WorldOptions, scratch: Path) -> Ground:
    """Paint a city; the 1 m truth goes to a file in `scratch`, so that memory stays bounded."""
    world = World.of(city, options.seed, options.style)
    extent = mosaic_extent(city, options.margin_m)
    area = city.area.grown(_PAD).at(1)
    materials = np.memmap(scratch / f"{city.slug}.bin", np.uint8, "w+", shape=area.shape)
    shares = np.empty((len(Material), *extent.shape), np.uint8)
    for strip in _blocks(extent, extent.width * 10, _STRIP):
        shares[(slice(None), *extent.slices(strip))] = _shares(
            _render(world, strip, _COARSE), strip.height
        )
    for block in _blocks(area.at(10), _BLOCK, _BLOCK):
        painted = _render(world, block, 1)
        shares[(slice(None), *extent.slices(block))] = _shares(painted, block.height)
        materials[area.slices(block.at(1))] = painted
    return Ground(
        city=city,
        style=options.style,
        world=world,
        extent=extent,
        shares=shares,
        area=area,
        materials=materials,
    )


def _blocks(extent: Extent, width: int, height: int) -> Iterator[Extent]:
    """Rectangles of at most width x height metres that cover a window."""
    left, bottom, right, top = extent.bounds
    for y in range(int(top), int(bottom), -height):
        for x in range(int(left), int(right), width):
            bounds = (x, max(y - height, bottom), min(x + width, right), y)
            yield Extent.snapped(extent.epsg, bounds, extent.resolution)


def _render(world: World, block: Extent, step: int) -> NDArray[np.uint8]:
    samples = block.resolution // step
    width, height = block.width * samples, block.height * samples
    return world.render(block.left, block.top, width, height, step)


def _shares(painted: NDArray[np.uint8], rows: int) -> NDArray[np.uint8]:
    """Per cent of each material in `rows` rows of square blocks of samples, (material, y, x)."""
    side = painted.shape[0] // rows
    columns = painted.shape[1] // side
    cell = (np.arange(rows)[:, None] * columns + np.arange(columns)) * len(Material)
    index = np.repeat(np.repeat(cell, side, axis=0), side, axis=1) + painted
    counts = np.bincount(index.ravel(), minlength=rows * columns * len(Material))
    percent = counts * (100 // (side * side))
    return percent.reshape(rows, columns, -1).transpose(2, 0, 1).astype(np.uint8)
