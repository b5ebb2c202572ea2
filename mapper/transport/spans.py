"""Which bytes of a file are there, and which ranges to ask for; plain integers, no network.

A span is `(start, end)` in bytes, the end not in it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import pairwise

Span = tuple[int, int]


class Spans:
    """A set of bytes, as sorted spans that neither touch nor overlap."""

    def __init__(self) -> None:
        """Empty."""
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> int:
        """Add a span. Returns: how many of its bytes were there before."""
        if start >= end:
            return 0
        new = sum(b - a for a, b in self.gaps(start, end))
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            merged = min(start, self._starts[first]), max(end, self._ends[last - 1])
        else:
            merged = start, end
        self._starts[first:last] = [merged[0]]
        self._ends[first:last] = [merged[1]]
        return end - start - new

    def gaps(self, start: int, end: int) -> list[Span]:
        """Parts of a span that are not there, in order."""
        found: list[Span] = []
        index = bisect_right(self._ends, start)
        while start < end and index < len(self._starts) and self._starts[index] < end:
            if start < self._starts[index]:
                found.append((start, self._starts[index]))
            start = max(start, self._ends[index])
            index += 1
        if start < end:
            found.append((start, end))
        return found


def plan_pieces(wanted: Iterable[Span], known: Spans, piece: int, gap: int) -> list[Span]:
    """Ranges to ask for so that all wanted bytes are known; none of them known or asked twice.

    Spans less than `gap` apart become one where nothing between them is known; what is longer
    than `piece` is cut into equal parts.
    """
    missing = sorted(part for start, end in wanted for part in known.gaps(start, end))
    joined: list[Span] = []
    for start, end in missing:
        if joined and (start <= joined[-1][1] or _bridged(joined[-1][1], start, known, gap)):
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return [part for span in joined for part in _cut(span, piece)]


def _bridged(end: int, start: int, known: Spans, gap: int) -> bool:
    return start - end <= gap and known.gaps(end, start) == [(end, start)]


def _cut(span: Span, piece: int) -> list[Span]:
    start, end = span
    count = -(-(end - start) // piece)
    edges = [start + (end - start) * part // count for part in range(count + 1)]
    return list(pairwise(edges))
