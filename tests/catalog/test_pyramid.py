"""Tiles as a raster: every pixel where it belongs, every tile asked for once, and not too fast."""

import contextlib
import json
import logging
import threading
from collections import Counter
from io import BytesIO

import numpy as np
import pytest
import rasterio
import requests
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyproj import Transformer
from rasterio.windows import Window, from_bounds

from mapper.area.grid import Grid, PixelBox
from mapper.catalog.bands import find_band
from mapper.catalog.pyramid import WORKERS, open_pyramid, permit, pyramid_fingerprint
from mapper.catalog.tilecatalog import TileCatalog, href_of, tiles_over, xyz_level
from mapper.catalog.tilefetch import fetch_tile
from mapper.catalog.tilestore import KeptTiles
from mapper.cube import warp
from mapper.errors import CatalogError, ReadError
from mapper.recipe.tiles import TileService
from mapper.transport.address import unsigned
from tests.tileserver import files_of, tile_server

PNOA = (130799, 99725, 130811, 99740)
"""First column, row, and past the last, of the real tiles at level 18."""
KEY = "hush/hush=1"
TERMS = {
    "attribution": "© Example Survey",
    "license": "CC-BY-4.0",
    "permission": "terms of use, section 3",
    "requests_per_second": 50,
}


class Quick:
    """A limiter that only counts: most tests are not about time."""

    def __init__(self):
        self.asked = []

    def agree(self, per_second):
        self.asked.append(per_second)

    def wait(self):
        pass


@pytest.fixture
def quick(monkeypatch):
    """Reads without waiting."""
    limiter = Quick()
    monkeypatch.setattr("mapper.catalog.tilestore.RateLimiter", lambda: limiter)
    monkeypatch.setattr("mapper.catalog.tilestore._LIMITERS", {})
    return limiter


@pytest.fixture
def serve_tiles():
    """Serve tiles from a function of the path; yields the address and the log of requests."""
    with contextlib.ExitStack() as stack:
        yield lambda answer: stack.enter_context(tile_server(answer))


def fetch(href):
    """What the room of the network offers, in its plainest form."""
    answer = requests.get(href, timeout=10)
    if answer.status_code in (204, 404, 410):
        return b""
    if answer.status_code >= 400:
        raise ReadError(f"{href} answers {answer.status_code}")
    return answer.content


def service_at(base, **changed):
    return TileService(**{"url": base + "/{z}/{x}/{y}.jpg", "zoom": 18} | TERMS | changed)


def opened(service, fetch=fetch, **how):
    href = href_of(xyz_level(service), service)
    return open_pyramid(href, fetch, service=service, **{"kept": KeptTiles()} | how)


