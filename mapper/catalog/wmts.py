"""WMTS 1.0.0: one tile matrix of a capabilities document as a level of a tile pyramid.

A level is an address template and a geometry. XYZ levels have the same shape
(`mapper.catalog.tilecatalog`), so that only this module knows WMTS. OGC 07-057r7.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError

from mapper.errors import CatalogError
from mapper.recipe.tiles import TileService
from mapper.transport.address import redact, unsigned

HALF = 20037508.342789244
"""Half a side of the EPSG:3857 square, in metres."""
WORLD = (-180.0, -85.0511287798066, 180.0, 85.0511287798066)
"""The EPSG:3857 square in degrees."""
_PIXEL = 0.00028
"""Metres a side of the standardised pixel that scale denominators count with."""
_MOST_BYTES = 64 * 2**20
_IMAGES = ("image/jpeg", "image/jpg", "image/png", "image/webp", "image/png8", "image/jpgpng")
_W = "{http://www.opengis.net/wmts/1.0}"
_O = "{http://www.opengis.net/ows/1.1}"
_HREF = "{http://www.w3.org/1999/xlink}href"


@dataclass(frozen=True, slots=True, kw_only=True)
class TileLevel:
    """One level of a tile pyramid: where its tiles are, on the ground and on the net."""

    template: str
    """Address with {x} (column), {y} (row from the north) or {-y}, and {key}; {z} is filled in."""
    name: str
    """Zoom or matrix identifier, for messages."""
    epsg: int
    left: float
    """Of the matrix, in units of the CRS."""
    top: float
    resolution: float
    """Units of the CRS per pixel, both ways."""
    tile_size: int
    matrix: tuple[int, int]
    """Columns and rows of the whole matrix."""
    limits: tuple[int, int, int, int]
    """First column, first row, last column and last row, both past the end: tiles that exist."""


class _Document(ElementTree.TreeBuilder):
    """Refuses document types: entities are of no use here, and can blow up or read files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Called at the declaration."""
        raise CatalogError(f"the document declares a type ({name}), as no WMTS document does")


def parse_capabilities(content: bytes) -> ElementTree.Element:
    """The root of a capabilities document.

    Raises: CatalogError where it is no XML, has a DTD, is over 64 MiB, or is no WMTS document.
    """
    if len(content) > _MOST_BYTES:
        raise CatalogError(f"the document has {len(content)} bytes, over {_MOST_BYTES}")
    parser = ElementTree.XMLParser(target=_Document())  # noqa: S314 - DTDs are refused
    try:
        # in pieces, so that nothing long comes after a refused declaration
        for start in range(0, len(content), 4096):
            parser.feed(content[start : start + 4096])
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as reason:
        raise CatalogError(f"the document is no XML ({reason})") from None
    if root.tag != f"{_W}Capabilities":
        raise CatalogError(f"the document is a {root.tag!r}, not WMTS 1.0.0 capabilities")
    return root


def wmts_level(content: bytes, service: TileService, key: str = "") -> TileLevel:
    """The level that a recipe names in a capabilities document.

    `key` is replaced by `{key}` wherever the document repeats it.

    Raises: CatalogError, with what there is to choose from, where layer, style, matrix set or
    matrix are not there, tiles are not square, or the CRS is not projected.
    """
    try:
        level = _Chooser(parse_capabilities(content), service, key).level()
    except CatalogError as reason:
        text = str(reason).replace(key, "***") if key else str(reason)
        raise CatalogError(f"WMTS {unsigned(service.url)}: {redact(text)}") from None
    return level


def layer_bounds(content: bytes, service: TileService) -> tuple[float, float, float, float] | None:
    """West, south, east and north of the layer in degrees; None where the document is silent."""
    found = _layer_of(parse_capabilities(content), service.layer).find(f"{_O}WGS84BoundingBox")
    if found is None:
        return None
    try:
        west, south = map(float, _text(found, f"{_O}LowerCorner").split())
        east, north = map(float, _text(found, f"{_O}UpperCorner").split())
    except ValueError:
        return None
    inside = west < east and south < north and west >= -180.001 and east <= 180.001
    if not inside:
        return None
    return max(west, -180.0), max(south, -90.0), min(east, 180.0), min(north, 90.0)


def _text(element: ElementTree.Element | None, tag: str) -> str:
    found = element.findtext(tag) if element is not None else None
    return (found or "").strip()


def _number(element: ElementTree.Element, tag: str, kind: type[Any]) -> Any:
    text = _text(element, tag)
    try:
        value = kind(text)
    except ValueError:
        raise CatalogError(f"{tag.rpartition('}')[2]} is {text!r}, not a number") from None
    if not 0 < value < 1e12:
        raise CatalogError(f"{tag.rpartition('}')[2]} is {text!r}, out of range")
    return value


def _layer_of(root: ElementTree.Element, name: str) -> ElementTree.Element:
    layers = {_text(e, f"{_O}Identifier"): e for e in root.findall(f"{_W}Contents/{_W}Layer")}
    if name not in layers:
        raise CatalogError(f"it has no layer {name!r}; {_choice(layers)}")
    return layers[name]


def _choice(names: Any) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 20} more" if len(listed) > 20 else ""
    return "there are " + ", ".join(map(repr, listed[:20])) + more if listed else "there is none"


class _Chooser:
    """What a recipe names, found in a document."""

    def __init__(self, root: ElementTree.Element, service: TileService, key: str) -> None:
        self._root, self._service, self._key = root, service, key
        self._layer = _layer_of(root, service.layer)
        self._sets = {
            _text(e, f"{_O}Identifier"): e for e in root.findall(f"{_W}Contents/{_W}TileMatrixSet")
        }

    def level(self) -> TileLevel:
        """The level, checked."""
        link = self._link
        matrix_set = self._sets[_text(link, f"{_W}TileMatrixSet")]
        crs, north_first = _crs_of(_text(matrix_set, f"{_O}SupportedCRS"))
        matrix = self._matrix(matrix_set)
        name = _text(matrix, f"{_O}Identifier")
        size = _number(matrix, f"{_W}TileWidth", int)
        if size != _number(matrix, f"{_W}TileHeight", int) or size > 4096:
            raise CatalogError(f"the tiles of matrix {name!r} are not square, or over 4096 pixels")
        grid = (_number(matrix, f"{_W}MatrixWidth", int), _number(matrix, f"{_W}MatrixHeight", int))
        left, top, resolution = _place(matrix, crs, (north_first, size, grid))
        values = self._values | {"TileMatrixSet": _text(matrix_set, f"{_O}Identifier")}
        level = TileLevel(
            template=self._template(values | {"TileMatrix": name}),
            name=name,
            epsg=crs.to_epsg() or 0,
            left=left,
            top=top,
            resolution=resolution,
            tile_size=size,
            matrix=grid,
            limits=_limits(link, name, grid),
        )
        _check_place(level, crs)
        return level

    @cached_property
    def _link(self) -> ElementTree.Element:
        """The layer's link to the matrix set that the recipe names, or to a usable one."""
        links = {
            _text(e, f"{_W}TileMatrixSet"): e for e in self._layer.findall(f"{_W}TileMatrixSetLink")
        }
        links = {n: e for n, e in links.items() if n in self._sets}
        wanted = self._service.matrix_set
        if wanted:
            if wanted not in links:
                raise CatalogError(f"the layer has no matrix set {wanted!r}; {_choice(links)}")
            return links[wanted]
        for name, link in links.items():
            if _epsg_in(_text(self._sets[name], f"{_O}SupportedCRS")) == 3857:
                return link
        raise CatalogError(f"no matrix set is in EPSG:3857; name one: {_choice(links)}")

    def _matrix(self, matrix_set: ElementTree.Element) -> ElementTree.Element:
        found = {_text(e, f"{_O}Identifier"): e for e in matrix_set.findall(f"{_W}TileMatrix")}
        wanted = str(self._service.zoom)
        if wanted in found:
            return found[wanted]
        longer = [e for n, e in found.items() if re.split(r"[:/]", n)[-1] == wanted]
        if len(longer) == 1:
            return longer[0]
        raise CatalogError(f"the matrix set has no matrix {wanted!r}; {_choice(found)}")

    @property
    def _values(self) -> dict[str, str]:
        """What stands for the placeholders of an address that do not move with the tile."""
        values = {"Layer": self._service.layer, "Style": self._style}
        for dimension in self._layer.findall(f"{_W}Dimension"):
            name, value = _text(dimension, f"{_O}Identifier"), _text(dimension, f"{_W}Default")
            if not value:
                raise CatalogError(f"the layer wants a value for {name!r} and gives no default")
            values[name] = value
        return values

    @property
    def _style(self) -> str:
        styles = {_text(e, f"{_O}Identifier"): e for e in self._layer.findall(f"{_W}Style")}
        wanted = self._service.style
        if wanted and wanted not in styles:
            raise CatalogError(f"the layer has no style {wanted!r}; {_choice(styles)}")
        default = [n for n, e in styles.items() if e.get("isDefault", "").lower() in ("true", "1")]
        return wanted or next(iter([*default, *styles]), "default")

    def _template(self, values: dict[str, str]) -> str:
        """Address of a tile with {x}, {y} and {key}: a resource URL, else a GetTile query."""
        offered = [e for e in self._layer.findall(f"{_W}ResourceURL") if _gives_tiles(e)]
        if offered:
            template = _filled(offered[0].get("template", ""), values)
        else:
            template = self._query(values)
        return self._with_key(template)

    def _query(self, values: dict[str, str]) -> str:
        formats = [(e.text or "").strip() for e in self._layer.findall(f"{_W}Format")]
        images = [f for f in formats if f.lower() in _IMAGES]
        if not images:
            raise CatalogError(f"the layer has no format that can be read; {_choice(formats)}")
        base = next(_get_addresses(self._root), "")
        if not base:
            raise CatalogError("neither a ResourceURL of tiles nor a GetTile address (KVP)")
        asked = {"SERVICE": "WMTS", "REQUEST": "GetTile", "VERSION": "1.0.0", "FORMAT": images[0]}
        asked |= {name.upper(): value for name, value in values.items()}
        pairs = [f"{name}={quote(value, safe='')}" for name, value in asked.items()]
        start = base if base.endswith(("?", "&")) else base + ("&" if "?" in base else "?")
        return _checked(start) + "&".join([*pairs, "TILEROW={y}", "TILECOL={x}"])

    def _with_key(self, template: str) -> str:
        """The address with the key out of it, and its placeholder where the recipe has it."""
        mine, theirs = urlsplit(self._service.url), urlsplit(template)
        if not self._service.key_variable:
            return template
        if (mine.scheme, mine.netloc) != (theirs.scheme, theirs.netloc):
            raise CatalogError(
                f"its tiles are at {theirs.scheme}://{theirs.hostname}, another place than the "
                "document; the key is not sent there. Use an XYZ address of that host"
            )
        for form in {self._key, quote(self._key, safe="")} - {""}:
            template = template.replace(form, "{key}")
        if "{key}" in template:
            return template
        part = next((p for p in mine.query.split("&") if "{key}" in p), "")
        if not part:
            raise CatalogError("the document's tile addresses have no place for the key")
        return template + ("&" if "?" in template else "?") + part


