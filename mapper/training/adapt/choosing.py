"""Which epoch of an adaptation is kept, judged without a label of the target.

Each measure rests on the probabilities that a network gives to target patches:

- `entropy`: how unsure it is. A network that calls everything one class is sure, too.
- `information`: entropy of the mean minus mean of the entropies (Shi and Sha 2012), which is 0
  for such a network.
- `density`: soft neighbourhood density (Saito et al. 2021), high where pixels form clusters.
- `agreement`: how often a pixel keeps its class when the patch is mirrored or turned.

None of them is a score. `dominance`, the share of the commonest class, is there to see a collapse,
which `entropy` and `agreement` reward.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from mapper.errors import ModelError
from mapper.recipe.adapting import Criterion

SAMPLE = 4096
"""Pixels whose neighbourhood is looked at: all pairs of them are held against each other."""
TEMPERATURE = 0.05
"""Of similarities, as published."""
_SEED = 20210809
_ROWS = 512
"""Of the table of all pairs that are in memory at once."""
_SIGNS = {"entropy": -1.0}
_KEYS = {"last": "epoch", "source": "miou"}
"""Where a line of the journal holds what a criterion goes by, if under another name."""


class TargetMeasures:
    """Measures of a network on unlabelled patches, in memory that does not grow with them.

    The pixels of the sample are those with the smallest of random keys, which are drawn pixel by
    pixel: how patches are batched changes nothing.
    """

    def __init__(self, classes: int) -> None:
        """`classes` is the number of channels."""
        self.classes = classes
        self._sums = np.zeros(4 + 2 * classes)
        self._rng = np.random.default_rng(_SEED)
        self._keys = np.zeros(0)
        self._vectors = np.zeros((0, classes), np.float32)

    def add(self, probabilities: Tensor, other: Tensor | None, valid: Tensor) -> None:
        """Take in a batch.

        Args:
            probabilities: `(batch, class, y, x)`, summing to 1 over classes.
            other: of the same pixels from a changed view, turned back; None where there is none.
            valid: which pixels count, bool or 1/0: `(batch, y, x)`, or `(batch, band, y, x)`, of
                which those count that have data in any band.
        """
        seen = valid > 0.5
        seen = seen.any(dim=1) if seen.dim() == 4 else seen
        rows = probabilities.detach().movedim(1, -1)[seen]
        if not len(rows):
            return
        choice = rows.argmax(dim=1)
        agreed = compared = rows.new_zeros(())
        if other is not None:
            agreed = (choice == other.detach().argmax(dim=1)[seen]).sum()
            compared = agreed.new_tensor(len(rows))
        parts = [
            torch.stack([rows.new_tensor(len(rows)), agreed, compared]).double(),
            torch.special.entr(rows).double().sum().reshape(1),
            rows.double().sum(dim=0),
            torch.bincount(choice, minlength=self.classes).double(),
        ]
        self._sums += torch.cat(parts).cpu().numpy()
        self._sample(rows)

    @property
    def seen(self) -> int:
        """Pixels that count."""
        return int(self._sums[0])

    @property
    def shares(self) -> np.ndarray:
        """Share of the pixels that each class is given, float64."""
        count = self._sums[0]
        return self._sums[4 + self.classes :] / count if count else np.full(self.classes, np.nan)

    def result(self) -> dict[str, float]:
        """`entropy`, `information`, `density`, `agreement` and `dominance`.

        The first two are shares of the logarithm of the number of classes, so all but `density`
        lie between 0 and 1. NaN where no pixel was valid, or none was seen in two views.
        """
        count, agreed, compared, summed = self._sums[:4]
        unit = math.log(max(2, self.classes))
        mean = self._sums[4 : 4 + self.classes] / count if count else np.full(self.classes, np.nan)
        entropy = summed / count / unit if count else math.nan
        overall = float(torch.special.entr(torch.from_numpy(mean)).sum()) / unit
        return {
            "entropy": float(entropy),
            "information": float(overall - entropy),
            "density": neighbourhood_density(torch.from_numpy(self._vectors)),
            "agreement": float(agreed / compared) if compared else math.nan,
            "dominance": float(self.shares.max()),
        }

    def _sample(self, rows: Tensor) -> None:
        """Keep pixels with small keys; one is drawn for every pixel, kept or not."""
        keys = self._rng.random(len(rows))
        limit = self._keys.max() if len(self._keys) == SAMPLE else math.inf
        small = np.flatnonzero(keys < limit)
        small = small[np.argsort(keys[small])[:SAMPLE]]
        if len(small):
            chosen = rows[torch.from_numpy(small).to(rows.device)]
            self._keep(keys[small], chosen.float().cpu().numpy())

    def _keep(self, keys: np.ndarray, vectors: np.ndarray) -> None:
        keys = np.concatenate([self._keys, keys])
        order = np.argsort(keys, kind="stable")[:SAMPLE]
        self._vectors = np.concatenate([self._vectors, vectors])[order]
        self._keys = keys[order]


def neighbourhood_density(probabilities: Tensor, temperature: float = TEMPERATURE) -> float:
    """Mean entropy, in nats, of how like the other pixels each pixel is.

    `(pixel, class)`; NaN for fewer than two pixels. At most the logarithm of their number less
    one, where every pixel is as like to all others.
    """
    count = len(probabilities)
    if count < 2:
        return math.nan
    unit = torch.nn.functional.normalize(probabilities.float(), dim=1)
    total = 0.0
    for start in range(0, count, _ROWS):
        likeness = unit[start : start + _ROWS] @ unit.T / temperature
        row = torch.arange(len(likeness))
        likeness[row, row + start] = -math.inf
        total += float(torch.special.entr(likeness.softmax(dim=1)).sum(dtype=torch.float64))
    return total / count


def score(measures: Mapping[str, float], criterion: Criterion) -> float:
    """What an epoch is chosen by, higher is better; NaN where it was not measured.

    `source` goes by `miou`, the score on the held-out part of the source; `last` by `epoch`.
    """
    value = measures.get(_KEYS.get(criterion, criterion), math.nan)
    return _SIGNS.get(criterion, 1.0) * float(value)


def choose_epoch(lines: Sequence[Mapping[str, float]], criterion: Criterion) -> int:
    """Index of the line of the journal whose weights are kept.

    Of equal ones the first, which is also the one that a checkpoint of the best is of; NaN is
    never chosen.

    Raises: ModelError where no line has a number to go by.
    """
    scores = [score(line, criterion) for line in lines]
    known = [number for number, value in enumerate(scores) if not math.isnan(value)]
    if not known:
        raise ModelError(
            f"none of {len(lines)} epochs has a number for train.adapt.choose {criterion!r}; the "
            "training went astray, or choose: last"
        )
    return max(known, key=lambda number: scores[number])


def stopped(
    lines: Sequence[Mapping[str, float]], criterion: Criterion, patience: int | None
) -> bool:
    """True where so many epochs have passed since the criterion was last better than before.

    An equal value is not better. None never stops.
    """
    if patience is None:
        return False
    best, since = -math.inf, 0
    for line in lines:
        value = score(line, criterion)
        since = 0 if value > best else since + 1
        best = max(best, value) if value == value else best
    return since >= patience
