"""DAFormer and SegFormer over the Mix Transformer."""

import torch
from torch import Tensor, nn

from mapper.training.networks.backbone import MitName, MixTransformer
from mapper.training.networks.layers import ConvNormAct, SeparableConv, resized
from mapper.training.networks.network import Segmenter


class DAFormer(Segmenter):
    """DAFormer (Hoyer et al. 2022, arXiv 2111.14887): Mix Transformer and a context-aware head.

    Each level is brought to 256 channels at 1/4; 1,024 together enter depthwise-separable
    convolutions of dilation 1, 6, 12, 18, without pooling, and a 3x3 bottleneck of 256. The
    published form is MiT-B5: 85.2 million parameters with 19 classes.
    """

    global_context = True
    multiple = 32
    head_names = ("levels", "branches", "bottleneck", "classify")

    def __init__(
        self,
        channels: int = 3,
        classes: int = 5,
        backbone: MitName = "mit-b5",
        width: int = 256,
        pretrained: str | None = None,
    ) -> None:
        """`width` is that of the head."""
        super().__init__()
        self.backbone = MixTransformer(channels, backbone, pretrained)
        self.levels = nn.ModuleList(nn.Conv2d(w, width, 1) for w in self.backbone.widths)
        self.branches = nn.ModuleList(
            [
                ConvNormAct(4 * width, width, 1),
                *(SeparableConv(4 * width, width, rate) for rate in (6, 12, 18)),
            ]
        )
        self.bottleneck = ConvNormAct(4 * width, width, 3)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """See `Segmenter`."""
        features = _at_quarter(self.backbone(image), self.levels)
        wide = torch.cat([branch(features) for branch in self.branches], dim=1)
        return resized(self.classify(self.dropout(self.bottleneck(wide))), image)


class SegFormer(Segmenter):
    """SegFormer (Xie et al. 2021, arXiv 2105.15203): Mix Transformer and an all-MLP head.

    3.8 million parameters with MiT-B0 (head of 256), 84.7 million with B5 (head of 768) and 150
    classes.
    """

    global_context = True
    multiple = 32
    head_names = ("levels", "fuse", "classify")

    def __init__(
        self,
        channels: int = 3,
        classes: int = 5,
        backbone: MitName = "mit-b0",
        width: int | None = None,
        pretrained: str | None = None,
    ) -> None:
        """`width` of the head; 256 for B0 and B1, 768 for the others, as published."""
        super().__init__()
        self.backbone = MixTransformer(channels, backbone, pretrained)
        wide = width or (256 if backbone in ("mit-b0", "mit-b1") else 768)
        self.levels = nn.ModuleList(nn.Conv2d(w, wide, 1) for w in self.backbone.widths)
        self.fuse = ConvNormAct(4 * wide, wide, 1)
        self.dropout = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(wide, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """See `Segmenter`."""
        fused = self.fuse(_at_quarter(self.backbone(image), self.levels))
        return resized(self.classify(self.dropout(fused)), image)


def _at_quarter(features: list[Tensor], levels: nn.ModuleList) -> Tensor:
    """All levels, each through its layer, side by side at the size of the finest."""
    brought = [level(f) for level, f in zip(levels, features, strict=True)]
    return torch.cat([brought[0], *(resized(b, brought[0]) for b in brought[1:])], dim=1)
