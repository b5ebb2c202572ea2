"""Folders of images beside folders of labels, in whatever form labels come."""

import pickle

import numpy as np
import pytest

from mapper.errors import DataError
from mapper.training.data.labelled import IGNORED
from tests.training.data.written import (
    BANDS3,
    BANDS4,
    LAND,
    MODEL,
    ROAD,
    TABLE,
    WATER,
    check_pieces,
    holds,
    noise,
    numbers,
    opened,
    painted,
    pallet,
    picture,
    tiff,
    whole,
)


@pytest.fixture
def folder(tmp_path):
    """Writes one image of three bands beside what a function makes of its label."""

    def write(make, label, name="a"):
        values = noise(shape=label.shape)
        picture(tmp_path / "images" / f"{name}.png", values.transpose(1, 2, 0))
        make(tmp_path / "labels" / name, label)
        return tmp_path

    return write


def as_numbers(path, label):
    picture(path.with_suffix(".png"), label)


def as_colors(path, label):
    picture(path.with_suffix(".png"), painted(label))


def as_colors_and_alpha(path, label):
    picture(path.with_suffix(".png"), painted(label, alpha=True))


def as_color_tiff(path, label):
    tiff(path.with_suffix(".tif"), painted(label).transpose(2, 0, 1), photometric="RGB")


def as_number_tiff(path, label):
    tiff(path.with_suffix(".TIF"), label.astype("int16"))


def as_palette_of_colors(path, label):
    order = np.select([label == 7, label == 0], [0, 1], 2).astype(np.uint8)
    pallet(path.with_suffix(".png"), order, [WATER["color"], LAND["color"], ROAD["color"]])


def as_palette_of_numbers(path, label):
    pallet(path.with_suffix(".png"), label, ["000000", *["808000"] * 7])


def as_colormap_tiff(path, label):
    tiff(path.with_suffix(".tif"), label, nodata=255, colormap=TABLE.colormap())


FORMS = [
    as_numbers,
    as_colors,
    as_colors_and_alpha,
    as_color_tiff,
    as_number_tiff,
    as_palette_of_colors,
    as_palette_of_numbers,
    as_colormap_tiff,
]


@pytest.mark.parametrize("make", FORMS)
def test_labels_mean_the_same_in_every_form(folder, make):
    label = numbers()
    found = opened(folder(make, label), layout="images", bands=BANDS3)
    np.testing.assert_array_equal(whole(found).label, label)
    assert whole(found).label.dtype == np.uint8
    assert found.classes == TABLE
    assert found.bands == tuple(BANDS3)
    check_pieces(found)


@pytest.mark.parametrize("make", [as_numbers, as_number_tiff])
def test_ignored_values_teach_nothing(folder, make):
    label = numbers(values=(0, 1, 7, 9, 255))
    found = opened(folder(make, label), layout="images", bands=BANDS3, ignored=[9, 255, 1])
    expected = np.where(np.isin(label, (0, 7)), label, IGNORED)
    np.testing.assert_array_equal(whole(found).label, expected)


@pytest.mark.parametrize("ignored", ["9B9B9B", "#9b9b9b"])
def test_ignored_colors_teach_nothing(folder, ignored):
    label = numbers()
    root = folder(as_colors, label)
    colors = painted(label)
    colors[3] = 0x9B
    picture(root / "labels" / "a.png", colors)
    found = opened(root, layout="images", bands=BANDS3, ignored=[ignored])
    label[3] = IGNORED
    np.testing.assert_array_equal(whole(found).label, label)


def test_transparent_pixels_and_declared_nodata_teach_nothing(tmp_path):
    label = numbers()
    shades = painted(label, alpha=True)
    shades[:2, :, 3] = 0
    for name in "ab":
        picture(tmp_path / "images" / f"{name}.png", noise().transpose(1, 2, 0))
    picture(tmp_path / "labels" / "a.png", shades)
    marked = label.copy()
    marked[:2] = 99
    tiff(tmp_path / "labels" / "b.tif", marked, nodata=99)
    found = opened(tmp_path, layout="images", bands=BANDS3)
    label[:2] = IGNORED
    for number in range(2):
        np.testing.assert_array_equal(whole(found, number).label, label)


