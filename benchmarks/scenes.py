"""Sentinel-2-like scenes as real COGs, and the items that name them, for the ingest benchmark.

A set is a folder of `<scene>/<band>.tif` and one `items.json` whose addresses are relative;
`items_at` makes them absolute below a folder or a server. Red, green and nir are uint16 at 10 m,
scl uint8 at 20 m: deflate, predictor 2, blocks of 1024, overviews, as Earth Search's are. Texture
is smooth fields and noise, so that a pixel takes about as many compressed bytes as a real one
(1.3 to 1.6); everything is drawn from a seed.

    python benchmarks/scenes.py --scenes 6 --size 1024
"""

import argparse
import json
import os
import shutil
import warnings
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.shutil import copy as copy_raster
from scipy.ndimage import zoom
from shapely import transform
from shapely.geometry import box, mapping

from mapper.area.grid import TileKey

EPSG, NEIGHBOUR = 32633, 32632
"""Zone of the grid, and of the scenes that have to be warped. The tiles lie on their border."""
ROW, COL = 244, 12
"""Of the first tile, for tiles of 2048 pixels: latitude 45, longitude 12."""
MARGIN = 256
"""Pixels of a scene beyond the tiles, on every side."""
BLOCK = 1024
DISTINCT = 24
"""Scenes that are written; further ones are hard links to them under other dates."""
BANDS = {"red": 900.0, "green": 800.0, "nir": 2600.0}
NOISE = 75.0
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneSet:
    """Which scenes: enough to write them again, byte for byte."""

    scenes: int
    tile: int = 2048
    """Side of a tile, pixels."""
    tiles: int = 2
    """Side by side, west to east."""
    epsg: int = EPSG
    """Of the scenes; the tiles are always of zone 33."""
    seed: int = 5

    @property
    def name(self) -> str:
        """Of the set's folder."""
        return f"v{VERSION}-{self.epsg}-{self.tile}x{self.tiles}-{self.scenes}-{self.seed}"

    @property
    def keys(self) -> list[TileKey]:
        """The tiles that the scenes cover."""
        factor = 2048 // self.tile
        return [
            TileKey(
                epsg=EPSG,
                resolution=10,
                tile=self.tile,
                row=ROW * factor,
                col=COL * factor + number,
            )
            for number in range(self.tiles)
        ]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top of a scene in its own CRS, on its 20 m lattice."""
        boxes = [key.grid.bounds_of(key.box) for key in self.keys]
        left, bottom = boxes[0][0], boxes[0][1]
        right, top = boxes[-1][2], boxes[-1][3]
        if self.epsg != EPSG:
            there = Transformer.from_crs(EPSG, self.epsg, always_xy=True)
            left, bottom, right, top = there.transform_bounds(left, bottom, right, top)
        edge = MARGIN * 10
        return (
            (left - edge) // 20 * 20,
            (bottom - edge) // 20 * 20,
            -(-(right + edge) // 20) * 20,
            -(-(top + edge) // 20) * 20,
        )

    def lattice(self, resolution: int) -> tuple[tuple[int, int], Affine]:
        """Shape and transform of a scene's file."""
        left, bottom, right, top = self.bounds
        shape = round((top - bottom) / resolution), round((right - left) / resolution)
        return shape, Affine(resolution, 0, left, 0, -resolution, top)


