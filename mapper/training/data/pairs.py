"""Images and their labels: listed, matched by the stems of their names, and read together."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mapper.classes import ClassTable
from mapper.errors import DataError
from mapper.recipe.training import Data, table_of
from mapper.training.data.labelled import Box, LabelledImage, Pixels, Reader, Subset
from mapper.training.data.labels import LabelCode, read_label
from mapper.training.data.rasters import SUFFIXES, read_header, read_stored

SUBSETS: dict[str, Subset] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""Names of folders and lists, in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An image and its label, not opened yet."""

    name: str
    image: Path
    label: Path | None
    group: str = ""
    subset: Subset = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a layout found in a folder."""

    pairs: list[Pair]
    bands: tuple[str, ...]
    indexes: tuple[int, ...]
    """Where the bands are in the files, from 1."""
    classes: ClassTable
    read: Reader
    license: str = "other"
    facts: dict[str, Any] = field(default_factory=dict)
    described: tuple[LabelledImage, ...] = ()
    """Images of which the layout's own index says what headers say of files; no pairs then."""


def read_pair(
    image: LabelledImage, box: Box | None, *, indexes: tuple[int, ...], code: LabelCode
) -> Pixels:
    """A piece of an image and of its label. Raises: DataError naming the file."""
    stored = read_stored(image.image, box, indexes)
    label = None if image.label is None else read_label(image.label, box, code)
    return Pixels(values=stored.values, valid=stored.valid(), label=label)


def contents_of(
    pairs: list[Pair],
    bands: tuple[str, ...],
    classes: ClassTable,
    code: LabelCode,
    facts: dict[str, Any] | None = None,
) -> Contents:
    """Pairs whose first bands are those that are named."""
    indexes = tuple(range(1, len(bands) + 1))
    return Contents(
        pairs=pairs,
        bands=bands,
        indexes=indexes,
        classes=classes,
        read=partial(read_pair, indexes=indexes, code=code),
        facts=facts or {},
    )


def labels_table(data: Data, own: ClassTable) -> ClassTable:
    """Classes of the labels: those of the recipe's data, else the layout's own."""
    return table_of(data.classes) if data.classes else own


def bands_of(data: Data, published: Sequence[str] = ()) -> tuple[str, ...]:
    """Bands in file order: those of the recipe, else those of the layout. Raises: DataError."""
    if not data.bands and not published:
        raise DataError(
            f"layout {data.layout!r} does not say which bands its images hold; list them in "
            "data.bands in the order of the files, e.g. [highres:red, highres:green, highres:blue]"
        )
    return tuple(data.bands or published)


def list_files(folder: Path, suffixes: Sequence[str] = SUFFIXES) -> dict[str, Path]:
    """Files of a folder by the stems of their names. Raises: DataError where two share one."""
    found: dict[str, Path] = {}
    try:
        entries = sorted(folder.iterdir())
    except OSError as reason:
        raise DataError(f"{folder} cannot be listed ({reason.strerror})") from reason
    for path in entries:
        if path.name.startswith(".") or path.suffix.lower() not in suffixes or not path.is_file():
            continue
        if path.stem in found:
            raise DataError(
                f"{path} and {found[path.stem].name} differ by their suffix alone; keep one"
            )
        found[path.stem] = path
    return found


def match_labels(
    images: dict[str, Path], labels: dict[str, Path], ending: str = ""
) -> tuple[dict[str, Path], list[Path]]:
    """Labels by the stem of their image, and those without an image.

    Args:
        images: by stem.
        labels: by stem.
        ending: what the stem of a label has after that of its image.
    """
    matched = {s: labels[s + ending] for s in images if s + ending in labels}
    taken = set(matched.values())
    return matched, [path for path in labels.values() if path not in taken]


def refuse_strays(strays: Sequence[Path], images: Path) -> None:
    """Raises: DataError where a label has no image."""
    if strays:
        raise DataError(
            f"{strays[0]} has no image in {images}"
            + (f", nor have {len(strays) - 1} other labels" if len(strays) > 1 else "")
            + "; names must agree up to the suffix"
        )


def find_folder(parent: Path, *names: str) -> Path | None:
    """The first of several folders that is there; upper and lower case are one."""
    if not parent.is_dir():
        return None
    there = {p.name.lower(): p for p in sorted(parent.iterdir()) if p.is_dir()}
    return next((there[name.lower()] for name in names if name.lower() in there), None)


def listed_subsets(folder: Path) -> dict[str, Subset]:
    """Stems of the names in `train.txt`, `val.txt` and `test.txt`, where there are such lists.

    Raises: DataError where a name is in two of them.
    """
    found: dict[str, Subset] = {}
    for path in sorted(folder.glob("*.txt")):
        subset = SUBSETS.get(path.stem.lower())
        if subset is None:
            continue
        for line in path.read_text(encoding="utf-8").splitlines():
            stem = re.sub(r"\.(tiff?|png|jpe?g)$", "", line.strip(), flags=re.IGNORECASE)
            if stem and found.setdefault(stem, subset) != subset:
                raise DataError(f"{path} lists {stem}, which is {found[stem]} by another list")
    return found


def describe(pair: Pair, contents: Contents, data: Data) -> LabelledImage:
    """A pair by the headers of its files.

    Raises: DataError for too few bands, for sizes that differ and for a name that `data.group`
        does not match.
    """
    header = read_header(pair.image)
    if header.count < max(contents.indexes):
        raise DataError(
            f"{pair.image} has {header.count} bands, {len(contents.indexes)} are named "
            f"({', '.join(contents.bands)}); list those that it has in data.bands"
        )
    if pair.label is not None and pair.label.suffix.lower() in SUFFIXES:
        shape = read_header(pair.label).shape
        if shape != header.shape:
            raise DataError(
                f"{pair.label} is {shape[0]} x {shape[1]} pixels, its image {pair.image} is "
                f"{header.shape[0]} x {header.shape[1]}; they must lie on each other"
            )
    return LabelledImage(
        name=pair.name,
        image=pair.image,
        label=pair.label,
        shape=header.shape,
        group=pair.group if data.group is None else _captured(data.group, pair.image.stem),
        subset=pair.subset,
        place=header.place,
        half=header.half,
        crs=header.crs,
    )


def _captured(pattern: str, stem: str) -> str:
    try:
        match = re.search(pattern, stem)
    except re.error as reason:
        raise DataError(f"data.group is no regular expression: {pattern!r} ({reason})") from reason
    if match is None or not match.re.groups or match[1] is None:
        raise DataError(
            f"data.group {pattern!r} captures nothing in {stem!r}; put the part to keep in brackets"
        )
    return match[1]
