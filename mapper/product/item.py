"""STAC: an item for each city, a collection for the run, an index of the cities."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mapper
from mapper.area.grid import Grid, PixelBox
from mapper.classes import ClassTable
from mapper.store.files import sha256_of

_EXTENSIONS = "https://stac-extensions.github.io"
COLLECTION = "mapper-maps"
"""Id of the collection at the root of a run's folder, five folders above each item."""
_MEDIA_COG = "image/tiff; application=geotiff; profile=cloud-optimized"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductLayer:
    """A raster that is published beside class, confidence and observations."""

    name: str
    """Of the file and the asset."""
    title: str
    dtype: str
    nodata: float
    scale: float
    """Stored value times this is the value."""
    bands: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Credits:
    """Under which terms a map is, and whom it owes what."""

    license: str = "other"
    """Follows from the sources and models; SPDX, `proprietary` or `other`."""
    use: str = "any"
    """What the recipe says its maps are for."""
    attributions: Sequence[str] = ()
    """Lines to print wherever the map is shown."""
    notes: Sequence[str] = ()
    """For people: who asks for what, and what is not known."""
    obligations: Sequence[str] = ()
    """What those who publish the map owe, as `mapper.terms.Obligation` names it."""
    terms: Sequence[Mapping[str, str]] = ()
    """Per source and model: name, licence, and attribution and address where there are any."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """Who owns the sources, and where their terms stand; the address may be empty."""

    def to_dict(self) -> dict[str, Any]:
        """As a report has it."""
        lists = {k: list(getattr(self, k)) for k in ("attributions", "notes", "obligations")}
        return {"license": self.license, "use": self.use, **lists}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductFacts:
    """What the item says about where a map comes from."""

    item_id: str
    title: str
    city: str
    country: str
    geometry: Mapping[str, Any]
    bbox: tuple[float, float, float, float]
    interval: str
    """`start/end` of the period, as STAC writes it."""
    version: int
    grid: Grid
    pixels: PixelBox
    classes: ClassTable
    credits: Credits
    recipe: Mapping[str, Any]
    """Name and digest."""
    model: Mapping[str, Any]
    """Name, digest, licence, and the inference plan."""
    scenes: Mapping[str, Sequence[Mapping[str, Any]]]
    """Per source: id, datetime, self link, offset verdict of every scene."""
    missing: Sequence[str]
    """Modalities that the model could use and this map had to do without."""
    warnings: Sequence[str] = ()
    corrections: Sequence[Mapping[str, str]] = ()
    """What people mended by hand: id, class, author, reason and when."""
    layers: Sequence[ProductLayer] = ()


def product_item(
    facts: ProductFacts,
    folder: Path,
    counts: Mapping[int, int],
    holes: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The STAC item of one city's map, with size and checksum of every file.

    Args:
        facts: where the map comes from.
        folder: with the files of the product.
        counts: pixels per class, for the classes' counts and shares.
        holes: per source, pixels without a value because a scene could not be read.
    """
    start, end = facts.interval.split("/")
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [
            f"{_EXTENSIONS}/projection/v2.0.0/schema.json",
            f"{_EXTENSIONS}/raster/v2.0.0/schema.json",
            f"{_EXTENSIONS}/classification/v1.1.0/schema.json",
            f"{_EXTENSIONS}/processing/v1.2.0/schema.json",
            f"{_EXTENSIONS}/file/v2.1.0/schema.json",
            f"{_EXTENSIONS}/render/v2.0.0/schema.json",
            f"{_EXTENSIONS}/version/v1.2.0/schema.json",
        ],
        "id": facts.item_id,
        "geometry": dict(facts.geometry),
        "bbox": list(facts.bbox),
        "properties": {
            "title": facts.title,
            "datetime": None,
            "start_datetime": start,
            "end_datetime": end,
            **_credited(facts.credits),
            "version": str(facts.version),
            "gsd": facts.grid.resolution,
            **_projection(facts),
            "processing:level": "L4",
            "processing:lineage": _lineage(facts),
            "processing:software": {"mapper": mapper.__version__},
            "processing:version": mapper.__version__,
            "mapper:city": facts.city,
            "mapper:country": facts.country,
            "mapper:recipe": dict(facts.recipe),
            "mapper:model": dict(facts.model),
            "mapper:scenes": {k: [dict(s) for s in v] for k, v in facts.scenes.items()},
            "mapper:missing": list(facts.missing),
            "mapper:warnings": list(facts.warnings),
            "mapper:holes": dict(holes or {}),
            **_corrected(facts),
            "renders": _renders(facts.classes),
        },
        "collection": COLLECTION,
        "assets": _assets(facts, folder, counts),
        "links": _links(facts),
    }


