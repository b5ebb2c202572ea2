"""Windows through a model equal a plain reference that knows no window, slab or batch."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mapper.area.grid import PixelBox
from mapper.errors import ModelError
from mapper.inference.blend import window_weights
from mapper.inference.card import load_card
from mapper.inference.coding import Coding, Layer
from mapper.inference.engine import Engine, make_engine
from mapper.inference.plan import plan_inference
from mapper.inference.predict import predict_box, predict_rows
from mapper.inference.rows import Source
from mapper.inference.runtime import load_runtime
from mapper.recipe import Predict
from tests.inference.tiny_models import (
    CLASSES,
    model_item,
    tiny_answer,
    tiny_graph,
    write_folder,
    write_model,
)

AREA = PixelBox(row0=-300, col0=90, row1=300, col1=700)
BOX = PixelBox(row0=-133, col0=201, row1=77, col1=415)
CODING = Coding(
    layers=(Layer(name="s2", dtype="uint16", scale=0.0001, nodata=0, channels=(0, 1)),), bands=2
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny", kernel=5, seed=3)


@pytest.fixture(scope="module")
def card(folder):
    return load_card(str(folder))


def engine_for(card, coding=CODING, **predict) -> Engine:
    runtime = load_runtime(card, 1)
    return make_engine(
        card, plan_inference(card, runtime, Predict(**predict), coding), coding, runtime
    )


@pytest.fixture(scope="module")
def ground():
    """A field of random values with holes, as large as any window can ask for."""
    rng = np.random.default_rng(11)
    stored = rng.integers(1, 9000, (2, *AREA.shape)).astype(np.uint16)
    stored[:, rng.random(AREA.shape) < 0.02] = 0
    stored[:, 120:260, 200:330] = 0
    return stored


def source(ground, block=64) -> Source:
    def read(box: PixelBox):
        return (ground[(slice(None), *box.slices_in(AREA))],)

    return Source(read=read, block=block)


def softmax(raw):
    shares = np.exp(raw - raw.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def plain(card, stored):
    """Probabilities of stored windows, `(batch, class, y, x)`, step by step in numpy."""
    image, valid = CODING.physical((stored,))
    raw = load_runtime(card, 1).run(card.scale(image, valid), valid.astype(np.float32))
    return softmax(raw.astype(np.float64) / card.temperature)


def whole_field(card, ground):
    """The whole field in one run, no window at all."""
    return plain(card, ground[None])[0]


def views(card, stored):
    """The mean over the eight mirrored and turned views."""
    total = 0
    for mirrored in (False, True):
        for turns in range(4):
            seen = np.rot90(stored[..., ::-1] if mirrored else stored, turns, axes=(-2, -1))
            back = np.rot90(plain(card, np.ascontiguousarray(seen)), -turns, axes=(-2, -1))
            total = total + (back[..., ::-1] if mirrored else back)
    return total / 8


def blended_field(engine, ground, model=plain):
    """Every lattice window summed into one full-size array with a count map."""
    plan, card = engine.plan, engine.card
    weights = np.outer(*[window_weights(plan.size, plan.weights)] * 2)
    total = np.zeros((len(card.classes.classes), *AREA.shape))
    norm = np.zeros(AREA.shape)
    for window in plan.windows.cover(BOX):
        place = (slice(None), *window.extent.slices_in(AREA))
        total[place] += model(card, ground[place][None])[0] * weights
        norm[place[1:]] += weights
    return total / np.where(norm > 0, norm, 1)


def check(strip, scores, card, ground):
    """Labels and confidence against probabilities; ties may fall either way."""
    inside = BOX.slices_in(AREA)
    scores, usable = scores[(slice(None), *inside)], (ground != 0).all(axis=0)[inside]
    classes, confidence = strip.arrays["classes"], strip.arrays["confidence"]
    assert (classes[~usable] == card.classes.nodata).all()
    assert (confidence[~usable] == 255).all()
    values = np.array(card.classes.values)
    order = np.sort(scores, axis=0)
    clear = usable & (order[-1] - order[-2] > 1e-4)
    assert clear.mean() > 0.6
    np.testing.assert_array_equal(classes[clear], values[scores.argmax(0)][clear])
    steps = confidence[usable].astype(float)
    assert np.abs(steps - order[-1][usable] * 250).max() < 0.51
    for name, wanted in (
        ("probabilities", scores),
        ("entropy", -(scores * np.log(scores)).sum(0) / np.log(len(values))),
    ):
        if name in strip.arrays:
            stored = strip.arrays[name]
            assert (stored[..., ~usable] == 255).all()
            assert np.abs(stored[..., usable] - wanted[..., usable] * 250).max() < 0.51


@pytest.mark.parametrize("batch", [1, 3, 7])
@pytest.mark.parametrize("stride", [32, 60])
def test_core_crop_equals_the_model_on_the_whole_field(card, ground, stride, batch):
    engine = engine_for(card, mode="core", size=64, stride=stride, batch=batch, entropy=True)
    check(predict_box(engine, source(ground), BOX), whole_field(card, ground), card, ground)


@pytest.mark.parametrize("weights", ["hann", "gaussian"])
@pytest.mark.parametrize(("size", "stride"), [(64, 32), (64, 40), (50, 17), (64, 64)])
def test_blending_equals_a_full_size_sum(card, ground, size, stride, weights):
    engine = engine_for(
        card,
        mode="blend",
        size=size,
        stride=stride,
        weights=weights,
        probabilities=True,
        entropy=True,
    )
    check(predict_box(engine, source(ground), BOX), blended_field(engine, ground), card, ground)


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_augmentation_is_the_mean_of_eight_views(card, ground, mode):
    engine = engine_for(card, mode=mode, size=64, stride=32, augmentation="d4")
    if mode == "blend":
        wanted = blended_field(engine, ground, views)
    else:
        # the network is local, so windows play no part
        square = np.zeros((2, 700, 700), np.uint16)
        square[:, : AREA.shape[0], : AREA.shape[1]] = ground
        wanted = views(card, square[None])[0][:, : AREA.shape[0], : AREA.shape[1]]
    check(predict_box(engine, source(ground), BOX), wanted, card, ground)


def test_augmented_maps_turn_with_the_ground(card):
    """A mirrored ground gives the mirrored map, bit for bit where no sum is reordered."""
    side = 128
    area = PixelBox(row0=0, col0=0, row1=side, col1=side)
    stored = np.random.default_rng(3).integers(1, 9000, (2, side, side)).astype(np.uint16)
    engine = engine_for(card, mode="core", size=side, stride=side - 4, augmentation="d4")

    def labels(values):
        def read(box):
            room = np.zeros((2, *box.shape), np.uint16)
            common = box.intersect(area)
            room[(slice(None), *common.slices_in(box))] = values[
                (slice(None), *common.slices_in(area))
            ]
            return (room,)

        inner = PixelBox(row0=2, col0=2, row1=side - 6, col1=side - 6)
        return predict_box(engine, Source(read=read), inner).arrays["confidence"].astype(int)

    # the map's own place on the lattice is not symmetric, its middle is
    straight, mirrored = labels(stored), labels(np.roll(stored[:, :, ::-1], -4, axis=2))
    assert np.abs(straight[:, 4:-4] - mirrored[:, ::-1][:, 4:-4]).max() <= 1


@pytest.mark.parametrize("scores", ["probabilities", "logits"])
def test_scores_can_be_averaged_as_logits(card, ground, scores):
    def logits(card, stored):
        return np.log(plain(card, stored))

    engine = engine_for(card, mode="blend", size=64, stride=40, scores=scores)
    strip = predict_box(engine, source(ground), BOX)
    wanted = blended_field(engine, ground, logits if scores == "logits" else plain)
    if scores == "logits":
        # the mean of log-probabilities is that of the logits, up to what softmax takes away
        wanted = softmax(wanted[None])[0]
    check(strip, wanted, card, ground)


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_any_part_of_a_box_gives_the_same_pixels(card, ground, mode):
    engine = engine_for(card, mode=mode, size=64, stride=32)
    whole = predict_box(engine, source(ground), BOX)
    for part in (
        PixelBox(row0=-133, col0=201, row1=-132, col1=202),
        PixelBox(row0=-100, col0=230, row1=3, col1=391),
        PixelBox(row0=0, col0=256, row1=64, col1=320),
    ):
        alone = predict_box(engine, source(ground, block=7), part)
        for name, values in alone.arrays.items():
            np.testing.assert_array_equal(values, whole.arrays[name][part.slices_in(BOX)])


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_strips_follow_one_another_without_a_gap(card, ground, mode):
    engine = engine_for(card, mode=mode, size=64, stride=32)
    row = BOX.row0
    for strip in predict_rows(engine, source(ground), BOX, lambda w: w.row != 0):
        assert (strip.box.row0, strip.box.col0, strip.box.col1) == (row, BOX.col0, BOX.col1)
        assert strip.box.shape[0] <= engine.plan.stride
        row = strip.box.row1
    assert row == BOX.row1


@pytest.mark.parametrize(("mode", "stride"), [("core", 32), ("core", 60), ("blend", 40)])
def test_every_row_is_read_once(card, ground, mode, stride):
    engine = engine_for(card, mode=mode, size=64, stride=stride)
    seen = np.zeros(AREA.shape[0], dtype=int)
    inner = source(ground)

    def read(box):
        seen[box.row0 - AREA.row0 : box.row1 - AREA.row0] += 1
        return inner.read(box)

    predict_box(engine, Source(read=read, block=64), BOX)
    assert seen.max() == 1


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_windows_that_are_not_selected_leave_nodata(card, ground, mode):
    engine = engine_for(card, mode=mode, size=64, stride=32)
    whole = predict_box(engine, source(ground), BOX).arrays["classes"]
    chosen = predict_box(engine, source(ground), BOX, lambda w: w.col % 5 != 0).arrays["classes"]
    blank = np.zeros(BOX.shape, dtype=bool)
    for window in engine.plan.windows.cover(BOX):
        if window.col % 5 == 0:
            mine = window.core if mode == "core" else window.extent
            blank[mine.intersect(BOX).slices_in(BOX)] = True
    assert blank.any()
    assert not blank.all()
    assert (chosen[blank] == card.classes.nodata).all()
    np.testing.assert_array_equal(chosen[~blank], whole[~blank])


class Double:
    """Stands where a program does."""

    digest, parallel = "none", 1

    def __init__(self, answer):
        self._answer = answer

    def run(self, stored):
        return self._answer(stored)


def test_windows_without_any_data_are_never_run(card, ground):
    engine = engine_for(card, mode="core", size=64, stride=32)

    def refuse(stored):
        raise AssertionError("a window without data was run")

    bare = Engine(card, engine.plan, CODING, Double(refuse))
    strip = predict_box(bare, source(np.zeros_like(ground)), BOX)
    assert (strip.arrays["classes"] == card.classes.nodata).all()


def test_what_a_stage_raises_is_raised(card, ground):
    engine = engine_for(card, mode="blend", size=64, stride=32)

    def read(box):
        if box.row1 > 0:
            raise ModelError("the disk is on fire")
        return source(ground).read(box)

    with pytest.raises(ModelError, match="on fire"):
        predict_box(engine, Source(read=read, block=16), BOX)


def test_a_consumer_may_stop_early(card, ground):
    engine = engine_for(card, mode="core", size=64, stride=32)
    strips = predict_rows(engine, source(ground), BOX)
    next(strips)
    strips.close()


# heads, codings and graphs of other kinds --------------------------------------------------


def shares(raw, activation):
    """Probabilities by class of `(class, y, x)` logits; numbers stay what they are."""
    if activation == "softmax":
        return softmax(raw[None])[0]
    if activation == "none":
        return raw
    sure = (1 + np.tanh(raw / 2)) / 2
    return np.concatenate([1 - sure, sure]) if len(raw) == 1 else sure


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Cards by head, activation, classes and channels of a convolution of 3 x 3."""
    made = {}

    def card_of(head, activation, classes, channels, **graph):
        key = (head, activation, classes, channels, *graph.items())
        if key not in made:
            item = model_item(
                classes=CLASSES[:classes],
                kernel=3,
                mapper_head=head,
                mapper_activation=activation,
            )
            content = tiny_graph(classes=channels, kernel=3, **graph)
            made[key] = load_card(
                str(write_folder(tmp_path_factory.mktemp("heads") / "tiny", item, content))
            )
        return made[key]

    return card_of


