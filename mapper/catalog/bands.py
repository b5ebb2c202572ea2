"""Band names: one set of common names, whatever an archive calls its assets.

The names are those of Earth Search (`red`, `nir`, `swir16`, `scl`), `clp` (probability of cloud),
`vv` and `vh` (gamma0 in linear power), `elevation`, and `classes` (of a map that is an extra
layer). Planetary Computer's `B04` or `SCL`, Copernicus Data Space's `B04_10m` beside `B04_20m`,
`gamma0_vv` and multi-band assets are found behind them.
"""

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from mapper.errors import CatalogError
from mapper.transport.address import unsigned

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
_ALIASES = {
    "elevation": ("data", "dem"),
    "classes": ("map", "data"),
    "scl": ("SCL",),
    "clp": ("CLP", "cloud", "cld", "CLD", "MSK_CLDPRB"),
    "vv": ("VV", "gamma0_vv"),
    "vh": ("VH", "gamma0_vh"),
}
_TO_PERCENT = {"clp": 100 / 255, "CLP": 100 / 255}
"""Cloud probability that is kept as 0 to 255 (s2cloudless); all others keep per cent."""
_PICTURES = {"thumbnail", "overview", "visual"}
_RESOLUTION = re.compile(r"(.+?)_(\d+)m")


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
    """Declared; of `clp` always the factor to per cent."""
    offset: float | None
    """Declared, in what the scaled value counts."""
    checksum: str = ""
    """`file:checksum`, where the item has one."""


def find_band(item: Item, name: str) -> BandAsset | None:
    """The asset and band that hold a common name; None where the item lacks it.

    An archive that has a band at several resolutions gives its finest. Previews are never taken,
    JPEG 2000 only under a name of its own. Class values are no elevation, elevation no classes.
    """
    assets: dict[str, Any] = item.get("assets", {})
    for key in (name, SENTINEL2_NUMBERS.get(name), *_ALIASES.get(name, ())):
        finest = _finest(assets, key) if key else None
        if finest and _may_hold(assets[finest], finest, name):
            band = _band_asset(assets[finest], _index_in(assets[finest], name) or 1)
            if name == "clp":
                return replace(band, scale=_TO_PERCENT.get(str(key), 1.0))
            return band
    for key in sorted(assets):
        asset = assets[key]
        if asset.get("type") == "image/jp2" or _PICTURES & set(asset.get("roles") or []):
            continue
        index = _index_in(asset, name)
        if index and key not in {"visual", "rendered_preview", "preview", "overview"}:
            return _band_asset(asset, index)
    return None


def _finest(assets: dict[str, Any], name: str) -> str | None:
    """Key of the asset of this name, or of the finest of `name_10m`, `name_20m` and so on."""
    if name in assets:
        return name
    sizes: dict[str, int] = {}
    for key in assets:
        found = _RESOLUTION.fullmatch(key)
        if found and found.group(1) == name:
            sizes[key] = int(found.group(2))
    return min(sizes, key=lambda key: sizes[key], default=None)


def _may_hold(asset: dict[str, Any], key: str, name: str) -> bool:
    """False where the asset says that it is another kind of thing than its key might be."""
    if key != "data" or name not in {"elevation", "classes"}:
        return True
    listed = [asset, *_dicts(asset.get("raster:bands")), *_dicts(asset.get("bands"))]
    classed = any("classification:classes" in one or "file:values" in one for one in listed)
    return classed == (name == "classes")


def _dicts(listed: Any) -> list[dict[str, Any]]:
    """The objects of a list; items before STAC 1.0 list numbers of bands instead."""
    return [one for one in listed or [] if isinstance(one, dict)]


def _bands_of(asset: dict[str, Any]) -> list[dict[str, Any]]:
    return _dicts(asset.get("bands")) or _dicts(asset.get("eo:bands"))


def _index_in(asset: dict[str, Any], name: str) -> int | None:
    """Number of the band with this name in an asset, from 1."""
    for index, band in enumerate(_bands_of(asset), start=1):
        names = {band.get("common_name"), band.get("eo:common_name"), band.get("name")}
        if name in {str(n).lower() for n in names if n}:
            return index
    return None


def _band_asset(asset: dict[str, Any], index: int) -> BandAsset:
    # what holds for all bands of an asset stands beside its list of bands
    shared = ("nodata", "raster:scale", "raster:offset")
    raster: dict[str, Any] = {str(k): asset[k] for k in shared if k in asset}
    for listed in (_dicts(asset.get("raster:bands")), _dicts(asset.get("bands"))):
        if len(listed) >= index:
            raster |= listed[index - 1]
    nodata = raster.get("nodata")
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


def own_address(item: Item) -> str:
    """Where an item comes from: its self link, or what a mirror says that its original was."""
    own = next((k["href"] for k in item.get("links", []) if k["rel"] == "self"), "")
    return str(item["properties"].get("mapper:origin") or own)


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
