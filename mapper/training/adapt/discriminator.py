"""A discriminator of domains over maps of probabilities (Tsai et al. 2018)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from mapper.errors import ModelError

LEAST_SIDE = 32
"""Pixels that five halvings leave one of."""


class Discriminator(nn.Module):
    """Says of each part of a map whether it is of the source: five 4x4 convolutions of stride 2.

    As in UGSNet: channels `width` times 1, 2, 4, 8, then 1; LeakyReLU of 0.2 between.
    """

    def __init__(self, classes: int, width: int = 64) -> None:
        """`classes` of the maps."""
        super().__init__()
        sizes = [classes, width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = []
        for given, wanted in pairwise(sizes):
            layers += [nn.Conv2d(given, wanted, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(sizes[-1], 1, 4, stride=2, padding=1))

    def forward(self, probabilities: Tensor) -> Tensor:
        """Logits `(batch, 1, y / 32, x / 32)` of being source, for softmax `(batch, class, y, x)`.

        Raises: ModelError where a side is shorter than 32 pixels.
        """
        height, width = probabilities.shape[2:]
        if min(height, width) < LEAST_SIDE:
            raise ModelError(
                f"a map of {height} x {width} px for the discriminator, which halves it five "
                f"times; take patches of at least {LEAST_SIDE} px (train.patch)"
            )
        logits: Tensor = self.layers(probabilities)
        return logits


def domain_loss(logits: Tensor, source: bool) -> Tensor:
    """Binary cross entropy, mean over all cells, towards source (1) or target (0)."""
    wanted = torch.full_like(logits, float(source), dtype=torch.float32)
    return functional.binary_cross_entropy_with_logits(logits.float(), wanted)


def frozen_forward(discriminator: Discriminator, probabilities: Tensor) -> Tensor:
    """Its logits with a gradient for the maps and none for its own weights.

    So the loss that fools it and its own may be summed and go backward once.
    """
    held = {name: weight.detach() for name, weight in discriminator.named_parameters()}
    logits: Tensor = functional_call(discriminator, held, (probabilities,))
    return logits
