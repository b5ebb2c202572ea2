"""Samples: the layout that `mapper samples` writes, listed in `samples.json`."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mapper.classes import ClassTable
from mapper.errors import DataError, ModelError
from mapper.recipe.training import Data
from mapper.training.data.labelled import IGNORED
from mapper.training.data.labels import label_code
from mapper.training.data.pairs import Contents, Pair, contents_of, labels_table, read_pair
from mapper.training.data.stack import read_stacked, stacked_images

INDEX = "samples.json"
_OWN = ("format", "bands", "classes", "samples", "license")


def open_samples(root: Path, data: Data, classes: ClassTable) -> Contents:
    """Images of numbers, NaN where a band has no data, and labels, 255 where nothing is known.

    Classes are those of the file, not the recipe's. `data.bands` chooses and orders its bands.
    """
    path = root / INDEX
    index = _load(path)
    stacked = index["format"] == "zarr"
    try:
        listed = [str(band) for band in index["bands"]]
        own = ClassTable.from_stac(index["classes"])
        described = stacked_images(root, index["samples"]) if stacked else ()
        pairs = [
            Pair(
                name=str(sample["id"]),
                image=_inside(root, sample["image"]),
                label=_inside(root, sample["label"]) if sample.get("label") else None,
                group=str(sample.get("group", "")),
            )
            for sample in index["samples"]
            if not stacked
        ]
    except (KeyError, TypeError, ValueError, AttributeError, ModelError) as reason:
        raise DataError(f"{path} is no list of samples ({reason!r}); write it again") from reason
    bands = tuple(data.bands or listed)
    if unknown := [band for band in bands if band not in listed]:
        raise DataError(f"{path} has no band {unknown[0]}, but {', '.join(listed)}")
    table = labels_table(data, own)
    # numbers alone count: two classes may share a colour
    code = replace(label_code(table, data.ignored, unlabelled=[own.nodata, IGNORED]), colors=())
    facts = {key: value for key, value in index.items() if key not in _OWN}
    indexes = tuple(listed.index(band) + 1 for band in bands)
    inside = partial(
        read_stacked,
        bands=tuple(i - 1 for i in indexes),
        known=frozenset(table.values),
        ignored=frozenset(v for v in data.ignored if isinstance(v, int)) | {own.nodata},
    )
    return replace(
        contents_of(pairs, bands, table, code, facts),
        indexes=indexes,
        read=inside if stacked else partial(read_pair, indexes=indexes, code=code),
        described=described,
        license=str(index.get("license", "other")),
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as reason:
        raise DataError(f"{path} cannot be read as JSON ({reason})") from reason
    found = index.get("format") if isinstance(index, dict) else None
    if found not in ("geotiff", "zarr"):
        raise DataError(f"{path} lists samples of format {found!r}; geotiff and zarr are read")
    return index


def _inside(root: Path, name: str) -> Path:
    """A file of the set. Raises: DataError for one outside its folder."""
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{root / INDEX} names {name}, outside of its folder; that is not read")
    return path
