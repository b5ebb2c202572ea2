"""Places that items come from: a STAC API, a static catalog, item files, or a folder of images."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pystac
import pystac_client
import requests
from pystac_client.stac_api_io import StacApiIO

from mapper.catalog.access import redact, retries, session, signed, unsigned
from mapper.catalog.bands import Item, flat_bbox
from mapper.catalog.folder import folder_items
from mapper.errors import CatalogError

Bbox = tuple[float, float, float, float]
"""West, south, east, north in EPSG:4326."""


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


class Catalog(Protocol):
    """Somewhere to look for items."""

    def search(
        self, collection: str, boxes: Sequence[Bbox], period: Period | None
    ) -> Iterator[Item]:
        """Items of a collection that may lie in one of the boxes and in the period."""
        ...


@dataclass(frozen=True, slots=True)
class ApiCatalog:
    """A STAC API, searched by collection, box and time; nothing else is asked of the server."""

    client: pystac_client.Client

    def search(
        self, collection: str, boxes: Sequence[Bbox], period: Period | None
    ) -> Iterator[Item]:
        """Ask the server; other filters are ours, since not every server has them."""
        return _guarded(self.client.get_self_href() or "", self._ask(collection, boxes, period))

    def _ask(self, collection: str, boxes: Sequence[Bbox], period: Period | None) -> Iterator[Item]:
        seen = set()
        for box in boxes:
            found = self.client.search(
                collections=[collection],
                bbox=list(box),
                datetime=period.interval if period else None,
                limit=100,
            )
            for item in found.items_as_dicts():
                if item["id"] not in seen:
                    seen.add(item["id"])
                    yield _with_absolute_hrefs(item, "")


@dataclass(frozen=True, slots=True)
class StaticCatalog:
    """A catalog or collection of files, walked link by link."""

    root: pystac.Catalog

    def search(
        self, collection: str, boxes: Sequence[Bbox], period: Period | None
    ) -> Iterator[Item]:
        """Every item of the collection that touches a box; time is filtered by the caller."""
        del period
        return _guarded(self.root.get_self_href() or "", self._walk(collection, boxes))

    def _walk(self, collection: str, boxes: Sequence[Bbox]) -> Iterator[Item]:
        for child, _, _ in self.root.walk():
            if child.id != collection:
                continue
            for item in child.get_items(recursive=True):
                item.make_asset_hrefs_absolute()
                content = item.to_dict(transform_hrefs=False)
                if touches(content, boxes):
                    yield _with_absolute_hrefs(content, "")


@dataclass(frozen=True, slots=True)
class ItemList:
    """Items that are all at hand: an item collection, a stac-geoparquet file, a folder."""

    items: Sequence[Item]

    def search(
        self, collection: str, boxes: Sequence[Bbox], period: Period | None
    ) -> Iterator[Item]:
        """Items of the collection that touch a box; items without a collection match any."""
        del period
        for item in self.items:
            if item.get("collection") in (None, "", collection) and touches(item, boxes):
                yield item


_FAULTS = (
    requests.RequestException,
    pystac_client.exceptions.APIError,
    pystac_client.errors.ClientTypeError,
    pystac.STACError,
    pystac.STACTypeError,
    # JSON and Unicode errors are ValueErrors
    ValueError,
    OSError,
    KeyError,
    TypeError,
    AttributeError,
)
"""What a server or file that is not STAC makes its readers raise."""


def _unusable(address: str, what: str, reason: BaseException) -> CatalogError:
    said = redact(str(reason)) or type(reason).__name__
    return CatalogError(f"catalog {unsigned(address)} cannot be {what}: {said}")


def _guarded(address: str, items: Iterator[Item]) -> Iterator[Item]:
    """The items of a search; whatever breaks on the way is the catalog's fault."""
    try:
        yield from items
    except _FAULTS as reason:
        raise _unusable(address, "searched", reason) from None


def open_catalog(address: str) -> Catalog:
    """Open whatever the address turns out to be.

    Raises: CatalogError where nothing answers or the answer is not STAC.
    """
    try:
        if address.startswith(("http://", "https://")):
            return _open_remote(address)
        return _open_local(Path(address))
    except _FAULTS as reason:
        raise _unusable(address, "opened", reason) from None


def _open_remote(address: str) -> Catalog:
    if address.endswith((".parquet", ".geoparquet")):
        raise CatalogError(f"{unsigned(address)}: download a stac-geoparquet file to use it")
    answer = session().get(address, timeout=60)
    answer.raise_for_status()
    content = _mapping(answer.json())
    if "conformsTo" in content:
        return ApiCatalog(pystac_client.Client.open(address, stac_io=_api_io()))
    if content.get("type") == "FeatureCollection":
        return ItemList([_with_absolute_hrefs(i, address) for i in content["features"]])
    return StaticCatalog(_static(address))


def _mapping(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CatalogError(f"it holds a JSON {type(content).__name__}, not a STAC object")
    return content


def _open_local(path: Path) -> Catalog:
    if path.is_dir():
        return ItemList(folder_items(path))
    if path.suffix in {".parquet", ".geoparquet"}:
        from mapper.catalog.items import read_items

        return ItemList([_with_absolute_hrefs(i, str(path)) for i in read_items(path)])
    content = _mapping(json.loads(path.read_text(encoding="utf-8")))
    if content.get("type") == "FeatureCollection":
        return ItemList([_with_absolute_hrefs(i, str(path)) for i in content["features"]])
    return StaticCatalog(_static(str(path.resolve())))


def _api_io() -> StacApiIO:
    return StacApiIO(max_retries=retries(), timeout=60)


class _FileIO(pystac.stac_io.DefaultStacIO):
    """Reads the files of a static catalog, over HTTP with retries."""

    def read_text_from_href(self, href: str) -> str:
        """The content of a file or address."""
        if not href.startswith(("http://", "https://")):
            return Path(href).read_text(encoding="utf-8")
        answer = session().get(signed(href), timeout=60)
        answer.raise_for_status()
        return answer.text


def _static(address: str) -> pystac.Catalog:
    root = pystac.read_file(address, stac_io=_FileIO())
    if not isinstance(root, pystac.Catalog):
        raise CatalogError(f"{unsigned(address)} is a STAC item; give a catalog or collection")
    return root


def _with_absolute_hrefs(item: Item, base: str) -> Item:
    """The item with absolute, unsigned asset addresses and with its self link alone."""
    assets: dict[str, Any] = {}
    for key, asset in item.get("assets", {}).items():
        href = asset.get("href", "")
        if "://" not in href and not Path(href).is_absolute() and base:
            href = pystac.utils.make_absolute_href(href, str(base))
        kept = {k: v for k, v in asset.items() if k != "alternate"}
        assets[key] = kept | {"href": unsigned(href)}
    links = [link for link in item.get("links", []) if link.get("rel") == "self"]
    return item | {"assets": assets, "links": [_plain_link(link) for link in links]}


def _plain_link(link: dict[str, Any]) -> dict[str, Any]:
    return {"rel": "self", "href": unsigned(link["href"]), "type": "application/geo+json"}


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
