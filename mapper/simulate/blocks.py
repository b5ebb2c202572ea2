"""What stands on a block: houses with gardens, perimeter blocks, halls, parks, fields.

Every painter gets the samples of its kind of block, flattened, in metres of the block's own
axes, and answers with a material for each.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mapper.simulate.noise import derive, uniform
from mapper.simulate.spectra import Material

FloatSamples = NDArray[np.float32]


class Kind(IntEnum):
    """Kinds of block, in town and in the country."""

    PERIMETER = 0
    SLABS = 1
    HOUSES = 2
    HALLS = 3
    PLAZA = 4
    PARK = 5
    BARE = 6
    MEADOW = 7
    FOREST = 8
    WINTER_FIELD = 9
    SUMMER_FIELD = 10
    FALLOW_FIELD = 11
    FARM = 12


_RURAL = (
    Kind.WINTER_FIELD, Kind.SUMMER_FIELD, Kind.FALLOW_FIELD, Kind.FOREST,
)  # fmt: skip
"""Kinds along which a street is only a track."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plots:
    """Where each sample lies on its block; all arrays have one shape."""

    kind: NDArray[np.uint8]
    a: FloatSamples
    """Metres along the block; negative on the street before it."""
    b: FloatSamples
    """Metres across the block; negative on the street before it."""
    long: FloatSamples
    """Length of the block, street excluded."""
    deep: FloatSamples
    """Depth of the block, street excluded."""
    street: FloatSamples
    """Width of the streets."""
    key: NDArray[np.int64]
    """A number per block."""
    x: FloatSamples
    """Metres east of the city's centre."""
    y: FloatSamples
    """Metres north of the city's centre."""
    seed: int
    leafy: float = 1.0
    """Factor on the share of places that hold a tree."""

    def take(self, index: NDArray[np.int64]) -> "Plots":
        """The samples at flat positions."""
        arrays = {
            f.name: getattr(self, f.name).ravel()[index]
            for f in fields(self)
            if f.name not in ("seed", "leafy")
        }
        return Plots(**arrays, seed=self.seed, leafy=self.leafy)

    def draw(self, label: str, part: NDArray[np.int64] | int = 0) -> FloatSamples:
        """A number in [0, 1) per block, or per part of a block."""
        return uniform(self.key, np.asarray(part), derive(self.seed, label))

    @property
    def edge(self) -> FloatSamples:
        """Metres to the nearest edge of the block."""
        side = np.minimum(self.a, self.long - self.a)
        return np.minimum(side, np.minimum(self.b, self.deep - self.b))

    def trees(self, density: FloatSamples | float, spacing: float = 7.0) -> NDArray[np.bool_]:
        """True under a crown: at most one tree per `spacing` cell, placed by hash."""
        i = np.floor(self.x / np.float32(spacing)).astype(np.int64)
        j = np.floor(self.y / np.float32(spacing)).astype(np.int64)
        radius = uniform(i, j, derive(self.seed, "crown")) * 0.25 + 0.25
        shift = 0.5 + 0.3 * (uniform(j, i, derive(self.seed, "stem")) - 0.5)
        dx, dy = self.x / np.float32(spacing) - i - shift, self.y / np.float32(spacing) - j - shift
        present = uniform(i, j, derive(self.seed, "tree")) < density * self.leafy
        return present & (dx * dx + dy * dy < radius * radius)


def paint(plots: Plots) -> NDArray[np.uint8]:
    """Material of each sample, streets included."""
    shape = plots.kind.shape
    material = np.empty(plots.kind.size, np.uint8)
    on_street = ((plots.a < 0) | (plots.b < 0)).ravel()
    index = np.flatnonzero(on_street)
    material[index] = _street(plots.take(index))
    kind = np.where(on_street, np.uint8(255), plots.kind.ravel())
    for value in np.unique(kind):
        if value != 255:
            index = np.flatnonzero(kind == value)
            material[index] = _PAINTERS[Kind(value)](plots.take(index))
    return material.reshape(shape)


def _filled(plots: Plots, material: Material) -> NDArray[np.uint8]:
    return np.full(plots.kind.shape, material, np.uint8)


