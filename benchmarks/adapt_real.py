"""Real city pairs of the adaptation benchmark, from the archive of MAPPER_TEST_ARCHIVE."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from adapt_pieces import Domain, Harmony, Piece, averaged, majority
from affine import Affine
from rasterio.features import rasterize

from mapper.classes import ClassTable, MapClass
from mapper.recipe.training import Data
from mapper.training.data.labels import read_label
from mapper.training.data.layouts import open_data

ADJACENT = "Train and test half touch: they are neighbouring parts of one mosaic, without a gap."
_VALENCIA_LATITUDE = 39.479
_BANEPA_LATITUDE = 27.6317
_WORLD = 20037508.342789244
"""Half the extent of EPSG:3857, metres."""
_TILES = 2
"""Banepa's tiles along the side of an image."""


def dubai_valencia(archive: Path, factor: int) -> tuple[Domain, Domain]:
    """Dubai's vegetation, then Valencia's parks; `factor` makes the target coarser."""
    harmony = Harmony.of("dubai-valencia")
    return _dubai(archive, harmony), _valencia(archive, harmony, factor)


def dubai_banepa(archive: Path, factor: int) -> tuple[Domain, Domain]:
    """Dubai's buildings, then Banepa's; `factor` is of the target's 0.13 m pixels."""
    harmony = Harmony.of("dubai-banepa")
    return _dubai(archive, harmony), _banepa(archive, harmony, factor)


def naip_trees(archive: Path) -> tuple[Domain, Domain]:
    """Chico, then Long Beach and Santa Monica."""
    harmony = Harmony.of("naip-trees")
    root = archive / "labelled" / "naip-trees"
    classes = (
        MapClass(value=0, name="other", title="Other", color="000000"),
        MapClass(value=1, name="tree", title="Tree", color="FFFFFF"),
    )
    data = Data(layout="tree-points", bands=list(harmony.bands))
    found = open_data(root, data, ClassTable(classes=classes))
    pieces = []
    for image in found.images:
        pixels = found.read(image, None)
        assert pixels.label is not None
        with rasterio.open(image.image) as dataset:
            where = {"transform": dataset.transform, "crs": dataset.crs.to_string()}
        label = harmony.read("naip", pixels.label)
        values = np.asarray(pixels.values)
        pieces.append(
            Piece(name=image.name, values=values, label=label, place=image.group, **where)
        )
    credit = "CC-BY-4.0 (Ventura et al.)"
    rule = (
        "Labels are a rule around tree points, not outlines; tree and lawn near each other are "
        "ignored. No two chips touch. Riverside is not used.",
    )
    return (
        Domain(
            title="Chico, California",
            resolution=0.6,
            license=credit,
            pieces=[p for p in pieces if p.place == "chico"],
            notes=rule,
        ),
        Domain(
            title="Long Beach and Santa Monica, California",
            resolution=0.6,
            license=credit,
            pieces=[p for p in pieces if p.place in ("long_beach", "santa_monica")],
        ),
    )


def _dubai(archive: Path, harmony: Harmony) -> Domain:
    root, code = archive / "labelled" / "dubai", harmony.code("dubai")
    pieces = []
    for path in sorted((root / "images").glob("*.jpg")):
        with rasterio.open(path) as dataset:
            values = dataset.read()
        label = read_label(root / "masks" / f"{path.stem}.png", None, code)
        pieces.append(Piece(name=path.stem, values=values, label=label, place=path.stem[:5]))
    return Domain(
        title="Dubai, three areas",
        resolution=1.1,
        license="CC0-1.0",
        pieces=pieces,
        notes=(
            "Not georeferenced. About 1 to 1.2 m in all three areas, judged by cars (4 pixels), "
            "trailers (12 to 13 pixels) and carriageways of three lanes (11 to 13 pixels); not "
            "the 0.3 to 0.6 m that the archive's list gives.",
        ),
    )


