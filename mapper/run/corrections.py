"""What people mended in a city's map by hand: polygons with a class, an author and a reason.

They are an input like any other: kept beside the city's versions with a hash, laid over the map
when it is published, and laid over every later version too. Of two that overlap the later counts.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio.features import rasterize
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from mapper.area.grid import WGS84, Grid, PixelBox, project
from mapper.area.vector import polygon_of, read_frame, text_of
from mapper.errors import AreaError, StoreError, UsageError
from mapper.recipe import digest_of
from mapper.run.layout import Version
from mapper.store.files import write_json

_FIELDS = ("class", "author", "reason")
_FILE = "corrections.geojson"


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One polygon that is of one class, whoever says so and why."""

    geometry: BaseGeometry
    """In EPSG:4326, longitude first."""
    value: int
    """Of the class in the map."""
    title: str
    """Name of the class."""
    author: str
    reason: str
    added: str
    """UTC, ISO 8601."""

    @property
    def id(self) -> str:
        """Of its ground and class: the same polygon twice is one."""
        content = shapely.to_wkb(shapely.normalize(self.geometry)) + bytes([self.value])
        return hashlib.sha256(content).hexdigest()[:12]

    def to_feature(self) -> dict[str, Any]:
        """As GeoJSON has it."""
        return {
            "type": "Feature",
            "id": self.id,
            "geometry": dict(mapping(self.geometry)),
            "properties": {"value": self.value, "class": self.title, **self.facts},
        }

    @property
    def facts(self) -> dict[str, str]:
        """Who, why and when."""
        return {"author": self.author, "reason": self.reason, "added": self.added}


def corrections_file(version: Version) -> Path:
    """Where the corrections of a city's product are kept, for all its versions."""
    return version.path.parent / _FILE


def read_corrections(version: Version) -> tuple[Correction, ...]:
    """Corrections of a city's product, in the order in which they were added.

    Raises: StoreError where the file is damaged.
    """
    path = corrections_file(version)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return tuple(_from_feature(feature) for feature in content["features"])
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as reason:
        raise StoreError(f"{path} is damaged ({reason}); put a good copy in its place") from reason


def _from_feature(feature: Mapping[str, Any]) -> Correction:
    known = feature["properties"]
    return Correction(
        geometry=shape(feature["geometry"]),
        value=int(known["value"]),
        title=known["class"],
        author=known["author"],
        reason=known["reason"],
        added=known["added"],
    )


def digest_of_corrections(corrections: Sequence[Correction]) -> str:
    """Hash of all that they say; empty where there is none."""
    return digest_of([c.to_feature() for c in corrections]) if corrections else ""


def read_new(path: Path, classes: Mapping[str, int], extent: BaseGeometry) -> list[Correction]:
    """Corrections of a vector file with the fields `class`, `author` and `reason`.

    Args:
        path: GeoJSON, GeoPackage, Shapefile or GeoParquet.
        classes: values of the map's classes by name; the file may give either.
        extent: the city's area in EPSG:4326.

    Raises: AreaError where a feature is no polygon, lies beyond the city, or lacks a field.
    """
    frame = read_frame(path)
    lacking = [name for name in _FIELDS if name not in frame.columns]
    if lacking:
        raise AreaError(f"{path} lacks {', '.join(lacking)}; every correction has all three")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    found = []
    for index, (_, row) in enumerate(frame.iterrows()):
        where = f"{path}, feature {index}"
        geometry = polygon_of(row["geometry"], where)
        if not geometry.intersects(extent):
            raise AreaError(f"{where} lies beyond the city's area; it would change nothing")
        name, value = _class(text_of(row["class"]), classes, where)
        author, reason = text_of(row["author"]), text_of(row["reason"])
        if not author or not reason:
            raise AreaError(f"{where}: author or reason is empty; both stand in the item")
        found.append(
            Correction(
                geometry=geometry, value=value, title=name, author=author, reason=reason, added=now
            )
        )
    if not found:
        raise AreaError(f"{path} holds no feature; add at least one polygon")
    return found


def _class(text: str, classes: Mapping[str, int], where: str) -> tuple[str, int]:
    by_value = {str(value): name for name, value in classes.items()}
    name = text if text in classes else by_value.get(text.removesuffix(".0"), "")
    if not name:
        raise AreaError(f"{where}: {text!r} is none of the map's classes {', '.join(classes)}")
    return name, classes[name]


def add_corrections(version: Version, new: Sequence[Correction]) -> tuple[Correction, ...]:
    """Keep more corrections; one that is there already takes its new place, author and reason."""
    added = {c.id: c for c in new}
    kept = [c for c in read_corrections(version) if c.id not in added]
    return _write(version, [*kept, *added.values()])


def drop_corrections(version: Version, ids: Sequence[str]) -> tuple[Correction, ...]:
    """Take corrections back. Raises: UsageError for one that is not there."""
    kept = read_corrections(version)
    if lost := sorted(set(ids) - {c.id for c in kept}):
        raise UsageError(f"{version.slug} has no correction {', '.join(lost)}")
    return _write(version, [c for c in kept if c.id not in ids])


def _write(version: Version, corrections: Sequence[Correction]) -> tuple[Correction, ...]:
    content = {"type": "FeatureCollection", "features": [c.to_feature() for c in corrections]}
    write_json(corrections_file(version), content)
    return tuple(corrections)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """Corrections on a lattice: what a worker lays over a map."""

    grid: Grid
    shapes: tuple[tuple[bytes, int], ...]
    """WKB in the grid's CRS and class value, the later over the earlier."""

    @classmethod
    def of(cls, corrections: Sequence[Correction], grid: Grid) -> "Overlay | None":
        """None where there is nothing to lay over."""
        if not corrections:
            return None
        shapes = tuple(
            (bytes(shapely.to_wkb(project(c.geometry, WGS84, grid.crs))), c.value)
            for c in corrections
        )
        return cls(grid=grid, shapes=shapes)

    def over(self, values: np.ndarray, pixels: PixelBox) -> np.ndarray:
        """`(y, x)` classes of a lattice box with the corrections in them.

        A pixel belongs to the polygon that holds its centre.
        """
        found: np.ndarray = values
        for wkb, value in self.shapes:
            geometry = shapely.from_wkb(wkb)
            if not geometry.intersects(shapely.box(*self.grid.bounds_of(pixels))):
                continue
            burned = rasterize(
                [(geometry, 1)],
                out_shape=pixels.shape,
                transform=self.grid.transform_of(pixels),
                dtype="uint8",
            )
            found = np.where(burned == 1, np.array(value, values.dtype), found)
        return found
