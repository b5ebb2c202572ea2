"""Cloud-Optimized GeoTIFFs: written in strips, with stated overviews, checked, then renamed."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow
from rio_cogeo.cogeo import cog_validate

from mapper.area.grid import PixelBox
from mapper.errors import StoreError

_BLOCK = 512
_STRIP = 2048
_STRIP_PIXELS = 1 << 23

ReadStrip = Callable[[PixelBox], np.ndarray]
"""Gives `(y, x)` or `(band, y, x)` of a lattice box in the raster's dtype."""


class Placed(Protocol):
    """Something that says where lattice pixels lie."""

    @property
    def crs(self) -> Any:
        """As rasterio takes it."""
        ...

    def transform_of(self, pixels: PixelBox) -> Affine:
        """From column and row inside a box to coordinates."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterSpec:
    """All of a raster but its pixels."""

    grid: Placed
    pixels: PixelBox
    dtype: str
    nodata: float
    overviews: Literal["MODE", "AVERAGE", "NEAREST"]
    """How overviews are made; never left to the driver, which would blend class numbers."""
    descriptions: tuple[str, ...]
    """One per band."""
    colormap: Mapping[int, tuple[int, int, int, int]] | None = None
    category_names: tuple[str, ...] = ()
    """Names of the values 0, 1, 2 ... of band 1."""
    scale: float = 1.0
    """Value times this is in `unit`."""
    tags: Mapping[str, str] = field(default_factory=dict)
    threads: int | Literal["ALL_CPUS"] = 1
    """For compressing."""


def write_cog(path: Path, spec: RasterSpec, read: ReadStrip) -> None:
    """Write a COG; memory is set by the strip, and the name appears when the file is whole.

    Raises: StoreError where the disk refuses, or the result is no strictly valid COG.
    """
    with CogWriter(path, spec) as writer:
        for strip in strips(spec.pixels):
            writer.write(strip, read(strip))


class CogWriter:
    """A COG that is given its rows from north to south; nothing appears unless all came.

    Raises: StoreError where the disk refuses, or the result is no strictly valid COG.
    """

    def __init__(self, path: Path, spec: RasterSpec) -> None:
        """For a file that is to have this name in the end."""
        self._path, self._spec = path, spec
        self._plain = path.with_name(f".{path.stem}.plain.tif")
        self._attempt = path.with_name(f".{path.stem}.cog.tif")
        self._waiting: list[np.ndarray] = []
        self._next = spec.pixels.row0
        self._first = spec.pixels.row0
        self._dataset: Any = None

    def __enter__(self) -> "CogWriter":
        """Begin the file."""
        with self._told():
            self._dataset = _open_plain(self._plain, self._spec)
        return self

    def write(self, box: PixelBox, values: np.ndarray) -> None:
        """The next rows, `(y, x)` or `(band, y, x)`, across the whole raster."""
        if box.row0 != self._next:
            raise ValueError(f"row {box.row0} was given, {self._next} is the next")
        self._waiting.append(values if values.ndim == 3 else values[None])
        self._next = box.row1
        # a block that is written in parts is compressed as often
        ready = (self._next - self._spec.pixels.row0) // _BLOCK * _BLOCK + self._spec.pixels.row0
        if ready > self._first:
            with self._told():
                self._flush(ready)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file, or leave nothing of it."""
        try:
            with self._told():
                if error is None:
                    self._flush(self._next)
                self._dataset.close()
                if error is None:
                    self._finish()
        finally:
            aside = self._attempt.with_name(f"{self._attempt.name}.aux.xml")
            for leftover in (self._plain, self._attempt, aside):
                leftover.unlink(missing_ok=True)

    def _flush(self, stop: int) -> None:
        """Write what waits, up to a row."""
        if not self._waiting:
            return
        rows = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting, 1)
        count, origin = stop - self._first, self._first - self._spec.pixels.row0
        window = RasterWindow(0, origin, self._spec.pixels.shape[1], count)
        self._dataset.write(rows[:, :count].astype(self._spec.dtype, copy=False), window=window)
        self._waiting = [rows[:, count:].copy()] if rows.shape[1] > count else []
        self._first = stop

    def _finish(self) -> None:
        path, spec = self._path, self._spec
        if self._next != spec.pixels.row1:
            raise StoreError(f"{path} was given {self._next} of its {spec.pixels.row1} rows")
        _copy_as_cog(self._plain, self._attempt, spec)
        _read_back(self._attempt)
        valid, errors, warnings = cog_validate(self._attempt, strict=True, quiet=True)
        if not valid:
            raise StoreError(f"{path} is no valid COG: {'; '.join(errors + warnings)}")
        path.with_name(f"{path.name}.aux.xml").unlink(missing_ok=True)
        if spec.category_names:
            _write_categories(path, spec.category_names)
        os.replace(self._attempt, path)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (RasterioError, CPLE_BaseError, SystemError, OSError) as reason:
            raise StoreError(
                f"{self._path} could not be written ({reason}); free space and run again"
            ) from reason


