"""Values between pixels: nearest, bilinear and mean, each place by itself.

Places are rows and columns of the source, whole numbers at pixel centres, as arrays that
broadcast to the result: `(y, 1)` and `(1, x)` where source and target share their axes, which is
several times as fast, `(y, x)` otherwise.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_ROWS = 32


@dataclass(frozen=True, slots=True)
class Pixels:
    """Values on a lattice box and which of them are data."""

    values: np.ndarray
    """`(y, x)`: the source's dtype where it was copied or nearest, else float32."""
    valid: np.ndarray
    """`(y, x)` bool, True = valid."""


def nearest(pixels: Pixels, rows: np.ndarray, cols: np.ndarray) -> Pixels:
    """The source pixel in which each place lies; a place on an edge takes the later one."""
    row, row_inside = _whole(np.floor(rows + 0.5), pixels.values.shape[0])
    col, col_inside = _whole(np.floor(cols + 0.5), pixels.values.shape[1])
    inside = row_inside & col_inside
    if _shared_axes(rows, cols):
        row, col = row.ravel(), col.ravel()
        values = pixels.values.take(row, 0).take(col, 1)
        return Pixels(values, pixels.valid.take(row, 0).take(col, 1) & inside)
    at = row * pixels.values.shape[1] + col
    return Pixels(pixels.values.ravel().take(at), pixels.valid.ravel().take(at) & inside)


def bilinear(pixels: Pixels, rows: np.ndarray, cols: np.ndarray) -> Pixels:
    """Weighted mean of the four neighbours that are data; valid where the nearest one is."""
    inner = _along_axes if _shared_axes(rows, cols) else _anywhere
    with np.errstate(invalid="ignore"):
        total, weight, whole = inner(pixels, rows, cols)
    valid = nearest(pixels, rows, cols).valid & (weight > 0)
    # where all four are data their weights are one, whatever float32 makes of the sum
    values = np.divide(total, weight, out=total.copy(), where=valid & ~whole)
    return Pixels(np.where(valid, values, np.float32(0)), valid)


def mean(parts: Iterable[Pixels]) -> Pixels:
    """Mean of the valid ones, one at a time; valid where at least half of the points are."""
    total, count, points = np.zeros((), np.float32), np.zeros((), np.int32), 0
    for part in parts:
        total = np.asarray(total + np.where(part.valid, part.values, 0).astype(np.float32))
        count, points = np.asarray(count + part.valid), points + 1
    valid = np.asarray(count * 2 >= points)
    return Pixels((total / np.maximum(count, 1)).astype(np.float32), valid)


def _shared_axes(rows: np.ndarray, cols: np.ndarray) -> bool:
    return rows.shape[1] == 1 and cols.shape[0] == 1


def _whole(places: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers inside 0..size-1, and which of the places were inside."""
    inside = np.isfinite(places) & (places >= 0) & (places < size)
    return np.where(inside, places, 0).astype(np.intp), inside


_Parts = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Weighted sum of the neighbours that are data, their weight, and whether all of them are."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """Along one axis: the two neighbours of each place, their weights, and which exist."""

    index: tuple[np.ndarray, np.ndarray]
    weight: tuple[np.ndarray, np.ndarray]
    """float32; 0 for one that lies outside."""
    needed: tuple[np.ndarray, np.ndarray]
    """Whether it has any weight in a whole sum."""

    @classmethod
    def of(cls, places: np.ndarray, size: int) -> "_Pair":
        first = np.floor(places)
        part = (places - first).astype(np.float32)
        low, low_inside = _whole(first, size)
        high, high_inside = _whole(first + 1, size)
        return cls(
            (low, high),
            (np.where(low_inside, 1 - part, 0), np.where(high_inside, part, 0)),
            (part < 1, part > 0),
        )


def _along_axes(pixels: Pixels, rows: np.ndarray, cols: np.ndarray) -> _Parts:
    """Both axes one after the other."""
    height, width = pixels.values.shape
    down, right = _Pair.of(rows.ravel(), height), _Pair.of(cols.ravel(), width)

    def blend(array: np.ndarray) -> np.ndarray:
        low, high = (array.take(down.index[k], 0) * down.weight[k][:, None] for k in (0, 1))
        tall = low + high
        low, high = (tall.take(right.index[k], 1) * right.weight[k][None, :] for k in (0, 1))
        return np.asarray(low + high)

    if pixels.valid.all():
        ones = [p.weight[0] + p.weight[1] for p in (down, right)]
        whole = [(p.weight[0] > 0) | ~p.needed[0] for p in (down, right)]
        for k, pair in enumerate((down, right)):
            whole[k] &= (pair.weight[1] > 0) | ~pair.needed[1]
        total = blend(pixels.values.astype(np.float32))
        return total, ones[0][:, None] * ones[1][None, :], whole[0][:, None] & whole[1][None, :]
    values = np.where(pixels.valid, pixels.values, 0).astype(np.float32)
    return blend(values), blend(pixels.valid.astype(np.float32)), _all_data(pixels, down, right)


def _all_data(pixels: Pixels, down: _Pair, right: _Pair) -> np.ndarray:
    """`(y, x)` bool: every neighbour that has a weight is there and is data."""

    def both(array: np.ndarray, pair: _Pair, axis: int) -> np.ndarray:
        shape = (-1, 1) if axis == 0 else (1, -1)
        good = []
        for index, weight, needed in zip(pair.index, pair.weight, pair.needed, strict=True):
            there = array.take(index, axis) & (weight > 0).reshape(shape)
            good.append(there | ~needed.reshape(shape))
        return np.asarray(good[0] & good[1])

    return both(both(pixels.valid, down, 0), right, 1)


def _anywhere(pixels: Pixels, rows: np.ndarray, cols: np.ndarray) -> _Parts:
    """Each place with its own pair of coordinates; some rows at a time, which stay in the cache."""
    rows, cols = np.broadcast_arrays(rows, cols)
    values = np.where(pixels.valid, pixels.values, 0).astype(np.float32).ravel()
    total = np.empty(rows.shape, dtype=np.float32)
    weights, whole = np.empty_like(total), np.empty(rows.shape, dtype=bool)
    data = None if pixels.valid.all() else pixels.valid.ravel()
    for start in range(0, len(rows), _ROWS):
        some = slice(start, start + _ROWS)
        pairs = (
            _Pair.of(rows[some], pixels.values.shape[0]),
            _Pair.of(cols[some], pixels.values.shape[1]),
        )
        found = _four(values, data, pairs, pixels.values.shape[1])
        total[some], weights[some], whole[some] = found
    return total, weights, whole


def _four(
    values: np.ndarray, data: np.ndarray | None, pairs: tuple[_Pair, _Pair], width: int
) -> _Parts:
    """Sum over the four neighbours; `data` is None where all of them are data."""
    down, right = pairs
    total = np.zeros(down.index[0].shape, dtype=np.float32)
    weights = np.zeros(total.shape, dtype=np.float32)
    whole = np.ones(total.shape, dtype=bool)
    for i in (0, 1):
        for j in (0, 1):
            at = down.index[i] * width + right.index[j]
            weight = down.weight[i] * right.weight[j]
            if data is not None:
                weight = np.where(data.take(at), weight, np.float32(0))
            total += weight * values.take(at)
            weights += weight
            whole &= (weight > 0) | ~(down.needed[i] & right.needed[j])
    return total, weights, whole
