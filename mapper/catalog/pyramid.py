"""A level of tiles as a raster that can be read.

The raster is the whole level: nothing of it is asked for but the tiles of the windows that are
read, each once, a few at a time, and never faster than the recipe says. Lower levels are not
used as overviews: operators often show other imagery there.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit

import numpy as np
from affine import Affine
from rasterio.coords import BoundingBox
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from mapper.catalog.tilecatalog import level_in, xyz_level
from mapper.catalog.tilestore import (
    Fetch,
    KeptTiles,
    decode_tile,
    key_of,
    limiter_of,
    without_key,
)
from mapper.catalog.wmts import TileLevel
from mapper.errors import ReadError
from mapper.recipe.tiles import TileService
from mapper.transport.address import unsigned

WORKERS = "MAPPER_TILE_WORKERS"
"""Environment variable: how many processes share a service's rate."""
_AT_ONCE = 4
_MOST_PIXELS = 2**26
"""Of one read: 67 million pixels are 1024 tiles of 256, and 268 MB."""
_SHARED = KeptTiles()


_PERMITTED: dict[str, TileService] = {}


def permit(service: TileService) -> None:
    """Let this process read a service's tiles; what no recipe names is refused.

    So an item of somebody's catalog can neither make mapper take tiles without the operator's
    permission nor have a key sent to a host of its choice.
    """
    _PERMITTED[service.identity] = service


