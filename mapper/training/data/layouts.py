"""Labelled data sets, by the layout of their folder."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mapper.classes import ClassTable
from mapper.errors import DataError
from mapper.recipe.training import Data, LayoutName
from mapper.training.data.fbp import open_fbp
from mapper.training.data.folders import (
    open_daspm,
    open_images,
    open_loveda,
    open_openearthmap,
    open_ugset,
)
from mapper.training.data.labelled import IGNORED, LabelledSet
from mapper.training.data.pairs import Contents, describe
from mapper.training.data.samples import open_samples
from mapper.training.data.trees import open_tree_points

LAYOUTS: dict[LayoutName, Callable[[Path, Data, ClassTable], Contents]] = {
    "samples": open_samples,
    "images": open_images,
    "ugset": open_ugset,
    "openearthmap": open_openearthmap,
    "fbp": open_fbp,
    "daspm": open_daspm,
    "loveda": open_loveda,
    "tree-points": open_tree_points,
}


def open_data(root: Path, data: Data, classes: ClassTable) -> LabelledSet:
    """A labelled data set, by the headers of its files.

    Args:
        root: its folder.
        data: layout and options.
        classes: of the model; those of the labels where neither `data` nor the layout has its
            own. A crosswalk is not applied.

    Raises: DataError naming the file or folder that does not fit.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder")
    contents = LAYOUTS[data.layout](root, data, classes)
    names = Counter([p.name for p in contents.pairs] + [i.name for i in contents.described])
    if not names:
        raise DataError(f"{root} holds no image in layout {data.layout!r}")
    for name, count in names.items():
        if count > 1:
            raise DataError(f"{root} holds {count} images named {name}; rename all but one")
    opened = (describe(pair, contents, data) for pair in contents.pairs)
    images = tuple(sorted((*opened, *contents.described), key=lambda image: image.name))
    counts = {
        "images": len(images),
        "labelled": sum(image.label is not None for image in images),
        "pixels": sum(image.shape[0] * image.shape[1] for image in images),
    }
    return LabelledSet(
        layout=data.layout,
        root=root,
        bands=contents.bands,
        scale=data.scale,
        classes=replace(contents.classes, nodata=IGNORED),
        images=images,
        read=contents.read,
        license=contents.license,
        facts={**contents.facts, **counts},
    )
