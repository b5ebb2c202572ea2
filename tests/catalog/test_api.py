"""A server is asked page by page, for what it can, and is not believed blindly."""

import json
import operator
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mapper.area.grid import Grid
from mapper.catalog.api import ApiCatalog
from mapper.catalog.query import Period, PropertyFilter
from mapper.catalog.search import search_source
from mapper.catalog.source import open_catalog
from mapper.errors import CatalogError
from mapper.recipe import Bands, Sentinel2Source
from mapper.simulate import read_items, serve_api

WORLD = [(-180.0, -90.0, 180.0, 90.0)]
YEAR = Period.year(2022)
CLEAR = PropertyFilter(cloud_cover=20)
CORE = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
CQL2 = [*CORE, "https://api.stacspec.org/v1.0.0/item-search#filter",
        "http://www.opengis.net/spec/cql2/1.0/conf/cql2-json"]  # fmt: skip
QUERY = [*CORE, "https://api.stacspec.org/v1.0.0/item-search#query"]


def item(number, cover=None):
    properties = {"datetime": "2022-06-01T00:00:00Z", "platform": "Sentinel-2A"}
    if cover is not None:
        properties["eo:cloud_cover"] = cover
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": f"i{number:03d}", "collection": "s2",
        "geometry": None, "bbox": [1, 2, 1, 2], "properties": properties, "links": [],
        "assets": {"red": {"href": "https://host/red.tif?sig=s3cr3t"}},
    }  # fmt: skip


def cql2_keeps(term, found):
    """CQL2-JSON by its specification, written again."""
    op, args = term["op"], term["args"]
    if op in {"and", "or"}:
        return (all if op == "and" else any)(cql2_keeps(a, found) for a in args)
    value = found["properties"].get(args[0]["property"])
    if op == "isNull":
        return value is None
    return value is not None and (value <= args[1] if op == "<=" else value == args[1])


def within(value, listed):
    return value in listed


def query_keeps(query, found):
    for name, tests in query.items():
        value = found["properties"].get(name)
        for op, wanted in tests.items():
            good = {"lte": operator.le, "eq": operator.eq, "in": within}
            if value is None or not good[op](value, wanted):
                return False
    return True


@pytest.fixture
def api():
    """Serve a STAC API of these items; yields its address and the bodies it was sent."""
    running = []

    def start(items, conforms=CQL2, *, methods=("GET", "POST"), merge=False, spoil=None):
        bodies = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer({})

            def do_POST(self):
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body):
                host = f"http://127.0.0.1:{self.server.server_address[1]}"
                path, _, query = self.path.partition("?")
                asked = dict(p.split("=") for p in query.split("&") if p) | body
                if path == "/search":
                    bodies.append(asked)
                    if spoil == "refuse" and ("filter" in body or "query" in body):
                        return self.send(422, {"detail": "no filters"})
                    return self.send(200, self.page(asked, host))
                links = [{"rel": "self", "href": f"{host}/"}, {"rel": "root", "href": f"{host}/"}]
                there = {"rel": "search", "href": f"{host}/search", "type": "application/geo+json"}
                links += [{**there, "method": m} for m in methods]
                return self.send(200, {"type": "Catalog", "id": "api", "stac_version": "1.0.0",
                                       "description": "An API.", "conformsTo": list(conforms),
                                       "links": links})  # fmt: skip

            def page(self, asked, host):
                kept = [i for i in items if self.keeps(asked, i)]
                at, size = int(asked.get("at", 0)), int(asked["limit"])
                page, links = kept[at : at + size], []
                if at + size < len(kept):
                    query = f"?at={at + size}&limit={size}&token=s3cr3t"
                    links = [{"rel": "next", "href": f"/search{query}", "method": "GET"}]
                    if "POST" in methods:
                        body = {"at": at + size} if merge else {**asked, "at": at + size}
                        links = [{"rel": "next", "href": f"{host}/search", "method": "POST",
                                  "body": body, "merge": merge}]  # fmt: skip
                if spoil == "loop" and links:
                    links[0] = {
                        "rel": "next",
                        "href": f"/search?at={size}&limit={size}&token=s3cr3t",
                    }
                if spoil == "new tokens":
                    links = [{"rel": "next", "href": f"/search?at=0&limit={size}&n={len(bodies)}"}]
                if spoil == "malformed" and at:
                    page = [*page[:1], {"id": 7}]
                if spoil == "file":
                    links = [{"rel": "next", "href": "file:///nowhere?sig=s3cr3t"}]
                return {"type": "FeatureCollection", "features": page, "links": links}

            def keeps(self, asked, found):
                if spoil == "mute" and ("filter" in asked or "query" in asked):
                    return False
                first, _, last = asked.get("datetime", "/").partition("/")
                when = found["properties"]["datetime"]
                if (first and when < first) or (last and when > last):
                    return False
                if found["collection"] not in asked.get("collections", "s2"):
                    return False
                if "filter" in asked:
                    return cql2_keeps(asked["filter"], found)
                return query_keeps(asked.get("query", {}), found)

            def send(self, code, content):
                body = json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/", bodies

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def opened(address, size=10):
    found = open_catalog(address)
    assert isinstance(found, ApiCatalog)
    return ApiCatalog(found.client, found.io, size)


