"""What a catalog is asked: where, when, and which properties; and how a server is told."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from pystac.utils import make_absolute_href

from mapper.catalog.bands import Item, cloud_cover, flat_bbox
from mapper.catalog.observation import orbit_state
from mapper.errors import CatalogError
from mapper.transport.address import redact, unsigned

Bbox = tuple[float, float, float, float]
"""West, south, east, north in EPSG:4326."""

_SIGNATURES = frozenset(
    {
        *("sig", "se", "sp", "sv", "sr", "st", "spr", "sip", "ss", "srt"),
        *("skoid", "sktid", "skt", "ske", "sks", "skv", "saoid", "suoid", "scid"),
        *("expires", "signature", "key-pair-id", "policy", "awsaccesskeyid", "googleaccessid"),
        *("token", "access_token"),
    }
)
"""Names in lower case under which an address is signed: Azure, Amazon, Google and others."""
_BESIDE = frozenset({"thumbnail", "overview", "metadata", "tiles"})
_BESIDE_TYPES = ("image/png", "image/jpeg", "image/webp", "text/", "application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A stretch of time, both ends included."""

    start: datetime
    end: datetime

    @classmethod
    def year(cls, year: int) -> "Period":
        """A calendar year, UTC."""
        return cls(
            start=datetime(year, 1, 1, tzinfo=UTC),
            end=datetime(year, 12, 31, 23, 59, 59, tzinfo=UTC),
        )

    @property
    def interval(self) -> str:
        """As STAC writes it."""
        return "/".join(t.isoformat().replace("+00:00", "Z") for t in (self.start, self.end))


@dataclass(frozen=True, slots=True, kw_only=True)
class PropertyFilter:
    """Which scenes are wanted by their properties; a field that is None or empty asks nothing.

    A server may be asked for it in CQL2 or by the older query extension; `keeps` says the same
    of an item at hand and has the last word.
    """

    cloud_cover: float | None = None
    """Per cent of a scene at most; a scene that does not know its cloud cover is kept."""
    orbit_state: str | None = None
    """`ascending` or `descending`; a scene that does not know its own is left out."""
    platforms: tuple[str, ...] = ()
    """Such as `sentinel-2a`, letter case aside."""

    def __bool__(self) -> bool:
        return bool(self.words)

    @property
    def words(self) -> str:
        """The filter as an account says it; empty where nothing is asked."""
        said = []
        if self.cloud_cover is not None:
            said.append(f"cloud cover up to {self.cloud_cover:g} %")
        if self.orbit_state:
            said.append(f"{self.orbit_state} orbits")
        if self.platforms:
            said.append(f"platform {' or '.join(self.platforms)}")
        return ", ".join(said)

    def keeps(self, item: Item) -> bool:
        """True where the item is wanted."""
        if self.cloud_cover is not None and cloud_cover(item) > self.cloud_cover:
            return False
        if self.orbit_state and orbit_state(item) != self.orbit_state:
            return False
        platform = str(item["properties"].get("platform", "")).lower()
        return not self.platforms or platform in {p.lower() for p in self.platforms}

    def cql2(self) -> dict[str, Any]:
        """As CQL2-JSON (OGC 21-065r2), of its basic conformance class alone."""
        terms: list[dict[str, Any]] = []
        if self.cloud_cover is not None:
            field = {"property": "eo:cloud_cover"}
            limit = {"op": "<=", "args": [field, self.cloud_cover]}
            terms.append({"op": "or", "args": [limit, {"op": "isNull", "args": [field]}]})
        if self.orbit_state:
            terms.append(_equal("sat:orbit_state", self.orbit_state))
        if self.platforms:
            names = [_equal("platform", name) for name in self._spelled()]
            terms.append({"op": "or", "args": names})
        return terms[0] if len(terms) == 1 else {"op": "and", "args": terms}

    def query(self) -> dict[str, Any]:
        """For the query extension, which cannot say "or unknown"."""
        found: dict[str, Any] = {}
        if self.cloud_cover is not None:
            found["eo:cloud_cover"] = {"lte": self.cloud_cover}
        if self.orbit_state:
            found["sat:orbit_state"] = {"eq": self.orbit_state}
        if self.platforms:
            found["platform"] = {"in": self._spelled()}
        return found

    def _spelled(self) -> list[str]:
        """Platforms as archives write them: `sentinel-2a`, `Sentinel-2A`, `SENTINEL-2A`."""
        found: list[str] = []
        for name in self.platforms:
            head, dash, tail = name.lower().rpartition("-")
            found += [name.lower(), f"{head.title()}{dash}{tail.upper()}", name.upper()]
        return list(dict.fromkeys(found))


