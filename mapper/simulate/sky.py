"""Sun, clouds and their shadows over a city on one date."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from mapper.simulate.noise import FloatArray, fractal_noise, smoothstep

_CLOUD_HEIGHT = 1200.0
"""Metres above ground; sets how far a shadow lies from its cloud."""
_CLOUD_CELL = 1300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sun:
    """Where the sun stands, degrees."""

    azimuth: float
    """Clockwise from north."""
    elevation: float
    """Above the horizon."""

    @classmethod
    def at(cls, when: datetime, latitude: float, solar_hour: float = 10.5) -> "Sun":
        """Position from the declination (Cooper 1969) at a local solar hour."""
        day = when.timetuple().tm_yday
        declination = np.radians(23.45) * np.sin(2.0 * np.pi * (284 + day) / 365.0)
        hour, phi = np.radians(15.0 * (solar_hour - 12.0)), np.radians(latitude)
        height = np.sin(phi) * np.sin(declination)
        height += np.cos(phi) * np.cos(declination) * np.cos(hour)
        north = np.cos(hour) * np.sin(phi) - np.tan(declination) * np.cos(phi)
        azimuth = np.degrees(np.arctan2(np.sin(hour), north)) + 180.0
        return cls(azimuth=float(azimuth % 360.0), elevation=float(np.degrees(np.arcsin(height))))

    def shadow_shift(self) -> tuple[float, float]:
        """Metres east and north from a shadow to its cloud; at most 2.5 km."""
        reach = _CLOUD_HEIGHT / np.tan(np.radians(max(self.elevation, 5.0)))
        reach, angle = min(float(reach), 2500.0), np.radians(self.azimuth)
        return reach * float(np.sin(angle)), reach * float(np.cos(angle))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sky:
    """Opacity of clouds and depth of shadows, 0 to 1 on the mosaic (y, x)."""

    cloud: NDArray[np.float32]
    shadow: NDArray[np.float32]

    @classmethod
    def over(cls, x: FloatArray, y: FloatArray, amount: float, sun: Sun, seed: int) -> "Sky":
        """Clouds over columns `x` (1, x) and rows `y` (y, 1), metres; `amount` is their share."""
        if amount <= 0.0:
            clear = np.zeros(np.broadcast(x, y).shape, np.float32)
            return cls(cloud=clear, shadow=clear)
        field = fractal_noise(x, y, _CLOUD_CELL, seed, 5)
        threshold = float(np.quantile(field, 1.0 - amount))
        east, north = sun.shadow_shift()
        sunward = fractal_noise(x + east, y + north, _CLOUD_CELL, seed, 5)
        return cls(
            cloud=smoothstep(field, threshold - 0.015, threshold + 0.05),
            shadow=smoothstep(sunward, threshold, threshold + 0.05),
        )
