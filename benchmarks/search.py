"""A plan for 1,000 cities of 100 scenes each, from one local STAC file.

    python benchmarks/search.py [--cities 1000] [--scenes 50] [--row-group 4000] [--append]

Writes a stac-geoparquet file of invented Sentinel-2 items in the shape and size of Earth
Search's: 35 assets each, MGRS-like tiles of 110 km in UTM zones, 50 dates a year for every tile
that a city touches, of which there are two on average. Then, in a process of its own, plans
every city with `plan_run` and measures seconds and peak memory. The cities are those of
`pipelines/cities.geojson`, and squares of the same size beside them up to the number asked for.
Results: `benchmarks/search.json`.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CITIES = HERE.parent / "pipelines" / "cities.geojson"
SQUARE = 100_000
"""Metres between MGRS-like tiles, which are 109,800 m wide."""
WIDE = 109_800
BANDS = {
    "coastal": 60, "blue": 10, "green": 10, "red": 10, "rededge1": 20, "rededge2": 20,
    "rededge3": 20, "nir": 10, "nir08": 20, "nir09": 60, "swir16": 20, "swir22": 20,
    "scl": 20, "aot": 20, "wvp": 20, "visual": 10,
}  # fmt: skip


def write_cities(path: Path, count: int) -> list[list[float]]:
    """GeoJSON of so many cities; returns their bounds."""
    shipped = json.loads(CITIES.read_text(encoding="utf-8"))["features"]
    dice = random.Random(5)
    features = shipped[:count]
    while len(features) < count:
        ring = dice.choice(shipped)["geometry"]["coordinates"][0]
        east, north = dice.uniform(-4, 4), dice.uniform(-4, 4)
        moved = [[x + east, y + north] for x, y in ring]
        if not all(-179 < x < 179 and -70 < y < 75 for x, y in moved):
            continue
        name = f"Made-up {len(features)}"
        geometry = {"type": "Polygon", "coordinates": [moved]}
        features.append({"type": "Feature", "properties": {"name": name}, "geometry": geometry})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    rings = [f["geometry"]["coordinates"][0] for f in features]
    return [
        [min(p[0] for p in r), min(p[1] for p in r), max(p[0] for p in r), max(p[1] for p in r)]
        for r in rings
    ]


def tiles_under(bounds: list[list[float]]) -> list[tuple[int, int, int]]:
    """EPSG code, column and row of the MGRS-like tiles that hold the cities."""
    from pyproj import Transformer

    from mapper.area.grid import utm_epsg

    found = set()
    for west, south, east, north in bounds:
        epsg = utm_epsg((west + east) / 2, (south + north) / 2)
        there = Transformer.from_crs(4326, epsg, always_xy=True)
        left, bottom, right, top = there.transform_bounds(west, south, east, north)
        for col in range(int((left - 20_000) // SQUARE), int((right + 20_000) // SQUARE) + 1):
            for row in range(int((bottom - 20_000) // SQUARE), int((top + 20_000) // SQUARE) + 1):
                found.add((epsg, col, row))
    return sorted(found)


def items_of_tile(tile: tuple[int, int, int], scenes: int) -> Iterator[dict[str, Any]]:
    """A year of scenes of one tile: two orbits, of which one sees two thirds of it."""
    from pyproj import Transformer

    epsg, col, row = tile
    back = Transformer.from_crs(epsg, 4326, always_xy=True)
    left, bottom, top = col * SQUARE, row * SQUARE, row * SQUARE + WIDE
    dice = random.Random(f"{tile}")
    for number in range(scenes):
        right = left + (WIDE if number % 2 else WIDE * 2 // 3)
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        ring = [list(back.transform(x, y)) for x, y in corners]
        yield _item(tile, number, (ring, dice, number * 365 // scenes))


def _item(
    tile: tuple[int, int, int], number: int, more: tuple[list[list[float]], random.Random, int]
) -> dict[str, Any]:
    ring, dice, day = more
    epsg, col, row = tile
    when = time.strftime("%Y-%m-%dT10:30:21.%j000Z", time.gmtime(1640995200 + 86400 * day))
    stamp, name = when[:19].replace("-", "").replace(":", ""), f"{epsg % 100:02d}{col}X{row:03d}"
    ident = f"S2{'AB'[number % 2]}_{name}_{stamp[:8]}_0_L2A"
    base = f"https://sentinel-cogs.example/sentinel-s2-l2a-cogs/{name}/{ident}"
    lons, lats = [p[0] for p in ring], [p[1] for p in ring]
    datatake = f"GS2{'AB'[number % 2]}_{stamp}_{40000 + day:06d}_N05.09"
    shares = {f"s2:{k}_percentage": round(dice.uniform(0, 20), 6) for k in _SHARES}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [f"https://stac-extensions.github.io/{n}/v1.0.0" for n in _EXTENSIONS],
        "id": ident,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [min(lons), min(lats), max(lons), max(lats)],
        "properties": {
            "datetime": when, "created": when, "updated": when,
            "platform": f"sentinel-2{'ab'[number % 2]}", "constellation": "sentinel-2",
            "instruments": ["msi"], "eo:cloud_cover": round(dice.uniform(0, 75), 6),
            "proj:epsg": epsg, "grid:code": f"MGRS-{name}", "mgrs:utm_zone": epsg % 100,
            "mgrs:latitude_band": "X", "mgrs:grid_square": f"{col}{row}",
            "view:sun_azimuth": dice.uniform(100, 200), "view:sun_elevation": 45.0,
            "s2:processing_baseline": "05.09", "s2:generation_time": when,
            "s2:datatake_id": datatake, "s2:product_uri": f"S2_MSIL2A_{stamp}_{name}.SAFE",
            "s2:datastrip_id": f"S2_OPER_MSI_L2A_DS_{stamp}_N05.09",
            "s2:granule_id": f"S2_OPER_MSI_L2A_TL_{stamp}_T{name}_N05.09",
            "s2:sequence": "0", "earthsearch:s3_path": base,
            "earthsearch:boa_offset_applied": True, **shares,
        },
        "links": [{"rel": r, "href": f"{base}/{r}.json", "type": "application/geo+json"}
                  for r in ("self", "canonical", "derived_from")],
        "assets": dict(_assets(base, tile)),
    }  # fmt: skip


_SHARES = ("nodata_pixel", "dark_features", "cloud_shadow", "vegetation", "water", "snow_ice")
_EXTENSIONS = ("eo", "mgrs", "grid", "view", "processing", "projection", "raster", "sentinel-2")


def _assets(base: str, tile: tuple[int, int, int]) -> Iterator[tuple[str, dict[str, Any]]]:
    _, col, row = tile
    for name, metres in BANDS.items():
        size = WIDE // metres
        corner = [metres, 0, col * SQUARE, 0, -metres, row * SQUARE + WIDE]
        common = {
            "title": f"{name} - {metres}m",
            "roles": ["data", "reflectance"],
            "eo:bands": [{"name": name, "common_name": name, "center_wavelength": 0.665}],
            "gsd": metres,
            "proj:shape": [size, size],
            "proj:transform": corner,
            "raster:bands": [
                {"nodata": 0, "data_type": "uint16", "bits_per_sample": 15,
                 "spatial_resolution": metres, "scale": 0.0001, "offset": -0.1}
            ],
        }  # fmt: skip
        yield name, {"href": f"{base}/{name}.tif", "type": _COG, **common}
        yield f"{name}-jp2", {"href": f"{base}/{name}.jp2", "type": "image/jp2", **common}
    for name in ("thumbnail", "granule_metadata", "tileinfo_metadata"):
        yield name, {"href": f"{base}/{name}.xml", "type": "text/xml", "roles": ["metadata"]}


_COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def write_file(path: Path, tiles: list[tuple[int, int, int]], scenes: int, rows: int) -> int:
    """The STAC file, tile by tile; returns the number of items."""
    import pyarrow as pa
    import pyarrow.parquet as parquet
    import stac_geoparquet.arrow as geoparquet

    count, writer, tables = 0, None, []
    for number, tile in enumerate(tiles, start=1):
        tables.append(geoparquet.parse_stac_items_to_arrow(items_of_tile(tile, scenes)).read_all())
        held = sum(table.num_rows for table in tables)
        if held >= rows or number == len(tiles):
            table = pa.concat_tables(tables)
            writer = writer or parquet.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=rows)
            count, tables = count + held, []
    if writer is not None:
        writer.close()
    return count


def plan(cities: Path, catalog: Path) -> dict[str, Any]:
    """Plan every city in this process, and say what it took."""
    from mapper.catalog.coverage import scene_plan
    from mapper.run.run import RunOptions, make_request, plan_run

    options = RunOptions(
        aoi=cities, year=2022, catalog=str(catalog), model="spectral-baseline",
        out=cities.parent / "out",
    )  # fmt: skip
    request = make_request(options, writing=False)

    def found(city: Any) -> int:
        return int(city.accounts["sentinel2"].split()[0])

    began = time.monotonic()
    plans, lost = plan_run(request)
    seconds = time.monotonic() - began
    began = time.monotonic()
    for city in plans:
        dated = {n: i for n, i in city.items.by_source.items() if n == "sentinel2"}
        scene_plan(dated, city.area.geometry, request.period)
    if lost:
        raise SystemExit(f"{len(lost)} cities without a plan: {lost[0].reason}")
    return {
        "cities": len(plans),
        "scenes found for a city": round(sum(map(found, plans)) / len(plans)),
        "scenes used": sum(len(p.items) for p in plans),
        "seconds": round(seconds, 1),
        "seconds for the scene plans": round(time.monotonic() - began, 1),
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One row of the results."""
    with tempfile.TemporaryDirectory() as folder:
        cities, catalog = Path(folder) / "cities.geojson", Path(folder) / "items.parquet"
        tiles = tiles_under(write_cities(cities, options.cities))
        count = write_file(catalog, tiles, options.scenes, options.row_group)
        size = catalog.stat().st_size
        command = [sys.executable, "-W", "ignore", __file__, "--plan", str(cities), str(catalog)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return {
            "items in the file": count,
            "dates of a tile": options.scenes,
            "rows in a row group": options.row_group,
            "file, MiB": size >> 20,
            **json.loads(done.stdout.splitlines()[-1]),
        }


def main() -> None:
    """Read the command line, measure, write down."""
    parser = argparse.ArgumentParser(description="Time a plan of many cities.")
    parser.add_argument("--cities", type=int, default=1000)
    parser.add_argument("--scenes", type=int, default=50)
    parser.add_argument("--row-group", type=int, default=4000)
    parser.add_argument("--append", action="store_true")
    parser.add_argument("--plan", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        print(json.dumps(plan(*options.plan)))
        return
    target = HERE / "search.json"
    before = json.loads(target.read_text()) if options.append and target.exists() else []
    row = measure(options)
    target.write_text(json.dumps([*before, row], indent=1) + "\n")
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
