"""One lattice per coordinate reference system: where a pixel, a tile and a warp block lie.

Pixels are counted from the origin of the CRS, columns eastward, rows southward, so that rows
are negative north of the origin. Tiles are counted from the same origin, columns eastward and
rows northward, so that they are positive in every UTM zone. Nothing here knows an AOI's
corner: the same ground has the same numbers whoever asks.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import shapely
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from shapely import box, prepare, segmentize
from shapely.geometry.base import BaseGeometry

from mapper.errors import AreaError, UsageError

WGS84 = "EPSG:4326"
BLOCK = 256
"""Side of a warp block and of a stored chunk in pixels; a tile is a whole number of them."""

_KEY = re.compile(r"(\d+)/(\d+(?:\.\d+)?)m/t(\d+)/r(-?\d+)c(-?\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelBox:
    """A half-open rectangle of lattice pixels: rows row0..row1-1, columns col0..col1-1."""

    row0: int
    col0: int
    row1: int
    col1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels; zero where the box is empty."""
        return max(0, self.row1 - self.row0), max(0, self.col1 - self.col0)

    @property
    def empty(self) -> bool:
        """True where the box holds no pixel."""
        return self.row1 <= self.row0 or self.col1 <= self.col0

    def grow(self, pixels: int) -> "PixelBox":
        """The box with so many pixels more on each side."""
        return PixelBox(
            row0=self.row0 - pixels,
            col0=self.col0 - pixels,
            row1=self.row1 + pixels,
            col1=self.col1 + pixels,
        )

    def intersect(self, other: "PixelBox") -> "PixelBox":
        """The pixels in both; may be empty."""
        return PixelBox(
            row0=max(self.row0, other.row0),
            col0=max(self.col0, other.col0),
            row1=min(self.row1, other.row1),
            col1=min(self.col1, other.col1),
        )

    def union(self, other: "PixelBox") -> "PixelBox":
        """The smallest box that holds both."""
        return PixelBox(
            row0=min(self.row0, other.row0),
            col0=min(self.col0, other.col0),
            row1=max(self.row1, other.row1),
            col1=max(self.col1, other.col1),
        )

    def slices_in(self, outer: "PixelBox") -> tuple[slice, slice]:
        """Where this box lies in an array that covers `outer`."""
        return (
            slice(self.row0 - outer.row0, self.row1 - outer.row0),
            slice(self.col0 - outer.col0, self.col1 - outer.col0),
        )


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class TileKey:
    """A tile's address, the same for every AOI: `32650/10m/t2048/r0123c0032`."""

    epsg: int
    resolution: float
    tile: int
    row: int
    """Counted northward from the CRS origin."""
    col: int

    def __str__(self) -> str:
        place = f"r{self.row:04d}c{self.col:04d}"
        return f"{self.epsg}/{plain_number(self.resolution)}m/t{self.tile}/{place}"

    @classmethod
    def parse(cls, text: str) -> "TileKey":
        """Read what `str` wrote. Raises: UsageError for anything else."""
        found = _KEY.fullmatch(text)
        if not found:
            raise UsageError(f"{text!r} is no tile key; write 32650/10m/t2048/r0123c0032")
        epsg, resolution, tile, row, col = found.groups()
        return cls(
            epsg=int(epsg),
            resolution=float(resolution),
            tile=int(tile),
            row=int(row),
            col=int(col),
        )

    @property
    def box(self) -> PixelBox:
        """The tile's lattice pixels."""
        return PixelBox(
            row0=-(self.row + 1) * self.tile,
            col0=self.col * self.tile,
            row1=-self.row * self.tile,
            col1=(self.col + 1) * self.tile,
        )

    @property
    def grid(self) -> "Grid":
        """The grid this tile belongs to."""
        return Grid(epsg=self.epsg, resolution=self.resolution, tile=self.tile)

    def neighbour(self, rows: int, cols: int) -> "TileKey":
        """The tile so many rows north and columns east."""
        return TileKey(
            epsg=self.epsg,
            resolution=self.resolution,
            tile=self.tile,
            row=self.row + rows,
            col=self.col + cols,
        )


def check_tile(tile: int) -> None:
    """Raise UsageError unless a tile is a whole number of blocks."""
    if tile <= 0 or tile % BLOCK:
        raise UsageError(
            f"tile size {tile} is not a positive multiple of {BLOCK}; use 512, 1024 or 2048"
        )


CELL = 2048
"""Side in pixels of the squares in which scenes are counted; tiles of usual sizes divide it."""


def cells_of(tiles: Sequence["TileKey"]) -> list["TileKey"]:
    """The fixed squares of the lattice that hold some tiles, each once."""
    found = dict.fromkeys(cell for key in tiles for cell in cells_under(key))
    return list(found)


