"""Orthophoto tiles of high resolution: red, green, blue, in some styles near-infrared, 8 bit.

The picture depends on the ground alone: tiles of any cut fit together.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS

from mapper.simulate.cities import WorldOptions
from mapper.simulate.cogs import Layer, write_cog_at
from mapper.simulate.extent import Frame
from mapper.simulate.ground import Ground
from mapper.simulate.items import item, projection, raster_asset, timestamp
from mapper.simulate.noise import derive, uniform
from mapper.simulate.spectra import BANDS, Material
from mapper.simulate.style import CHANNELS, Sensor, Style

_LEVELS = 16
_LARGEST = 4096
"""Longest side of a tile, pixels."""
_STRIP = 1024
"""Rows that are developed at once; bounds the memory used."""
_WHITE = 0.55
"""Reflectance that is white."""


def write_highres(ground: Ground, options: WorldOptions, folder: Path) -> Iterator[dict[str, Any]]:
    """Write at least 2 x 2 tiles over the 1 m truth's window and yield their items."""
    style = options.style
    when = taken(style, options.year, ground.city.lat)
    radiance = _radiance(ground.spectra(when), style.sensor)
    layer = Layer(nodata=None, resampling="AVERAGE", descriptions=style.sensor.channels)
    frame = Frame.around(ground.area, style.sensor.decimetres)
    count = max(2, math.ceil(max(frame.shape) / _LARGEST))
    rows = [frame.height * i // count for i in range(count + 1)]
    columns = [frame.width * i // count for i in range(count + 1)]
    for r in range(count):
        for c in range(count):
            tile = frame.part(slice(*rows[r : r + 2]), slice(*columns[c : c + 2]))
            name = f"highres_{options.year}_r{r}c{c}_sim-{ground.city.slug}"
            image = photograph(ground, tile, style.sensor, radiance)
            path = folder / name / "image.tif"
            write_cog_at(path, image, CRS.from_epsg(tile.epsg), tile.transform, layer)
            yield _item(name, when, tile, style.sensor)


def taken(style: Style, year: int, latitude: float) -> datetime:
    """When the photograph of a year is taken."""
    month, day = style.photographed
    if latitude < 0:
        month = (month + 5) % 12 + 1
    return datetime(year, month, day, 11, tzinfo=UTC)


def _radiance(spectra: NDArray[np.float32], sensor: Sensor) -> NDArray[np.float32]:
    """Reflectance as lit, by (channel, shaded, material, grain)."""
    seen = spectra[:, [BANDS.index(key) for key in sensor.channels]].T
    grain = np.linspace(0.84, 1.16, _LEVELS, dtype=np.float32)
    light = np.array([1.0, sensor.shade], np.float32)
    result: NDArray[np.float32] = seen[:, None, :, None] * light[:, None, None] * grain
    return result


def photograph(
    ground: Ground, tile: Frame, sensor: Sensor, radiance: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """(channel, y, x) uint8 of a tile of the sensor's pixels."""
    image = np.empty((len(radiance), *tile.shape), np.uint8)
    for start in range(0, tile.height, _STRIP):
        rows = slice(start, min(start + _STRIP, tile.height))
        strip = tile.part(rows, slice(0, tile.width))
        image[:, rows] = _developed(ground, strip, sensor, radiance)
    return image


def _developed(
    ground: Ground, tile: Frame, sensor: Sensor, radiance: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """(channel, y, x) uint8 of a strip."""
    halo = math.ceil(3.0 * sensor.blur)
    wide = tile.grown(halo)
    material, shaded = _lit(ground, wide, sensor)
    x, y = _numbers(wide)
    grain = uniform(x, y, derive(ground.world.seed, "photo")) * np.float32(_LEVELS)
    index = (shaded * np.intp(len(Material)) + material) * _LEVELS + grain.astype(np.intp)
    image = np.empty((len(radiance), *tile.shape), np.uint8)
    for number, table in enumerate(radiance):
        if not halo and not sensor.noise:
            image[number] = _grey(_exposed(table, sensor, number)).ravel()[index]
            continue
        seen = _exposed(_blurred(table.ravel()[index], sensor.blur, halo), sensor, number)
        seed = derive(ground.world.seed, f"noise {CHANNELS[number]}")
        image[number] = _grey(seen + sensor.noise * _bell(*_numbers(tile), seed))
    return image


def _numbers(tile: Frame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Column and row of each pixel from the origin of the reference system, northward."""
    x, y = np.meshgrid(
        tile.column + np.arange(tile.width), tile.row - np.arange(tile.height), copy=False
    )
    return x, y


def _lit(
    ground: Ground, tile: Frame, sensor: Sensor
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Material of each pixel, and whether a building's shadow lies on it."""
    east, north = (round(metres / sensor.pixel) for metres in sensor.shadow)
    reach = max(abs(east), abs(north))
    around, roof = _materials(ground, tile.grown(reach))
    cast = np.zeros(tile.shape, bool)
    # a shadow longer than a small building is deep would come off it
    steps = max(1, round(reach * sensor.pixel / 4.0))
    for step in range(1, steps + 1):
        down, right = -round(north * step / steps), round(east * step / steps)
        top, left = reach - down, reach - right
        cast |= roof[top : top + tile.height, left : left + tile.width]
    inner = slice(reach, reach + tile.height), slice(reach, reach + tile.width)
    return around[inner], cast & ~roof[inner]


def _materials(ground: Ground, tile: Frame) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Material of each pixel, and where it is a roof.

    Pixels of 1 m are those of the painted ground; past its edges, the last ones go on and throw
    no shadow.
    """
    if tile.decimetres != 10:
        left, _, _, top = tile.bounds
        step = tile.decimetres / 10
        painted = ground.world.render(left, top, tile.width, tile.height, step)
        return painted, _roofs(painted)
    area = Frame.around(ground.area, 10)
    top, left = area.row - tile.row, tile.column - area.column
    rows = np.arange(top, top + tile.height)
    columns = np.arange(left, left + tile.width)
    known_rows, known_columns = (
        np.clip(n, 0, size - 1) for n, size in zip((rows, columns), area.shape, strict=True)
    )
    window = ground.materials[
        known_rows[0] : known_rows[-1] + 1, known_columns[0] : known_columns[-1] + 1
    ]
    painted = window[known_rows - known_rows[0]][:, known_columns - known_columns[0]]
    inside = (rows == known_rows)[:, None] & (columns == known_columns)
    return painted, _roofs(painted) & inside


def _roofs(material: NDArray[np.uint8]) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = (material >= Material.ROOF_TILE) & (
        material <= Material.ROOF_BRIGHT
    )
    return result


def _blurred(seen: NDArray[np.float32], sigma: float, halo: int) -> NDArray[np.float32]:
    """Gaussian blur of (y, x); what comes back lacks `halo` pixels on every side."""
    if not halo:
        return seen
    offsets = np.arange(-halo, halo + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    height, width = seen.shape[0] - 2 * halo, seen.shape[1] - 2 * halo
    across = np.zeros((seen.shape[0], width), np.float32)
    for shift, weight in enumerate(weights):
        across += weight * seen[:, shift : shift + width]
    both = np.zeros((height, width), np.float32)
    for shift, weight in enumerate(weights):
        both += weight * across[shift : shift + height]
    return both


def _exposed(seen: NDArray[np.float32], sensor: Sensor, channel: int) -> NDArray[np.float32]:
    """Grey values, not yet rounded, of a channel's reflectance."""
    haze, gain = np.float32(sensor.haze[channel]), np.float32(sensor.gain[channel])
    result: NDArray[np.float32] = 255.0 * ((seen + haze) * gain / _WHITE) ** sensor.gamma
    return result


def _grey(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 1, 255).astype(np.uint8)


def _bell(x: NDArray[np.int64], y: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """Noise of mean 0 and deviation 1 by pixel: the sum of three uniform numbers."""
    result = np.full(x.shape, -3.0, np.float32)
    for part in range(3):
        result += np.float32(2.0) * uniform(x, y, seed + part)
    return result


def _item(name: str, when: datetime, tile: Frame, sensor: Sensor) -> dict[str, Any]:
    bands = [{"name": key, "common_name": key} for key in sensor.channels]
    numbers = [{"data_type": "uint8", "spatial_resolution": sensor.pixel}] * len(bands)
    return item(
        name=name,
        collection="highres",
        ring=tile.outline(),
        properties={
            "datetime": timestamp(when),
            "gsd": sensor.pixel,
            "proj:epsg": tile.epsg,
            "proj:code": f"EPSG:{tile.epsg}",
            "proj:bbox": list(tile.bounds),
            **projection(tile),
        },
        assets={
            "image": raster_asset(
                "image.tif",
                f"{'RGBIR' if sensor.near_infrared else 'RGB'} COG tile",
                eo__bands=bands,
                raster__bands=numbers,
            )
        },
        extensions=("eo", "projection", "raster"),
    )
