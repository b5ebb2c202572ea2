"""A STAC API: one search, page by page, and what the server was asked to leave out."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import urljoin

import pystac_client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from mapper.catalog.bands import Item, check_item
from mapper.catalog.faults import FAULTS, unusable
from mapper.catalog.query import Bbox, Period, PropertyFilter, with_absolute_hrefs
from mapper.errors import CatalogError
from mapper.transport.address import redact, unsigned

PAGE_SIZE = 100
"""Items that a server is asked for at once."""
_REFUSED = frozenset({400, 405, 415, 422, 501})
"""Answers by which a server says that it does not understand a filter."""
_FILTER = re.compile(r"https://api\.stacspec\.org/v1\.[^/]+/item-search#filter$")
_QUERY = re.compile(r"https://api\.stacspec\.org/v1\.[^/]+/item-search#query$")
_CQL2_JSON = re.compile(r"https?://www\.opengis\.net/spec/cql2/1\.0/(conf|req)/cql2-json$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server gave."""

    items: tuple[Item, ...]
    asked: str = ""
    """What it was asked to leave out, in words; empty where all items came."""
    sound: bool = False
    """True where each item has passed `check_item`."""
    partly: bool = False
    """True where there may be more."""


@dataclass(frozen=True, slots=True)
class ApiCatalog:
    """A STAC API, searched by collection, box and time, and by properties where it can."""

    client: pystac_client.Client
    io: StacApiIO
    page_size: int = PAGE_SIZE

    @property
    def address(self) -> str:
        """Of the landing page."""
        return self.client.get_self_href() or ""

    def search(
        self,
        collection: str,
        boxes: Sequence[Bbox],
        period: Period | None,
        filters: PropertyFilter | None = None,
    ) -> Iterator[Item]:
        """Items of a collection, each once; filters are the caller's to apply again."""
        return iter(self.ask(collection, boxes, period, filters).items)

    def ask(
        self,
        collection: str,
        boxes: Sequence[Bbox],
        period: Period | None,
        filters: PropertyFilter | None = None,
    ) -> Answer:
        """As `search`, with what the server was asked to leave out.

        A server that finds nothing with a filter, or refuses it, is asked again without: some
        offer a filter and answer every one with nothing.

        Raises: CatalogError where a page repeats itself or is no page of items, or the server
            does not answer.
        """
        try:
            written = self._written(filters)
            items = self._filtered(boxes, (collection, period, written)) if written else ()
            if items and filters:
                return Answer(items=items, asked=filters.words, sound=True)
            return Answer(items=self._over(boxes, (collection, period, {})), sound=True)
        except FAULTS as reason:
            raise unusable(self.address, "searched", reason) from None

    def first_page(self, collection: str, boxes: Sequence[Bbox]) -> Answer:
        """A page's worth of items of any time, by one request where the first box holds so many.

        Raises: CatalogError as `ask`.
        """
        what = (collection, None, dict[str, Any]())
        try:
            found: dict[str, Item] = {}
            for box in boxes:
                items = _items_of(self.io, self._first(box, what))
                for item in islice(items, self.page_size - len(found)):
                    found.setdefault(item["id"], item)
        except FAULTS as reason:
            raise unusable(self.address, "searched", reason) from None
        partly = len(found) >= self.page_size
        return Answer(items=tuple(found.values()), sound=True, partly=partly)

    @property
    def language(self) -> str:
        """`cql2`, `query` or an empty string: how the server can be asked for properties."""
        if self._method() != "POST":
            return ""
        classes = list(self.client.get_conforms_to())
        offers = [
            any(pattern.match(c) for c in classes) for pattern in (_FILTER, _CQL2_JSON, _QUERY)
        ]
        if offers[0] and offers[1]:
            return "cql2"
        return "query" if offers[2] else ""

    def _written(self, filters: PropertyFilter | None) -> dict[str, Any]:
        """A filter in the server's language; empty where there is none to ask."""
        if not filters:
            return {}
        if self.language == "cql2":
            return {"filter": filters.cql2(), "filter-lang": "cql2-json"}
        return {"query": filters.query()} if self.language == "query" else {}

    def _filtered(
        self, boxes: Sequence[Bbox], what: tuple[str, Period | None, dict[str, Any]]
    ) -> tuple[Item, ...]:
        """Nothing where the server refuses the filter."""
        try:
            return self._over(boxes, what)
        except APIError as reason:
            if reason.status_code not in _REFUSED:
                raise
            return ()

    def _over(
        self, boxes: Sequence[Bbox], what: tuple[str, Period | None, dict[str, Any]]
    ) -> tuple[Item, ...]:
        found: dict[str, Item] = {}
        for box in boxes:
            for item in _items_of(self.io, self._first(box, what)):
                found.setdefault(item["id"], item)
        return tuple(found.values())

    def _first(self, box: Bbox, what: tuple[str, Period | None, dict[str, Any]]) -> "_PageRequest":
        collection, period, written = what
        asked = self.client.search(
            method=self._method(),
            collections=[collection] if collection else None,
            bbox=list(box),
            datetime=period.interval if period else None,
            limit=self.page_size,
        )
        parameters = dict(asked.get_parameters()) | written
        return _PageRequest(href=str(asked.url), method=str(asked.method), parameters=parameters)

    def _method(self) -> str:
        """POST, unless the server offers GET alone."""
        links = self.client.get_links("search")
        methods = {str(link.extra_fields.get("method") or "GET").upper() for link in links}
        return "GET" if methods == {"GET"} else "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class _PageRequest:
    """How one page is asked for."""

    href: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The body of a POST; the query of a first GET."""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same for the same page."""
        return json.dumps(
            [self.method, self.href, dict(self.parameters), dict(self.headers)], sort_keys=True
        )

    def read(self, io: StacApiIO) -> dict[str, Any]:
        """The page. Raises: CatalogError where it is no JSON object."""
        text = io.request(
            self.href,
            method=self.method,
            headers=dict(self.headers) or None,
            parameters=dict(self.parameters),
        )
        page = json.loads(text)
        if not isinstance(page, dict) or not isinstance(page.get("features"), list):
            raise CatalogError(
                f"{unsigned(self.href)} answers a search with something that is no page of "
                "items; check the address of the catalog"
            )
        return page

    def next_of(self, page: Mapping[str, Any], first: "_PageRequest") -> "_PageRequest | None":
        """The page after this one; None after the last."""
        links = [x for x in page.get("links") or [] if isinstance(x, dict)]
        link = next((x for x in links if x.get("rel") == "next" and x.get("href")), None)
        if link is None:
            return None
        href = urljoin(self.href, str(link["href"]))
        if not href.startswith(("http://", "https://")):
            raise CatalogError(
                f"{unsigned(self.href)} goes on at {redact(href)}, which is no web address; "
                "the catalog has to be mended"
            )
        method = str(link.get("method") or "GET").upper()
        headers, body = dict(link.get("headers") or {}), dict(link.get("body") or {})
        if link.get("merge"):
            headers, body = {**first.headers, **headers}, {**first.parameters, **body}
        # the address of a GET holds its parameters already
        parameters = body if method == "POST" else {}
        return _PageRequest(href=href, method=method, parameters=parameters, headers=headers)