def test_a_class_stays_a_class_where_the_file_calls_it_nodata(folder):
    label = numbers()
    root = folder(lambda path, wanted: tiff(path.with_suffix(".tif"), wanted, nodata=0), label)
    np.testing.assert_array_equal(whole(opened(root, layout="images", bands=BANDS3)).label, label)


def test_black_may_be_a_class_and_nodata_transparent(folder):
    label = numbers(values=(0, 1, 255))
    root = folder(
        lambda path, wanted: tiff(
            path.with_suffix(".tif"), wanted, nodata=255, colormap=MODEL.colormap()
        ),
        label,
    )
    found = opened(root, MODEL, layout="images", bands=BANDS3)
    np.testing.assert_array_equal(whole(found).label, label)


@pytest.mark.parametrize(
    ("make", "spoilt", "what"),
    [
        (as_numbers, 9, r"value 9 \(3 pixels\)"),
        (as_number_tiff, 9, r"value 9 \(3 pixels\)"),
        (as_colors, 7, r"colour 000000 \(3 pixels\)"),
        (as_color_tiff, 7, r"colour 000000 \(3 pixels\)"),
    ],
)
def test_what_is_in_no_table_is_refused(tmp_path, make, spoilt, what):
    label = numbers(values=(0, 1))
    label[4, 2:5] = spoilt
    picture(tmp_path / "images" / "a.png", noise().transpose(1, 2, 0))
    make(tmp_path / "labels" / "a", label)
    shades = tmp_path / "labels" / "a.png"
    if "colour" in what:
        colors = painted(label)
        colors[4, 2:5] = 0
        tiff(tmp_path / "labels" / "a.tif", colors.transpose(2, 0, 1))
        shades.unlink(missing_ok=True)
    found = opened(tmp_path, layout="images", bands=BANDS3)
    with pytest.raises(DataError, match=rf"labels/a\.\w+ holds {what}"):
        found.read(found.images[0], (4, 0, 1, 4))


def test_a_palette_that_is_partly_known_is_refused(folder):
    label = numbers(values=(0, 1))
    label[0, :5] = 2
    root = folder(
        lambda path, wanted: pallet(
            path.with_suffix(".png"), wanted, [ROAD["color"], LAND["color"], "123456"]
        ),
        label,
    )
    found = opened(root, layout="images", bands=BANDS3)
    with pytest.raises(DataError, match=r"a\.png holds colour 123456 \(5 pixels\)"):
        whole(found)


def test_a_color_of_two_classes_stands_for_neither(folder):
    double = [LAND, ROAD, {**WATER, "color": ROAD["color"]}]
    found = opened(
        folder(as_colors, numbers(values=(0, 1))), layout="images", bands=BANDS3, classes=double
    )
    with pytest.raises(DataError, match="colour 6EC1E4"):
        whole(found)


@pytest.mark.parametrize("form", ["complex64", "float32", "five"])
def test_labels_of_other_kinds_are_refused(folder, form):
    def make(path, label):
        kind = label.astype(form) if form != "five" else np.stack([label] * 5)
        tiff(path.with_suffix(".tif"), kind)

    found = opened(folder(make, numbers()), layout="images", bands=BANDS3)
    with pytest.raises(DataError, match=r"a\.tif is no label"):
        whole(found)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_four_bands_are_four_samples(tmp_path, suffix):
    values = noise(4)
    values[3, :4] = 0
    path = tmp_path / "images" / f"a{suffix}"
    if suffix == ".png":
        picture(path, values.transpose(1, 2, 0))
    else:
        tiff(path, values, photometric="RGB", alpha="yes")
    as_numbers(tmp_path / "labels" / "a", numbers())
    found = opened(tmp_path, layout="images", bands=BANDS4)
    np.testing.assert_array_equal(whole(found).values, values)
    assert whole(found).valid is None
    first = opened(tmp_path, layout="images", bands=BANDS3)
    np.testing.assert_array_equal(whole(first).values, values[:3])
    assert whole(first).valid is None


