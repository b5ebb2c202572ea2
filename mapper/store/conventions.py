"""CF and GeoZarr attributes: what tells xarray, QGIS and people where a pixel is.

CF 1.11 grid mapping (`spatial_ref` with `crs_wkt` and `GeoTransform`) and the GeoZarr
conventions of December 2025, which are named by UUID because their names still change.
"""

from typing import Any

import numpy as np
from pyproj import CRS

from mapper.area.grid import Grid, PixelBox

_SPATIAL = "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"
_PROJ = "f17cb550-5864-4468-aeb7-f3180cfb622f"


def group_attributes(grid: Grid, pixels: PixelBox) -> dict[str, Any]:
    """Attributes of a group whose arrays all cover `pixels`."""
    left, bottom, right, top = grid.bounds_of(pixels)
    transform = grid.transform_of(pixels)
    return {
        "Conventions": "CF-1.11",
        "zarr_conventions": [
            {"uuid": _SPATIAL, "name": "spatial:", "version": "0.1"},
            {"uuid": _PROJ, "name": "proj:", "version": "1"},
        ],
        "spatial:dimensions": ["y", "x"],
        "spatial:bbox": [left, bottom, right, top],
        "spatial:transform": list(transform)[:6],
        "spatial:shape": list(pixels.shape),
        "spatial:registration": "pixel",
        "proj:code": grid.crs,
    }


def spatial_ref_attributes(grid: Grid, pixels: PixelBox) -> dict[str, Any]:
    """Attributes of the CF grid mapping variable."""
    crs = CRS.from_epsg(grid.epsg)
    transform = grid.transform_of(pixels)
    attributes: dict[str, Any] = {
        k: v for k, v in crs.to_cf().items() if isinstance(v, str | float | int)
    }
    attributes["spatial_ref"] = attributes["crs_wkt"]
    attributes["GeoTransform"] = " ".join(f"{v:.10g}" for v in transform.to_gdal())
    return attributes


def axis_coordinates(grid: Grid, pixels: PixelBox) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Pixel-centre coordinates `x` and `y` in metres, float64, with their CF attributes."""
    height, width = pixels.shape
    x = (pixels.col0 + np.arange(width) + 0.5) * grid.resolution
    y = -(pixels.row0 + np.arange(height) + 0.5) * grid.resolution
    return {
        axis: (
            values,
            {
                "standard_name": f"projection_{axis}_coordinate",
                "long_name": f"{axis} coordinate of projection",
                "units": "m",
                "axis": axis.upper(),
            },
        )
        for axis, values in (("x", x), ("y", y))
    }