def cells_under(key: "TileKey") -> list["TileKey"]:
    """The fixed squares that a tile lies in; the tile itself where it is larger."""
    grid = Grid(epsg=key.epsg, resolution=key.resolution, tile=max(CELL, key.tile))
    return grid.tiles_in(key.box)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A lattice of square pixels, `resolution` metres wide, cut into square tiles."""

    epsg: int
    resolution: float
    """Metres per pixel."""
    tile: int
    """Side of a tile in pixels, a multiple of 256."""

    def __post_init__(self) -> None:
        check_tile(self.tile)
        if not 0 < self.resolution < math.inf:
            raise UsageError(f"resolution {self.resolution} is not positive; give metres")

    @property
    def crs(self) -> str:
        """The CRS as an authority code."""
        return f"EPSG:{self.epsg}"

    def box_of(self, bounds: tuple[float, float, float, float]) -> PixelBox:
        """The pixels that (left, bottom, right, top) in this CRS touches, snapped outward.

        A bound within a millionth of a pixel of a lattice line counts as on it.
        """
        left, bottom, right, top = (value / self.resolution for value in bounds)
        return PixelBox(
            row0=math.floor(-top + 1e-6),
            col0=math.floor(left + 1e-6),
            row1=math.ceil(-bottom - 1e-6),
            col1=math.ceil(right - 1e-6),
        )

    def bounds_of(self, pixels: PixelBox) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of a box in this CRS."""
        res = self.resolution
        return pixels.col0 * res, -pixels.row1 * res, pixels.col1 * res, -pixels.row0 * res

    def transform_of(self, pixels: PixelBox) -> Affine:
        """Affine transform from the box's pixel corners to this CRS, north up."""
        left, _, _, top = self.bounds_of(pixels)
        return Affine(self.resolution, 0.0, left, 0.0, -self.resolution, top)

    def geobox_of(self, pixels: PixelBox) -> GeoBox:
        """The box as odc-geo's immutable geometry."""
        return GeoBox(pixels.shape, self.transform_of(pixels), self.crs)

    def tiles_in(self, pixels: PixelBox) -> list[TileKey]:
        """Tiles that hold any pixel of the box, north to south, west to east."""
        if pixels.empty:
            return []
        rows = range(-((pixels.row1 - 1) // self.tile) - 1, -(pixels.row0 // self.tile))
        cols = range(pixels.col0 // self.tile, (pixels.col1 - 1) // self.tile + 1)
        return [self.key(row, col) for row in reversed(rows) for col in cols]

    def tiles_touching(self, geometry: BaseGeometry, overhang: int = 0) -> list[TileKey]:
        """Tiles within `overhang` pixels (Chebyshev) of a geometry in this CRS."""
        outer = self.box_of(geometry.bounds).grow(overhang)
        prepare(geometry)
        reach = overhang * self.resolution
        found = []
        for key in self.tiles_in(outer):
            left, bottom, right, top = self.bounds_of(key.box)
            if geometry.intersects(box(left - reach, bottom - reach, right + reach, top + reach)):
                found.append(key)
        return found

    def key(self, row: int, col: int) -> TileKey:
        """The tile at a row (northward) and column."""
        return TileKey(epsg=self.epsg, resolution=self.resolution, tile=self.tile, row=row, col=col)


def plain_number(value: float) -> str:
    """The shortest decimal, without exponent, that reads back as the same float."""
    return f"{Decimal(repr(float(value))):f}".removesuffix(".0")


def utm_epsg(lon: float, lat: float) -> int:
    """EPSG code of the UTM zone of a point; the exceptions of Norway and Svalbard are not made.

    Raises: AreaError beyond 84 degrees north and 80 degrees south, where UTM ends.
    """
    if not -80.0 <= lat <= 84.0:
        raise AreaError(
            f"latitude {lat:.3f} lies outside UTM (-80 to 84); polar areas are not mapped"
        )
    return (32700 if lat < 0 else 32600) + utm_zone(lon)


def utm_zone(lon: float) -> int:
    """UTM zone, 1 to 60, of a longitude."""
    return int(((lon + 180.0) % 360.0) // 6.0) + 1


def project(geometry: BaseGeometry, source: str, target: str) -> BaseGeometry:
    """A geometry in another CRS; edges are densified first, so that they stay where they were."""
    left, bottom, right, top = geometry.bounds
    step = max(right - left, top - bottom) / 200 or 1.0
    transformer = Transformer.from_crs(source, target, always_xy=True)
    dense = segmentize(geometry, step)
    return shapely.transform(dense, transformer.transform, interleaved=False)  # type: ignore[arg-type]