def test_jpegs_are_read(tmp_path):
    picture(tmp_path / "images" / "a.JPG", np.full((12, 16, 3), 90, np.uint8))
    as_numbers(tmp_path / "labels" / "a", numbers())
    found = opened(tmp_path, layout="images", bands=BANDS3)
    assert np.abs(whole(found).values.astype(int) - 90).max() <= 1
    check_pieces(found)


def test_nan_counts_for_a_band_and_nodata_for_a_pixel(tmp_path):
    values = noise(dtype="float32")
    values[1, 2, 3] = np.nan
    values[0, 5, 6] = -9
    tiff(tmp_path / "images" / "a.tif", values, nodata=-9)
    black = noise(dtype="uint16")
    black[:, 1, 1] = 0
    black[0, 2, 2] = 0
    tiff(tmp_path / "images" / "b.tif", black, nodata=0)
    found = opened(tmp_path, layout="images", bands=BANDS3, labels="")
    first, second = whole(found, 0).valid, whole(found, 1).valid
    assert [tuple(hole) for hole in np.argwhere(~first)] == [(0, 5, 6), (1, 2, 3)]
    assert [tuple(hole) for hole in np.argwhere(~second)] == [(b, 1, 1) for b in range(3)]
    for number in range(2):
        check_pieces(found, number)


def test_an_internal_mask_is_what_is_valid(tmp_path):
    import rasterio

    path = tiff(tmp_path / "images" / "a.tif", noise(), place=(0, 0))
    mask = np.full((12, 16), 255, np.uint8)
    mask[:, :3] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as target:
        target.write_mask(mask)
    found = opened(tmp_path, layout="images", bands=BANDS3, labels="")
    np.testing.assert_array_equal(whole(found).valid, np.stack([mask > 0] * 3))
    check_pieces(found)


def test_images_are_described_by_their_headers(tmp_path):
    for name, east in (("b", 500_000), ("a", 600_000)):
        tiff(tmp_path / "images" / f"{name}.tif", noise(), place=(east, 5_000_000))
    picture(tmp_path / "images" / "c.png", noise().transpose(1, 2, 0))
    as_numbers(tmp_path / "labels" / "a", numbers())
    (tmp_path / "images" / "a.tif.aux.xml").write_text("<a/>")
    (tmp_path / "images" / ".b.tif").write_text("half")
    found = opened(tmp_path, layout="images", bands=BANDS3, scale=0.5)
    assert [i.name for i in found.images] == ["a", "b", "c"]
    assert [i.place for i in found.images] == [
        (600_004.0, 4_999_997.0),
        (500_004.0, 4_999_997.0),
        None,
    ]
    assert [i.label is None for i in found.images] == [False, True, True]
    assert {i.shape for i in found.images} == {(12, 16)}
    assert whole(found, 1).label is None
    assert found.scale == 0.5
    assert found.facts == {"images": 3, "labelled": 1, "pixels": 3 * 12 * 16}


def test_a_pattern_names_groups(tmp_path):
    for name in ("tile1_x_1", "tile1_x_2", "tile2_y_1"):
        picture(tmp_path / "images" / f"{name}.png", noise().transpose(1, 2, 0))
    options = {"layout": "images", "bands": BANDS3, "labels": ""}
    found = opened(tmp_path, **options, group=r"^(tile\d+)_")
    assert [i.group for i in found.images] == ["tile1", "tile1", "tile2"]
    for pattern in (r"^(tile1)", r"tile\d", r"(nothing)?"):
        with pytest.raises(DataError, match=r"captures nothing in 'tile\d"):
            opened(tmp_path, **options, group=pattern)
    with pytest.raises(DataError, match="no regular expression"):
        opened(tmp_path, **options, group="(")


