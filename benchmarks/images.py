"""The picture that the inference benchmark runs over: a town that costs nothing to fetch.

Every value follows from its place alone, so a strip, a smaller picture and a shifted one all show
the same ground. Streets run askew to the pixels, so that no edge of theirs hides a window's seam.

    python benchmarks/images.py 4096x4096 town.tif
"""

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

RESOLUTION = 0.5
LEFT, TOP = 245 * 4096 * RESOLUTION, 2700 * 4096 * RESOLUTION
"""Corner of the picture: whole multiples of 4096 pixels from the origin of EPSG:32633."""
STRIP = 512
BLOCK, STREET, LOT, GAP = 150, 12, 36, 9
"""Sides in pixels: of a block with its street, the street, a lot with its garden, the garden."""
SEED = 7


def write_image(
    path: Path, height: int, width: int, *, shift: int = 0, keep_corner: bool = False
) -> Path:
    """Write the town as a tiled 8-bit RGB GeoTIFF, strip by strip.

    Args:
        path: where to.
        height: rows.
        width: columns.
        shift: how many pixels further south and east the picture begins.
        keep_corner: give a shifted picture the corner of the unshifted one. Whoever lays windows
            from the origin of the CRS then meets other ground under them.
    """
    moved = 0 if keep_corner else shift * RESOLUTION
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:32633",
        "transform": from_origin(LEFT + moved, TOP - moved, RESOLUTION, RESOLUTION),
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
        "zlevel": 1,
        "predictor": 2,
        "interleave": "pixel",
        "photometric": "rgb",
        "num_threads": "all_cpus",
        "bigtiff": "if_safer",
    }
    with rasterio.open(path, "w", **profile) as file:
        for row, rows in strips(height):
            pixels = town(row + shift, shift, rows, width)
            file.write(pixels, window=Window(0, row, width, rows))
    return path


def strips(height: int, rows: int = STRIP) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each strip."""
    for row in range(0, height, rows):
        yield row, min(rows, height - row)


def town(row: int, col: int, height: int, width: int) -> np.ndarray:
    """Pixels `(band, y, x)` of a part of the town."""
    y = np.arange(row, row + height, dtype=np.float32)[:, None]
    x = np.arange(col, col + width, dtype=np.float32)[None, :]
    # 8, 15 and 17: a rotation by 28 degrees
    along, along_at = _parts(x * np.float32(15 / 17) + y * np.float32(8 / 17))
    across, across_at = _parts(y * np.float32(15 / 17) - x * np.float32(8 / 17) + (1 << 17))
    block = (along * 7919 + across * 104729) & 1023
    lot = (block * 31 + along_at // LOT * 5 + across_at // LOT * 3) & 255
    colours = _colours()
    pixels = colours["ground"][block]
    built = (along_at % LOT >= GAP) & (across_at % LOT >= GAP) & (block % 4 != 0)
    np.copyto(pixels, colours["roof"][lot], where=built[..., None])
    street = (along_at < 0) | (across_at < 0)
    pixels[street] = (110, 108, 112)
    light = np.sin(y / 190) * np.cos(x / 260) * 14 + np.sin(x / 1400) * np.cos(y / 900) * 16
    pixels += light.astype(np.int16)[..., None]
    pixels += _noise(row, col, height, width)
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8).transpose(2, 0, 1)


def _parts(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the block, and the place behind its street; negative on the street."""
    whole = distance.astype(np.int32)
    block = whole // BLOCK
    return block, whole - block * BLOCK - STREET


@cache
def _colours() -> dict[str, np.ndarray]:
    """Fields, parks and gardens by block; roofs by lot; int16, so that light can be added."""
    rng = np.random.default_rng(SEED)
    fields = np.array([(96, 128, 72), (152, 146, 96), (84, 112, 62), (124, 140, 88)])
    roofs = np.array([(168, 92, 74), (142, 138, 134), (196, 190, 182), (96, 92, 98)])
    return {
        "ground": (fields[rng.integers(4, size=1024)] + rng.integers(-12, 12, (1024, 3))).astype(
            np.int16
        ),
        "roof": (roofs[rng.integers(4, size=256)] + rng.integers(-18, 18, (256, 3))).astype(
            np.int16
        ),
    }


@cache
def _grain() -> np.ndarray:
    """A patch of noise; its sides are primes, so that no tile of a file meets it twice alike."""
    spread = np.random.default_rng(SEED).normal(0, 1.4, (1021, 1031, 3))
    return np.asarray(spread.round().astype(np.int16))


def _noise(row: int, col: int, height: int, width: int) -> np.ndarray:
    grain = _grain()
    rows = np.arange(row, row + height) % grain.shape[0]
    cols = np.arange(col, col + width) % grain.shape[1]
    return np.asarray(grain[rows][:, cols])


def main() -> None:
    """Write one picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("size", help="rows x columns, such as 4096x4096")
    parser.add_argument("path", type=Path)
    parser.add_argument("--shift", type=int, default=0)
    parser.add_argument("--keep-corner", action="store_true")
    wanted = parser.parse_args()
    height, width = (int(n) for n in wanted.size.split("x"))
    path = write_image(
        wanted.path, height, width, shift=wanted.shift, keep_corner=wanted.keep_corner
    )
    ratio = height * width * 3 / path.stat().st_size
    print(f"{path}: {path.stat().st_size >> 20} MiB, compressed {ratio:.2f}:1")


if __name__ == "__main__":
    main()
