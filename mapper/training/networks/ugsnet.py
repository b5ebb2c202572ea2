"""UGSNet: the network of UGS-1m."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapper.training.networks.backbone import ResNet, ResNetName, multi_grid
from mapper.training.networks.layers import ConvNormAct, resized
from mapper.training.networks.network import Criterion, Segmenter
from mapper.training.networks.points import (
    TRAINING_FACTOR,
    PointHead,
    training_points,
)


class CoordinateAttention(nn.Module):
    """Enhanced coordinate attention: along rows, along columns and over channels.

    Coordinate attention (Hou et al. 2021) with 3x3 instead of 1x1 convolutions and a third,
    channel-wise branch. Output = x * channels * columns * rows; the shape stays.
    """

    def __init__(self, channels: int) -> None:
        """The inner width is a sixteenth of the channels, at least 8."""
        super().__init__()
        inner = max(8, channels // 16)
        self.squeeze = nn.Sequential(
            nn.Conv2d(channels, inner, 1), nn.BatchNorm2d(inner), nn.Hardswish()
        )
        self.rows = nn.Conv2d(inner, channels, 3, padding=1)
        self.cols = nn.Conv2d(inner, channels, 3, padding=1)
        self.channels = nn.Sequential(
            nn.Conv2d(channels, inner, 1),
            nn.BatchNorm2d(inner),
            nn.Hardswish(),
            nn.Conv2d(inner, channels, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, channel, y, x)` in and out."""
        height, width = features.shape[2], features.shape[3]
        along_y = features.mean(dim=3, keepdim=True)
        along_x = features.mean(dim=2, keepdim=True).transpose(2, 3)
        both = self.squeeze(torch.cat([along_y, along_x], dim=2))
        of_rows = self.rows(both.narrow(2, 0, height)).sigmoid()
        of_cols = self.cols(both.narrow(2, height, width).transpose(2, 3)).sigmoid()
        of_channels = self.channels(features.mean(dim=(2, 3), keepdim=True)).sigmoid()
        weighted: Tensor = features * of_channels * of_cols * of_rows
        return weighted


class UGSNet(Segmenter):
    """UGSNet (Shi et al. 2023, doi 10.5194/essd-15-555-2023).

    ResNet-50 with a stem of stride 1, so that its features lie at 1/2, 1/4, 1/8 and 1/16; the
    last stage is a multi-grid of dilations 1, 2, 4; coordinate attention after each stage; all
    four are brought to 96 channels at 1/4 and fused; a point head decides 1,024 pixels again in
    each of two steps to full size. RGB in, two classes out; 32.1 million parameters.
    """

    global_context = True
    least_batch = 2
    stepwise = True
    multiple = 16
    head_names = ("levels", "fuse", "classify", "points")
    class_layers = ("classify", "points.layer")
    class_inputs = ("points.layer",)

    def __init__(
        self,
        channels: int = 3,
        classes: int = 2,
        backbone: ResNetName = "resnet50",
        width: float = 1.0,
        point_weight: float = 1.0,
        pretrained: str | None = None,
    ) -> None:
        """`width` scales the backbone's channels; 1 is the published form."""
        super().__init__()
        self.backbone = ResNet(channels, backbone, 32, width, pretrained)
        self.backbone.body.embedder.embedder.convolution.stride = (1, 1)
        last = self.backbone.body.encoder.stages[3]
        multi_grid(last, [2**n for n in range(len(last.layers))])
        widths = self.backbone.widths
        self.attention = nn.ModuleList(CoordinateAttention(w) for w in widths)
        self.levels = nn.ModuleList(ConvNormAct(w, 96, 1) for w in widths)
        self.fuse = nn.Sequential(ConvNormAct(4 * 96, 256, 3), nn.Dropout(0.5))
        self.classify = nn.Conv2d(256, classes, 1)
        self.points = PointHead(widths[1], classes)
        self.point_weight = point_weight

    def forward(self, image: Tensor) -> Tensor:
        """See `Segmenter`."""
        coarse, features = self.coarse(image)
        return self.points.refine(coarse, features, steps=2)

    def coarse(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits at 1/4 and the features of the second stage beside them."""
        found = self.backbone.body.embedder(image)
        features = []
        for stage, attention in zip(self.backbone.body.encoder.stages, self.attention, strict=True):
            found = attention(stage(found))
            features.append(found)
        fine = features[1]
        levels = [
            resized(level(f), fine, align_corners=True)
            for level, f in zip(self.levels, features, strict=True)
        ]
        return self.classify(self.fuse(torch.cat(levels, dim=1))), fine

    def loss(self, image: Tensor, label: Tensor, criterion: Criterion) -> Tensor:
        """Of the coarse logits over all pixels, and of the point head at sampled points."""
        coarse, features = self.coarse(image)
        full = functional.interpolate(
            coarse, size=label.shape[1:], mode="bilinear", align_corners=True
        )
        points = training_points(coarse, TRAINING_FACTOR * label.shape[2])
        decided = self.points.at(coarse, features, points)
        return criterion(full, label) + self.point_weight * criterion(
            decided, _labels_at(label, points)
        )


def _labels_at(label: Tensor, points: Tensor) -> Tensor:
    """Label `(batch, n)` of the pixel that each point lies in."""
    height, width = label.shape[1], label.shape[2]
    x = (points[..., 0] * width).long().clamp(0, width - 1)
    y = (points[..., 1] * height).long().clamp(0, height - 1)
    return torch.gather(label.flatten(1), 1, y * width + x)
