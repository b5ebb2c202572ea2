"""The last steps to a geometric median where Weiszfeld's iteration is slow.

With few looks the optimum often is a look, or lies in a long flat valley between two lots of
looks; steps then shrink slowly. Newton's method on the same sum of distances takes a few.
Float64, every pixel by itself, sums in the order of the looks.
"""

import numpy as np

MOST_STEPS = 30
_COINCIDES = 1e-6
"""A look whose squared distance is no more is where the estimate is."""
_RIDGE = 1e-9
"""Share of the trace that is added to the diagonal: looks on a line leave a direction flat."""
_TINY = 1e-300
_LENGTHS = (1.0, 0.25, 0.0625)
"""Of a Newton step; the first that lowers the sum of distances is taken."""


def finish(looks: np.ndarray, estimate: np.ndarray, epsilon: float) -> np.ndarray:
    """Geometric medians from estimates that are near them.

    Args:
        looks: `(look, band, pixel)` float64.
        estimate: `(band, pixel)` float64.
        epsilon: a pixel is done where a step is shorter.

    Returns: `(band, pixel)` float64; where a look is the optimum, that look.
    """
    result = estimate.copy()
    place = np.arange(estimate.shape[1])
    for _ in range(MOST_STEPS):
        settled, estimate = _at_a_look(looks, estimate)
        moved = np.where(settled, estimate, _moved(looks, estimate))
        step = moved - estimate
        result[:, place] = moved
        going = ~settled & (added(step * step) >= epsilon * epsilon)
        looks, estimate, place = looks[:, :, going], moved[:, going], place[going]
        if not len(place):
            break
    return result


def added(values: np.ndarray) -> np.ndarray:
    """Sum over the first axis in its order, whatever the number of pixels."""
    total: np.ndarray = values[0].copy()
    for one in values[1:]:
        total += one
    return total


def _at_a_look(looks: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the look nearest to the estimate is the optimum, and the estimates with it there."""
    nearest = np.argmin(_squares(looks - estimate), axis=0)
    candidate = np.take_along_axis(looks, nearest[None, None], axis=0)[0]
    apart = looks - candidate
    weight, here = _weights(apart)
    pull = added(apart * weight[:, None])
    settled = added(pull * pull) <= here * here
    return settled, np.where(settled, candidate, estimate)


def _moved(looks: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """Estimates after one step: Newton's where it lowers the sum of distances, or Weiszfeld's."""
    apart = looks - estimate
    weight, here = _weights(apart)
    pull = added(apart * weight[:, None])
    strength = np.maximum(np.sqrt(added(pull * pull)), _TINY)
    plain = pull * np.maximum(1 - here / strength, 0) / np.maximum(added(weight), _TINY)
    result = estimate + plain
    direction = _solved(_hessian(apart, weight), pull)
    least = _distances(looks, estimate)
    open_ = here == 0
    for length in _LENGTHS:
        trial = estimate + length * direction
        better = open_ & (_distances(looks, trial) < least)
        result = np.where(better, trial, result)
        open_ &= ~better
    return result


def _weights(apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse distances `(look, pixel)`, 0 of looks that coincide; how many do `(pixel,)`."""
    squared = _squares(apart)
    coincides = squared <= _COINCIDES
    return 1 / np.sqrt(np.where(coincides, np.inf, squared)), added(coincides.astype(np.float64))


def _hessian(apart: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Second derivatives of the sum of distances, `(band, band, pixel)`, with the ridge."""
    bands = apart.shape[1]
    total = added(weight)
    cubed = weight**2 * weight
    result = np.empty((bands, bands, apart.shape[2]))
    for row in range(bands):
        for column in range(row + 1):
            product = -added(cubed * apart[:, row] * apart[:, column])
            result[row, column] = result[column, row] = product
        result[row, row] += total * (1 + _RIDGE)
    return result


def _solved(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solution of a positive definite system for each pixel; overwrites `matrix`."""
    bands = len(right)
    right = right.copy()
    for pivot in range(bands):
        divisor = np.maximum(matrix[pivot, pivot], _TINY)
        for row in range(pivot + 1, bands):
            share = matrix[row, pivot] / divisor
            matrix[row, pivot:] -= share * matrix[pivot, pivot:]
            right[row] -= share * right[pivot]
    for row in range(bands - 1, -1, -1):
        for column in range(row + 1, bands):
            right[row] -= matrix[row, column] * right[column]
        right[row] /= np.maximum(matrix[row, row], _TINY)
    return right


def _squares(apart: np.ndarray) -> np.ndarray:
    return added(np.moveaxis(apart * apart, 1, 0))


def _distances(looks: np.ndarray, point: np.ndarray) -> np.ndarray:
    return added(np.sqrt(_squares(looks - point)))
