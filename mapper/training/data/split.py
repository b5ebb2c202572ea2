"""Training and validation apart: by what the data set says, by group, else by blocks."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable
from math import floor

import numpy as np

from mapper.errors import DataError
from mapper.recipe.training import Split
from mapper.training.data.labelled import LabelledImage

logger = logging.getLogger(__name__)

Images = list[LabelledImage]


def split_blocks(images: Iterable[LabelledImage], split: Split) -> tuple[Images, Images]:
    """Images to train on and images to validate with, each in the order of their names.

    Subsets that the data set states are kept, `test` in neither; where it states none for
    validation, its training images are split. Of the others, the groups `split.held_out`
    validate; without these, spatial blocks do, in an order drawn from the seed, until their
    pixels reach the share. A block is a square of side `split.block` in a CRS, by the centres of
    images; an image without a place is a block. What overlaps a validation image on the ground is
    not trained on.

    Raises: DataError where a side would be empty, a group is unknown, or a held-out group is
        trained on according to the data set.
    """
    ordered = sorted(images, key=lambda image: image.name)
    train = [image for image in ordered if image.subset == "train"]
    validation = [image for image in ordered if image.subset == "validation"]
    free = [image for image in ordered if image.subset == ""]
    if not validation:
        train, free = [], sorted([*train, *free], key=lambda image: image.name)
    _check_groups(ordered, train, split)
    if split.held_out:
        held = [image for image in free if image.group in split.held_out]
    else:
        held = _held_blocks(free, split, alone=not validation)
    names = {image.name for image in held}
    rest = [image for image in free if image.name not in names]
    apart = _apart(rest, held)
    if len(apart) < len(rest):
        logger.info("%d images overlap held-out ones and are left out", len(rest) - len(apart))
    train += apart
    validation += held
    for side, found in (("train on", train), ("validate with", validation)):
        if not found:
            raise DataError(
                f"{len(ordered)} images leave none to {side}; see split.held_out and the subsets "
                "of the data set"
            )
    by_name = [sorted(side, key=lambda image: image.name) for side in (train, validation)]
    return by_name[0], by_name[1]


def _check_groups(images: Images, train: Images, split: Split) -> None:
    groups = sorted({image.group for image in images if image.group})
    for name in split.held_out:
        if name not in groups:
            known = ", ".join(groups) or "none; name them by data.group"
            raise DataError(f"split.held_out names {name!r}; groups are {known}")
        if any(image.group == name for image in train):
            raise DataError(
                f"split.held_out names {name!r}, which the data set itself trains on: it states "
                "its own training and validation images"
            )


def _held_blocks(images: Images, split: Split, alone: bool) -> Images:
    """Whole blocks, at least one where nothing else validates, and never all of them."""
    blocks: dict[str, Images] = defaultdict(list)
    for image in images:
        blocks[_block_of(image, split.block)].append(image)
    if alone and len(blocks) < 2:
        raise DataError(
            f"{len(images)} images lie in {len(blocks)} block; to validate takes two: make "
            f"split.block smaller than {split.block:g}, in units of the images' CRS"
        )
    order = sorted(blocks, key=lambda block: _draw(split.seed, block))
    wanted = split.validation * sum(map(_pixels, images))
    held: Images = []
    for block in order[:-1]:
        if sum(map(_pixels, held)) >= wanted:
            break
        held += blocks[block]
    return held


def _block_of(image: LabelledImage, side: float) -> str:
    if image.place is None:
        return f"image {image.name}"
    column, row = (floor(part / side) for part in image.place)
    return f"block {column} {row} {image.crs}"


def _apart(images: Images, held: Images) -> Images:
    """Images that share no ground with any of the others."""
    placed = [image for image in held if image.place is not None]
    if not placed:
        return images
    centres = np.array([image.place for image in placed])
    halves = np.array([image.half for image in placed])
    systems = np.array([image.crs for image in placed])

    def overlaps(image: LabelledImage) -> bool:
        if image.place is None:
            return False
        distance = np.abs(centres - image.place)
        reach = (halves + image.half) * (1 - 1e-9)
        return bool(((distance < reach).all(axis=1) & (systems == image.crs)).any())

    return [image for image in images if not overlaps(image)]


def _draw(seed: int, block: str) -> str:
    return hashlib.sha256(f"{seed} {block}".encode()).hexdigest()


def _pixels(image: LabelledImage) -> int:
    return image.shape[0] * image.shape[1]
