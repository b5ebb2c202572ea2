"""Sentinel-1 RTC as the Planetary Computer serves it: linear gamma0 with speckle.

Item by item the window lies in one UTM zone: the city's own, or, for descending passes over a
city on a zone boundary, the neighbouring one. Two corners of it lie outside the swath.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mapper.simulate.cities import SimulatedCity, WorldOptions
from mapper.simulate.cogs import Layer, write_cog
from mapper.simulate.extent import Extent
from mapper.simulate.granules import view_of, zone_extent
from mapper.simulate.ground import Ground
from mapper.simulate.items import item, projection, raster_asset, timestamp
from mapper.simulate.noise import derive, value_noise
from mapper.simulate.spectra import BACKSCATTER, Material

NODATA = -32768.0
LOOKS = 4.4
"""Equivalent number of looks of IW GRDH (Sentinel-1 product definition): speckle's shape."""

_POLARISATIONS = ("vv", "vh")
_LAYER = Layer(nodata=NODATA, resampling="AVERAGE")
_ROOFS = (Material.ROOF_TILE, Material.ROOF_DARK, Material.ROOF_BRIGHT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One overpass."""

    when: datetime
    state: str
    """`ascending` or `descending`."""
    absolute: int
    """Absolute orbit number, invented."""

    @property
    def relative(self) -> int:
        """Relative orbit of Sentinel-1A, 1 to 175."""
        return (self.absolute - 73) % 175 + 1


def plan_passes(city: SimulatedCity, options: WorldOptions) -> tuple[Pass, ...]:
    """Overpasses spread over the year in steps of the 12-day repeat cycle."""
    passes = []
    for state in city.orbits:
        draw = derive(options.seed, f"{state}/{city.seed}")
        hour = 18.0 if state == "ascending" else 6.0
        start = datetime(options.year, 1, 1, tzinfo=UTC) + timedelta(days=2 + draw % 10)
        for index in range(options.s1_dates):
            cycle = round((index + 0.5) * 29.0 / options.s1_dates)
            when = start + timedelta(days=12 * cycle, hours=hour - city.lon / 15.0)
            passes.append(Pass(when=when, state=state, absolute=41_000 + draw % 175 + 175 * cycle))
    return tuple(sorted(passes, key=lambda one: one.when))


def write_sentinel1(
    ground: Ground, options: WorldOptions, folder: Path
) -> Iterator[dict[str, Any]]:
    """Write all passes under `folder` and yield their items."""
    city = ground.city
    for one in plan_passes(city, options):
        zone = city.zones[-1] if one.state == "descending" else city.epsg
        extent = zone_extent(city, options.margin_m, zone, whole=True)
        view = view_of(ground.extent, extent)
        name = _name(one, city.slug)
        rng = np.random.default_rng(derive(ground.world.seed, f"speckle/{name}"))
        valid = _swath(extent, options.margin_m)
        facing = _facing(ground, one.state)
        for index, polarisation in enumerate(_POLARISATIONS):
            power = view.sample(_power(ground, facing, index), ground.extent)
            power *= rng.standard_gamma(LOOKS, extent.shape, np.float32) / np.float32(LOOKS)
            power[~valid] = NODATA
            write_cog(folder / name / f"iw-{polarisation}.rtc.tiff", power, extent, _LAYER)
        yield _item(one, name, extent)


def _facing(ground: Ground, state: str) -> NDArray[np.float32]:
    """How strongly roofs answer: walls that face the radar are bright, and orbits differ."""
    x, y = ground.local()
    noise = value_noise(x, y, 400.0, derive(ground.world.seed, f"walls/{state}"))
    return (0.6 + 0.8 * noise).astype(np.float32)


def _power(ground: Ground, facing: NDArray[np.float32], index: int) -> NDArray[np.float32]:
    """Mean gamma0 of the mosaic in linear power, without speckle."""
    roofs = np.zeros(len(Material), np.float32)
    roofs[list(_ROOFS)] = BACKSCATTER[list(_ROOFS), index]
    rest = BACKSCATTER[:, index] - roofs
    result: NDArray[np.float32] = ground.mix(rest) + ground.mix(roofs) * facing
    return result


def _swath(extent: Extent, margin: int) -> NDArray[np.bool_]:
    """True inside the swath; two opposite corners of the margin lie outside it."""
    cut = 0.8 * margin / extent.resolution
    row, column = np.ogrid[: extent.height, : extent.width]
    far = extent.height + extent.width - 2 - cut
    result: NDArray[np.bool_] = (row + column >= cut) & (row + column <= far)
    return result


def _name(one: Pass, city: str) -> str:
    start, end = (t.strftime("%Y%m%dT%H%M%S") for t in _span(one))
    take = f"{one.absolute:06d}_{derive(one.absolute, 'take') % 0xFFFFFF:06X}"
    return f"S1A_IW_GRDH_1SDV_{start}_{end}_{take}_rtc_sim-{city}"


def _span(one: Pass) -> tuple[datetime, datetime]:
    return one.when - timedelta(seconds=12), one.when + timedelta(seconds=13)


def _item(one: Pass, name: str, extent: Extent) -> dict[str, Any]:
    start, end = _span(one)
    properties = {
        "datetime": timestamp(one.when),
        "start_datetime": timestamp(start),
        "end_datetime": timestamp(end),
        "platform": "SENTINEL-1A",
        "constellation": "Sentinel-1",
        "s1:datatake_id": str(derive(one.absolute, "take") % 1_000_000),
        "s1:processing_level": "1",
        "s1:resolution": "high",
        "sar:center_frequency": 5.405,
        "sar:frequency_band": "C",
        "sar:instrument_mode": "IW",
        "sar:looks_equivalent_number": LOOKS,
        "sar:observation_direction": "right",
        "sar:pixel_spacing_azimuth": 10,
        "sar:pixel_spacing_range": 10,
        "sar:polarizations": ["VV", "VH"],
        "sar:product_type": "GRD",
        "sat:absolute_orbit": one.absolute,
        "sat:orbit_state": one.state,
        "sat:relative_orbit": one.relative,
        "proj:epsg": extent.epsg,
        "proj:code": f"EPSG:{extent.epsg}",
        "proj:bbox": list(extent.bounds),
        **projection(extent),
    }
    assets = {
        key: raster_asset(
            f"iw-{key}.rtc.tiff",
            f"{key.upper()}: simulated terrain-corrected gamma naught, linear power",
            raster__bands=[
                {"nodata": int(NODATA), "data_type": "float32", "spatial_resolution": 10.0}
            ],
        )
        for key in _POLARISATIONS
    }
    return item(
        name=name,
        collection="sentinel-1-rtc",
        ring=extent.outline(),
        properties=properties,
        assets=assets,
        extensions=("sar", "sat", "projection", "raster"),
    )
