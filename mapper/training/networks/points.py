"""PointRend (Kirillov et al. 2020): labels are decided again where they are least certain."""

import torch
from torch import Tensor, nn
from torch.nn import functional

TRAINING_FACTOR = 4
"""Points a row of the image in training: 4 x 512 = 2,048."""
OVERSAMPLING = 3
IMPORTANCE = 0.75
REFINED = 1024
"""Points decided again in each step of inference."""


def point_values(features: Tensor, points: Tensor, align_corners: bool = False) -> Tensor:
    """Bilinear values `(batch, channel, n)` at points `(batch, n, 2)`, x and y from 0 to 1."""
    features = _wide(features)
    grid = 2.0 * points.to(features.dtype).unsqueeze(2) - 1.0
    return functional.grid_sample(
        features, grid, mode="bilinear", padding_mode="border", align_corners=align_corners
    ).squeeze(3)


def _wide(values: Tensor) -> Tensor:
    """At least float32: sixteen bits do not tell the columns of an image apart."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def uncertainty(logits: Tensor) -> Tensor:
    """Minus the distance of the two highest logits: 0 is least certain."""
    top = logits.topk(2, dim=1).values
    return top[:, 1] - top[:, 0]


def training_points(logits: Tensor, count: int) -> Tensor:
    """Points `(batch, count, 2)`: three quarters uncertain ones, the rest anywhere."""
    batch = logits.shape[0]
    important = int(IMPORTANCE * count)
    drawn = torch.rand(batch, OVERSAMPLING * count, 2, device=logits.device)
    order = uncertainty(point_values(logits, drawn)).topk(important, dim=1).indices
    chosen = torch.gather(drawn, 1, order.unsqueeze(2).expand(-1, -1, 2))
    anywhere = torch.rand(batch, count - important, 2, device=logits.device)
    return torch.cat([chosen, anywhere], dim=1)


class PointHead(nn.Module):
    """One 1x1 layer on coarse logits and fine features: 2 + 512 = 514 channels as published."""

    def __init__(self, features: int, classes: int) -> None:
        """`features` channels of the fine features."""
        super().__init__()
        self.layer = nn.Conv1d(features + classes, classes, 1)

    def at(self, logits: Tensor, features: Tensor, points: Tensor) -> Tensor:
        """Logits `(batch, class, n)` at points."""
        seen = [point_values(logits, points), point_values(features, points)]
        out: Tensor = self.layer(torch.cat(seen, dim=1).to(self.layer.weight.dtype))
        return out

    def refine(self, logits: Tensor, features: Tensor, steps: int) -> Tensor:
        """Double the size `steps` times; in each the least certain pixels are decided again.

        Unrolled, so that it exports; smaller images decide all of their pixels.
        """
        for _ in range(steps):
            logits = functional.interpolate(
                logits, scale_factor=2.0, mode="bilinear", align_corners=True
            )
            height, width = logits.shape[2], logits.shape[3]
            flat = logits.flatten(2)
            count = min(REFINED, int(height) * int(width))
            order = uncertainty(logits).flatten(1).topk(count, dim=1).indices
            kind = _wide(logits).dtype
            x = (order % width).to(kind) + 0.5
            y = torch.div(order, width, rounding_mode="floor").to(kind) + 0.5
            points = torch.stack([x / width, y / height], dim=2)
            decided = self.at(logits, features, points)
            index = order.unsqueeze(1).expand(-1, flat.shape[1], -1)
            logits = flat.scatter(2, index, decided.to(flat.dtype)).reshape_as(logits)
        return logits