@pytest.mark.parametrize(
    ("mode", "augmentation"), [("core", "none"), ("core", "d4"), ("blend", "none"), ("blend", "d4")]
)
@pytest.mark.parametrize(
    ("head", "activation", "classes", "channels"),
    [
        ("classes", "sigmoid", 2, 1),
        ("classes", "sigmoid", 3, 3),
        ("labels", "sigmoid", 2, 2),
        ("labels", "none", 1, 1),
        ("values", "none", 2, 2),
    ],
)
def test_every_head_goes_through_windows(
    model, ground, mode, augmentation, head, activation, classes, channels
):
    card = model(head, activation, classes, channels)
    engine = engine_for(card, mode=mode, size=64, stride=62, augmentation=augmentation)
    # cores have a halo of one pixel, blended windows an overlap of two
    found = predict_box(engine, source(ground), BOX).arrays
    inner = (slice(None), *BOX.slices_in(AREA))
    usable = (ground[inner] != 0).all(axis=0)
    if augmentation == "d4" or mode == "blend":
        wanted = by_windows(engine, ground, activation, channels)[inner]
    else:
        wanted = shares(tiny_answer(ground[None] * 1e-4, channels, 3)[0], activation)[inner]
    if head == "values":
        assert list(found) == ["values"]
        np.testing.assert_allclose(found["values"][:, usable], wanted[:, usable], atol=1e-4)
        assert np.isnan(found["values"][:, ~usable]).all()
        return
    if head == "labels":
        assert list(found) == ["probabilities"]
        steps = np.clip(wanted, 0, 1) * 250
        assert np.abs(found["probabilities"][:, usable] - steps[:, usable]).max() < 0.51
        assert (found["probabilities"][:, ~usable] == 255).all()
        return
    order = np.sort(wanted, axis=0)
    clear = usable & (order[-1] - order[-2] > 1e-4)
    np.testing.assert_array_equal(found["classes"][clear], wanted.argmax(axis=0)[clear])
    assert np.abs(found["confidence"][usable] - order[-1][usable] * 250).max() < 0.51
    assert (found["classes"][~usable] == 255).all()


