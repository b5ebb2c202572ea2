"""Published data sets as their folders are laid out."""

import logging

import numpy as np
import pytest

from mapper.errors import DataError
from mapper.training.data import published
from mapper.training.data.labelled import IGNORED
from tests.training.data.written import (
    LAND,
    MODEL,
    ROAD,
    check_pieces,
    holds,
    noise,
    numbers,
    opened,
    painted,
    picture,
    table,
    tiff,
    whole,
)


@pytest.mark.parametrize(("name", "masks"), [("images", "labels"), ("Image", "Label")])
@pytest.mark.parametrize("form", ["grey", "ones", "color", "bit"])
def test_ugset(tmp_path, name, masks, form):
    values, label = noise(), numbers(values=(0, 1))
    tiff(tmp_path / name / "0001.tif", values)
    tiff(tmp_path / name / "0002.tif", values)
    stored = {
        "grey": label * 255,
        "ones": label,
        "color": np.stack([label * 255] * 3, axis=-1),
        "bit": label.astype(bool),
    }[form]
    picture(tmp_path / masks / "0001.png", stored)
    found = opened(tmp_path, MODEL, layout="ugset")
    assert found.bands == published.RGB
    assert found.classes == published.UGSET
    assert holds(found, 0, values, label)
    assert found.images[1].label is None
    check_pieces(found)


def test_ugset_in_subsets(tmp_path):
    for subset in ("train", "val", "test"):
        tiff(tmp_path / subset / "images" / "1.tif", noise())
        picture(tmp_path / subset / "labels" / "1.png", numbers(values=(0, 255)))
    found = opened(tmp_path, layout="ugset")
    assert {i.name: i.subset for i in found.images} == {
        "train_1": "train",
        "validation_1": "validation",
        "test_1": "test",
    }


def test_ugset_elsewhere_is_refused(tmp_path):
    with pytest.raises(DataError, match="UGSet"):
        opened(tmp_path, layout="ugset")


def test_openearthmap_by_regions(tmp_path, caplog):
    values, label = noise(), numbers(values=range(9))
    for region, number in (("aachen", 1), ("aachen", 2), ("tokyo", 1)):
        tiff(tmp_path / region / "images" / f"{region}_{number}.tif", values, place=(10, 10))
        if (region, number) != ("aachen", 2):
            tiff(tmp_path / region / "labels" / f"{region}_{number}.tif", label)
    for number in (1, 2):
        tiff(tmp_path / "xbd-town" / "labels" / f"town_{number}.tif", label)
    (tmp_path / "train.txt").write_text("tokyo_1.tif\ntown_1.tif\n")
    (tmp_path / "val.txt").write_text("aachen_1.tif\n")
    (tmp_path / "test.txt").write_text("aachen_2.tif\n")
    with caplog.at_level(logging.WARNING):
        found = opened(tmp_path, layout="openearthmap")
    assert "2 labels are left out" in caplog.text
    assert found.facts["labels_without_image"] == 2
    assert [(i.name, i.group, i.subset) for i in found.images] == [
        ("aachen_1", "aachen", "validation"),
        ("aachen_2", "aachen", "test"),
        ("tokyo_1", "tokyo", "train"),
    ]
    assert found.images[1].label is None
    assert holds(found, 0, values, np.where(label, label, IGNORED))
    assert found.classes == published.OPENEARTHMAP
    check_pieces(found)


def test_openearthmap_in_one_folder(tmp_path):
    values, label = noise(), numbers(values=range(9))
    tiff(tmp_path / "images" / "dar_es_salaam_12.tif", values)
    colors = painted(label, published.OPENEARTHMAP)
    tiff(tmp_path / "labels" / "dar_es_salaam_12.tif", colors.transpose(2, 0, 1))
    found = opened(tmp_path, layout="openearthmap")
    assert [(i.group, i.subset) for i in found.images] == [("dar_es_salaam", "")]
    assert holds(found, 0, values, np.where(label, label, IGNORED))
    tiff(tmp_path / "labels" / "other_1.tif", label)
    with pytest.raises(DataError, match=r"other_1\.tif has no image"):
        opened(tmp_path, layout="openearthmap")


def test_an_image_in_two_lists_is_refused(tmp_path):
    tiff(tmp_path / "a" / "images" / "a_1.tif", noise())
    for subset in ("train", "test"):
        (tmp_path / f"{subset}.txt").write_text("a_1.tif\n")
    with pytest.raises(DataError, match="lists a_1"):
        opened(tmp_path, layout="openearthmap")


