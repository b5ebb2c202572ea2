"""Public archives as data: their collections, what these can serve, under which terms, and traps.

Only what a search or an item cannot say of itself stands here. An address that is not listed is
searched like any other STAC API; its terms are those of its collections (`described_terms`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from mapper.catalog.bands import Item
from mapper.classes import ClassTable, MapClass
from mapper.terms import Terms

Kind = Literal["sentinel-2", "sentinel-1", "elevation", "imagery", "layer"]
"""What a collection can serve: a kind of source, or `classes`, an extra layer of class values."""

SENTINEL = Terms(
    "Copernicus-Sentinel",
    "Contains modified Copernicus Sentinel data [year]",
    "https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice",
)
_WORLD_DEM = (
    "Produced using Copernicus WorldDEM-{} © DLR e.V. 2010-2014 and © Airbus Defence and Space "
    "GmbH 2014-2018 provided under COPERNICUS by the European Union and ESA; all rights reserved"
)
_NO_LIABILITY = (
    "the organisations in charge of the Copernicus programme do not incur any liability for any "
    "use of the Copernicus WorldDEM"
)
_DEM_LICENSE = "https://spacedata.copernicus.eu/documents/20123/121286/CSCDA_ESA_Mission-specific+Annex_31_Oct_22.pdf"
DEM_30 = Terms("Copernicus-DEM", _WORLD_DEM.format(30), _DEM_LICENSE, _NO_LIABILITY)
DEM_90 = Terms("Copernicus-DEM", _WORLD_DEM.format(90), _DEM_LICENSE, _NO_LIABILITY)
NASADEM = Terms(
    "US-PD",
    "NASADEM: NASA JPL, distributed by NASA EOSDIS Land Processes DAAC",
    "https://doi.org/10.5067/MEaSUREs/NASADEM/NASADEM_HGT.001",
)
NAIP = Terms(
    "US-PD",
    "NAIP: USDA Farm Production and Conservation Business Center",
    "https://www.fsa.usda.gov/help/policies-and-links/",
)
IO_LULC = Terms(
    "CC-BY-4.0",
    "Land cover: Impact Observatory, Microsoft and Esri; contains modified Copernicus Sentinel "
    "data [year]",
    "https://creativecommons.org/licenses/by/4.0/",
    "a model's output, not ground truth",
)
WORLDCOVER = Terms(
    "CC-BY-4.0",
    "© ESA WorldCover project; contains modified Copernicus Sentinel data [year] processed by "
    "the ESA WorldCover consortium",
    "https://creativecommons.org/licenses/by/4.0/",
    "a model's output, not ground truth",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """One collection of an archive that a source can be read from."""

    id: str
    kind: Kind
    terms: Terms
    note: str = ""
    """A trap under it, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A public STAC API."""

    name: str
    address: str
    collections: tuple[Collection, ...]
    hosts: tuple[str, ...] = ()
    """Further names under which it answers."""

    def collection(self, name: str) -> Collection | None:
        """One of its collections; None where nothing is known of it."""
        return next((c for c in self.collections if c.id == name), None)


_OFFSET_REMOVED = (
    "the offset of baseline 04.00 is mostly taken off, as `earthsearch:boa_offset_applied` says; "
    "`raster:bands` goes on saying -0.1"
)
_JP2 = "JPEG 2000 without overviews, in a bucket that needs keys"
_SURFACE = "a surface model: roofs and tree tops, not the ground"

ARCHIVES = (
    Archive(
        name="Earth Search",
        address="https://earth-search.aws.element84.com/v1",
        collections=(
            Collection(
                id="sentinel-2-l2a", kind="sentinel-2", terms=SENTINEL, note=_OFFSET_REMOVED
            ),
            Collection(
                id="sentinel-2-c1-l2a",
                kind="sentinel-2",
                terms=SENTINEL,
                note="reprocessed; the offset is in the pixels and in `raster:bands`",
            ),
            Collection(
                id="sentinel-s2-l2a-cogs",
                kind="sentinel-2",
                terms=SENTINEL,
                note="retired (version 0); the flag is `sentinel:boa_offset_applied`",
            ),
            Collection(id="cop-dem-glo-30", kind="elevation", terms=DEM_30, note=_SURFACE),
            Collection(id="cop-dem-glo-90", kind="elevation", terms=DEM_90, note=_SURFACE),
            Collection(
                id="naip", kind="imagery", terms=NAIP, note="in a bucket where the requester pays"
            ),
        ),
    ),
    Archive(
        name="Planetary Computer",
        address="https://planetarycomputer.microsoft.com/api/stac/v1",
        collections=(
            Collection(
                id="sentinel-2-l2a",
                kind="sentinel-2",
                terms=SENTINEL,
                note="the offset is in the pixels from baseline 04.00 on, and nowhere declared",
            ),
            Collection(
                id="sentinel-1-rtc",
                kind="sentinel-1",
                terms=SENTINEL,
                note="may want an account key; `sar:product_type: GRD` is what it was made from",
            ),
            Collection(id="nasadem", kind="elevation", terms=NASADEM, note="56° S to 60° N"),
            Collection(id="cop-dem-glo-30", kind="elevation", terms=DEM_30, note=_SURFACE),
            Collection(id="cop-dem-glo-90", kind="elevation", terms=DEM_90, note=_SURFACE),
            Collection(
                id="naip", kind="imagery", terms=NAIP, note="0.3 to 1 m, four bands in one asset"
            ),
            Collection(id="io-lulc", kind="layer", terms=IO_LULC, note="superseded; ten classes"),
            Collection(id="io-lulc-9-class", kind="layer", terms=IO_LULC),
            Collection(id="io-lulc-annual-v02", kind="layer", terms=IO_LULC),
            Collection(
                id="esa-worldcover",
                kind="layer",
                terms=WORLDCOVER,
                note="2020 is version 100 and 2021 version 200: their difference is no change",
            ),
        ),
    ),
    Archive(
        name="Copernicus Data Space",
        address="https://stac.dataspace.copernicus.eu/v1",
        hosts=("catalogue.dataspace.copernicus.eu",),
        collections=(
            Collection(id="sentinel-2-l2a", kind="sentinel-2", terms=SENTINEL, note=_JP2),
            Collection(id="cop-dem-glo-30-dged-cog", kind="elevation", terms=DEM_30, note=_SURFACE),
            Collection(id="cop-dem-glo-90-dged-cog", kind="elevation", terms=DEM_90, note=_SURFACE),
        ),
    ),
)


def archive_of(address: str) -> Archive | None:
    """The archive behind an address, by its host alone; None for any other."""
    host = urlsplit(address).hostname
    for archive in ARCHIVES:
        if host and host in {urlsplit(archive.address).hostname, *archive.hosts}:
            return archive
    return None


def terms_of(address: str, collection: str) -> Terms | None:
    """Terms of an archive's collection; None where nothing is known of it."""
    archive = archive_of(address)
    known = archive.collection(collection) if archive else None
    return known.terms if known else None