def test_a_label_without_image_is_refused(folder):
    root = folder(as_numbers, numbers())
    picture(root / "labels" / "b.png", numbers())
    with pytest.raises(DataError, match=r"labels/b\.png has no image in .*images"):
        opened(root, layout="images", bands=BANDS3)


def test_sizes_must_agree(folder):
    root = folder(as_numbers, numbers())
    picture(root / "labels" / "a.png", numbers((12, 15)))
    with pytest.raises(DataError, match=r"labels/a\.png is 12 x 15 .*images/a\.png is 12 x 16"):
        opened(root, layout="images", bands=BANDS3)


def test_too_few_bands_are_refused(folder):
    with pytest.raises(DataError, match=r"a\.png has 3 bands, 4 are named"):
        opened(folder(as_numbers, numbers()), layout="images", bands=BANDS4)


def test_bands_must_be_named(folder):
    with pytest.raises(DataError, match=r"data\.bands"):
        opened(folder(as_numbers, numbers()), layout="images")


def test_empty_and_missing_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="nowhere is no folder"):
        opened(tmp_path / "nowhere", layout="images", bands=BANDS3)
    with pytest.raises(DataError, match="images is no folder"):
        opened(tmp_path, layout="images", bands=BANDS3)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="labels is no folder"):
        opened(tmp_path, layout="images", bands=BANDS3)
    with pytest.raises(DataError, match="holds no image"):
        opened(tmp_path, layout="images", bands=BANDS3, labels="")


def test_names_that_differ_by_their_suffix_are_refused(folder):
    root = folder(as_numbers, numbers())
    tiff(root / "images" / "a.tif", noise())
    with pytest.raises(DataError, match=r"a\.tif and a\.png|a\.png and a\.tif"):
        opened(root, layout="images", bands=BANDS3)


def test_files_that_are_no_images_are_named(folder):
    root = folder(as_numbers, numbers())
    (root / "images" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png is no image"):
        opened(root, layout="images", bands=BANDS3)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_files_that_are_cut_off_are_named(tmp_path, suffix):
    path = tmp_path / "images" / f"a{suffix}"
    if suffix == ".tif":
        tiff(path, noise(shape=(64, 64)), compress="deflate")
    else:
        picture(path, noise(shape=(64, 64)).transpose(1, 2, 0))
    found = opened(tmp_path, layout="images", bands=BANDS3, labels="")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=rf"a\{suffix} (cannot be read|is no image)"):
        whole(found)


def test_pieces_beyond_an_image_are_refused(folder):
    found = opened(folder(as_numbers, numbers()), layout="images", bands=BANDS3)
    for box in ((0, 0, 13, 16), (-1, 0, 2, 2), (0, 15, 1, 2), (0, 0, 0, 3)):
        with pytest.raises(DataError, match=r"a\.png is 12 x 16 pixels"):
            found.read(found.images[0], box)


def test_a_file_that_changes_is_read_again(folder):
    root = folder(as_numbers, numbers())
    found = opened(root, layout="images", bands=BANDS3)
    whole(found)
    again = noise(shape=(12, 16), top=9)
    picture(root / "images" / "a.png", again.transpose(1, 2, 0))
    picture(root / "labels" / "a.png", np.ones((12, 16), np.uint8))
    assert holds(found, 0, again, np.ones((12, 16)))


def test_what_was_read_may_be_written_into(folder):
    label = numbers()
    found = opened(folder(as_numbers, label), layout="images", bands=BANDS3)
    pixels = whole(found)
    before = pixels.values.copy()
    pixels.values[:] = 0
    pixels.label[:] = 0
    assert holds(found, 0, before, label)


def test_readers_travel_to_other_processes(folder):
    found = opened(folder(as_colors, numbers()), layout="images", bands=BANDS3)
    read = pickle.loads(pickle.dumps(found.read))
    np.testing.assert_array_equal(read(found.images[0], None).label, whole(found).label)


def test_ignored_must_be_a_value_or_a_color(folder):
    with pytest.raises(DataError, match="'grey'"):
        opened(folder(as_numbers, numbers()), layout="images", bands=BANDS3, ignored=["grey"])
