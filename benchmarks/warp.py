"""Reading a warped band: exact per-pixel coordinates against odc-stac, one run, side by side.

Ways of getting a simulated DEM in degrees and a Sentinel-2 band of the next UTM zone on the
lattice: mapper's reader (a first read, and a further band whose coordinates are known),
`odc.stac.load` over the whole tile, and `odc.stac.load` in fixed 256-pixel blocks. For each,
seconds (median of several rounds, taken in turn) and the share of pixels that differ when a
smaller box is read. Result: `benchmarks/warp.json`.

    python benchmarks/warp.py
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pystac
from odc.stac import load

from mapper.area.grid import BLOCK, Grid, PixelBox
from mapper.catalog.bands import need_band
from mapper.cube.places import forget_places
from mapper.cube.warp import read_band
from mapper.simulate import SimulatedCity, WorldOptions, write_archive
from mapper.simulate.archive import read_items

ROUNDS = 5
CITY = SimulatedCity(
    name="Warpton",
    country="Nowhere",
    iso="XXA",
    lon=6.000405530440417,
    lat=45.641195240101595,
    size_m=9000,
    seed=3,
)


def exact(item, band, grid, box):
    """Mapper's reader."""
    found = need_band(item, band)
    pixels = read_band(found, grid, box, "bilinear")
    return np.where(pixels.valid, pixels.values, np.nan)


def warm(item, band, grid, box):
    """Mapper's reader, the coordinates known from another band."""
    return exact(item, band, grid, box)


def whole(item, band, grid, box):
    """odc-stac over the box."""
    return _odc(item, band, grid, box)


def blocks(item, band, grid, box):
    """odc-stac in fixed 256-pixel blocks of the lattice."""
    result = np.full(box.shape, np.nan)
    for row in range(box.row0, box.row1, BLOCK):
        for col in range(box.col0, box.col1, BLOCK):
            block = PixelBox(row0=row, col0=col, row1=row + BLOCK, col1=col + BLOCK)
            result[block.slices_in(box)] = _odc(item, band, grid, block)
    return result


def _odc(item, band, grid, box):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load(
            [pystac.Item.from_dict(item)],
            bands=[band],
            geobox=grid.geobox_of(box),
            resampling="bilinear",
            dtype="float32",
        )
    values = found[band].values[0].astype(float)
    nodata = found[band].attrs.get("nodata")
    return np.where(values == nodata, np.nan, values) if nodata is not None else values


def measure(item, band, grid, large):
    """Seconds per way, and the share of pixels that a smaller tile changes."""
    seconds = {way.__name__: [] for way in (exact, warm, whole, blocks)}
    small = PixelBox(row0=large.row0, col0=large.col0, row1=large.row0 + 512, col1=large.col0 + 512)
    changed = {}
    for _ in range(ROUNDS):
        for way in (exact, warm, whole, blocks):
            if way is exact:
                # coordinates are kept for the bands and dates to come; here each read is a first
                forget_places()
            began = time.perf_counter()
            big = way(item, band, grid, large)
            seconds[way.__name__].append(time.perf_counter() - began)
            part, alone = big[:512, :512], way(item, band, grid, small)
            known = np.isfinite(part) & np.isfinite(alone)
            changed[way.__name__] = round(float(np.mean(part[known] != alone[known])), 5)
    base = statistics.median(seconds["exact"])
    return {
        name: {
            "seconds": {"min": min(s), "median": statistics.median(s), "max": max(s)},
            "times_exact": round(statistics.median(s) / base, 2),
            "changed_by_tile_size": changed[name],
        }
        for name, s in seconds.items()
    }


def main() -> None:
    """Make the world, measure, write the result."""
    with tempfile.TemporaryDirectory() as folder:
        options = WorldOptions(scenes=1, s1_dates=1, bands=("red",), margin_m=1000, highres=False)
        catalog = write_archive(Path(folder), [CITY], options)
        items = read_items(catalog)
        grid = Grid(epsg=CITY.epsg, resolution=10, tile=2048)
        left, _, _, top = CITY.area.bounds
        col, row = round(left / 10) // BLOCK * BLOCK, round(-top / 10) // BLOCK * BLOCK
        large = PixelBox(row0=row, col0=col, row1=row + 1024, col1=col + 1024)
        dem = next(i for i in items if i["collection"] == "nasadem")
        other = next(
            i
            for i in items
            if i["collection"] == "sentinel-2-l2a" and i["properties"]["proj:epsg"] != CITY.epsg
        )
        result = {
            "what": "bilinear reads of 1024 x 1024 pixels; changed: against a 512 x 512 read",
            "rounds": ROUNDS,
            "dem_in_degrees": measure(dem, "elevation", grid, large),
            "sentinel2_of_the_next_zone": measure(other, "red", grid, large),
            "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
            "versions": {n: version(n) for n in ("odc-stac", "rasterio", "numpy", "pyproj")},
        }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(path.read_text())


if __name__ == "__main__":
    main()