def _valencia(archive: Path, harmony: Harmony, factor: int) -> Domain:
    code = harmony.code("valencia")
    blocks: dict[tuple[int, int], Piece] = {}
    for path in sorted((archive / "pnoa-high-resolution").glob("*/image.tif")):
        column, row = map(int, path.parent.name.rsplit("_", 2)[1:])
        label = archive / "labels-green" / f"green_{path.parent.name}" / "data.tif"
        with rasterio.open(path) as dataset:
            transform, crs = dataset.transform, dataset.crs.to_string()
            values = dataset.read()
        blocks[column, row] = Piece(
            name=f"valencia-{column}-{row}",
            values=values,
            label=read_label(label, None, code),
            transform=transform,
            crs=crs,
        )
    columns = sorted({column for column, _ in blocks})
    pieces = [
        _coarser(_beside([blocks[c, row] for c in pair]), factor)
        for row in sorted({row for _, row in blocks})
        # the outer columns are strips of one tile, narrower than a patch
        for pair in (columns[:2], columns[2:])
    ]
    ground = 2 * _WORLD / 2**18 / 256 * np.cos(np.radians(_VALENCIA_LATITUDE))
    return Domain(
        title="Valencia, PNOA orthophoto",
        resolution=round(float(ground) * factor, 3),
        license="CC-BY-4.0 (PNOA, IGN Spain), labels ODbL",
        pieces=pieces,
        notes=(
            "Labels are polygons of parks with their paths and ponds; street trees and private "
            "gardens are `other`, which the source calls green. No pixel is outside.",
            ADJACENT,
        ),
    )


def _banepa(archive: Path, harmony: Harmony, factor: int) -> Domain:
    root = archive / "labelled" / "banepa"
    outlines = json.loads((root / "buildings.geojson").read_text(encoding="utf-8"))
    shapes = [(feature["geometry"], 1) for feature in outlines["features"]]
    tiles: dict[tuple[int, int], Piece] = {}
    for path in sorted((root / "images").glob("*.tif")):
        found = re.fullmatch(r"OAM-(\d+)-(\d+)-19", path.stem)
        assert found
        with rasterio.open(path) as dataset:
            values, transform = dataset.read(), dataset.transform
        inside = rasterize(shapes, values.shape[1:], transform=transform, dtype=np.uint8)
        column, row = int(found[1]), int(found[2])
        side = 2 * _WORLD / 2**19
        corner = (column * side - _WORLD, _WORLD - row * side)
        tiles[column, row] = Piece(
            name=f"banepa-{column}-{row}",
            values=values,
            label=harmony.read("banepa", inside),
            transform=Affine(side / 512, 0, corner[0], 0, -side / 512, corner[1]),
            crs="EPSG:3857",
        )
    columns, rows = (sorted({key[axis] for key in tiles}) for axis in (0, 1))
    pieces = []
    for r in range(0, len(rows), _TILES):
        for c in range(0, len(columns), _TILES):
            there = [
                _beside([tiles[column, row] for column in columns[c : c + _TILES]])
                for row in rows[r : r + _TILES]
            ]
            pieces.append(_coarser(_below(there), factor))
    ground = 2 * _WORLD / 2**19 / 512 * np.cos(np.radians(_BANEPA_LATITUDE))
    return Domain(
        title="Banepa, Nepal, drone orthophoto",
        resolution=round(float(ground) * factor, 3),
        license="OpenAerialMap CC-BY-4.0, outlines ODbL",
        pieces=pieces,
        notes=("Outlines are of roofs, burned at 0.13 m; those that touch are one.", ADJACENT),
    )


def _beside(pieces: list[Piece]) -> Piece:
    """Pieces from west to east as one, of the first one's name and place."""
    return replace(
        pieces[0],
        values=np.concatenate([p.values for p in pieces], axis=2),
        label=np.concatenate([p.label for p in pieces], axis=1),
    )


def _below(pieces: list[Piece]) -> Piece:
    """Pieces from north to south as one."""
    return replace(
        pieces[0],
        values=np.concatenate([p.values for p in pieces], axis=1),
        label=np.concatenate([p.label for p in pieces], axis=0),
    )


def _coarser(piece: Piece, factor: int) -> Piece:
    """Pixels averaged, labels by majority; a rest that fills no square is cut off."""
    if factor == 1:
        return piece
    height, width = (size // factor * factor for size in piece.label.shape)
    to_ground = piece.transform
    assert to_ground is not None
    return replace(
        piece,
        values=averaged(piece.values[:, :height, :width], factor),
        label=majority(piece.label[:height, :width], factor),
        transform=Affine(
            to_ground.a * factor, 0, to_ground.c, 0, to_ground.e * factor, to_ground.f
        ),
    )
