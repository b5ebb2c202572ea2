"""Random changes of training patches that mean the same on any number of bands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mapper.recipe.learning import Augment

_DIRECTIONS = ("aspect",)
"""Bands that hold compass directions: they turn with the patch."""
_NOT_LIGHT = ("vv", "vh", "hh", "hv", "elevation", "slope", "aspect")
"""Bands without light in them: brighter or darker means nothing there."""


@dataclass(slots=True, kw_only=True)
class Patch:
    """What is changed: values in physical units, which of them are data, and labels."""

    image: np.ndarray
    """`(band, y, x)` float32."""
    valid: np.ndarray
    """`(band, y, x)` bool."""
    label: np.ndarray
    """`(y, x)` int64 channels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BandKinds:
    """What augmentation has to know of the channels."""

    light: np.ndarray
    """Bool per band: scaling it is a change of light."""
    directions: np.ndarray
    """Bool per band: degrees clockwise from north."""
    optional: tuple[tuple[int, ...], ...]
    """Channels of each source that may be missing."""
    clouded: tuple[tuple[int, ...], ...]
    """Channels of each source of light that may be missing in part."""

    @classmethod
    def of(
        cls, bands: Sequence[str], sources: Sequence[tuple[int, ...]], required: Sequence[str]
    ) -> "BandKinds":
        """Of a recipe's bands; a source is optional where none of its bands is required."""
        names = [band.split(":", 1)[1] for band in bands]
        light = np.array([not n.startswith(_NOT_LIGHT) for n in names])
        optional = tuple(s for s in sources if not any(bands[c] in required for c in s))
        return cls(
            light=light,
            directions=np.array([n.startswith(_DIRECTIONS) for n in names]),
            optional=optional,
            clouded=tuple(s for s in sources if light[list(s)].all()),
        )


def augmented(patch: Patch, how: Augment, kinds: BandKinds, rng: np.random.Generator) -> Patch:
    """A changed patch; what happens depends on the generator alone."""
    coarsen(patch, how.coarsen, kinds.light)
    _turned(patch, how, kinds, rng)
    _lit(patch, how, kinds, rng)
    if how.blur and kinds.light.any() and rng.random() < how.blur:
        sigma = rng.uniform(0.1, 1.0)
        _averaged(patch, kinds.light, lambda values: blurred(values, sigma))
    if how.drop_sources and kinds.optional and rng.random() < how.drop_sources:
        gone = kinds.optional[rng.integers(len(kinds.optional))]
        patch.valid[list(gone)] = False
    if how.clouds and kinds.clouded and rng.random() < how.clouds:
        source = kinds.clouded[rng.integers(len(kinds.clouded))]
        patch.valid[list(source)] &= ~grown_holes(patch.label.shape, rng)
    return patch


def coarsen(patch: Patch, side: int, light: np.ndarray) -> None:
    """Bands of light as a sensor with pixels `side` times as wide sees them, in place."""
    if side > 1 and light.any():
        _averaged(patch, light, lambda values: coarsened(values, side))


def _turned(patch: Patch, how: Augment, kinds: BandKinds, rng: np.random.Generator) -> None:
    """Mirror and turn; compass directions turn along."""
    turns = int(rng.integers(4)) if how.turn and _is_square(patch) else 0
    mirrored_x = how.flip and rng.random() < 0.5
    mirrored_y = how.flip and rng.random() < 0.5
    arrays = [patch.image, patch.valid, patch.label]
    if turns:
        arrays = [np.rot90(a, turns, axes=(-2, -1)) for a in arrays]
    if mirrored_x:
        arrays = [a[..., ::-1] for a in arrays]
    if mirrored_y:
        arrays = [a[..., ::-1, :] for a in arrays]
    patch.image, patch.valid, patch.label = (np.ascontiguousarray(a) for a in arrays)
    compass = kinds.directions
    if compass.any():
        angle = patch.image[compass] - 90.0 * turns
        angle = -angle if mirrored_x else angle
        angle = 180.0 - angle if mirrored_y else angle
        patch.image[compass] = angle % 360.0


def _is_square(patch: Patch) -> bool:
    return bool(patch.label.shape[0] == patch.label.shape[1])