def test_classes_of_the_recipe_win(tmp_path):
    tiff(tmp_path / "a" / "images" / "a_1.tif", noise())
    tiff(tmp_path / "a" / "labels" / "a_1.tif", label := numbers(values=(0, 1)))
    found = opened(tmp_path, layout="openearthmap", classes=[LAND, ROAD])
    assert found.classes == table(LAND, ROAD)
    assert (whole(found).label == label).all()


@pytest.mark.parametrize("form", ["numbers", "colors"])
@pytest.mark.parametrize("six", [False, True])
def test_daspm(tmp_path, form, six):
    classes = published.DASPM_WITH_OTHERS if six else published.DASPM
    values, label = noise(), numbers(values=classes.values)
    stored, expected = label.copy(), label.copy()
    if form == "numbers":
        stored[0, :3], expected[0, :3] = (255, 6, 77), IGNORED
    for group in ("gaofen", "sentinel"):
        for subset in ("train", "val"):
            name = f"{subset}/1_2.tif"
            tiff(tmp_path / group / "img_dir" / name, values)
            if (group, subset) == ("sentinel", "train"):
                continue
            if form == "colors":
                stored = painted(label, classes).transpose(2, 0, 1)
            tiff(tmp_path / group / "ann_dir" / name, stored)
    crosswalk = {"others": None} if six else {}
    found = opened(tmp_path, MODEL, layout="daspm", crosswalk=crosswalk)
    assert [(i.name, i.group, i.subset, i.label is None) for i in found.images] == [
        ("gaofen_train_1_2", "gaofen", "train", False),
        ("gaofen_val_1_2", "gaofen", "validation", False),
        ("sentinel_train_1_2", "sentinel", "train", True),
        ("sentinel_val_1_2", "sentinel", "validation", False),
    ]
    assert found.classes == classes
    assert holds(found, 0, values, expected)
    check_pieces(found)


def test_daspm_with_lists(tmp_path):
    for name in ("a", "b", "c"):
        tiff(tmp_path / "sentinel" / "image" / f"{name}.tif", noise())
        tiff(tmp_path / "sentinel" / "label" / f"{name}.tif", numbers(values=range(5)))
    (tmp_path / "sentinel" / "train.txt").write_text("a\n")
    (tmp_path / "sentinel" / "val.txt").write_text("c\n")
    found = opened(tmp_path, layout="daspm")
    assert [i.subset for i in found.images] == ["train", "", "validation"]
    assert all(i.label for i in found.images)


def test_daspm_of_six_classes_is_not_taken_for_five(tmp_path):
    tiff(tmp_path / "gaofen" / "img_dir" / "a.tif", noise())
    tiff(tmp_path / "gaofen" / "ann_dir" / "a.tif", np.full((12, 16), 5, np.uint8))
    with pytest.raises(DataError, match=r"value 5 \(192 pixels\).* a class others"):
        whole(opened(tmp_path, layout="daspm"))


def test_daspm_elsewhere_is_refused(tmp_path):
    with pytest.raises(DataError, match="gaofen/img_dir"):
        opened(tmp_path, layout="daspm")


def test_loveda(tmp_path):
    values, label = noise(), numbers(values=range(8))
    for subset, group, name in (
        ("Train", "Rural", "0"),
        ("Train", "Urban", "1366"),
        ("Val", "Urban", "3514"),
        ("Test", "Rural", "4191"),
    ):
        folder = tmp_path / subset / group
        picture(folder / "images_png" / f"{name}.png", values.transpose(1, 2, 0))
        if subset != "Test":
            picture(folder / "masks_png" / f"{name}.png", label)
    found = opened(tmp_path, layout="loveda")
    assert [(i.name, i.group, i.subset) for i in found.images] == [
        ("test_rural_4191", "Rural", "test"),
        ("train_rural_0", "Rural", "train"),
        ("train_urban_1366", "Urban", "train"),
        ("val_urban_3514", "Urban", "validation"),
    ]
    assert [i.label is None for i in found.images] == [True, False, False, False]
    assert holds(found, 1, values, np.where(label, label, IGNORED))
    assert found.classes.values == (1, 2, 3, 4, 5, 6, 7)
    check_pieces(found, 1)


def test_loveda_elsewhere_is_refused(tmp_path):
    with pytest.raises(DataError, match="LoveDA"):
        opened(tmp_path, layout="loveda")
