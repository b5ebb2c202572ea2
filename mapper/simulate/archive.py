"""An archive on disk: rasters, a static catalog, an item collection and the truth about them."""

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mapper.errors import UsageError
from mapper.simulate import items
from mapper.simulate.cities import SimulatedCity, WorldOptions
from mapper.simulate.cogs import Layer, write_cog
from mapper.simulate.elevation import write_elevation
from mapper.simulate.ground import Ground, paint_ground
from mapper.simulate.highres import write_highres
from mapper.simulate.sentinel1 import write_sentinel1
from mapper.simulate.sentinel2 import write_sentinel2
from mapper.simulate.spectra import CLASS_OF_MATERIAL, TRUTH_CLASSES
from mapper.simulate.style import Style
from mapper.store.files import write_json

_log = logging.getLogger(__name__)

Found = list[tuple[dict[str, Any], str]]
"""Items and the paths of their JSON, relative to the archive."""


def write_archive(directory: Path, cities: Sequence[SimulatedCity], options: WorldOptions) -> Path:
    """Simulate cities and write everything under `directory`; returns its `catalog.json`.

    Beside the catalog lie `items.json` (all items, absolute hrefs), `cities.geojson` (the areas
    of interest) and `truth.json` (per Sentinel-2 item the offset that is really in its pixels).
    The same arguments give the same bytes in every raster.
    """
    slugs = [city.slug for city in cities]
    if len(set(slugs)) != len(slugs):
        raise UsageError(f"two cities share a name: {sorted(slugs)}; give each its own")
    directory.mkdir(parents=True, exist_ok=True)
    found: Found = []
    offsets: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory(prefix=".scratch-", dir=directory) as scratch:
        for city in cities:
            _log.info("simulating %s", city.name)
            ground = paint_ground(city, options, Path(scratch))
            for one, offset in _write_city(directory, ground, options):
                found.append((one, items.item_path(one, city.slug)))
                if offset is not None:
                    offsets[one["id"]] = {"dn_offset": offset}
    areas = [city.feature() for city in cities]
    write_json(directory / "cities.geojson", {"type": "FeatureCollection", "features": areas})
    write_json(directory / "truth.json", offsets)
    return _write_catalog(directory, found, options.style)


def _write_city(
    directory: Path, ground: Ground, options: WorldOptions
) -> list[tuple[dict[str, Any], int | None]]:
    """All rasters of a city; items with the offset in their pixels, where they have one."""
    folders = {name: directory / name / ground.city.slug for name in items.COLLECTIONS}
    written: list[tuple[dict[str, Any], int | None]] = []
    written += write_sentinel2(ground, options, folders["sentinel-2-l2a"])
    rest = [_write_truth(ground, options, folders["simulated-truth"])]
    rest += write_sentinel1(ground, options, folders["sentinel-1-rtc"])
    rest += write_elevation(ground, options, folders["nasadem"])
    if options.highres:
        rest += write_highres(ground, options, folders["highres"])
    written += [(one, None) for one in rest]
    for one, _ in written:
        one["properties"]["simulated:style"] = options.style.name
    return written


def _write_truth(ground: Ground, options: WorldOptions, folder: Path) -> dict[str, Any]:
    layer = Layer(
        nodata=TRUTH_CLASSES.nodata,
        resampling="MODE",
        descriptions=("class",),
        colormap=TRUTH_CLASSES.colormap(),
        tags=tuple((f"CLASS_{c.value}", c.name) for c in TRUTH_CLASSES.classes),
    )
    when = datetime(options.year, 7, 1, tzinfo=UTC)
    ten, classes = ground.classes_10m()
    one = items.truth_item(ground.city.slug, when, ground.area, ten)
    fine = CLASS_OF_MATERIAL[np.asarray(ground.materials)]
    write_cog(folder / one["id"] / "truth_1m.tif", fine, ground.area, layer)
    write_cog(folder / one["id"] / "truth_10m.tif", classes, ten, layer)
    return one


def _write_catalog(directory: Path, found: Found, style: Style) -> Path:
    for name in items.COLLECTIONS:
        members = [(one, place) for one, place in found if one["collection"] == name]
        write_json(directory / name / "collection.json", items.collection(name, members, style))
    for one, place in found:
        write_json(directory / place, one)
    listed = [based(one, str((directory / place).parent.resolve())) for one, place in found]
    write_json(
        directory / "items.json",
        {"type": "FeatureCollection", "simulated": True, "features": listed},
    )
    temporary = directory / ".LICENSE.tmp"
    temporary.write_text(items.LICENSE_TEXT, encoding="utf-8")
    os.replace(temporary, directory / "LICENSE.txt")
    path = directory / "catalog.json"
    write_json(path, items.catalog(list(items.COLLECTIONS), style))
    return path


def based(one: Mapping[str, Any], base: str) -> dict[str, Any]:
    """An item without links whose asset hrefs begin with `base`, a folder or an address."""
    assets = {
        key: {**asset, "href": f"{base}/{asset['href'].removeprefix('./')}"}
        for key, asset in one["assets"].items()
    }
    return {**one, "links": [], "assets": assets}


def read_items(catalog: Path, base: str | None = None) -> list[dict[str, Any]]:
    """All items of an archive, assets under `base` (an address) or absolute paths."""
    directory = catalog.parent
    found = []
    for collection in sorted(directory.glob("*/collection.json")):
        for link in json.loads(collection.read_text(encoding="utf-8"))["links"]:
            if link["rel"] == "item":
                path = (collection.parent / link["href"]).resolve()
                inside = path.parent.relative_to(directory.resolve()).as_posix()
                root = base.rstrip("/") if base else directory.resolve().as_posix()
                one = json.loads(path.read_text(encoding="utf-8"))
                found.append(based(one, f"{root}/{inside}"))
    return found


def write_geoparquet(catalog: Path, path: Path, base: str | None = None) -> Path:
    """Write the archive's items as stac-geoparquet; `base` as in `read_items`."""
    import rustac

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp.parquet")
    rustac.write_sync(str(temporary), read_items(catalog, base))
    os.replace(temporary, path)
    return path
