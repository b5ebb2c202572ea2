"""A plain parallel range reader: fetches just the compressed blocks that tiles need.

It knows as much of a TIFF as where its blocks lie, decodes nothing (or, on demand, inflates and
undoes the predictor and throws the pixels away) and says how many bytes came: what a server gives
to so many connections, and what two cores can unpack of it.
"""

import multiprocessing
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import urllib3
from pyproj import Transformer

from mapper.area.grid import TileKey

HEAD = 16384
"""Bytes of the first read: headers of a COG lie at its start."""
_SIZES = {3: "H", 4: "I", 12: "d", 16: "Q"}
_WIDTH, _HEIGHT, _BITS = 256, 257, 258
_PREDICTOR, _BLOCK_WIDTH, _BLOCK_HEIGHT, _OFFSETS, _COUNTS = 317, 322, 323, 324, 325
_SCALE, _TIE = 33550, 33922


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the blocks of a file's first picture lie, on disk and on the ground."""

    shape: tuple[int, int]
    block: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    corner: tuple[float, float]
    """Left and top, metres."""
    resolution: float
    dtype: str
    predictor: int

    def blocks_in(self, bounds: tuple[float, float, float, float]) -> list[tuple[int, int]]:
        """Offset and length of the blocks that touch left, bottom, right, top."""
        left, top = self.corner
        cols = self._span(bounds[0] - left, bounds[2] - left, self.shape[1])
        rows = self._span(top - bounds[3], top - bounds[1], self.shape[0])
        across = -(-self.shape[1] // self.block)
        numbers = [row * across + col for row in rows for col in cols]
        return [(self.offsets[n], self.counts[n]) for n in numbers]

    def _span(self, low: float, high: float, size: int) -> range:
        first = max(0, int(np.floor(low / self.resolution + 1e-6)))
        last = min(size, int(np.ceil(high / self.resolution - 1e-6)))
        return range(first // self.block, -(-last // self.block)) if first < last else range(0)


def parse_layout(read: Callable[[int, int], bytes]) -> Layout:
    """The layout of a tiled little-endian TIFF, classic or big.

    Args:
        read: gives the bytes at an offset and length; fewer at the end of the file.

    Raises: ValueError for any other file.
    """
    head = read(0, HEAD)
    if head[:2] != b"II" or head[2] not in (42, 43):
        raise ValueError("not a little-endian TIFF")
    tags = dict(_tags(head, read))
    shape = int(tags[_HEIGHT][0]), int(tags[_WIDTH][0])
    if _OFFSETS not in tags or tags[_BLOCK_WIDTH] != tags[_BLOCK_HEIGHT]:
        raise ValueError("not in square blocks")
    return Layout(
        shape=shape,
        block=int(tags[_BLOCK_WIDTH][0]),
        offsets=tuple(int(n) for n in tags[_OFFSETS]),
        counts=tuple(int(n) for n in tags[_COUNTS]),
        corner=(tags[_TIE][3], tags[_TIE][4]),
        resolution=tags[_SCALE][0],
        dtype=f"uint{int(tags[_BITS][0])}",
        predictor=int(tags.get(_PREDICTOR, (1,))[0]),
    )


def _tags(
    head: bytes, read: Callable[[int, int], bytes]
) -> Iterator[tuple[int, tuple[float, ...]]]:
    """Number and values of each tag that is made of numbers."""
    big = head[2] == 43
    (start,) = struct.unpack_from("<Q" if big else "<I", head, 8 if big else 4)
    (count,) = struct.unpack_from("<Q" if big else "<H", head, start)
    entry, first = (20, start + 8) if big else (12, start + 2)
    for place in range(first, first + count * entry, entry):
        number, kind = struct.unpack_from("<HH", head, place)
        (length,) = struct.unpack_from("<Q" if big else "<I", head, place + 4)
        if kind not in _SIZES:
            continue
        form = f"<{length}{_SIZES[kind]}"
        value = place + (12 if big else 8)
        if struct.calcsize(form) > (8 if big else 4):
            (value,) = struct.unpack_from("<Q" if big else "<I", head, value)
        end = value + struct.calcsize(form)
        data = head[value:end] if end <= len(head) else read(value, end - value)
        yield number, struct.unpack(form, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Haul:
    """What a reader fetched."""

    bytes: int
    """Of blocks; headers come on top."""
    blocks: int


def fetch(files: list[tuple[str, int]], keys: list[TileKey], threads: int, decode: bool) -> Haul:
    """Fetch the blocks of all files that each tile needs, a tile's for itself as tasks would.

    Args:
        files: paths or addresses, each with the EPSG code of its CRS.
        keys: tiles.
        threads: connections at once.
        decode: inflate and undo the predictor.
    """
    sources = _Sources(threads)
    bounds = {epsg: _bounds(keys, epsg) for epsg in {epsg for _, epsg in files}}
    with ThreadPoolExecutor(threads) as pool:
        layouts = list(pool.map(lambda f: parse_layout(partial(sources.read, f[0])), files))
        jobs = [
            (href, layout, *block)
            for (href, epsg), layout in zip(files, layouts, strict=True)
            for box in bounds[epsg]
            for block in layout.blocks_in(box)
        ]
        lengths = list(pool.map(lambda job: sources.take(job, decode), jobs))
    return Haul(bytes=sum(lengths), blocks=len(lengths))


def fetch_in_processes(
    files: list[tuple[str, int]], keys: list[TileKey], threads: int, processes: int, decode: bool
) -> Haul:
    """As `fetch`, the files dealt out to processes, `threads` connections in each."""
    if processes == 1:
        return fetch(files, keys, threads, decode)
    hauls: list[Haul] = []
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        shares = [(files[n::processes], keys, threads, decode) for n in range(processes)]
        hauls = pool.starmap(fetch, shares)
    return Haul(bytes=sum(h.bytes for h in hauls), blocks=sum(h.blocks for h in hauls))


def _bounds(keys: list[TileKey], epsg: int) -> list[tuple[float, float, float, float]]:
    """Of each tile in a CRS, a pixel wider where it is not the tile's own."""
    found = []
    for key in keys:
        box = key.grid.bounds_of(key.box)
        if epsg != key.epsg:
            there = Transformer.from_crs(key.epsg, epsg, always_xy=True)
            left, bottom, right, top = there.transform_bounds(*box)
            edge = key.resolution
            box = left - edge, bottom - edge, right + edge, top + edge
        found.append(box)
    return found


class _Sources:
    """Bytes of files and addresses; a connection each thread."""

    def __init__(self, threads: int) -> None:
        self.pool = urllib3.PoolManager(maxsize=threads, block=True, retries=False)
        self.open: dict[str, int] = {}
        self.lock = threading.Lock()

    def read(self, href: str, start: int, length: int) -> bytes:
        """A range. Raises: RuntimeError where a server does not give it."""
        if not href.startswith("http"):
            return os.pread(self._descriptor(href), length, start)
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        answer = self.pool.request("GET", href, headers=headers)
        if answer.status != 206:
            raise RuntimeError(f"{href} answers {answer.status} to a range")
        return bytes(answer.data)

    def _descriptor(self, path: str) -> int:
        with self.lock:
            if path not in self.open:
                self.open[path] = os.open(path, os.O_RDONLY)
            return self.open[path]

    def take(self, job: tuple[str, Layout, int, int], decode: bool) -> int:
        """Length of a block that was fetched, and decoded where that is asked for."""
        href, layout, start, length = job
        data = self.read(href, start, length)
        if len(data) != length:
            raise RuntimeError(f"{href}: {len(data)} bytes at {start}, {length} were asked for")
        if decode:
            _decoded(data, layout)
        return length


def _decoded(data: bytes, layout: Layout) -> np.ndarray[Any, Any]:
    """A block's pixels."""
    values = np.frombuffer(zlib.decompress(data), dtype=layout.dtype)
    values = values.reshape(layout.block, layout.block)
    if layout.predictor == 2:
        values = np.cumsum(values, axis=1, dtype=values.dtype)
    return values


def full_resolution_bytes(path: str) -> float:
    """Compressed bytes a pixel of a file's first picture, overviews left out."""
    layout = parse_layout(partial(_Sources(1).read, path))
    return sum(layout.counts) / (layout.shape[0] * layout.shape[1])


def files_of(items: list[dict[str, Any]], bands: list[str]) -> list[tuple[str, int]]:
    """Address and EPSG code of the wanted assets of all items."""
    return list(
        chain.from_iterable(
            [(item["assets"][b]["href"], item["properties"]["proj:epsg"]) for b in bands]
            for item in items
        )
    )
