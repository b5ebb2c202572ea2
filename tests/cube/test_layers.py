"""Maps that others made, as extra layers: nearest, never mixed, never another class."""

import numpy as np
import pytest
import rasterio
from affine import Affine

from mapper.area.grid import TileKey
from mapper.cube.ingest import TileScenes, ingest_tile
from mapper.cube.inspect import inspect_item
from mapper.cube.template import source_templates
from mapper.errors import ReadError
from mapper.recipe import LayerSource

KEY = TileKey(epsg=32633, resolution=10, tile=256, row=2000, col=200)
SOURCE = LayerSource(kind="layer", catalog="here", collections=["io-lulc-annual-v02"])


@pytest.fixture
def layer(tmp_path):
    def make(name, values, when, shift=0.0):
        left, _, _, top = KEY.grid.bounds_of(KEY.box)
        path = tmp_path / f"{name}.tif"
        profile = {"driver": "GTiff", "count": 1, "crs": "EPSG:32633", "nodata": 0}
        profile |= {"transform": Affine(10, 0, left + shift, 0, -10, top - shift)}
        with rasterio.open(
            path, "w", dtype=values.dtype, height=256, width=256, **profile
        ) as target:
            target.write(values, 1)
        asset = {"href": str(path), "raster:bands": [{"nodata": 0}]}
        # as Planetary Computer marks class values
        assets = {"data": asset | {"file:values": [{"values": [1], "summary": "Water"}]}}
        return {
            "id": name,
            "collection": "io-lulc-annual-v02",
            "properties": {"datetime": when},
            "assets": assets,
        }

    return make


def tile_of(*items, source=SOURCE):
    looks = {i["id"]: inspect_item(i, source) for i in items}
    scenes = TileScenes(name="lulc", key=KEY, items=items, inspections=looks)
    return [array for _, array in ingest_tile(scenes, source).arrays]


def test_the_newest_map_is_laid_over_the_older_and_none_is_mixed(layer):
    rng = np.random.default_rng(3)
    new, old = (rng.integers(1, 12, (256, 256), dtype=np.uint8) for _ in range(2))
    new[:100] = 0
    data, count, status = tile_of(
        layer("old", old, "2021-01-01T00:00:00Z"), layer("new", new, "2023-01-01T00:00:00Z")
    )
    assert data.dtype == np.uint8
    np.testing.assert_array_equal(data[0], np.where(new > 0, new, old))
    assert (count == 1).all()
    assert (status == 0).all()


def test_half_a_pixel_off_the_classes_stay_classes(layer):
    values = np.random.default_rng(4).choice(np.array([1, 4, 11], np.uint8), (256, 256))
    data, _, _ = tile_of(layer("off", values, "2023-01-01T00:00:00Z", shift=5.0))
    assert set(np.unique(data)) <= {1, 4, 11, 255}


@pytest.mark.parametrize("bad", [255, 311])
def test_a_class_that_does_not_fit_is_refused_and_not_changed(layer, bad):
    values = np.full((256, 256), 7, np.uint16)
    values[5, 5] = bad
    with pytest.raises(ReadError, match=f"has the class {bad}, and a layer holds 0 to 254"):
        tile_of(layer("big", values, "2023-01-01T00:00:00Z"))


def test_a_known_layer_says_what_its_values_mean():
    attributes = source_templates("lulc", SOURCE)[0].attributes
    meanings = dict(
        zip(attributes["flag_values"], attributes["flag_meanings"].split(), strict=True)
    )
    assert "water" in meanings[1]
    other = SOURCE.model_copy(update={"collections": ["somebodys"]})
    assert "flag_values" not in source_templates("lulc", other)[0].attributes
