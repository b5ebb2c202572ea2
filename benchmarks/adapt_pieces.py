"""Images with harmonised labels: made coarser, put into halves, written and shown.

Labels are `(y, x)` uint8 class values of a task, 255 where nothing is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from affine import Affine

from mapper.recipe.training import ClassEntry
from mapper.training.data.labelled import IGNORED
from mapper.training.data.labels import LabelCode

CLASSES = Path(__file__).with_name("adapt_classes.yaml")
HALVES = ("train", "test")
_SHOWN = 6
"""Images of a domain in the quicklook."""
_SIDE = 360
"""Pixels of each, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Harmony:
    """The section of a task in `adapt_classes.yaml`."""

    title: str
    bands: tuple[str, ...]
    scale: float
    classes: tuple[ClassEntry, ...]
    sets: dict[str, dict[str, dict[str, Any]]]

    @classmethod
    def of(cls, task: str) -> "Harmony":
        """Of a task. Raises: KeyError where there is none."""
        found = yaml.safe_load(CLASSES.read_text(encoding="utf-8"))[task]
        return cls(
            title=found["title"],
            bands=tuple(found["bands"]),
            scale=float(found.get("scale", 1.0)),
            classes=tuple(ClassEntry.model_validate(entry) for entry in found["classes"]),
            sets=found["sets"],
        )

    def code(self, name: str) -> LabelCode:
        """What label files of a data set stand for, in classes of the task."""
        values = {entry.name: entry.value for entry in self.classes} | {None: IGNORED}
        entries = [(row["code"], values[row["to"]]) for row in self.sets[name].values()]
        return LabelCode(
            values=tuple((code, value) for code, value in entries if isinstance(code, int)),
            colors=tuple(
                (int(code, 16), value) for code, value in entries if isinstance(code, str)
            ),
        )

    def read(self, name: str, label: np.ndarray) -> np.ndarray:
        """Numbers of a data set's label as classes of the task. Raises: ValueError."""
        code = dict(self.code(name).values)
        if unknown := set(np.unique(label).tolist()) - set(code):
            raise ValueError(f"labels of {name} hold {sorted(unknown)}, which {CLASSES} lacks")
        table = np.full(256, IGNORED, dtype=np.uint8)
        table[list(code)] = list(code.values())
        return table[label]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One image with its label."""

    name: str
    values: np.ndarray
    """`(band, y, x)`, uint8 or uint16, as it is stored."""
    label: np.ndarray
    """`(y, x)` uint8, classes of the task."""
    transform: Affine | None = None
    crs: str = ""
    """Empty where it is not georeferenced."""
    unit: str = ""
    """Pieces of one unit stay in one half of the target; its own name by default."""
    place: str = ""
    """City; halves share each of them evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """All images of one side of a task."""

    title: str
    resolution: float
    """Metres of ground in a pixel."""
    license: str
    pieces: Sequence[Piece]
    notes: Sequence[str] = ()
    nodata: int | None = None
    """Value of pixels that hold nothing."""


