"""Masked images: the student has to guess a part from what surrounds it (Hoyer et al. 2023)."""

import torch
from torch import Tensor


def hidden(
    batch: int, height: int, width: int, share: float, side: float, device: torch.device | str
) -> Tensor:
    """`(batch, 1, y, x)` bool, True is hidden: each square of a lattice with probability `share`.

    Squares have `round(side * height)` pixels, one at least, and begin at the upper left corner;
    those at the lower and right edge may be cut. Drawn on the CPU, alike for every device.
    """
    cell = max(1, round(side * height))
    drawn = torch.rand(batch, 1, -(-height // cell), -(-width // cell)) < share
    squares = drawn.repeat_interleave(cell, dim=2).repeat_interleave(cell, dim=3)
    return squares[..., :height, :width].to(device)


def masked(image: Tensor, valid: Tensor, hide: Tensor) -> tuple[Tensor, Tensor]:
    """Image with 0 where it is hidden, which is the mean of z-scored bands; validity as it is.

    The network is not told that data are missing there: it is to say what they are.
    """
    return image.masked_fill(hide, 0.0), valid
