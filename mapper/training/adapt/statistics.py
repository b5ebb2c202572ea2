"""Means and deviations of a domain's bands, and of what a network makes of its images.

Numbers are of valid pixels, in physical units, in float64, and read piece by piece: they do not
depend on how much fits into memory.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mapper.errors import DataError, ModelError
from mapper.recipe.training import Train
from mapper.training.data.augment import coarsen
from mapper.training.data.crosswalk import UNTAUGHT
from mapper.training.data.labelled import LabelledImage, LabelledSet
from mapper.training.data.patches import Channels, Images
from mapper.training.networks import Supervised

_AT_ONCE = 1 << 22
"""Pixels of an image that are looked at together."""
_DIGITS = 6
_FLAT = 1e-5
"""Deviations below this share of the mean are rounding, where values were averaged before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandStatistics:
    """Of the bands that a network is given, in their order."""

    mean: tuple[float, ...]
    """0 where a band has no valid pixel."""
    deviation: tuple[float, ...]
    """Of all pixels (divided by n); 0 where a band has one value or none."""
    pixels: tuple[int, ...]
    """Valid ones."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared distances to it, `(band,)` each."""

    count: np.ndarray
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, valid: np.ndarray) -> "Moments":
        """Of `(band, y, x)`, two passes."""
        found = [_moments(band[known]) for band, known in zip(values, valid, strict=True)]
        count, mean, squares = zip(*found, strict=True)
        return cls(np.array(count, np.int64), np.array(mean, float), np.array(squares, float))

    def merged(self, other: "Moments") -> "Moments":
        """Of both together (Chan et al. 1983)."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        # what is empty has a mean that means nothing
        apart = np.where((self.count > 0) & (other.count > 0), apart, 0.0)
        mean = np.where(self.count > 0, self.mean, other.mean) + apart * share
        squares = self.squares + other.squares + apart**2 * self.count * share
        return Moments(count, mean, squares)

    def levelled(self) -> "Moments":
        """Those whose deviation can only be rounding have none."""
        flat = self.squares <= self.count * (_FLAT * self.mean) ** 2
        return Moments(self.count, self.mean, np.where(flat, 0.0, self.squares))

    def statistics(self) -> BandStatistics:
        """What they come to."""
        deviation = np.sqrt(self.squares / np.maximum(self.count, 1))
        return BandStatistics(
            mean=tuple(self.mean.tolist()),
            deviation=tuple(deviation.tolist()),
            pixels=tuple(self.count.tolist()),
        )


def _moments(values: np.ndarray) -> tuple[int, float, float]:
    if not values.size:
        return 0, 0.0, 0.0
    # sums of float32 are exact in float64: a constant band has a deviation of exactly 0
    known = values.astype(np.float64)
    mean = float(known.mean())
    return values.size, mean, float(((known - mean) ** 2).sum())


def band_statistics(
    images: Images, required: Sequence[str] | None = None, coarser: int = 1
) -> BandStatistics:
    """Of all valid pixels of some images.

    Args:
        images: of one domain.
        required: bands that must be there, those of light with more than one value (a plain is
            level, but no photograph is of one grey); None for all.
        coarser: side in pixels of the squares that light is averaged over first, counted from the
            first pixel of each image, as `coarsen` of a recipe does in its patches.

    Raises: DataError naming the set, the band and what to do.
    """
    found: Moments | None = None
    for number in range(len(images.images)):
        for piece in _pieces(images, number, coarser):
            found = piece if found is None else found.merged(piece)
    if found is None:
        raise DataError(f"{images.data.root} holds no image; name a folder that does")
    if not found.count.any():
        raise DataError(
            f"{images.data.root} has no valid pixel in any band: all of it is nodata; give other "
            "images"
        )
    if coarser > 1:
        found = found.levelled()
    names = [images.data.bands[position] for position in images.channels.positions]
    light = images.light
    for k, band in enumerate(names):
        if required is None or band in required:
            _check(images.data, band, found, (k, bool(light[k])))
    return found.statistics()


def _pieces(images: Images, number: int, coarser: int = 1) -> Iterator[Moments]:
    """Of the strips of one image."""
    height, width = images.images[number].shape
    rows = max(1, _AT_ONCE // width // coarser) * coarser
    for row in range(0, height, rows):
        # interpolation asks for the squares beside a strip
        margin = coarser if coarser > 1 else 0
        top, end = max(0, row - margin), min(height, row + rows + margin)
        patch = images.piece(number, (top, 0, end - top, width))
        coarsen(patch, coarser, images.light)
        mine = np.s_[:, row - top : row - top + rows]
        yield Moments.of(patch.image[mine], patch.valid[mine])


def _check(data: LabelledSet, band: str, found: Moments, place: tuple[int, bool]) -> None:
    k, light = place
    if not found.count[k]:
        raise DataError(
            f"{data.root} has no valid pixel of {band}: all of it is nodata; give images that "
            "hold it, or leave it out with --set bands=[...]"
        )
    if light and not found.squares[k]:
        raise DataError(
            f"{data.root} holds {found.mean[k]:g} in every valid pixel of {band}, which no camera "
            "sees; convert the images anew with that band, or leave it out with --set bands=[...]"
        )


def statistics_of(
    train: Train,
    data: LabelledSet,
    images: Sequence[LabelledImage] | None = None,
    coarser: int = 1,
) -> BandStatistics:
    """Of images of a set, by default of all; nothing of them is kept. Raises: DataError."""
    return band_statistics(bare_images(train, data, images), train.required, coarser)


def bare_images(
    train: Train, data: LabelledSet, images: Sequence[LabelledImage] | None = None
) -> Images:
    """Images of which no label teaches anything, by default all of a set. Raises: DataError."""
    nothing = np.full(256, UNTAUGHT, dtype=np.int64)
    chosen = data.images if images is None else images
    return Images(data, chosen, Channels.of(train, data, nothing))


def own_scaling(
    statistics: BandStatistics, otherwise: Sequence[dict[str, Any] | None] = (None,)
) -> list[dict[str, Any] | None]:
    """`value_scaling` of MLM that makes the mean 0 and the deviation 1, an entry a band.

    Numbers have six significant digits, so that a card says exactly what was trained with.

    Args:
        statistics: of the domain.
        otherwise: what bands keep that have no valid pixel or do not vary; one, or one each.
    """
    kept = list(otherwise) * (len(statistics.mean) if len(otherwise) == 1 else 1)
    return [
        {"type": "z-score", "mean": short(mean), "stddev": short(deviation)}
        if short(deviation) > 0
        else other
        for mean, deviation, other in zip(statistics.mean, statistics.deviation, kept, strict=True)
    ]


def short(value: float) -> float:
    """With the six significant digits that a card has."""
    return float(f"{value:.{_DIGITS}g}")


def rescaled(train: Train, scaling: Sequence[dict[str, Any] | None]) -> Train:
    """The recipe with another scaling, one for all bands or one each."""
    return Train.model_validate(train.model_dump() | {"scaling": list(scaling)})


def adapted_statistics(
    network: Supervised, batches: Iterable[tuple[Tensor, Tensor]], share: float = 1.0
) -> int:
    """Give batch normalisation the statistics of other images (AdaBN, Li et al. 2018).

    Every layer gets the plain average over the batches of their means and unbiased variances,
    each batch normalised by its own on the way, mixed with what the layer had. Nothing else of
    the network changes, dropout is off, and nothing is random.

    Args:
        network: changed in place.
        batches: image and validity as the network is given them.
        share: of the new statistics; the rest is of the old ones.

    Returns the number of layers that met the batches; 0 where the network has no batch
    normalisation, and then no batch is looked at. Raises: ModelError where there is no batch, or
    what is met is not finite. Where it fails, the network is as it was.
    """
    layers = [m for m in network.modules() if _is_batch_norm(m)]
    if not layers:
        return 0
    place = layers[0].running_mean.device
    seen = 0
    with _collecting(network, layers, share), torch.no_grad():
        for image, valid in batches:
            image = image.to(place).contiguous(memory_format=torch.channels_last)
            network(image, valid.to(place))
            seen += 1
        if not seen:
            raise ModelError("no batch of the target to take statistics of")
        means = [torch.isfinite(x).all() for m in layers for x in (m.running_mean, m.running_var)]
        if not all(map(bool, means)):
            raise ModelError(
                "the target makes features that are not finite; check its bands and train.scaling"
            )
        # counted before the numbers are put back
        return sum(bool(layer.num_batches_tracked) for layer in layers)


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


@contextmanager
def _collecting(network: nn.Module, layers: Sequence[Any], share: float) -> Iterator[None]:
    """Batch normalisation alone learns, as an average over all batches.

    Modes, momentum and counts are as before at the end; so are statistics where it fails.
    """
    modes = [(module, module.training) for module in network.modules()]
    momenta = [layer.momentum for layer in layers]
    buffers = [{n: b.clone() for n, b in layer.named_buffers(recurse=False)} for layer in layers]
    network.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    weight = 0.0
    try:
        yield
        weight = share
    finally:
        for layer, momentum, old in zip(layers, momenta, buffers, strict=True):
            layer.momentum = momentum
            own = weight if layer.num_batches_tracked else 0.0
            layer.num_batches_tracked.copy_(old["num_batches_tracked"])
            for name in ("running_mean", "running_var"):
                new = getattr(layer, name)
                new.copy_(torch.lerp(old[name], new, own) if own else old[name])
        for module, training in modes:
            module.training = training
