"""The U-Net of Five-Billion-Pixels and DPA."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapper.training.networks.network import Segmenter
from mapper.training.networks.unet import double_conv


class FbpRise(nn.Module):
    """One step up: bilinear with aligned corners, padded to the skip, two convolutions."""

    def __init__(self, given: int, wanted: int) -> None:
        """`given` channels of both inputs together."""
        super().__init__()
        self.merge = double_conv(given, wanted, given // 2)

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """`(batch, wanted, y, x)` of the skip's size."""
        up = functional.interpolate(below, scale_factor=2.0, mode="bilinear", align_corners=True)
        down, right = skip.shape[2] - up.shape[2], skip.shape[3] - up.shape[3]
        up = functional.pad(up, [right // 2, right - right // 2, down // 2, down - down // 2])
        out: Tensor = self.merge(torch.cat([skip, up], dim=1))
        return out


class FbpUNet(Segmenter):
    """U-Net 64-128-256-512-512 (Tong et al. 2023, doi 10.1016/j.isprsjprs.2022.12.011).

    Published: NIR, red, green, blue in; 25 channels out, of which the first is "unlabelled",
    never taught and never predicted: it is kept for weights of the published layout and left
    out of what the network yields, as the published prediction leaves it out. 17.3 million
    parameters.
    """

    head_names = ("classify",)

    def __init__(self, channels: int = 4, classes: int = 24, width: int = 64) -> None:
        """`width` is 64 in the published form; `classes` does not count "unlabelled"."""
        super().__init__()
        w = width
        self.inlet = double_conv(channels, w)
        self.down = nn.ModuleList(
            double_conv(a, b)
            for a, b in ((w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w), (8 * w, 8 * w))
        )
        self.up = nn.ModuleList(
            FbpRise(a, b) for a, b in ((16 * w, 4 * w), (8 * w, 2 * w), (4 * w, w), (2 * w, w))
        )
        self.classify = nn.Conv2d(w, classes + 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """See `Segmenter`; sides that 16 does not divide are padded as published."""
        skips = [self.inlet(image)]
        for stage in self.down:
            skips.append(stage(functional.max_pool2d(skips[-1], 2)))
        image = skips.pop()
        for rise in self.up:
            image = rise(image, skips.pop())
        logits: Tensor = self.classify(image)[:, 1:]
        return logits
