"""Targets as they are found: their images as ever, their labels as if they were not there."""

import json

import numpy as np
import pytest
import zarr

from mapper.errors import DataError
from mapper.recipe.training import Data
from mapper.training.adapt.target import check_bands, open_target, without_labels
from mapper.training.data import pairs
from mapper.training.data.layouts import open_data
from tests.training.data.written import LAND, MODEL, ROAD, TABLE, noise, numbers, picture, tiff
from tests.training.lessons import BANDS, listed, train_section, write_images

NAMES = ("bolzano-1", "temuco-1")


def write_samples(root, *, form="geotiff", bands=BANDS):
    """Two samples with labels, as `mapper samples` leaves them; gives their values."""
    found = [noise(len(bands), dtype="float32") for _ in NAMES]
    samples = [{"id": name, "shape": [12, 16], "place": [80.0, 60.0]} for name in NAMES]
    root.mkdir(parents=True, exist_ok=True)
    if form == "zarr":
        group = zarr.open_group(root / "samples.zarr", mode="w")
        group.create_array("image", data=np.stack(found))
        group.create_array("label", data=np.stack([numbers() for _ in NAMES]))
        group.create_array("transform", data=np.ones((2, 6)))
        for number, sample in enumerate(samples):
            sample |= {"image": "samples.zarr", "label": "samples.zarr", "index": number}
    else:
        for sample, values in zip(samples, found, strict=True):
            for kind, pixels in (("image", values), ("label", numbers())):
                sample[kind] = f"{kind}s/{sample['id']}.tif"
                tiff(root / sample[kind], pixels, (0, 120), 10)
    index = {"format": form, "bands": list(bands), "classes": TABLE.to_stac(), "samples": samples}
    (root / "samples.json").write_text(json.dumps(index))
    return found


def values_of(found):
    """All of every image, which must come without a label."""
    read = [found.read(image, None) for image in found.images]
    assert all(image.label is None for image in found.images)
    assert all(pixels.label is None for pixels in read)
    return [pixels.values for pixels in read]


def same(found, expected):
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


@pytest.fixture
def no_labels(monkeypatch):
    """Whoever reads a label fails."""

    def fail(*_):
        raise AssertionError("a label was read")

    monkeypatch.setattr(pairs, "read_label", fail)


# samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["geotiff", "zarr"])
def test_samples_are_known_by_their_index_whatever_the_recipe_reads(tmp_path, form, no_labels):
    values = write_samples(tmp_path, form=form)
    # bands, scale and layout of the source are not those of the samples
    data = {"layout": "ugset", "bands": ["a:b"], "scale": 0.5}
    found = open_target(tmp_path, train_section(data=data))
    assert (found.layout, found.bands, found.scale) == ("samples", BANDS, 1.0)
    assert [image.name for image in found.images] == list(NAMES)
    assert same(values_of(found), values)
    piece = found.read(found.images[1], (2, 3, 4, 5))
    np.testing.assert_array_equal(piece.values, values[1][:, 2:6, 3:8])


def test_bands_of_samples_are_chosen_by_name(tmp_path):
    values = write_samples(tmp_path)
    data = {"layout": "samples", "bands": [BANDS[2], BANDS[0]], "scale": 0.5}
    for found in (
        open_target(tmp_path, train_section(data=data)),
        open_target(tmp_path, train_section(), Data.model_validate(data)),
    ):
        assert (found.bands, found.scale) == ((BANDS[2], BANDS[0]), 0.5)
        assert same(values_of(found), [one[[2, 0]] for one in values])


@pytest.mark.parametrize("damage", ["gone", "cut", "another size", "no class"])
def test_damaged_labels_do_not_matter(tmp_path, damage):
    values = write_samples(tmp_path)
    path = tmp_path / "labels" / "temuco-1.tif"
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(b"nothing")
    else:
        tiff(path, np.full((12, 16) if damage == "no class" else (5, 5), 77, np.uint8))
    assert same(values_of(open_target(tmp_path, train_section())), values)


@pytest.mark.parametrize("damage", ["gone", "no class"])
def test_damaged_labels_of_a_group_do_not_matter(tmp_path, damage):
    values = write_samples(tmp_path, form="zarr")
    group = zarr.open_group(tmp_path / "samples.zarr", mode="a")
    if damage == "gone":
        del group["label"]
    else:
        group["label"][:] = 77
    assert same(values_of(open_target(tmp_path, train_section())), values)


# other layouts ------------------------------------------------------------------------------


def test_images_beside_labels(tmp_path, no_labels):
    root = write_images(tmp_path / "set", count=3)
    found = open_target(root, train_section())
    assert found.layout == "images"
    assert found.bands == BANDS
    labelled = open_data(root, Data(layout="images", bands=list(BANDS)), train_section().table)
    expected = [pairs.read_stored(image.image, None, (1, 2, 3)).values for image in labelled.images]
    assert same(values_of(found), expected)


def test_what_is_known_of_a_target_does_not_depend_on_its_labels(tmp_path):
    train = train_section()
    whole = write_images(tmp_path / "set", count=2)
    facts = open_target(whole, train).facts
    for path in (whole / "labels").iterdir():
        path.unlink()
    assert open_target(whole, train).facts == facts


