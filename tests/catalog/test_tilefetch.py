"""Tiles over the room of the network: what is no tile, what is tried again, and how fast."""

import contextlib
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from rasterio.windows import Window

from mapper.catalog import tilefetch
from mapper.catalog.pyramid import open_pyramid
from mapper.catalog.tilecatalog import TileCatalog, href_of, xyz_level
from mapper.catalog.tilefetch import fetch_tile
from mapper.catalog.tilestore import KeptTiles, limiter_of
from mapper.errors import ReadError
from mapper.recipe.tiles import TileService
from mapper.transport.traffic import traffic
from tests.tileserver import tile_server
from tests.transport.hostile import Faults, raw_server, serving

KEY = "hush/hush=1"


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """No pauses but those of the rate."""
    monkeypatch.setenv("MAPPER_NETWORK__BACKOFF_S", "0.001")


def service_at(base, **changed):
    given = {"url": base + "/{z}/{x}/{y}.jpg", "zoom": 3, "attribution": "© Example Survey"}
    given |= {"license": "CC-BY-4.0", "permission": "terms of use, section 3"}
    return TileService.model_validate(given | {"requests_per_second": 50} | changed)


def opened(service):
    href = href_of(xyz_level(service), service)
    return open_pyramid(href, fetch_tile, service=service, kept=KeptTiles())


@pytest.mark.parametrize("status", [404, 410, 204])
def test_no_tile_is_no_failure_and_is_asked_for_once(status):
    with tile_server(lambda path: (status, b"none")) as (base, log):
        assert fetch_tile(f"{base}/3/0/0.jpg") == b""
    assert len(log) == 1


def test_content_comes_as_it_is():
    with tile_server(lambda path: (200, path.encode())) as (base, _):
        assert fetch_tile(f"{base}/3/0/0.jpg?v=%2F") == b"/3/0/0.jpg?v=%2F"


@pytest.mark.parametrize("answer", [(200, b""), (206, b"part"), (500, b"no")])
def test_what_would_pass_for_bare_ground_is_a_failure(answer):
    with (
        tile_server(lambda path: answer) as (base, log),
        pytest.raises(ReadError, match="tried 6 times"),
    ):
        fetch_tile(f"{base}/3/0/0.jpg")
    assert len(log) == 6


def test_an_answer_gets_better():
    answers = itertools.chain([(503, b""), (200, b"")], itertools.repeat((200, b"tile")))
    with tile_server(lambda path: next(answers)) as (base, log):
        assert fetch_tile(f"{base}/3/0/0.jpg") == b"tile"
    assert len(log) == 3


def test_repetitions_keep_the_rate_that_first_requests_have():
    with tile_server(lambda path: (500, b"no")) as (base, log):
        limiter_of(base.removeprefix("http://")).agree(20)
        with pytest.raises(ReadError):
            fetch_tile(f"{base}/3/0/0.jpg")
    times = np.array([when for _, when in log])
    assert len(times) == 6
    assert np.diff(times).min() > 0.04
    assert times[-1] - times[0] > 4.5 / 20


def test_no_burst_follows_a_pause():
    """The host asks for a pause; whoever waited meanwhile goes out at the rate, one by one."""
    faults = Faults(status=429, times=1, after="seconds")
    with serving({"/1.jpg": b"tile"}, faults) as server:
        limiter_of(server.address.removeprefix("http://")).agree(25)
        with ThreadPoolExecutor(9) as pool:
            first = pool.submit(fetch_tile, f"{server.address}/1.jpg")
            while not server.served.requests:
                time.sleep(0.001)
            time.sleep(0.05)
            rest = [pool.submit(fetch_tile, f"{server.address}/1.jpg") for _ in range(8)]
            assert {one.result() for one in (first, *rest)} == {b"tile"}
    times = np.sort(server.served.times)
    assert len(times) == 10
    assert times[1] - times[0] > 0.9
    assert times[-1] - times[1] > 6.5 / 25, "nine requests are eight pauses of 40 ms"


