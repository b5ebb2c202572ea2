"""A plain folder of GeoTIFFs as STAC items, for imagery that has no catalog."""

import hashlib
import re
from collections import Counter
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import rasterio
from rasterio.enums import ColorInterp
from rasterio.warp import transform_bounds

from mapper.catalog.bands import Item
from mapper.transport.opening import open_raster

_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])(?!\d)")
_COLORS = {
    ColorInterp.red: "red",
    ColorInterp.green: "green",
    ColorInterp.blue: "blue",
    ColorInterp.gray: "gray",
}


def folder_items(folder: Path) -> list[Item]:
    """One item per GeoTIFF of a folder and the folders in it, by name.

    The date is the one in the file's name (YYYYMMDD) or its TIFF date; a file with neither is
    marked `mapper:undated` and passes every period. Bands are named by colour interpretation;
    a fourth band of an RGB image that is not alpha is near infrared.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".tif", ".tiff"})
    names = [_plain_name(path.relative_to(folder)) for path in paths]
    count = Counter(names)
    return [
        _item(path, name if count[name] == 1 else f"{name}_{_short_hash(path, folder)}")
        for path, name in zip(paths, names, strict=True)
    ]


def _item(path: Path, identifier: str) -> Item:
    with open_raster(str(path.resolve())) as dataset:
        when = _date(path, dataset)
        properties: dict[str, Any] = {"datetime": when or "1970-01-01T00:00:00Z"}
        if when is None:
            properties["mapper:undated"] = True
        if dataset.crs and dataset.crs.to_epsg():
            properties["proj:code"] = f"EPSG:{dataset.crs.to_epsg()}"
        bbox = list(transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds))
        bands = [{"name": name} for name in band_names(dataset)]
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": identifier,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": bbox,
        "properties": properties,
        "links": [],
        "assets": {"image": {"href": str(path.resolve()), "bands": bands, "roles": ["data"]}},
    }


def _plain_name(path: Path) -> str:
    """The file's place in its folder as a name."""
    return re.sub(r"[^A-Za-z0-9]+", "_", str(path.with_suffix("")))


def _short_hash(path: Path, folder: Path) -> str:
    """Keeps apart files whose places read the same."""
    return hashlib.sha256(str(path.relative_to(folder)).encode()).hexdigest()[:6]


def band_names(dataset: rasterio.DatasetReader) -> list[str]:
    """Common names of a file's bands."""
    names = []
    for index, color in enumerate(dataset.colorinterp, start=1):
        described = (dataset.descriptions[index - 1] or "").lower()
        if described in {"red", "green", "blue", "nir"}:
            names.append(described)
        elif color == ColorInterp.alpha:
            names.append("alpha")
        elif color in _COLORS:
            names.append(_COLORS[color])
        elif index == 4 and names[:3] == ["red", "green", "blue"]:
            names.append("nir")
        else:
            names.append(f"band{index}")
    return names


def _date(path: Path, dataset: rasterio.DatasetReader) -> str | None:
    for found in _DATE.finditer(path.stem):
        day = "-".join(found.groups())
        with suppress(ValueError):
            return f"{date.fromisoformat(day)}T00:00:00Z"
    tag = dataset.tags().get("TIFFTAG_DATETIME", "")
    try:
        return datetime.strptime(tag, "%Y:%m:%d %H:%M:%S").strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        return None
