"""Sets of samples as `mapper samples` lists them."""

import json

import numpy as np
import pytest

from mapper.errors import DataError
from mapper.training.data.labelled import IGNORED
from tests.training.data.written import (
    LAND,
    MODEL,
    ROAD,
    TABLE,
    check_pieces,
    noise,
    numbers,
    opened,
    table,
    tiff,
    whole,
)

BANDS = ["s2:red", "s2:nir", "s1:vv"]


def write(root, classes=TABLE, values=None, label=None, **more):
    values = noise(dtype="float32") if values is None else values
    label = numbers(values=(*classes.values, 255)) if label is None else label
    samples = []
    for name, east in (("bolzano-1", 0), ("temuco-1", 90_000)):
        tiff(root / "images" / f"{name}.tif", values, (east, 120), 10, nodata=float("nan"))
        tiff(root / "labels" / f"{name}.tif", label, nodata=255, colormap=classes.colormap())
        sample = {"id": name, "image": f"images/{name}.tif", "label": f"labels/{name}.tif"}
        place = {"place": [east + 80.0, 60.0], "shape": [12, 16]}
        samples.append(sample | place | {"group": name.split("-")[0]})
    index = {"format": "geotiff", "bands": BANDS, "classes": classes.to_stac(), "samples": samples}
    (root / "samples.json").write_text(json.dumps(index | more))
    return values, label


def test_samples(tmp_path):
    values = noise(dtype="float32")
    values[1, 3:5] = np.nan
    values, label = write(tmp_path, values=values, license="CC-BY-4.0", run={"seed": 3})
    found = opened(tmp_path, MODEL)
    assert found.bands == tuple(BANDS)
    assert found.classes == TABLE
    assert found.license == "CC-BY-4.0"
    assert found.facts["run"] == {"seed": 3}
    assert [(i.name, i.group, i.place) for i in found.images] == [
        ("bolzano-1", "bolzano", (80.0, 60.0)),
        ("temuco-1", "temuco", (90_080.0, 60.0)),
    ]
    pixels = whole(found, 1)
    np.testing.assert_array_equal(pixels.values, values)
    np.testing.assert_array_equal(pixels.valid, ~np.isnan(values))
    np.testing.assert_array_equal(pixels.label, label)
    check_pieces(found, 1)


def test_bands_are_chosen_by_name(tmp_path):
    values, _ = write(tmp_path)
    found = opened(tmp_path, MODEL, bands=["s1:vv", "s2:red"])
    np.testing.assert_array_equal(whole(found).values, values[[2, 0]])
    with pytest.raises(DataError, match="no band s2:blue"):
        opened(tmp_path, MODEL, bands=["s2:blue"])


def test_numbers_count_and_colors_do_not(tmp_path):
    alike = table(LAND, {**ROAD, "color": LAND["color"]})
    _, label = write(tmp_path, alike, label=numbers(values=(0, 1, 255)))
    np.testing.assert_array_equal(whole(opened(tmp_path, MODEL)).label, label)
    write(tmp_path, alike, label=np.full((12, 16), IGNORED, np.uint8))
    assert (whole(opened(tmp_path, MODEL)).label == IGNORED).all()


@pytest.mark.parametrize("name", ["../outside.tif", "/etc/passwd", "images/../../x.tif"])
def test_files_outside_are_not_read(tmp_path, name):
    root = tmp_path / "set"
    write(root)
    index = json.loads((root / "samples.json").read_text())
    index["samples"][1]["label"] = name
    (root / "samples.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match="outside of its folder"):
        opened(root, MODEL)


def test_links_to_the_outside_are_not_read(tmp_path):
    root = tmp_path / "set"
    write(root)
    other = tiff(tmp_path / "other.tif", noise(dtype="float32"))
    path = root / "images" / "temuco-1.tif"
    path.unlink()
    path.symlink_to(other)
    with pytest.raises(DataError, match="outside of its folder"):
        opened(root, MODEL)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "format None"),
        ('{"format": "csv"}', "format 'csv'"),
        ('{"format": "geotiff", "bands": ["a:b"]}', "no list of samples .*classes"),
        ('{"format": "geotiff", "bands": [], "classes": [], "samples": []}', "no list of samples"),
    ],
)
def test_a_broken_list_is_named(tmp_path, text, says):
    (tmp_path / "samples.json").write_text(text)
    with pytest.raises(DataError, match=rf"samples\.json .*{says}"):
        opened(tmp_path, MODEL)


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "labels" / "temuco-1.tif").unlink()
    with pytest.raises(DataError, match=r"temuco-1\.tif"):
        opened(tmp_path, MODEL)
