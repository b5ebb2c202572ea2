"""Tile services as a catalog of one item, and a level of tiles as a raster that can be read.

The raster is the whole level: nothing of it is asked for but the tiles of the windows that are
read, each once, a few at a time, and never faster than the recipe says. Lower levels are not
used as overviews: operators often show other imagery there.
"""

import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import numpy as np
from affine import Affine
from PIL import Image
from pyproj import Transformer
from rasterio.coords import BoundingBox
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.windows import Window

from mapper.catalog.access import redact, unsigned
from mapper.catalog.bands import Item
from mapper.catalog.source import Bbox, Period, touches
from mapper.catalog.wmts import HALF, WORLD, TileLevel, layer_bounds, wmts_level
from mapper.errors import CatalogError, MapperError, ReadError
from mapper.recipe.tiles import TileService

Fetch = Callable[[str], bytes]
"""Content of an address; empty for one that is not there (404, 410, 204). Raises ReadError."""

SCHEME = "xyz+"
WORKERS = "MAPPER_TILE_WORKERS"
"""Environment variable: how many processes share a service's rate."""
_AT_ONCE = 4
_MOST_PIXELS = 2**26
"""Of one read: 67 million pixels are 1024 tiles of 256, and 268 MB."""
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}


def xyz_level(service: TileService) -> TileLevel:
    """The level of an XYZ service: 2^zoom tiles a side over the EPSG:3857 square."""
    side = 2 ** int(service.zoom)
    level = TileLevel(
        template=service.url.replace("{z}", str(service.zoom)),
        name=str(service.zoom),
        epsg=3857,
        left=-HALF,
        top=HALF,
        resolution=2 * HALF / (side * service.tile_size),
        tile_size=service.tile_size,
        matrix=(side, side),
        limits=(0, 0, side, side),
    )
    return _within(level, service.bounds)


def tiles_over(level: TileLevel, box: Sequence[float]) -> tuple[int, int, int, int]:
    """First column and row, last column and row past the end, of the tiles that meet a box.

    `box` is in degrees. The product of the two extents is the number of requests.
    """
    project = Transformer.from_crs(4326, level.epsg, always_xy=True)
    low, high = max(box[1], -89.0), min(box[3], 89.0)
    west, south, east, north = project.transform_bounds(box[0], low, box[2], high)
    if not all(map(math.isfinite, (west, south, east, north))):
        return level.limits
    side = level.resolution * level.tile_size
    # a bound on a tile's border does not reach into the next one
    col0 = math.floor((west - level.left) / side + 1e-9)
    row0 = math.floor((level.top - north) / side + 1e-9)
    col1 = math.ceil((east - level.left) / side - 1e-9)
    row1 = math.ceil((level.top - south) / side - 1e-9)
    first_col, first_row, last_col, last_row = level.limits
    col0, row0 = max(col0, first_col), max(row0, first_row)
    return col0, row0, max(min(col1, last_col), col0), max(min(row1, last_row), row0)


def _within(level: TileLevel, bounds: Sequence[float] | None) -> TileLevel:
    if bounds is None:
        return level
    fields = {name: getattr(level, name) for name in TileLevel.__dataclass_fields__}
    return TileLevel(**fields | {"limits": tiles_over(level, bounds)})


class TileCatalog:
    """A tile service as a catalog: one item that covers the service's ground."""

    def __init__(self, service: TileService, fetch: Fetch) -> None:
        """`fetch` is asked for a WMTS capabilities document alone, and never for a tile."""
        self._service, self._fetch = service, fetch

    def search(
        self, collection: str, boxes: Sequence[Bbox], period: Period | None
    ) -> Iterator[Item]:
        """The service's item, where it touches a box; the caller compares the date.

        Raises: CatalogError where the key is not set, or the capabilities document does not
        have what the recipe names.
        """
        del period
        item = self.item(collection)
        if touches(item, boxes):
            yield item

    def item(self, collection: str) -> Item:
        """The service as a STAC item; its address holds no key. Raises: CatalogError."""
        service = self._service
        level, bbox = self._level()
        date = service.date
        properties: dict[str, Any] = {
            "datetime": f"{date.isoformat() if date else '1970-01-01'}T00:00:00Z",
            "proj:code": f"EPSG:{level.epsg}",
            "license": service.license,
            "attribution": service.attribution,
            "mapper:permission": service.permission,
        }
        properties |= {"mapper:undated": True} if date is None else {}
        properties |= {"mapper:terms": service.terms_url} if service.terms_url else {}
        west, south, east, north = bbox
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        bands = [{"name": name} for name in service.bands]
        return {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": [],
            "id": f"tiles-{service.identity}",
            "collection": collection,
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "bbox": list(bbox),
            "properties": properties,
            "links": [],
            "assets": {
                "image": {"href": href_of(level, service), "bands": bands, "roles": ["data"]}
            },
        }

    def _level(self) -> tuple[TileLevel, Bbox]:
        service = self._service
        asked = tuple(service.bounds or WORLD)
        if not service.is_wmts:
            _key_of(service, CatalogError)
            return xyz_level(service), _box(asked)
        content = self._capabilities()
        level = wmts_level(content, service, _key_of(service, CatalogError))
        known = layer_bounds(content, service) or WORLD
        low = max(asked[0], known[0]), max(asked[1], known[1])
        box = _box((*low, min(asked[2], known[2]), min(asked[3], known[3])))
        if box[0] >= box[2] or box[1] >= box[3]:
            raise CatalogError(
                f"layer {service.layer!r} covers {list(known)}, the recipe's bounds are "
                f"{list(asked)}; they do not meet"
            )
        return _within(level, service.bounds), box

    def _capabilities(self) -> bytes:
        service = self._service
        key = _key_of(service, CatalogError)
        try:
            content = self._fetch(service.url.replace("{key}", quote(key, safe="")))
        except (MapperError, OSError) as reason:
            said = _without(key, str(reason))
            raise CatalogError(f"WMTS {unsigned(service.url)} does not answer: {said}") from None
        if not content:
            raise CatalogError(f"WMTS {unsigned(service.url)} has no capabilities document")
        return content


