"""Places that items come from: a STAC API, a static catalog, item files, or a folder of images."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pystac
import pystac_client
from pystac_client.stac_api_io import StacApiIO

from mapper.catalog.api import Answer, ApiCatalog
from mapper.catalog.bands import Item
from mapper.catalog.faults import FAULTS, guarded, unusable
from mapper.catalog.folder import folder_items
from mapper.catalog.geoparquet import BoxIndex, ParquetCatalog, open_parquet
from mapper.catalog.query import (
    Bbox,
    Catalog,
    Period,
    PropertyFilter,
    touches,
    with_absolute_hrefs,
)
from mapper.errors import CatalogError
from mapper.transport.address import unsigned
from mapper.transport.searching import retries, session
from mapper.transport.tokens import signed

__all__ = [
    "ApiCatalog",
    "Bbox",
    "Catalog",
    "ItemList",
    "ParquetCatalog",
    "Period",
    "StaticCatalog",
    "ask",
    "open_catalog",
    "sample",
    "touches",
]


def ask(
    catalog: Catalog,
    collection: str,
    boxes: Sequence[Bbox],
    period: Period | None,
    filters: PropertyFilter,
) -> Answer:
    """Search a catalog, with filters where it can be asked for them.

    Raises: CatalogError, whatever breaks on the way.
    """
    if isinstance(catalog, ApiCatalog):
        return catalog.ask(collection, boxes, period, filters)
    if isinstance(catalog, ParquetCatalog):
        return Answer(items=tuple(catalog.light(collection, boxes, period, filters)), sound=True)
    return Answer(items=tuple(catalog.search(collection, boxes, period)))


def sample(catalog: Catalog, collection: str, boxes: Sequence[Bbox]) -> Answer:
    """Some items of any time over the boxes, to tell a person what there would be.

    A STAC API is asked for one page and says with `partly` that there may be more.

    Raises: CatalogError, whatever breaks on the way.
    """
    if isinstance(catalog, ApiCatalog):
        return catalog.first_page(collection, boxes)
    return ask(catalog, collection, boxes, None, PropertyFilter())


@dataclass(frozen=True, slots=True)
class StaticCatalog:
    """A catalog or collection of files, walked link by link."""

    root: pystac.Catalog

    def search(
        self, collection: str, boxes: Sequence[Bbox], period: Period | None
    ) -> Iterator[Item]:
        """Every item of the collection that touches a box; time is filtered by the caller."""
        del period
        return guarded(self.root.get_self_href() or "", self._walk(collection, boxes))

    def _walk(self, collection: str, boxes: Sequence[Bbox]) -> Iterator[Item]:
        for child, _, _ in self.root.walk():
            if child.id != collection:
                continue
            for item in child.get_items(recursive=True):
                item.make_asset_hrefs_absolute()
                content = item.to_dict(transform_hrefs=False)
                if touches(content, boxes):
                    yield with_absolute_hrefs(content, "")


@dataclass(frozen=True, slots=True)
class ItemList:
    """Items that are all at hand: an item collection or a folder."""

    items: Sequence[Item]
    base: str = ""
    """Address or path that relative addresses start from; empty leaves items as they are."""
    _boxes: BoxIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_boxes", BoxIndex.of(self.items))

    def search(
        self, collection: str, boxes: Sequence[Bbox], period: Period | None
    ) -> Iterator[Item]:
        """Items of the collection that touch a box; items without a collection match any."""
        del period
        return guarded(self.base, self._found(collection, boxes))

    def _found(self, collection: str, boxes: Sequence[Bbox]) -> Iterator[Item]:
        for number in self._boxes.hits(boxes).nonzero()[0].tolist():
            item = self.items[number]
            if item.get("collection") in (None, "", collection):
                yield with_absolute_hrefs(item, self.base) if self.base else item


def open_catalog(address: str) -> Catalog:
    """Open whatever the address turns out to be.

    Raises: CatalogError where nothing answers or the answer is not STAC.
    """
    try:
        if address.startswith(("http://", "https://")):
            return _open_remote(address)
        return _open_local(Path(address))
    except FAULTS as reason:
        raise unusable(address, "opened", reason) from None


def _open_remote(address: str) -> Catalog:
    if address.endswith((".parquet", ".geoparquet")):
        raise CatalogError(f"{unsigned(address)}: download a stac-geoparquet file to use it")
    answer = session().get(address, timeout=60)
    answer.raise_for_status()
    content = _mapping(answer.json())
    if "conformsTo" in content:
        io = StacApiIO(max_retries=retries(), timeout=60)
        return ApiCatalog(pystac_client.Client.open(address, stac_io=io), io)
    if content.get("type") == "FeatureCollection":
        return _item_list(content, address)
    return StaticCatalog(_static(address))


def _mapping(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CatalogError(f"it holds a JSON {type(content).__name__}, not a STAC object")
    return content


def _open_local(path: Path) -> Catalog:
    if path.is_dir():
        return ItemList(folder_items(path))
    if path.suffix in {".parquet", ".geoparquet"}:
        return open_parquet(path)
    content = _mapping(json.loads(path.read_text(encoding="utf-8")))
    if content.get("type") == "FeatureCollection":
        return _item_list(content, str(path))
    return StaticCatalog(_static(str(path.resolve())))


def _item_list(content: dict[str, Any], base: str) -> ItemList:
    for item in content["features"]:
        if not isinstance(item, dict) or not isinstance(item.get("assets") or {}, dict):
            raise CatalogError("an item of the collection has no assets; mend it")
    return ItemList(content["features"], base)


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
