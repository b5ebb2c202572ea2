"""Layouts of folders of images beside folders of labels: any, and four published ones."""

import logging
import re
from dataclasses import replace
from pathlib import Path

from mapper.classes import ClassTable
from mapper.errors import DataError
from mapper.recipe.training import Data
from mapper.training.data import published
from mapper.training.data.labelled import Subset
from mapper.training.data.labels import label_code
from mapper.training.data.pairs import (
    SUBSETS,
    Contents,
    Pair,
    bands_of,
    contents_of,
    find_folder,
    labels_table,
    list_files,
    listed_subsets,
    match_labels,
    refuse_strays,
)

logger = logging.getLogger(__name__)

_IMAGES = ("images", "image", "img_dir", "img")
_LABELS = ("labels", "label", "ann_dir", "masks", "mask")


def open_images(root: Path, data: Data, classes: ClassTable) -> Contents:
    """`data.images` beside `data.labels`; an empty `labels` means that there are none."""
    images = root / data.images
    labels = root / data.labels if data.labels else None
    for folder in (images, labels):
        if folder is not None and not folder.is_dir():
            raise DataError(f"{folder} is no folder; say where it is in data.images, data.labels")
    table = labels_table(data, classes)
    code = label_code(table, data.ignored)
    return contents_of(_pairs(images, labels), bands_of(data), table, code)


def open_ugset(root: Path, data: Data, classes: ClassTable) -> Contents:
    """Images and binary masks, white for the last class; below `train`, `val`, `test` or not."""
    pairs: list[Pair] = []
    for parent, subset in _subset_folders(root) or [(root, "")]:
        images, labels = find_folder(parent, *_IMAGES), find_folder(parent, *_LABELS)
        if images is None:
            raise DataError(f"{parent} has no folder images beside labels, as UGSet has")
        prefix = f"{subset}_" if subset else ""
        pairs += _pairs(images, labels, prefix, subset=subset)
    table = labels_table(data, published.UGSET)
    code = label_code(table, data.ignored, also={255: table.values[-1]})
    facts = {"origin": "UGSet, 2019, 1 m, Guangdong"}
    return contents_of(pairs, bands_of(data, published.RGB), table, code, facts)


def open_openearthmap(root: Path, data: Data, classes: ClassTable) -> Contents:
    """`REGION/images` beside `REGION/labels`, or one folder of each for all regions.

    `train.txt`, `val.txt` and `test.txt` say what is what. In regions, labels may lack their
    images, which for a part come from xBD: they are left out, with a warning.
    """
    subsets = listed_subsets(root)
    pairs, absent = [], 0
    if (images := find_folder(root, "images")) is not None:
        for pair in _pairs(images, find_folder(root, "labels")):
            numbered = re.fullmatch(r"(.+)_\d+", pair.name)
            pairs.append(replace(pair, group=numbered[1] if numbered else ""))
    else:
        for region in sorted(p for p in root.iterdir() if p.is_dir()):
            found, strays = _region(region)
            pairs += found
            absent += len(strays)
    if absent:
        logger.warning(
            "%s: %d labels are left out, because their images are not there; those of xBD have "
            "to be fetched from xview2.org",
            root,
            absent,
        )
    table = labels_table(data, published.OPENEARTHMAP)
    code = label_code(table, data.ignored, unlabelled=[0, "000000"])
    facts = {
        "origin": "OpenEarthMap; labels CC-BY-NC-SA where not otherwise stated",
        "labels_without_image": absent,
    }
    pairs = [replace(p, subset=subsets.get(p.image.stem, "")) for p in pairs]
    return contents_of(pairs, bands_of(data, published.RGB), table, code, facts)


def open_daspm(root: Path, data: Data, classes: ClassTable) -> Contents:
    """`gaofen` and `sentinel`, each with `img_dir` and `ann_dir`, or `image` and `label`.

    Subsets are folders in them, or lists beside them. Numbers beyond the classes teach nothing.
    The labels are of five classes, without "others", unless a class of the recipe or a key of
    its crosswalk is named `others`: then of six, which begin with it.
    """
    pairs: list[Pair] = []
    for group in ("gaofen", "sentinel"):
        base = find_folder(root, group)
        images = find_folder(base, *_IMAGES) if base else None
        if base is None or images is None:
            continue
        labels, lists = find_folder(base, *_LABELS), listed_subsets(base)
        for folder, subset in _subset_folders(images) or [(images, "")]:
            beside = labels if folder == images or labels is None else labels / folder.name
            prefix = f"{group}_{folder.name}_" if subset else f"{group}_"
            for pair in _pairs(
                folder, beside if beside and beside.is_dir() else None, prefix, group
            ):
                pairs.append(replace(pair, subset=subset or lists.get(pair.image.stem, "")))
    if not pairs:
        raise DataError(f"{root} has no images in gaofen/img_dir or sentinel/img_dir")
    six = "others" in data.crosswalk or any(c.name == "others" for c in classes.classes)
    table = labels_table(data, published.DASPM_WITH_OTHERS if six else published.DASPM)
    code = label_code(
        table,
        data.ignored,
        unlabelled=[*range(6, 256), *([] if six else ["00FFFF"])],
        hint="value 5 is water where the labels have a class others",
    )
    facts = {"origin": "DASPM, 2 m labels of Gaofen and Sentinel-2 images"}
    return contents_of(pairs, bands_of(data, published.RGB), table, code, facts)


def open_loveda(root: Path, data: Data, classes: ClassTable) -> Contents:
    """`Train`, `Val`, `Test`, each with `Rural` and `Urban`, each with `images_png`, `masks_png`.

    Values of the masks begin with 1; 0 is no data.
    """
    pairs: list[Pair] = []
    for parent, subset in _subset_folders(root):
        for group in ("Rural", "Urban"):
            domain = find_folder(parent, group)
            images = find_folder(domain, "images_png") if domain else None
            if domain is None or images is None:
                continue
            name = f"{parent.name}_{group}_".lower()
            pairs += _pairs(images, find_folder(domain, "masks_png"), name, group, subset)
    if not pairs:
        raise DataError(f"{root} has no images such as Train/Rural/images_png/0.png, as LoveDA has")
    table = labels_table(data, published.LOVEDA)
    code = label_code(table, data.ignored, unlabelled=[0])
    facts = {"origin": "LoveDA, 0.3 m"}
    return contents_of(pairs, bands_of(data, published.RGB), table, code, facts)


def _pairs(
    images: Path, labels: Path | None, prefix: str = "", group: str = "", subset: Subset = ""
) -> list[Pair]:
    """Images of a folder with their labels; a prefix makes their names unique in the set."""
    listed = list_files(images)
    matched, strays = match_labels(listed, list_files(labels) if labels else {})
    refuse_strays(strays, images)
    return [
        Pair(name=prefix + stem, image=path, label=matched.get(stem), group=group, subset=subset)
        for stem, path in listed.items()
    ]


def _region(region: Path) -> tuple[list[Pair], list[Path]]:
    """Pairs of a region of OpenEarthMap, and its labels without image."""
    images, labels = find_folder(region, "images"), find_folder(region, "labels")
    listed = list_files(images) if images else {}
    matched, strays = match_labels(listed, list_files(labels) if labels else {})
    return [
        Pair(name=stem, image=path, label=matched.get(stem), group=region.name)
        for stem, path in listed.items()
    ], strays


def _subset_folders(parent: Path) -> list[tuple[Path, Subset]]:
    """Folders named like a subset."""
    return [
        (path, SUBSETS[path.name.lower()])
        for path in sorted(parent.iterdir())
        if path.is_dir() and path.name.lower() in SUBSETS
    ]
