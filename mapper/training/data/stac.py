"""STAC of a set of samples: a catalog, a collection of images, a collection of labels.

Each label is an item of its own with the label extension, whose `source` is the item of its
image; both have the geometry of the patch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from affine import Affine
from pyproj import Transformer

import mapper
from mapper.classes import ClassTable

_EXTENSIONS = "https://stac-extensions.github.io"
_TIFF = "image/tiff; application=geotiff"
_ZARR = "application/vnd.zarr; version=3"
CATALOG = "catalog.json"
KINDS: Mapping[str, str] = {"images": "Images", "labels": "Labels"}
"""Folders of the two collections, and what they hold."""
Bbox = tuple[float, float, float, float]
"""West, south, east, north."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFacts:
    """All that samples of one set have in common."""

    title: str
    bands: tuple[str, ...]
    """Of the images, as `source:band`."""
    classes: ClassTable
    """Of the labels."""
    size: int
    """Side of every patch in pixels."""
    license: str
    interval: str
    """`start/end` of the images' period, as STAC writes it."""
    method: Literal["manual", "automatic"]
    """Who made the labels: people, or a model."""
    run: Mapping[str, Any]
    """What else is known of where they come from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One patch, without its pixels."""

    id: str
    """Slug and number; unique in the set."""
    group: str
    """City or region that is held out as one."""
    stratum: str
    """Class of the pixel in the middle; empty where it has none."""
    epsg: int
    transform: Affine
    """From column and row to easting and northing, north up."""
    shape: tuple[int, int]
    """Height and width in pixels."""
    pixels: Mapping[str, int]
    """Pixels of each class that occurs."""
    more: Mapping[str, str] = field(default_factory=dict)
    """City, and the name that the user gave the point."""

    @property
    def bounds(self) -> Bbox:
        """Left, bottom, right, top in its CRS."""
        height, width = self.shape
        left, top = self.transform.c, self.transform.f
        return left, top + height * self.transform.e, left + width * self.transform.a, top

    @property
    def place(self) -> tuple[float, float]:
        """Easting and northing of its centre."""
        left, bottom, right, top = self.bounds
        return (left + right) / 2, (bottom + top) / 2

    def ring(self) -> list[list[float]]:
        """Longitude and latitude of its corners, closed; beyond 180 across the antimeridian."""
        left, bottom, right, top = self.bounds
        east, north = [left, right, right, left], [bottom, bottom, top, top]
        lons, lats = _to_lonlat(self.epsg).transform(east, north)
        if max(lons) - min(lons) > 180:
            lons = [lon + 360 if lon < 0 else lon for lon in lons]
        corners = [[round(lon, 8), round(lat, 8)] for lon, lat in zip(lons, lats, strict=True)]
        return [*corners, corners[0]]


@lru_cache(maxsize=8)
def _to_lonlat(epsg: int) -> Transformer:
    return Transformer.from_crs(epsg, 4326, always_xy=True)


def bbox_of(item: Mapping[str, Any]) -> Bbox:
    """Of an item made here."""
    west, south, east, north = item["bbox"]
    return west, south, east, north


def image_item(sample: Sample, facts: SetFacts, asset: Mapping[str, Any]) -> dict[str, Any]:
    """The item of an image.

    Args:
        sample: the patch.
        facts: of its set.
        asset: href relative to the item, and what is known of the file.
    """
    band = {"raster:spatial_resolution": sample.transform.a, "raster:sampling": "area"}
    image = {
        **_media(asset),
        "title": "Bands in physical units, NaN where there are no data",
        "roles": ["data"],
        "data_type": "float32",
        "nodata": "nan",
        "bands": [{"name": name, **band} for name in facts.bands],
        **asset,
    }
    return _item(
        sample,
        facts,
        {"id": sample.id, "collection": "images"},
        (["projection/v2.0.0", "raster/v2.0.0", "file/v2.1.0"], {}, {"image": image}),
    )


