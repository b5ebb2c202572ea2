"""How far a model sees, measured: a square of the input is changed, and outputs are compared.

What an output pixel sees of the input is, turned round, which outputs a change of the input
reaches. So one run tells the reach in all four directions, for every output at once. Networks
that pool see unequally far from pixel to pixel, with a period of their deepest stride: the square
is moved through 32 places along both axes, and the largest reach counts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mapper.errors import ModelError
from mapper.inference.card import ModelCard
from mapper.inference.runtime import Runtime

PERIOD = 32
"""Deepest stride that is looked for."""
LIMIT = 1024
"""Side of the largest window by default."""
_SEEDS = 3
_LOUDNESS = (1.0, 0.2, 4.0)
"""Noise of several strengths, so that no rectifier stays shut."""
_UNSTABLE = 1e-6
"""Share of the output's range that a library which is not bit-stable may be off by."""
_RING_PHASES = range(0, PERIOD, 5)
SHARES = (0.99, 0.999)

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """What was measured. Distances are in pixels, not counting the pixel itself."""

    left: int
    """How far a label sees to the left."""
    right: int
    up: int
    down: int
    holds: tuple[int, ...]
    """Half-width of the square that holds each of `SHARES` of the summed absolute influence, as
    far as a window of `looked` pixels shows it."""
    window: int
    """Side of the largest window that was run."""
    looked: int
    """Side of the window that `holds` was measured in."""
    global_context: bool
    """True where the field did not fit the largest window."""

    @property
    def reach(self) -> int:
        """The longest distance of all four."""
        return max(self.left, self.right, self.up, self.down)

    @property
    def pixels(self) -> int:
        """Receptive field as a card states it, in pixels across."""
        return 2 * self.reach + 1