def ids(items):
    return [i["id"] for i in items]


ITEMS = [item(n, cover=n) for n in range(35)]


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("methods", [("GET",), ("POST",), ("GET", "POST")])
def test_every_page_is_read_once(api, methods, merge):
    address, bodies = api(ITEMS, methods=methods, merge=merge)
    found = list(opened(address).search("s2", WORLD, YEAR))
    assert ids(found) == ids(ITEMS)
    assert len(bodies) == 4
    assert "s3cr3t" not in str(found)


@pytest.mark.parametrize(("conforms", "word"), [(CQL2, "filter"), (QUERY, "query"), (CORE, None)])
def test_a_filter_is_asked_in_the_language_that_the_server_offers(api, conforms, word):
    address, bodies = api([*ITEMS, item(99)], conforms)
    answer = opened(address).ask("s2", WORLD, YEAR, CLEAR)
    assert [k for k in ("filter", "query") if k in bodies[0]] == ([word] if word else [])
    assert answer.asked == ("cloud cover up to 20 %" if word else "")
    expected = {f"i{n:03d}" for n in (range(21) if word else range(35))}
    # the query extension cannot say "or unknown"
    assert set(ids(answer.items)) == expected | ({"i099"} if word != "query" else set())


@pytest.mark.parametrize("conforms", [CQL2, QUERY])
def test_platform_and_orbit_are_asked_in_every_spelling(api, conforms):
    items = [item(n) for n in range(6)]
    for number, platform in enumerate(("Sentinel-2A", "sentinel-2a", "sentinel-2b")):
        items[number]["properties"] |= {"platform": platform, "sat:orbit_state": "ascending"}
    address, bodies = api(items, conforms)
    wanted = PropertyFilter(orbit_state="ascending", platforms=("Sentinel-2a",))
    found = opened(address).ask("s2", WORLD, YEAR, wanted)
    assert ids(found.items) == ids(i for i in items if wanted.keeps(i)) == ["i000", "i001"]
    assert len(bodies) == 1


@pytest.mark.parametrize("how", ["mute", "refuse"])
def test_a_server_whose_filter_finds_nothing_is_asked_again_without(api, how):
    address, bodies = api(ITEMS, spoil=how)
    answer = opened(address, 100).ask("s2", WORLD, YEAR, CLEAR)
    assert ids(answer.items) == ids(ITEMS)
    assert answer.asked == "", "what the server left out is nothing"
    assert [("filter" in b) for b in bodies] == [True, False]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [("loop", "names a page"), ("new tokens", "holds item i000 again"), ("file", "no web address")],
)
def test_pages_that_go_round_end_with_an_error(api, spoil, said):
    address, bodies = api(ITEMS, spoil=spoil)
    with pytest.raises(CatalogError, match=said) as caught:
        list(opened(address).search("s2", WORLD, YEAR))
    assert "s3cr3t" not in str(caught.value)
    assert len(bodies) <= 3