def described_terms(collection: Mapping[str, Any]) -> Terms:
    """Terms as a STAC collection states them: its licence, its owners, its `license` link.

    STAC's `proprietary` and `various` mean no more than `other`: see the link.
    """
    owners = [
        str(provider["name"])
        for provider in collection.get("providers") or []
        if provider.get("name") and {"licensor", "producer"} & set(provider.get("roles") or [])
    ]
    links = [x for x in collection.get("links") or [] if x.get("rel") == "license"]
    return Terms(
        str(collection.get("license") or "other"),
        ", ".join(dict.fromkeys(owners)),
        str(links[0].get("href", "")).partition("?")[0] if links else "",
    )


_NO_GRID = (
    "is Sentinel-1 in radar geometry ({}): it needs calibration and terrain correction before it "
    "is a map; use sentinel-1-rtc (gamma0, terrain-corrected)"
)
_NO_SURFACE = (
    "is Sentinel-2 Level-1C, reflectance at the top of the atmosphere, not of the ground and "
    "without scene classification; use sentinel-2-l2a"
)
_RADAR_NAME = re.compile(r"(?:^|sentinel)s?1\w*?(grd|slc|ocn|raw)")
_LEVEL_1C_NAME = re.compile(r"sentinels?2\w*l1c")
_RADAR_PRODUCT = re.compile(r"GRD|SLC|OCN|RAW")