def _street(plots: Plots) -> NDArray[np.uint8]:
    """Roadway, pavements and street trees; a gravel track between hedges in the country."""
    across_a, across_b = -plots.a, -plots.b
    inside_a, inside_b = across_a > 0, across_b > 0
    side_a = np.minimum(across_a, plots.street - across_a)
    side_b = np.minimum(across_b, plots.street - across_b)
    side = np.where(inside_a & inside_b, np.maximum(side_a, side_b), 0.0)
    side = np.where(inside_a & ~inside_b, side_a, side)
    side = np.where(inside_b & ~inside_a, side_b, side)
    material = _filled(plots, Material.ASPHALT)
    material[side < 2.6] = Material.PAVEMENT
    along = np.where(inside_a, plots.b, plots.a)
    ring = along - 12.0 * np.floor(along / 12.0) - 6.0
    crown = (ring * ring + (side - 2.0) ** 2 < 9.0) & ~(inside_a & inside_b)
    material[crown & (plots.draw("avenue") < 0.55)] = Material.TREE
    rural = np.isin(plots.kind, np.array(_RURAL, np.uint8))
    track = np.abs(np.where(inside_a, across_a, across_b) - plots.street / 2) < 1.6
    material[rural] = Material.MEADOW
    material[rural & (plots.draw("hedge") < 0.3)] = Material.TREE
    material[rural & track] = Material.GRAVEL
    return material


def _roof(plots: Plots, label: str, part: NDArray[np.int64], tiles: float) -> NDArray[np.uint8]:
    """Roof material per part of a block; `tiles` is the share of clay tiles."""
    draw = plots.draw(label, part)
    dark = tiles + (1.0 - tiles) * 0.6
    choice = np.where(draw < dark, Material.ROOF_DARK, Material.ROOF_BRIGHT)
    return np.where(draw < tiles, Material.ROOF_TILE, choice).astype(np.uint8)


def _perimeter(plots: Plots) -> NDArray[np.uint8]:
    """Closed rows of buildings around a courtyard."""
    edge = plots.edge
    part = np.floor(plots.a / 19.0).astype(np.int64) * 8 + (plots.b > plots.deep / 2)
    yard = plots.draw("yard")
    material = np.where(yard < 0.45, Material.GRASS, Material.PAVEMENT).astype(np.uint8)
    material[plots.trees(0.4)] = Material.TREE
    shed = (edge > 20.0) & (plots.draw("shed", part) < 0.25)
    built = ((edge >= 1.0) & (edge < 13.5)) | shed
    gap = plots.draw("gap", part) < 0.06
    roof = _roof(plots, "perimeter roof", part, 0.55)
    material = np.where(built & ~gap, roof, material)
    material[edge < 1.0] = Material.PAVEMENT
    return material


def _slabs(plots: Plots) -> NDArray[np.uint8]:
    """Parallel apartment blocks on lawns, with parking between."""
    row = np.floor(plots.a / 34.0).astype(np.int64)
    along = plots.a - 34.0 * row
    inner = (plots.b > 5.0) & (plots.b < plots.deep - 5.0)
    material = _filled(plots, Material.GRASS)
    material[plots.trees(0.35)] = Material.TREE
    material[(along > 22.0) & (along < 29.0) & inner & (row % 2 == 0)] = Material.ASPHALT
    built = (along > 4.0) & (along < 16.0) & inner & (plots.a < plots.long - 4.0)
    return np.where(built, _roof(plots, "slab roof", row, 0.1), material)


def _houses(plots: Plots) -> NDArray[np.uint8]:
    """Detached houses in gardens, two rows to a block."""
    lot = np.floor(plots.a / 19.0).astype(np.int64)
    back = plots.b > plots.deep / 2
    part = lot * 2 + back
    along = plots.a - 19.0 * lot
    depth = np.minimum(plots.b, plots.deep - plots.b)
    draw = plots.draw("house", part)
    left, front = 3.0 + 2.5 * draw, 4.0 + 4.0 * plots.draw("front", part)
    width, length = 9.0 + 2.5 * (1.0 - draw), 9.0 + 3.0 * draw
    material = _filled(plots, Material.GRASS)
    material[plots.trees(0.42)] = Material.TREE
    material[(along < 2.8) & (depth < front + 7.0)] = Material.PAVEMENT
    house = (along > left) & (along < left + width)
    house &= (depth > front) & (depth < np.minimum(front + length, plots.deep / 2 - 1.5))
    house &= (plots.draw("empty lot", part) > 0.06) & (plots.a < plots.long - 3.0)
    return np.where(house, _roof(plots, "house roof", part, 0.66), material)