def by_windows(engine, ground, activation, channels):
    """The mean over windows and views, summed into one full-size array."""
    plan = engine.plan
    weights = np.ones((plan.size, plan.size))
    if plan.mode == "blend":
        weights = np.outer(*[window_weights(plan.size, plan.weights)] * 2)
    turns = [(m, t) for m in (False, True) for t in range(4)]
    total = np.zeros((len(engine.card.classes.classes), *AREA.shape))
    norm = np.zeros(AREA.shape)
    for window in plan.windows.cover(BOX):
        seen = ground[(slice(None), *window.extent.slices_in(AREA))]
        mean = 0
        for mirrored, turn in turns if plan.augmentation == "d4" else [(False, 0)]:
            view = np.rot90(seen[..., ::-1] if mirrored else seen, turn, axes=(1, 2))
            given = shares(tiny_answer(view[None] * 1e-4, channels, 3)[0], activation)
            given = np.rot90(given, -turn, axes=(1, 2))
            mean = mean + (given[..., ::-1] if mirrored else given)
        mean = mean / (8 if plan.augmentation == "d4" else 1)
        mine = window.core if plan.mode == "core" else window.extent
        place = mine.slices_in(AREA)
        inside = mine.slices_in(window.extent)
        total[(slice(None), *place)] += mean[(slice(None), *inside)] * weights[inside]
        norm[place] += weights[inside]
    return total / np.where(norm > 0, norm, 1)


