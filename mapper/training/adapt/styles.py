"""Source images in the colours of the target, by moments or by amplitudes."""

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
    strength: Tensor | None = None,
) -> Tensor:
    """Each band of light with the mean and standard deviation of a target image (Reinhard 2001).

    Targets are handed out by a random permutation of their batch, drawn on the CPU. Moments are
    of valid pixels; `strength` `(batch,)` from 0 to 1 goes only so far from the image's own ones
    to the target's, by default all the way. A band is only shifted where it, or the target's, is
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
    if strength is not None:
        part = strength.to(image).reshape(-1, 1, 1, 1)
        wanted, reach = torch.lerp(mean, wanted, part), torch.lerp(spread, reach, part)
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


def swapped_amplitude(image: Tensor, target: Tensor, beta: float) -> Tensor:
    """Low frequencies with the amplitudes of the target (Yang & Soatto 2020); float32.

    Those of at most `floor(beta * shorter side)` cycles along y and along x; `beta` 0 swaps the
    mean alone. Phases stay. Target image `k % len(target)` gives those of image k; both have one
    size, and values that are no data must have been filled: here they count like any other.
    """
    turn = torch.arange(len(image), device=target.device) % len(target)
    height, width = image.shape[2:]
    own = torch.fft.rfft2(image.float())
    other = torch.fft.rfft2(target.float()[turn])
    most = int(min(height, width) * beta)
    rows = torch.arange(height, device=image.device)
    low_y = torch.minimum(rows, height - rows) <= most
    low_x = torch.arange(width // 2 + 1, device=image.device) <= most
    swapped = torch.polar(other.abs(), own.angle())
    mixed = torch.where(low_y.unsqueeze(1) & low_x, swapped, own)
    return torch.fft.irfft2(mixed, s=(height, width))
