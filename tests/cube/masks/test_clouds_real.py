"""The cloud rule on a cloudy scene of Alberta, against the scene's own classification."""

import json

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds

from mapper.area.grid import Grid, PixelBox
from mapper.cube.masks import CloudBands, Place, clear_of_clouds, sun_azimuth, water_of
from mapper.recipe.masks import CloudMask

pytestmark = pytest.mark.archive
GRID = Grid(epsg=32612, resolution=10, tile=256)


@pytest.fixture(scope="module")
def scene(archive):
    """Bands, scene classification, item and place of the scene at 10 m."""
    folder = archive / "sentinel-2-l2a" / "S2_12VVH_20190522_alberta"
    item = json.loads((folder / f"{folder.name}.json").read_text())
    with rasterio.open(folder / "SCL.tif") as source:
        box = GRID.box_of(transform_bounds(source.crs, GRID.crs, *source.bounds))

    def load(name):
        with rasterio.open(folder / f"{name}.tif") as source:
            found = np.zeros(box.shape, source.dtypes[0])
            how = {"dst_transform": GRID.transform_of(box), "dst_crs": GRID.crs}
            reproject(rasterio.band(source, 1), found, resampling=Resampling.nearest, **how)
        return found

    scl, nir, green = load("SCL"), load("B08"), load("B03")
    bands = CloudBands(
        probability=load("clp") * np.float32(100 / 255),
        nir=nir / np.float32(1e4),
        water=water_of(scl, green, nir),
        valid=(scl > 0) & (nir > 0),
    )
    return bands, scl, item, Place(grid=GRID, box=box)


def hidden(scene, turn=0.0, **numbers):
    """Where the rule sees no ground, with the sun turned by so many degrees."""
    bands, _, item, place = scene
    rule = CloudMask(kind="clouds", **numbers)
    return bands.valid & ~clear_of_clouds(bands, rule, sun_azimuth(item) + turn, place)


def share(mask, scl, *classes):
    return mask[np.isin(scl, classes)].mean()


def test_what_the_scene_calls_cloud_is_hidden_and_ground_is_not(scene):
    scl, mask = scene[1], hidden(scene)
    assert share(mask, scl, 9) > 0.97
    assert share(mask, scl, 8) > 0.8
    assert share(mask, scl, 4, 5) < 0.05
    assert 0.15 < mask[scene[0].valid].mean() < 0.25


def test_shadows_lie_on_the_side_away_from_the_sun(scene):
    scl = scene[1]
    none = share(hidden(scene, shadow_distance=0), scl, 3)
    right = share(hidden(scene), scl, 3)
    wrong = [share(hidden(scene, turn), scl, 3) for turn in (90, 180, 270)]
    assert none < 0.1
    assert right > 0.33
    assert right > 1.4 * max(wrong)


def test_the_clouds_of_this_scene_are_too_high_for_a_kilometre(scene):
    scl = scene[1]
    assert share(hidden(scene), scl, 3) < 0.5
    assert share(hidden(scene, shadow_distance=3000), scl, 3) > 0.95
    assert share(hidden(scene, 180, shadow_distance=3000), scl, 3) < 0.4
    assert share(hidden(scene, shadow_distance=3000), scl, 4, 5) < 0.07


def test_a_window_of_the_scene_is_the_same_whoever_asks(scene):
    bands, _, item, place = scene
    rule = CloudMask(kind="clouds")
    reach = rule.reach(10)
    whole = clear_of_clouds(bands, rule, sun_azimuth(item), place)
    for top, left in ((811, 640), (460, 733)):
        row0, col0 = place.box.row0 + top, place.box.col0 + left
        inner = PixelBox(row0=row0, col0=col0, row1=row0 + 257, col1=col0 + 129)
        asked = Place(grid=GRID, box=inner).grow(reach)
        at = asked.box.slices_in(place.box)
        names = ("probability", "nir", "water", "valid")
        some = CloudBands(**{name: getattr(bands, name)[at] for name in names})
        found = clear_of_clouds(some, rule, sun_azimuth(item), asked)[reach:-reach, reach:-reach]
        expected = whole[inner.slices_in(place.box)]
        assert 0.02 < expected.mean() < 0.95
        np.testing.assert_array_equal(found, expected)