@pytest.mark.parametrize("mode", ["core", "blend"])
@pytest.mark.parametrize("batch", [1, 3, 5])
def test_a_graph_for_one_batch_size_makes_the_same_map(model, ground, mode, batch):
    maps = [
        predict_box(
            engine_for(card, mode=mode, size=64, stride=32, batch=4), source(ground), BOX
        ).arrays
        for card in (
            model("classes", "softmax", 3, 3),
            model("classes", "softmax", 3, 3, batch=batch, size=64),
        )
    ]
    for name, values in maps[0].items():
        np.testing.assert_array_equal(values, maps[1][name])


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_pixel_values_are_those_of_the_class_table(tmp_path, card, ground, mode):
    folder = write_model(tmp_path / "tiny", kernel=5, seed=3)
    item = json.loads((folder / "item.json").read_text())
    values = [40, 7, 200]
    listed = item["properties"]["mlm:output"][0]["classification:classes"]
    for entry, value in zip(listed, values, strict=True):
        entry["value"] = value
    (folder / "item.json").write_text(json.dumps(item))
    plain_map, other = (
        predict_box(engine_for(c, mode=mode, size=64, stride=32), source(ground), BOX).arrays
        for c in (card, load_card(str(folder)))
    )
    table = np.full(256, 255, np.uint8)
    table[:3] = values
    np.testing.assert_array_equal(other["classes"], table[plain_map["classes"]])
    np.testing.assert_array_equal(other["confidence"], plain_map["confidence"])


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_layers_of_two_kinds_make_the_same_map_as_one(card, ground, mode):
    two = Coding(
        layers=(
            Layer(name="nir", dtype="float32", nodata=float("nan"), channels=(1,)),
            Layer(name="red", dtype="uint16", scale=0.0001, nodata=0, channels=(0,)),
        ),
        bands=2,
    )
    nir = np.where(ground[1:] == 0, np.nan, ground[1:] * np.float32(0.0001)).astype(np.float32)

    def read(box):
        place = (slice(None), *box.slices_in(AREA))
        return nir[place], ground[:1][place]

    whole = predict_box(engine_for(card, mode=mode, size=64, stride=32), source(ground), BOX)
    apart = predict_box(
        engine_for(card, two, mode=mode, size=64, stride=32), Source(read=read, block=50), BOX
    )
    assert (apart.arrays["classes"] == whole.arrays["classes"]).mean() > 0.999
    steps = [strip.arrays["confidence"].astype(int) for strip in (apart, whole)]
    assert np.abs(steps[0] - steps[1]).max() <= 1


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_where_every_value_is_data_every_pixel_gets_a_class(card, ground, mode):
    layer = Layer(name="s2", dtype="uint16", scale=0.0001, channels=(0, 1))
    engine = engine_for(card, Coding(layers=(layer,), bands=2), mode=mode, size=64, stride=32)
    assert engine.always_usable
    found = predict_box(engine, source(ground), BOX).arrays
    assert (found["classes"] != 255).all()
    chosen = predict_box(engine, source(ground), BOX, lambda w: w.row != 0).arrays["classes"]
    lost = np.zeros(BOX.shape, dtype=bool)
    for window in engine.plan.windows.cover(BOX):
        if window.row == 0:
            mine = window.core if mode == "core" else window.extent
            lost[mine.intersect(BOX).slices_in(BOX)] = True
    np.testing.assert_array_equal(chosen == 255, lost)


