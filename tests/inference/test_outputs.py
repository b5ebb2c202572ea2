"""What a map consists of for each head, and strips whose values can be taken away."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.area.grid import PixelBox
from mapper.inference.card import load_card
from mapper.inference.composition import Decision
from mapper.inference.outputs import MapArray, Strip, map_arrays
from tests.inference.tiny_models import CLASSES, write_model

NAMES = tuple(name for name, _ in CLASSES)
BOX = PixelBox(row0=-7, col0=3, row1=5, col1=20)
ARRAYS = (
    MapArray(name="classes", dtype="uint8", nodata=255, long_name="class"),
    MapArray(
        name="values", dtype="float32", nodata=float("nan"), bands=("a", "b"), long_name="values"
    ),
)


def arrays_for(folder, head, activation, **decision):
    card = load_card(str(write_model(folder, mapper_head=head, mapper_activation=activation)))
    return {a.name: a for a in map_arrays(card, Decision(**decision))}


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("probabilities", [False, True])
def test_classes_come_with_what_was_asked_for(tmp_path, entropy, probabilities):
    found = arrays_for(tmp_path, "classes", "softmax", entropy=entropy, probabilities=probabilities)
    wanted = ["classes", "confidence"]
    wanted += ["entropy"] * entropy + ["probabilities"] * probabilities
    assert list(found) == wanted
    assert {a.dtype for a in found.values()} == {"uint8"}
    assert {a.nodata for a in found.values()} == {255}
    assert [a.name for a in found.values() if a.bands is not None] == wanted[2 + entropy :]
    assert found["classes"].scale == 1
    assert all(found[name].scale == 1 / 250 for name in wanted[1:])


@pytest.mark.parametrize("activation", ["sigmoid", "none"])
def test_labels_are_a_probability_for_each(tmp_path, activation):
    found = arrays_for(tmp_path, "labels", activation, entropy=True)
    assert list(found) == ["probabilities"]
    array = found["probabilities"]
    assert (array.dtype, array.nodata, array.bands, array.scale) == ("uint8", 255, NAMES, 1 / 250)


def test_values_are_floats_without_a_scale(tmp_path):
    found = arrays_for(tmp_path, "values", "none", entropy=True, probabilities=True)
    assert list(found) == ["values"]
    array = found["values"]
    assert (array.dtype, array.bands, array.scale) == ("float32", NAMES, 1.0)
    assert np.isnan(array.nodata)


def test_every_array_has_a_name_for_people(tmp_path):
    found = arrays_for(tmp_path, "classes", "softmax", entropy=True, probabilities=True)
    names = [a.long_name for a in found.values()]
    assert all(names)
    assert len(set(names)) == len(names)


def test_an_empty_array_is_nothing_but_nodata():
    classes, values = (a.empty(2, 5) for a in ARRAYS)
    assert (classes.shape, classes.dtype, values.shape) == ((2, 5), np.uint8, (2, 2, 5))
    assert values.dtype == np.float32
    assert (classes == 255).all()
    assert np.isnan(values).all()


def full_strip():
    strip = Strip.empty(ARRAYS, BOX)
    strip.arrays["classes"][:] = 1
    strip.arrays["values"][:] = 2.5
    return strip


def blanked(strip):
    """Where each pixel of a strip lost its value; all arrays agree."""
    gone = strip.arrays["classes"] == 255
    assert (strip.arrays["classes"][~gone] == 1).all()
    for values in strip.arrays["values"]:
        np.testing.assert_array_equal(np.isnan(values), gone)
        assert (values[~gone] == 2.5).all()
    return gone


@st.composite
def boxes(draw):
    row, col = draw(st.integers(-15, 12)), draw(st.integers(-5, 28))
    height, width = draw(st.integers(0, 20)), draw(st.integers(0, 25))
    return PixelBox(row0=row, col0=col, row1=row + height, col1=col + width)


@given(boxes())
def test_blanking_a_box_takes_its_values_away_and_no_others(inner):
    strip = full_strip()
    strip.blank(ARRAYS, inner)
    rows, cols = np.mgrid[BOX.row0 : BOX.row1, BOX.col0 : BOX.col1]
    inside = (rows >= inner.row0) & (rows < inner.row1)
    inside &= (cols >= inner.col0) & (cols < inner.col1)
    np.testing.assert_array_equal(blanked(strip), inside)


@given(boxes(), st.integers(0, 1000))
def test_blanking_by_a_mask_takes_away_where_it_is_true(inner, seed):
    mask = np.random.default_rng(seed).random(inner.shape) < 0.4
    strip = full_strip()
    strip.blank(ARRAYS, inner, mask)
    wanted = np.zeros(BOX.shape, bool)
    common = inner.intersect(BOX)
    if not common.empty:
        wanted[common.slices_in(BOX)] = mask[common.slices_in(inner)]
    np.testing.assert_array_equal(blanked(strip), wanted)


def test_a_mask_of_nothing_takes_nothing_away():
    strip = full_strip()
    strip.blank(ARRAYS, BOX, np.zeros(BOX.shape, bool))
    assert not blanked(strip).any()
