"""A tile service as a catalog of one item, whose asset is the address of a level of tiles."""

import math
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from pyproj import Transformer

from mapper.catalog.bands import Item
from mapper.catalog.query import Bbox, Period, touches
from mapper.catalog.tilestore import Fetch, key_of, without_key
from mapper.catalog.wmts import HALF, WORLD, TileLevel, layer_bounds, wmts_level
from mapper.errors import CatalogError, MapperError, ReadError
from mapper.recipe.tiles import TileService
from mapper.transport.address import redact, unsigned

SCHEME = "xyz+"
"""What the address of a level of tiles begins with, before `https://`."""


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
            key_of(service, CatalogError)
            return xyz_level(service), _box(asked)
        content = self._capabilities()
        level = wmts_level(content, service, key_of(service, CatalogError))
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
        key = key_of(service, CatalogError)
        try:
            content = self._fetch(service.url.replace("{key}", quote(key, safe="")))
        except (MapperError, OSError) as reason:
            said = without_key(key, str(reason))
            raise CatalogError(f"WMTS {unsigned(service.url)} does not answer: {said}") from None
        if not content:
            raise CatalogError(f"WMTS {unsigned(service.url)} has no capabilities document")
        return content


def _box(numbers: Sequence[float]) -> Bbox:
    west, south, east, north = numbers
    return west, south, east, north


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
