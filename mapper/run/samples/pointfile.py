"""The user's own points: where samples are wanted, and what they are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyproj import Transformer

from mapper.area.grid import WGS84, Grid
from mapper.errors import DataError

_POINTS = {"Point", "MultiPoint"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UserPoint:
    """A place that a sample is wanted of."""

    lon: float
    lat: float
    name: str
    """Empty where the file gives none."""
    group: str
    """What is to be held out as one; empty where the file gives none."""


def pixels_of(points: Sequence[UserPoint], grid: Grid) -> list[tuple[int, int]]:
    """Row and column of the lattice pixel that holds each point."""
    to_grid = Transformer.from_crs(WGS84, grid.crs, always_xy=True)
    x, y = to_grid.transform([p.lon for p in points], [p.lat for p in points])
    # on a line of the lattice the pixel is the one to the south or east
    boxes = (grid.box_of((east, north, east, north)) for east, north in zip(x, y, strict=True))
    return [(box.row0, box.col0) for box in boxes]


def read_points(path: Path) -> tuple[UserPoint, ...]:
    """Points of a GeoJSON, GeoPackage or other vector file in any CRS, in the file's order.

    Attributes `name` and `group` are kept.

    Raises: DataError.
    """
    import geopandas

    if not path.is_file():
        raise DataError(f"{path} does not exist; give a GeoJSON or GeoPackage of points")
    try:
        frame = geopandas.read_file(path)
    except Exception as reason:
        raise DataError(f"{path} cannot be read as a vector file ({reason})") from reason
    if not len(frame) or getattr(frame, "_geometry_column_name", None) not in frame.columns:
        raise DataError(f"{path} holds no point; add some")
    if frame.crs is None:
        raise DataError(f"{path} declares no CRS; add one (a .prj file, or the crs of the layer)")
    frame = frame.to_crs(WGS84)
    columns = {str(name).lower(): name for name in reversed(list(frame.columns))}
    found = []
    for index, (_, row) in enumerate(frame.iterrows()):
        place = row[frame.geometry.name]
        if place is None or place.is_empty or place.geom_type not in _POINTS:
            kind = "no geometry" if place is None else f"a {place.geom_type}"
            raise DataError(f"{path}, feature {index} is {kind}; give points alone")
        name, group = (_text(row[columns[n]]) if n in columns else "" for n in ("name", "group"))
        parts = place.geoms if place.geom_type == "MultiPoint" else [place]
        found += [UserPoint(lon=p.x, lat=p.y, name=name, group=group) for p in parts]
    return tuple(found)


def _text(value: Any) -> str:
    """A cell as text; empty where the file has nothing."""
    import pandas

    if pandas.isna(value):
        return ""
    return (
        str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
    )
