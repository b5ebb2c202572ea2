"""Pixels of any raster on the lattice, each from its own coordinates.

A warp of a whole tile approximates coordinates between its corners and so depends on the
tile. Here every lattice pixel's centre has coordinates of its own (`places`), so a value depends
on the ground alone. Sources on the lattice are copied, sources in the same CRS are sampled along
two vectors, and only others need a coordinate pair per pixel. Where the lattice is coarser than
the source by two or more, an overview that is not coarser than the lattice is read; never where
it is finer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterWindow

from mapper.area.grid import BLOCK, Grid, PixelBox
from mapper.catalog.bands import BandAsset
from mapper.catalog.pyramid import open_pyramid
from mapper.catalog.tilecatalog import SCHEME
from mapper.catalog.tilefetch import fetch_tile
from mapper.cube.places import Shift, epsg_of, metres, north_up, reached, source_places, subsamples
from mapper.cube.readlog import note_read
from mapper.cube.sample import Pixels, bilinear, mean, nearest
from mapper.errors import ReadError
from mapper.recipe import Resampling
from mapper.transport.address import unsigned
from mapper.transport.opening import reading

_T = TypeVar("_T")
_ALIGNED = 1e-4
"""Fraction of a pixel by which a source may be off the lattice and still be copied."""
_WHOLE = 64 << 20
"""Bytes of a source window up to which it is read at once."""


def read_band(
    band: BandAsset,
    grid: Grid,
    pixels: PixelBox,
    resampling: Resampling,
    overviews: bool = True,
) -> Pixels:
    """Read one band on a lattice box; ground outside the file is not valid.

    Args:
        band: of which file.
        grid: of the lattice.
        pixels: the box.
        resampling: between the file's pixels.
        overviews: False reads the file itself even where the lattice is coarser.

    Raises: ReadError where the asset is missing, cut off or has no CRS.
    """

    def native(dataset: Any) -> Pixels | int:
        _check(dataset, band)
        level = _overview(dataset, band.index, grid) if overviews else None
        return read(dataset) if level is None else level

    def read(dataset: Any) -> Pixels:
        return _read(_SourceBand(dataset=dataset, band=band), grid, pixels, resampling)

    found = _opened(band.href, native)
    if isinstance(found, Pixels):
        return found
    return _opened(band.href, read, overview_level=found)


def _opened(href: str, function: Callable[[Any], _T], **options: Any) -> _T:
    """What a function makes of a file, or of a level of tiles, which has no overviews."""
    if href.startswith(SCHEME):
        with open_pyramid(href, fetch_tile) as level:
            return function(level)
    return reading(href, function, **options)


def _read(source: "_SourceBand", grid: Grid, pixels: PixelBox, resampling: Resampling) -> Pixels:
    corner = _lattice_in(source.dataset, grid, pixels)
    if corner is not None:
        return source.copy(corner, pixels.shape)
    return _sample_box(source, grid, pixels, resampling)


def _check(dataset: rasterio.DatasetReader, band: BandAsset) -> None:
    where = unsigned(band.href)
    if dataset.crs is None:
        raise ReadError(f"asset {where} has no CRS; mend the file")
    if band.index > dataset.count:
        raise ReadError(f"asset {where} has {dataset.count} bands, its item promises {band.index}")


def _overview(dataset: rasterio.DatasetReader, index: int, grid: Grid) -> int | None:
    """Number of the coarsest overview that is not coarser than the lattice; None for the file."""
    factors = dataset.overviews(index)
    ratio = grid.resolution / metres(dataset) * (1 + 1e-6)
    usable = [level for level, factor in enumerate(factors) if factor <= ratio]
    return max(usable, key=lambda level: factors[level], default=None)


def _lattice_in(dataset: rasterio.DatasetReader, grid: Grid, pixels: PixelBox) -> Any:
    """Source row and column of the box's corner, where the source lies on the lattice."""
    transform = dataset.transform
    if epsg_of(dataset.crs) != grid.epsg or not north_up(transform):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _SourceBand:
    """A band of an open file."""

    dataset: rasterio.DatasetReader
    band: BandAsset

    def read(self, row: int, col: int, shape: tuple[int, int]) -> Pixels:
        """Part of the file that lies inside it."""
        window = RasterWindow(col, row, shape[1], shape[0])
        note_read(self.dataset, self.band.index, (row, col, *shape))
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
        if (row0, col0, row1 - row0, col1 - col0) == (row, col, *shape):
            return self.read(row, col, shape)
        values = np.zeros(shape, dtype=self.dtype)
        valid = np.zeros(shape, dtype=bool)
        if row0 < row1 and col0 < col1:
            part = self.read(row0, col0, (row1 - row0, col1 - col0))
            inside = slice(row0 - row, row1 - row), slice(col0 - col, col1 - col)
            values[inside], valid[inside] = part.values, part.valid
        return Pixels(values, valid)

    @property
    def dtype(self) -> np.dtype:
        """Of the stored values."""
        return np.dtype(self.dataset.dtypes[self.band.index - 1])


