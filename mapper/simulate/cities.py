"""The invented cities, and how much of the sky is simulated over them."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pyproj import Transformer

from mapper.area.grid import utm_epsg, utm_zone
from mapper.errors import UsageError
from mapper.simulate.extent import Extent
from mapper.simulate.spectra import BANDS
from mapper.simulate.style import DEFAULT, Style

ORBITS = ("ascending", "descending")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedCity:
    """An invented city: a square area of interest and the seed everything grows from."""

    name: str
    country: str
    iso: str
    """Three letters; those that begin with X belong to nobody (ISO 3166-1)."""
    lon: float
    """Longitude of the centre, degrees east."""
    lat: float
    """Latitude of the centre, degrees north."""
    size_m: int
    """Side of the square area of interest in metres, a multiple of 20."""
    seed: int
    orbits: tuple[str, ...] = ORBITS
    """Sentinel-1 orbit states that see this city."""

    def __post_init__(self) -> None:
        if self.size_m < 400 or self.size_m % 20:
            raise UsageError(f"size_m is {self.size_m}; use a multiple of 20 from 400 up")
        if unknown := set(self.orbits) - set(ORBITS):
            raise UsageError(f"unknown orbits {sorted(unknown)}; use {' or '.join(ORBITS)}")
        if not (-180 <= self.lon < 180 and -78 <= self.lat <= 78):
            raise UsageError(f"centre {self.lon}, {self.lat} lies outside -180..180, -78..78")

    @property
    def slug(self) -> str:
        """Lower-case name for folders and item ids."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def epsg(self) -> int:
        """The city's local plane: the UTM zone of its centre."""
        return utm_epsg(self.lon, self.lat)

    @property
    def centre(self) -> tuple[int, int]:
        """Easting and northing of the centre in the local plane, rounded to 10 m."""
        to_plane = Transformer.from_crs(4326, self.epsg, always_xy=True)
        x, y = to_plane.transform(self.lon, self.lat)
        return round(x / 10) * 10, round(y / 10) * 10

    @property
    def area(self) -> Extent:
        """The area of interest on the local plane's 10 m grid."""
        (x, y), half = self.centre, self.size_m // 2
        return Extent.snapped(self.epsg, (x - half, y - half, x + half, y + half), 10)

    @property
    def zones(self) -> tuple[int, ...]:
        """EPSG codes of the UTM zones that the area of interest touches, own zone first."""
        lons = np.array(self.area.outline())[:, 0]
        offsets = (lons - self.lon + 180.0) % 360.0 - 180.0
        found = {utm_zone(self.lon + float(d)) for d in (offsets.min(), offsets.max())}
        base = self.epsg // 100 * 100
        others = sorted(base + zone for zone in found if base + zone != self.epsg)
        return (self.epsg, *others)

    def feature(self) -> dict[str, Any]:
        """GeoJSON feature of the area of interest (longitude, latitude)."""
        return {
            "type": "Feature",
            "properties": {
                "name": self.name,
                "country": self.country,
                "iso": self.iso,
                "simulated": True,
            },
            "geometry": {"type": "Polygon", "coordinates": [self.area.outline(steps=1)]},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldOptions:
    """How much imagery `write_archive` makes of each city."""

    year: int = 2022
    seed: int = 0
    """Mixed with every city's own seed."""
    scenes: int = 4
    """Sentinel-2 dates; from four on every case of the offset occurs."""
    s1_dates: int = 2
    """Sentinel-1 dates per orbit state."""
    highres: bool = True
    """Also make tiles of the style's high-resolution photograph."""
    margin_m: int = 1500
    """Imagery covers the area of interest and this much around it, metres.

    Under about 600 m a small city's granule may lack the dark ground (water, forest) by which
    its pixels show whether they carry the offset.
    """
    bands: tuple[str, ...] = field(default=BANDS)
    """Sentinel-2 bands to write; the scene classification is always written."""
    cloudy: bool = True
    """False: every date is free of cloud."""
    style: Style = DEFAULT
    """How towns, surfaces and photographs look."""

    def __post_init__(self) -> None:
        if unknown := set(self.bands) - set(BANDS):
            raise UsageError(f"unknown bands {sorted(unknown)}; choose among {list(BANDS)}")
        if self.scenes < 0 or self.s1_dates < 0 or self.margin_m < 0:
            raise UsageError("scenes, s1_dates and margin_m must not be negative")


DEMO_CITIES = (
    SimulatedCity(
        name="Simville", country="Simuland", iso="XSA",
        lon=12.0, lat=46.02, size_m=3000, seed=11,
    ),
    SimulatedCity(
        name="Port Procedure", country="Randomia", iso="XSB",
        lon=-38.4, lat=27.3, size_m=3200, seed=22, orbits=("descending",),
    ),
    SimulatedCity(
        name="Villa Semilla", country="Ruidosia", iso="XSC",
        lon=-20.6, lat=-34.7, size_m=3000, seed=33,
    ),
)  # fmt: skip
"""Three small cities: on a zone boundary; seen by one Sentinel-1 orbit; in the south."""

TEST_CITIES = (
    SimulatedCity(
        name="Testburg", country="Simuland", iso="XSA",
        lon=11.999, lat=46.55, size_m=1500, seed=5,
    ),
    SimulatedCity(
        name="Probetown", country="Ruidosia", iso="XSC",
        lon=-21.3, lat=-35.2, size_m=1500, seed=6, orbits=("ascending",),
    ),
)  # fmt: skip
"""Two tiny cities for tests; the first lies across two UTM zones."""
