"""The class table: one source of ids, names, colours and nodata."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapper.classes import ClassTable, MapClass
from mapper.errors import ModelError

WATER = {"value": 0, "name": "water", "title": "Water", "color": "1F77B4"}
GREEN = {"value": 3, "name": "green", "title": "Green", "color": "397D49"}


def table(*classes, **more):
    return ClassTable(classes=tuple(MapClass(**c) for c in classes), **more)


@st.composite
def tables(draw):
    values = draw(st.lists(st.integers(0, 254), min_size=1, max_size=8, unique=True))
    names = draw(
        st.lists(
            st.from_regex(r"[0-9A-Za-z_-]{1,8}", fullmatch=True),
            min_size=len(values),
            max_size=len(values),
            unique=True,
        )
    )
    classes = [
        MapClass(
            value=value,
            name=name,
            title=draw(st.text(max_size=6)),
            color=draw(st.text("0123456789ABCDEF", min_size=6, max_size=6)),
        )
        for value, name in zip(values, names, strict=True)
    ]
    nodata = draw(st.integers(0, 255).filter(lambda n: n not in values))
    return ClassTable(classes=tuple(classes), nodata=nodata)


@given(tables())
def test_a_table_survives_stac(classes):
    assert ClassTable.from_stac(classes.to_stac()) == classes


@given(tables())
def test_everything_derived_agrees_with_the_table(classes):
    colormap = classes.colormap()
    assert colormap[classes.nodata] == (0, 0, 0, 0)
    assert len(colormap) == len(classes.classes) + 1
    for entry in classes.classes:
        assert "{:02X}{:02X}{:02X}".format(*colormap[entry.value][:3]) == entry.color
        assert colormap[entry.value][3] == 255
    flags = classes.cf_attributes()
    assert flags["flag_values"] == list(classes.values)
    assert flags["flag_meanings"].split() == [c.name for c in classes.classes]
    np.array([*classes.values, classes.nodata], dtype=np.int64).astype(np.uint8)


def test_the_order_is_that_of_the_model():
    assert table(GREEN, WATER).values == (3, 0)


def test_a_class_without_title_is_called_by_its_name():
    (entry,) = ClassTable.from_stac([{"value": 1, "name": "bare", "color_hint": "AABBCC"}]).classes
    assert entry.title == "bare"


@pytest.mark.parametrize(
    "change",
    [
        {"value": -1},
        {"value": 255},
        {"name": ""},
        {"name": "two words"},
        {"name": "grün"},
        {"name": "water\n"},
        {"color": "#1F77B4"},
        {"color": "1f77b4"},
        {"color": "1F77B"},
        {"color": "1F77B4\n"},
    ],
    ids=str,
)
def test_classes_that_break_the_rules_are_refused(change):
    with pytest.raises(ModelError, match="class"):
        MapClass(**(WATER | change))


def test_shared_values_names_and_nodata_are_refused():
    with pytest.raises(ModelError, match="share a value"):
        table(WATER, GREEN | {"value": 0})
    with pytest.raises(ModelError, match="share a name"):
        table(WATER, GREEN | {"name": "water"})
    with pytest.raises(ModelError, match="nodata 3 is also a class"):
        table(WATER, GREEN, nodata=3)
    with pytest.raises(ModelError, match="empty"):
        table()


@pytest.mark.parametrize("nodata", [-1, 256, 65535])
def test_a_nodata_that_is_no_byte_is_refused(nodata):
    with pytest.raises(ModelError, match="nodata"):
        table(WATER, nodata=nodata)


@pytest.mark.parametrize("field", ["value", "name", "color_hint"])
def test_a_stac_class_that_lacks_something_is_refused(field):
    entry = {"value": 1, "name": "bare", "color_hint": "AABBCC"}
    del entry[field]
    with pytest.raises(ModelError, match=f"lacks '{field}'"):
        ClassTable.from_stac([entry])