def encoded(pixels, form="PNG", **how):
    """`(y, x)` or `(y, x, channel)` uint8 as an image file."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, form, **how)
    return stream.getvalue()


def ramp(x, y, size=256):
    """A tile in which every pixel of the pyramid says where it is."""
    rows, cols = np.mgrid[y * size : (y + 1) * size, x * size : (x + 1) * size]
    return np.stack([rows % 251, cols % 241, (rows // 251 + cols // 241) % 256], -1).astype(
        np.uint8
    )


def place_of(transform, col, row):
    return transform.c + col * transform.a, transform.f + row * transform.e


def ramps(path):
    _, x, y = path.lstrip("/").split(".")[0].split("/")
    return 200, encoded(ramp(int(x), int(y)))


@pytest.fixture
def real(archive, serve_tiles):
    """The real tiles, served."""
    return serve_tiles(files_of(archive / "xyz/pnoa"))


@pytest.fixture(scope="module")
def pnoa(archive):
    """The real tiles, each opened by itself, put together: `(band, y, x)`."""
    col0, row0, col1, row1 = PNOA
    whole = np.zeros((3, (row1 - row0) * 256, (col1 - col0) * 256), dtype=np.uint8)
    for x in range(col0, col1):
        for y in range(row0, row1):
            place = archive / f"xyz/pnoa/18/{x}/{y}.jpg"
            content = np.asarray(Image.open(place)).transpose(2, 0, 1)
            top, left = (y - row0) * 256, (x - col0) * 256
            whole[:, top : top + 256, left : left + 256] = content
    return whole


@pytest.mark.archive
def test_real_tiles_are_put_together_in_place_and_asked_for_once(real, pnoa, quick):
    base, log = real
    col0, row0, _, _ = PNOA
    window = Window(col0 * 256 + 100, row0 * 256 + 37, 700, 900)
    with opened(service_at(base)) as pyramid:
        values = pyramid.read([1, 2, 3], window=window)
        one = pyramid.read(2, window=window)
        mask = pyramid.read_masks(2, window=window)
    assert values.dtype == np.uint8
    np.testing.assert_array_equal(values, pnoa[:, 37:937, 100:800])
    np.testing.assert_array_equal(one, values[1])
    assert (mask == 255).all()
    asked = Counter(path for path, _ in log)
    wanted = {f"/18/{x}/{y}.jpg" for x in range(col0, col0 + 4) for y in range(row0, row0 + 4)}
    assert asked == dict.fromkeys(wanted, 1)


@pytest.mark.archive
@pytest.mark.parametrize("name", ["26159_19945", "26160_19946", "26162_19947"])
def test_position_against_georeferenced_images_of_the_same_ground(archive, real, name, quick):
    base, _ = real
    path = archive / f"pnoa-high-resolution/pnoa_valencia_{name}/image.tif"
    with rasterio.open(path) as image, opened(service_at(base)) as pyramid:
        window = from_bounds(*image.bounds, transform=pyramid.transform)
        expected = image.read().astype(int)
        window = window.round_offsets().round_lengths()
        assert (window.height, window.width) == image.shape
        # a strip along the border, in which a shift by a tile would show as well
        strip = Window(window.col_off, window.row_off, window.width, 300)
        found = pyramid.read(window=strip).astype(int)
        inner = expected[:, 1:299, 1:-1]
        off = {
            (down, right): np.abs(
                found[:, 1 + down : 299 + down, 1 + right : 1 + right + inner.shape[2]] - inner
            ).mean()
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
        }
        assert image.crs == pyramid.crs
    # the images are compressed a second time; a pixel's shift makes several times the difference
    assert off.pop((0, 0)) < 2
    assert min(off.values()) > 4


@pytest.mark.archive
def test_the_warp_reads_a_pyramid_as_it_reads_a_file(real, pnoa, quick, tmp_path):
    base, log = real
    service = service_at(base)
    (item,) = TileCatalog(service, fetch).search("ortho", [(-1, 39, 0, 40)], None)
    band = find_band(item, "green")
    path = tmp_path / "whole.tif"
    with opened(service) as pyramid:
        corner = place_of(pyramid.transform, PNOA[0] * 256, PNOA[1] * 256)
        res = pyramid.transform.a
    place = Affine(res, 0, corner[0], 0, -res, corner[1])
    form = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": 3857, "transform": place}
    with rasterio.open(path, "w", height=pnoa.shape[1], width=pnoa.shape[2], **form) as made:
        made.write(pnoa)
    x, y = Transformer.from_crs(3857, 32630, always_xy=True).transform(
        corner[0] + 1000, corner[1] - 1000
    )
    grid, row, col = Grid(epsg=32630, resolution=1.0, tile=256), -int(y), int(x)
    pixels = PixelBox(row0=row, col0=col, row1=row + 300, col1=col + 310)

    permit(service)
    file = type(band)(href=str(path), index=2, nodata=None, scale=None, offset=None)
    for resampling in ("nearest", "bilinear", "average"):
        expected = warp.read_band(file, grid, pixels, resampling)
        got = warp.read_band(band, grid, pixels, resampling)
        np.testing.assert_array_equal(got.valid, expected.valid)
        # the two origins differ in the last digits, and with them the weights
        np.testing.assert_allclose(got.values, expected.values, atol=2e-3)
        assert got.valid.all()
        assert got.values.std() > 10
    assert max(Counter(path for path, _ in log).values()) == 1


@settings(max_examples=15)
@given(
    row=st.integers(0, 1000), col=st.integers(0, 1000), height=st.integers(1, 600),
    width=st.integers(1, 600), shrink=st.integers(1, 4),
)  # fmt: skip
def test_any_window_is_a_part_of_the_whole(row, col, height, width, shrink):
    service = service_at("http://127.0.0.1:1", zoom=2, requests_per_second=50)
    whole = np.concatenate([np.concatenate([ramp(x, y) for x in range(4)], 1) for y in range(4)])
    whole = whole.transpose(2, 0, 1)
    height, width = min(height, 1024 - row), min(width, 1024 - col)
    pyramid = opened(service, lambda href: ramps(href.partition(":1/")[2])[1])
    window = Window(col, row, width, height)
    expected = whole[:, row : row + height, col : col + width]
    np.testing.assert_array_equal(pyramid.read(window=window), expected)
    shape = -(-height // shrink), -(-width // shrink)
    with rasterio.MemoryFile() as memory:
        form = {"driver": "GTiff", "count": 3, "dtype": "uint8"}
        with memory.open(height=height, width=width, transform=Affine.scale(2), **form) as made:
            made.write(expected)
        with memory.open() as file:
            thinned = file.read(out_shape=(3, *shape))
    np.testing.assert_array_equal(pyramid.read(window=window, out_shape=(3, *shape)), thinned)


def test_geometry_is_that_of_the_whole_level():
    pyramid = opened(service_at("https://tiles.example", zoom=3, tile_size=512))
    assert (pyramid.height, pyramid.width, pyramid.count) == (4096, 4096, 3)
    assert pyramid.crs.to_epsg() == 3857
    assert pyramid.block_shapes[0] == (512, 512)
    assert pyramid.overviews(1) == []
    assert pyramid.dtypes == ("uint8",) * 3
    # metres per pixel at the equator: its length over the pixels
    assert pyramid.transform.a == pytest.approx(2 * np.pi * 6378137 / 4096)
    west, south, east, north = pyramid.bounds
    back = Transformer.from_crs(3857, 4326, always_xy=True).transform
    np.testing.assert_allclose(back(west, north), (-180, 85.0511287798), atol=1e-9)
    np.testing.assert_allclose(back(east, south), (180, -85.0511287798), atol=1e-9)


def test_rows_counted_from_the_south():
    asked = []
    service = service_at("https://tiles.example", url="https://tiles.example/{z}/{x}/{-y}", zoom=3)
    pyramid = opened(service, lambda href: asked.append(href) or b"")
    pyramid.read(window=Window(5 * 256, 1 * 256, 10, 10))
    assert asked == ["https://tiles.example/3/5/6"]


@pytest.mark.parametrize("status", [404, 204])
def test_a_missing_tile_is_nodata_or_a_failure(serve_tiles, quick, status):
    base, log = serve_tiles(lambda p: (status, b"none") if p == "/3/2/2.jpg" else ramps(p))
    window = Window(2 * 256 - 20, 2 * 256 - 20, 40, 40)
    with opened(service_at(base, zoom=3)) as pyramid:
        values, mask = pyramid.read(window=window), pyramid.read_masks(1, window=window)
    assert (mask[20:, 20:] == 0).all()
    assert (values[:, 20:, 20:] == 0).all()
    mask[20:, 20:] = 255
    assert (mask == 255).all()
    assert max(Counter(path for path, _ in log).values()) == 1
    strict = opened(service_at(base, zoom=3, empty="fail"))
    with pytest.raises(ReadError, match=r"tile 3/2/2 of http.*is missing"):
        strict.read(1, window=window)


def test_tiles_outside_the_bounds_are_not_asked_for(serve_tiles, quick):
    base, log = serve_tiles(ramps)
    service = service_at(base, zoom=3, bounds=[0, 0, 45, 66])
    level = xyz_level(service)
    assert level.limits == (4, 2, 5, 4)
    assert tiles_over(level, (-180, -85, 180, 85)) == level.limits
    assert tiles_over(level, (1, 1, 2, 2)) == (4, 3, 5, 4)
    assert tiles_over(level, (50, 1, 60, 2))[0] == tiles_over(level, (50, 1, 60, 2))[2]
    with opened(service) as pyramid:
        mask = pyramid.read_masks(1, window=Window(3 * 256, 256, 3 * 256, 3 * 256))
    assert mask[256:, 256:512].all()
    mask[256:, 256:512] = 0
    assert not mask.any()
    assert {path for path, _ in log} == {"/3/4/2.jpg", "/3/4/3.jpg"}


HOSTILE = {
    "html": (b"\n <html>the key hush/hush=1 is over its quota</html>", "text"),
    "xml": (b'<?xml version="1.0"?><ServiceException>hush/hush=1</ServiceException>', "text"),
    "small": (encoded(np.zeros((128, 256, 3), np.uint8)), "256 x 128 pixels, not 256 x 256"),
    "cut off": (encoded(ramp(0, 0), "JPEG")[:-300], "no whole"),
    "cut off png": (encoded(ramp(0, 0))[:-300], "no whole"),
    "json": (b'{"error": "hush/hush=1"}', "no whole"),
    "deep": (encoded(np.zeros((256, 256), np.uint16)), "8-bit"),
    "gif": (encoded(ramp(0, 0)[..., 0], "GIF"), "no whole"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_wrong_tile_is_named_without_the_key(serve_tiles, quick, monkeypatch, name):
    content, said = HOSTILE[name]
    base, log = serve_tiles(lambda path: (200, content))
    monkeypatch.setenv("TILE_KEY", KEY)
    url = base + "/{key}/{z}/{x}/{y}.jpg?key={key}&v=2"
    pyramid = opened(service_at(base, url=url, zoom=3, key_variable="TILE_KEY"))
    with pytest.raises(ReadError) as error:
        pyramid.read(1, window=Window(0, 256, 9, 9))
    message = str(error.value)
    assert log[0][0] == "/hush%2Fhush%3D1/3/0/1.jpg?key=hush%2Fhush%3D1&v=2"
    assert said in message
    assert "tile 3/0/1 of http://127.0.0.1" in message
    assert "hush" not in message


def test_a_tile_that_is_none_is_asked_for_again(serve_tiles, quick):
    answers = [HOSTILE["cut off"][0], encoded(ramp(0, 1))]
    base, log = serve_tiles(lambda path: (200, answers[min(len(log), 2) - 1]))
    pyramid, window = opened(service_at(base, zoom=3)), Window(0, 256, 9, 9)
    with pytest.raises(ReadError, match="no whole"):
        pyramid.read(window=window)
    expected = ramp(0, 1)[:9, :9].transpose(2, 0, 1)
    np.testing.assert_array_equal(pyramid.read(window=window), expected)
    assert len(log) == 2


def test_the_key_is_nowhere_but_in_the_request(serve_tiles, quick, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, "mapper")
    base, log = serve_tiles(lambda path: (500, b"no"))
    url = base + "/{key}/{z}/{x}/{y}.jpg?key={key}"
    service = service_at(base, url=url, zoom=3, key_variable="TILE_KEY")
    with pytest.raises(CatalogError, match="TILE_KEY"):
        next(TileCatalog(service, fetch).search("ortho", [(0, 0, 1, 1)], None))
    monkeypatch.setenv("TILE_KEY", KEY)
    (item,) = TileCatalog(service, fetch).search("ortho", [(0, 0, 1, 1)], None)
    href = item["assets"]["image"]["href"]
    assert "{key}" in href
    assert "hush" not in json.dumps(item)
    pyramid = open_pyramid(href, fetch, service=service, kept=KeptTiles())
    with pytest.raises(ReadError, match="answers 500") as error:
        pyramid.read(1, window=Window(0, 0, 9, 9))
    assert "hush" in log[0][0]
    assert "hush" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    assert "hush" not in caplog.text
    assert "hush" not in repr(vars(pyramid))
    monkeypatch.delenv("TILE_KEY")
    with pytest.raises(ReadError, match="TILE_KEY"):
        open_pyramid(href, fetch, service=service)


def test_the_rate_holds_for_the_host_over_pyramids_and_threads(serve_tiles):
    base, log = serve_tiles(lambda path: (404, b""))
    service = service_at(base, zoom=3, requests_per_second=20)
    pyramids = [opened(service, fetch_tile) for _ in range(2)]
    windows = [Window(0, 0, 1024, 512), Window(1024, 0, 1024, 512)]
    threads = [
        threading.Thread(target=p.read, args=(1, w)) for p, w in zip(pyramids, windows, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = np.sort([when for _, when in log])
    assert len(times) == 16
    # sixteen requests are fifteen pauses of 50 ms, and no burst is hidden in the mean
    assert times[-1] - times[0] > 14.5 / 20
    assert times[-1] - times[0] < 2.5
    for first in range(len(times) - 5):
        assert times[first + 5] - times[first] > 3.5 / 20


def test_worker_processes_divide_the_rate(quick, monkeypatch):
    service = service_at("https://tiles.example", zoom=1, requests_per_second=6)
    one = Window(0, 0, 1, 1)
    opened(service, lambda href: b"").read(1, one)
    opened(service, lambda href: b"", workers=3).read(1, one)
    monkeypatch.setenv(WORKERS, "12")
    opened(service, lambda href: b"").read(1, one)
    assert quick.asked == [6, 2, 0.5]
    monkeypatch.setenv(WORKERS, "none")
    with pytest.raises(ReadError, match=WORKERS):
        opened(service)


def test_bands_and_mask_of_one_window_are_assembled_once(serve_tiles, quick):
    base, log = serve_tiles(ramps)
    window = Window(200, 200, 100, 100)
    with opened(service_at(base, zoom=3), kept=KeptTiles(most_bytes=0)) as pyramid:
        pyramid.read(1, window=window).fill(7)
        assert pyramid.read_masks(1, window=window).all()
        assert (pyramid.read(1, window=window) != 7).any()
        assert len(log) == 4
        pyramid.read(1, window=Window(200, 200, 10, 10))
    assert len(log) == 5


def test_a_failure_stops_the_other_requests(serve_tiles, quick):
    base, log = serve_tiles(lambda path: (500, b"no"))
    with pytest.raises(ReadError), opened(service_at(base, zoom=5)) as pyramid:
        pyramid.read(1, window=Window(0, 0, 2048, 2048))
    assert len(log) < 20


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (Window(-1, 0, 5, 5), "does not lie"),
        (Window(0, 0, 2049, 5), "does not lie"),
        (Window(0.5, 0, 5, 5), "does not lie"),
        (Window(0, 0, 0, 5), "does not lie"),
    ],
)
def test_windows_that_cannot_be(window, said):
    with pytest.raises(ReadError, match=said):
        opened(service_at("https://tiles.example", zoom=3)).read(1, window=window)


def test_too_much_at_once_is_refused_before_anything_is_asked():
    pyramid = opened(service_at("https://tiles.example"), lambda href: pytest.fail("asked"))
    with pytest.raises(ReadError, match="coarser zoom"):
        pyramid.read(1)
    with pytest.raises(ReadError, match="3 bands"):
        pyramid.read(4, window=Window(0, 0, 1, 1))


def test_only_what_a_recipe_permits_is_read(monkeypatch):
    service = service_at("https://tiles.example", zoom=3)
    href = href_of(xyz_level(service), service)
    with pytest.raises(ReadError, match="permission"):
        open_pyramid(href, fetch)
    permit(service)
    assert open_pyramid(href, fetch).count == 3
    # somebody's item that borrows the identity of a service for a host of its own
    monkeypatch.setenv("TILE_KEY", KEY)
    url = "https://tiles.example/{z}/{x}/{y}?key={key}"
    keyed = service_at("", url=url, key_variable="TILE_KEY")
    good = href_of(xyz_level(keyed), keyed)
    assert open_pyramid(good, fetch, service=keyed)
    with pytest.raises(ReadError, match="permission"):
        open_pyramid(good.replace("tiles.example", "thief.example"), fetch, service=keyed)
    with pytest.raises(ReadError, match="permission"):
        open_pyramid(href, fetch, service=keyed)


def test_an_address_stays_whole_where_others_lose_their_query():
    service = service_at("https://tiles.example", zoom=3)
    href = href_of(xyz_level(service), service)
    assert unsigned(href) == href
    assert pyramid_fingerprint_of(href, service) == service.identity
    other = service_at("https://tiles.example", zoom=3, date="2023-06-01")
    assert pyramid_fingerprint_of(href_of(xyz_level(other), other), other) != service.identity


def pyramid_fingerprint_of(href, service):
    permit(service)
    return pyramid_fingerprint(href, lambda href: pytest.fail("asked"))


def test_a_fingerprint_wants_the_permission_too():
    service = service_at("https://nobody.example", zoom=3)
    with pytest.raises(ReadError, match="permission"):
        pyramid_fingerprint(href_of(xyz_level(service), service), fetch)


@pytest.mark.parametrize("cut", [lambda h: h[4:], lambda h: h.replace("matrix=8", "m=")])
def test_addresses_that_are_not_whole(cut):
    service = service_at("https://tiles.example", zoom=3)
    href = href_of(xyz_level(service), service)
    with pytest.raises(ReadError, match="not the whole address"):
        open_pyramid(cut(href), fetch, service=service)
