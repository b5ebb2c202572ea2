"""Pixels of any raster on the lattice, each from its own exact coordinates.

A warp of a whole tile approximates coordinates between its corners and so depends on the
tile. Here every lattice pixel's centre is projected by itself, so a value depends on the
ground alone. Sources on the lattice are copied, sources in the same CRS are sampled along two
vectors, and only others need a coordinate pair per pixel.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterWindow

from mapper.area.grid import BLOCK, Grid, PixelBox
from mapper.catalog.access import open_raster, unsigned
from mapper.catalog.bands import BandAsset
from mapper.errors import ReadError
from mapper.recipe import Resampling

_ALIGNED = 1e-4
"""Fraction of a pixel by which a source may be off the lattice and still be copied."""
_MOST_SUBSAMPLES = 16


@dataclass(frozen=True, slots=True)
class Pixels:
    """Values on a lattice box and which of them are data."""

    values: np.ndarray
    """`(y, x)`: the source's dtype where it was copied or nearest, else float32."""
    valid: np.ndarray
    """`(y, x)` bool, True = valid."""


def read_band(band: BandAsset, grid: Grid, pixels: PixelBox, resampling: Resampling) -> Pixels:
    """Read one band on a lattice box; ground outside the file is not valid.

    Raises: ReadError where the asset is missing, cut off or has no CRS.
    """
    with open_raster(band.href) as dataset:
        _check(dataset, band)
        source = _SourceBand(dataset=dataset, band=band)
        corner = _lattice_in(dataset, grid, pixels)
        if corner is not None:
            return source.copy(corner, pixels.shape)
        return _sample_box(source, grid, pixels, resampling)


def _check(dataset: rasterio.DatasetReader, band: BandAsset) -> None:
    where = unsigned(band.href)
    if dataset.crs is None:
        raise ReadError(f"asset {where} has no CRS; mend the file")
    if band.index > dataset.count:
        raise ReadError(f"asset {where} has {dataset.count} bands, its item promises {band.index}")


def _lattice_in(dataset: rasterio.DatasetReader, grid: Grid, pixels: PixelBox) -> Any:
    """Source row and column of the box's corner, where the source lies on the lattice."""
    transform = dataset.transform
    if dataset.crs.to_epsg() != grid.epsg or not _north_up(transform):
        return None
    size = max(dataset.width, dataset.height)
    if abs(transform.a / grid.resolution - 1) * size > _ALIGNED:
        return None
    if abs(-transform.e / grid.resolution - 1) * size > _ALIGNED:
        return None
    left, top = transform.c / grid.resolution, -transform.f / grid.resolution
    col, row = round(left), round(top)
    if abs(left - col) > _ALIGNED or abs(top - row) > _ALIGNED:
        return None
    return pixels.row0 - row, pixels.col0 - col


def _north_up(transform: Affine) -> bool:
    return bool(transform.b == 0 and transform.d == 0 and transform.e < 0 < transform.a)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SourceBand:
    """A band of an open file."""

    dataset: rasterio.DatasetReader
    band: BandAsset

    def read(self, row: int, col: int, shape: tuple[int, int]) -> Pixels:
        """Part of the file that lies inside it."""
        window = RasterWindow(col, row, shape[1], shape[0])
        values = self.dataset.read(self.band.index, window=window)
        valid = np.ones(values.shape, dtype=bool)
        nodata = self.band.nodata
        if nodata is None:
            nodata = self.dataset.nodatavals[self.band.index - 1]
        if nodata is not None and not np.isnan(nodata):
            valid &= values != nodata
        if values.dtype.kind == "f":
            valid &= np.isfinite(values)
        flags = self.dataset.mask_flag_enums[self.band.index - 1]
        if MaskFlags.per_dataset in flags:
            valid &= self.dataset.read_masks(self.band.index, window=window) > 0
        return Pixels(values, valid)

    def copy(self, corner: tuple[int, int], shape: tuple[int, int]) -> Pixels:
        """Whole pixels, without any resampling; `corner` may lie outside the file."""
        row, col = corner
        row0, row1 = max(row, 0), min(row + shape[0], self.dataset.height)
        col0, col1 = max(col, 0), min(col + shape[1], self.dataset.width)
        values = np.zeros(shape, dtype=self.dataset.dtypes[self.band.index - 1])
        valid = np.zeros(shape, dtype=bool)
        if row0 < row1 and col0 < col1:
            part = self.read(row0, col0, (row1 - row0, col1 - col0))
            inside = slice(row0 - row, row1 - row), slice(col0 - col, col1 - col)
            values[inside], valid[inside] = part.values, part.valid
        return Pixels(values, valid)


