"""Area per class inside a polygon."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from pyproj import Geod
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry
from shapely.geometry.polygon import orient

from mapper.classes import ClassTable

_ELLIPSOID = Geod(ellps="WGS84")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAreas:
    """How much of each class lies inside an AOI."""

    pixels: Mapping[int, int]
    """Pixels of each class value, nodata included."""
    pixel_area: float
    """Square kilometres of ground under one pixel, on the ellipsoid."""
    classes: ClassTable

    @property
    def mapped(self) -> int:
        """Pixels with a class."""
        return sum(n for value, n in self.pixels.items() if value != self.classes.nodata)

    @property
    def inside(self) -> int:
        """Pixels inside the AOI."""
        return sum(self.pixels.values())

    def rows(self) -> list[dict[str, Any]]:
        """One row a class and one for nodata: pixels, km², share of the mapped area."""
        rows = []
        for entry in self.classes.classes:
            count = self.pixels.get(entry.value, 0)
            rows.append(
                {
                    "value": entry.value,
                    "name": entry.name,
                    "title": entry.title,
                    "pixels": count,
                    "km2": round(count * self.pixel_area, 6),
                    "share": round(count / self.mapped, 6) if self.mapped else None,
                }
            )
        count = self.pixels.get(self.classes.nodata, 0)
        rows.append(
            {
                "value": self.classes.nodata,
                "name": "nodata",
                "title": "No data",
                "pixels": count,
                "km2": round(count * self.pixel_area, 6),
                "share": None,
            }
        )
        return rows

    def to_json(self) -> dict[str, Any]:
        """Everything, for `statistics.json`."""
        return {
            "area_km2": round(self.inside * self.pixel_area, 6),
            "mapped_km2": round(self.mapped * self.pixel_area, 6),
            "mapped_share": round(self.mapped / self.inside, 6) if self.inside else 0.0,
            "pixel_km2": self.pixel_area,
            "classes": self.rows(),
        }

    def to_csv(self) -> str:
        """One line a class."""
        text = io.StringIO()
        rows = self.rows()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()


class PixelCounter:
    """Counts class values strip by strip."""

    def __init__(self) -> None:
        """Start at zero."""
        self._counts = np.zeros(256, dtype=np.int64)

    def add(self, values: np.ndarray, inside: np.ndarray) -> None:
        """Count a strip: `(y, x)` uint8 classes where `inside`, `(y, x)` bool, is True."""
        self._counts += np.bincount(values[inside], minlength=256)

    def counts(self) -> dict[int, int]:
        """Pixels per value that occurs."""
        return {int(v): int(self._counts[v]) for v in np.flatnonzero(self._counts)}


def _ground_area(polygon: Polygon) -> float:
    """Square metres on the ellipsoid; holes count as holes whichever way their rings turn."""
    return abs(float(_ELLIPSOID.geometry_area_perimeter(orient(polygon))[0]))


def pixel_area_km2(lonlat: BaseGeometry, projected: BaseGeometry, resolution: float) -> float:
    """Ground under one pixel: the grid's square, corrected for the scale of the projection.

    UTM stretches lengths by 0.9996 to 1.001, areas by twice as much, so a square of 10 m on the
    map is not 100 m² of ground. The factor is the AOI's ellipsoidal over its planar area.
    """
    ground = sum(map(_ground_area, shapely.get_parts(lonlat)))
    return float(resolution**2 * (ground / projected.area) / 1e6)
