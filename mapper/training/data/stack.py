"""Samples in one Zarr group: `image` (sample, band, y, x) and `label` (sample, y, x)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mapper.errors import DataError
from mapper.training.data.labelled import IGNORED, Box, LabelledImage, Pixels


def stacked_images(root: Path, samples: Sequence[Mapping[str, Any]]) -> tuple[LabelledImage, ...]:
    """What the index says of each sample; its place in the group stands behind the group's path.

    Raises: DataError where the group is not there or the index does not fit it.
    """
    found = []
    for sample in samples:
        store, number = root / str(sample["image"]), int(sample["index"])
        if not store.resolve().is_relative_to(root.resolve()):
            raise DataError(f"{root} names {sample['image']}, outside of its folder")
        count = _array(store, "image").shape[0]
        if not 0 <= number < count:
            raise DataError(f"{store} holds {count} samples, the index names number {number}")
        height, width = (int(v) for v in sample["shape"])
        east, north = (float(v) for v in sample["place"])
        pixel = float(_transforms(store)[number][0])
        where = store / str(number)
        found.append(
            LabelledImage(
                name=str(sample["id"]),
                image=where,
                label=where,
                shape=(height, width),
                group=str(sample.get("group", "")),
                place=(east, north),
                half=(width * pixel / 2, height * pixel / 2),
                crs=f"EPSG:{sample.get('epsg', '')}",
            )
        )
    return tuple(found)


def read_stacked(
    image: LabelledImage,
    box: Box | None,
    *,
    bands: tuple[int, ...],
    known: frozenset[int],
    ignored: frozenset[int],
) -> Pixels:
    """A piece of a sample; `bands` count from 0. Without a label in `image` none is read.

    Raises: DataError where it cannot be read, or its label has a value that is neither known nor
        ignored.
    """
    store, number = image.image.parent, int(image.image.name)
    row, col, height, width = box or (0, 0, *image.shape)
    place = np.s_[..., row : row + height, col : col + width]
    try:
        stored = np.asarray(_array(store, "image")[number])[list(bands)][place]
        label = None
        if image.label is not None:
            label = np.array(_array(store, "label")[number][place])
    except DataError:
        raise
    # what a damaged chunk raises depends on its codec
    except Exception as reason:
        raise DataError(f"sample {image.name} of {image.image.parent} cannot be read") from reason
    if label is None:
        return Pixels(values=stored, valid=np.isfinite(stored), label=None)
    strange = sorted(set(np.unique(label).tolist()) - known - ignored - {IGNORED})
    if strange:
        raise DataError(
            f"the label of sample {image.name} of {image.image.parent} holds {strange[0]}, which "
            "is no class"
        )
    label[np.isin(label, list(ignored))] = IGNORED
    return Pixels(values=stored, valid=np.isfinite(stored), label=label)


@lru_cache(maxsize=4)
def _transforms(store: Path) -> np.ndarray:
    import zarr

    try:
        return np.asarray(zarr.open_group(store, mode="r")["transform"])
    except (OSError, KeyError, ValueError) as reason:
        raise DataError(f"{store} does not say where its samples lie ({reason})") from reason


@lru_cache(maxsize=8)
def _array(store: Path, name: str) -> Any:
    import zarr

    try:
        return zarr.open_group(store, mode="r")[name]
    except (OSError, KeyError, ValueError) as reason:
        raise DataError(f"{store} is no Zarr group with an array {name} ({reason})") from reason
