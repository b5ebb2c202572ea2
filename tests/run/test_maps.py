"""What a tile's reduce step writes, also where there is nothing to reduce."""

import numpy as np
import pytest

from mapper.area.grid import TileKey
from mapper.cube.template import count_templates
from mapper.inference.card import load_card
from mapper.inference.plan import plan_inference
from mapper.inference.runtime import load_runtime
from mapper.recipe import Predict, load_recipe
from mapper.run.maps import ReduceTask, coding_of, map_templates, reduced_templates
from mapper.store.shards import read_box, write_shards

KEY = TileKey(epsg=32632, resolution=10, tile=512, row=1000, col=130)


@pytest.fixture(scope="module")
def model():
    """The shipped model, planned for votes over its recipe's scenes."""
    card = load_card("spectral-baseline")
    coding = coding_of(card, load_recipe("spectral-10m"))
    return card, plan_inference(card, load_runtime(card, 1), Predict(batch=1), coding)


def reduce_task(root, model, **changes):
    card, plan = model
    fields = {"maps": (), "counts": (), "sources": ("sentinel2",), "method": "vote"}
    return ReduceTask(
        root=root,
        tile=KEY,
        ledger_key="reduce/x",
        digest="made",
        card_folder=card.folder,
        inference=plan,
        **(fields | changes),
    )


def read(root, template):
    path = root / "tiles" / str(KEY) / "map" / "made" / template.name
    return read_box({KEY: path}, template, KEY.box, KEY.tile)


def test_a_tile_that_no_scene_touches_is_nodata_and_never_observed(tmp_path, model):
    outcome = reduce_task(tmp_path, model).run()
    names = {o.name for o in outcome.outputs["reduce/x"]}
    assert names == {
        "classes",
        "confidence",
        "agreement",
        "dates",
        "sentinel2_count",
        "sentinel2_status",
    }
    classes, *_ = reduced_templates(model[0])
    assert (read(tmp_path, classes) == 255).all()
    count, status = count_templates("sentinel2")
    assert (read(tmp_path, count) == 0).all()
    assert (read(tmp_path, status) == 2).all()


def test_strips_of_rows_make_the_same_as_the_whole(tmp_path, model):
    card, plan = model
    rng, maps = np.random.default_rng(2), []
    dated = rng.integers(0, 5, (3, 512, 512)).astype(np.uint8)
    for number, classes in enumerate(dated):
        arrays = [
            (template, classes if template.name == "classes" else np.full_like(classes, 200))
            for template in map_templates(card, plan.decision)
        ]
        write_shards(tmp_path, KEY, "map", f"date{number}", arrays)
        folder = tmp_path / "tiles" / str(KEY) / "map" / f"date{number}"
        maps.append({template.name: folder / template.name for template, _ in arrays})
    reduce_task(tmp_path, model, maps=tuple(maps)).run()
    votes = np.stack([(dated == value).sum(axis=0) for value in range(5)])
    classes, _, agreement, dates = reduced_templates(card)
    np.testing.assert_array_equal(read(tmp_path, classes), votes.argmax(axis=0))
    shares = np.floor(votes.max(axis=0) / 3 * 250 + 0.5)
    np.testing.assert_array_equal(read(tmp_path, agreement), shares)
    assert (read(tmp_path, dates) == 3).all()
