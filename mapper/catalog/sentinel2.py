"""Sentinel-2's offset: who says that it is still in the pixels, and what the pixels say.

reflectance = DN x scale + offset, with offset 0 or -0.1 (BOA_ADD_OFFSET / 10000). Baseline
04.00 (first 25 January 2022, and reprocessed older scenes) put 1000 on every DN; some archives
took it off again, and some items are wrong about it. So: the metadata is read by a rule that
never looks at the date, and one look at a coarse overview confirms or overrules it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mapper.catalog.bands import Item, find_band

OFFSET = -0.1
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
    """Offset by the item's metadata, and which part of it decided.

    Earth Search's flag wins over `raster:bands` where it is true; then `raster:bands`; then
    the processing baseline (Planetary Computer).
    """
    properties = item["properties"]
    if properties.get("earthsearch:boa_offset_applied") is True:
        return 0.0, "flag"
    for name in ("red", "green", "nir", "blue"):
        band = find_band(item, name)
        if band is not None and band.offset is not None:
            return band.offset, "raster:bands"
    baseline = str(properties.get("s2:processing_baseline", ""))
    if baseline:
        return (OFFSET if _at_least_four(baseline) else 0.0), "baseline"
    return 0.0, "default"


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
    """The scene's MGRS tile; its id where it names none."""
    properties = item["properties"]
    for name in ("grid:code", "s2:mgrs_tile"):
        if properties.get(name):
            return str(properties[name]).removeprefix("MGRS-")
    return str(item["id"])
