"""Templates: shapes, fill and decoding."""

import numpy as np
import pytest

from mapper.store.template import ArrayTemplate


def template(**changes):
    return ArrayTemplate(**{"name": "a", "dtype": "uint16", "fill": 0, **changes})


def test_an_array_without_bands_is_flat():
    flat = template()
    assert flat.dimensions == ("y", "x")
    assert flat.shape(3, 4) == (3, 4)
    assert flat.chunk == (256, 256)


def test_bands_come_first_and_have_an_axis_of_their_own():
    banded = template(bands=("red", "nir"))
    assert banded.dimensions == ("a_band", "y", "x")
    assert banded.shape(3, 4) == banded.empty(3, 4).shape == (2, 3, 4)


@pytest.mark.parametrize(("dtype", "fill"), [("uint8", 255), ("uint16", 0), ("float32", np.nan)])
def test_an_empty_array_is_all_fill(dtype, fill):
    empty = template(dtype=dtype, fill=fill).empty(2, 3)
    assert empty.dtype == dtype
    np.testing.assert_array_equal(empty, np.full((2, 3), fill, dtype))


def test_decoding_gives_physical_values_and_says_which_are_valid():
    values, valid = template(attributes={"scale_factor": 0.0001}).decode(
        np.array([[0, 1, 10_000]], np.uint16)
    )
    assert values.dtype == np.float32
    np.testing.assert_array_equal(valid, [[False, True, True]])
    np.testing.assert_allclose(values, [[0, 0.0001, 1]], rtol=1e-6)


def test_decoding_floats_takes_nan_as_missing():
    raw = np.array([np.nan, 0.0, -12.5, np.inf], np.float32)
    values, valid = template(dtype="float32", fill=np.nan).decode(raw)
    np.testing.assert_array_equal(valid, [False, True, True, False])
    np.testing.assert_array_equal(values, np.array([0, 0, -12.5, 0], np.float32))


def test_decoding_does_not_wrap_small_integers():
    values, _ = template(dtype="uint8", fill=255, attributes={"scale_factor": 2.0}).decode(
        np.array([200], np.uint8)
    )
    assert values.tolist() == [400.0]