def refusal(collection: str, item: Item | None = None) -> str:
    """Why a collection, or one of its items, is of no use here; empty where it is.

    An item may lie in a collection of any name. That it is projected says little of a radar
    image: Earth Search gives unprojected ones an affine transform in degrees.
    """
    plain = re.sub(r"[^a-z0-9]", "", collection.lower())
    found = _RADAR_NAME.search(plain)
    if found and "rtc" not in plain:
        return f"collection {collection} " + _NO_GRID.format(found.group(1).upper())
    if _LEVEL_1C_NAME.search(plain):
        return f"collection {collection} {_NO_SURFACE}"
    return "" if item is None else _item_refusal(item)


def _item_refusal(item: Item) -> str:
    properties = item["properties"]
    radar = _RADAR_PRODUCT.search(_product(properties, "sar:product_type", "product:type"))
    if radar and not _terrain_corrected(item):
        return f"item {item['id']} " + _NO_GRID.format(radar.group(0))
    optical = _product(
        properties, "s2:product_type", "sentinel2:product_type", "product:type"
    ) or str(item["id"])
    if re.search(r"S2MSI1C|_MSIL1C_|_L1C$", optical):
        return f"item {item['id']} {_NO_SURFACE}"
    return ""


def _product(properties: Mapping[str, Any], *names: str) -> str:
    return next((str(properties[n]) for n in names if properties.get(n)), "")


def _terrain_corrected(item: Item) -> bool:
    """True for what calls itself corrected, or lies on a grid that is not one of degrees."""
    names = [str(item["id"]), str(item.get("collection", ""))]
    names += [str(asset.get("href", "")).rpartition("/")[2] for asset in item["assets"].values()]
    if any(re.search(r"rtc|gamma0", name, re.IGNORECASE) for name in names):
        return True
    properties = item["properties"]
    code = str(properties.get("proj:code") or properties.get("proj:epsg") or "")
    on_a_grid = properties.get("proj:shape") and properties.get("proj:transform")
    return bool(on_a_grid) and code.rpartition(":")[2] not in {"", "4326"}


def _table(*rows: tuple[int, str, str, str]) -> ClassTable:
    classes = tuple(MapClass(value=v, name=n, title=t, color=c) for v, n, t, c in sorted(rows))
    return ClassTable(classes=classes, nodata=0)


_IO_SHARED = (
    (1, "water", "Water", "419BDF"),
    (2, "trees", "Trees", "397D49"),
    (4, "flooded_vegetation", "Flooded vegetation", "7A87C6"),
    (5, "crops", "Crops", "E49635"),
    (7, "built", "Built area", "C4281B"),
    (8, "bare", "Bare ground", "A59B8F"),
    (9, "snow_ice", "Snow and ice", "A8EBFF"),
    (10, "clouds", "Clouds", "616161"),
)
IO_NINE = _table(*_IO_SHARED, (11, "rangeland", "Rangeland", "E3E2C3"))
"""Impact Observatory's annual maps; `clouds` is no land cover (Karra et al. 2021, IGARSS)."""
IO_TEN = _table(
    *_IO_SHARED, (3, "grass", "Grass", "88B053"), (6, "scrub_shrub", "Scrub and shrub", "DFC35A")
)
"""The superseded maps of 2017 to 2020, before grass and scrub became rangeland."""
WORLDCOVER_CLASSES = _table(
    (10, "tree_cover", "Tree cover", "006400"),
    (20, "shrubland", "Shrubland", "FFBB22"),
    (30, "grassland", "Grassland", "FFFF4C"),
    (40, "cropland", "Cropland", "F096FF"),
    (50, "built_up", "Built-up", "FA0000"),
    (60, "bare_sparse_vegetation", "Bare or sparse vegetation", "B4B4B4"),
    (70, "snow_and_ice", "Snow and ice", "F0F0F0"),
    (80, "permanent_water_bodies", "Permanent water bodies", "0064C8"),
    (90, "herbaceous_wetland", "Herbaceous wetland", "0096A0"),
    (95, "mangroves", "Mangroves", "00CF75"),
    (100, "moss_and_lichen", "Moss and lichen", "FAE6A0"),
)
"""ESA WorldCover's legend (Product User Manual v2.0, 2022)."""
_LAYERS = {
    "io-lulc": IO_TEN,
    "io-lulc-9-class": IO_NINE,
    "io-lulc-annual-v02": IO_NINE,
    "esa-worldcover": WORLDCOVER_CLASSES,
}


def layer_classes(collection: str) -> ClassTable | None:
    """Classes of an extra layer, whose band is called `classes`; None for other collections."""
    return _LAYERS.get(collection)