@pytest.mark.parametrize("named", [None, "given", "recipe"])
def test_a_folder_of_rasters(tmp_path, named):
    values = noise()
    tiff(tmp_path / "b.tif", values)
    picture(tmp_path / "a.png", values.transpose(1, 2, 0).copy())
    bands = ["highres:nir", "highres:red", "highres:green"]
    train = train_section(data={"layout": "loveda", "bands": bands if named == "recipe" else []})
    given = Data(layout="fbp", bands=bands, scale=0.5) if named == "given" else None
    found = open_target(tmp_path, train, given)
    assert [image.name for image in found.images] == ["a", "b"]
    assert found.bands == (tuple(bands) if named else BANDS)
    assert found.scale == (0.5 if named == "given" else 1.0)
    assert same(values_of(found), [values, values])


def test_a_folder_of_images_is_read_whatever_lies_beside_it(tmp_path):
    values = noise()
    tiff(tmp_path / "images" / "a.tif", values)
    tiff(tmp_path / "overview.tif", noise())
    # a source of samples, or of tree points, says nothing of where images are
    for layout in ("images", "samples", "ugset"):
        data = {"layout": layout, "bands": list(BANDS)}
        assert same(values_of(open_target(tmp_path, train_section(data=data))), [values])


def test_a_layout_that_is_given_wins(tmp_path, no_labels):
    values = noise()
    picture(tmp_path / "Val" / "Rural" / "images_png" / "0.png", values.transpose(1, 2, 0).copy())
    picture(tmp_path / "Val" / "Rural" / "masks_png" / "0.png", numbers((5, 5)))
    found = open_target(tmp_path, train_section(), Data(layout="loveda"))
    assert found.layout == "loveda"
    assert found.images[0].group == "Rural"
    assert same(values_of(found), [values])


def test_tree_points_are_images_alone(tmp_path):
    """Neither two classes, nor points, nor near-infrared are asked of a target."""
    values = noise(4)
    tiff(tmp_path / "images" / "city_2020_0.tif", values)
    train = train_section(data={"layout": "tree-points"})
    assert same(values_of(open_target(tmp_path, train)), [values])
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "city_2020_0.csv").write_text("no,points\n")
    found = open_target(tmp_path, train)
    assert found.bands == (*BANDS, "highres:nir")
    assert same(values_of(found), [values])


@pytest.mark.parametrize(
    ("wrong", "says"), [("missing", "is no folder"), ("empty", "holds no image")]
)
def test_a_target_that_is_not_there_is_named(tmp_path, wrong, says):
    if wrong == "empty":
        (tmp_path / "empty" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match=rf"{wrong} {says}"):
        open_target(tmp_path / wrong, train_section())


# labels that are dropped --------------------------------------------------------------------


def test_labels_that_would_be_made_are_not(tmp_path):
    """Crowns around points, and the classes of a Zarr group."""
    chips = tmp_path / "chips"
    values = noise(4, (40, 40))
    tiff(chips / "images" / "a.tif", values)
    (chips / "points").mkdir()
    points = chips / "points" / "a.csv"
    points.write_text("x,y\n20,20\n")
    labelled = open_data(chips, Data(layout="tree-points"), MODEL)
    assert labelled.read(labelled.images[0], None).label is not None
    bare = without_labels(labelled)
    # the points are not even looked at
    points.unlink()
    assert same(values_of(bare), [values])
    assert bare.read(labelled.images[0], None).label is None
    stacked = write_samples(tmp_path / "stacked", form="zarr")
    whole = open_data(tmp_path / "stacked", Data(), MODEL)
    assert whole.read(whole.images[0], None).label is not None
    assert same(values_of(without_labels(whole)), stacked)


# bands --------------------------------------------------------------------------------------


def opened(root, bands):
    tiff(root / "a.tif", noise(len(bands)))
    return open_target(root, train_section(), Data(bands=list(bands)))


def test_domains_with_all_bands_are_taken(tmp_path):
    one = opened(tmp_path / "one", BANDS)
    other = opened(tmp_path / "other", ("highres:nir", *reversed(BANDS)))
    check_bands(train_section(), one, other)


def test_bands_that_are_missing_are_named_with_the_remedy(tmp_path):
    one = opened(tmp_path / "one", BANDS)
    other = opened(tmp_path / "other", (*BANDS[:2], "highres:nir"))
    train = train_section()
    says = r"target .*other lacks highres:blue \(it holds .*nir\).*--set bands=\[highres:red,"
    with pytest.raises(DataError, match=says) as raised:
        check_bands(train, one, other)
    assert "source" not in str(raised.value)
    assert "bands=[highres:red,highres:green]" in str(raised.value)
    with pytest.raises(DataError, match=r"the source .*other lacks highres:blue"):
        check_bands(train, other, one)


def test_domains_without_a_band_in_common_are_told_so(tmp_path):
    one = opened(tmp_path / "one", ("a:x", "a:y", "a:z"))
    other = opened(tmp_path / "other", ("b:x", "a:z"))
    alien = opened(tmp_path / "alien", ("c:x",))
    with pytest.raises(DataError, match=r"source .* lacks .*; the target .* lacks .*bands=\[a:z\]"):
        check_bands(train_section(), one, other)
    with pytest.raises(DataError, match="no band in common"):
        check_bands(train_section(), one, alien)


def test_classes_of_the_target_do_not_matter(tmp_path):
    """They need no counterpart in the model."""
    write_samples(tmp_path)
    train = train_section(classes=listed((("a", "000000"), ("b", "FFFFFF"))))
    assert len(open_target(tmp_path, train, Data(classes=[LAND, ROAD])).images) == 2
