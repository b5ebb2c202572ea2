"""One-metre orthophoto tiles: red, green, blue, near-infrared, 8 bit."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapper.simulate.cities import WorldOptions
from mapper.simulate.cogs import Layer, write_cog
from mapper.simulate.extent import Extent
from mapper.simulate.ground import Ground
from mapper.simulate.items import item, projection, raster_asset, timestamp
from mapper.simulate.noise import derive, uniform
from mapper.simulate.spectra import BANDS, Material, spectra_at

_CHANNELS = ("red", "green", "blue", "nir")
_LEVELS = 16
_LARGEST = 4096
"""Longest side of a tile, pixels."""
_SHADOW = 4
"""Length of a building's shadow on the ground, metres along each axis."""
_LAYER = Layer(nodata=None, resampling="AVERAGE", descriptions=_CHANNELS)


def write_highres(ground: Ground, options: WorldOptions, folder: Path) -> Iterator[dict[str, Any]]:
    """Write at least 2 x 2 tiles over the 1 m truth's window and yield their items."""
    north = ground.city.lat >= 0
    when = datetime(options.year, 6 if north else 12, 21, 11, tzinfo=UTC)
    table = _table(when, ground.city.lat)
    area = ground.area
    count = max(2, math.ceil(max(area.shape) / _LARGEST))
    rows = [area.height * i // count for i in range(count + 1)]
    columns = [area.width * i // count for i in range(count + 1)]
    for r in range(count):
        for c in range(count):
            tile = Extent(
                epsg=area.epsg,
                left=area.left + columns[c],
                top=area.top - rows[r],
                resolution=1,
                width=columns[c + 1] - columns[c],
                height=rows[r + 1] - rows[r],
            )
            name = f"highres_{options.year}_r{r}c{c}_sim-{ground.city.slug}"
            image = _photograph(ground, tile, table)
            write_cog(folder / name / "image.tif", image, tile, _LAYER)
            yield _item(name, when, tile)


def _table(when: datetime, latitude: float) -> NDArray[np.uint8]:
    """Grey value by (channel, shaded, material, grain)."""
    spectra = spectra_at(when, latitude)[:, [BANDS.index(key) for key in _CHANNELS]].T
    grain = np.linspace(0.84, 1.16, _LEVELS, dtype=np.float32)
    light = np.array([1.0, 0.4], np.float32)
    seen = spectra[:, None, :, None] * light[:, None, None] * grain
    return np.clip(np.rint(255.0 * (seen / 0.55) ** 0.6), 1, 255).astype(np.uint8)


def _photograph(ground: Ground, tile: Extent, table: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(4, y, x) uint8; buildings cast short shadows to the north-west."""
    rows, columns = ground.area.slices(tile)
    halo = ground.materials[
        rows.start : rows.stop + _SHADOW, columns.start : columns.stop + _SHADOW
    ]
    material = np.asarray(ground.materials[rows, columns])
    roof = (halo >= Material.ROOF_TILE) & (halo <= Material.ROOF_BRIGHT)
    cast = np.zeros(material.shape, bool)
    moved = roof[_SHADOW:, _SHADOW:]
    cast[: moved.shape[0], : moved.shape[1]] = moved
    shaded = cast & ~roof[: material.shape[0], : material.shape[1]]
    x, y = np.meshgrid(
        tile.left + np.arange(tile.width), tile.top - np.arange(tile.height), copy=False
    )
    grain = uniform(x, y, derive(ground.world.seed, "photo")) * np.float32(_LEVELS)
    index = (shaded * np.intp(len(Material)) + material) * _LEVELS + grain.astype(np.intp)
    return np.stack([channel.ravel()[index] for channel in table])


def _item(name: str, when: datetime, tile: Extent) -> dict[str, Any]:
    bands = [{"name": key, "common_name": key} for key in _CHANNELS]
    numbers = [{"data_type": "uint8", "spatial_resolution": 1}] * len(_CHANNELS)
    return item(
        name=name,
        collection="highres",
        ring=tile.outline(),
        properties={
            "datetime": timestamp(when),
            "gsd": 1.0,
            "proj:epsg": tile.epsg,
            "proj:code": f"EPSG:{tile.epsg}",
            "proj:bbox": list(tile.bounds),
            **projection(tile),
        },
        assets={
            "image": raster_asset(
                "image.tif", "RGBIR COG tile", eo__bands=bands, raster__bands=numbers
            )
        },
        extensions=("eo", "projection", "raster"),
    )