def write_scenes(wanted: SceneSet, root: Path) -> Path:
    """The set's folder, written unless it is there whole."""
    folder = root / wanted.name
    if (folder / "items.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    fields = _Ground(wanted)
    items = []
    for number in range(wanted.scenes):
        place = folder / f"s{number:03d}"
        place.mkdir()
        if number < DISTINCT:
            for band, values in fields.scene(number).items():
                write_cog(place / f"{band}.tif", values, wanted.lattice(_metres(band))[1], wanted)
        else:
            for path in sorted((folder / f"s{number % DISTINCT:03d}").iterdir()):
                os.link(path, place / path.name)
        items.append(_item(wanted, number))
    part = folder / "items.part"
    part.write_text(json.dumps({"type": "FeatureCollection", "features": items}), encoding="utf-8")
    part.rename(folder / "items.json")
    return folder


def items_at(folder: Path, base: str) -> list[dict[str, Any]]:
    """A set's items with addresses below `base`, a folder's path or a server's address."""
    found = json.loads((folder / "items.json").read_text(encoding="utf-8"))["features"]
    for item in found:
        for asset in item["assets"].values():
            asset["href"] = f"{base.rstrip('/')}/{asset['href']}"
    return list(found)


def bytes_per_pixel(folder: Path) -> dict[str, float]:
    """Of the first scene's files, overviews included, per pixel of the full resolution."""
    found = {}
    for path in sorted((folder / "s000").glob("*.tif")):
        with rasterio.open(path) as file:
            found[path.stem] = round(path.stat().st_size / (file.width * file.height), 3)
    return found


class _Ground:
    """What all scenes of a set show: one field a band, made once."""

    def __init__(self, wanted: SceneSet) -> None:
        self.wanted = wanted
        self.shape = wanted.lattice(10)[0]
        draw = np.random.default_rng(wanted.seed)
        common = _field(draw, self.shape, (6, 30, 150, 700))
        self.bands = {
            band: mean * (1 + 0.25 * common + 0.15 * _field(draw, self.shape, (20, 200, 900)))
            for band, mean in BANDS.items()
        }

    def scene(self, number: int) -> dict[str, np.ndarray]:
        """Values of every file of a scene; a fifth to a half of it is cloud or shadow."""
        draw = np.random.default_rng([self.wanted.seed, number])
        scl = self._classes(draw)
        cover = np.kron(scl, np.ones((2, 2), dtype=np.uint8))
        found = {"scl": scl}
        haze = 1 + 0.1 * _field(draw, self.shape, (4,))
        for band, ground in self.bands.items():
            values = ground * haze
            values += NOISE * draw.standard_normal(self.shape, dtype=np.float32)
            values[cover == 9] += 5000
            values[cover == 3] *= 0.4
            found[band] = np.clip(values, 1, 20000).astype(np.uint16)
        return found

    def _classes(self, draw: np.random.Generator) -> np.ndarray:
        shape = self.shape[0] // 2, self.shape[1] // 2
        clouds = _field(draw, shape, (5, 20, 80))
        scl = np.where(clouds > 0.9, 9, np.where(clouds < -1.4, 3, 4)).astype(np.uint8)
        scl[(scl == 4) & (_field(draw, shape, (40, 300)) > 0.8)] = 5
        return scl


def _field(draw: np.random.Generator, shape: tuple[int, int], cells: tuple[int, ...]) -> np.ndarray:
    """A smooth random field, float32, mean 0 and spread 1: coarse grids drawn out."""
    total = np.zeros(shape, dtype=np.float32)
    for count in cells:
        grid = draw.standard_normal((count + 2, count + 2), dtype=np.float32)
        factors = [(side + 1) / (count + 1) for side in shape]
        total += zoom(grid, factors, order=1)[: shape[0], : shape[1]]
    return np.asarray((total - total.mean()) / total.std(), dtype=np.float32)


def _metres(band: str) -> int:
    return 20 if band == "scl" else 10


def write_cog(path: Path, values: np.ndarray, place: Affine, wanted: SceneSet) -> None:
    """One band as a COG with the layout of Earth Search's files."""
    profile = {
        "driver": "GTiff",
        "height": values.shape[0],
        "width": values.shape[1],
        "count": 1,
        "dtype": values.dtype,
        "crs": f"EPSG:{wanted.epsg}",
        "transform": place,
        "nodata": None if values.dtype.kind == "f" else 0,
    }
    options: dict[str, Any] = {"COMPRESS": "DEFLATE", "BLOCKSIZE": BLOCK, "NUM_THREADS": "2"}
    options["PREDICTOR"] = "FLOATING_POINT" if values.dtype.kind == "f" else "STANDARD"
    options["OVERVIEW_RESAMPLING"] = "NEAREST" if path.stem == "scl" else "AVERAGE"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.MemoryFile() as memory:
            with memory.open(**profile) as file:
                file.write(values, 1)
            with memory.open() as file:
                copy_raster(file, path, driver="COG", **options)


def _item(wanted: SceneSet, number: int) -> dict[str, Any]:
    """A scene's item, as Earth Search writes them, addresses relative to the set's folder."""
    outline = box(*wanted.bounds)
    there = Transformer.from_crs(wanted.epsg, 4326, always_xy=True)
    degrees = transform(outline, lambda p: np.stack(there.transform(*p.T), axis=-1))
    when = datetime(2022, 1, 3, 10, 10, 31, tzinfo=UTC) + timedelta(days=3 * number)
    stamp = when.strftime("%Y-%m-%dT%H:%M:%SZ")
    name = f"S2A_{wanted.epsg - 32600}TQL_{when:%Y%m%d}_0_L2A"
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
        "id": name,
        "collection": "sentinel-2-l2a",
        "geometry": mapping(degrees),
        "bbox": list(degrees.bounds),
        "links": [],
        "properties": {
            "datetime": stamp,
            "platform": "sentinel-2a",
            "eo:cloud_cover": 30.0,
            "proj:epsg": wanted.epsg,
            "grid:code": f"MGRS-{wanted.epsg - 32600}TQL",
            "s2:datatake_id": f"GS2A_{when:%Y%m%dT%H%M%S}_000000_N05.10",
            "s2:processing_baseline": "05.10",
            "earthsearch:boa_offset_applied": True,
        },
        "assets": {band: _asset(wanted, number, band) for band in (*BANDS, "scl")},
    }


def _asset(wanted: SceneSet, number: int, band: str) -> dict[str, Any]:
    shape, place = wanted.lattice(_metres(band))
    kind = {"data_type": "uint8"} if band == "scl" else {"data_type": "uint16", "scale": 0.0001}
    offset = {} if band == "scl" else {"offset": 0.0}
    resolution = {"spatial_resolution": _metres(band)}
    return {
        "href": f"s{number:03d}/{band}.tif",
        "type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
        "eo:bands": [{"name": band, "common_name": band}],
        "proj:shape": list(shape),
        "proj:transform": list(place)[:6],
        "raster:bands": [{"nodata": 0, **resolution, **kind, **offset}],
    }


def main() -> None:
    """Write the sets and say how large a pixel is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--size", type=int, default=2048, help="side of a tile, pixels")
    parser.add_argument("--tiles", type=int, default=2)
    parser.add_argument("--root", type=Path, default=Path("build/bench-ingest/scenes"))
    wanted = parser.parse_args()
    for epsg in (EPSG, NEIGHBOUR):
        made = SceneSet(scenes=wanted.scenes, tile=wanted.size, tiles=wanted.tiles, epsg=epsg)
        folder = write_scenes(made, wanted.root)
        print(json.dumps({"folder": str(folder), **asdict(made), **bytes_per_pixel(folder)}))


if __name__ == "__main__":
    main()
