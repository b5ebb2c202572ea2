"""A mask by a model: what it says, that it does not depend on the box, and what it refuses."""

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import binary_dilation, correlate

from mapper.area.grid import Grid, PixelBox, TileKey
from mapper.catalog.observation import group_observations
from mapper.cube.clear import scene_mask
from mapper.cube.ingest import TileScenes, ingest_tile
from mapper.cube.inspect import inspect_item
from mapper.cube.load import Target
from mapper.cube.masks import Place
from mapper.errors import ModelError, RecipeError
from mapper.inference.card import load_card
from mapper.inference.runtime import load_runtime, programs_made
from mapper.recipe import Recipe, Sentinel2Source
from mapper.run.masker import make_masker, masks_of
from mapper.run.tasks import IngestTask
from mapper.simulate import TEST_CITIES, WorldOptions, write_archive
from mapper.store.shards import read_box
from mapper.store.template import ArrayTemplate
from tests.inference.tiny_models import model_item, tiny_graph, write_folder

GRID = Grid(epsg=32632, resolution=10, tile=256)
BRIGHT, DARK = 45_000.5 / 180_000, 9_000.5 / 180_000
"""Means of nine pixels of two bands of whole ten-thousandths never are either."""
FILL = 0.4
"""Of pixels without data: bright, so that they can make a neighbour cloud."""
VALUES = {"ground": 4, "cloud": 7, "shadow": 9}
WINDOWS = {
    "local": {"size": 48, "mode": "core"},
    "global": {"size": 128, "mode": "blend"},
    "blend": {"size": 128, "stride": 64, "mode": "blend"},
}


