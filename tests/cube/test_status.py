"""Why a pixel has no value."""

import numpy as np
import pytest

from mapper.cube.status import merged_status, status_of


@pytest.mark.parametrize(
    ("observed", "used", "lost", "status"),
    [
        (True, True, False, 0),
        (True, True, True, 0),
        (False, False, False, 2),
        (True, False, False, 3),
        (True, False, True, 4),
        (False, False, True, 4),
    ],
)
def test_a_status_says_why_there_is_no_value(observed, used, lost, status):
    found = status_of(*(np.array([[flag]]) for flag in (observed, used, lost)))
    assert found.dtype == np.uint8
    assert found[0, 0] == status


def test_of_two_lots_of_scenes_the_better_status_stands():
    order = [0, 5, 4, 3, 2]
    one, other = (grid.ravel() for grid in np.meshgrid(order, order))
    merged = merged_status(one, other)
    expected = [min(pair, key=order.index) for pair in zip(one, other, strict=True)]
    np.testing.assert_array_equal(merged, expected)