def averaged(values: np.ndarray, factor: int) -> np.ndarray:
    """`(band, y, x)` means of squares of pixels, rounded, of the type given."""
    bands, height, width = values.shape
    blocks = values.reshape(bands, height // factor, factor, width // factor, factor)
    return np.rint(blocks.mean(axis=(2, 4), dtype=np.float64)).astype(values.dtype)


def majority(label: np.ndarray, factor: int) -> np.ndarray:
    """The commonest class of squares of pixels; the lower one of two, IGNORED where all are."""
    height, width = label.shape
    blocks = label.reshape(height // factor, factor, width // factor, factor)
    known = np.unique(label[label != IGNORED])
    if not known.size:
        return np.full((height // factor, width // factor), IGNORED, dtype=np.uint8)
    counts = np.stack([(blocks == value).sum(axis=(1, 3)) for value in known])
    return np.where(counts.max(axis=0) > 0, known[counts.argmax(axis=0)], IGNORED).astype(np.uint8)


def halves(pieces: Sequence[Piece], classes: Sequence[ClassEntry]) -> dict[str, str]:
    """Half of the target by name of the piece: whole units, classes and places alike in both.

    Units are dealt out from the one that weighs most, each to the half that it makes the more
    alike; then two that are better changed over are.
    """
    names = sorted({piece.unit or piece.name for piece in pieces})
    places = sorted({piece.place for piece in pieces})
    weights = np.zeros((len(names), len(classes) + len(places)))
    for piece in pieces:
        row = weights[names.index(piece.unit or piece.name)]
        row[: len(classes)] += [(piece.label == entry.value).sum() for entry in classes]
        row[len(classes) + places.index(piece.place)] += piece.label.size
    weights /= np.maximum(weights.sum(axis=0), 1)
    sides = np.zeros(len(names))
    for unit in sorted(range(len(names)), key=lambda n: (-weights[n].max(), names[n])):
        apart = sides @ weights
        sides[unit] = 1 if _worth(apart + weights[unit]) <= _worth(apart - weights[unit]) else -1
    sides = _changed_over(sides, weights)
    half = {name: HALVES[int(side < 0)] for name, side in zip(names, sides, strict=True)}
    return {piece.name: half[piece.unit or piece.name] for piece in pieces}


def _worth(apart: np.ndarray) -> float:
    return float((apart**2).sum())


def _changed_over(sides: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The best single exchange of two units, again and again until none helps."""
    while True:
        apart = sides @ weights
        found = [
            (_worth(apart - 2 * weights[one] + 2 * weights[other]), one, other)
            for one in np.flatnonzero(sides > 0)
            for other in np.flatnonzero(sides < 0)
        ]
        best = min(found, default=(np.inf, 0, 0))
        if best[0] >= _worth(apart) - 1e-12:
            return sides
        sides = sides.copy()
        sides[best[1]], sides[best[2]] = -1, 1


def shares(pieces: Sequence[Piece], classes: Sequence[ClassEntry]) -> dict[str, float]:
    """Share of each class among the pixels with a class, and `ignored` among all."""
    labels = np.concatenate([piece.label.ravel() for piece in pieces])
    counts = np.bincount(labels, minlength=256)
    known = max(1, int(counts[:IGNORED].sum()))
    found = {entry.name: round(float(counts[entry.value] / known), 4) for entry in classes}
    return found | {"ignored": round(float(counts[IGNORED] / labels.size), 4)}


def write_piece(piece: Piece, folder: Path, nodata: int | None = None) -> None:
    """`images/NAME.tif` and `labels/NAME.tif`."""
    place = {"transform": piece.transform, "crs": piece.crs} if piece.crs else {}
    common = {"driver": "GTiff", "compress": "deflate", "predictor": 2, **place}
    both = (("images", piece.values, nodata), ("labels", piece.label[None], IGNORED))
    for side, array, missing in both:
        count, height, width = array.shape
        size = {"count": count, "height": height, "width": width, "dtype": array.dtype.name}
        path = folder / side / f"{piece.name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(path, "w", **common, **size, nodata=missing) as target:
            target.write(array)


def write_quicklook(domains: Sequence[Domain], classes: Sequence[ClassEntry], path: Path) -> None:
    """Images of each domain above their labels, as PNG; what is ignored is black."""
    rows = [part for domain in domains for part in _strips(domain, classes)]
    width = max(row.shape[2] for row in rows)
    sheet = np.concatenate([np.pad(r, ((0, 0), (0, 4), (0, width - r.shape[2]))) for r in rows], 1)
    size = {"count": 3, "height": sheet.shape[1], "width": width, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="PNG", **size) as target:
        target.write(sheet)


def _strips(domain: Domain, classes: Sequence[ClassEntry]) -> tuple[np.ndarray, np.ndarray]:
    count = min(_SHOWN, len(domain.pieces))
    some = [domain.pieces[i * len(domain.pieces) // count] for i in range(count)]
    # one stretch for all of a domain, so that their brightness stays comparable
    low, high = np.percentile(np.concatenate([p.values[:3].ravel()[::97] for p in some]), (1, 99))
    palette = np.zeros((256, 3), dtype=np.uint8)
    for entry in classes:
        palette[entry.value] = list(bytes.fromhex(entry.color))
    images, labels = [], []
    for piece in some:
        there = _lattice(piece.label.shape)
        seen = (piece.values[:3, *there].astype(np.float64) - low) / max(high - low, 1)
        images.append(_framed((np.clip(seen, 0, 1) * 255).astype(np.uint8)))
        labels.append(_framed(palette[piece.label[there]].transpose(2, 0, 1)))
    return np.concatenate(images, axis=2), np.concatenate(labels, axis=2)


def _lattice(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns that show an image with its longer side at `_SIDE` pixels."""
    scale = _SIDE / max(shape)
    rows, cols = (((np.arange(int(n * scale)) + 0.5) / scale).astype(int) for n in shape)
    return rows[:, None], cols[None, :]


def _framed(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[1:]
    framed: np.ndarray = np.pad(image, ((0, 0), (0, _SIDE - height), (0, _SIDE + 4 - width)))
    return framed
