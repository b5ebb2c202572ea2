"""Pieces of image files: windows of TIFFs, slices of PNGs and JPEGs, which stay decoded.

Samples are taken as stored. A fourth band is a band even where the header calls it alpha, as
that of most red, green, blue, near-infrared TIFFs and PNGs does; and a CMYK TIFF is four
samples, not the colours that GDAL makes of them with an alpha of 255.
"""

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from mapper.errors import DataError
from mapper.training.data.labelled import Box

TIFF = (".tif", ".tiff")
SUFFIXES = (*TIFF, ".png", ".jpg", ".jpeg")
_ENDS = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}
"""How a PNG and a JPEG begin, and what stands near the end of one that is whole."""
_TAIL = 1024
_KEPT_BYTES = 256 << 20
_ROWS_AT_ONCE = 512

Palette = dict[int, tuple[int, int, int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of itself."""

    shape: tuple[int, int]
    """Height and width."""
    count: int
    """Of bands."""
    palette: bool
    """True where its only band holds numbers of colours."""
    place: tuple[float, float] | None
    half: tuple[float, float] = (0.0, 0.0)
    """Half its width and height on the ground, about its place."""
    crs: str = ""
    """Easting and northing of its centre; None without a CRS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A piece of a file, as stored."""

    values: np.ndarray
    """`(band, y, x)`."""
    nodata: tuple[float | None, ...]
    """Of each band."""
    mask: np.ndarray | None
    """`(y, x)` bool of an internal mask, True where there is data."""
    palette: Palette | None
    """Red, green, blue, alpha of each value."""

    def valid(self) -> np.ndarray | None:
        """`(band, y, x)` bool; None where the file has no way to say that data are missing.

        NaN and nodata of floats count for each band; of whole numbers a pixel is missing where
        all bands are nodata, because black is also a colour.
        """
        found = None if self.mask is None else np.broadcast_to(self.mask, self.values.shape)
        absent = [
            np.zeros(band.shape, dtype=bool) if marker is None else band == band.dtype.type(marker)
            for band, marker in zip(self.values, self._markers(), strict=True)
        ]
        if self.values.dtype.kind == "f":
            present = np.isfinite(self.values) & ~np.stack(absent)
        elif any(marker is not None for marker in self.nodata):
            present = np.broadcast_to(~np.logical_and.reduce(absent), self.values.shape)
        else:
            return found
        return present if found is None else present & found

    def cut(self, box: Box, bands: Sequence[int] | None) -> "Stored":
        """A piece of the piece; bands count from 1."""
        here = _slices(box)
        chosen = range(1, len(self.values) + 1) if bands is None else bands
        return Stored(
            values=self.values[:, *here][[b - 1 for b in chosen]],
            nodata=tuple(self.nodata[b - 1] for b in chosen),
            mask=None if self.mask is None else self.mask[here],
            palette=self.palette,
        )

    def _markers(self) -> list[float | None]:
        """Nodata as far as the type can hold it; NaN is found without it."""
        if self.values.dtype.kind == "f":
            return [None if m is None or np.isnan(m) else m for m in self.nodata]
        kind = np.iinfo(self.values.dtype)
        return [
            m if m is not None and kind.min <= m <= kind.max and m == int(m) else None
            for m in self.nodata
        ]


def read_header(path: Path) -> Header:
    """Reads no pixel. Raises: DataError."""
    with _opened(path) as dataset:
        place, half, crs = None, (0.0, 0.0), ""
        if dataset.crs is not None:
            to_ground, col, row = dataset.transform, dataset.width / 2, dataset.height / 2
            place = (
                to_ground.c + to_ground.a * col + to_ground.b * row,
                to_ground.f + to_ground.d * col + to_ground.e * row,
            )
            half = (
                abs(to_ground.a) * col + abs(to_ground.b) * row,
                abs(to_ground.d) * col + abs(to_ground.e) * row,
            )
            crs = dataset.crs.to_string()
        return Header(
            shape=(dataset.height, dataset.width),
            count=dataset.count,
            palette=dataset.colorinterp[0] == ColorInterp.palette,
            place=place,
            half=half,
            crs=crs,
        )


def read_stored(
    path: Path, box: Box | None, bands: Sequence[int] | None = None, keep: bool = True
) -> Stored:
    """A piece of a file, or all of it.

    Args:
        path: image; of a TIFF only the piece is decoded.
        box: None for all of it.
        bands: from 1; None for all.
        keep: leave what is not a TIFF decoded for the next piece.

    Raises: DataError naming the file, also where the box reaches beyond it.
    """
    if path.suffix.lower() in TIFF:
        return _read(path, box, bands)
    whole = kept(path, "stored", lambda: _read_whole(path)) if keep else _read_whole(path)
    height, width = whole.values.shape[1:]
    _check_box(path, box, (height, width))
    return whole.cut(box or (0, 0, height, width), bands)


def is_constant(path: Path, band: int, value: float) -> bool:
    """True where all of a band holds one value; stops reading where it does not."""
    with _opened(path) as dataset, _reading(path):
        for row in range(0, dataset.height, _ROWS_AT_ONCE):
            rows = min(_ROWS_AT_ONCE, dataset.height - row)
            if (dataset.read(band, window=Window(0, row, dataset.width, rows)) != value).any():
                return False
    return True


class _Kept:
    """The latest decoded arrays, up to a number of bytes. Threads may share it."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._entries: OrderedDict[Hashable, tuple[int, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key][1]
        made = make()
        size = made.nbytes if isinstance(made, np.ndarray) else made.values.nbytes
        with self._lock:
            if key not in self._entries:
                self._entries[key] = (size, made)
                self._bytes += size
            while self._bytes > self._limit:
                self._bytes -= self._entries.popitem(last=False)[1][0]
        return made


_kept = _Kept(_KEPT_BYTES)


def kept(path: Path, what: Hashable, make: Callable[[], Any]) -> Any:
    """What was made of a file, made anew once the file has changed. Never write into it."""
    try:
        status = path.stat()
    except OSError as reason:
        raise DataError(f"{path} cannot be read ({reason.strerror})") from reason
    return _kept.get((str(path), status.st_mtime_ns, status.st_size, what), make)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = _open(path, str(path))
        if dataset.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE") == "CMYK":
            dataset.close()
            dataset = _open(path, f"GTIFF_RAW:{path}")
        with dataset:
            yield dataset


def _open(path: Path, name: str) -> Any:
    try:
        return rasterio.open(name)
    except RasterioError as reason:
        raise DataError(f"{path} is no image that can be read ({reason}); convert it") from reason


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (RasterioError, SystemError) as reason:
        raise DataError(
            f"{path} cannot be read to its end ({reason}); it may be cut off: fetch it again"
        ) from reason


def _read(path: Path, box: Box | None, bands: Sequence[int] | None) -> Stored:
    with _opened(path) as dataset, _reading(path):
        _check_box(path, box, (dataset.height, dataset.width))
        chosen = list(dataset.indexes if bands is None else bands)
        window = None if box is None else Window.from_slices(*_slices(box))
        flags = dataset.mask_flag_enums[chosen[0] - 1]
        masked = MaskFlags.per_dataset in flags and not {MaskFlags.alpha, MaskFlags.nodata} & set(
            flags
        )
        palette = dataset.colorinterp[0] == ColorInterp.palette
        return Stored(
            values=dataset.read(chosen, window=window),
            nodata=tuple(dataset.nodatavals[b - 1] for b in chosen),
            mask=dataset.read_masks(chosen[0], window=window) > 0 if masked else None,
            palette=dict(dataset.colormap(1)) if palette else None,
        )


def _read_whole(path: Path) -> Stored:
    """All of a PNG or JPEG, which GDAL fills up without a word where they are cut off."""
    stored = _read(path, None, None)
    with open(path, "rb") as stream:
        start = stream.read(4)
        stream.seek(max(0, path.stat().st_size - _TAIL))
        tail = stream.read()
    if any(start.startswith(magic) and end not in tail for magic, end in _ENDS.items()):
        raise DataError(f"{path} cannot be read to its end; it is cut off: fetch it again")
    return stored


def _slices(box: Box) -> tuple[slice, slice]:
    row, col, height, width = box
    return slice(row, row + height), slice(col, col + width)


def _check_box(path: Path, box: Box | None, shape: tuple[int, int]) -> None:
    if box is None:
        return
    row, col, height, width = box
    inside = row >= 0 and col >= 0 and row + height <= shape[0] and col + width <= shape[1]
    if not inside or height < 1 or width < 1:
        raise DataError(f"{path} is {shape[0]} x {shape[1]} pixels; no piece of it is {box}")