def test_a_malformed_item_names_its_page_without_the_token(api):
    address, _ = api(ITEMS, methods=("GET",), spoil="malformed")
    with pytest.raises(CatalogError, match=r"page 2 .*/search.* id is 7") as caught:
        list(opened(address).search("s2", WORLD, YEAR))
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("conforms", [CQL2, QUERY, CORE])
def test_the_account_says_what_was_asked_of_the_server(api, conforms):
    source = Sentinel2Source(kind="sentinel-2", catalog="x", collections=["s2"], mask=None,
                             bands=Bands(required=["red"]), max_cloud_cover=20)  # fmt: skip
    from mapper.area.grid import Grid

    items = [i | {"bbox": [-180, -90, 180, 90]} for i in ITEMS]
    address, _ = api(items, conforms)
    tile = Grid(epsg=32633, resolution=10, tile=512).key(1000, 95)
    found = search_source("s2", source, [tile], YEAR, lambda _: opened(address))
    assert ids(found.items) == ids(ITEMS[:21])
    if conforms == CORE:
        assert found.account == "35 found over the tiles, cloud cover above 20 % removed 14"
    else:
        said = "21 found over the tiles (cloud cover up to 20 % asked of the server)"
        assert found.account == said


def test_a_real_server_is_read_in_pages_of_ten(simulated):
    """rustac serve offers no filter, and answers any with nothing: it is not asked for one."""
    expected = {i["id"]: i for i in read_items(simulated) if i["collection"] == "sentinel-2-l2a"}
    assert len(expected) > 20, "three pages"
    with serve_api(simulated) as address:
        catalog = opened(address)
        assert set(ids(catalog.search("sentinel-2-l2a", WORLD, YEAR))) == set(expected)
        answer = catalog.ask("sentinel-2-l2a", WORLD, YEAR, CLEAR)
    clear = {n for n, i in expected.items() if CLEAR.keeps(i)}
    assert 0 < len(clear) < len(expected)
    assert {i["id"] for i in answer.items if CLEAR.keeps(i)} == clear
    assert set(ids(answer.items)) == set(expected)
    assert (catalog.language, answer.asked) == ("", "")


def source_of(*collections):
    return Sentinel2Source(
        kind="sentinel-2", catalog="c", collections=list(collections),
        bands=Bands(required=["red"]), mask=None,
    )  # fmt: skip


def anywhere(number):
    return item(number) | {"bbox": None}


KEY = Grid(epsg=32631, resolution=10, tile=512).key(100, 60)


def test_an_empty_year_costs_one_page_of_the_others(api):
    address, bodies = api([anywhere(n) for n in range(35)])
    years = Period.year(2019)
    found = search_source("s", source_of("s2"), [KEY], years, lambda _: opened(address))
    timeless = [b for b in bodies if "datetime" not in b]
    assert [("at" in b, "filter" in b) for b in timeless] == [(False, False)]
    assert found.items == ()
    assert found.account.startswith("at least 10 found over the tiles, ")
    assert f"the period {years.interval} removed" in found.account
    few, _ = api([anywhere(n) for n in range(4)])
    found = search_source("s", source_of("s2"), [KEY], years, lambda _: opened(few))
    assert found.account.startswith("4 found over the tiles, ")


def test_other_years_are_not_asked_for_while_a_collection_has_items(api):
    address, bodies = api([anywhere(1)])
    found = search_source("s", source_of("s1", "s2"), [KEY], YEAR, lambda _: opened(address))
    assert ids(found.items) == ["i001"]
    assert all("datetime" in b for b in bodies)


def test_nor_where_filters_took_all_items_of_the_year(api):
    address, bodies = api([anywhere(1) | {"properties": item(1, 99)["properties"]}])
    found = search_source("s", source_of("s2"), [KEY], YEAR, lambda _: opened(address))
    assert "cloud cover above 60 % removed 1" in found.account
    assert all("datetime" in b for b in bodies)


def test_other_years_that_cannot_be_told_do_not_stop_a_search(api):
    address, _ = api([item(1) | {"assets": {"red": 7}}])
    found = search_source("s", source_of("s2"), [KEY], Period.year(2019), lambda _: opened(address))
    assert found.account == "0 found over the tiles"
