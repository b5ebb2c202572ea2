"""Which classes are ground, and when the mask is not believed."""

import numpy as np
import pytest

from mapper.cube.mask import clear_of_scl, rescued
from mapper.recipe import SclMask

ALL = np.arange(12, dtype="uint8")


@pytest.mark.parametrize("value", range(12))
def test_every_scl_class_is_clear_or_not_as_documented(value):
    clear = clear_of_scl(np.array([[value]], "uint8"), SclMask())
    assert clear[0, 0] == (value not in {0, 1, 3, 8, 9, 10})


def test_a_recipe_may_call_snow_invalid():
    clear = clear_of_scl(ALL, SclMask(invalid=[0, 1, 3, 8, 9, 10, 11]))
    assert not clear[11]
    assert clear[[2, 4, 5, 6, 7]].all()


def stack(values):
    """A series of SCL values over one pixel."""
    return np.array(values, "uint8").reshape(-1, 1, 1)


def saved(values, observed=None, **rule):
    scl, rule = stack(values), SclMask(**rule)
    seen = np.ones(scl.shape, bool) if observed is None else stack(observed) > 0
    return rescued(seen, seen & clear_of_scl(scl, rule), scl, rule)[:, 0, 0].tolist()


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([8] * 4, False),
        ([8] * 5, True),
        ([9] * 9 + [5], False),
        ([9] * 10 + [5], True),
        ([9] * 19 + [5, 5], True),
        ([9] * 18 + [5, 5], False),
    ],
)
def test_a_pixel_is_kept_when_masked_in_more_than_nine_tenths_of_five_scenes(values, kept):
    assert saved(values) == [kept] * len(values)


def test_a_share_of_one_turns_the_rule_off():
    assert not any(saved([8] * 20, always_masked_share=1))


def test_scenes_without_data_do_not_count():
    assert not any(saved([8] * 4 + [0, 0, 0], observed=[1, 1, 1, 1, 0, 0, 0]))
    kept = saved([8] * 5 + [0, 0], observed=[1, 1, 1, 1, 1, 0, 0])
    assert kept == [True] * 5 + [False] * 2


def test_nodata_and_saturated_pixels_are_never_kept():
    assert saved([8, 8, 8, 8, 1, 0]) == [True, True, True, True, False, False]