class TilePyramid:
    """A level of tiles with what `mapper.cube.warp` uses of rasterio's `DatasetReader`.

    Rows go south. Alpha is the mask; ground without tiles is not valid and reads 0. Not for
    several threads at once, as rasterio's datasets are not either.
    """

    nodata = None
    driver = "XYZ"

    def __init__(
        self, level: TileLevel, service: TileService, fetch: Fetch, kept: KeptTiles, rate: float
    ) -> None:
        self._level, self._service = level, service
        self._fetch, self._kept = fetch, kept
        limiter_of(urlsplit(level.template).netloc).agree(rate)
        self._last: tuple[tuple[int, int, int, int], np.ndarray] | None = None
        self.crs = CRS.from_epsg(level.epsg)
        self.transform = Affine(level.resolution, 0, level.left, 0, -level.resolution, level.top)
        self.width, self.height = (n * level.tile_size for n in level.matrix)
        self.shape = self.height, self.width
        self.count = len(service.bands)
        self.indexes = tuple(range(1, self.count + 1))
        self.descriptions = tuple(service.bands)
        self.dtypes = ("uint8",) * self.count
        self.nodatavals = (None,) * self.count
        self.mask_flag_enums = ([MaskFlags.per_dataset, MaskFlags.alpha],) * self.count
        self.block_shapes = [(level.tile_size, level.tile_size)] * self.count

    def __enter__(self) -> Self:
        """The pyramid itself; nothing is asked for yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Forget the window read last."""
        self._last = None

    @property
    def bounds(self) -> BoundingBox:
        """Of the whole level, in its CRS."""
        left, top, res = self._level.left, self._level.top, self._level.resolution
        return BoundingBox(left, top - self.height * res, left + self.width * res, top)

    def overviews(self, index: int) -> list[int]:
        """None: other levels of a service may show other imagery."""
        del index
        return []

    def read(
        self,
        index: int | Sequence[int] | None = None,
        window: Window | None = None,
        out_shape: tuple[int, ...] | None = None,
    ) -> np.ndarray:
        """Values, `(y, x)` uint8 of one band or `(band, y, x)`; `out_shape` takes the nearest.

        Raises: ReadError, naming tile and service, where a tile cannot be had, or where the
        window has more than 67 million pixels.
        """
        bands = self.indexes if index is None else index
        picked = np.asarray(bands) - 1
        if np.any(picked < 0) or np.any(picked >= self.count):
            raise ReadError(f"{self._where} has {self.count} bands; {bands} was asked for")
        return _thinned(self._mosaic(window)[picked], out_shape)

    def read_masks(
        self, index: int, window: Window | None = None, out_shape: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """`(y, x)` uint8: the tiles' alpha, 255 where they have none, 0 where there is no tile."""
        del index
        return _thinned(self._mosaic(window)[-1], out_shape)

    @property
    def _where(self) -> str:
        return f"{unsigned(self._level.template)} at level {self._level.name}"

    def _mosaic(self, window: Window | None) -> np.ndarray:
        """`(band + 1, y, x)` of a window; the last one is kept for the next band and the mask."""
        window = window or Window(0, 0, self.width, self.height)
        numbers = window.row_off, window.col_off, window.height, window.width
        row, col, height, width = map(int, numbers)
        whole = numbers == (row, col, height, width)
        fits = 0 <= row < row + height <= self.height and 0 <= col < col + width <= self.width
        if not (whole and fits):
            raise ReadError(f"{self._where}: window {window} does not lie on its pixels")
        if height * width > _MOST_PIXELS:
            raise ReadError(
                f"{self._where}: {height} x {width} pixels at once are too many; name a coarser "
                "zoom in the recipe, one near its resolution"
            )
        box = row, col, row + height, col + width
        if self._last is None or self._last[0] != box:
            self._last = box, self._assembled(box)
        return self._last[1]

    def _assembled(self, box: tuple[int, int, int, int]) -> np.ndarray:
        row0, col0, row1, col1 = box
        size = self._level.tile_size
        made = np.zeros((self.count + 1, row1 - row0, col1 - col0), dtype=np.uint8)
        # with a context each, so that requests count where they were caused
        jobs = [(copy_context(), place) for place in self._places(box)]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="tiles") as pool:
            # ends with the first failure: what was not yet begun is not asked for
            tiles = pool.map(lambda job: job[0].run(self._tile, job[1]), jobs)
            for (_, (x, y)), tile in zip(jobs, tiles, strict=True):
                if tile is None:
                    continue
                top, left = y * size, x * size
                rows = slice(max(top, row0), min(top + size, row1))
                cols = slice(max(left, col0), min(left + size, col1))
                made[
                    :, rows.start - row0 : rows.stop - row0, cols.start - col0 : cols.stop - col0
                ] = tile[
                    :, rows.start - top : rows.stop - top, cols.start - left : cols.stop - left
                ]
        return made

    def _places(self, box: tuple[int, int, int, int]) -> Iterator[tuple[int, int]]:
        """Column and row of the tiles that a box needs and the service has."""
        size = self._level.tile_size
        col0, row0, col1, row1 = self._level.limits
        for y in range(max(box[0] // size, row0), min(-(-box[2] // size), row1)):
            for x in range(max(box[1] // size, col0), min(-(-box[3] // size), col1)):
                yield x, y

    def _tile(self, place: tuple[int, int]) -> np.ndarray | None:
        """A decoded tile; None where it is missing and may be."""
        x, y = place
        named = f"tile {self._level.name}/{x}/{y} of {unsigned(self._level.template)}"
        address = self._address(x, y)
        content = self._kept.get(address, lambda: self._ask(x, y, named))
        if not content:
            if self._service.empty == "fail":
                raise ReadError(f"{named} is missing; `empty: nodata` lets tiles be missing")
            return None
        try:
            return decode_tile(content, self._level.tile_size, self.count)
        except ValueError as reason:
            self._kept.drop(address, content)
            raise ReadError(f"{named} cannot be used: {reason}") from None

    def _address(self, x: int, y: int) -> str:
        """The tile's address, without its key."""
        south = self._level.matrix[1] - 1 - y
        template = self._level.template.replace("{-y}", str(south))
        return template.replace("{x}", str(x)).replace("{y}", str(y))

    def _ask(self, x: int, y: int, named: str) -> bytes:
        key = key_of(self._service)
        try:
            return self._fetch(self._address(x, y).replace("{key}", quote(key, safe="")))
        except (ReadError, OSError) as reason:
            raise ReadError(f"{named} cannot be read: {without_key(key, str(reason))}") from None


def _thinned(values: np.ndarray, out_shape: tuple[int, ...] | None) -> np.ndarray:
    """A copy; where a shape is given, the source pixel under each target pixel's centre."""
    if out_shape is None:
        return values.copy()
    height, width = values.shape[-2:]
    rows = ((np.arange(out_shape[-2]) + 0.5) * height / out_shape[-2]).astype(np.intp)
    cols = ((np.arange(out_shape[-1]) + 0.5) * width / out_shape[-1]).astype(np.intp)
    return values[..., rows[:, None], cols[None, :]]


def open_pyramid(
    href: str,
    fetch: Fetch,
    *,
    service: TileService | None = None,
    kept: KeptTiles | None = None,
    workers: int | None = None,
) -> TilePyramid:
    """The raster behind an address of `TileCatalog`; no tile is asked for yet.

    The rate holds for each host in this process, the lowest of several. `workers` processes
    divide it, by default as many as MAPPER_TILE_WORKERS says, else one. `service` is by default
    the one that `permit` let in; tiles are kept for the process unless `kept` says where.

    Raises: ReadError where no recipe of this process names the service.
    """
    level, identity = level_in(href)
    service = service or _PERMITTED.get(identity)
    if service is None or service.identity != identity or not _belongs(level, service):
        raise ReadError(
            f"tiles of {unsigned(level.template)} belong to no tile service that the recipe names "
            "with the operator's permission; name it, or search again after a change of the recipe"
        )
    key_of(service)
    share = workers or _workers()
    rate = service.requests_per_second / share
    return TilePyramid(level, service, fetch, kept if kept is not None else _SHARED, rate)


def pyramid_fingerprint(href: str, fetch: Fetch) -> str:
    """What tells one content of a level from another: its service's identity. Nothing is asked.

    Raises: ReadError as `open_pyramid`.
    """
    with open_pyramid(href, fetch):
        return level_in(href)[1]


def _workers() -> int:
    text = os.environ.get(WORKERS, "1")
    if not text.isdecimal() or int(text) < 1:
        raise ReadError(f"{WORKERS} is {text!r}; give the number of worker processes")
    return int(text)


def _belongs(level: TileLevel, service: TileService) -> bool:
    """True where a level's addresses are those of the service, above all those with a key."""
    if not service.is_wmts:
        return level == xyz_level(service)
    mine, theirs = urlsplit(service.url), urlsplit(level.template)
    same = (mine.scheme, mine.netloc) == (theirs.scheme, theirs.netloc)
    return theirs.scheme in ("http", "https") and (same or not service.key_variable)
