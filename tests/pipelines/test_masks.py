"""Whole runs with each kind of mask: what it leaves out of the counts, whatever the tile."""

import json

import numpy as np
import pytest
import rasterio
import yaml

from mapper.recipe import data_directory
from tests.pipelines.conftest import checksums, read_map
from tests.run.test_masker import cloud_model


@pytest.fixture
def masked(tmp_path):
    """The default recipe with another mask."""

    def write(mask) -> str:
        content = yaml.safe_load((data_directory("pipelines") / "spectral-10m.yaml").read_text())
        content["sources"]["sentinel2"]["mask"] = mask
        for name in ("sentinel1", "elevation"):
            del content["sources"][name]
        path = tmp_path / "masked.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


def counts(folder):
    with rasterio.open(folder / "observations.tif") as dataset:
        count = dataset.read(dataset.descriptions.index("sentinel2_count") + 1)
    return count[count != 65535]


def test_a_model_masks_a_whole_run_whatever_the_tile(map_world, masked, tmp_path):
    folder = cloud_model(tmp_path / "cloudy", bands=("optics:red", "optics:nir"))
    recipe = masked({"kind": "model", "model": str(folder), "invalid": ["cloud"], "dilate": 30})
    made = {
        tile: read_map(
            map_world(
                recipe=recipe, cities=("Plainville",), tile_size=tile, out=tmp_path / str(tile)
            ),
            "plainville",
        )["folder"]
        for tile in (256, 512)
    }
    unmasked = read_map(
        map_world(recipe=masked(None), cities=("Plainville",), out=tmp_path / "none"), "plainville"
    )
    assert counts(made[512]).sum() < counts(unmasked["folder"]).sum()
    assert checksums(made[256], (".tif",)) == checksums(made[512], (".tif",))


def test_a_mask_model_that_does_not_fit_is_refused_before_a_search(map_world, masked, tmp_path):
    from mapper.errors import InputError

    folder = cloud_model(tmp_path / "cloudy", bands=("optics:red", "optics:coastal"))
    recipe = masked({"kind": "model", "model": str(folder), "invalid": ["cloud"]})
    with pytest.raises(InputError, match="coastal"):
        map_world(recipe=recipe, catalog="http://127.0.0.1:9/nothing")


def test_a_growing_scl_mask_leaves_less(map_world, masked, tmp_path):
    found = {}
    for grown in (0, 100):
        report = map_world(
            recipe=masked({"kind": "scl", "dilate": grown}),
            cities=("Plainville",),
            out=tmp_path / str(grown),
        )
        found[grown] = read_map(report, "plainville")["folder"]
    few, many = (counts(found[g]).astype(int) for g in (100, 0))
    assert (few <= many).all()
    assert few.sum() < many.sum()
    item = json.loads((found[100] / "item.json").read_text())
    assert item["properties"]["mapper:holes"] == {}
    assert np.isfinite(few).all()