def measure_field(card: ModelCard, runtime: Runtime, limit: int = LIMIT) -> Field:
    """Measure how far a model sees.

    A change counts if the output differs in any bit; for a library that is not bit-stable, by more
    than a millionth of the output's range.

    Args:
        card: of the model.
        runtime: of one of its forms.
        limit: side of the largest window; a model that demands a side gets that one.

    Raises: ModelError where the output is the same whatever the input.
    """
    size = runtime.fixed_size or max(PERIOD, limit // PERIOD * PERIOD)
    # the largest window comes first: in a small one, the far taps of a dilated convolution would
    # fall beyond the border and be missed
    probe = _Probe(card, runtime, size)
    first = probe.reach(seed=0, phases=(0,))
    if first is not None:
        snug = size if runtime.fixed_size else min(size, _snug(max(first), probe))
        for side in dict.fromkeys((snug, size)):
            probe = _Probe(card, runtime, side)
            found = _largest(probe)
            if found is not None:
                return _field(found, probe)
    looked = runtime.fixed_size or min(size, int(card.window.get("size", 512)))
    beyond = _field((size // 2,) * 4, _Probe(card, runtime, looked))
    return replace(beyond, window=size, global_context=True)


def _snug(reach: int, probe: "_Probe") -> int:
    """The smallest window that shows a reach at every phase: smaller ones are faster to run."""
    side = 2 * (reach + probe.period) + probe.square + probe.period + 2
    return -(-side // PERIOD) * PERIOD


def _largest(probe: "_Probe") -> tuple[int, ...] | None:
    """Of all seeds and phases; None where one leaves the window."""
    found = [probe.reach(seed, range(probe.period)) for seed in range(_SEEDS)]
    if any(f is None for f in found):
        return None
    largest = tuple(max(column) for column in zip(*[f for f in found if f], strict=True))
    if max(largest) < 0:
        raise ModelError(
            f"model {probe.card.name!r} yields the same whatever it is shown, so its receptive "
            "field cannot be measured; see whether its scaling and weights are right"
        )
    return tuple(max(0, reach) for reach in largest)


def _field(reach: tuple[int, ...], probe: "_Probe") -> Field:
    left, right, up, down = reach
    within = np.cumsum(probe.rings())
    return Field(
        left=left,
        right=right,
        up=up,
        down=down,
        holds=tuple(int(np.searchsorted(within, share * within[-1])) for share in SHARES),
        window=probe.size,
        looked=probe.size,
        global_context=False,
    )


class _Probe:
    """Windows of one side, a square of which is changed."""

    def __init__(self, card: ModelCard, runtime: Runtime, size: int) -> None:
        self.card, self.size, self._run = card, size, runtime.run
        self.period = max(PERIOD, int(card.window.get("multiple", PERIOD)))
        self.square = max(1, min(PERIOD, size // 8))
        self._limit = _UNSTABLE if runtime.fixed_batch else 0.0

    def reach(self, seed: int, phases: Any) -> tuple[int, ...] | None:
        """Left, right, up and down, the largest over phases; None where it meets the border."""
        before, valid = self._background(seed)
        plain = self._run(before, valid)
        most = (-1, -1, -1, -1)
        for phase in phases:
            start = self._start(phase)
            changed = self._changed((before, valid), start, self.square, seed)
            if self.card.validity_input and seed % 2:
                self._hide(changed, start, seed)
            differs = self._differs(plain, self._run(*changed))
            found = _reach(differs, start, self.square)
            if found is None:
                return None
            most = tuple(max(pair) for pair in zip(most, found, strict=True))  # type: ignore[assignment]
        return most

    def rings(self) -> np.ndarray:
        """Summed absolute influence by Chebyshev distance from the changed pixel."""
        total = np.zeros(self.size)
        for seed in range(_SEEDS):
            before, valid = self._background(seed)
            plain = self._run(before, valid)
            for phase in _RING_PHASES:
                start = self._start(phase)
                after = self._run(*self._changed((before, valid), start, 1, PERIOD * seed + phase))
                influence = np.abs(after - plain)[0].sum(axis=0, dtype=np.float64)
                away = np.abs(np.arange(self.size) - start)
                ring = np.maximum(away[:, None], away[None, :])
                found = np.bincount(ring.ravel(), influence.ravel(), self.size)
                total += found / (found.sum() or 1.0)
        return total

    def _start(self, phase: int) -> int:
        """Where the changed square begins: near the middle, moved by the phase."""
        room = max(1, min(self.period, self.size // 2))
        return (self.size - self.square - room) // 2 + phase % room

    def _background(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        shape = (1, len(self.card.bands), self.size, self.size)
        return self._noise((seed, 0), shape), np.ones(shape, dtype=np.float32)

    def _noise(self, seed: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
        values = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        return values * np.float32(_LOUDNESS[seed[0] % len(_LOUDNESS)])

    def _changed(
        self, before: tuple[np.ndarray, np.ndarray], start: int, side: int, seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Other noise in a square, louder, so that what arrives at the edge is not rounded off."""
        image, valid = before[0].copy(), before[1].copy()
        place = (..., slice(start, start + side), slice(start, start + side))
        image[place] = 4 * self._noise((seed, 1), image[place].shape)
        return image, valid

    def _hide(self, changed: tuple[np.ndarray, np.ndarray], start: int, seed: int) -> None:
        """Take half of the data away in the square: validity has a reach of its own."""
        image, valid = changed
        place = (..., slice(start, start + self.square), slice(start, start + self.square))
        gone = np.random.default_rng(seed).random(valid[place].shape) < 0.5
        image[place][gone], valid[place][gone] = np.float32(self.card.fill), 0

    def _differs(self, plain: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Where any channel is another, `(y, x)` bool."""
        span = float(plain.max() - plain.min())
        return np.asarray((np.abs(after - plain) > self._limit * span).any(axis=(0, 1)))


def _reach(differs: np.ndarray, start: int, side: int) -> tuple[int, ...] | None:
    """How far labels see to the left, right, up and down; None where a border is met.

    A label to the right of the square that changes has seen to its left.
    """
    found: list[int] = []
    for axis in (0, 1):
        along = np.asarray(differs.any(axis=axis))
        places = np.flatnonzero(along)
        if not len(places):
            return (-1, -1, -1, -1)
        if places[0] == 0 or places[-1] == len(along) - 1:
            return None
        found += [int(places[-1]) - (start + side - 1), start - int(places[0])]
    return tuple(found)


def rows_of(field: Field) -> Iterator[tuple[str, str]]:
    """What was measured, as label and text."""
    if field.global_context:
        yield "receptive field", f"the whole window, of {field.window} px at least"
    else:
        yield "receptive field", f"{field.pixels} px, measured in windows of {field.window}"
        sides = f"{field.left} left, {field.right} right, {field.up} up, {field.down} down"
        yield "reach", sides
    for share, half in zip(SHARES, field.holds, strict=True):
        text = f"{2 * half + 1} px, in windows of {field.looked}"
        yield f"{share:.1%} of the influence", text
