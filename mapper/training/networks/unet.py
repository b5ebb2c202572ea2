"""U-Net in two published forms: mmsegmentation's and the one widely copied from milesial."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapper.training.networks.layers import ConvNormAct
from mapper.training.networks.network import Segmenter


def double_conv(given: int, wanted: int, between: int | None = None) -> nn.Sequential:
    """Two 3x3 convolutions, each normalised."""
    middle = between or wanted
    return nn.Sequential(ConvNormAct(given, middle), ConvNormAct(middle, wanted))


class Rise(nn.Module):
    """One step up: bilinear, 1x1 convolution, then two convolutions beside the skip."""

    def __init__(self, given: int, wanted: int) -> None:
        """`given` channels from below, `wanted` of the skip and of the result."""
        super().__init__()
        self.lift = ConvNormAct(given, wanted, 1)
        self.merge = double_conv(2 * wanted, wanted)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """`(batch, wanted, y, x)` of the skip's size."""
        up = functional.interpolate(below, scale_factor=2.0, mode="bilinear", align_corners=False)
        out: Tensor = self.merge(torch.cat([skip, self.lift(up)], dim=1))
        return out


class Ladder(nn.Module):
    """Encoder with max pooling and decoder with interpolation (Ronneberger et al. 2015)."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        """`widths` are the channels at 1, 1/2, 1/4 and so on."""
        super().__init__()
        self.down = nn.ModuleList(double_conv(a, b) for a, b in pairwise([channels, *widths]))
        self.up = nn.ModuleList(Rise(b, a) for a, b in reversed(list(pairwise(widths))))

    def forward(self, image: Tensor) -> Tensor:
        """`(batch, widths[0], y, x)` of the input's size."""
        skips: list[Tensor] = []
        for level, stage in enumerate(self.down):
            image = stage(functional.max_pool2d(image, 2) if level else image)
            skips.append(image)
        image = skips.pop()
        for rise in self.up:
            image = rise(image, skips.pop())
        return image


class UNet(Segmenter):
    """U-Net of any width and depth that sees no farther than its convolutions.

    The small network of models that train on two processor cores: depth 4 and width 16 has
    0.5 million parameters.
    """

    head_names = ("classify",)

    def __init__(self, channels: int, classes: int, width: int = 32, depth: int = 4) -> None:
        """`depth` counts the levels, full size included; each is twice as wide as the last."""
        super().__init__()
        self.multiple = 2 ** (depth - 1)
        self.ladder = Ladder(channels, [width * 2**level for level in range(depth)])
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """See `Segmenter`."""
        logits: Tensor = self.classify(self.ladder(image))
        return logits
