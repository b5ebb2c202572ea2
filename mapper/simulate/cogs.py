"""Writing cloud-optimised GeoTIFFs that are either whole or not there."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.transform import Affine

from mapper.simulate.extent import Extent


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """How an array is stored."""

    nodata: float | None
    resampling: str
    """Of the overviews: AVERAGE for quantities, MODE for classes."""
    descriptions: tuple[str, ...] = ()
    colormap: dict[int, tuple[int, int, int, int]] | None = None
    tags: tuple[tuple[str, str], ...] = ()


def write_cog(path: Path, array: NDArray[np.generic], extent: Extent, layer: Layer) -> None:
    """Write (y, x) or (band, y, x) on an extent; see `write_cog_at`."""
    write_cog_at(path, array, CRS.from_epsg(extent.epsg), extent.transform, layer)


def write_cog_at(
    path: Path, array: NDArray[np.generic], crs: CRS, transform: Affine, layer: Layer
) -> None:
    """Write a COG under a temporary name, then rename it. Every file says it is simulated."""
    bands = array[None] if array.ndim == 2 else array
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    profile = {
        "driver": "COG",
        "count": bands.shape[0],
        "height": bands.shape[1],
        "width": bands.shape[2],
        "dtype": bands.dtype.name,
        "crs": crs,
        "transform": transform,
        "nodata": layer.nodata,
        "blocksize": 512,
        "compress": "DEFLATE",
        "level": 1,
        "predictor": "YES",
        "overviews": "IGNORE_EXISTING",
        "overview_resampling": layer.resampling,
        "bigtiff": "IF_SAFER",
    }
    try:
        with rasterio.open(temporary, "w", **profile) as target:
            target.write(bands)
            target.update_tags(SIMULATED="true", **dict(layer.tags))
            for number, text in enumerate(layer.descriptions, start=1):
                target.set_band_description(number, text)
            if layer.colormap is not None:
                target.write_colormap(1, layer.colormap)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
