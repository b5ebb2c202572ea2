"""Materials of the simulated ground: class, reflectance with season, radar backscatter.

All numbers are chosen for the simulation. Their magnitudes follow what is commonly shown for
such surfaces (shapes as in the USGS and ECOSTRESS spectral libraries, C-band levels as in
published Sentinel-1 statistics of land cover); none is a measurement.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mapper.classes import ClassTable, MapClass

TRUTH_CLASSES = ClassTable(
    classes=(
        MapClass(value=0, name="water", title="Water", color="2F6FB3"),
        MapClass(value=1, name="green", title="Green", color="397D49"),
        MapClass(value=2, name="built-up", title="Built-up", color="B5523B"),
        MapClass(value=3, name="bare", title="Bare soil", color="C9A66B"),
        MapClass(value=4, name="other", title="Other (fields)", color="D9D38C"),
    )
)
"""Classes of `truth_1m` and `truth_10m`; 255 is nodata."""

BANDS = (
    "coastal", "blue", "green", "red", "rededge1", "rededge2", "rededge3",
    "nir", "nir08", "nir09", "swir16", "swir22",
)  # fmt: skip
"""Sentinel-2 bands in the order of every spectrum, under their Earth Search asset keys."""


class Material(IntEnum):
    """What one square metre of ground is made of; the value is the index in every table."""

    WATER = 0
    TREE = 1
    CONIFER = 2
    GRASS = 3
    MEADOW = 4
    ROOF_TILE = 5
    ROOF_DARK = 6
    ROOF_BRIGHT = 7
    ASPHALT = 8
    PAVEMENT = 9
    SOIL = 10
    GRAVEL = 11
    WINTER_CROP = 12
    SUMMER_CROP = 13
    FALLOW = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Season:
    """Greenness over the year: rises to 1 around `start`, falls around `end`."""

    start: float
    """Day of year (northern) at which half the leaves are out."""
    end: float
    """Day of year at which half of them are gone."""
    floor: float = 0.0
    """Greenness, 0 to 1, that is left out of season."""

    def greenness(self, day: float) -> float:
        """0 (dormant) to 1 (full) on a northern day of year; logistic flanks of 12 days."""
        rise = 1.0 / (1.0 + np.exp(-(day - self.start) / 12.0))
        fall = 1.0 / (1.0 + np.exp((day - self.end) / 12.0))
        return float(self.floor + (1.0 - self.floor) * rise * fall)


Spectrum = tuple[float, ...]
"""Reflectance (0 to 1) by band of `BANDS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surfaces:
    """What of the materials looks different in a style; all else is as in the tables below."""

    full: Mapping[Material, Spectrum] = field(default_factory=dict)
    """Spectra at full greenness."""
    dormant: Mapping[Material, Spectrum] = field(default_factory=dict)
    """Spectra out of season; only of materials that have a season."""
    seasons: Mapping[Material, Season] = field(default_factory=dict)


_SOIL = (.070, .090, .130, .180, .200, .220, .235, .250, .270, .270, .340, .290)  # fmt: skip
_STRAW = (.060, .080, .120, .160, .190, .220, .240, .270, .290, .290, .350, .250)  # fmt: skip
_LAWN = (.028, .035, .075, .042, .110, .290, .360, .400, .420, .410, .220, .110)  # fmt: skip
_DRY = (.050, .065, .100, .120, .160, .200, .220, .250, .270, .270, .330, .220)  # fmt: skip
_CROP = (.022, .030, .065, .032, .095, .310, .400, .440, .460, .450, .200, .090)  # fmt: skip

_FULL: dict[Material, Spectrum] = {
    Material.WATER: (.030, .024, .020, .013, .012, .009, .008, .006, .005, .004, .003, .002),
    Material.TREE: (.018, .024, .048, .026, .075, .240, .310, .340, .360, .350, .170, .075),
    Material.CONIFER: (.012, .015, .022, .016, .040, .130, .160, .180, .190, .190, .085, .036),
    Material.GRASS: _LAWN,
    Material.MEADOW: _LAWN,
    Material.ROOF_TILE: (.070, .080, .110, .190, .220, .240, .260, .280, .290, .290, .330, .280),
    Material.ROOF_DARK: (.070, .080, .090, .100, .105, .110, .115, .120, .125, .125, .150, .140),
    Material.ROOF_BRIGHT: (.260, .290, .330, .360, .370, .380, .390, .400, .400, .400, .400, .360),
    Material.ASPHALT: (.070, .080, .095, .105, .110, .120, .125, .130, .135, .135, .165, .155),
    Material.PAVEMENT: (.130, .150, .180, .205, .220, .230, .240, .250, .255, .255, .280, .250),
    Material.SOIL: _SOIL,
    Material.GRAVEL: (.130, .160, .210, .260, .280, .290, .300, .320, .330, .330, .380, .340),
    Material.WINTER_CROP: _CROP,
    Material.SUMMER_CROP: _CROP,
    Material.FALLOW: tuple(0.6 * s + 0.4 * d for s, d in zip(_SOIL, _DRY, strict=True)),
}  # fmt: skip
"""Reflectance (0 to 1) per band at full greenness."""

_DORMANT: dict[Material, Spectrum] = {
    Material.TREE: (.035, .045, .060, .075, .100, .130, .150, .170, .190, .190, .220, .150),
    Material.GRASS: _DRY,
    Material.MEADOW: _DRY,
    Material.WINTER_CROP: _STRAW,
    Material.SUMMER_CROP: _SOIL,
}  # fmt: skip
"""Reflectance per band of the materials with a season, out of it."""

_SEASONS = {
    Material.TREE: Season(start=112.0, end=300.0, floor=0.1),
    Material.GRASS: Season(start=85.0, end=315.0, floor=0.55),
    Material.MEADOW: Season(start=100.0, end=285.0, floor=0.35),
    Material.WINTER_CROP: Season(start=75.0, end=190.0, floor=0.15),
    Material.SUMMER_CROP: Season(start=165.0, end=270.0),
}

_CLASS = {
    Material.WATER: 0,
    Material.TREE: 1, Material.CONIFER: 1, Material.GRASS: 1, Material.MEADOW: 1,
    Material.ROOF_TILE: 2, Material.ROOF_DARK: 2, Material.ROOF_BRIGHT: 2,
    Material.ASPHALT: 2, Material.PAVEMENT: 2,
    Material.SOIL: 3, Material.GRAVEL: 3,
    Material.WINTER_CROP: 4, Material.SUMMER_CROP: 4, Material.FALLOW: 4,
}  # fmt: skip

_BACKSCATTER = {
    Material.WATER: (-20.0, -27.0),
    Material.TREE: (-9.5, -15.5), Material.CONIFER: (-9.0, -15.0),
    Material.GRASS: (-11.5, -18.0), Material.MEADOW: (-11.0, -17.5),
    Material.ROOF_TILE: (0.5, -7.0), Material.ROOF_DARK: (0.0, -7.5),
    Material.ROOF_BRIGHT: (1.0, -7.0),
    Material.ASPHALT: (-10.0, -18.0), Material.PAVEMENT: (-8.0, -16.0),
    Material.SOIL: (-12.0, -20.0), Material.GRAVEL: (-13.0, -21.0),
    Material.WINTER_CROP: (-11.0, -17.5), Material.SUMMER_CROP: (-10.5, -17.0),
    Material.FALLOW: (-12.0, -19.5),
}  # fmt: skip

CLASS_OF_MATERIAL: NDArray[np.uint8] = np.array([_CLASS[m] for m in Material], np.uint8)
"""Truth class id by material index, uint8."""

BACKSCATTER: NDArray[np.float32] = np.array(
    [[10.0 ** (db / 10.0) for db in _BACKSCATTER[m]] for m in Material], np.float32
)
"""Gamma0 in linear power by (material, polarisation vv/vh), float32."""


def northern_day(when: datetime, latitude: float) -> float:
    """Day of year shifted by half a year south of the equator."""
    day = float(when.timetuple().tm_yday)
    return day if latitude >= 0 else (day + 182.5) % 365.25


def spectra_at(
    when: datetime, latitude: float, surfaces: Surfaces | None = None
) -> NDArray[np.float32]:
    """Reflectance (0 to 1) by (material, band of `BANDS`) on a date.

    Nearer to the equator than 30 degrees the seasons fade towards their mean greenness.
    """
    day = northern_day(when, latitude)
    amplitude = min(1.0, abs(latitude) / 30.0)
    changed = surfaces or Surfaces()
    full = {**_FULL, **changed.full}
    seasons = {**_SEASONS, **changed.seasons}
    table = np.array([full[m] for m in Material], np.float32)
    for material, dormant in {**_DORMANT, **changed.dormant}.items():
        seasonal = seasons[material].greenness(day)
        green = 0.7 + amplitude * (seasonal - 0.7)
        table[material] = green * table[material] + (1.0 - green) * np.array(dormant)
    return table
