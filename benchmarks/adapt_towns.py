"""Simulated city pairs of the adaptation benchmark: made, mapped and cut from the cubes.

Images come through `mapper run`, so the target has been through the same ingest as any city.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from adapt_pieces import Domain, Harmony, Piece, majority
from affine import Affine

from mapper.area.grid import Grid, PixelBox
from mapper.catalog.bands import BandAsset
from mapper.cube.warp import read_band
from mapper.run.layout import all_versions
from mapper.run.samples.cut import CityCube, open_cube
from mapper.simulate.style import find_style

_SIDE = 1000
"""Metres of a town's square area."""
_YEAR = 2022
_DISPLAYED = 0.0013953
"""Reflectance of a grey value, as DASPM's labelled images are read (`subpixel-2m`)."""
_STORED = 1e4
"""Stored value of a reflectance of 1."""
_LICENSE = "CC0-1.0 (simulated)"
_PHOTOGRAPHS = {
    "name": "adapt-photographs",
    "title": "One-metre photographs of simulated towns",
    # imagery of an unknown licence asks for attribution
    "license": "CC-BY-4.0",
    "resolution": 1,
    "sources": {
        "highres": {
            "kind": "imagery",
            "catalog": "./imagery",
            "collections": ["highres"],
            "bands": {"required": ["red", "green", "blue"], "optional": ["nir"]},
        }
    },
    "model": "rgb-baseline",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Towns:
    """A simulated country of one style."""

    style: str
    seed: int
    lon: float
    lat: float
    names: tuple[str, ...]

    def areas(self) -> dict[str, Any]:
        """The towns' areas, in a row from west to east, as GeoJSON."""
        # a little less than the side, which a square in degrees would else exceed
        half = (_SIDE - 20) / 2 / 111_200
        wide = half / math.cos(math.radians(self.lat))
        corners = ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))
        features = [
            {
                "type": "Feature",
                "properties": {"name": name, "country": "Simuland", "simulated": True},
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [
                        [
                            [round(self.lon + n / 10 + x * wide, 6), round(self.lat + y * half, 6)]
                            for x, y in corners
                        ]
                    ],
                },
            }
            for n, name in enumerate(self.names)
        ]
        return {"type": "FeatureCollection", "features": features}


SOURCE = Towns(
    style="default", seed=41, lon=8.85, lat=46.2, names=("Ashby", "Beechly", "Cherry", "Elderton")
)
DRY = Towns(style="dry", seed=42, lon=-3.15, lat=38.4, names=("Fennel", "Gorsa", "Hazera", "Iris"))
NORTHERN = Towns(
    style="northern", seed=43, lon=14.85, lat=60.2, names=("Juniper", "Kelp", "Lingby", "Mossa")
)


def sim_style(worlds: Path, target: Towns) -> tuple[Domain, Domain]:
    """Photographs of one style, then of another, both on the 1 m lattice."""
    return _photographs(worlds, SOURCE), _photographs(worlds, target)


def sim_subpixel(worlds: Path, target: Towns) -> tuple[Domain, Domain]:
    """Photographs averaged to 2 m, then Sentinel-2 composites brought to 2 m."""
    harmony = Harmony.of("sim-subpixel")
    fine = [
        _piece(cube, _as_reflectance(cube, box), label, name=cube.slug, box=box, factor=2)
        for cube, box, label in _mapped(worlds, SOURCE, "photographs", harmony)
    ]
    coarse = []
    for cube, box, label in _mapped(worlds, target, "subpixel-2m", harmony):
        stored = np.clip(np.rint(cube.read(box, harmony.bands) * _STORED), 1, 65534)
        # zero is nodata: where the composite has nothing
        values = np.nan_to_num(stored, nan=0).astype(np.uint16)
        coarse.append(_piece(cube, values, majority(label, 2), name=cube.slug, box=box))
    return (
        Domain(
            title=_title(SOURCE),
            resolution=2,
            license=_LICENSE,
            pieces=fine,
            nodata=0,
            notes=(
                "Means of 2 x 2 pixels of the 8-bit photograph, times 0.0013953: what the "
                "recipe subpixel-2m takes grey values for. It is no calibrated reflectance.",
            ),
        ),
        Domain(
            title=f"{_title(target)}: Sentinel-2 composite",
            resolution=2,
            license=_LICENSE,
            pieces=coarse,
            nodata=0,
            notes=("10 m pixels brought to 2 m, bilinear; labels are of the 1 m truth.",),
        ),
    )


