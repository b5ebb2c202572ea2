"""Stored layers: which values are data, what they are in physical units, where a pixel counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.errors import ModelError
from mapper.inference.coding import Coding, Layer

RED = Layer(name="red", dtype="uint16", scale=0.0001, nodata=0, channels=(2,))
REST = Layer(
    name="rest", dtype="float32", scale=2.0, offset=-1.0, nodata=float("nan"), channels=(3, 0)
)
CODING = Coding(layers=(RED, REST), bands=4)


@pytest.fixture
def stored():
    red = np.array([[[10000, 0, 5000]]], np.uint16)
    rest = np.array([[[np.nan, 0.5, 0]], [[1, np.nan, 3]]], np.float32)
    return red, rest


def test_values_become_physical_in_the_models_order(stored):
    image, valid = CODING.physical(stored)
    assert image.dtype == np.float32
    wanted = [[[1, 0, 5]], [[0, 0, 0]], [[1, 0, 0.5]], [[0, 0, -1]]]
    np.testing.assert_allclose(image, wanted, rtol=1e-6)
    known = [[[1, 0, 1]], [[0, 0, 0]], [[1, 0, 1]], [[0, 1, 1]]]
    np.testing.assert_array_equal(valid, np.array(known, bool))


def test_batches_are_decoded_as_their_windows_are(stored):
    image, valid = CODING.physical(tuple(np.stack([s, s[..., ::-1]]) for s in stored))
    for found, alone in zip((image, valid), CODING.physical(stored), strict=True):
        np.testing.assert_array_equal(found[0], alone)
        np.testing.assert_array_equal(found[1], alone[..., ::-1])


@pytest.mark.parametrize(
    ("required", "usable"),
    [
        ((), [1, 1, 1]),
        ((2,), [1, 0, 1]),
        ((0,), [1, 0, 1]),
        ((3,), [0, 1, 1]),
        ((2, 3), [0, 0, 1]),
        ((1,), [0, 0, 0]),
        ((0, 1), [0, 0, 0]),
    ],
)
def test_a_pixel_counts_where_every_required_band_is_data(stored, required, usable):
    found = CODING.usable(stored, required)
    assert found.dtype == bool
    assert found.tolist() == [[bool(v) for v in usable]]


@given(st.integers(0, 2**16), st.sets(st.integers(0, 3)))
def test_what_counts_agrees_with_what_is_valid(seed, required):
    rng = np.random.default_rng(seed)
    red = rng.integers(0, 3, (1, 4, 5)).astype(np.uint16)
    rest = rng.choice([np.nan, 0, 1], (2, 4, 5)).astype(np.float32)
    valid = CODING.physical((red, rest))[1]
    wanted = valid[sorted(required)].all(axis=0)
    np.testing.assert_array_equal(CODING.usable((red, rest), sorted(required)), wanted)


@pytest.mark.parametrize("nodata", [None, 0, 255])
def test_ground_without_data_is_stored_as_such(nodata):
    layer = Layer(name="a", dtype="uint8", nodata=nodata, channels=(0, 1, 2))
    empty = layer.empty(2, 5)
    assert (empty.shape, empty.dtype) == ((3, 2, 5), np.uint8)
    assert layer.valid(empty).all() == (nodata is None)
    assert layer.valid(empty).any() == (nodata is None)


def test_a_layer_of_nan_is_empty_where_nothing_is(stored):
    assert np.isnan(REST.empty(2, 2)).all()
    assert not REST.valid(REST.empty(2, 2)).any()


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", -9999), ("uint16", -1), ("int16", 65535)])
def test_nodata_that_the_type_cannot_hold_is_no_value(dtype, nodata):
    layer = Layer(name="a", dtype=dtype, nodata=nodata, channels=(0,))
    assert layer.valid(np.arange(9).astype(dtype)).all()


def test_a_model_without_any_stored_band_is_refused():
    with pytest.raises(ModelError, match="at least one source"):
        Coding(layers=(), bands=3)
