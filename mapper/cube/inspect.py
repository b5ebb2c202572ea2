"""One look at each scene before it is used: is it there, which content, which offset."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import rasterio

from mapper.catalog.bands import SENTINEL2_NUMBERS, BandAsset, Item, find_band
from mapper.catalog.pyramid import permit, pyramid_fingerprint
from mapper.catalog.sentinel2 import OffsetVerdict, judge_offset
from mapper.catalog.tilecatalog import SCHEME
from mapper.catalog.tilefetch import fetch_tile
from mapper.cube.parallel import read_each
from mapper.errors import ReadError
from mapper.recipe import ElevationSource, ImagerySource, Sentinel2Source, Source
from mapper.transport.opening import reading
from mapper.transport.whole import fingerprint

_AT_ONCE = 6
_COARSE = 256
"""Longest side, in pixels, of the overview on which an offset is judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What one look at a scene found."""

    item: str
    contents: Mapping[str, str]
    """ETag, or size and time, of each asset that the recipe reads; of tiles, their service."""
    verdict: OffsetVerdict | None = None
    """Sentinel-2 alone."""
    percentiles: Mapping[str, float] = field(default_factory=dict)
    """1st percentile of the valid DN per reflectance band, on the overview."""
    failure: str = ""
    """Why the scene cannot be read; empty where it can."""

    @property
    def digest_fields(self) -> dict[str, Any]:
        """What belongs into the hash of every step that reads the scene."""
        return {
            "contents": dict(self.contents),
            "offset": self.verdict.offset if self.verdict else None,
            "failure": self.failure,
        }


def bands_to_read(source: Source) -> list[str]:
    """Bands of an item that ingest opens, the mask among them."""
    if isinstance(source, ElevationSource):
        return ["elevation"]
    bands = list(source.bands.all)
    if isinstance(source, Sentinel2Source) and source.mask is not None:
        bands += [band for band in source.mask.bands if band not in bands]
    return bands


def inspect_item(item: Item, source: Source) -> Inspection:
    """Look at a scene once: content of its assets and, for Sentinel-2, the offset's verdict.

    Raises: ReadError where an asset cannot be read and the source has no failure budget.
    """
    found: dict[str, str] = {}
    if isinstance(source, ImagerySource) and source.tiles is not None:
        permit(source.tiles)
    try:
        bands = {name: find_band(item, name) for name in bands_to_read(source)}
        present = {name: band for name, band in bands.items() if band is not None}
        read_each(lambda n: found.update({n: _content(present[n])}), list(present), _AT_ONCE)
        contents = {name: found[name] for name in present}
        if not isinstance(source, Sentinel2Source):
            return Inspection(item=item["id"], contents=contents)
        percentiles = first_percentiles(item, list(present))
    except ReadError as reason:
        if not source.failure_budget:
            raise
        return Inspection(
            item=item["id"], contents=dict(sorted(found.items())), failure=str(reason)
        )
    return Inspection(
        item=item["id"],
        contents=contents,
        verdict=judge_offset(item, percentiles),
        percentiles=percentiles,
    )


def _content(band: BandAsset) -> str:
    if band.href.startswith(SCHEME):
        return pyramid_fingerprint(band.href, fetch_tile)
    return band.checksum or fingerprint(band.href)


def first_percentiles(item: Item, needed: Collection[str] = ()) -> dict[str, float]:
    """1st percentile of the valid DN of every reflectance band that the item has.

    Raises: ReadError where one of those that are needed cannot be read.
    """
    found: dict[str, float] = {}

    def look(name: str) -> None:
        band = find_band(item, name)
        try:
            values = _coarse(band) if band is not None else np.empty(0)
        except ReadError:
            # a band that nobody reads may be broken; the others tell the offset too
            if name in needed:
                raise
            return
        if values.size:
            found[name] = float(np.percentile(values, 1))

    read_each(look, list(SENTINEL2_NUMBERS), _AT_ONCE)
    return {name: found[name] for name in SENTINEL2_NUMBERS if name in found}


def _coarse(band: BandAsset) -> np.ndarray:
    """Valid values of a coarse overview."""

    def coarse(dataset: rasterio.DatasetReader) -> np.ndarray:
        shrink = max(1, -(-max(dataset.shape) // _COARSE))
        shape = tuple(max(1, side // shrink) for side in dataset.shape)
        return np.asarray(dataset.read(band.index, out_shape=shape))

    values = reading(band.href, coarse)
    return np.asarray(values[values > 0])