def test_a_required_band_that_is_stored_nowhere_leaves_nodata_and_runs_nothing(card, ground):
    layer = Layer(name="s2", dtype="uint16", scale=0.0001, channels=(0,))
    coding = Coding(layers=(layer,), bands=2)
    engine = engine_for(card, coding, mode="core", size=64, stride=32)

    def refuse(stored):
        raise AssertionError("a window was run that can give no class")

    bare = Engine(card, engine.plan, coding, Double(refuse))
    strip = predict_box(bare, Source(read=lambda box: (source(ground).read(box)[0][:1],)), BOX)
    assert (strip.arrays["classes"] == 255).all()


@pytest.mark.parametrize("fixed", [False, True])
def test_the_last_batch_is_filled_up_only_where_the_runtime_needs_it(card, ground, fixed):
    engine = engine_for(card, mode="core", size=64, stride=32, batch=5)
    given = []

    def answer(stored):
        given.append(stored[0].copy())
        shape = (len(stored[0]), 1, 32, 32)
        return {"classes": np.zeros(shape, np.uint8), "confidence": np.zeros(shape, np.uint8)}

    small = PixelBox(row0=0, col0=384, row1=64, col1=480)
    plan = replace(engine.plan, batch_matters=fixed)
    predict_box(Engine(card, plan, CODING, Double(answer)), source(ground), small)
    assert [len(batch) for batch in given] == ([5, 5] if fixed else [5, 1])
    assert (given[1][1:] == 0).all()
    for batch, number in ((given[0], 0), (given[1], 5)):
        window = engine.plan.windows.cover(small)[number]
        np.testing.assert_array_equal(
            batch[0], ground[(slice(None), *window.extent.slices_in(AREA))]
        )