def _equal(name: str, value: str) -> dict[str, Any]:
    return {"op": "=", "args": [{"property": name}, value]}


class Catalog(Protocol):
    """Somewhere to look for items."""

    def search(
        self, collection: str, boxes: Sequence[Bbox], period: Period | None
    ) -> Iterator[Item]:
        """Items of a collection that may lie in one of the boxes and in the period."""
        ...


def touches(item: Item, boxes: Sequence[Bbox]) -> bool:
    """True where the item's bbox meets one of the boxes; an item that crosses 180 always does."""
    bbox = item.get("bbox")
    if not bbox or len(bbox) not in (4, 6):
        return True
    west, south, east, north = flat_bbox(item)
    if east < west:
        return True
    return any(
        west <= box[2] and box[0] <= east and south <= box[3] and box[1] <= north for box in boxes
    )


def with_absolute_hrefs(item: Item, base: str) -> Item:
    """The item with absolute, unsigned asset addresses and with its self link alone.

    Raises: CatalogError where two assets that hold data are then one address, since a query
        said which is which.
    """
    assets: dict[str, Any] = {}
    full: dict[str, str] = {}
    for key, asset in item.get("assets", {}).items():
        href = asset.get("href", "")
        if "://" not in href and not Path(href).is_absolute() and base:
            href = make_absolute_href(href, str(base))
        kept = {k: v for k, v in asset.items() if k != "alternate"}
        # most addresses carry neither a token nor a user, and there are dozens in an item
        kept["href"] = unsigned(href) if set("?#@;") & set(href) else href
        assets[key] = kept
        full[key] = href
    if any("?" in href for href in full.values()):
        _check_apart(item, full)
    links = [link for link in item.get("links", []) if link.get("rel") == "self"]
    return item | {"assets": assets, "links": [_plain_link(link) for link in links]}


def _check_apart(item: Item, full: Mapping[str, str]) -> None:
    """Raises: CatalogError where the query says which file of several an asset is."""
    told: dict[str, tuple[str, str]] = {}
    for key, href in full.items():
        if _is_beside_the_data(item["assets"][key]):
            continue
        other, selection = told.setdefault(unsigned(href), (key, _selection(href)))
        if selection != _selection(href):
            raise CatalogError(
                f"item {item.get('id')}: the addresses of assets {other} and {key} differ only in "
                f"the query of {redact(href)}, which is not kept, since tokens travel in queries; "
                "use a catalog whose files have paths of their own"
            )


def _is_beside_the_data(asset: dict[str, Any]) -> bool:
    """True for previews and descriptions, which services make by query and nobody reads."""
    kind = str(asset.get("type") or "")
    roles = asset.get("roles")
    named = set(map(str, roles)) if isinstance(roles, list) else set()
    return bool(named & _BESIDE) or kind.startswith(_BESIDE_TYPES)


def _selection(href: str) -> str:
    """What of a query chooses a file: all but the signature."""
    if "?" not in href or "://" not in href:
        return ""
    pairs = parse_qsl(urlsplit(href).query, keep_blank_values=True)
    chosen = [(n, v) for n, v in pairs if not _is_signature(n.lower())]
    return urlencode(sorted(chosen))


def _is_signature(name: str) -> bool:
    return name in _SIGNATURES or name.startswith(("x-amz-", "x-goog-"))


def _plain_link(link: dict[str, Any]) -> dict[str, Any]:
    return {"rel": "self", "href": unsigned(link["href"]), "type": "application/geo+json"}
