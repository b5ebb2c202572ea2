"""Crowns grown from tree points, held against connected components."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mapper.errors import DataError
from mapper.training.data.labelled import IGNORED
from mapper.training.data.trees import crowns, read_points
from tests.training.data.written import MODEL, TABLE, check_pieces, noise, opened, tiff, whole


def by_components(red, nir, points):
    """The definition, point by point."""
    red, nir = red.astype(float), nir.astype(float)
    ndvi = np.divide(nir - red, nir + red, out=np.full(red.shape, -1.0), where=nir + red > 0)
    green = ndvi >= 0.15
    tree = np.zeros(green.shape, dtype=bool)
    rows, cols = np.indices(green.shape)
    for row, col in points:
        disc = (rows - row) ** 2 + (cols - col) ** 2 <= 49
        components, _ = ndimage.label(green & disc, np.ones((3, 3)))
        near = (abs(rows - row) <= 1) & (abs(cols - col) <= 1)
        tree |= np.isin(components, np.setdiff1d(components[near], [0]))
    inner = np.zeros(green.shape, dtype=bool)
    inner[7:-7, 7:-7] = True
    marks = np.ones(green.shape, dtype=bool)
    marks[tuple(np.array(points).reshape(-1, 2).T)] = False
    distance = ndimage.distance_transform_edt(marks) if len(points) else np.full(marks.shape, 1e9)
    return np.where(tree, 1, np.where(green & ~(inner & (distance > 16)), -1, 0))


@settings(max_examples=30)
@given(
    st.integers(0, 1 << 32),
    st.floats(0.2, 0.8),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(0, 6),
)
def test_crowns_are_what_the_definition_says(seed, share, shape, count):
    rng = np.random.default_rng(seed)
    red = np.full(shape, 60, np.uint8)
    nir = np.where(rng.random(shape) < share, 120, rng.integers(0, 80, shape)).astype(np.uint8)
    red[rng.random(shape) < 0.05] = 0
    points = np.stack([rng.integers(0, side, count) for side in shape], axis=1)
    np.testing.assert_array_equal(crowns(red, nir, points), by_components(red, nir, points))


def test_a_point_on_bare_ground_grows_from_beside_it():
    red, nir = np.full((20, 20), 100, np.uint8), np.full((20, 20), 50, np.uint8)
    nir[9, 10:14] = 200
    nir[15, 10] = 200
    found = crowns(red, nir, np.array([[10, 10]]))
    assert (found[9, 10:14] == 1).all()
    assert found[10, 10] == 0
    assert found[15, 10] == -1


def write(root, name, values, rows):
    tiff(root / "images" / f"{name}.tif", values, place=(594_717, 4_403_031), pixel=0.6)
    (root / "points").mkdir(exist_ok=True)
    (root / "points" / f"{name}.csv").write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in rows))


def test_chips_and_points(tmp_path):
    values = noise(4, (24, 30))
    write(tmp_path, "santa_monica_2020_3", values, [(4, 20), (29, 0), (12.7, 3.2)])
    tiff(tmp_path / "images" / "chico_2020_1.tif", values)
    found = opened(tmp_path, MODEL, layout="tree-points")
    assert [i.group for i in found.images] == ["chico", "santa_monica"]
    assert found.images[0].label is None
    assert whole(found).label is None
    pixels = whole(found, 1)
    np.testing.assert_array_equal(pixels.values, values)
    points = [(20, 4), (0, 29), (3, 12)]
    expected = by_components(values[0], values[3], points).astype(int)
    np.testing.assert_array_equal(pixels.label, np.where(expected < 0, IGNORED, expected))
    check_pieces(found, 1)


def test_labels_take_the_values_and_the_order_of_the_classes(tmp_path):
    values = np.stack([np.full((9, 9), value, np.uint8) for value in (1, 1, 1, 9)])
    write(tmp_path, "a_2020_1", values, [(4, 4)])
    entries = [{"value": v, "name": n, "color": "00FF00"} for v, n in ((5, "no"), (2, "tree"))]
    found = opened(tmp_path, layout="tree-points", classes=entries)
    assert set(np.unique(whole(found).label)) == {2}
    nir_first = ["naip:nir", "naip:green", "naip:blue", "naip:red"]
    other = opened(tmp_path, layout="tree-points", classes=entries, bands=nir_first)
    assert set(np.unique(whole(other).label)) == {5}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x,y\n30,3\n", "x=30, y=3, outside"),
        ("x,y\n3,-1\n", "x=3, y=-1, outside"),
        ("lon,lat\n3,1\n", "columns x,y"),
        ("x,y\n3\n", "columns x,y"),
        ("x,y\nhere,3\n", "columns x,y"),
        ("x,y\nnan,3\n", "columns x,y"),
    ],
)
def test_points_that_cannot_be_are_refused(tmp_path, text, says):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.csv .*{says}"):
        read_points(path, (24, 30))


def test_a_file_without_points_says_that_there_is_no_tree(tmp_path):
    values = noise(4)
    write(tmp_path, "a_2020_1", values, [])
    label = whole(opened(tmp_path, MODEL, layout="tree-points")).label
    assert set(np.unique(label)) <= {0, IGNORED}


def test_what_does_not_fit_is_refused(tmp_path):
    write(tmp_path, "a_2020_1", noise(4), [])
    with pytest.raises(DataError, match="3 are listed"):
        opened(tmp_path, TABLE, layout="tree-points")
    with pytest.raises(DataError, match="red and nir"):
        opened(tmp_path, MODEL, layout="tree-points", bands=["highres:red"])
    with pytest.raises(DataError, match=r"data\.ignored"):
        opened(tmp_path, MODEL, layout="tree-points", ignored=[3])
    (tmp_path / "points" / "b_2020_1.csv").write_text("x,y\n")
    with pytest.raises(DataError, match=r"b_2020_1\.csv has no image"):
        opened(tmp_path, MODEL, layout="tree-points")