def cloud_graph(context="local", bands=2):
    """Logits of ground, cloud and shadow by the mean of 3 x 3 pixels of all bands.

    With the context `global` a hundredth of the mean of the whole window is added to it.
    """
    shape = ["n", bands, "h", "w"]
    kernel = np.full((1, bands, 3, 3), 1 / (9 * bands), np.float32)
    values = {
        "mean": kernel,
        "turn": np.array([0, 1, -1], np.float32).reshape(3, 1, 1, 1),
        "shift": np.array([0, -BRIGHT, DARK], np.float32),
        "share": np.array(0.01, np.float32),
    }
    nodes = [helper.make_node("Conv", ["image", "mean"], ["near"], pads=[1] * 4)]
    if context == "global":
        nodes += [
            helper.make_node("GlobalAveragePool", ["near"], ["all"]),
            helper.make_node("Mul", ["all", "share"], ["some"]),
            helper.make_node("Add", ["near", "some"], ["seen"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["near"], ["seen"]))
        del values["share"]
    nodes.append(helper.make_node("Conv", ["seen", "turn", "shift"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "clouds",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [numpy_helper.from_array(v, k) for k, v in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def cloud_model(folder, context="local", bands=("optics:red", "optics:nir"), **properties):
    """A folder of that model; its bands are called by a prefix of its own."""
    item = model_item(
        bands=bands,
        classes=[(name, "808080") for name in VALUES],
        kernel=3,
        mapper_window=WINDOWS[context],
        mapper_fill=FILL,
        mapper_global_context=context == "global",
        **properties,
    )
    for listed in item["properties"]["mlm:output"][0]["classification:classes"]:
        listed["value"] = VALUES[listed["name"]]
    return write_folder(folder, item, cloud_graph(context, len(bands)))


def source_of(model, required=("red", "nir"), optional=(), **rule):
    mask = {"kind": "model", "model": str(model), "invalid": ["cloud"]} | rule
    bands = {"required": list(required), "optional": list(optional)}
    return Sentinel2Source(kind="sentinel-2", bands=bands, mask=mask)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Where models lie, and what was measured of them."""
    return tmp_path_factory.mktemp("masker")


@pytest.fixture(scope="module")
def maskers(shared):
    """Makes maskers of the models, measuring each once."""

    def make(context="local", **rule):
        folder = shared / context
        if not folder.exists():
            cloud_model(folder, context)
        return make_masker(source_of(folder, **rule), 10, kept=shared / "probes.json")

    return make


def field(seed, shape):
    """Reflectances in whole ten-thousandths, half of them near the thresholds, and holes."""
    rng = np.random.default_rng(seed)
    level = np.where(rng.random(shape) < 0.5, 2500, 500)
    stored = {name: level + rng.integers(-400, 900, shape) for name in ("red", "nir")}
    bands = {n: v.clip(1).astype(np.float32) / np.float32(10_000) for n, v in stored.items()}
    valid = rng.random(shape) < 0.97
    valid[: shape[0] // 5, : shape[1] // 4] = False
    # what is not data may be anything
    bands["red"][~valid] = rng.choice(np.array([0, 0.9, np.nan], np.float32), (~valid).sum())
    return bands, valid


def disc(radius):
    side = np.arange(-int(radius), int(radius) + 1)
    return side[:, None] ** 2 + side[None] ** 2 <= radius**2


def plain(bands, valid, radius, invalid=("cloud",)):
    """The rule in whole numbers: mean of nine, thresholds, growth; right but for the border."""
    stored = sum(np.rint(np.where(valid, b, FILL).astype(float) * 10_000) for b in bands.values())
    mean = correlate(stored, np.ones((3, 3)), mode="constant") / 180_000
    found = np.zeros(valid.shape, bool)
    if "cloud" in invalid:
        found |= mean > BRIGHT
    if "shadow" in invalid:
        found |= mean < DARK
    # without data there is no class
    return valid & ~binary_dilation(found & valid, disc(radius))


def place_of(box):
    return Place(grid=GRID, box=box)


@settings(max_examples=12)
@given(
    st.integers(0, 999),
    st.tuples(st.integers(-200, 200), st.integers(-200, 200)),
    st.tuples(st.integers(1, 90), st.integers(1, 120)),
    st.sampled_from([0, 9, 10, 25, 60]),
    st.sampled_from([("cloud",), ("shadow", "cloud")]),
)
def test_it_is_the_rule_wherever_the_box_lies(maskers, seed, corner, shape, metres, invalid):
    masker = maskers(dilate=metres, invalid=list(invalid))
    reach = 1 + metres // 10
    assert masker.reach == reach
    box = PixelBox(
        row0=corner[0], col0=corner[1], row1=corner[0] + shape[0], col1=corner[1] + shape[1]
    )
    bands, valid = field(seed, shape)
    found = masker.clear(bands, valid, place_of(box))
    expected = np.zeros(shape, bool)
    inner = (slice(reach, shape[0] - reach), slice(reach, shape[1] - reach))
    if min(shape) > 2 * reach:
        expected[inner] = plain(bands, valid, metres / 10, invalid)[inner]
    assert found.dtype == bool
    np.testing.assert_array_equal(found, expected)


def over(masker, whole, box, grow):
    """What a masker says of a box that it is asked for with so many pixels around."""
    bands, valid, outer = whole
    asked = box.grow(grow)
    place = asked.slices_in(outer)
    found = masker.clear({n: b[place] for n, b in bands.items()}, valid[place], place_of(asked))
    return found[box.slices_in(asked)]


def quarters(box):
    row, col = (box.row0 + box.row1) // 2 + 3, (box.col0 + box.col1) // 2 - 5
    return [
        replace(box, **rows, **cols)
        for rows in ({"row1": row}, {"row0": row})
        for cols in ({"col1": col}, {"col0": col})
    ]


def seams(masker, grow=None):
    """Pixels of a box of which its quarters say something else than the whole."""
    grow = masker.reach if grow is None else grow
    box = PixelBox(row0=-333, col0=1001, row1=-233, col1=1113)
    outer = box.grow(110)
    whole = (*field(11, outer.shape), outer)
    found = over(masker, whole, box, grow)
    assert 0.2 < found.mean() < 0.9
    parts = np.zeros(box.shape, bool)
    for part in quarters(box):
        parts[part.slices_in(box)] = over(masker, whole, part, grow)
    return int((found != parts).sum())


@pytest.mark.parametrize("context", ["local", "global", "blend"])
def test_four_quarters_say_what_the_whole_says(maskers, context):
    masker = maskers(context, dilate=20)
    # unless its card fixes a stride, a model that blends for maps is cropped for masks
    assert masker.model.plan.mode == ("blend" if context == "blend" else "core")
    assert seams(masker) == 0
    assert seams(masker, grow=masker.reach - 1) > 0


@pytest.mark.parametrize("part", ["context", "radius"])
def test_with_too_little_reach_they_do_not(maskers, part):
    """Each part of the reach is needed: the model's sight, and the growth."""
    masker = maskers(dilate=20)
    assert masker.reach == 3
    if part == "context":
        model = replace(masker.model, plan=replace(masker.model.plan, context=0))
        assert seams(replace(masker, model=model)) > 0
    else:
        assert seams(replace(masker, radius=1.0), grow=3) == 0
        assert seams(masker, grow=2) > 0


def test_what_is_beyond_the_reach_has_no_say_at_all(maskers):
    masker = maskers(dilate=20)
    box = PixelBox(row0=0, col0=0, row1=70, col1=70)
    bands, valid = field(5, box.shape)
    changed = {name: values.copy() for name, values in bands.items()}
    for values in changed.values():
        values[30] = np.where(values[30] > 0.1, 0.01, 0.8)
    one, other = (masker.clear(b, valid, place_of(box)) for b in (bands, changed))
    rows = np.flatnonzero((one != other).any(axis=1))
    assert rows.min() == 30 - masker.reach
    assert rows.max() == 30 + masker.reach


def test_looks_may_be_judged_side_by_side_and_models_are_loaded_once(maskers):
    masker = pickle.loads(pickle.dumps(maskers(dilate=10)))
    box = PixelBox(row0=7, col0=-90, row1=127, col1=50)
    looks = [field(seed, box.shape) for seed in range(8)]
    alone = [masker.clear(*look, place_of(box)) for look in looks]
    made = programs_made()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda look: masker.clear(*look, place_of(box)), looks))
    np.testing.assert_array_equal(found, alone)
    assert programs_made() == made


# a tile of a simulated town


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """Sentinel-2 items of a small town, and what is really in their digital numbers."""
    # all of these show whether digital numbers carry the offset
    bands = ("blue", "green", "red", "nir")
    options = WorldOptions(margin_m=600, bands=bands, s1_dates=0, highres=False)
    folder = write_archive(tmp_path_factory.mktemp("town"), TEST_CITIES[1:], options).parent
    features = json.loads((folder / "items.json").read_text())["features"]
    truth = json.loads((folder / "truth.json").read_text())
    items = [i for i in features if i["collection"] == "sentinel-2-l2a"]
    return items, {i["id"]: truth[i["id"]]["dn_offset"] for i in items}


def on_lattice(item, name, offset, box):
    """Stored reflectance of one band on the lattice, 0 where there is none."""
    with rasterio.open(item["assets"][name]["href"]) as file:
        numbers, origin = file.read(1).astype(int), file.transform
    values = np.where(numbers > 0, np.clip(numbers - offset, 1, 65534), 0)
    row, col = round(-origin.f / 10), round(origin.c / 10)
    mine = PixelBox(row0=row, col0=col, row1=row + values.shape[0], col1=col + values.shape[1])
    found, common = np.zeros(box.shape, int), mine.intersect(box)
    found[common.slices_in(box)] = values[common.slices_in(mine)]
    return found


def looks_over(town, box):
    """Per day its red and near infrared, granules laid over each other."""
    items, offsets = town
    days = {}
    for item in sorted(items, key=lambda i: i["id"], reverse=True):
        look = days.setdefault(item["properties"]["s2:datatake_id"], np.zeros((2, *box.shape), int))
        part = np.stack([on_lattice(item, n, offsets[item["id"]], box) for n in ("red", "nir")])
        np.copyto(look, part, where=part > 0)
    return [days[key] for key in sorted(days)]


def tile_at(items, side):
    x, y = (items[0]["assets"]["red"]["proj:transform"][i] for i in (2, 5))
    grid = Grid(epsg=items[0]["properties"]["proj:epsg"], resolution=10, tile=side)
    return grid.tiles_in(grid.box_of((x + 600, y - 600, x + 610, y - 590)))[0]


@pytest.fixture(scope="module")
def scenes_over(town, shared):
    """All scenes of the town, looked at once, for a tile."""
    looks = {i["id"]: inspect_item(i, source_of(shared / "local")) for i in town[0]}

    def make(key):
        return TileScenes(name="optics", key=key, items=tuple(town[0]), inspections=looks)

    return make


def test_a_tile_is_made_of_what_the_model_calls_ground(town, scenes_over, maskers, shared):
    items, _ = town
    source, masker = source_of(shared / "local", dilate=20), maskers(dilate=20)
    key = tile_at(items, 256)
    layers = ingest_tile(scenes_over(key), source, masker)
    data, count, status = (array for _, array in layers.arrays)
    outer = key.box.grow(masker.reach)
    inner = key.box.slices_in(outer)
    used = []
    for look in looks_over(town, outer):
        valid = (look > 0).all(axis=0)
        clear = plain(dict(zip(("red", "nir"), look / 10_000, strict=True)), valid, 2)
        used.append(np.where(clear, look, np.nan)[(slice(None), *inner)])
    clear = ~np.isnan(used).any(axis=1)
    seen = np.any([(look > 0).all(axis=0)[inner] for look in looks_over(town, outer)], axis=0)
    assert 0.05 < (~clear[:, seen]).mean() < 0.95
    np.testing.assert_array_equal(count, clear.sum(axis=0))
    np.testing.assert_array_equal(status, np.select([clear.any(axis=0), seen], [0, 3], 2))
    middle = np.ma.median(np.ma.masked_invalid(used), axis=0).filled(0)
    np.testing.assert_array_equal(data, np.floor(middle + 0.5))


def test_a_smaller_tile_holds_the_same_and_a_worker_writes_it(
    town, scenes_over, maskers, shared, tmp_path
):
    source, masker = source_of(shared / "local", dilate=20), maskers(dilate=20)
    large = tile_at(town[0], 512)
    whole = ingest_tile(scenes_over(large), source, masker)
    found = 0
    for key in replace(large.grid, tile=256).tiles_in(large.box):
        task = IngestTask(
            root=tmp_path,
            ledger_key="ingest",
            digest="made",
            token="",
            scenes=scenes_over(key),
            source=source,
            masker=masker,
        )
        outputs = pickle.loads(pickle.dumps(task)).run().outputs["ingest"]
        for (template, array), output in zip(whole.arrays, outputs, strict=True):
            expected = array[(..., *key.box.slices_in(large.box))]
            np.testing.assert_array_equal(stored(tmp_path, key, template), expected)
            assert output.name == template.name
            found += int((expected > 0).sum())
    assert found > 50_000


def stored(root, key: TileKey, template: ArrayTemplate):
    path = root / "tiles" / str(key) / "optics" / "made" / template.name
    return read_box({key: path}, template, key.box, key.tile)


def test_a_scene_without_a_band_that_the_model_reads_is_not_used(
    town, scenes_over, maskers, shared
):
    items, _ = town
    key = tile_at(items, 256)
    source = source_of(shared / "local", required=["red"], optional=["nir"])
    target = Target(grid=key.grid, pixels=key.box)
    blind = [{**i, "assets": {n: a for n, a in i["assets"].items() if n != "nir"}} for i in items]
    looks = scenes_over(key).inspections
    maskers()
    judge = scene_mask(source, target, make_masker(source, 10, kept=shared / "probes.json"))
    for scenes, sees in ((items, True), (blind, False)):
        clear, never = judge(group_observations(scenes, key.epsg)[-1], looks)
        assert clear.any() == sees
        assert never.all() != sees


# real pixels


@pytest.mark.archive
def test_a_shipped_model_says_of_real_pixels_what_it_says_of_the_image(archive, shared):
    """Bolzano through windows against one run of the plain model; it does without short wave."""
    folder, bands = archive / "sentinel-2-l2a" / "S2_32TPS_20220612_bolzano", {}
    for name, file in {"red": "B04", "green": "B03", "blue": "B02", "nir": "B08"}.items():
        with rasterio.open(folder / f"{file}.tif") as source:
            box = GRID.box_of(source.bounds)
            box = replace(box, row1=box.row0 + 500, col1=box.col0 + 500)
            bands[name] = source.read(1)[:500, :500].astype(np.float32) / np.float32(10_000)
    valid = np.all([b > 0 for b in bands.values()], axis=0)
    source = source_of("spectral-baseline", bands, ["swir16"], invalid=["water", "bare"], dilate=10)
    masker = make_masker(source, 10, kept=shared / "probes.json")
    assert masker.bands == ("red", "green", "nir", "blue")
    found = masker.clear(bands, valid, place_of(box))
    card = load_card("spectral-baseline")
    image = np.zeros((1, len(card.bands), *box.shape), np.float32)
    known = np.zeros(image.shape, bool)
    for name in masker.bands:
        channel = card.bands.index(f"sentinel2:{name}")
        image[0, channel], known[0, channel] = bands[name], valid
    raw = load_runtime(card, 1).run(card.scale(image, known), known.astype(np.float32))
    classes = np.array([c.name for c in card.classes.classes])[raw[0].argmax(axis=0)]
    wet = np.isin(classes, ["water", "bare"]) & valid
    expected = valid & ~binary_dilation(wet, disc(1))
    assert 0.02 < wet.mean() < 0.5
    inner = (slice(1, -1), slice(1, -1))
    np.testing.assert_array_equal(found[inner], expected[inner])
    assert not found[0].any()


# what is refused, and what a digest holds


@pytest.mark.parametrize(
    ("properties", "rule", "error", "message"),
    [
        ({}, {"invalid": ["cloud", "haze"]}, RecipeError, "has no class haze.*ground, cloud, sh"),
        ({}, {"invalid": list(VALUES)}, RecipeError, "every class.*leave the classes of ground"),
        ({}, {"required": ["red"]}, RecipeError, "needs nir, the source gives red; add it"),
        (
            {"mapper_head": "values", "mapper_activation": "none"},
            {},
            ModelError,
            "yields values.*one class a pixel",
        ),
        (
            {"bands": ("spring:red", "autumn:red")},
            {},
            RecipeError,
            r"bands of 2 sources \(autumn, spring\)",
        ),
        ({"bands": ("radar:vv", "radar:vh")}, {}, RecipeError, "needs vh, vv, the source gives"),
    ],
)
def test_what_cannot_mask_is_refused_before_a_pixel_is_read(
    tmp_path, properties, rule, error, message
):
    folder = cloud_model(tmp_path / "clouds", **properties)
    with pytest.raises(error, match=message):
        make_masker(source_of(folder, **rule), 10)


def test_a_form_that_is_code_wants_trust(tmp_path):
    folder = cloud_model(tmp_path / "clouds", artifact="model.pt")
    with pytest.raises(ModelError, match="--trust-model"):
        make_masker(source_of(folder), 10)


def test_other_masks_need_no_masker():
    source = Sentinel2Source(kind="sentinel-2")
    with pytest.raises(RecipeError, match="not masked by a model"):
        make_masker(source, 10)


def test_bands_that_only_some_scenes_have_are_left_out(tmp_path, shared):
    """What the model can do without is read where each scene has it, and under its own name."""
    bands = ("optics:red", "optics:nir", "optics:green", "radar:blue")
    properties = {"bands": bands, "mapper_required": list(bands[:1])}
    item = model_item(**properties, validity=True)
    folder = write_folder(tmp_path / "optional", item, tiny_graph(bands=len(bands), validity=True))
    source = source_of(folder, ["red", "nir", "blue"], ["green"], invalid=["built"])
    assert make_masker(source, 10, kept=shared / "probes.json").bands == ("red", "nir")


def test_the_digest_holds_all_that_decides_and_no_path(maskers, shared, tmp_path):
    plainly = maskers().digest
    others = [
        maskers("global"),
        maskers(dilate=10),
        maskers(invalid=["shadow"]),
        maskers(invalid=["shadow", "cloud"]),
        make_masker(source_of(shared / "local"), 10, kept=shared / "probes.json"),
    ]
    assert len({m.digest for m in others} | {plainly}) == 5
    assert others[-1].digest == plainly
    moved = shutil.copytree(shared / "local", tmp_path / "moved")
    found = make_masker(source_of(moved), 10, kept=shared / "probes.json")
    assert found.digest == plainly
    assert maskers(invalid=["cloud", "shadow"]).digest == others[3].digest


def test_a_recipe_has_a_masker_for_each_part_of_a_source(maskers, shared):
    maskers()
    sources = {
        "optics": source_of(shared / "local", dilate=30).model_copy(update={"every": "season"}),
        "plain": Sentinel2Source(kind="sentinel-2"),
        "whole": source_of(shared / "local", dilate=30),
        "height": {"kind": "elevation"},
    }
    recipe = Recipe(name="r", title="R", resolution=15, sources=sources, model="spectral-baseline")
    found = masks_of(recipe, False, shared / "probes.json")
    seasons = [f"optics_{s}" for s in ("winter", "spring", "summer", "autumn")]
    assert list(found) == [*seasons, "whole"]
    assert {id(found[s]) for s in seasons} == {id(found["optics_winter"])}
    assert {m.digest for m in found.values()} == {found["whole"].digest}
    assert {m.reach for m in found.values()} == {3}
    memory = [found["whole"].memory(side) for side in (256, 2048)]
    assert 2048**2 * 12 < memory[1] < 1 << 30
    assert memory[0] < memory[1]
