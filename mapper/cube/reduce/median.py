"""Median and percentiles over time of one band, exact, by a sorting network."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mapper.cube.reduce.network import order_rows, pieces
from mapper.errors import RecipeError

_FINEST = 1_000_000
"""Greatest denominator of a percentile's share: interpolation stays within 64-bit integers."""


def median(stack: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Median over time of the valid values; 0 where there is none.

    Of an even count it is the mean of the middle two, halves rounded up.

    Args:
        stack: `(time, y, x)` uint16, one band.
        valid: `(time, y, x)` bool, True = valid.

    Returns: `(y, x)` uint16.
    """
    length, height, width = stack.shape
    result = np.zeros((height, width), dtype=np.uint16)
    if length == 0:
        return result
    ranks = _middle_ranks(length)
    for lines in pieces((height, width), 2 * length):
        shape = (lines.stop - lines.start, width)
        rows = np.empty((length + 1, *shape), dtype=np.uint16)
        odd, seen = _balanced(stack[:, lines], valid[:, lines], rows)
        places = order_rows(rows, frozenset(ranks))
        low, high = rows[places[ranks[0]]], rows[places[ranks[1]]]
        single = high if length % 2 else low
        mean = (low | high) - ((low ^ high) >> 1)
        result[lines] = ((single & odd) | (mean & ~odd)) & seen
    return result


def percentiles(stack: np.ndarray, valid: np.ndarray, wanted: Sequence[float]) -> np.ndarray:
    """Percentiles over time of the valid values; 0 where there is none.

    Linear between the closest ranks (numpy's default), in exact integer arithmetic, halves
    rounded up; so percentile 50 is `median`.

    Args:
        stack: `(time, y, x)` uint16, one band.
        valid: `(time, y, x)` bool, True = valid.
        wanted: in per cent, 0 to 100, of at most four decimals.

    Returns: `(wanted, y, x)` uint16.

    Raises: RecipeError for a percentile outside 0 to 100 or of more decimals.
    """
    length, height, width = stack.shape
    tables = [_ranks(value, length) for value in wanted]
    result = np.zeros((len(tables), height, width), dtype=np.uint16)
    if not tables or length == 0:
        return result
    reached = frozenset(range(1 + max(int(table.high.max()) for table in tables)))
    for lines in pieces((height, width), 2 * length):
        rows = np.empty((length + 1, lines.stop - lines.start, width), dtype=np.uint16)
        count = _topped(stack[:, lines], valid[:, lines], rows)
        places = np.array(order_rows(rows, reached), dtype=np.intp)
        for table, plane in zip(tables, result, strict=True):
            plane[lines] = _interpolated(rows, places, count, table)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranks:
    """Where a percentile lies between the ranks, by the count of valid values."""

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray
    """Way from low to high, in parts of `parts`, int64."""
    parts: int


def _middle_ranks(length: int) -> tuple[int, int]:
    """Ranks among balanced rows whose mean is the median of an even count."""
    if length % 2:
        return max((length - 3) // 2, 0), length // 2
    return length // 2 - 1, length // 2


def _balanced(
    stack: np.ndarray, valid: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fill rows with the values, and invalid ones with 65535 and 0 in turn.

    With as many invalid values above the valid ones as below (one more above, if odd), the middle
    lies at the same ranks whatever the count, so no pixel needs an index of its own.

    Returns: masks of all bits, `(y, x)` uint16: where the count of valid values is odd, and
    where it is not 0.
    """
    fill = np.zeros(rows.shape[1:], dtype=np.uint16)
    seen = np.zeros_like(fill)
    mask = rows[-1]
    for row, values, good in zip(rows[:-1], stack, valid, strict=True):
        np.copyto(mask, good)
        np.negative(mask, out=mask)
        np.bitwise_or(seen, mask, out=seen)
        np.bitwise_and(values, mask, out=row)
        np.invert(mask, out=mask)
        np.bitwise_xor(fill, mask, out=fill)
        np.bitwise_and(fill, mask, out=mask)
        np.bitwise_or(row, mask, out=row)
    return (~fill if len(stack) % 2 else fill), seen


def _topped(stack: np.ndarray, valid: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Fill rows with the values, and invalid ones with 65535, above all valid ones.

    Returns: count of valid values, `(y, x)` intp.
    """
    count = np.zeros(rows.shape[1:], dtype=np.uint16)
    mask = rows[-1]
    for row, values, good in zip(rows[:-1], stack, valid, strict=True):
        np.copyto(mask, good)
        np.add(count, mask, out=count)
        np.subtract(mask, 1, out=mask)
        np.bitwise_or(values, mask, out=row)
    return count.astype(np.intp)


def _ranks(percent: float, length: int) -> _Ranks:
    """Ranks and shares for every count from 0 to `length`."""
    share = Fraction(str(percent)) / 100 if 0 <= percent <= 100 else Fraction(-1)
    if share < 0 or share.denominator > _FINEST:
        raise RecipeError(
            f"percentile {percent} cannot be used; give 0 to 100 with at most four decimals"
        )
    way = share.numerator * np.maximum(np.arange(length + 1, dtype=np.int64) - 1, 0)
    low = way // share.denominator
    rest = way % share.denominator
    return _Ranks(low=low, high=low + (rest > 0), share=rest, parts=share.denominator)


def _interpolated(
    rows: np.ndarray, places: np.ndarray, count: np.ndarray, table: _Ranks
) -> np.ndarray:
    """Values between two ranks of ordered rows; 0 where nothing is valid."""
    first = int(count.flat[0]) if count.size else 0
    if bool((count == first).all()):
        low = rows[places[table.low[first]]].astype(np.int64)
        high = rows[places[table.high[first]]].astype(np.int64)
        share: np.ndarray = table.share[first]
    else:
        flat, pixel = rows.reshape(-1), np.arange(count.size).reshape(count.shape)
        low = flat.take((places[table.low] * count.size)[count] + pixel).astype(np.int64)
        high = flat.take((places[table.high] * count.size)[count] + pixel).astype(np.int64)
        share = table.share[count]
    twice = 2 * (low * (table.parts - share) + high * share)
    return np.where(count > 0, (twice + table.parts) // (2 * table.parts), 0).astype(np.uint16)