def _gives_tiles(resource: ElementTree.Element) -> bool:
    kind, form = resource.get("resourceType"), resource.get("format", "").lower()
    return kind == "tile" and form in _IMAGES


def _get_addresses(root: ElementTree.Element) -> Iterator[str]:
    """KVP addresses of GetTile; a Get without a stated encoding counts as KVP."""
    for operation in root.findall(f"{_O}OperationsMetadata/{_O}Operation"):
        if operation.get("name") != "GetTile":
            continue
        for get in operation.findall(f"{_O}DCP/{_O}HTTP/{_O}Get"):
            encodings = [v.text for v in get.iter(f"{_O}Value")]
            if not encodings or "KVP" in encodings:
                yield get.get(_HREF, "")


def _checked(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise CatalogError(f"its tile address {unsigned(address)!r} is no http address")
    if "{" in parts.netloc or parts.fragment:
        raise CatalogError(f"its tile address {unsigned(address)!r} cannot be filled in")
    return address


def _filled(template: str, values: dict[str, str]) -> str:
    """A resource URL with its placeholders replaced; their case does not matter."""
    known = {name.lower(): quote(value, safe="") for name, value in values.items()}
    known |= {"tilerow": "{y}", "tilecol": "{x}"}

    def fill(found: re.Match[str]) -> str:
        name = found.group(1).lower()
        if name not in known:
            raise CatalogError(f"its tile address wants {found.group(0)}, which nothing gives")
        return known[name]

    address = _checked(re.sub(r"\{([^{}]*)\}", fill, template))
    if "{x}" not in address or "{y}" not in address:
        raise CatalogError("its tile address names no TileRow or no TileCol")
    return address


def _epsg_in(text: str) -> int | None:
    """Number of the CRS in any of the ways in which documents write it."""
    found = re.search(r"EPSG(?:/|:{1,2}|:[\d.]+:|/[\d.]+/)(\d+)$", text.strip(), re.IGNORECASE)
    if not found:
        return None
    number = int(found.group(1))
    return 3857 if number in (900913, 102100, 102113, 3785) else number


def _crs_of(text: str) -> tuple[CRS, bool]:
    """The CRS of a matrix set, and whether its corners are written north first.

    URNs and http URIs have the order of the authority, plain `EPSG:3035` means x first.
    """
    number = _epsg_in(text)
    if number is None:
        raise CatalogError(f"the matrix set's CRS {text!r} has no EPSG number")
    try:
        crs = CRS.from_epsg(number)
    except CRSError:
        raise CatalogError(f"the matrix set's CRS {text!r} is not known") from None
    if not crs.is_projected:
        raise CatalogError(
            f"the matrix set is in {text}, degrees; choose one in a projected CRS (matrix_set)"
        )
    plain = text.strip().upper().startswith("EPSG:")
    return crs, not plain and crs.axis_info[0].direction == "north"


def _place(
    matrix: ElementTree.Element, crs: CRS, form: tuple[bool, int, tuple[int, int]]
) -> tuple[float, float, float]:
    """Left, top and resolution; `form` is north first, tile size, and the matrix's size."""
    north_first, size, (columns, _) = form
    text = _text(matrix, f"{_W}TopLeftCorner")
    try:
        first, second = map(float, text.split())
    except ValueError:
        raise CatalogError(f"TopLeftCorner is {text!r}, not two numbers") from None
    left, top = (second, first) if north_first else (first, second)
    scale = _number(matrix, f"{_W}ScaleDenominator", float)
    resolution = scale * _PIXEL / crs.axis_info[0].unit_conversion_factor
    exact = 2 * HALF / (columns * size)
    # documents round: at level 18 a denominator of six digits is seven pixels wrong
    near = abs(left + HALF) < 1 and abs(top - HALF) < 1 and abs(resolution / exact - 1) < 1e-5
    return (-HALF, HALF, exact) if crs.to_epsg() == 3857 and near else (left, top, resolution)


def _limits(
    link: ElementTree.Element, name: str, grid: tuple[int, int]
) -> tuple[int, int, int, int]:
    for limit in link.iter(f"{_W}TileMatrixLimits"):
        if _text(limit, f"{_W}TileMatrix") != name:
            continue
        tags = ("MinTileCol", "MinTileRow", "MaxTileCol", "MaxTileRow")
        texts = [_text(limit, _W + tag) for tag in tags]
        if not all(t.isdecimal() for t in texts):
            raise CatalogError(f"the limits of matrix {name!r} are {texts}, not whole numbers")
        col0, row0, col1, row1 = map(int, texts)
        return col0, row0, min(col1 + 1, grid[0]), min(row1 + 1, grid[1])
    return 0, 0, *grid


def _check_place(level: TileLevel, crs: CRS) -> None:
    """Refuse a matrix that misses its CRS's ground, as one with swapped corners does."""
    area = crs.area_of_use
    if area is None:
        return
    try:
        west, south, east, north = Transformer.from_crs(
            "EPSG:4326", crs, always_xy=True
        ).transform_bounds(*area.bounds)
    except ProjError:
        return
    right = level.left + level.matrix[0] * level.tile_size * level.resolution
    bottom = level.top - level.matrix[1] * level.tile_size * level.resolution
    if not (level.left < east and west < right and bottom < north and south < level.top):
        raise CatalogError(
            f"matrix {level.name!r} lies outside the ground of {crs.name}; its TopLeftCorner is "
            "probably in the wrong order"
        )