def _corrected(facts: ProductFacts) -> dict[str, Any]:
    if not facts.corrections:
        return {}
    return {"mapper:corrections": [dict(one) for one in facts.corrections]}


def _credited(credits: Credits) -> dict[str, Any]:
    """Licence, owners and attributions; `providers` may not be an empty list."""
    providers = [
        {"name": name, "roles": ["licensor"], **({"url": url} if _is_web(url) else {})}
        for name, url in credits.owners.items()
    ]
    return {
        "license": credits.license,
        **({"providers": providers} if providers else {}),
        "mapper:attributions": list(credits.attributions),
        "mapper:use": credits.use,
        "mapper:obligations": list(credits.obligations),
        "mapper:terms_of_use": [dict(one) for one in credits.terms],
        "mapper:notes": list(credits.notes),
    }


def _is_web(address: str) -> bool:
    """A path of this machine would mean nothing elsewhere."""
    return address.startswith(("https://", "http://"))


def _license_links(credits: Credits) -> list[dict[str, Any]]:
    """Where the terms of sources and models stand, each address once."""
    names: dict[str, list[str]] = {}
    for one in credits.terms:
        if _is_web(one.get("url", "")):
            names.setdefault(one["url"], []).append(one["name"])
    return [
        {"rel": "license", "href": url, "title": f"Terms of {', '.join(dict.fromkeys(found))}"}
        for url, found in names.items()
    ]


def _projection(facts: ProductFacts) -> dict[str, Any]:
    transform = facts.grid.transform_of(facts.pixels)
    return {
        "proj:code": facts.grid.crs,
        "proj:shape": list(facts.pixels.shape),
        "proj:transform": list(transform)[:6],
        "proj:bbox": list(facts.grid.bounds_of(facts.pixels)),
    }


def _lineage(facts: ProductFacts) -> str:
    scenes = ", ".join(f"{len(v)} scenes of {k}" for k, v in facts.scenes.items())
    without = f"; without {', '.join(facts.missing)}" if facts.missing else ""
    return (
        f"Recipe {facts.recipe['name']}, model {facts.model['name']}; {scenes or 'no scenes'}"
        f"{without}."
    )


def _renders(classes: ClassTable) -> dict[str, Any]:
    return {
        "classes": {
            "title": "Classes",
            "assets": ["classes"],
            "nodata": classes.nodata,
            "resampling": "nearest",
            "colormap": {str(c.value): [*c.rgb, 255] for c in classes.classes},
        }
    }


def _assets(
    facts: ProductFacts, folder: Path, counts: Mapping[int, int]
) -> dict[str, dict[str, Any]]:
    mapped = sum(n for value, n in counts.items() if value != facts.classes.nodata)
    listed = facts.classes.to_stac()
    for entry in listed:
        if not entry.get("nodata"):
            entry["count"] = counts.get(entry["value"], 0)
            entry["percentage"] = round(100 * entry["count"] / mapped, 4) if mapped else 0.0
    band = {"raster:spatial_resolution": facts.grid.resolution, "raster:sampling": "area"}
    described: dict[str, tuple[str, dict[str, Any]]] = {
        "classes": (
            "classes.tif",
            {
                "title": "Class of each pixel",
                "roles": ["data"],
                "data_type": "uint8",
                "nodata": facts.classes.nodata,
                "classification:classes": listed,
                "bands": [{"name": "classes", **band}],
            },
        ),
        "confidence": (
            "confidence.tif",
            {
                "title": "Probability of that class, times 250",
                "roles": ["data"],
                "data_type": "uint8",
                "nodata": 255,
                "bands": [{"name": "confidence", "raster:scale": 0.004, **band}],
            },
        ),
        "observations": (
            "observations.tif",
            {
                "title": "Observations of each source, and why there are none",
                "roles": ["metadata"],
                "data_type": "uint16",
                "nodata": 65535,
                "bands": [
                    {"name": f"{source}_{what}", **band}
                    for source in facts.scenes
                    for what in ("count", "status")
                ],
            },
        ),
        "statistics": ("statistics.json", {"title": "Area per class", "roles": ["metadata"]}),
        "statistics_csv": ("statistics.csv", {"title": "Area per class", "roles": ["metadata"]}),
        "thumbnail": ("quicklook.png", {"title": "Quicklook", "roles": ["thumbnail", "overview"]}),
    }
    for layer in facts.layers:
        described[layer.name] = (f"{layer.name}.tif", _layer(layer, band))
    return {
        key: {"href": f"./{name}", "type": _media(name), **more, **file_facts(folder / name)}
        for key, (name, more) in described.items()
    }


