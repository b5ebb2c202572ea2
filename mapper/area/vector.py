"""Vector files of any kind, and the polygons in them."""

import logging
from pathlib import Path
from typing import Any

import shapely
from shapely import MultiPolygon
from shapely.geometry.base import BaseGeometry

from mapper.area.grid import WGS84
from mapper.errors import AreaError

logger = logging.getLogger(__name__)


def read_frame(path: Path) -> Any:
    """A vector file as a GeoDataFrame in EPSG:4326. Raises: AreaError."""
    import geopandas

    if not path.exists():
        raise AreaError(
            f"{path} does not exist; give a GeoJSON, GeoPackage, Shapefile or GeoParquet"
        )
    try:
        if path.suffix.lower() in {".parquet", ".geoparquet"}:
            frame = geopandas.read_parquet(path)
        else:
            frame = geopandas.read_file(path)
    except Exception as reason:
        raise AreaError(
            f"{path} cannot be read as a vector file ({reason}); "
            "give a GeoJSON, GeoPackage, Shapefile or GeoParquet"
        ) from reason
    if getattr(frame, "_geometry_column_name", None) not in frame.columns:
        raise AreaError(f"{path} has no geometry; give polygons")
    if frame.crs is None:
        raise AreaError(f"{path} declares no CRS; add one (a .prj file, or the crs of the layer)")
    if frame.geometry.name != "geometry":
        frame = frame.rename_geometry("geometry")
    return frame.to_crs(WGS84)


def text_of(value: Any) -> str:
    """A cell as text; empty where the file has nothing."""
    import pandas

    text = "" if pandas.isna(value) else str(value).strip()
    return "" if text.lower() in {"nan", "none"} else text


def polygon_of(geometry: BaseGeometry | None, where: str) -> BaseGeometry:
    """The polygonal part of a geometry, repaired, in valid longitudes and latitudes.

    Raises: AreaError, which says `where`.
    """
    if not isinstance(geometry, BaseGeometry) or geometry.is_empty:
        raise AreaError(f"{where} has no geometry; give a polygon or remove the feature")
    geometry = shapely.force_2d(geometry)
    left, bottom, right, top = geometry.bounds
    if not (left >= -360 and right <= 360 and bottom >= -90 and top <= 90):
        raise AreaError(
            f"{where} spans {left:.6g}, {bottom:.6g} to {right:.6g}, {top:.6g}, which are no "
            "longitudes and latitudes; is the CRS declared rightly?"
        )
    if not geometry.is_valid:
        logger.warning("%s is not valid (%s); repaired", where, shapely.is_valid_reason(geometry))
        geometry = shapely.make_valid(geometry)
    parts = [p for p in shapely.get_parts(geometry) if p.geom_type.endswith("Polygon")]
    polygons = [p for part in parts for p in shapely.get_parts(part) if p.area > 0]
    if not polygons:
        raise AreaError(
            f"{where} is a {geometry.geom_type} without area; give a polygon or remove the feature"
        )
    return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)
