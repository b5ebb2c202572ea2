"""The demo: three simulated cities from nothing to maps, and how right the maps are."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from mapper.area.grid import Grid
from mapper.catalog.bands import BandAsset
from mapper.cube.warp import read_band
from mapper.events import Event, Listener
from mapper.run.report import RunReport
from mapper.run.run import RunOptions, run
from mapper.simulate import DEMO_CITIES, SimulatedCity, WorldOptions, find_style, write_archive

YEAR = 2022
_TILE = 512
_STEP = 20
"""Metres that the side of a simulated city is a multiple of."""


def run_demo(
    out: Path, workers: int | None, listener: Listener
) -> tuple[RunReport, list[dict[str, Any]]]:
    """Simulate, map, compare. Returns: the run's report and the accuracy of each city."""
    world = out / "world"
    catalog = world / "catalog.json"
    if not catalog.exists():
        listener(Event(kind="run", message=f"simulating {len(DEMO_CITIES)} cities in {world}"))
        bands = ("blue", "green", "red", "nir", "swir16")
        write_archive(world, DEMO_CITIES, WorldOptions(year=YEAR, bands=bands, highres=False))
    options = RunOptions(
        aoi=world / "cities.geojson",
        year=YEAR,
        catalog=str(catalog),
        out=out / "maps",
        workers=workers,
        tile_size=_TILE,
    )
    report = run(options, listener)
    scores = [
        {
            "city": result.name,
            "overall_accuracy": agreement(report.out / result.product, world, result.slug),
            "quicklook": str(report.out / result.product / "quicklook.png"),
        }
        for result in report.results
        if result.good
    ]
    return report, scores


def agreement(product: Path, world: Path, slug: str) -> float:
    """Share of mapped pixels whose class is that of the simulated truth.

    The truth is sampled at the map's pixel centres, in whatever UTM zone it lies.
    """
    truth = next((world / "simulated-truth").glob(f"{slug}/**/*10m*.tif"))
    with rasterio.open(product / "classes.tif") as mapped:
        classes = mapped.read(1)
        grid = Grid(epsg=mapped.crs.to_epsg(), resolution=mapped.transform.a, tile=_TILE)
        pixels = grid.box_of(tuple(mapped.bounds))
    band = BandAsset(href=str(truth), index=1, nodata=255, scale=None, offset=None)
    reference = read_band(band, grid, pixels, "nearest")
    both = (classes != 255) & reference.valid
    return float(np.mean(classes[both] == reference.values[both]))


def write_world(out: Path, aoi: Path | None, year: int, seed: int, style: str = "default") -> Path:
    """A simulated archive over some areas, or over the demo's. Returns: its catalog."""
    options = WorldOptions(year=year, seed=seed, style=find_style(style))
    cities = DEMO_CITIES if aoi is None else _cities_of(aoi, seed)
    return write_archive(out, cities, options)


def _cities_of(aoi: Path, seed: int) -> list[SimulatedCity]:
    from mapper.area.aoi import read_areas

    cities = []
    for number, area in enumerate(read_areas(aoi)):
        middle = area.geometry.centroid
        projected = area.on(area.grid(10, 512)).bounds
        size = max(projected[2] - projected[0], projected[3] - projected[1])
        cities.append(
            SimulatedCity(
                name=area.name,
                country=area.country,
                iso="XX",
                lon=middle.x,
                lat=middle.y,
                size_m=math.ceil(size / _STEP) * _STEP,
                # otherwise every area would hold the same town
                seed=seed * 1000 + number,
            )
        )
    return cities
