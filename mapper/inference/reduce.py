"""Maps of several dates to one: vote, mean probability, or highest confidence.

All of it is integer arithmetic on what is stored, so the order of the dates has no say.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mapper.classes import ClassTable
from mapper.inference.composition import CONFIDENCE_STEPS
from mapper.inference.outputs import STEPS_NODATA

REDUCE_VERSION = 1
"""Raised whenever the same maps give another result."""

Method = Literal["mean", "vote", "highest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatedMap:
    """One date's map of a box."""

    classes: np.ndarray
    """`(y, x)` uint8 pixel values, the table's nodata where there is none."""
    confidence: np.ndarray
    """`(y, x)` uint8, 0 to 250."""
    probabilities: np.ndarray | None = None
    """`(class, y, x)` uint8, 0 to 250; needed for the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """The map of all dates."""

    classes: np.ndarray
    confidence: np.ndarray
    """Of the class, the mean over the dates that count for it; of `highest`, the highest."""
    agreement: np.ndarray
    """`(y, x)` uint8, 0 to 250: share of the dates whose class this is."""
    count: np.ndarray
    """`(y, x)` uint16: dates with a class."""


def reduce_maps(maps: Iterable[DatedMap], table: ClassTable, method: Method) -> Reduced:
    """One map of several; they are looked at one after the other.

    A tie goes to the class of the higher summed confidence, then to the first of the table.
    """
    sums = _Sums(table, method)
    for one in maps:
        sums.add(one)
    return sums.result()


class _Sums:
    """Per class: how many dates chose it, and with what confidence."""

    def __init__(self, table: ClassTable, method: Method) -> None:
        self._table, self._method = table, method
        self._votes: np.ndarray | None = None
        self._weights: np.ndarray | None = None
        self._best: np.ndarray | None = None

    def add(self, one: DatedMap) -> None:
        if self._votes is None or self._weights is None or self._best is None:
            shape = (len(self._table.classes), *one.classes.shape)
            self._votes = np.zeros(shape, dtype=np.uint16)
            self._weights = np.zeros(shape, dtype=np.uint32)
            self._best = np.zeros(shape, dtype=np.uint8)
        known = one.classes != self._table.nodata
        for channel, value in enumerate(self._table.values):
            chosen = one.classes == value
            self._votes[channel] += chosen
            if self._method == "mean" and one.probabilities is not None:
                share = one.probabilities[channel]
                self._weights[channel] += np.where(known, share, 0).astype(np.uint32)
            else:
                self._weights[channel] += np.where(chosen, one.confidence, 0).astype(np.uint32)
            best = np.where(chosen, one.confidence, 0).astype(np.uint8)
            np.maximum(self._best[channel], best, out=self._best[channel])

    def result(self) -> Reduced:
        if self._votes is None or self._weights is None or self._best is None:
            raise ValueError("there is no map to reduce")
        count = self._votes.sum(axis=0, dtype=np.uint16)
        channel = self._winner()[None]
        votes = np.take_along_axis(self._votes, channel, axis=0)[0]
        weight = np.take_along_axis(self._weights, channel, axis=0)[0]
        if self._method == "highest":
            confidence = np.take_along_axis(self._best, channel, axis=0)[0]
        else:
            confidence = _ratio(weight, count if self._method == "mean" else votes)
        values = np.array(self._table.values, dtype=np.uint8)[channel[0]]
        agreement = _ratio(votes.astype(np.uint32) * CONFIDENCE_STEPS, count)
        none = count == 0
        return Reduced(
            classes=np.where(none, np.uint8(self._table.nodata), values),
            confidence=np.where(none, np.uint8(STEPS_NODATA), confidence),
            agreement=np.where(none, np.uint8(STEPS_NODATA), agreement),
            count=count,
        )

    def _winner(self) -> np.ndarray:
        """Channel of the class that wins."""
        if self._votes is None or self._weights is None or self._best is None:
            raise ValueError("there is no map to reduce")
        weights = self._weights.astype(np.int64)
        first: np.ndarray = {
            "mean": np.zeros_like(weights),
            "vote": self._votes.astype(np.int64),
            "highest": self._best.astype(np.int64),
        }[self._method]
        return np.asarray(((first << 40) + weights).argmax(axis=0))


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Rounded half up, uint8; 0 where there is nothing to divide by."""
    divisor = np.maximum(count, 1).astype(np.uint32)
    return ((2 * total.astype(np.uint32) + divisor) // (2 * divisor)).astype(np.uint8)
