"""Real labelled images."""

import numpy as np
import pytest

from mapper.errors import DataError
from mapper.recipe.training import Split
from mapper.training.data.labelled import IGNORED
from mapper.training.data.split import split_blocks
from tests.training.data.written import BANDS3, MODEL, check_pieces, opened, table, whole

pytestmark = pytest.mark.archive

DUBAI = table(
    {"value": 0, "name": "building", "color": "3C1098"},
    {"value": 1, "name": "land", "color": "8429F6"},
    {"value": 2, "name": "road", "color": "6EC1E4"},
    {"value": 3, "name": "vegetation", "color": "FEDD3A"},
    {"value": 4, "name": "water", "color": "E2A929"},
)
INDIA = table(
    {"value": 1, "name": "built-up", "color": "FF0000"},
    {"value": 2, "name": "vegetation", "color": "00FF00"},
    {"value": 3, "name": "water", "color": "0000FF"},
)


def test_india_has_near_infrared_in_the_place_of_alpha(archive):
    found = opened(
        archive / "labelled" / "india-s2",
        INDIA,
        layout="images",
        labels="masks",
        bands=[f"sentinel2:{band}" for band in ("red", "green", "blue", "nir")],
        ignored=[0],
    )
    assert len(found.images) == 73
    small = sorted(range(73), key=lambda n: np.prod(found.images[n].shape))[:3]
    for number in small:
        pixels = whole(found, number)
        red, green, blue, nir = pixels.values.astype(float)
        vegetation = pixels.label == 2
        assert pixels.valid is None
        assert set(np.unique(pixels.label)) <= {1, 2, 3, IGNORED}
        # what tells near-infrared from the others, and from an alpha of 255
        assert nir[vegetation].mean() > red[vegetation].mean()
        assert len(np.unique(nir)) > 50
        # plants keep more green than red or blue
        assert green[vegetation].mean() > max(red[vegetation].mean(), blue[vegetation].mean()) - 10
    check_pieces(found, small[0])


def test_dubai_has_black_that_no_table_lists(archive):
    root = archive / "labelled" / "dubai"
    options = {"layout": "images", "labels": "masks", "bands": BANDS3, "group": r"^(tile\d+)_"}
    found = opened(root, DUBAI, **options, ignored=["9B9B9B"])
    names = {image.name: number for number, image in enumerate(found.images)}
    assert {image.group for image in found.images} == {"tile1", "tile2", "tile3"}
    # of colours in a palette, and in three bands
    for name in ("tile1_image_part_006", "tile3_image_part_001"):
        label = whole(found, names[name]).label
        assert set(np.unique(label)) <= {0, 1, 2, 3, 4, IGNORED}
        assert (label != IGNORED).any()
    with pytest.raises(DataError, match=r"tile3_image_part_006\.png holds colour 000000 \(302 pix"):
        whole(found, names["tile3_image_part_006"])
    clean = opened(root, DUBAI, **options, ignored=["9B9B9B", "000000"])
    assert (whole(clean, names["tile3_image_part_006"]).label == IGNORED).sum() >= 302
    train, validation = split_blocks(clean.images, Split(held_out=["tile3"]))
    assert (len(train), len(validation)) == (18, 9)


def test_trees_of_four_cities(archive):
    found = opened(archive / "labelled" / "naip-trees", MODEL, layout="tree-points")
    assert len(found.images) == 59
    assert {i.group for i in found.images} == {"chico", "long_beach", "riverside", "santa_monica"}
    counts = np.zeros(256, dtype=int)
    for number in range(0, 59, 6):
        pixels = whole(found, number)
        counts += np.bincount(pixels.label.ravel(), minlength=256)
        assert pixels.valid is None
    assert counts[[0, 1, IGNORED]].sum() == counts.sum()
    assert (counts[[0, 1, IGNORED]] / counts.sum() > 0.05).all()
    check_pieces(found)
    assert all(image.place for image in found.images)
    train, validation = split_blocks(found.images, Split(held_out=["chico"]))
    assert (len(train), len(validation)) == (42, 17)
