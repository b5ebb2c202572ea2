"""Pixels over the network are those on disk, each byte asked for once."""

import contextvars
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from mapper.errors import ReadError
from mapper.transport import verify
from mapper.transport.opening import open_raster, reading
from mapper.transport.ranges import WebFile
from mapper.transport.remote import Contents, RemoteFile
from mapper.transport.traffic import Traffic, counting, traffic
from mapper.transport.verify import find_damage
from tests.transport.conftest import write_tiff
from tests.transport.hostile import Faults, serving


def test_the_real_rasters_read_the_same_from_eight_threads(archive):
    paths = sorted((archive / "series").glob("*.tif"))[:2]
    paths += sorted(archive.glob("labelled/naip-trees/images/*.tif"))[:4]
    files = {f"/{n}.tif": path.read_bytes() for n, path in enumerate(paths)}
    with serving(files) as server, ThreadPoolExecutor(8) as pool:

        def read(number):
            window = Window(7 * number, 3 * number, 100, 90)
            href, path = f"{server.address}/{number % len(paths)}.tif", paths[number % len(paths)]
            over_net = reading(href, lambda data: data.read(window=window))
            with rasterio.open(path) as data:
                return np.array_equal(over_net, data.read(window=window), equal_nan=True)

        assert all(pool.map(read, range(24)))


@pytest.mark.parametrize("compress", ["deflate", "lzw", "zstd", "jpeg", None])
@pytest.mark.parametrize("interleave", ["band", "pixel"])
def test_every_layout_reads_the_same(compress, interleave, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 255, (3, 300, 270), "uint8")
    body = write_tiff(pixels, compress=compress, interleave=interleave)
    path = tmp_path / "a.tif"
    path.write_bytes(body)
    with (
        serving({"/a.tif": body}) as server,
        traffic() as seen,
        open_raster(f"{server.address}/a.tif") as far,
        open_raster(str(path)) as near,
    ):
        assert np.array_equal(far.read(), near.read())
        assert far.profile == near.profile
        window = Window(100, 33, 90, 200)
        assert np.array_equal(far.read(2, window=window), near.read(2, window=window))
        coarse = {"out_shape": (3, 30, 27)}
        assert np.array_equal(far.read(**coarse), near.read(**coarse))
    assert seen.twice == 0
    assert server.served.bodies == seen.received


def served_once(server, body):
    """No byte was sent twice."""
    sent = np.zeros(len(body), int)
    for _, start, end in server.served.ranges:
        sent[start:end] += 1
    return sent.max() == 1


def test_bands_one_after_the_other_ask_for_no_byte_twice(pixels):
    body = write_tiff(pixels, interleave="pixel")
    with serving({"/a.tif": body}) as server:
        href = f"{server.address}/a.tif"
        with traffic() as seen:
            for band in (1, 2, 1):
                got = reading(f"{href}?sig={band}", lambda data, band=band: data.read(band))
                assert np.array_equal(got, pixels[band - 1])
        assert served_once(server, body)
        assert seen.twice == 0
        asked = server.served.requests
        with traffic():
            reading(href, lambda data: data.read())
        assert server.served.requests == 2 * asked, "another task begins from nothing"


