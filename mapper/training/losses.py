"""Losses of segmentation: cross entropy, soft Dice, focal, with weights of classes or pixels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mapper.errors import DataError
from mapper.recipe.learning import Loss
from mapper.training.networks.network import Criterion

IGNORED = -1
"""Class index of pixels that teach nothing."""


def make_criterion(loss: Loss, weights: Sequence[float] | None) -> Criterion:
    """The weighted sum that a recipe asks for, over logits `(batch, class, ...)` and indices."""
    table = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    def criterion(logits: Tensor, label: Tensor) -> Tensor:
        logits = logits.float()
        own = None if table is None else table.to(logits.device)
        total = logits.sum() * 0.0
        if not bool((label != IGNORED).any()):
            return total
        if loss.cross_entropy:
            entropy = functional.cross_entropy(logits, label, own, ignore_index=IGNORED)
            total = total + loss.cross_entropy * entropy
        if loss.focal:
            total = total + loss.focal * focal_loss(logits, label, loss.gamma, own)
        if loss.dice:
            total = total + loss.dice * dice_loss(logits, label)
        return total

    return criterion


def focal_loss(logits: Tensor, label: Tensor, gamma: float, weights: Tensor | None) -> Tensor:
    """Cross entropy times (1 - p)^gamma (Lin et al. 2017), mean over pixels that teach."""
    entropy = functional.cross_entropy(logits, label, reduction="none", ignore_index=IGNORED)
    taught = label != IGNORED
    factor = (1 - torch.exp(-entropy)) ** gamma
    if weights is None:
        return (factor * entropy)[taught].mean()
    own = weights[label.clamp(min=0)][taught]
    return (own * (factor * entropy)[taught]).sum() / own.sum()


def dice_loss(logits: Tensor, label: Tensor) -> Tensor:
    """1 - soft Dice, mean over the classes that occur in the labels (Milletari et al. 2016)."""
    taught = (label != IGNORED).unsqueeze(1)
    share = logits.softmax(dim=1) * taught
    truth = functional.one_hot(label.clamp(min=0), logits.shape[1]).movedim(-1, 1) * taught
    dims = [0, *range(2, logits.dim())]
    both, either = (share * truth).sum(dims), (share + truth).sum(dims)
    present = truth.sum(dims) > 0
    return (1 - 2 * both / either.clamp(min=1e-6))[present].mean()


def class_weights(counts: Sequence[int], pixels: int) -> list[float]:
    """1 / ln(1.02 + f), f the share of a class among all pixels, untaught ones included.

    The rule behind the published weights of Five-Billion-Pixels (Paszke et al. 2016, ENet).
    Raises: DataError where there is no pixel at all.
    """
    if pixels <= 0:
        raise DataError("no pixel has a label; class weights need some")
    return [1 / math.log(1.02 + count / pixels) for count in counts]


def weighted_entropy(logits: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Cross entropy, each pixel by its weight `(batch, y, x)`, over the count of all pixels."""
    entropy = functional.cross_entropy(
        logits.float(), label, reduction="none", ignore_index=IGNORED
    )
    return (entropy * weight).mean()
