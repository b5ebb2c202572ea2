"""Cloud-Optimized GeoTIFFs: written in strips, with stated overviews, checked, then renamed."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow
from rio_cogeo.cogeo import cog_validate

from mapper.area.grid import Grid, PixelBox
from mapper.errors import StoreError

_BLOCK = 512
_STRIP = 2048
_STRIP_PIXELS = 1 << 23

ReadStrip = Callable[[PixelBox], np.ndarray]
"""Gives `(y, x)` or `(band, y, x)` of a lattice box in the raster's dtype."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterSpec:
    """All of a raster but its pixels."""

    grid: Grid
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


def write_cog(path: Path, spec: RasterSpec, read: ReadStrip) -> None:
    """Write a COG; memory is set by the strip, and the name appears when the file is whole.

    Raises: StoreError where the disk refuses, or the result is no strictly valid COG.
    """
    plain = path.with_name(f".{path.stem}.plain.tif")
    attempt = path.with_name(f".{path.stem}.cog.tif")
    try:
        _write_plain(plain, spec, read)
        _copy_as_cog(plain, attempt, spec)
        _read_back(attempt)
        valid, errors, warnings = cog_validate(attempt, strict=True, quiet=True)
        if not valid:
            raise StoreError(f"{path} is no valid COG: {'; '.join(errors + warnings)}")
        if spec.category_names:
            _write_categories(path, spec.category_names)
        os.replace(attempt, path)
    except (RasterioError, CPLE_BaseError, SystemError, OSError) as reason:
        raise StoreError(
            f"{path} could not be written ({reason}); free space and run again"
        ) from reason
    finally:
        for leftover in (plain, attempt, attempt.with_name(f"{attempt.name}.aux.xml")):
            leftover.unlink(missing_ok=True)


def strips(pixels: PixelBox) -> Iterator[PixelBox]:
    """A box in bands of whole blocks of rows, of bounded size."""
    rows = max(_BLOCK, _STRIP_PIXELS // max(1, pixels.shape[1]) // _BLOCK * _BLOCK)
    for row in range(pixels.row0, pixels.row1, rows):
        yield PixelBox(
            row0=row, col0=pixels.col0, row1=min(row + rows, pixels.row1), col1=pixels.col1
        )


def _write_plain(path: Path, spec: RasterSpec, read: ReadStrip) -> None:
    """A tiled GeoTIFF with everything but overviews."""
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
        "BIGTIFF": "IF_SAFER",
    }
    with rasterio.open(path, "w", **profile) as dataset:
        for strip in strips(spec.pixels):
            values = read(strip).astype(spec.dtype)
            window = RasterWindow(0, strip.row0 - spec.pixels.row0, width, strip.shape[0])
            dataset.write(values if values.ndim == 3 else values[None], window=window)
        for index, description in enumerate(spec.descriptions, start=1):
            dataset.set_band_description(index, description)
        if spec.scale != 1.0:
            dataset.scales = [spec.scale] * len(spec.descriptions)
        if spec.colormap:
            dataset.write_colormap(1, dict(spec.colormap))
        dataset.update_tags(**spec.tags)
        for value, name in enumerate(spec.category_names):
            dataset.update_tags(1, **{f"CLASS_{value}": name})


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
        NUM_THREADS="1",
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