def test_threads_that_want_the_same_bytes_share_them(pixels, tiff):
    with serving({"/a.tif": tiff}, Faults(latency_s=0.02)) as server, traffic() as seen:
        barrier = threading.Barrier(8)
        right = []

        def read():
            barrier.wait()
            got = reading(f"{server.address}/a.tif", lambda data: data.read())
            right.append(np.array_equal(got, pixels))

        threads = [
            threading.Thread(target=contextvars.copy_context().run, args=(read,)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert right == [True] * 8
        assert served_once(server, tiff)
    assert seen.requests == server.served.requests
    assert seen.received == len(tiff)


def test_kept_bytes_are_bounded(tiff, monkeypatch):
    monkeypatch.setenv("MAPPER_NETWORK__CACHE_BYTES", str(int(len(tiff) * 1.5)))
    with serving({f"/{n}.tif": tiff for n in range(3)}) as server, traffic() as seen:
        for name in ("0", "1", "1", "0"):
            reading(f"{server.address}/{name}.tif", lambda data: data.read())
    assert server.served.bodies == 3 * len(tiff), "the first was dropped for the second"
    assert seen.twice == len(tiff)


def test_blocks_within_blocks_count_for_both_and_share_what_is_kept(tiff):
    with serving({"/a.tif": tiff}) as server, traffic() as outer:
        href = f"{server.address}/a.tif"
        reading(href, lambda data: data.read(1))
        before = outer.requests
        with traffic() as inner:
            assert counting() is inner
            reading(href, lambda data: data.read(1))
            assert inner.requests == 0
            reading(href, lambda data: data.read())
        assert counting() is outer
        assert outer.requests == before + inner.requests == server.served.requests
        assert outer.hosts == {server.address.removeprefix("http://")}


def test_a_file_replaced_between_two_openings_of_a_task_is_an_error(tiff, monkeypatch):
    monkeypatch.setenv("MAPPER_NETWORK__CACHE_BYTES", "0")
    with serving({"/a.tif": tiff}) as server:
        href = f"{server.address}/a.tif"
        with traffic():
            reading(href, lambda data: data.read(1))
            server.faults.new_etag_from = 1
            with pytest.raises(ReadError, match='its ETag was "one" and is "two"'):
                reading(href, lambda data: data.read(1))
        with traffic():
            reading(href, lambda data: data.read(1))


def test_nothing_beside_the_file_is_asked_for(tiff):
    with serving({"/a.tif": tiff}) as server:
        reading(f"{server.address}/a.tif", lambda data: (data.read(1), data.tags(), data.files))
        assert set(server.served.by_path) == {"/a.tif"}


def test_a_window_costs_little_more_than_its_blocks(pixels):
    body = write_tiff(np.tile(pixels, (1, 2, 2)), interleave="band")
    with serving({"/a.tif": body}) as server:
        got = reading(
            f"{server.address}/a.tif", lambda data: data.read(1, window=Window(300, 300, 80, 80))
        )
        assert np.array_equal(got, np.tile(pixels, (1, 2, 2))[0, 300:380, 300:380])
        assert server.served.bodies < 65536 + 33_500 + 16_384


def first_band(href):
    """Read by the context manager alone."""
    with open_raster(href) as data:
        return data.read(1)


@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_damage_is_seen_wherever_it_is(place, pixels, tiff):
    """Wherever the byte is, header, data or checksum of a deflated block."""
    with rasterio.MemoryFile(tiff) as memory, memory.open() as data:
        start = int(data.get_tag_item("BLOCK_OFFSET_3_2", "TIFF", bidx=1))
        size = int(data.get_tag_item("BLOCK_SIZE_3_2", "TIFF", bidx=1))
    at = {"first": start, "middle": start + size // 2, "last": start + size - 1}[place]
    wrong = bytearray(tiff)
    wrong[at] ^= 0xFF
    with serving({"/a.tif": bytes(wrong)}) as server:
        with pytest.raises(ReadError, match=r"damaged|IReadBlock"):
            reading(f"{server.address}/a.tif", lambda data: data.read(1))
        with pytest.raises(ReadError, match=r"damaged|IReadBlock"):
            first_band(f"{server.address}/a.tif")


def test_damage_is_seen_by_every_reader_of_a_file(pixels):
    """Two readers share the bytes: what one of them has begun to check is not yet right."""
    body = bytearray(write_tiff(pixels[:1, :128, :128]))
    body[-1] ^= 0xFF
    with serving({"/a.tif": bytes(body)}) as server:
        contents, seen = Contents(f"{server.address}/a.tif"), Traffic()
        found = []
        for _ in range(2):
            file = RemoteFile("http://host/a.tif", contents, seen)
            with rasterio.open("http://host/a.tif", opener=file) as data:
                file.contents.read(0, len(body), seen)
                found.append(find_damage(data, contents))
    assert "is damaged" in found[0]
    assert found[0] == found[1]


def test_a_block_found_right_is_not_looked_at_again(pixels, monkeypatch):
    body, looked = write_tiff(pixels[:1, :256, :128]), []
    decompress = zlib.decompress
    monkeypatch.setattr(verify.zlib, "decompress", lambda b: looked.append(b) or decompress(b))
    with serving({"/a.tif": body}) as server, traffic():
        for _ in range(2):
            reading(f"{server.address}/a.tif", lambda data: data.read())
    assert len(looked) == len(set(looked)) == 2


class Interrupt(BaseException):
    """As of the keyboard, but not one that ends the tests."""


def test_contents_are_forgotten_after_an_interrupt(tiff, monkeypatch):
    """In the middle of a range: that range has failed for good in these contents."""
    piece = WebFile.piece

    def interrupted(self, start, end, seen):
        monkeypatch.setattr(WebFile, "piece", piece)
        raise Interrupt

    with serving({"/a.tif": tiff}) as server, traffic():
        href = f"{server.address}/a.tif"
        monkeypatch.setattr(WebFile, "piece", interrupted)
        with pytest.raises(Interrupt):
            reading(href, lambda data: data.read(1))
        assert reading(href, lambda data: data.read(1)).any()


@pytest.mark.parametrize("checked", [True, False])
def test_blocks_are_checked_where_the_policy_says_so(checked, pixels, monkeypatch):
    """A block that came in with the header and that GDAL never decodes."""
    body = bytearray(write_tiff(pixels[:1, :256, :128] // 64))
    body[-1] ^= 0xFF
    monkeypatch.setenv("MAPPER_NETWORK__CHECK_BLOCKS", str(int(checked)))
    window = Window(0, 0, 128, 128)
    with serving({"/a.tif": bytes(body)}) as server:
        href = f"{server.address}/a.tif"
        if checked:
            with pytest.raises(ReadError, match="is damaged"):
                reading(href, lambda data: data.read(1, window=window))
        else:
            reading(href, lambda data: data.read(1, window=window))


def test_offsets_beyond_two_gigabytes():
    """A range of a sparse file of 3 GB, read through GDAL's own calls."""
    import struct

    pixels = np.arange(256 * 256, dtype="uint16").reshape(1, 256, 256) % 9973
    body = bytearray(write_tiff(pixels.astype("uint8"), compress=None))
    moved = _far(body, 3_000_000_000, struct)

    class Sparse:
        def __len__(self):
            return 3_000_000_000 + len(body)

        def __getitem__(self, part):
            if part.start >= 3_000_000_000:
                return bytes(body[part.start - 3_000_000_000 : part.stop - 3_000_000_000])
            head = moved[part.start : part.stop]
            return head + bytes(part.stop - part.start - len(head))

    with serving({"/a.tif": Sparse()}) as server:
        got = reading(f"{server.address}/a.tif", lambda data: data.read())
        assert np.array_equal(got, pixels.astype("uint8"))


def _far(body, distance, struct):
    """The header of a TIFF whose four tiles lie `distance` later than they did."""
    moved = bytearray(body)
    ifd = struct.unpack("<I", body[4:8])[0]
    for entry in range(struct.unpack("<H", body[ifd : ifd + 2])[0]):
        tag, _, count, value = struct.unpack_from("<HHII", body, ifd + 2 + 12 * entry)
        if tag == 324:
            old = struct.unpack_from(f"<{count}I", body, value)
            struct.pack_into(f"<{count}I", moved, value, *(at + distance for at in old))
    return bytes(moved)