def _layer(layer: ProductLayer, band: Mapping[str, Any]) -> dict[str, Any]:
    """A further raster as an asset."""
    scale = {} if layer.scale == 1.0 else {"raster:scale": layer.scale}
    return {
        "title": layer.title.capitalize(),
        "roles": ["data"],
        "data_type": layer.dtype,
        "nodata": layer.nodata,
        "bands": [{"name": name, **scale, **band} for name in layer.bands],
    }


def _media(name: str) -> str:
    return {
        "tif": _MEDIA_COG,
        "json": "application/json",
        "csv": "text/csv",
        "png": "image/png",
    }[name.rsplit(".", 1)[-1]]


def file_facts(path: Path) -> dict[str, Any]:
    """`file:size` and `file:checksum` (multihash of SHA-256) of a file."""
    return {"file:size": path.stat().st_size, "file:checksum": f"1220{sha256_of(path)}"}


def _links(facts: ProductFacts) -> list[dict[str, Any]]:
    links = [
        {
            "rel": "derived_from",
            "href": scene["href"],
            "type": "application/geo+json",
            "title": scene["id"],
        }
        for scenes in facts.scenes.values()
        for scene in scenes
        if scene.get("href")
    ]
    above = [
        {"rel": rel, "href": "../../../../../collection.json", "type": "application/json"}
        for rel in ("root", "parent", "collection")
    ]
    return [*above, *links, *_license_links(facts.credits), *_version_links(facts)]


def _version_links(facts: ProductFacts) -> list[dict[str, Any]]:
    if facts.version == 1:
        return []
    before = f"../../v{facts.version - 1}/product/item.json"
    return [{"rel": "predecessor-version", "href": before, "type": "application/geo+json"}]


def run_collection(
    items: Mapping[str, Mapping[str, Any]], title: str, licenses: Sequence[str]
) -> dict[str, Any]:
    """The STAC collection of a run.

    Args:
        items: STAC items by their path relative to the collection.
        title: of the collection.
        licenses: of the products in it.
    """
    boxes = [item["bbox"] for item in items.values()]
    overall = [
        min(b[0] for b in boxes),
        min(b[1] for b in boxes),
        max(b[2] for b in boxes),
        max(b[3] for b in boxes),
    ]
    starts = [item["properties"]["start_datetime"] for item in items.values()]
    ends = [item["properties"]["end_datetime"] for item in items.values()]
    links: list[dict[str, Any]] = [
        {"rel": "root", "href": "./collection.json", "type": "application/json"}
    ]
    links += [
        {
            "rel": "item",
            "href": f"./{path}",
            "type": "application/geo+json",
            "title": item["properties"]["title"],
        }
        for path, item in sorted(items.items())
    ]
    links += _merged([k for k in item["links"] if k["rel"] == "license"] for item in items.values())
    properties = [item["properties"] for item in items.values()]
    providers = _merged(p.get("providers", []) for p in properties)
    attributions = [line for p in properties for line in p.get("mapper:attributions", [])]
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": COLLECTION,
        "title": title,
        "description": f"Maps of {len(items)} areas made by mapper {mapper.__version__}.",
        "license": licenses[0] if len(set(licenses)) == 1 else "other",
        **({"providers": providers} if providers else {}),
        "mapper:attributions": sorted(set(attributions)),
        "extent": {
            "spatial": {"bbox": [overall, *boxes] if len(boxes) > 1 else [overall]},
            "temporal": {"interval": [[min(starts), max(ends)]]},
        },
        "links": links,
    }


def _merged(lists: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What several lists of mappings hold, each once, sorted."""
    found = {json.dumps(one, sort_keys=True): one for each in lists for one in each}
    return [found[key] for key in sorted(found)]


def index_feature(item: Mapping[str, Any], path: str, shares: Mapping[str, Any]) -> dict[str, Any]:
    """A city as a feature of the index: where its item is, and its areas."""
    properties = item["properties"]
    return {
        "type": "Feature",
        "id": item["id"],
        "geometry": item["geometry"],
        "bbox": item["bbox"],
        "properties": {
            "city": properties["mapper:city"],
            "country": properties["mapper:country"],
            "recipe": properties["mapper:recipe"]["name"],
            "period": f"{properties['start_datetime']}/{properties['end_datetime']}",
            "version": properties["version"],
            "item": path,
            **shares,
        },
    }
