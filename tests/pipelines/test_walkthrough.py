"""From simulated scenes to a published map with a model of one's own, for the five recipes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio

from mapper.recipe import data_directory, load_recipe

RECIPES = ("ugs-1m", "urban-10m", "openearthmap", "subpixel-2m", "fbp-24")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("walkthrough")


@pytest.mark.parametrize("name", RECIPES)
def test_the_sequence_of_a_recipe_ends_with_a_map_of_its_own_classes(name, folder, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    environment = os.environ | {"MAPPER": str(Path(sys.executable).with_name("mapper"))}
    script = data_directory("pipelines") / "walkthrough.sh"
    subprocess.run(["sh", str(script), name, str(folder)], check=True, env=environment)
    products = sorted((folder / name / "maps" / "cities").glob(f"*/{name}-2022/v2/product"))
    assert len(products) == 2
    table = load_recipe(name).train.table
    for product in products:
        with rasterio.open(product / "classes.tif") as mapped:
            assert set(mapped.read(1).ravel().tolist()) <= {*table.values, 255}
            colours = mapped.colormap(1)
        assert all(colours[c.value][:3] == c.rgb for c in table.classes)
        item = json.loads((product / "item.json").read_text())
        assert f"own-{name}" in json.dumps(item)
    evaluation = json.loads((folder / name / "evaluation" / "evaluation.json").read_text())
    assert evaluation["scores"]["pixels"] > 0
