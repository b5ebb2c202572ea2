"""Sentinel-2's offset: who says that it is still in the pixels, and what the pixels say.

reflectance = DN x scale + offset, with offset 0 or -0.1 (BOA_ADD_OFFSET / 10000). Baseline
04.00 (first 25 January 2022, and reprocessed older scenes) put 1000 on every DN; some archives
took it off again, and some items are wrong about it. So: the metadata is read by a rule that
never looks at the date, and one look at a coarse overview confirms or overrules it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mapper.catalog.bands import Item, find_band

OFFSET = -0.1
_FLAGS = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
"""Earth Search's, now and in version 0."""
_BASELINES = (
    "s2:processing_baseline",
    "sentinel2:processing_baseline",
    "sentinel:processing_baseline",
)
PRODUCTS = ("s2:product_uri", "sentinel2:product_uri", "sentinel:product_id")
"""Where items keep the name of the product that they were cut from."""
_IN_A_NAME = re.compile(r"_N(\d{2})\.?(\d{2})(?=_|$|\.)")
_DISPROVES_BELOW = 900
_SUPPORTS = (1000, 1300)


@dataclass(frozen=True, slots=True, kw_only=True)
class OffsetVerdict:
    """What to add to reflectance, and why."""

    offset: float
    """0.0 or -0.1, in reflectance."""
    declared: float
    """What the metadata alone would have given."""
    basis: str
    """`flag`, `raster:bands`, `baseline`, `default`, or `pixels` where they decided."""

    @property
    def contradiction(self) -> bool:
        """True where the pixels disprove the metadata."""
        return self.offset != self.declared


def declared_offset(item: Item) -> tuple[float, str]:
    """Offset by the item's metadata, and which part of it decided; never its date.

    The flag that the offset was taken off wins where it is true, whatever `raster:bands` says;
    then the band's own offset; then the processing baseline, where the product's name may be
    all that holds it.
    """
    properties = item["properties"]
    if any(properties.get(name) is True for name in _FLAGS):
        return 0.0, "flag"
    for name in ("red", "green", "nir", "blue"):
        band = find_band(item, name)
        if band is not None and band.offset is not None:
            return band.offset, "raster:bands"
    baseline = baseline_of(item)
    if baseline:
        return (OFFSET if _at_least_four(baseline) else 0.0), "baseline"
    return 0.0, "default"


def baseline_of(item: Item) -> str:
    """Processing baseline such as `04.00`; empty where neither properties nor name hold one."""
    properties = item["properties"]
    for name in _BASELINES:
        if properties.get(name):
            return str(properties[name])
    # Copernicus Data Space has it here, where others keep the version of their own software
    version = str(properties.get("processing:version", ""))
    if re.fullmatch(r"\d{2}\.\d{2}", version):
        return version
    for text in (*(properties.get(name) for name in PRODUCTS), item.get("id")):
        found = _IN_A_NAME.search(str(text or ""))
        if found:
            return f"{found.group(1)}.{found.group(2)}"
    return ""


def _at_least_four(baseline: str) -> bool:
    try:
        return float(baseline) >= 4.0
    except ValueError:
        return False


def judge_offset(item: Item, first_percentiles: Mapping[str, float]) -> OffsetVerdict:
    """Hold the metadata against the pixels.

    Args:
        item: the scene.
        first_percentiles: 1st percentile of the valid DN of each reflectance band, from a
            coarse overview. Below 900 in any band disproves an offset; 1000 to 1300 in blue,
            green and red supports one; anything else leaves it to the metadata.
    """
    declared, basis = declared_offset(item)
    low, high = _SUPPORTS
    if any(p < _DISPROVES_BELOW for p in first_percentiles.values()):
        offset = 0.0
    elif all(low <= first_percentiles.get(b, 0) <= high for b in ("blue", "green", "red")):
        offset = OFFSET
    else:
        return OffsetVerdict(offset=declared, declared=declared, basis=basis)
    return OffsetVerdict(
        offset=offset, declared=declared, basis=basis if offset == declared else "pixels"
    )


def mgrs_tile(item: Item) -> str:
    """The scene's MGRS tile, such as `05CNL`; its id where it names none."""
    properties = item["properties"]
    for name in ("grid:code", "s2:mgrs_tile"):
        if properties.get(name):
            return _padded(str(properties[name]).removeprefix("MGRS-"))
    for prefix in ("mgrs", "sentinel"):
        parts = [properties.get(f"{prefix}:{part}") for part in _TILE_PARTS]
        if all(parts):
            return _padded("".join(map(str, parts)))
    return str(item["id"])


_TILE_PARTS = ("utm_zone", "latitude_band", "grid_square")


def _padded(tile: str) -> str:
    """With two digits of zone: Earth Search writes 5CNL, the others 05CNL."""
    return tile.zfill(5)
