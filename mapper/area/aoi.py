"""Areas of interest: polygons with names, read from any vector file, safe to use as paths."""

import hashlib
import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import shapely
from shapely.geometry import mapping
from shapely.geometry.base import BaseGeometry

from mapper.area.grid import WGS84, Grid, project, utm_epsg
from mapper.area.vector import polygon_of, read_frame, text_of
from mapper.errors import AreaError, UsageError

logger = logging.getLogger(__name__)

_NAME_FIELDS = ("name", "name_en", "city", "nom", "nombre", "nome", "label", "title", "id")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{p}{n}" for p in ("com", "lpt") for n in range(10))}


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaOfInterest:
    """One area to map."""

    name: str
    """As the file gives it; for people, never for paths."""
    slug: str
    """Lower-case ASCII letters, digits and hyphens, unique in its file: safe as a path."""
    geometry: BaseGeometry
    """Polygon or MultiPolygon in EPSG:4326, longitude first."""
    country: str = ""

    @property
    def digest(self) -> str:
        """Hash of the geometry alone: two AOIs with the same digest cover the same ground."""
        return hashlib.sha256(shapely.to_wkb(shapely.normalize(self.geometry))).hexdigest()

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """West, south, east, north; west is larger than east across the antimeridian."""
        west, south, east, north = _unwrapped(self.geometry).bounds
        return west, south, east - 360 if east > 180 else east, north

    def to_geojson(self) -> dict[str, Any]:
        """The geometry as a GeoJSON object."""
        return dict(mapping(self.geometry))

    def grid(self, resolution: float, tile: int) -> Grid:
        """The lattice of the UTM zone in which the area's middle lies."""
        geometry = _unwrapped(self.geometry)
        middle = geometry.centroid
        return Grid(epsg=utm_epsg(middle.x, middle.y), resolution=resolution, tile=tile)

    def on(self, grid: Grid) -> BaseGeometry:
        """The geometry in the grid's CRS."""
        return project(_unwrapped(self.geometry), WGS84, grid.crs)


def _unwrapped(geometry: BaseGeometry) -> BaseGeometry:
    """Longitudes 0 to 360 where an area lies on both sides of the antimeridian."""
    left, _, right, _ = geometry.bounds
    if right - left <= 180:
        return geometry
    return shapely.transform(
        geometry, lambda xy: xy + (xy[:, :1] < 0) * [[360.0, 0.0]], include_z=False
    )


def slugify(name: str) -> str:
    """A name as lower-case ASCII letters, digits and hyphens; never empty, never a path."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:60].strip("-")
    if not slug:
        return "area-" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"area-{slug}" if slug in _RESERVED else slug


def read_areas(path: Path) -> list[AreaOfInterest]:
    """Read every area of a GeoJSON, GeoPackage, Shapefile or GeoParquet file.

    Invalid geometries are repaired with a warning; names that give one slug get a suffix made
    from name and geometry, so that the order in the file does not matter.

    Raises: AreaError with the feature's index where a feature is no usable polygon.
    """
    frame = read_frame(path)
    if not len(frame):
        raise AreaError(f"{path} holds no feature; add at least one polygon")
    name_field = _name_field([str(c) for c in frame.columns])
    areas = []
    for index, (_, row) in enumerate(frame.iterrows()):
        name = text_of(row[name_field]) if name_field else ""
        name = name or f"{path.stem}-{index}"
        geometry = polygon_of(row["geometry"], f"{path}, feature {index} ({name!r})")
        country = row.get("country")
        areas.append(
            AreaOfInterest(
                name=name,
                slug=slugify(name),
                geometry=geometry,
                country=country if isinstance(country, str) else "",
            )
        )
    return _with_unique_slugs(areas, path)


def pick_areas(areas: Sequence[AreaOfInterest], names: Sequence[str]) -> list[AreaOfInterest]:
    """The areas with these names or slugs, letter case aside, in file order; all without names.

    Raises: UsageError for a name that no area has.
    """
    if not names:
        return list(areas)
    wanted = {name.casefold() for name in names}
    known = {a.name.casefold() for a in areas} | {a.slug for a in areas}
    for name in names:
        if name.casefold() not in known:
            near = get_close_matches(name, [a.name for a in areas], n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise UsageError(f"no city is called {name!r}{hint} (`mapper cities` lists them)")
    return [a for a in areas if a.name.casefold() in wanted or a.slug in wanted]


def _name_field(columns: Sequence[str]) -> str | None:
    """The column that most likely holds names."""
    by_lower = {c.lower(): c for c in reversed(columns)}
    return next((by_lower[f] for f in _NAME_FIELDS if f in by_lower), None)


def _with_unique_slugs(areas: list[AreaOfInterest], path: Path) -> list[AreaOfInterest]:
    """Areas whose slugs differ; raises where two features are the same in name and geometry."""
    count = Counter(a.slug for a in areas)
    unique = [
        a
        if count[a.slug] == 1
        else replace(
            a, slug=f"{a.slug}-{hashlib.sha256((a.name + a.digest).encode()).hexdigest()[:6]}"
        )
        for a in areas
    ]
    seen: dict[str, int] = {}
    for index, area in enumerate(unique):
        if area.slug in seen:
            raise AreaError(
                f"{path}, features {seen[area.slug]} and {index} are the same area "
                f"{area.name!r}; remove one"
            )
        seen[area.slug] = index
    return unique
