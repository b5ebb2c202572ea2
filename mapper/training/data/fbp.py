"""Five-Billion-Pixels: Gaofen-2 images of 6800 x 7200 pixels with 24 classes.

The 8-bit images are TIFFs of four samples that call themselves CMYK, which common software
reads as red, green, blue and an alpha of 255. They are near-infrared, red, green, blue.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from mapper.classes import ClassTable
from mapper.errors import DataError
from mapper.recipe.training import Data
from mapper.training.data import published
from mapper.training.data.labelled import Box, LabelledImage, Pixels
from mapper.training.data.labels import LabelCode, label_code
from mapper.training.data.pairs import (
    Contents,
    Pair,
    bands_of,
    contents_of,
    find_folder,
    labels_table,
    list_files,
    match_labels,
    read_pair,
    refuse_strays,
)
from mapper.training.data.rasters import is_constant, kept

_IMAGES = {
    "Image__8bit_NirRGB": published.NRGB,
    "Image_8bit_NirRGB": published.NRGB,
    "Image_16bit_BGRNir": published.BGRN,
}
"""Folders by preference, with the bands of their files."""
_LABELS = ("Annotation__index", "Annotation_index", "Annotation__color", "Annotation_color")
_ENDING = "_24label"
_SATURATED = 255


def open_fbp(root: Path, data: Data, classes: ClassTable) -> Contents:
    """Images of 8 or 16 bits, in file order of their bands, with labels by number or colour.

    Where both are there, 8 bits and numbers are taken, unless `data.images` or `data.labels`
    names another of the published folders. The 30 images of the published baseline test are
    subset `test`; padding is white.
    """
    images = find_folder(root, data.images, *_IMAGES)
    labels = find_folder(root, data.labels, *_LABELS)
    if images is None:
        raise DataError(f"{root} has none of the folders {', '.join(_IMAGES)}")
    own = {name.lower(): bands for name, bands in _IMAGES.items()}.get(images.name.lower(), ())
    listed = list_files(images)
    matched, strays = match_labels(listed, list_files(labels) if labels else {}, _ENDING)
    refuse_strays(strays, images)
    pairs = [
        Pair(
            name=stem,
            image=path,
            label=matched.get(stem),
            subset="test" if stem in published.FBP_TEST else "",
        )
        for stem, path in listed.items()
    ]
    table = labels_table(data, published.FBP)
    code = label_code(table, data.ignored, unlabelled=[0, "000000"])
    facts = {"origin": f"Five-Billion-Pixels, Gaofen-2, 4 m, {images.name}"}
    found = contents_of(pairs, bands_of(data, own), table, code, facts)
    return replace(found, read=partial(read_fbp, indexes=found.indexes, code=code))


def read_fbp(
    image: LabelledImage, box: Box | None, *, indexes: tuple[int, ...], code: LabelCode
) -> Pixels:
    """A piece, refused where a band of the whole image is 255 throughout.

    Raises: DataError naming the file.
    """
    pixels = read_pair(image, box, indexes=indexes, code=code)
    if pixels.values.dtype == np.uint8:
        for index, band in zip(indexes, pixels.values, strict=True):
            # a piece may be saturated, or padding; a whole band is not
            if (band == _SATURATED).all() and _lost(image.image, index):
                raise DataError(
                    f"{image.image}: band {index} is 255 throughout; software that took it for "
                    "alpha has written this file: use it as it was published"
                )
    return pixels


def _lost(path: Path, index: int) -> bool:
    found = kept(path, index, lambda: np.array(is_constant(path, index, _SATURATED)))
    return bool(found)