def _lit(patch: Patch, how: Augment, kinds: BandKinds, rng: np.random.Generator) -> None:
    """Another light: gain of all bands and of each, offset, gamma; noise on top."""
    if not kinds.light.any():
        return
    if not (how.gain or how.band_gain or how.offset or how.gamma or how.noise):
        return
    bands = int(kinds.light.sum())
    gain = rng.uniform(-how.gain, how.gain) + rng.uniform(-how.band_gain, how.band_gain, bands)
    offset = rng.uniform(-how.offset, how.offset, bands)
    power = np.exp(rng.uniform(-how.gamma, how.gamma))
    seen = patch.image[kinds.light] * np.exp(gain)[:, None, None].astype(np.float32)
    seen = seen + offset[:, None, None].astype(np.float32)
    if how.gamma:
        # the brightest stays where it is, whatever the unit
        top = max(float(np.abs(seen).max()), 1e-6)
        seen = np.sign(seen) * np.power(np.abs(seen) / top, np.float32(power)) * top
    if how.noise:
        seen = seen + rng.normal(0, how.noise, seen.shape).astype(np.float32)
    patch.image[kinds.light] = seen.astype(np.float32)


def _averaged(patch: Patch, bands: np.ndarray, average: Callable[[np.ndarray], np.ndarray]) -> None:
    """Some bands by an average of what is data in each."""
    patch.image[bands] = known_mean(patch.image[bands], patch.valid[bands], average)


def known_mean(
    image: np.ndarray, valid: np.ndarray, average: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """An average of what is data alone: missing values have no say in those beside them."""
    if valid.all():
        return average(image)
    weight = average(valid.astype(np.float32))
    summed = average(np.where(valid, image, np.float32(0)))
    return np.asarray(summed / np.maximum(weight, np.float32(1e-6)), dtype=np.float32)


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of each band, edges repeated; `(band, y, x)` float32."""
    reach = 3
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (1, 2):
        pad = [(0, 0)] * 3
        pad[axis] = (reach, reach)
        wide = np.pad(image, pad, mode="edge")
        size = image.shape[axis]
        parts = [w * np.take(wide, range(k, k + size), axis=axis) for k, w in enumerate(weights)]
        image = np.asarray(np.sum(parts, axis=0), dtype=np.float32)
    return image


def coarsened(image: np.ndarray, side: int) -> np.ndarray:
    """Means over squares of `side` pixels, brought back to their pixels by bilinear interpolation.

    `(band, y, x)` float32. Squares are counted from the first pixel; the last may be cut.
    """
    for axis in (1, 2):
        size = image.shape[axis]
        begin = np.arange(0, size, side)
        shape = [1, 1, 1]
        shape[axis] = -1
        count = np.diff(begin, append=size).astype(np.float32).reshape(shape)
        cells = np.add.reduceat(image, begin, axis=axis) / count
        place = np.clip((np.arange(size) + 0.5) / side - 0.5, 0, len(begin) - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, len(begin) - 1)
        share = (place - low).astype(np.float32).reshape(shape)
        image = np.take(cells, low, axis) * (1 - share) + np.take(cells, high, axis) * share
    return np.asarray(image, dtype=np.float32)


def grown_holes(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Cloud-like holes, `(y, x)` bool: the highest part of smooth noise, 5 to 50 % of it."""
    height, width = shape
    field = np.zeros(shape, dtype=np.float32)
    for cells in (4, 8, 16):
        coarse = rng.random((cells + 1, cells + 1), dtype=np.float32)
        field += _stretched(coarse, height, width) / cells
    return np.asarray(field > np.quantile(field, 1 - rng.uniform(0.05, 0.5)))


def _stretched(coarse: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear to a size, corners on corners."""
    rows = np.linspace(0, coarse.shape[0] - 1, height)
    cols = np.linspace(0, coarse.shape[1] - 1, width)
    r, c = np.floor(rows).astype(int), np.floor(cols).astype(int)
    r1, c1 = np.minimum(r + 1, coarse.shape[0] - 1), np.minimum(c + 1, coarse.shape[1] - 1)
    fr, fc = (rows - r)[:, None], (cols - c)[None, :]
    top = coarse[r][:, c] * (1 - fc) + coarse[r][:, c1] * fc
    low = coarse[r1][:, c] * (1 - fc) + coarse[r1][:, c1] * fc
    return np.asarray(top * (1 - fr) + low * fr, dtype=np.float32)
