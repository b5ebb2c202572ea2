"""Chips with tree points, as of street tree inventories: crowns grown from points."""

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mapper.classes import ClassTable
from mapper.errors import DataError
from mapper.recipe.training import Data
from mapper.training.data import published
from mapper.training.data.labelled import IGNORED, Box, LabelledImage, Pixels
from mapper.training.data.labels import label_code
from mapper.training.data.pairs import (
    Contents,
    Pair,
    bands_of,
    contents_of,
    labels_table,
    list_files,
    match_labels,
    refuse_strays,
)
from mapper.training.data.rasters import kept, read_stored

RADIUS = 7
"""Of the largest crown, in pixels: about 4 m at 0.6 m."""
GREEN = 0.15
"""NDVI of vegetation."""
FAR = 16
"""Pixels from every point, and RADIUS from the border, beyond which vegetation is no tree."""


def open_tree_points(root: Path, data: Data, classes: ClassTable) -> Contents:
    """`images/NAME.tif` beside `points/NAME.csv` of pixel columns and rows `x,y`.

    Two classes, what is no tree first; see `crowns` for which pixel is which. The group, a
    city, is the name up to `_2020_`.
    """
    images, points = root / "images", root / "points"
    listed = list_files(images)
    matched, strays = match_labels(listed, list_files(points, (".csv",)))
    refuse_strays(strays, images)
    table = labels_table(data, classes)
    if len(table.values) != 2:
        raise DataError(
            f"tree points tell two classes apart, no tree and tree; {len(table.values)} are listed "
            "in data.classes or train.classes"
        )
    if data.ignored:
        raise DataError("tree points have no label values that data.ignored could name")
    bands = bands_of(data, published.RGBN)
    names = [band.split(":")[-1] for band in bands]
    if not {"red", "nir"} <= set(names):
        raise DataError(f"tree points need bands red and nir, data.bands names {', '.join(bands)}")
    pairs = [
        Pair(
            name=stem,
            image=path,
            label=matched.get(stem),
            group=stem.split("_2020_")[0] if "_2020_" in stem else "",
        )
        for stem, path in listed.items()
    ]
    found = contents_of(pairs, bands, table, label_code(table, ()))
    vegetation = (names.index("red") + 1, names.index("nir") + 1)
    read = partial(read_trees, indexes=found.indexes, vegetation=vegetation, values=table.values)
    rule = {"crown_radius_pixels": RADIUS, "ndvi": GREEN, "lawn_from_pixels": FAR}
    return replace(found, read=read, facts=rule)


def read_trees(
    image: LabelledImage,
    box: Box | None,
    *,
    indexes: tuple[int, ...],
    vegetation: tuple[int, int],
    values: tuple[int, ...],
) -> Pixels:
    """A piece of a chip; its label is made from all of the chip. Raises: DataError.

    Args:
        image: chip; its label is the file of points.
        box: None for all of it.
        indexes: bands to read, from 1.
        vegetation: where red and near-infrared are, from 1.
        values: class values of no tree and tree.
    """
    stored = read_stored(image.image, box, indexes)
    label = None
    if image.label is not None:
        points, key = image.label, (str(image.image), vegetation, values)

        def make() -> np.ndarray:
            red, nir = read_stored(image.image, None, vegetation).values
            return _label(crowns(red, nir, read_points(points, image.shape)), values)

        row, col, height, width = box or (0, 0, *image.shape)
        label = kept(points, key, make)[row : row + height, col : col + width].copy()
    return Pixels(values=stored.values, valid=stored.valid(), label=label)


def read_points(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """`(point, 2)` rows and columns of the pixels that hold the points of a file.

    Raises: DataError for a file without columns x and y, or a point outside the image.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            points = [
                (int(np.floor(float(row["y"]))), int(np.floor(float(row["x"]))))
                for row in csv.DictReader(stream)
            ]
    except (OSError, KeyError, TypeError, ValueError, OverflowError) as reason:
        raise DataError(
            f"{path} is no table of points ({reason}); it needs columns x,y in pixels"
        ) from reason
    for row, col in points:
        if not (0 <= row < shape[0] and 0 <= col < shape[1]):
            raise DataError(
                f"{path} has a point at x={col}, y={row}, outside its image of "
                f"{shape[0]} x {shape[1]} pixels"
            )
    return np.array(points, dtype=int).reshape(-1, 2)


def crowns(red: np.ndarray, nir: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`(y, x)` int8: 1 tree, 0 no tree, -1 not known.

    Vegetation is where NDVI >= 0.15. The crown of a point is the vegetation within 7 pixels of
    it (a disc, its edge included) that is connected, over edges and corners and inside that
    disc, to vegetation in the 3 x 3 pixels around the point. Crowns are tree; what is no
    vegetation is no tree; nor is vegetation more than 16 pixels from every point, which is lawn.
    Other vegetation is not known: it may be lawn, or the outer part of a large crown. So is what
    lies within 7 pixels of the border, where a tree beyond it may reach.
    """
    red, nir = red.astype(np.float64), nir.astype(np.float64)
    total = nir + red
    green = (nir - red >= GREEN * total) & (total > 0)
    unknown = green & ~_far(green.shape, points)
    return np.where(_grown(green, points), 1, np.where(unknown, -1, 0)).astype(np.int8)


def _far(shape: tuple[int, ...], points: np.ndarray) -> np.ndarray:
    """True more than FAR from every point and more than RADIUS from the border."""
    far = np.zeros(shape, dtype=bool)
    far[RADIUS:-RADIUS, RADIUS:-RADIUS] = True
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    for row, col in points:
        far &= (rows - row) ** 2 + (cols - col) ** 2 > FAR**2
    return far


def _grown(green: np.ndarray, points: np.ndarray) -> np.ndarray:
    """True in the crown of any point."""
    side = 2 * RADIUS + 1
    # a rim of one more, so that a step beyond the disc stays in the array
    margin = RADIUS + 1
    padded = np.pad(green, margin)
    found = np.zeros_like(padded)
    if not len(points):
        return found[margin:-margin, margin:-margin]
    across = np.arange(-margin, margin + 1)
    disc = across[:, None] ** 2 + across[None, :] ** 2 <= RADIUS**2
    views = np.lib.stride_tricks.sliding_window_view(padded, (side + 2, side + 2))
    allowed = views[points[:, 0], points[:, 1]] & disc
    near = np.zeros_like(disc)
    near[margin - 1 : margin + 2, margin - 1 : margin + 2] = True
    crown = allowed & near
    while True:
        wider = crown.copy()
        wider[:, 1:] |= crown[:, :-1]
        wider[:, :-1] |= crown[:, 1:]
        rows = wider.copy()
        wider[:, :, 1:] |= rows[:, :, :-1]
        wider[:, :, :-1] |= rows[:, :, 1:]
        wider &= allowed
        if (wider == crown).all():
            break
        crown = wider
    for (row, col), one in zip(points, crown, strict=True):
        found[row : row + side + 2, col : col + side + 2] |= one
    return found[margin:-margin, margin:-margin]


def _label(kinds: np.ndarray, values: tuple[int, ...]) -> np.ndarray:
    label = np.full(kinds.shape, IGNORED, dtype=np.uint8)
    label[kinds == 0], label[kinds == 1] = values
    return label
