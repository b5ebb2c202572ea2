"""Labels of the target that a network gives itself, and which of them are to be believed.

Probabilities are `(batch, class, y, x)`, labels `(batch, y, x)` int64 with -1 where nothing is
taught. `valid` is `(batch, band, y, x)`, 1 where a band is data, or None where all of them are;
a pixel without any valid band is never taught. Shares are of pixels and rounded half up.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

from mapper.training.losses import IGNORED


def entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy over the classes, `(batch, y, x)`: 0 is certain, 1 is all classes alike."""
    return torch.special.entr(probabilities).sum(dim=1) / math.log(probabilities.shape[1])


def dpa_share(epoch: int, epochs: int, most: float) -> float:
    """Share of the pixels that teach in an epoch, counted from 0; the last one teaches `most`."""
    return (epoch + 1) / epochs * most


def lowest_entropy(probabilities: Tensor, valid: Tensor | None, share: float) -> Tensor:
    """The likeliest class of the share of valid pixels with the least entropy (Tong et al. 2023).

    Pixels of the whole batch are ranked together by a stable sort: of equal ones the first of
    the batch, then the uppermost, then the leftmost comes first.
    """
    seen = _seen(probabilities, valid)
    value = entropy(probabilities).masked_fill(~seen, math.inf).flatten()
    order = value.sort(stable=True).indices[: share_of(share, int(seen.sum()))]
    taught = torch.zeros_like(seen).flatten()
    taught[order] = True
    return _taught(probabilities.argmax(dim=1), taught.view_as(seen) & seen)


def confident(
    probabilities: Tensor, valid: Tensor | None, threshold: float
) -> tuple[Tensor, Tensor]:
    """The likeliest class of every valid pixel, and one weight for all (Hoyer et al. 2022).

    The weight is a scalar: the share of valid pixels whose probability reaches the threshold,
    0 where no pixel is valid.
    """
    seen = _seen(probabilities, valid)
    highest, likeliest = probabilities.max(dim=1)
    sure = ((highest >= threshold) & seen).sum()
    return _taught(likeliest, seen), sure / seen.sum().clamp(min=1)


def surest_by_class(probabilities: Tensor, valid: Tensor | None, keep: float) -> Tensor:
    """The surest pixels of each class, so that easy classes do not teach alone (Zou et al. 2018).

    Of the pixels of the batch that are likeliest of a class, the share `keep` with the highest
    probability, one at least. Equal ones as in `lowest_entropy`.
    """
    seen = _seen(probabilities, valid)
    classes = probabilities.shape[1]
    highest, likeliest = probabilities.max(dim=1)
    kind = likeliest.masked_fill(~seen, classes).flatten()
    order = highest.flatten().sort(descending=True, stable=True).indices
    # the second sort keeps the order of the first inside of a class
    ranked, inside = kind[order].sort(stable=True)
    order = order[inside]
    starts = torch.searchsorted(ranked, torch.arange(classes + 1, device=ranked.device))
    bounds = starts.tolist()
    kept = [max(1, share_of(keep, b - a)) for a, b in pairwise(bounds)]
    limits = torch.tensor([*kept, 0], device=ranked.device)
    rank = torch.arange(len(ranked), device=ranked.device) - starts[ranked]
    taught = torch.zeros_like(seen).flatten()
    taught[order] = rank < limits[ranked]
    return _taught(likeliest, taught.view_as(seen))


def _seen(probabilities: Tensor, valid: Tensor | None) -> Tensor:
    """`(batch, y, x)` bool: any band is data."""
    if valid is None:
        return torch.ones_like(probabilities[:, 0], dtype=torch.bool)
    return (valid > 0.5).any(dim=1)


def _taught(label: Tensor, where: Tensor) -> Tensor:
    return label.masked_fill(~where, IGNORED)


def share_of(share: float, count: int) -> int:
    """So many of `count`, rounded half up."""
    return math.floor(share * count + 0.5)