_Places = list[tuple[np.ndarray, np.ndarray]]
_Span = tuple[int, int, int, int]
"""First and last row and column of a part of a file, the last ones not in it."""
_Block = tuple[Pixels, int, int]
"""Part of a file, and the row and column of its corner."""


def _sample_box(
    source: _SourceBand, grid: Grid, pixels: PixelBox, resampling: Resampling
) -> Pixels:
    """Sample a box in bands of rows, which bounds memory and does not touch the result."""
    dtype = source.dtype if resampling == "nearest" else np.dtype("float32")
    values = np.zeros(pixels.shape, dtype=dtype)
    valid = np.zeros(pixels.shape, dtype=bool)
    box = reached(source.dataset, grid).intersect(pixels)
    if box.empty:
        return Pixels(values, valid)
    shifts = subsamples(source.dataset, grid) if resampling == "average" else [(0.0, 0.0)]
    strips = [
        PixelBox(row0=row, col0=box.col0, row1=min(row + BLOCK, box.row1), col1=box.col1)
        for row in range(box.row0, box.row1, BLOCK)
    ]
    spans = [_span(source, _outermost(source, grid, strip, shifts)) for strip in strips]
    reached_by = [(strip, span) for strip, span in zip(strips, spans, strict=True) if span]
    block = _whole_block(source, [span for _, span in reached_by])
    for strip, span in reached_by:
        needed = _part_of(source, span, block)
        part = _sample_strip(source, (grid, strip, shifts), resampling, needed)
        inside = strip.slices_in(pixels)
        values[inside], valid[inside] = part.values, part.valid
    return Pixels(values, valid)


def _part_of(source: _SourceBand, span: _Span, block: _Block | None) -> _Block:
    """What a strip needs of a file: of what was read of it at once, or read by itself."""
    row, row1, col, col1 = span
    if block is None:
        return source.read(row, col, (row1 - row, col1 - col)), row, col
    whole, top, left = block
    inside = slice(row - top, row1 - top), slice(col - left, col1 - left)
    return Pixels(whole.values[inside], whole.valid[inside]), row, col


def _sample_strip(
    source: _SourceBand,
    where: tuple[Grid, PixelBox, list[Shift]],
    resampling: Resampling,
    block: _Block,
) -> Pixels:
    """Values of one strip from the part of the file that it needs."""
    grid, strip, shifts = where
    pixels, row, col = block
    method: Callable[..., Pixels] = bilinear if resampling == "bilinear" else nearest

    def at(shift: Shift) -> Pixels:
        rows, cols = source_places(source.dataset, grid, strip, shift)
        return method(pixels, rows - row, cols - col)

    return at(shifts[0]) if len(shifts) == 1 else mean(map(at, shifts))


def _outermost(source: _SourceBand, grid: Grid, strip: PixelBox, shifts: list[Shift]) -> _Places:
    """Places of the corners among the points of a pixel: all others lie between."""
    least, most = shifts[0], shifts[-1]
    corners = {least, most, (least[0], most[1]), (most[0], least[1])}
    return [source_places(source.dataset, grid, strip, shift) for shift in sorted(corners)]


def _whole_block(source: _SourceBand, spans: list[_Span]) -> _Block | None:
    """All that a box needs of a file, read at once where it is not too much: one request for all
    its blocks instead of one a strip.
    """
    if not spans:
        return None
    row0, row1 = min(s[0] for s in spans), max(s[1] for s in spans)
    col0, col1 = min(s[2] for s in spans), max(s[3] for s in spans)
    if (row1 - row0) * (col1 - col0) * source.dtype.itemsize > _WHOLE:
        return None
    return source.read(row0, col0, (row1 - row0, col1 - col0)), row0, col0


def _span(source: _SourceBand, places: _Places) -> _Span | None:
    """Rows and columns of a file that some places and their neighbours need."""
    spans: list[int] = []
    for axis, limit in ((0, source.dataset.height), (1, source.dataset.width)):
        lows, highs = [], []
        for place in places:
            low, high = place[axis].min(), place[axis].max()
            if not np.isfinite(low + high):
                finite = place[axis][np.isfinite(place[axis])]
                if not finite.size:
                    return None
                low, high = finite.min(), finite.max()
            lows.append(low)
            highs.append(high)
        low = max(int(np.floor(min(lows))) - 1, 0)
        high = min(int(np.ceil(max(highs))) + 2, limit)
        if low >= high:
            return None
        spans += [low, high]
    return spans[0], spans[1], spans[2], spans[3]