def _box(numbers: Sequence[float]) -> Bbox:
    west, south, east, north = numbers
    return west, south, east, north


def _key_of(service: TileService, error: type[MapperError] = ReadError) -> str:
    """The API key, read whenever it is needed so that nothing keeps it."""
    if not service.key_variable:
        return ""
    key = os.environ.get(service.key_variable, "")
    if not key:
        raise error(
            f"the key of {unsigned(service.url)} is not set; put it into the environment "
            f"variable {service.key_variable}"
        )
    return key


def _without(key: str, text: str) -> str:
    """A message in which neither the key nor a query value is left."""
    for form in (key, quote(key, safe=""), quote(key)) if key else ():
        text = text.replace(form, "***")
    return redact(text)


def href_of(level: TileLevel, service: TileService) -> str:
    """The address of a level: `xyz+`, the template, and behind `#` its geometry.

    It holds `{key}` and never the key, so all of it may be kept and shown.
    """
    fields = {"service": service.identity, "level": level.name, "epsg": level.epsg}
    fields |= {"left": repr(level.left), "top": repr(level.top), "size": level.tile_size}
    fields |= {"resolution": repr(level.resolution)}
    fields |= {"matrix": ",".join(map(str, level.matrix))}
    fields |= {"limits": ",".join(map(str, level.limits))}
    return f"{SCHEME}{level.template}#{urlencode(fields)}"


def level_in(href: str) -> tuple[TileLevel, str]:
    """The level of an address of `href_of`, and its service's identity. Raises: ReadError."""
    template, _, tail = href.removeprefix(SCHEME).partition("#")
    try:
        if not href.startswith(SCHEME):
            raise ValueError("scheme")
        fields = dict(parse_qsl(tail, strict_parsing=True))
        columns, rows = map(int, fields["matrix"].split(","))
        col0, row0, col1, row1 = map(int, fields["limits"].split(","))
        level = TileLevel(
            template=template,
            name=fields["level"],
            epsg=int(fields["epsg"]),
            left=float(fields["left"]),
            top=float(fields["top"]),
            resolution=float(fields["resolution"]),
            tile_size=int(fields["size"]),
            matrix=(columns, rows),
            limits=(col0, row0, col1, row1),
        )
        identity = fields["service"]
    except (KeyError, ValueError):
        raise ReadError(
            f"{redact(href)} is not the whole address of a tile level; search again"
        ) from None
    return level, identity


_PERMITTED: dict[str, TileService] = {}


def permit(service: TileService) -> None:
    """Let this process read a service's tiles; what no recipe names is refused.

    So an item of somebody's catalog can neither make mapper take tiles without the operator's
    permission nor have a key sent to a host of its choice.
    """
    _PERMITTED[service.identity] = service