def label_item(sample: Sample, facts: SetFacts, asset: Mapping[str, Any]) -> dict[str, Any]:
    """The item of a label; arguments as those of `image_item`."""
    names = [entry.name for entry in facts.classes.classes]
    counts = [
        {"name": name, "count": sample.pixels[name]} for name in names if name in sample.pixels
    ]
    properties = {
        "label:type": "raster",
        "label:properties": None,
        "label:description": f"Class of each pixel of {sample.id}",
        "label:classes": [{"name": None, "classes": names}],
        "label:tasks": ["segmentation"],
        "label:methods": [facts.method],
        "label:overviews": [{"property_key": "class", "counts": counts}],
    }
    label = {
        **_media(asset),
        "title": "Class of each pixel",
        "roles": ["labels"],
        "data_type": "uint8",
        "nodata": facts.classes.nodata,
        "classification:classes": facts.classes.to_stac(),
        **asset,
    }
    source = {
        "rel": "source",
        "href": f"../images/{sample.id}.json",
        "type": "application/geo+json",
        "label:assets": ["image"],
    }
    extensions = ["label/v1.0.1", "projection/v2.0.0", "classification/v1.1.0", "file/v2.1.0"]
    item = _item(
        sample,
        facts,
        {"id": f"{sample.id}-label", "collection": "labels"},
        (extensions, properties, {"labels": label}),
    )
    item["links"].append(source)
    return item


def _media(asset: Mapping[str, Any]) -> dict[str, str]:
    return {"type": _ZARR if asset["href"].endswith(".zarr") else _TIFF}


def _item(
    sample: Sample,
    facts: SetFacts,
    names: Mapping[str, str],
    parts: tuple[Sequence[str], Mapping[str, Any], Mapping[str, Any]],
) -> dict[str, Any]:
    """An item beside its collection; `parts` are extensions, properties and assets."""
    extensions, properties, assets = parts
    ring, (start, end) = sample.ring(), facts.interval.split("/")
    lons, lats = [point[0] for point in ring], [point[1] for point in ring]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [f"{_EXTENSIONS}/{name}/schema.json" for name in extensions],
        **names,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [min(lons), min(lats), max(lons), max(lats)],
        "properties": {
            "datetime": None,
            "start_datetime": start,
            "end_datetime": end,
            "license": facts.license,
            "gsd": sample.transform.a,
            "proj:code": f"EPSG:{sample.epsg}",
            "proj:shape": list(sample.shape),
            "proj:transform": list(sample.transform)[:6],
            "proj:bbox": list(sample.bounds),
            "mapper:group": sample.group,
            "mapper:stratum": sample.stratum,
            **{f"mapper:{key}": value for key, value in sample.more.items()},
            **properties,
        },
        "assets": dict(assets),
        "links": [
            {"rel": "root", "href": f"../{CATALOG}", "type": "application/json"},
            {"rel": "parent", "href": "./collection.json", "type": "application/json"},
            {"rel": "collection", "href": "./collection.json", "type": "application/json"},
        ],
    }


def collection(kind: str, facts: SetFacts, boxes: Mapping[str, Bbox]) -> dict[str, Any]:
    """The collection of images or of labels; `boxes` are those of the items by sample id."""
    west, south, east, north = zip(*boxes.values(), strict=True)
    extent: dict[str, Any] = {
        "spatial": {"bbox": [[min(west), min(south), max(east), max(north)]]},
        "temporal": {"interval": [facts.interval.split("/")]},
    }
    items = [
        {"rel": "item", "href": f"./{name}.json", "type": "application/geo+json"} for name in boxes
    ]
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": kind,
        "title": f"{KINDS[kind]}: {facts.title}",
        "description": f"{KINDS[kind]} of {len(boxes)} samples made by mapper "
        f"{mapper.__version__}.",
        "license": facts.license,
        "extent": extent,
        "links": [
            {"rel": "root", "href": f"../{CATALOG}", "type": "application/json"},
            {"rel": "parent", "href": f"../{CATALOG}", "type": "application/json"},
            *items,
        ],
    }


def catalog(facts: SetFacts, count: int) -> dict[str, Any]:
    """The root of the set."""
    links = [{"rel": "root", "href": f"./{CATALOG}", "type": "application/json"}]
    links += [
        {"rel": "child", "href": f"./{kind}/collection.json", "type": "application/json"}
        for kind in KINDS
    ]
    return {
        "type": "Catalog",
        "stac_version": "1.1.0",
        "id": "samples",
        "title": facts.title,
        "description": f"{count} labelled images made by mapper {mapper.__version__}.",
        "links": links,
    }
