"""Band names: one set of common names, whatever an archive calls its assets.

The names are those of Earth Search (`red`, `nir`, `swir16`, `scl`), `vv` and `vh`, and
`elevation`; Planetary Computer's `B04` or `SCL` and multi-band assets are found behind them.
"""

import math
from dataclasses import dataclass
from typing import Any

from mapper.catalog.access import unsigned
from mapper.errors import CatalogError

Item = dict[str, Any]
"""A STAC item as its JSON says."""

SENTINEL2_NUMBERS = {
    "coastal": "B01",
    "blue": "B02",
    "green": "B03",
    "red": "B04",
    "rededge1": "B05",
    "rededge2": "B06",
    "rededge3": "B07",
    "nir": "B08",
    "nir08": "B8A",
    "nir09": "B09",
    "swir16": "B11",
    "swir22": "B12",
}
_ALIASES = {"elevation": ("data", "dem"), "scl": ("SCL",), "vv": ("VV",), "vh": ("VH",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BandAsset:
    """Where one band of an item is."""

    href: str
    """As the archive gives it, unsigned."""
    index: int
    """Band of the file, from 1."""
    nodata: float | None
    """Declared nodata; None leaves it to the file."""
    scale: float | None
    offset: float | None
    checksum: str = ""
    """`file:checksum`, where the item has one."""


def find_band(item: Item, name: str) -> BandAsset | None:
    """The asset and band that hold a common name; None where the item lacks it."""
    assets: dict[str, Any] = item.get("assets", {})
    for key in (name, SENTINEL2_NUMBERS.get(name), *_ALIASES.get(name, ())):
        if key in assets:
            return _band_asset(assets[key], _index_in(assets[key], name) or 1)
    for key in sorted(assets):
        if assets[key].get("type") == "image/jp2" or "thumbnail" in assets[key].get("roles", []):
            continue
        index = _index_in(assets[key], name)
        if index and key not in {"visual", "rendered_preview"}:
            return _band_asset(assets[key], index)
    return None


def need_band(item: Item, name: str) -> BandAsset:
    """As `find_band`. Raises: CatalogError where the item lacks the band."""
    band = find_band(item, name)
    if band is None:
        known = ", ".join(sorted(item.get("assets", {})))
        raise CatalogError(f"item {item['id']} has no band {name!r}; its assets are {known}")
    return band


def _bands_of(asset: dict[str, Any]) -> list[dict[str, Any]]:
    return asset.get("bands") or asset.get("eo:bands") or []


def _index_in(asset: dict[str, Any], name: str) -> int | None:
    """Number of the band with this name in an asset, from 1."""
    for index, band in enumerate(_bands_of(asset), start=1):
        names = {band.get("common_name"), band.get("eo:common_name"), band.get("name")}
        if name in {str(n).lower() for n in names if n}:
            return index
    return None


def _band_asset(asset: dict[str, Any], index: int) -> BandAsset:
    raster: dict[str, Any] = {}
    for listed in (asset.get("raster:bands") or [], asset.get("bands") or []):
        if len(listed) >= index:
            raster |= listed[index - 1]
    nodata = raster.get("nodata", asset.get("nodata"))
    return BandAsset(
        href=unsigned(asset["href"]),
        index=index,
        nodata=float(nodata) if isinstance(nodata, int | float) else None,
        scale=_number(raster, "scale", "raster:scale"),
        offset=_number(raster, "offset", "raster:offset"),
        checksum=str(asset.get("file:checksum", "")),
    )


def _number(band: dict[str, Any], *names: str) -> float | None:
    return next((float(band[n]) for n in names if isinstance(band.get(n), int | float)), None)


def cloud_cover(item: Item) -> float:
    """Per cent of the scene; 0 where the item does not know."""
    return float(item["properties"].get("eo:cloud_cover") or 0)


def flat_bbox(item: Item) -> tuple[float, float, float, float]:
    """West, south, east, north of the item's bbox, which may have heights too."""
    bbox = item["bbox"]
    west, south, east, north = bbox if len(bbox) == 4 else (*bbox[:2], *bbox[3:5])
    return west, south, east, north


def check_item(item: Item) -> Item:
    """The item with finite numbers only. Raises: CatalogError where it is no STAC item."""
    identity = item.get("id")
    if not isinstance(identity, str) or not identity:
        raise CatalogError(f"the catalog holds an item whose id is {identity!r}; mend it")
    for name in ("properties", "assets"):
        if not isinstance(item.get(name), dict):
            raise CatalogError(f"item {identity} has no {name}; mend the catalog")
    cover = item["properties"].get("eo:cloud_cover")
    if cover is not None and not isinstance(cover, int | float):
        raise CatalogError(f"item {identity} has a cloud cover of {cover!r}; give per cent")
    bbox = item.get("bbox")
    if bbox is not None and len(bbox) not in (4, 6):
        raise CatalogError(f"item {identity} has a bbox of {len(bbox)} numbers; give 4 or 6")
    code = str(item["properties"].get("proj:code") or "")
    if code.upper().startswith("EPSG:") and not code[5:].isdecimal():
        raise CatalogError(f"item {identity} has the CRS {code!r}; write EPSG:32633")
    finite: Item = _finite(item)
    return finite


def _finite(value: Any) -> Any:
    """The value without NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
