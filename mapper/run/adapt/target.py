"""Mapped cities as images without labels: what a network is adapted to.

A city's mapped box is cut into images; what lies around the area in that box is imagery like any
other. Which images there are depends on grid and area alone.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from shapely import box, prepare

from mapper.area.grid import PixelBox
from mapper.classes import ClassTable
from mapper.errors import DataError
from mapper.run.chosen import check_alike
from mapper.run.layout import Version
from mapper.run.samples.cut import CityCube, open_cube
from mapper.training.data.labelled import Box, LabelledImage, LabelledSet, Pixels

SIDE = 1024
"""Of an image, in pixels of the lattice, at most."""
_LAYOUT = "run"


def target_of(
    versions: Sequence[Version],
    bands: Sequence[str],
    required: Sequence[str] | None = None,
    cell: int = 1,
) -> LabelledSet:
    """Finished versions as one set of unlabelled images.

    Args:
        versions: of one or several cities.
        bands: what images hold, as `source:band`; NaN where a city lacks one.
        required: bands that every city must have; by default all.
        cell: lattice pixels that images begin at multiples of, as a sensor's pixels do.

    Raises: DataError where a cube lacks a band that is required, has no value of it, or differs
        from the others in resolution.
    """
    needed = list(bands if required is None else required)
    cubes = {version.slug: open_cube(version) for version in versions}
    for cube in cubes.values():
        check_cube(cube, needed)
    check_alike(list(cubes.values()), "; choose with --city, or adapt to each alone")
    squares = {
        image.name: (cube, image, pixels)
        for cube in cubes.values()
        for image, pixels in _squares(cube, cell)
    }
    for cube in cubes.values():
        _check_values(cube, needed)
    first = next(iter(cubes.values()))
    return LabelledSet(
        layout=_LAYOUT,
        root=first.version.root,
        bands=tuple(bands),
        scale=1.0,
        classes=_classes_of(first),
        images=tuple(squares[name][1] for name in sorted(squares)),
        read=partial(
            _read,
            squares={name: (cube, pixels) for name, (cube, _, pixels) in squares.items()},
            bands=tuple(bands),
        ),
        license=_license_of(list(cubes.values())),
        facts={
            "product": first.version.product,
            "cities": sorted(cubes),
            "resolution": first.grid.resolution,
        },
    )


def check_cube(cube: CityCube, needed: Sequence[str]) -> None:
    """Hold a city's bands against what a network needs; reads no pixel. Raises: DataError."""
    lacking = [band for band in needed if band not in cube.bands]
    if lacking:
        raise DataError(
            f"the cube of {cube.version.key} holds {', '.join(cube.bands)}, and the network needs "
            f"{', '.join(lacking)}; map the city by a recipe that gives them, or leave them out of "
            "train.bands (`--set bands=[...]`)"
        )


def _check_values(cube: CityCube, needed: Sequence[str]) -> None:
    """Raise DataError where a band has no value anywhere; one square is mostly enough to know."""
    seen = np.zeros(len(needed), dtype=bool)
    for _, pixels in _squares(cube):
        seen |= np.isfinite(cube.read(pixels, needed)).any(axis=(1, 2))
        if seen.all():
            return
    empty = [band for band, known in zip(needed, seen, strict=True) if not known]
    raise DataError(
        f"the cube of {cube.version.key} has no value of {', '.join(empty)}: nothing can be "
        "learned of it; see its observations.tif, and map it with other scenes"
    )


def _squares(cube: CityCube, cell: int = 1) -> list[tuple[LabelledImage, PixelBox]]:
    """The mapped box in nearly equal pieces, those that touch the area; north to south."""
    mapped = cube.mapped.intersect(cube.extent)
    prepare(cube.area)
    found = []
    for row, (row0, row1) in enumerate(_parts(mapped.row0, mapped.row1, cell)):
        for col, (col0, col1) in enumerate(_parts(mapped.col0, mapped.col1, cell)):
            pixels = PixelBox(row0=row0, col0=col0, row1=row1, col1=col1)
            if cube.area.intersects(box(*cube.grid.bounds_of(pixels))):
                found.append((_image(cube, f"{cube.slug}-{row:03d}-{col:03d}", pixels), pixels))
    return found


def _parts(start: int, stop: int, cell: int) -> list[tuple[int, int]]:
    """A range in the fewest parts of about SIDE: no slivers, in which no patch fits.

    A range that is no larger than a cell, or lies between the edges of two, may have none.
    """
    count = max(1, -(-(stop - start) // SIDE))
    edges = [start + (stop - start) * k // count for k in range(count)]
    rounded = [*(min(-(-edge // cell) * cell, stop) for edge in edges), stop]
    return [(first, last) for first, last in pairwise(rounded) if first < last]


def _image(cube: CityCube, name: str, pixels: PixelBox) -> LabelledImage:
    left, bottom, right, top = cube.grid.bounds_of(pixels)
    return LabelledImage(
        name=name,
        # the file that all squares of a city come from
        image=cube.version.path / "cube.zarr" / "zarr.json",
        label=None,
        shape=pixels.shape,
        group=cube.slug,
        place=((left + right) / 2, (bottom + top) / 2),
        half=((right - left) / 2, (top - bottom) / 2),
        crs=cube.grid.crs,
    )


def _read(
    image: LabelledImage,
    inside: Box | None,
    squares: dict[str, tuple[CityCube, PixelBox]],
    bands: tuple[str, ...],
) -> Pixels:
    """A piece of a square: float32 in physical units, NaN and invalid where there is no value."""
    cube, pixels = squares[image.name]
    row, col, height, width = inside or (0, 0, *image.shape)
    piece = PixelBox(
        row0=pixels.row0 + row,
        col0=pixels.col0 + col,
        row1=pixels.row0 + row + height,
        col1=pixels.col0 + col + width,
    )
    values = cube.read(piece, bands)
    return Pixels(values=values, valid=np.isfinite(values), label=None)


def _classes_of(cube: CityCube) -> ClassTable:
    """Of the map; no label is ever read by it."""
    assets: dict[str, Any] = cube.item["assets"]
    return ClassTable.from_stac(assets["classes"]["classification:classes"])


def _license_of(cubes: Sequence[CityCube]) -> str:
    licenses = {str(cube.item["properties"]["license"]) for cube in cubes}
    return licenses.pop() if len(licenses) == 1 else "other"
