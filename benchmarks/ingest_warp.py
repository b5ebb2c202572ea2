"""How far from its place a warped pixel is: against exact coordinates, one contender a process.

A scene of the next UTM zone holds its own column (or row) number in every pixel. Warped to the
grid, a pixel's value is therefore the place it was taken from; PROJ says by itself where that
should have been. The difference is the position error, in source pixels. With `bilinear` a
value is the place itself; with `nearest` it is a whole number, and an error is the distance
beyond half a pixel. A corner, a quarter as wide, is then asked for alone: a pixel that changes
depends on the box it was read in.

    python benchmarks/ingest_warp.py mapper --size 2048
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pyproj import Transformer
from scenes import NEIGHBOUR, SceneSet, write_cog

from mapper.area.grid import BLOCK, TileKey

AXES = ("col", "row")
WAYS = ("bilinear", "nearest")
Read = Callable[[dict[str, Any], TileKey, str], np.ndarray]


def write_places(size: int, root: Path) -> dict[str, dict[str, Any]]:
    """An item for columns and one for rows; the files are written unless they are there."""
    wanted = SceneSet(scenes=1, tile=size, tiles=1, epsg=NEIGHBOUR)
    folder = root / f"places-{size}"
    folder.mkdir(parents=True, exist_ok=True)
    shape, place = wanted.lattice(10)
    found = {}
    for axis, values in zip(AXES, np.indices(shape, dtype=np.float32)[::-1], strict=True):
        path = (folder / f"{axis}.tif").resolve()
        if not path.exists():
            write_cog(path.with_suffix(".part.tif"), values, place, wanted)
            path.with_suffix(".part.tif").rename(path)
        found[axis] = _item(axis, path, wanted)
    return found


def _item(axis: str, path: Path, wanted: SceneSet) -> dict[str, Any]:
    shape, place = wanted.lattice(10)
    there = Transformer.from_crs(wanted.epsg, 4326, always_xy=True)
    west, south, east, north = there.transform_bounds(*wanted.bounds)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
        "id": f"places-{axis}",
        "collection": "places",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [west, south, east, north],
        "links": [],
        "properties": {"datetime": "2022-01-03T10:10:31Z", "proj:epsg": wanted.epsg},
        "assets": {
            "elevation": {
                "href": str(path),
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data"],
                "proj:shape": list(shape),
                "proj:transform": list(place)[:6],
                "raster:bands": [{"data_type": "float32"}],
            }
        },
    }


def by_mapper(item: dict[str, Any], key: TileKey, resampling: str) -> np.ndarray:
    """Mapper's ingest, by way of a source that keeps float32."""
    from mapper.cube.ingest import TileScenes, ingest_tile
    from mapper.cube.inspect import inspect_item
    from mapper.recipe import ElevationSource

    source = ElevationSource.model_validate(
        {"kind": "elevation", "bands": {"required": ["elevation"]}, "resampling": resampling}
    )
    inspections = {item["id"]: inspect_item(item, source)}
    layers = ingest_tile(
        TileScenes(name="places", key=key, items=(item,), inspections=inspections), source
    )
    return np.asarray(layers.arrays[0][1][0])


def by_odc_stac(item: dict[str, Any], key: TileKey, resampling: str) -> np.ndarray:
    """`odc.stac.load` over the box."""
    import odc.stac
    import pystac

    found = odc.stac.load(
        [pystac.Item.from_dict(item)],
        bands=["elevation"],
        geobox=key.grid.geobox_of(key.box),
        resampling=resampling,
        dtype="float32",
    )
    return np.asarray(found["elevation"].values[0])


def by_stackstac(item: dict[str, Any], key: TileKey, resampling: str) -> np.ndarray:
    """`stackstac.stack` over the box, in one chunk."""
    import pystac
    import rasterio
    import stackstac

    found = stackstac.stack(
        [pystac.Item.from_dict(item)],
        assets=["elevation"],
        epsg=key.epsg,
        resolution=key.resolution,
        bounds=key.grid.bounds_of(key.box),
        chunksize=key.tile,
        resampling=rasterio.enums.Resampling[resampling],
        dtype="float32",
        fill_value=np.float32("nan"),
        rescale=False,
    )
    return np.asarray(found.values[0, 0])


READERS: dict[str, Read] = {
    "mapper": by_mapper,
    "odc-stac": by_odc_stac,
    "stackstac": by_stackstac,
}


def exact_places(key: TileKey, size: int) -> dict[str, np.ndarray]:
    """Source column and row, whole numbers at centres, of each of the tile's pixel centres."""
    place = SceneSet(scenes=1, tile=size, tiles=1, epsg=NEIGHBOUR).lattice(10)[1]
    rows = np.arange(key.box.row0, key.box.row1) + 0.5
    cols = np.arange(key.box.col0, key.box.col1) + 0.5
    east, north = np.meshgrid(cols * key.resolution, -rows * key.resolution)
    x, y = Transformer.from_crs(key.epsg, NEIGHBOUR, always_xy=True).transform(east, north)
    return {"col": (x - place.c) / place.a - 0.5, "row": (y - place.f) / place.e - 0.5}


def measure(read: Read, size: int, root: Path) -> list[dict[str, Any]]:
    """Position error, and what a smaller box changes, for each resampling."""
    items = write_places(size, root)
    key = SceneSet(scenes=1, tile=size, tiles=1).keys[0]
    part = max(BLOCK, size // 4)
    share = size // part
    # its north-western corner; rows of tiles count northward
    row, col = key.row * share + share - 1, key.col * share
    small = TileKey(epsg=key.epsg, resolution=10, tile=part, row=row, col=col)
    exact = exact_places(key, size)
    found = []
    for way in WAYS:
        values = {axis: read(items[axis], key, way) for axis in AXES}
        alone = {axis: read(items[axis], small, way) for axis in AXES}
        moved = np.hypot(*(alone[axis] - values[axis][:part, :part] for axis in AXES))
        errors = np.hypot(*(_error(values[axis], exact[axis], way) for axis in AXES))
        found.append(_row(way, errors, moved))
    return found


def _error(values: np.ndarray, exact: np.ndarray, way: str) -> np.ndarray:
    """Source pixels between where a value is from and where it should be from."""
    distance = np.abs(values.astype(np.float64) - exact)
    return np.asarray(np.maximum(distance - 0.5, 0)) if way == "nearest" else distance


def _row(way: str, errors: np.ndarray, moved: np.ndarray) -> dict[str, Any]:
    known, both = errors[np.isfinite(errors)], moved[np.isfinite(moved)]
    return {
        "resampling": way,
        "max_px": float(f"{known.max():.3g}"),
        "p99_px": float(f"{np.percentile(known, 99):.3g}"),
        "wrong_share": round(float(np.mean(known > 1e-3)), 5),
        "changed_share": round(float(np.mean(both != 0)), 5),
        "changed_max_px": float(f"{both.max():.3g}"),
        "missing": int(errors.size - known.size),
    }


def main() -> None:
    """Measure one contender."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("contender", choices=list(READERS))
    parser.add_argument("--size", type=int, default=2048, help="side of the tile, pixels")
    parser.add_argument("--root", type=Path, default=Path("build/bench-ingest/scenes"))
    wanted = parser.parse_args()
    print(json.dumps(measure(READERS[wanted.contender], wanted.size, wanted.root)))


if __name__ == "__main__":
    main()
