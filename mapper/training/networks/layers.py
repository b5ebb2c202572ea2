"""Small parts that several networks share."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch normalisation, ReLU; the size stays."""

    def __init__(
        self,
        given: int,
        wanted: int,
        kernel: int = 3,
        dilation: int = 1,
        groups: int = 1,
    ) -> None:
        """`given` channels to `wanted` channels."""
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(
                given,
                wanted,
                kernel,
                padding=padding,
                dilation=dilation,
                groups=groups,
                bias=False,
            ),
            nn.BatchNorm2d(wanted),
            nn.ReLU(inplace=True),
        )


class SeparableConv(nn.Sequential):
    """Depthwise 3x3 and pointwise 1x1 convolution, each normalised (Xception)."""

    def __init__(self, given: int, wanted: int, dilation: int = 1) -> None:
        """`given` channels to `wanted` channels."""
        super().__init__(
            ConvNormAct(given, given, 3, dilation, groups=given), ConvNormAct(given, wanted, 1)
        )


def resized(image: Tensor, like: Tensor, align_corners: bool = False) -> Tensor:
    """Bilinear to the height and width of another."""
    return functional.interpolate(
        image, size=like.shape[2:], mode="bilinear", align_corners=align_corners
    )


def pooled(image: Tensor, cells: int) -> Tensor:
    """Means over a grid of `cells` x `cells`, as adaptive average pooling has them.

    Written as two products with a matrix of shares: exporters know adaptive pooling only where
    the cells divide the size.
    """
    rows = _shares(image.shape[2], cells, image)
    cols = _shares(image.shape[3], cells, image)
    return torch.matmul(torch.matmul(rows, image), cols.transpose(0, 1))


def _shares(size: int, cells: int, like: Tensor) -> Tensor:
    """`(cells, size)`: 1 / n where a pixel belongs to the cell, 0 elsewhere."""
    cell = torch.arange(cells, device=like.device).unsqueeze(1)
    pixel = torch.arange(size, device=like.device).unsqueeze(0)
    begin = torch.div(cell * size, cells, rounding_mode="floor")
    end = torch.div((cell + 1) * size + cells - 1, cells, rounding_mode="floor")
    inside = (pixel >= begin) & (pixel < end)
    return inside.to(like.dtype) / (end - begin).to(like.dtype)


class PyramidPooling(nn.Module):
    """Pyramid pooling (Zhao et al. 2017): means over several grids beside the features."""

    def __init__(self, given: int, wanted: int, grids: Sequence[int] = (1, 2, 3, 6)) -> None:
        """`given` channels; each grid adds `wanted`, and so many come out."""
        super().__init__()
        self.grids = tuple(grids)
        self.branches = nn.ModuleList(ConvNormAct(given, wanted, 1) for _ in self.grids)
        self.bottleneck = ConvNormAct(given + len(self.grids) * wanted, wanted, 3)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, wanted, y, x)`."""
        parts = [features]
        for cells, branch in zip(self.grids, self.branches, strict=True):
            parts.append(resized(branch(pooled(features, cells)), features))
        out: Tensor = self.bottleneck(torch.cat(parts, dim=1))
        return out


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017): 1x1, dilated 3x3, image pooling."""

    def __init__(self, given: int, rates: Sequence[int], wanted: int = 256) -> None:
        """`given` channels to `wanted`."""
        super().__init__()
        self.branches = nn.ModuleList(
            [ConvNormAct(given, wanted, 1), *(ConvNormAct(given, wanted, 3, r) for r in rates)]
        )
        self.pooling = ConvNormAct(given, wanted, 1)
        self.project = nn.Sequential(
            ConvNormAct((len(rates) + 2) * wanted, wanted, 1), nn.Dropout(0.5)
        )

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, wanted, y, x)`."""
        parts = [branch(features) for branch in self.branches]
        mean = self.pooling(features.mean(dim=(2, 3), keepdim=True))
        parts.append(mean.expand(-1, -1, features.shape[2], features.shape[3]))
        out: Tensor = self.project(torch.cat(parts, dim=1))
        return out
