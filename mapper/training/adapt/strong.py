"""Strong changes of the light in an image, on tensors and for any number of bands.

Published ones work on red, green and blue alone. Here each of them has a meaning for any set of
bands that hold light, and leaves radar and terrain as they are.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mapper.inference.scaling import scaled, scaling_of
from mapper.recipe.adapting import Mixing
from mapper.recipe.training import Train
from mapper.training.data.augment import BandKinds
from mapper.training.networks.build import source_channels

_LEAST_SIGMA = 1e-3
"""Pixels; below it a blur changes nothing, and 0 cannot be divided by."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Palette:
    """What has to be known of the scaled channels; kept on the CPU.

    `zero` is the target's, though ClassMix pastes pixels of the source, which are scaled otherwise:
    after `matched` both have one mean and deviation, so that the source's differs little.
    """

    light: Tensor
    """Bool per band: it holds light."""
    zero: Tensor
    """Float32 per band: the scaled value of a physical 0."""

    @classmethod
    def of(cls, train: Train) -> "Palette":
        """Of a recipe's bands and scalings. Raises: ModelError for a scaling there is not."""
        kinds = BandKinds.of(train.bands, source_channels(train.bands), train.bands)
        dark = np.zeros((1, len(train.bands), 1, 1), dtype=np.float32)
        zero = scaled(dark, [scaling_of(step) for step in train.scaling])
        return cls(light=torch.from_numpy(kinds.light), zero=torch.from_numpy(zero.ravel()))


def strong(image: Tensor, valid: Tensor, palette: Palette, mixing: Mixing) -> Tensor:
    """Another light and another sharpness, `(batch, band, y, x)` as given; each image by itself.

    Values that are no data stay as they are and have no say in any other. Nothing is clipped.
    All that is drawn is drawn on the CPU, alike for every device.
    """
    light = palette.light.nonzero().flatten()
    drawn = torch.rand(len(image), 6 + len(light))
    if not len(light):
        return image
    zero = palette.zero[light].to(image).reshape(1, -1, 1, 1)
    light, draw = light.to(image.device), drawn.to(image.device)
    before = seen = image[:, light]
    known = valid[:, light] > 0.5
    jittered = _jittered(seen, known, zero, _factors(draw[:, 3:], mixing.jitter))
    seen = torch.where(_each(draw[:, 0] < mixing.jittered), jittered, seen)
    low, high = mixing.sigma
    blurred = _blurred(seen, known, low + (high - low) * draw[:, 2], max(low, high))
    seen = torch.where(_each(draw[:, 1] < mixing.blurred), blurred, seen)
    changed = image.clone()
    changed[:, light] = torch.where(known, seen, before)
    return changed


def _each(value: Tensor) -> Tensor:
    """One value an image, to meet `(batch, band, y, x)`."""
    return value.reshape(-1, 1, 1, 1)


def _factors(draw: Tensor, strength: float) -> Tensor:
    """About 1: brightness, contrast and saturation by the strength, gains of bands by half of it.

    Never below 0.
    """
    reach = torch.full_like(draw[0], strength / 2)
    reach[:3] = strength
    return (1 + reach * (2 * draw - 1)).clamp(min=0)


def _jittered(seen: Tensor, known: Tensor, zero: Tensor, factors: Tensor) -> Tensor:
    """Brightness about physical zero, contrast about each band's mean, saturation about grey.

    In this order. A gain of each band goes with the brightness, in the place of a turned hue,
    which only three bands have. Grey is the mean of the bands of light that are data.
    """
    brightness, contrast, saturation = (_each(factors[:, k]) for k in range(3))
    gain = factors[:, 3:, None, None]
    seen = zero + (seen - zero) * brightness * gain
    mean = _mean(seen, known, (2, 3))
    seen = mean + (seen - mean) * contrast
    if seen.shape[1] < 2:
        return seen
    grey = _mean(seen, known, (1,))
    return grey + (seen - grey) * saturation


def _mean(seen: Tensor, known: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Of what is data, the dimensions kept; 0 where nothing is."""
    total = torch.where(known, seen, 0.0).sum(dim=dims, keepdim=True)
    return total / known.sum(dim=dims, keepdim=True).clamp(min=1)


def _blurred(seen: Tensor, known: Tensor, sigma: Tensor, most: float) -> Tensor:
    """Gaussian blur of what is data, `sigma` in pixels an image; the outside counts as missing."""
    reach = max(1, math.ceil(3 * most))
    offsets = torch.arange(-reach, reach + 1, device=seen.device, dtype=seen.dtype)
    width = sigma.to(seen).clamp(min=_LEAST_SIGMA).unsqueeze(1)
    taps = torch.exp(-((offsets / width) ** 2) / 2)
    taps = taps / taps.sum(dim=1, keepdim=True)
    weight = _smoothed(known.to(seen.dtype), taps)
    return _smoothed(torch.where(known, seen, 0.0), taps) / weight.clamp(min=1e-6)


def _smoothed(image: Tensor, taps: Tensor) -> Tensor:
    """Weighted sums along y, then x. Written out, as mixed precision would halve a convolution."""
    reach = taps.shape[1] // 2
    for dim in (2, 3):
        size = image.shape[dim]
        total = torch.zeros_like(image)
        for k in range(-min(reach, size - 1), min(reach, size - 1) + 1):
            part = image.narrow(dim, max(0, k), size - abs(k))
            total.narrow(dim, max(0, -k), size - abs(k)).add_(part * _each(taps[:, k + reach]))
        image = total
    return image
