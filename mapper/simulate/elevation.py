"""Elevation on the 1-arc-second grid of SRTM and NASADEM: pixel centres on whole arc-seconds."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.transform import Affine

from mapper.simulate.cities import WorldOptions
from mapper.simulate.cogs import Layer, write_cog_at
from mapper.simulate.granules import imagery
from mapper.simulate.ground import Ground
from mapper.simulate.items import item, raster_asset
from mapper.simulate.noise import FloatArray, derive, fractal_noise, smoothstep
from mapper.simulate.world import World

NODATA = -32768
_SECOND = 1.0 / 3600.0
_LAYER = Layer(nodata=NODATA, resampling="AVERAGE")


def elevation(world: World, x: FloatArray, y: FloatArray) -> NDArray[np.float64]:
    """Metres above sea level at metres from the centre: hills, and a valley for the river."""
    hills = 320.0 * fractal_noise(x, y, 4200.0, derive(world.seed, "hills"), 4)
    rough = 14.0 * fractal_noise(x, y, 350.0, derive(world.seed, "rough"), 3)
    bank = np.minimum(world.river(x, y), world.lake(x, y))
    valley = 0.04 + 0.96 * smoothstep(bank, 0.0, 1800.0)
    return 30.0 + derive(world.seed, "base") % 400 + (hills + rough) * valley


def write_elevation(
    ground: Ground, options: WorldOptions, folder: Path
) -> Iterator[dict[str, Any]]:
    """Write the crop of each 1-degree tile that the imagery touches and yield the items."""
    west, south, east, north = imagery(ground.city, options.margin_m).projected_bounds(4326)
    first = math.floor(west * 3600), math.floor(south * 3600)
    last = math.ceil(east * 3600), math.ceil(north * 3600)
    for lat in range(first[1] // 3600, (last[1] - 1) // 3600 + 1):
        for lon in range(first[0] // 3600, (last[0] - 1) // 3600 + 1):
            left, right = max(first[0], lon * 3600), min(last[0], lon * 3600 + 3600)
            bottom, top = max(first[1], lat * 3600), min(last[1], lat * 3600 + 3600)
            name = f"NASADEM_HGT_{_corner(lat, lon)}_sim-{ground.city.slug}"
            heights = _heights(ground, (left, bottom, right, top))
            transform = Affine(
                _SECOND, 0, (left - 0.5) * _SECOND, 0, -_SECOND, (top + 0.5) * _SECOND
            )
            path = folder / name / f"{name}.tif"
            write_cog_at(path, heights, CRS.from_epsg(4326), transform, _LAYER)
            yield _item(name, heights.shape, transform)


def _corner(lat: int, lon: int) -> str:
    return f"{'n' if lat >= 0 else 's'}{abs(lat):02d}{'e' if lon >= 0 else 'w'}{abs(lon):03d}"


def _heights(ground: Ground, seconds: tuple[int, int, int, int]) -> NDArray[np.int16]:
    """Heights at whole arc-seconds from left, bottom to right, top, all inclusive."""
    left, bottom, right, top = seconds
    lon, lat = np.meshgrid(
        np.arange(left, right + 1) / 3600.0, np.arange(top, bottom - 1, -1) / 3600.0
    )
    to_plane = Transformer.from_crs(4326, ground.city.epsg, always_xy=True)
    x, y = to_plane.transform(lon, lat)
    x0, y0 = ground.world.centre
    return np.rint(elevation(ground.world, x - x0, y - y0)).astype(np.int16)


def _item(name: str, shape: tuple[int, ...], transform: Affine) -> dict[str, Any]:
    left, top = transform.c, transform.f
    right, bottom = left + shape[1] * _SECOND, top - shape[0] * _SECOND
    ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]
    return item(
        name=name,
        collection="nasadem",
        ring=[[round(v, 8) for v in point] for point in ring],
        properties={
            "datetime": "2000-02-20T00:00:00Z",
            "proj:epsg": 4326,
            "proj:code": "EPSG:4326",
            "proj:bbox": [left, bottom, right, top],
            "proj:shape": list(shape),
            "proj:transform": list(transform)[:6],
        },
        assets={"elevation": raster_asset(f"{name}.tif", "Elevation")},
        extensions=("projection",),
    )
