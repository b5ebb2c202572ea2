"""The target of an adaptation: images of which no label is read, even where there are some."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mapper.errors import DataError
from mapper.recipe.training import Data, Train
from mapper.training.data import published
from mapper.training.data.labelled import IGNORED, Box, LabelledImage, LabelledSet, Pixels
from mapper.training.data.layouts import LAYOUTS
from mapper.training.data.pairs import describe, find_folder, list_files
from mapper.training.data.samples import INDEX


def open_target(root: Path, train: Train, given: Data | None = None) -> LabelledSet:
    """The target's images, by the headers of their files; labels are not even opened.

    A folder with `samples.json` is read by it. A folder that holds rasters itself and no folder
    of images has the bands of `given`, else of `train.data`, else of the recipe, in that order
    in its files. Any other is laid out as `given` says, else as `train.data` does.

    Raises: DataError naming the file or folder that does not fit.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder; name that of the target's images")
    data = _layout(root, train, given)
    contents = LAYOUTS[data.layout](root, data, train.table)
    bare = [replace(pair, label=None) for pair in contents.pairs]
    images = [*(describe(pair, contents, data) for pair in bare), *contents.described]
    if not images:
        raise DataError(f"{root} holds no image in layout {data.layout!r}")
    return without_labels(
        LabelledSet(
            layout=data.layout,
            root=root,
            bands=contents.bands,
            scale=data.scale,
            classes=replace(contents.classes, nodata=IGNORED),
            images=tuple(sorted(images, key=lambda image: image.name)),
            read=contents.read,
            license=contents.license,
            facts=contents.facts,
        )
    )


def _layout(root: Path, train: Train, given: Data | None) -> Data:
    """How the folder is read; what is said of labels in `given` or the recipe has no say."""
    said = train.data if given is None else given
    if (root / INDEX).is_file():
        # bands and scale of another layout are those of its files, not of these
        own = said if said.layout == "samples" else Data()
        return Data(bands=own.bands, scale=own.scale)
    bands = said.bands or train.data.bands or train.bands
    if _holds_rasters(root, said):
        return Data(layout="images", images=".", labels="", bands=bands, scale=said.scale)
    if said.layout == "images" and not (root / said.images).is_dir():
        raise DataError(
            f"{root} holds no raster and no folder {said.images}; give the folder of the images, "
            "or say with --target-layout how it is laid out"
        )
    if said.layout == "tree-points":
        # its rules for labels ask for bands and classes that images alone need not have
        bands = said.bands or list(published.RGBN)
        return Data(layout="images", labels="", bands=bands, scale=said.scale)
    if said.layout == "samples":
        # there is no index
        return Data(layout="images", labels="", bands=bands, scale=said.scale)
    return said.model_copy(update={"labels": "", "ignored": [], "group": None})


def _holds_rasters(root: Path, data: Data) -> bool:
    """True for a folder of rasters, with no folder of images in it."""
    return find_folder(root, data.images) is None and bool(list_files(root))


def without_labels(data: LabelledSet) -> LabelledSet:
    """The same images without a label: neither known of nor read.

    Layouts that would make a label of what lies beside an image are asked for the image alone.
    """
    read = data.read

    def bare(image: LabelledImage, box: Box | None) -> Pixels:
        pixels = read(replace(image, label=None), box)
        return replace(pixels, label=None)

    images = tuple(replace(image, label=None) for image in data.images)
    return replace(data, images=images, read=bare)


def check_bands(train: Train, source: LabelledSet, target: LabelledSet) -> None:
    """Refuse domains of which one lacks a band of the recipe.

    Raises: DataError naming who lacks what, and the bands of the recipe that both hold.
    """
    lacks = [
        f"the {name} {data.root} lacks {', '.join(missing)} (it holds {', '.join(data.bands)})"
        for name, data in (("source", source), ("target", target))
        if (missing := [band for band in train.bands if band not in data.bands])
    ]
    if not lacks:
        return
    both = [b for b in train.bands if b in source.bands and b in target.bands]
    raise DataError(f"{'; '.join(lacks)}; {_remedy(both, source, target)}")


def _remedy(both: Sequence[str], source: LabelledSet, target: LabelledSet) -> str:
    if both:
        return (
            f"both hold {', '.join(both)}: --set bands=[{','.join(both)}] learns with these alone"
        )
    shared = [band for band in source.bands if band in target.bands]
    if shared:
        return f"of the recipe's bands both hold none, but --set bands=[{','.join(shared)}] is held"
    return "they have no band in common; name those of their files with train.data.bands"