def _sample_box(
    source: _SourceBand, grid: Grid, pixels: PixelBox, resampling: Resampling
) -> Pixels:
    """Sample a box in bands of rows, which bounds memory and does not touch the result."""
    dtype = source.dataset.dtypes[source.band.index - 1] if resampling == "nearest" else "float32"
    values = np.zeros(pixels.shape, dtype=dtype)
    valid = np.zeros(pixels.shape, dtype=bool)
    reached = _reached(source.dataset, grid).intersect(pixels)
    for row in range(reached.row0, reached.row1, BLOCK):
        strip = PixelBox(
            row0=row, col0=reached.col0, row1=min(row + BLOCK, reached.row1), col1=reached.col1
        )
        part = _sample_strip(source, grid, strip, resampling)
        if part is not None:
            inside = strip.slices_in(pixels)
            values[inside], valid[inside] = part.values, part.valid
    return Pixels(values, valid)


def _reached(dataset: rasterio.DatasetReader, grid: Grid) -> PixelBox:
    """A lattice box that holds every pixel the file can give a value to, and some more."""
    ring = _outline(dataset.bounds)
    x, y = _transformer(dataset.crs.to_wkt(), grid.crs).transform(*ring)
    known = np.isfinite(x) & np.isfinite(y)
    if not known.all():
        return PixelBox(row0=-(10**9), col0=-(10**9), row1=10**9, col1=10**9)
    box = grid.box_of((x.min(), y.min(), x.max(), y.max()))
    # a border that bulges between its points stays well inside the margin
    return box.grow(16 + max(box.shape) // 100)


def _outline(bounds: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Points around a rectangle, 21 a side."""
    left, bottom, right, top = bounds
    x, y = np.linspace(left, right, 21), np.linspace(bottom, top, 21)
    sides = [(x, np.full(21, bottom)), (x, np.full(21, top))]
    sides += [(np.full(21, left), y), (np.full(21, right), y)]
    return np.concatenate([s[0] for s in sides]), np.concatenate([s[1] for s in sides])


def _sample_strip(
    source: _SourceBand, grid: Grid, strip: PixelBox, resampling: Resampling
) -> Pixels | None:
    """Values of one strip; None where the file does not reach it."""
    shifts = _subsamples(source.dataset, grid) if resampling == "average" else [(0.0, 0.0)]
    places = [_source_places(source.dataset, grid, strip, shift) for shift in shifts]
    block = _read_around(source, places)
    if block is None:
        return None
    pixels, row, col = block
    method: Callable[..., Pixels] = _bilinear if resampling == "bilinear" else _nearest
    parts = [method(pixels, rows - row, cols - col) for rows, cols in places]
    return parts[0] if len(parts) == 1 else _mean(parts)


def _subsamples(dataset: rasterio.DatasetReader, grid: Grid) -> list[tuple[float, float]]:
    """Offsets, in target pixels, of the points whose mean stands for an area."""
    epsg = dataset.crs.to_epsg()
    size = abs(dataset.transform.a) * (111_320.0 if dataset.crs.is_geographic else 1.0)
    count = (
        1 if epsg is None else int(np.clip(np.ceil(grid.resolution / size), 1, _MOST_SUBSAMPLES))
    )
    steps = (np.arange(count) + 0.5) / count - 0.5
    return [(float(dy), float(dx)) for dy in steps for dx in steps]


def _source_places(
    dataset: rasterio.DatasetReader, grid: Grid, strip: PixelBox, shift: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Source rows and columns of lattice pixel centres; whole numbers are source centres.

    Returns: arrays that broadcast to the strip's shape.
    """
    rows = np.arange(strip.row0, strip.row1) + 0.5 + shift[0]
    cols = np.arange(strip.col0, strip.col1) + 0.5 + shift[1]
    y, x = -rows * grid.resolution, cols * grid.resolution
    transform = dataset.transform
    if dataset.crs.to_epsg() == grid.epsg and _north_up(transform):
        return (
            ((y - transform.f) / transform.e - 0.5)[:, None],
            ((x - transform.c) / transform.a - 0.5)[None, :],
        )
    east, north = _projected(grid.crs, dataset.crs.to_wkt(), (grid, strip, shift))
    inverse = ~transform
    return (
        inverse.d * east + inverse.e * north + inverse.f - 0.5,
        inverse.a * east + inverse.b * north + inverse.c - 0.5,
    )


def _transformer(source: str, target: str) -> Transformer:
    """A transformer of this thread's own: PROJ's objects cannot be used by two at once."""
    return _transformer_of(threading.get_ident(), source, target)


@lru_cache(maxsize=64)
def _transformer_of(thread: int, source: str, target: str) -> Transformer:
    del thread
    return Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=12)
def _projected(
    source: str, target: str, where: tuple[Grid, PixelBox, tuple[float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of a strip's pixel centres in another CRS, kept for the bands to come."""
    grid, strip, shift = where
    rows = np.arange(strip.row0, strip.row1) + 0.5 + shift[0]
    cols = np.arange(strip.col0, strip.col1) + 0.5 + shift[1]
    x, y = np.meshgrid(cols * grid.resolution, -rows * grid.resolution)
    east, north = _transformer(source, target).transform(x, y)
    return np.asarray(east), np.asarray(north)


def _read_around(
    source: _SourceBand, places: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[Pixels, int, int] | None:
    """The part of the file that the places and their neighbours need, and its corner."""
    with np.errstate(invalid="ignore"):
        spans = []
        for axis, limit in ((0, source.dataset.height), (1, source.dataset.width)):
            finite = [p[axis][np.isfinite(p[axis])] for p in places]
            if not all(f.size for f in finite):
                return None
            low = max(int(np.floor(min(f.min() for f in finite))) - 1, 0)
            high = min(int(np.ceil(max(f.max() for f in finite))) + 2, limit)
            if low >= high:
                return None
            spans.append((low, high))
    (row0, row1), (col0, col1) = spans
    return source.read(row0, col0, (row1 - row0, col1 - col0)), row0, col0


def _indices(places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers inside 0..size-1, and which of the places were inside."""
    inside = np.isfinite(places) & (places >= 0) & (places < size)
    return np.where(inside, places, 0).astype(np.intp), inside


def _nearest(pixels: Pixels, rows: np.ndarray, cols: np.ndarray) -> Pixels:
    """The source pixel in which each place lies; a place on an edge takes the later one."""
    row, row_inside = _indices(np.floor(rows + 0.5), pixels.values.shape[0])
    col, col_inside = _indices(np.floor(cols + 0.5), pixels.values.shape[1])
    return Pixels(pixels.values[row, col], pixels.valid[row, col] & row_inside & col_inside)


def _bilinear(pixels: Pixels, rows: np.ndarray, cols: np.ndarray) -> Pixels:
    """Weighted mean of the four neighbours that are data; valid where the nearest one is."""
    height, width = pixels.values.shape
    values = np.where(pixels.valid, pixels.values, 0).astype(np.float32)
    top, left = np.floor(rows), np.floor(cols)
    shape = np.broadcast_shapes(rows.shape, cols.shape)
    total = np.zeros(shape, dtype=np.float32)
    weights = np.zeros(shape, dtype=np.float32)
    for down in (0, 1):
        row, row_inside = _indices(top + down, height)
        row_weight = (1 - np.abs(rows - (top + down))).astype(np.float32)
        for right in (0, 1):
            col, col_inside = _indices(left + right, width)
            col_weight = (1 - np.abs(cols - (left + right))).astype(np.float32)
            usable = pixels.valid[row, col] & row_inside & col_inside
            weight = np.where(usable, row_weight * col_weight, np.float32(0))
            total += weight * values[row, col]
            weights += weight
    valid = _nearest(pixels, rows, cols).valid & (weights > 0)
    return Pixels(np.where(valid, total / np.where(weights > 0, weights, 1), 0), valid)


def _mean(parts: list[Pixels]) -> Pixels:
    """Mean of the valid ones; valid where at least half of the points are."""
    count = np.sum([p.valid for p in parts], axis=0)
    total = np.sum([np.where(p.valid, p.values, 0).astype(np.float32) for p in parts], axis=0)
    valid = count * 2 >= len(parts)
    return Pixels((total / np.maximum(count, 1)).astype(np.float32), valid)
