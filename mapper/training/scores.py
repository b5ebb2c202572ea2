"""How well a map agrees with a reference, from confusion matrices; how far to trust its confidence.

Rows of every matrix are the reference, columns the map. Matrices of several images add up.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

BINS = 15
"""Of confidence, as in Guo et al. 2017."""


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Pixels of each pair, `(classes, classes)` int64: rows are the reference, columns the map.

    Args:
        truth: channel numbers 0 to classes - 1 of any shape, pixels to ignore left out.
        predicted: the same shape.
        classes: how many there are.
    """
    pairs = truth.astype(np.int64).ravel() * classes + predicted.astype(np.int64).ravel()
    for values in (truth, predicted):
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < classes:
            raise ValueError(f"class {values.min()} or {values.max()} is not one of {classes}")
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """One class; None where a figure is not defined."""

    name: str
    pixels: int
    """Of the reference."""
    mapped: int
    """Of the map, where there is a reference."""
    iou: float | None
    """Intersection over union; None where the class is in neither."""
    f1: float | None
    """2 TP / (2 TP + FP + FN); None where the class is in neither."""
    users: float | None
    """User's accuracy, also precision: None where the map has no such pixel."""
    producers: float | None
    """Producer's accuracy, also recall: None where the reference has no such pixel."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        found = asdict(self)
        found["users_accuracy"] = found.pop("users")
        found["producers_accuracy"] = found.pop("producers")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Agreement of a map with a reference.

    Means are over the classes that occur in the reference, each counting alike; a class that is
    only in the map lowers the others and has no vote of its own.
    """

    pixels: int
    accuracy: float | None
    """Overall accuracy."""
    kappa: float | None
    """Cohen's; None where chance alone would agree everywhere."""
    mean_iou: float | None
    mean_f1: float | None
    classes: tuple[ClassScores, ...]
    matrix: tuple[tuple[int, ...], ...]
    """Rows are the reference, columns the map."""

    @classmethod
    def of(cls, matrix: np.ndarray, names: Sequence[str]) -> "Scores":
        """From a confusion matrix, rows being the reference, and the names of its classes."""
        counts = matrix.astype(np.float64)
        hit, reference, mapped = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
        total = float(counts.sum())
        agreed = _share(float(hit.sum()), total)
        chance = _share(float(reference @ mapped), total**2)
        classes = tuple(
            ClassScores(
                name=name,
                pixels=int(reference[k]),
                mapped=int(mapped[k]),
                iou=_share(hit[k], reference[k] + mapped[k] - hit[k]),
                f1=_share(2 * hit[k], reference[k] + mapped[k]),
                users=_share(hit[k], mapped[k]),
                producers=_share(hit[k], reference[k]),
            )
            for k, name in enumerate(names)
        )
        kappa = None
        if agreed is not None and chance is not None:
            kappa = _share(agreed - chance, 1 - chance)
        known = [c for c in classes if c.pixels]
        return cls(
            pixels=int(matrix.sum()),
            accuracy=agreed,
            kappa=kappa,
            mean_iou=_mean([c.iou for c in known]),
            mean_f1=_mean([c.f1 for c in known]),
            classes=classes,
            matrix=tuple(tuple(int(v) for v in row) for row in matrix),
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON; what is not defined is null."""
        return {
            "pixels": self.pixels,
            "overall_accuracy": self.accuracy,
            "kappa": self.kappa,
            "mean_iou": self.mean_iou,
            "mean_f1": self.mean_f1,
            "classes": [c.to_dict() for c in self.classes],
            "confusion": {"rows": "reference", "columns": "map", "pixels": self.matrix},
        }


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole > 0 else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Pixels of one range of confidence, above `low` and up to `high`."""

    low: float
    high: float
    pixels: int
    confidence: float | None
    """Mean of the pixels; None where there is none."""
    accuracy: float | None
    """Share of the pixels that are right; None where there is none."""


class Calibration:
    """Confidence against accuracy in bins of equal width, as sums that do not grow with pixels.

    The expected calibration error is Naeini et al. 2015's, of the confidence in the class that
    was chosen (Guo et al. 2017).
    """

    def __init__(self, bins: int = BINS) -> None:
        """Start without pixels."""
        self._pixels = np.zeros(bins, dtype=np.int64)
        self._confidence = np.zeros(bins)
        self._right = np.zeros(bins)

    def add(self, confidence: np.ndarray, right: np.ndarray) -> None:
        """Count pixels: confidence 0 to 1 in the chosen class, and bool whether it was right."""
        bins = len(self._pixels)
        given = confidence.astype(np.float64).ravel()
        place = np.clip(np.ceil(given * bins).astype(np.int64) - 1, 0, bins - 1)
        self._pixels += np.bincount(place, minlength=bins)
        self._confidence += np.bincount(place, weights=given, minlength=bins)
        self._right += np.bincount(place, weights=right.ravel(), minlength=bins)

    @property
    def pixels(self) -> int:
        """Counted so far."""
        return int(self._pixels.sum())

    @property
    def error(self) -> float | None:
        """Expected calibration error: mean gap of the bins, weighted by pixels; None if empty."""
        gaps = np.abs(self._confidence - self._right).sum()
        return _share(float(gaps), float(self.pixels))

    def table(self) -> tuple[Bin, ...]:
        """The reliability diagram, from low confidence to high."""
        bins = len(self._pixels)
        return tuple(
            Bin(
                low=k / bins,
                high=(k + 1) / bins,
                pixels=int(self._pixels[k]),
                confidence=_share(self._confidence[k], self._pixels[k]),
                accuracy=_share(self._right[k], self._pixels[k]),
            )
            for k in range(bins)
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        bins = [asdict(b) for b in self.table()]
        return {"pixels": self.pixels, "ece": self.error, "bins": bins}
