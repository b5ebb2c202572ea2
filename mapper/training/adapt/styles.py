"""Source images in the colours of the target, by the moments of each band."""

import torch
from torch import Tensor

_FLAT = 1e-5
"""Standard deviations below this share of the mean, or of 1, are rounding."""


def restyled(
    image: Tensor,
    valid: Tensor,
    target: Tensor,
    target_valid: Tensor,
    light: Tensor,
    strength: float = 1.0,
) -> Tensor:
    """Each band of light with the mean and standard deviation of a target image (Reinhard 2001).

    Targets are handed out by a random permutation of their batch, drawn on the CPU. Moments are
    of valid pixels; `strength` from 0 to 1 goes only so far from the image's own ones to the
    target's. A band is only shifted where it, or the target's, is
    flat, and stays as it is where either has no data. So do values that are no data.

    Args:
        image: `(batch, band, y, x)`; `valid` beside it is 1 where it is data.
        valid: see `image`.
        target: `(batch, band, y, x)` of any batch, height and width.
        target_valid: of `target`.
        light: bool per band; other bands stay as they are.
        strength: see above.
    """
    order = torch.randperm(len(target))[torch.arange(len(image)) % len(target)]
    order = order.to(target.device)
    known, seen = valid > 0.5, target_valid > 0.5
    mean, spread, count = _moments(image, known)
    wanted, reach, there = (found[order] for found in _moments(target, seen))
    wanted, reach = torch.lerp(mean, wanted, strength), torch.lerp(spread, reach, strength)
    flat = _is_flat(mean, spread) | _is_flat(wanted, reach)
    gain = torch.where(flat, 1.0, reach / spread.clamp(min=torch.finfo(spread.dtype).tiny))
    moved = wanted + (image - mean) * gain
    both = (count > 0) & (there > 0) & light.to(image.device).reshape(1, -1, 1, 1)
    return torch.where(known & both, moved, image)


def _moments(image: Tensor, known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, standard deviation and count of what is data, `(batch, band, 1, 1)` each."""
    count = known.sum(dim=(2, 3), keepdim=True)
    least = count.clamp(min=1)
    mean = torch.where(known, image, 0.0).sum(dim=(2, 3), keepdim=True) / least
    square = torch.where(known, (image - mean) ** 2, 0.0).sum(dim=(2, 3), keepdim=True)
    return mean, (square / least).sqrt(), count


def _is_flat(mean: Tensor, spread: Tensor) -> Tensor:
    return spread <= _FLAT * mean.abs().clamp(min=1)
