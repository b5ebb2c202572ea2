"""The best look at each pixel by a score, and scores; they are added or weighted by the caller."""

from collections.abc import Mapping

import numpy as np

from mapper.cube.reduce.indices import INDICES
from mapper.errors import RecipeError

_YEAR = 365
_FARTHEST = 180
"""Greatest limit of a distance: twice its square fits uint16."""


def best(stack: np.ndarray, valid: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The look with the greatest score, pixel by pixel; of equals the first in time.

    A score of NaN is less than any other, and is chosen where a pixel has nothing else.

    Args:
        stack: `(time, band, y, x)` uint16.
        valid: `(time, y, x)` bool, True = valid in all bands.
        scores: `(time, y, x)`, or `(time,)` for scores of whole scenes.

    Returns: values `(band, y, x)` uint16, 0 where there is no look; index of the chosen look
        `(y, x)` int16, -1 where there is none.
    """
    values = np.zeros(stack.shape[1:], dtype=np.uint16)
    index = np.full(stack.shape[2:], -1, dtype=np.int16)
    top = np.full(stack.shape[2:], -np.inf)
    for time, (look, good) in enumerate(zip(stack, valid, strict=True)):
        score = np.where(np.isnan(scores[time]), -np.inf, scores[time])
        better = good & ((score > top) | (index < 0))
        top = np.where(better, score, top)
        index[better] = time
        np.copyto(values, look, where=better)
    return values, index


def day_score(day_of_year: np.ndarray, target: float, spread: float) -> np.ndarray:
    """How near a date is to the wanted day: Gaussian, 1 on the day, over the year's end too.

    Args:
        day_of_year: 1 to 366; day 366 counts as day 1.
        target: wanted day of year.
        spread: standard deviation in days.

    Returns: float64 of the shape of `day_of_year`, above 0 to 1.

    Raises: RecipeError where the spread is not positive.

    Source: Griffiths et al. 2013, doi 10.1109/JSTARS.2012.2228167.
    """
    if not spread > 0:
        raise RecipeError(f"a spread of {spread} days cannot be used; give a positive one")
    apart = np.abs(np.asarray(day_of_year, dtype=np.float64) - target) % _YEAR
    apart = np.minimum(apart, _YEAR - apart)
    return np.exp(-0.5 * (apart / spread) ** 2)


def cloud_score(cloud_cover: np.ndarray) -> np.ndarray:
    """Share of a scene that is free of cloud, float64 of 0 to 1; unknown (NaN) counts as 0.

    Args:
        cloud_cover: per cent, as `eo:cloud_cover` says.
    """
    cover = np.asarray(cloud_cover, dtype=np.float64)
    return np.where(np.isnan(cover), 0, 1 - np.clip(cover, 0, 100) / 100)


def distance_score(clear: np.ndarray, limit: int) -> np.ndarray:
    """How far a pixel is from what is masked: a sigmoid of the distance, even from `limit` on.

    1 / (1 + exp(-10 (min(distance, limit) - limit / 2) / limit)): of `limit` 50 the published
    one, 0.0067 on a masked pixel, 0.5 half way and 0.9933 from `limit` on.

    Args:
        clear: `(y, x)` bool, False = masked. Beyond the array nothing is masked, so a halo of
            `limit` pixels makes the inside independent of the cut.
        limit: pixels, 1 to 180.

    Returns: `(y, x)` float64.

    Raises: RecipeError for another limit.

    Source: Griffiths et al. 2013, doi 10.1109/JSTARS.2012.2228167; White et al. 2014,
        doi 10.1080/07038992.2014.945827.
    """
    squared = squared_distance(clear, limit)
    distances = np.sqrt(np.arange(limit * limit + 1, dtype=np.float64))
    return (1 / (1 + np.exp(-10 * (distances - limit / 2) / limit)))[squared]


def squared_distance(clear: np.ndarray, limit: int) -> np.ndarray:
    """Squared Euclidean distance to the nearest masked pixel, at most `limit` squared.

    Along lines first, then the least over the lines within `limit`; exact.

    Args:
        clear: `(y, x)` bool, False = masked.
        limit: pixels, 1 to 180.

    Returns: `(y, x)` uint16.

    Raises: RecipeError for another limit.
    """
    if not 1 <= limit <= _FARTHEST:
        raise RecipeError(
            f"a distance limit of {limit} pixels cannot be used; give 1 to {_FARTHEST}"
        )
    line = _along_lines(clear, limit)
    line *= line
    result = line.copy()
    for apart in range(1, min(limit, len(line))):
        through = line + np.uint16(apart * apart)
        np.minimum(result[apart:], through[:-apart], out=result[apart:])
        np.minimum(result[:-apart], through[apart:], out=result[:-apart])
    return result


def greenness(bands: Mapping[str, np.ndarray]) -> np.ndarray:
    """NDVI of a look, float32, NaN where there is none; `bands` holds `nir` and `red`."""
    return INDICES["ndvi"].of(bands)


def _along_lines(clear: np.ndarray, limit: int) -> np.ndarray:
    """Distance to the nearest masked pixel of the same line, at most `limit`, uint16."""
    column = np.arange(clear.shape[1], dtype=np.int32)
    far = np.int32(2 * limit + len(column))
    before = np.maximum.accumulate(np.where(clear, -far, column), axis=1)
    after = np.minimum.accumulate(np.where(clear, 2 * far, column)[:, ::-1], axis=1)[:, ::-1]
    nearest = np.minimum(column - before, after - column)
    return np.minimum(nearest, limit).astype(np.uint16)