def _photographs(worlds: Path, towns: Towns) -> Domain:
    harmony = Harmony.of("sim-style")
    pieces = []
    for cube, box, label in _mapped(worlds, towns, "photographs", harmony):
        values = cube.read(box, harmony.bands).astype(np.uint8)
        middle = box.shape[0] // 2
        # two quarters, across: as many towns again for the same pixels
        for name, rows, cols in (("nw", 0, 0), ("se", middle, middle)):
            here = (slice(rows, rows + middle), slice(cols, cols + middle))
            part = PixelBox(
                row0=box.row0 + rows,
                col0=box.col0 + cols,
                row1=box.row0 + rows + middle,
                col1=box.col0 + cols + middle,
            )
            pieces.append(
                _piece(cube, values[:, *here], label[here], name=f"{cube.slug}-{name}", box=part)
            )
    pixel = find_style(towns.style).sensor.pixel
    brought = "as taken" if pixel == 1 else f"brought from {pixel:g} m by the ingest, bilinear"
    return Domain(
        title=_title(towns),
        resolution=1,
        license=_LICENSE,
        pieces=pieces,
        notes=(f"The photograph is on the 1 m lattice, {brought}.",),
    )


def _as_reflectance(cube: CityCube, box: PixelBox) -> np.ndarray:
    """`(band, y, x)` uint16: the photograph at 2 m as though grey values were reflectance."""
    photograph = cube.read(box, cube.bands)
    values = photograph.reshape(len(photograph), box.shape[0] // 2, 2, box.shape[1] // 2, 2)
    means = values.mean(axis=(2, 4), dtype=np.float64)
    stored: np.ndarray = np.clip(np.rint(means * _DISPLAYED * _STORED), 1, 65534).astype(np.uint16)
    return stored


def _piece(
    cube: CityCube,
    values: np.ndarray,
    label: np.ndarray,
    *,
    name: str,
    box: PixelBox,
    factor: int = 1,
) -> Piece:
    """A piece of a town, its label made coarser where the pixels have been."""
    left, _, _, top = cube.grid.bounds_of(box)
    pixel = cube.grid.resolution * factor
    return Piece(
        name=name,
        values=values,
        label=majority(label, factor) if factor > 1 else label,
        transform=Affine(pixel, 0, left, 0, -pixel, top),
        crs=cube.grid.crs,
        unit=cube.slug,
    )


def _mapped(
    worlds: Path, towns: Towns, recipe: str, harmony: Harmony
) -> Iterator[tuple[CityCube, PixelBox, np.ndarray]]:
    """Each town's cube, the box of its area, and the 1 m truth of that, made where missing."""
    folder = worlds / towns.style
    world, maps = folder / "world", folder / recipe
    if not (world / "catalog.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "towns.geojson").write_text(json.dumps(towns.areas()), encoding="utf-8")
        where = ("--aoi", folder / "towns.geojson", "--out", world, "--year", _YEAR)
        _mapper("simulate", *where, "--seed", towns.seed, "--style", towns.style)
    for cube in _cubes(folder, world, maps, recipe):
        truth = next((world / "simulated-truth" / cube.slug).glob("*/truth_1m.tif"))
        one = Grid(epsg=cube.grid.epsg, resolution=1, tile=cube.grid.tile)
        area = one.box_of(_area(world, cube))
        side = int(cube.grid.resolution)
        band = BandAsset(href=str(truth), index=1, nodata=255, scale=None, offset=None)
        label = read_band(band, one, area, "nearest")
        box = PixelBox(
            row0=area.row0 // side,
            col0=area.col0 // side,
            row1=area.row1 // side,
            col1=area.col1 // side,
        )
        numbers = np.where(label.valid, label.values, 255).astype(np.uint8)
        yield cube, box, harmony.read("simulated", numbers)


def _cubes(folder: Path, world: Path, maps: Path, recipe: str) -> Iterator[CityCube]:
    where = ("--aoi", world / "cities.geojson", "--year", _YEAR, "--out", maps)
    if recipe == "photographs":
        path = folder / "photographs.yaml"
        # JSON is YAML
        path.write_text(json.dumps(_PHOTOGRAPHS), encoding="utf-8")
        how = ("--recipe", str(path), "--model", "rgb-baseline")
    else:
        how = ("--recipe", recipe, "--model", "spectral-baseline")
    # done towns are not mapped again
    _mapper("run", *where, *how, "--catalog", world / "catalog.json", "--workers", 1)
    for version in all_versions(maps):
        yield open_cube(version)


def _area(world: Path, cube: CityCube) -> tuple[float, float, float, float]:
    """Bounds of a town's square, which has edges on multiples of 10 m."""
    item = next((world / "simulated-truth" / cube.slug).glob("*/*.json"))
    asset = json.loads(item.read_text(encoding="utf-8"))["assets"]["truth_1m"]
    rows, columns = asset["proj:shape"]
    size, _, left, _, _, top = asset["proj:transform"][:6]
    rim = 20
    return left + rim, top - rows * size + rim, left + columns * size - rim, top - rim


def _title(towns: Towns) -> str:
    return f"Simulated towns of style {towns.style}: {find_style(towns.style).title}"


def _mapper(*arguments: Any) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [str(Path(sys.executable).with_name("mapper")), "-q", *map(str, arguments)]
    print("+", " ".join(line[1:]), flush=True)
    subprocess.run(line, check=True, env=environment)
