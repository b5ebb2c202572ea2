"""Geometric median over time, and how far the looks lie from it."""

from collections.abc import Callable

import numpy as np

from mapper.cube.reduce.looks import Looks, looks_of
from mapper.cube.reduce.network import middle
from mapper.cube.reduce.newton import added, finish

EPSILON = np.float32(0.02)
"""A pixel is done where a step is shorter, in reflectance x 10^4."""
WEISZFELD_STEPS = 12
"""Pixels that are not done by then are left to `newton`, which takes up to `MOST_STEPS` more."""
_RELAXATION = np.float32(1.4)
"""Steps are this much longer than Weiszfeld's; any factor up to 2 converges (Ostresh 1978)."""
_COINCIDES = np.float32(1 / 4096)
"""A look whose squared distance is no more is where the estimate is."""
_WORTH_SHRINKING = 0.75
"""Arrays are cut down to the pixels at work where no more than this share is."""
_TINY = np.float32(1e-20)


def geomedian(stack: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The point with the least sum of Euclidean distances to all looks, and the three MADs.

    Weiszfeld's iteration from the mean, steps lengthened by 1.4, with the correction of Vardi and
    Zhang where the estimate meets a look; Newton's where that is slow. A pixel stops by itself:
    after a step shorter than `EPSILON`, at a look that is the optimum, or after
    `WEISZFELD_STEPS` and `newton.MOST_STEPS`. Of two looks it is the mean. Where several points
    are optimal (an even number of looks on a line) it is the one reached from the mean. Stored
    rounded, halves up.

    Args:
        stack: `(time, band, y, x)` uint16 reflectance x 10^4, valid values 1 to 65534.
        valid: `(time, y, x)` bool, True = valid in all bands.

    Returns: values `(band, y, x)` uint16, 0 where there is no look; `(3, y, x)` float32, NaN
        there: the medians of the looks' Euclidean (EMAD, in reflectance), cosine (SMAD)
        and Bray-Curtis (BCMAD) distances to the unrounded geometric median.

    Source: Roberts et al. 2017, doi 10.1109/TGRS.2017.2723896; Vardi and Zhang 2000,
        doi 10.1073/pnas.97.4.1423; MADs: Roberts, Dunn and Mueller 2018,
        doi 10.1109/IGARSS.2018.8518312.
    """
    _, bands, height, width = stack.shape
    values = np.zeros((bands, height * width), dtype=np.uint16)
    spread = np.full((3, height * width), np.nan, dtype=np.float32)
    for looks in looks_of(stack, valid):
        centre = _centre(looks.values)
        values[:, looks.pixels] = np.floor(centre + np.float32(0.5))
        spread[:, looks.pixels] = _spread(looks, centre)
    return values.reshape(bands, height, width), spread.reshape(3, height, width)


def _centre(looks: np.ndarray) -> np.ndarray:
    """Geometric medians of `(look, band, pixel)` float32, `(band, pixel)` float32."""
    estimate = added(looks) / np.float32(len(looks))
    if len(looks) <= 2:
        return estimate
    result = np.empty_like(estimate)
    place = np.arange(estimate.shape[1])
    working = np.ones(len(place), dtype=bool)
    for _ in range(WEISZFELD_STEPS):
        step = _step(looks, estimate)
        estimate = np.where(working, estimate + _RELAXATION * step, estimate)
        working &= added(step * step) >= EPSILON * EPSILON
        left = np.count_nonzero(working)
        if left <= _WORTH_SHRINKING * len(place):
            result[:, place[~working]] = estimate[:, ~working]
            looks, estimate, place = looks[:, :, working], estimate[:, working], place[working]
            working = np.ones(left, dtype=bool)
        if left == 0:
            return result
    result[:, place] = estimate
    if working.any():
        looks, estimate = looks[:, :, working], estimate[:, working]
        last = finish(looks.astype(np.float64), estimate.astype(np.float64), float(EPSILON))
        result[:, place[working]] = last
    return result


def _step(looks: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Step of Weiszfeld's iteration, `(band, pixel)`."""
    apart = looks - estimate
    squared = _over_bands(apart, np.square)
    coincides = squared <= _COINCIDES
    squared[coincides] = np.inf
    weights = 1 / np.sqrt(squared)
    apart *= weights[:, None]
    pull = added(apart)
    if coincides.any():
        here = added(coincides.astype(np.float32))
        strength = np.maximum(np.sqrt(added(pull * pull)), _TINY)
        pull *= np.maximum(1 - here / strength, 0)
    return pull / np.maximum(added(weights), _TINY)


def _spread(looks: Looks, centre: np.ndarray) -> np.ndarray:
    """Medians of the three distances to the centre, `(3, pixel)` float32."""
    apart = np.abs(looks.values - centre)
    distance = np.sqrt(_over_bands(apart, np.square)) / np.float32(10_000)
    total = _over_bands(looks.values + centre, np.abs)
    curtis = _over_bands(apart, np.abs) / np.maximum(total, _TINY)
    turned = looks.values / _length(looks.values)[:, None] - centre / _length(centre[None])
    cosine = _over_bands(turned, np.square) / np.float32(2)
    return np.stack([_middle_of(one) for one in (distance, cosine, curtis)])


def _middle_of(rows: np.ndarray) -> np.ndarray:
    return middle(np.concatenate([rows, rows[:1]]))


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.maximum(np.sqrt(_over_bands(vectors, np.square)), _TINY)


def _over_bands(values: np.ndarray, part: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Sum over bands of a function of `(look, band, pixel)`, in the order of the bands."""
    total = part(values[:, 0])
    for band in range(1, values.shape[1]):
        total += part(values[:, band])
    return total