def strips(pixels: PixelBox) -> Iterator[PixelBox]:
    """A box in bands of whole blocks of rows, of bounded size."""
    rows = max(_BLOCK, _STRIP_PIXELS // max(1, pixels.shape[1]) // _BLOCK * _BLOCK)
    for row in range(pixels.row0, pixels.row1, rows):
        yield PixelBox(
            row0=row, col0=pixels.col0, row1=min(row + rows, pixels.row1), col1=pixels.col1
        )


def _open_plain(path: Path, spec: RasterSpec) -> Any:
    """A tiled GeoTIFF with everything but pixels and overviews."""
    height, width = spec.pixels.shape
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": len(spec.descriptions),
        "dtype": spec.dtype,
        "crs": spec.grid.crs,
        "transform": spec.grid.transform_of(spec.pixels),
        "nodata": spec.nodata,
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "compress": "DEFLATE",
        "zlevel": 1,
        "num_threads": spec.threads,
        "BIGTIFF": "IF_SAFER",
    }
    dataset = rasterio.open(path, "w", **profile)
    for index, description in enumerate(spec.descriptions, start=1):
        dataset.set_band_description(index, description)
    if spec.scale != 1.0:
        dataset.scales = [spec.scale] * len(spec.descriptions)
    if spec.colormap:
        dataset.write_colormap(1, dict(spec.colormap))
    dataset.update_tags(**spec.tags)
    for value, name in enumerate(spec.category_names):
        dataset.update_tags(1, **{f"CLASS_{value}": name})
    return dataset


def _copy_as_cog(source: Path, target: Path, spec: RasterSpec) -> None:
    rasterio.shutil.copy(
        source,
        target,
        driver="COG",
        BLOCKSIZE=_BLOCK,
        COMPRESS="DEFLATE",
        PREDICTOR="NO" if spec.colormap else "YES",
        OVERVIEW_RESAMPLING=spec.overviews,
        OVERVIEW_COMPRESS="DEFLATE",
        BIGTIFF="IF_SAFER",
        STATISTICS="NO" if spec.colormap else "YES",
        NUM_THREADS=str(spec.threads),
    )


def _read_back(path: Path) -> None:
    """Read every block, overviews too: a disk that filled up leaves files that look whole."""
    with rasterio.open(path) as dataset:
        levels = [None, *range(len(dataset.overviews(1)))]
    for level in levels:
        options = {} if level is None else {"overview_level": level}
        with rasterio.open(path, **options) as dataset:
            for row in range(0, dataset.height, _STRIP):
                rows = min(_STRIP, dataset.height - row)
                dataset.read(window=RasterWindow(0, row, dataset.width, rows))


def _write_categories(path: Path, names: tuple[str, ...]) -> None:
    """Class names for GDAL before 3.12, which keeps them beside the file."""
    lines = "".join(f"      <Category>{escape(name)}</Category>\n" for name in names)
    path.with_name(f"{path.name}.aux.xml").write_text(
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{lines}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n",
        encoding="utf-8",
    )
