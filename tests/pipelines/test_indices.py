"""A model that reads an index of the composite, and one that reads percentiles of a quarter."""

import numpy as np
import pytest
import rasterio
import yaml
import zarr
from scipy.ndimage import uniform_filter

from mapper.recipe import data_directory
from tests.pipelines.conftest import read_map
from tests.run.test_masker import BRIGHT, VALUES, cloud_model


@pytest.fixture
def recipe_for(tmp_path):
    def write(model, **changes) -> str:
        content = yaml.safe_load((data_directory("pipelines") / "spectral-10m.yaml").read_text())
        for name in ("sentinel1", "elevation"):
            del content["sources"][name]
        content["sources"]["sentinel2"] |= changes
        content["model"] = str(model)
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    return write


def mapped(folder, array, band):
    """A band of the cube and the classes of the map, over the product's extent."""
    group = zarr.open_group(folder.parent / "cube.zarr", mode="r")
    names = [str(n) for n in np.asarray(group[f"{array}_band"])]
    with rasterio.open(folder / "classes.tif") as dataset:
        classes, transform = dataset.read(1), dataset.transform
    x, y = np.asarray(group["x"]), np.asarray(group["y"])
    col = round((transform.c + 5 - x[0]) / 10)
    row = round((y[0] - (transform.f - 5)) / 10)
    height, width = classes.shape
    values = np.asarray(group[array])[names.index(band)]
    return values[row : row + height, col : col + width], classes


def test_a_model_reads_an_index_as_a_band(map_world, recipe_for, tmp_path):
    model = cloud_model(tmp_path / "greenness", bands=("sentinel2:ndvi",))
    recipe = recipe_for(model, indices=["ndvi"])
    folder = read_map(map_world(recipe=recipe, cities=("Plainville",)), "plainville")["folder"]
    ndvi, classes = mapped(folder, "sentinel2_indices", "ndvi")
    near = uniform_filter(np.nan_to_num(ndvi.astype(float)), 3)
    known = uniform_filter(np.isfinite(ndvi).astype(float), 3) > 0.999
    inner = known & (classes != 255) & (np.abs(near - BRIGHT) > 1e-4)
    inner[[0, -1]] = inner[:, [0, -1]] = False
    assert inner.sum() > 5_000
    green = classes[inner] == VALUES["cloud"]
    np.testing.assert_array_equal(green, near[inner] > BRIGHT)
    assert 0.05 < green.mean() < 0.95


def test_a_model_reads_percentiles_of_a_quarter(map_world, recipe_for, tmp_path):
    band = "sentinel2:red_p75_q2"
    model = cloud_model(tmp_path / "bright", bands=(band,))
    recipe = recipe_for(
        model,
        every="quarter",
        bands={"required": ["red"]},
        composite={"method": "percentiles", "percentiles": [25, 75]},
    )
    report = map_world(recipe=recipe, cities=("Plainville",))
    folder = read_map(report, "plainville")["folder"]
    red, classes = mapped(folder, "sentinel2_q2", "red_p75")
    assert (classes[red > 0] != 255).mean() > 0.9
    low, _ = mapped(folder, "sentinel2_q2", "red_p25")
    assert (low <= red).all()