@pytest.mark.parametrize(
    ("head", "says", "asked"),
    [
        ("", "does not say how long", 6),
        ("Content-Encoding: gzip\r\nContent-Length: 4\r\n", "gzip encoded", 1),
        ("Transfer-Encoding: chunked\r\n", "", 1),
    ],
)
def test_a_tile_has_a_length_and_no_encoding(head, says, asked):
    body = "4\r\ntile\r\n0\r\n\r\n" if "chunked" in head else "tile"
    answer = f"HTTP/1.1 200 OK\r\n{head}Connection: close\r\n\r\n{body}"
    with raw_server(answer.encode()) as (base, log), contextlib.ExitStack() as stack:
        if says:
            stack.enter_context(pytest.raises(ReadError, match=says))
        assert fetch_tile(f"{base}/3/0/0.jpg") == b"tile"
    assert len(log) == asked


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_not_repeated_and_names_no_key(monkeypatch, status):
    monkeypatch.setenv("TILE_KEY", KEY)
    with tile_server(lambda path: (status, KEY.encode())) as (base, log):
        url = base + "/{key}/{z}/{x}/{y}.jpg?key={key}"
        pyramid = opened(service_at(base, url=url, key_variable="TILE_KEY"))
        with pytest.raises(ReadError, match=f"refused .{status}.; check the key") as error:
            pyramid.read(1, window=Window(0, 0, 9, 9))
    assert len(log) == 1
    assert "hush" in log[0][0]
    assert "hush" not in str(error.value)


@pytest.mark.parametrize("status", [400, 500])
def test_no_failure_names_the_key(monkeypatch, status):
    monkeypatch.setenv("TILE_KEY", KEY)
    with tile_server(lambda path: (status, KEY.encode())) as (base, log):
        url = base + "/{key}/{z}/{x}/{y}.jpg?key={key}"
        pyramid = opened(service_at(base, url=url, key_variable="TILE_KEY"))
        with pytest.raises(ReadError, match="tile 3/0/0 of") as error:
            pyramid.read(1, window=Window(0, 0, 9, 9))
    # and one that nobody answers at all
    with pytest.raises(ReadError, match="tile 3/0/1 of") as gone:
        pyramid.read(1, window=Window(0, 256, 9, 9))
    assert log
    assert "hush" not in str(error.value) + str(gone.value)


def test_more_than_a_tile_can_be_is_refused_at_once(monkeypatch):
    monkeypatch.setattr(tilefetch, "_MOST_BYTES", 10)
    with (
        tile_server(lambda path: (200, bytes(11))) as (base, log),
        pytest.raises(ReadError, match="more than 10 bytes"),
    ):
        fetch_tile(f"{base}/3/0/0.jpg")
    assert len(log) == 1


def test_requests_count_where_they_were_caused():
    with tile_server(lambda path: (404, b"")) as (base, log), traffic() as seen:
        assert not opened(service_at(base)).read_masks(1, window=Window(0, 0, 512, 512)).any()
    assert len(log) == seen.requests == 4


WMTS = """<Capabilities xmlns="http://www.opengis.net/wmts/1.0"
 xmlns:ows="http://www.opengis.net/ows/1.1"><Contents>
<Layer><ows:Identifier>ortho</ows:Identifier><Format>image/png</Format>
<TileMatrixSetLink><TileMatrixSet>utm</TileMatrixSet></TileMatrixSetLink>
<ResourceURL format="image/png" resourceType="tile"
 template="{base}/t/{{TileMatrix}}/{{TileCol}}/{{TileRow}}.png"/></Layer>
<TileMatrixSet><ows:Identifier>utm</ows:Identifier>
<ows:SupportedCRS>urn:ogc:def:crs:EPSG::25830</ows:SupportedCRS>
<TileMatrix><ows:Identifier>a</ows:Identifier>
<ScaleDenominator>35714.285714285714</ScaleDenominator>
<TopLeftCorner>500000 4400000</TopLeftCorner><TileWidth>256</TileWidth>
<TileHeight>256</TileHeight><MatrixWidth>100</MatrixWidth><MatrixHeight>100</MatrixHeight>
</TileMatrix></TileMatrixSet></Contents></Capabilities>"""


def test_a_wmts_service_from_its_document_to_its_pixels():
    stream = BytesIO()
    Image.new("RGB", (256, 256), (1, 2, 3)).save(stream, "PNG")
    document = []

    def answer(path):
        return 200, document[0] if path.startswith("/wmts") else stream.getvalue()

    with tile_server(answer) as (base, log):
        document.append(WMTS.format(base=base).encode())
        url = base + "/wmts?REQUEST=GetCapabilities"
        service = service_at("", url=url, layer="ortho", matrix_set="utm", zoom="a")
        item = TileCatalog(service, fetch_tile).item("tiles")
        href = item["assets"]["image"]["href"]
        with open_pyramid(href, fetch_tile, service=service, kept=KeptTiles()) as level:
            values = level.read(window=Window(3 * 256, 2 * 256, 256, 256))
    assert level.transform[:6] == pytest.approx((10, 0, 500000, 0, -10, 4400000))
    assert (values == np.array([1, 2, 3])[:, None, None]).all()
    assert [path for path, _ in log] == ["/wmts?REQUEST=GetCapabilities", "/t/a/3/2.png"]
