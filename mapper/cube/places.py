"""Where lattice pixels lie in a source.

Coordinates are projected at every 16th lattice pixel and interpolated between these by a cubic
through four of them, which is off by less than a millionth of a pixel; cells over which the
projection jumps (the antimeridian) are projected pixel by pixel. The nodes are those of the
lattice, not of the box that is asked for, so a place depends on the ground alone.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import rasterio
from affine import Affine
from pyproj import Transformer

from mapper.area.grid import Grid, PixelBox

NODE = 16
"""Lattice pixels between two points that are projected."""
_SMOOTH = 1e-5
"""Third differences of nodes, in sides of their cell, beyond which it is not interpolated."""
_MOST_SUBSAMPLES = 16

Shift = tuple[float, float]
"""Offset from a pixel's centre, in pixels down and right."""


def source_places(
    dataset: rasterio.DatasetReader, grid: Grid, strip: PixelBox, shift: Shift = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Source rows and columns of lattice pixel centres; whole numbers are source centres.

    Returns: arrays that broadcast to the strip's shape: `(y, 1)` and `(1, x)` where the source
        is north-up in the grid's CRS, `(y, x)` otherwise.
    """
    transform = dataset.transform
    if epsg_of(dataset.crs) == grid.epsg and north_up(transform):
        y, x = _centres(grid, strip, shift)
        return (
            ((y - transform.f) / transform.e - 0.5)[:, None],
            ((x - transform.c) / transform.a - 0.5)[None, :],
        )
    east, north = _PROJECTED.of(_Strip(grid, dataset.crs.to_wkt(), strip, shift))
    inverse = ~transform
    with np.errstate(invalid="ignore"):
        return (
            inverse.d * east + inverse.e * north + inverse.f - 0.5,
            inverse.a * east + inverse.b * north + inverse.c - 0.5,
        )


def subsamples(dataset: rasterio.DatasetReader, grid: Grid) -> list[Shift]:
    """Offsets of the points in a target pixel whose mean stands for its area."""
    ratio = grid.resolution / metres(dataset)
    count = int(np.clip(np.ceil(ratio - 1e-9), 1, _MOST_SUBSAMPLES))
    steps = (np.arange(count) + 0.5) / count - 0.5
    return [(float(dy), float(dx)) for dy in steps for dx in steps]


def metres(dataset: rasterio.DatasetReader) -> float:
    """Side of a source pixel, roughly, in metres."""
    unit = 111_320.0 if dataset.crs.is_geographic else dataset.crs.linear_units_factor[1]
    return float(abs(dataset.transform.a) * unit)


def reached(dataset: rasterio.DatasetReader, grid: Grid) -> PixelBox:
    """A lattice box that holds every pixel the file can give a value to, and some more."""
    ring = _outline(dataset.bounds)
    x, y = transformer(dataset.crs.to_wkt(), grid.crs).transform(*ring)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.all():
        return PixelBox(row0=-(10**9), col0=-(10**9), row1=10**9, col1=10**9)
    box = grid.box_of((x.min(), y.min(), x.max(), y.max()))
    # a border that bulges between its points stays well inside the margin
    return box.grow(16 + max(box.shape) // 100)


def north_up(transform: Affine) -> bool:
    """True where rows go south and columns east."""
    return bool(transform.b == 0 and transform.d == 0 and transform.e < 0 < transform.a)


def epsg_of(crs: rasterio.CRS) -> int | None:
    """The EPSG code of a CRS, which is slow to find out."""
    return _epsg(crs.to_wkt())


@lru_cache(maxsize=256)
def _epsg(wkt: str) -> int | None:
    found = rasterio.CRS.from_wkt(wkt).to_epsg()
    return None if found is None else int(found)


def transformer(source: str, target: str) -> Transformer:
    """A transformer of this thread's own: PROJ's objects cannot be used by two at once."""
    return _transformer_of(threading.get_ident(), source, target)


@lru_cache(maxsize=64)
def _transformer_of(thread: int, source: str, target: str) -> Transformer:
    del thread
    return Transformer.from_crs(source, target, always_xy=True)


def _outline(bounds: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Points around a rectangle, 21 a side."""
    left, bottom, right, top = bounds
    x, y = np.linspace(left, right, 21), np.linspace(bottom, top, 21)
    sides = [(x, np.full(21, bottom)), (x, np.full(21, top))]
    sides += [(np.full(21, left), y), (np.full(21, right), y)]
    return np.concatenate([s[0] for s in sides]), np.concatenate([s[1] for s in sides])


def _centres(grid: Grid, strip: PixelBox, shift: Shift) -> tuple[np.ndarray, np.ndarray]:
    """Northings of the rows and eastings of the columns."""
    rows = np.arange(strip.row0, strip.row1) + 0.5 + shift[0]
    cols = np.arange(strip.col0, strip.col1) + 0.5 + shift[1]
    return -rows * grid.resolution, cols * grid.resolution


@dataclass(frozen=True, slots=True)
class _Strip:
    """A strip of lattice pixels whose coordinates are wanted in another CRS."""

    grid: Grid
    crs: str
    """WKT of the other CRS."""
    pixels: PixelBox
    shift: Shift

    def project(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exact coordinates of points."""
        east, north = transformer(self.grid.crs, self.crs).transform(x, y)
        return np.asarray(east), np.asarray(north)


class _Projected:
    """Coordinates of strips, kept for the bands and dates to come; worked out once for all."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[_Strip, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        self._locks: dict[_Strip, threading.Lock] = {}
        self._lock = threading.Lock()

    def of(self, strip: _Strip) -> tuple[np.ndarray, np.ndarray]:
        """`(y, x)` eastings and northings of a strip's pixels."""
        with self._lock:
            own = self._locks.setdefault(strip, threading.Lock())
        with own:
            found = self._kept.get(strip)
            if found is None:
                found = _interpolated(strip)
            with self._lock:
                self._kept[strip] = found
                self._kept.move_to_end(strip)
                while len(self._kept) > self._most:
                    oldest, _ = self._kept.popitem(last=False)
                    self._locks.pop(oldest, None)
        return found

    def forget(self) -> None:
        """Drop everything."""
        with self._lock:
            self._kept.clear()
            self._locks.clear()


_PROJECTED = _Projected(most=12)


def forget_places() -> None:
    """Drop the coordinates that are kept, to measure a first read."""
    _PROJECTED.forget()


def _interpolated(strip: _Strip) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a strip's pixels from those of the lattice's nodes around it."""
    down = _Axis.of(strip.pixels.row0, strip.pixels.row1, strip.shift[0])
    right = _Axis.of(strip.pixels.col0, strip.pixels.col1, strip.shift[1])
    resolution = strip.grid.resolution
    x, y = np.meshgrid(right.nodes * resolution, -down.nodes * resolution)
    nodes = strip.project(x, y)
    with np.errstate(invalid="ignore", over="ignore"):
        east, north = (right.between(down.between(part, 0), 1) for part in nodes)
        rough = _rough(nodes)
    if rough.any():
        exact = rough[np.ix_(down.cells, right.cells)]
        ys, xs = _centres(strip.grid, strip.pixels, strip.shift)
        x, y = np.meshgrid(xs, ys)
        east[exact], north[exact] = strip.project(x[exact], y[exact])
    return east, north


@dataclass(frozen=True, slots=True)
class _Axis:
    """Lattice pixels along one axis, and the nodes before, between and after them."""

    nodes: np.ndarray
    """Places of the nodes, in pixels from the CRS origin."""
    cells: np.ndarray
    """Per pixel, the first of the four nodes around it."""
    weights: np.ndarray
    """`(4, pixel)`: Lagrange's cubic through them."""

    @classmethod
    def of(cls, start: int, stop: int, shift: float) -> "_Axis":
        places = (np.arange(start, stop) + 0.5 + shift) / NODE
        cells = np.floor(places).astype(np.intp)
        t = places - cells
        weights = np.stack(
            [
                -t * (t - 1) * (t - 2) / 6,
                (t + 1) * (t - 1) * (t - 2) / 2,
                -(t + 1) * t * (t - 2) / 2,
                (t + 1) * t * (t - 1) / 6,
            ]
        )
        nodes = np.arange(cells[0] - 1, cells[-1] + 3) * NODE
        return cls(nodes, cells - cells[0], weights)

    def between(self, part: np.ndarray, axis: int) -> np.ndarray:
        """Values at the pixels, always added in the same order."""
        shape = (-1, 1) if axis == 0 else (1, -1)
        total = np.zeros((), dtype=np.float64)
        for k in range(4):
            total = total + part.take(self.cells + k, axis) * self.weights[k].reshape(shape)
        return total


def _rough(nodes: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Cells over which a cubic will not do: the projection jumps there, or does not exist."""
    size = np.zeros((nodes[0].shape[0] - 3, nodes[0].shape[1] - 3))
    third = np.zeros(size.shape)
    for part in nodes:
        corner = part[1:-2, 1:-2]
        size = np.maximum(size, np.abs(part[1:-2, 2:-1] - corner))
        size = np.maximum(size, np.abs(part[2:-1, 1:-2] - corner))
        down, right = np.abs(np.diff(part, 3, axis=0)), np.abs(np.diff(part, 3, axis=1))
        for k in range(4):
            third = np.maximum(third, down[:, k : k + size.shape[1]])
            third = np.maximum(third, right[k : k + size.shape[0], :])
    return np.asarray(~(third <= _SMOOTH * size))
