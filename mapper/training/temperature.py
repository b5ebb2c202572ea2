"""The one number that logits are divided by so that confidence means what it says.

Guo et al. 2017, "On Calibration of Modern Neural Networks": the temperature that minimises the
negative log-likelihood of held-out labels. It changes no class.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

SAMPLE = 200_000
"""Pixels that a temperature is fitted to, at most."""
LOWEST, HIGHEST = 0.05, 20.0
"""Range of temperatures; without a bound, a model that is always right would be given zero."""
_GOLDEN = (5**0.5 - 1) / 2
_EXACT = 1e-4

Kind = Literal["softmax", "sigmoid"]
"""`sigmoid`: one yes or no a channel; one channel for two classes is the softmax of (0, logit)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A temperature and what it is worth."""

    temperature: float
    """Divides the model's raw logits: it replaces the card's, and does not add to it."""
    pixels: int
    """That it was fitted to."""
    nll_before: float
    """Mean negative log-likelihood with the temperature there was, in nats."""
    nll_after: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def fit_temperature(
    logits: np.ndarray, truth: np.ndarray, kind: Kind = "softmax", current: float = 1.0
) -> Fit:
    """The temperature of the least negative log-likelihood, never worse than the current one.

    Args:
        logits: `(pixel, class)`, not divided by anything yet.
        truth: `(pixel,)` channel numbers.
        kind: what turns logits into probabilities.
        current: temperature of the card.
    """
    table, labels = logits.astype(np.float64), truth.astype(np.intp)

    def loss(log: float) -> float:
        return likelihood_loss(table, labels, float(np.exp(log)), kind)

    # convex in 1 / T, so there is one minimum in log T, too
    best = float(np.exp(golden_section(loss, np.log(LOWEST), np.log(HIGHEST), _EXACT)))
    before = likelihood_loss(table, labels, current, kind)
    after = likelihood_loss(table, labels, best, kind)
    if not after < before:
        best, after = current, before
    return Fit(temperature=best, pixels=len(labels), nll_before=before, nll_after=after)


def likelihood_loss(
    logits: np.ndarray, truth: np.ndarray, temperature: float, kind: Kind = "softmax"
) -> float:
    """Mean negative log-likelihood of `(pixel, class)` logits over a temperature, in nats."""
    values = logits / temperature
    chosen = np.take_along_axis(values, truth[:, None], axis=1)[:, 0]
    if kind == "sigmoid":
        # log(1 + e^v) without overflow; of a yes it is less by v
        whole = np.logaddexp(0, values).sum(axis=1)
    else:
        highest = values.max(axis=1)
        whole = highest + np.log(np.exp(values - highest[:, None]).sum(axis=1))
    return float((whole - chosen).mean())


def golden_section(
    function: Callable[[float], float], low: float, high: float, exact: float
) -> float:
    """Where a function with one minimum between low and high has it, to within `exact`.

    Kiefer 1953; no derivatives, and one new value of the function a step.
    """
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > exact:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = function(right)
    return (low + high) / 2


class PixelSample:
    """A random sample of bounded size out of pixels that come in pieces.

    Each pixel draws a number from its piece's own seed and the lowest stay, so that the sample is
    uniform and the same in whatever order the pieces come.
    """

    def __init__(self, classes: int, size: int = SAMPLE) -> None:
        """Start without pixels."""
        self._size, self._most = size, 1.0
        self._parts = [_Part.empty(classes)]

    def add(self, logits: np.ndarray, truth: np.ndarray, seed: Sequence[int]) -> None:
        """Offer `(class, pixel)` logits and `(pixel,)` channel numbers of a piece."""
        keys = np.random.default_rng(list(seed)).random(len(truth))
        near = np.flatnonzero(keys < self._most)
        self._parts.append(_Part(keys[near], logits.T[near], truth[near].astype(np.int16)))
        # sorted only now and then: the sample is copied each time
        if sum(len(part.keys) for part in self._parts) > 2 * self._size:
            self._most = float(self._kept().keys[-1])

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits `(pixel, class)` float32 and channel numbers `(pixel,)`."""
        kept = self._kept()
        return kept.logits, kept.truth

    def _kept(self) -> "_Part":
        keys = np.concatenate([part.keys for part in self._parts])
        kept = np.argsort(keys, kind="stable")[: self._size]
        logits = np.concatenate([part.logits for part in self._parts])[kept]
        truth = np.concatenate([part.truth for part in self._parts])[kept]
        self._parts = [_Part(keys[kept], logits, truth)]
        return self._parts[0]


@dataclass(frozen=True, slots=True)
class _Part:
    """Pixels with the numbers that they drew."""

    keys: np.ndarray
    logits: np.ndarray
    truth: np.ndarray

    @classmethod
    def empty(cls, classes: int) -> "_Part":
        logits = np.empty((0, classes), dtype=np.float32)
        return cls(np.empty(0), logits, np.empty(0, dtype=np.int16))