def _halls(plots: Plots) -> NDArray[np.uint8]:
    """Large halls, yards and parking."""
    part = np.floor(plots.a / 58.0).astype(np.int64)
    along = plots.a - 58.0 * part
    hall = (along > 6.0) & (along < 46.0) & (plots.b > 9.0) & (plots.b < plots.deep - 7.0)
    hall &= plots.a < plots.long - 6.0
    yard = plots.draw("hall yard", part)
    material = np.where(yard < 0.5, Material.ASPHALT, Material.PAVEMENT).astype(np.uint8)
    material[yard > 0.85] = Material.GRAVEL
    verge = plots.edge < 3.0
    material[verge] = Material.GRASS
    material[verge & plots.trees(0.5)] = Material.TREE
    return np.where(hall, _roof(plots, "hall roof", part, 0.05), material)


def _plaza(plots: Plots) -> NDArray[np.uint8]:
    """A paved square with rows of trees, or parking."""
    material = np.where(plots.draw("plaza") < 0.5, Material.PAVEMENT, Material.ASPHALT).astype(
        np.uint8
    )
    material[plots.trees(0.5, spacing=11.0)] = Material.TREE
    return material


def _park(plots: Plots) -> NDArray[np.uint8]:
    """Lawn, groves, paths, and in some parks a pond."""
    across, down = plots.a / plots.long - 0.5, plots.b / plots.deep - 0.5
    material = _filled(plots, Material.GRASS)
    material[plots.trees(0.25 + 0.6 * (plots.draw("grove") < 0.5))] = Material.TREE
    paths = (np.abs(across - down) * plots.deep < 1.6) | (np.abs(plots.edge - 6.0) < 1.2)
    material[paths] = Material.GRAVEL
    ring = across * across + down * down
    pond = plots.draw("pond") < 0.35
    material[pond & (ring < 0.075)] = Material.GRASS
    material[pond & (ring < 0.06)] = Material.WATER
    return material


def _bare(plots: Plots) -> NDArray[np.uint8]:
    """Building site or cleared lot."""
    material = np.where(plots.draw("site") < 0.7, Material.SOIL, Material.GRAVEL)
    material[(plots.edge < 2.5) & plots.trees(0.6)] = Material.GRASS
    return material.astype(np.uint8)


def _meadow(plots: Plots) -> NDArray[np.uint8]:
    """Pasture with scattered trees, in some an orchard."""
    material = _filled(plots, Material.MEADOW)
    orchard = plots.draw("orchard") < 0.25
    material[plots.trees(np.where(orchard, 0.9, 0.05).astype(np.float32))] = Material.TREE
    return material


def _forest(plots: Plots) -> NDArray[np.uint8]:
    """Conifers, in some blocks mixed with deciduous trees."""
    mixed = plots.draw("mixed") < 0.3
    trees = plots.trees(np.where(mixed, 0.8, 0.1).astype(np.float32))
    return np.where(trees, Material.TREE, Material.CONIFER).astype(np.uint8)


def _field(crop: Material) -> Callable[[Plots], NDArray[np.uint8]]:
    def painted(plots: Plots) -> NDArray[np.uint8]:
        """One crop with a grassy margin."""
        material = _filled(plots, crop)
        material[plots.edge < 1.5] = Material.MEADOW
        return material

    return painted


def _farm(plots: Plots) -> NDArray[np.uint8]:
    """A yard with barns amid grass and trees."""
    across, down = plots.a - plots.long / 2, plots.b - plots.deep / 2
    material = _filled(plots, Material.MEADOW)
    material[plots.trees(0.35)] = Material.TREE
    yard = np.maximum(np.abs(across), np.abs(down))
    material[yard < 32.0] = Material.GRAVEL
    barns = (yard > 9.0) & (yard < 26.0) & (np.abs(across) > 9.0)
    part = (across > 0).astype(np.int64)
    return np.where(barns, _roof(plots, "barn", part, 0.6), material)


_PAINTERS: dict[Kind, Callable[[Plots], NDArray[np.uint8]]] = {
    Kind.PERIMETER: _perimeter,
    Kind.SLABS: _slabs,
    Kind.HOUSES: _houses,
    Kind.HALLS: _halls,
    Kind.PLAZA: _plaza,
    Kind.PARK: _park,
    Kind.BARE: _bare,
    Kind.MEADOW: _meadow,
    Kind.FOREST: _forest,
    Kind.WINTER_FIELD: _field(Material.WINTER_CROP),
    Kind.SUMMER_FIELD: _field(Material.SUMMER_CROP),
    Kind.FALLOW_FIELD: _field(Material.FALLOW),
    Kind.FARM: _farm,
}
