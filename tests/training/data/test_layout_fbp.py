"""Five-Billion-Pixels: four samples that common software reads as three and an alpha."""

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from mapper.errors import DataError
from mapper.training.data import published
from mapper.training.data.labelled import IGNORED
from tests.training.data.written import (
    check_pieces,
    cmyk,
    holds,
    noise,
    numbers,
    opened,
    painted,
    picture,
    tiff,
    whole,
)

STEM = "GF2_PMS1__L1A0000564539-MSS1"


def write_label(root, label, form="index", stem=STEM):
    if form == "index":
        picture(root / "Annotation__index" / f"{stem}_24label.png", label)
    else:
        colors = painted(label, published.FBP)
        picture(root / "Annotation__color" / f"{stem}_24label.tif", colors)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("form", ["index", "color"])
def test_eight_bits_are_read_as_stored(tmp_path, compression, form):
    values, label = noise(4, (30, 40)), numbers((30, 40), range(25))
    path = cmyk(tmp_path / "Image__8bit_NirRGB" / f"{STEM}.tif", values, compression=compression)
    write_label(tmp_path, label, form)
    with pytest.warns(NotGeoreferencedWarning):
        plain = rasterio.open(path).read()
    # the pitfall: GDAL turns the samples into colours and an alpha
    assert (plain[3] == 255).all()
    assert not np.array_equal(plain[:3], values[:3])
    found = opened(tmp_path, layout="fbp")
    assert found.bands == ("highres:nir", "highres:red", "highres:green", "highres:blue")
    assert holds(found, 0, values, np.where(label, label, IGNORED))
    assert whole(found).valid is None
    assert found.images[0].name == STEM
    check_pieces(found)


def test_other_layouts_read_the_samples_of_such_files_too(tmp_path):
    values = noise(4)
    cmyk(tmp_path / "images" / "a.tif", values)
    found = opened(tmp_path, layout="images", labels="", bands=list(published.NRGB))
    assert holds(found, 0, values, None)


def test_sixteen_bits_keep_their_order(tmp_path):
    values, label = noise(4, dtype="uint16", top=1000), numbers(values=range(25))
    tiff(tmp_path / "Image_16bit_BGRNir" / f"{STEM}.tiff", values)
    write_label(tmp_path, label)
    found = opened(tmp_path, layout="fbp")
    assert found.bands == ("highres:blue", "highres:green", "highres:red", "highres:nir")
    assert holds(found, 0, values, np.where(label, label, IGNORED))
    check_pieces(found)


def test_the_recipe_chooses_where_both_are_there(tmp_path):
    eight, sixteen = noise(4), noise(4, dtype="uint16", top=1000)
    cmyk(tmp_path / "Image__8bit_NirRGB" / f"{STEM}.tif", eight)
    tiff(tmp_path / "Image_16bit_BGRNir" / f"{STEM}.tiff", sixteen)
    assert holds(opened(tmp_path, layout="fbp"), 0, eight, None)
    found = opened(tmp_path, layout="fbp", images="Image_16bit_BGRNir")
    assert holds(found, 0, sixteen, None)
    assert found.bands == published.BGRN


def test_a_lost_band_is_refused(tmp_path):
    values = noise(4)
    values[3] = 255
    tiff(tmp_path / "Image__8bit_NirRGB" / f"{STEM}.tif", values, photometric="RGB", alpha="yes")
    found = opened(tmp_path, layout="fbp")
    for _ in range(2):
        with pytest.raises(DataError, match=rf"{STEM}\.tif: band 4 is 255 throughout"):
            found.read(found.images[0], (2, 2, 4, 4))


def test_a_saturated_piece_is_no_lost_band(tmp_path):
    values = noise(4)
    values[:, :6], values[3, :9] = 255, 255
    cmyk(tmp_path / "Image__8bit_NirRGB" / f"{STEM}.tif", values)
    found = opened(tmp_path, layout="fbp")
    check_pieces(found)
    np.testing.assert_array_equal(
        found.read(found.images[0], (0, 0, 8, 8)).values, values[:, :8, :8]
    )


def test_the_published_test_images_stay_aside(tmp_path):
    names = ("GF2_PMS1__L1A0001064454-MSS1", "GF2_PMS2__L1A0000607677-MSS2", STEM)
    for name in names:
        cmyk(tmp_path / "Image__8bit_NirRGB" / f"{name}.tif", noise(4))
    found = opened(tmp_path, layout="fbp")
    assert {i.name: i.subset for i in found.images} == dict(
        zip(names, ("test", "test", ""), strict=True)
    )
    assert len(published.FBP_TEST) == 30


def test_classes_are_those_of_the_data_set():
    classes = published.FBP
    assert classes.values == tuple(range(1, 25))
    assert classes.classes[12].rgb == (0, 150, 200)
    assert classes.classes[23].rgb == (200, 150, 0)


def test_what_does_not_belong_is_refused(tmp_path):
    with pytest.raises(DataError, match="Image__8bit_NirRGB"):
        opened(tmp_path, layout="fbp")
    cmyk(tmp_path / "Image__8bit_NirRGB" / f"{STEM}.tif", noise(4))
    write_label(tmp_path, numbers(), stem="GF2_other")
    with pytest.raises(DataError, match=r"GF2_other_24label\.png has no image"):
        opened(tmp_path, layout="fbp")