class RateLimiter:
    """A token bucket that holds one token: requests of all threads keep their distance."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self, per_second: float) -> None:
        """Return when the next request may go out."""
        with self._lock:
            now = time.monotonic()
            slot = max(now, self._next)
            self._next = slot + 1 / per_second
        time.sleep(slot - now)


_LIMITERS: dict[str, RateLimiter] = {}


class KeptTiles:
    """Encoded tiles by address, so that a band's tiles serve the next band too."""

    def __init__(self, most_bytes: int = 64 * 2**20, seconds: float = 600) -> None:
        """Keep up to `most_bytes`, the latest used, none longer than `seconds`."""
        self._most, self._seconds = most_bytes, seconds
        self._lock = threading.Lock()
        self._tiles: OrderedDict[str, tuple[Future[bytes], float]] = OrderedDict()
        self._bytes = 0

    def get(self, address: str, ask: Callable[[], bytes]) -> bytes:
        """A tile; `ask` is called by one thread alone, and again after a failure."""
        with self._lock:
            found = self._tiles.get(address)
            if found and time.monotonic() - found[1] > self._seconds and found[0].done():
                self._drop(address)
                found = None
            if found:
                self._tiles.move_to_end(address)
                future = found[0]
            else:
                future = Future()
                self._tiles[address] = future, time.monotonic()
        if not found:
            self._fill(address, future, ask)
        return future.result()

    def _fill(self, address: str, future: "Future[bytes]", ask: Callable[[], bytes]) -> None:
        try:
            content = ask()
        except BaseException as reason:
            with self._lock:
                self._tiles.pop(address)
            future.set_exception(reason)
            return
        with self._lock:
            future.set_result(content)
            self._bytes += len(content)
            for oldest in list(self._tiles):
                if self._bytes <= self._most:
                    break
                if self._tiles[oldest][0].done():
                    self._drop(oldest)

    def _drop(self, address: str) -> None:
        self._bytes -= len(self._tiles.pop(address)[0].result())


_SHARED = KeptTiles()


def decode_tile(content: bytes, size: int, channels: int) -> np.ndarray:
    """A JPEG, PNG or WebP tile as `(channels + 1, size, size)` uint8, the last one its alpha.

    Raises: ValueError, with nothing of the content in it, where it is no such tile.
    """
    if content.lstrip()[:1] == b"<":
        raise ValueError("it is text (HTML or XML), no image")
    try:
        with Image.open(BytesIO(content), formats=("JPEG", "PNG", "WEBP")) as image:
            if image.size != (size, size):
                raise ValueError(
                    f"it has {image.width} x {image.height} pixels, not {size} x {size}"
                )
            if image.mode not in _MODES:
                raise ValueError(f"its pixels are {image.mode}, not 8-bit grey or colour")
            pixels = np.asarray(image.convert("RGBA")).transpose(2, 0, 1)
    except (OSError, SyntaxError, Image.DecompressionBombError, Warning):
        raise ValueError(f"its {len(content)} bytes are no whole JPEG, PNG or WebP") from None
    values = np.where(pixels[3] > 0, pixels[:3], 0)
    if channels == 1:
        if (values != values[0]).any():
            raise ValueError("it is in colour, and the recipe names one band")
        values = values[:1]
    return np.concatenate([values, pixels[3:]]).astype(np.uint8)


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
        self._fetch, self._kept, self._rate = fetch, kept, rate
        self._limiter = _LIMITERS.setdefault(urlsplit(level.template).netloc, RateLimiter())
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
        places = list(self._places(box))
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="tiles") as pool:
            # ends with the first failure: what was not yet begun is not asked for
            for (x, y), tile in zip(places, pool.map(self._tile, places), strict=True):
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
        content = self._kept.get(self._address(x, y), lambda: self._ask(x, y, named))
        if not content:
            if self._service.empty == "fail":
                raise ReadError(f"{named} is missing; `empty: nodata` lets tiles be missing")
            return None
        try:
            return decode_tile(content, self._level.tile_size, self.count)
        except ValueError as reason:
            raise ReadError(f"{named} cannot be used: {reason}") from None

    def _address(self, x: int, y: int) -> str:
        """The tile's address, without its key."""
        south = self._level.matrix[1] - 1 - y
        template = self._level.template.replace("{-y}", str(south))
        return template.replace("{x}", str(x)).replace("{y}", str(y))

    def _ask(self, x: int, y: int, named: str) -> bytes:
        key = _key_of(self._service)
        self._limiter.wait(self._rate)
        try:
            return self._fetch(self._address(x, y).replace("{key}", quote(key, safe="")))
        except (ReadError, OSError) as reason:
            raise ReadError(f"{named} cannot be read: {_without(key, str(reason))}") from None


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

    The rate holds for each host in this process. `workers` processes divide it, by default as
    many as MAPPER_TILE_WORKERS says, else one. `service` is by default the one that `permit`
    let in; tiles are kept for the process unless `kept` says where.

    Raises: ReadError where no recipe of this process names the service.
    """
    level, identity = level_in(href)
    service = service or _PERMITTED.get(identity)
    if service is None or service.identity != identity or not _belongs(level, service):
        raise ReadError(
            f"tiles of {unsigned(level.template)} belong to no tile service that the recipe names "
            "with the operator's permission; name it, or search again after a change of the recipe"
        )
    _key_of(service)
    share = workers or _workers()
    rate = service.requests_per_second / share
    return TilePyramid(level, service, fetch, kept if kept is not None else _SHARED, rate)


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