def _items_of(io: StacApiIO, first: _PageRequest) -> Iterator[Item]:
    """Items of one search in page order.

    Raises: CatalogError where a page or an item comes again, since such a search has no end
        and may have left out others.
    """
    asked, seen = set[str](), set[str]()
    request: _PageRequest | None = first
    while request is not None:
        if request.key in asked:
            raise _again(request.href, len(asked), "names a page that was read before as its next")
        asked.add(request.key)
        page = request.read(io)
        for feature in page["features"]:
            item = _sound(feature, request.href, len(asked))
            if item["id"] in seen:
                raise _again(request.href, len(asked), f"holds item {item['id']} again")
            seen.add(item["id"])
            yield with_absolute_hrefs(item, "")
        # the last page of some servers is empty and goes on for ever
        request = request.next_of(page, first) if page["features"] else None


def _again(href: str, number: int, what: str) -> CatalogError:
    return CatalogError(
        f"the search at {unsigned(href)} {what} (after {number} pages): its pages cannot be "
        "trusted to hold each item once; search again, or use another catalog"
    )


def _sound(feature: Any, href: str, number: int) -> Item:
    try:
        if not isinstance(feature, dict):
            raise CatalogError(f"an item is a JSON {type(feature).__name__}")
        for key, asset in (feature.get("assets") or {}).items():
            if not isinstance(asset, dict) or not isinstance(asset.get("href", ""), str):
                raise CatalogError(f"item {feature.get('id')} has an asset {key} without address")
        return check_item(feature)
    except (CatalogError, AttributeError, TypeError) as reason:
        raise CatalogError(
            f"page {number} of the search at {unsigned(href)} cannot be used: {redact(str(reason))}"
        ) from None
