"""Windows through a model equal a plain reference that knows no window, slab or batch."""

import numpy as np
import pytest

from mapper.area.grid import PixelBox
from mapper.errors import ModelError
from mapper.inference.blend import window_weights
from mapper.inference.card import load_card
from mapper.inference.plan import plan_inference
from mapper.inference.predict import Engine, predict_box
from mapper.inference.runtime import load_runtime, probabilities
from mapper.recipe import Predict
from tests.inference.tiny_models import write_model

AREA = PixelBox(row0=-300, col0=90, row1=300, col1=700)
BOX = PixelBox(row0=-133, col0=201, row1=77, col1=415)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "tiny", kernel=5, seed=3)


@pytest.fixture(scope="module")
def card(folder):
    return load_card(str(folder))


def engine_for(card, **predict) -> Engine:
    runtime = load_runtime(card, 1)
    return Engine(card, plan_inference(card, runtime, Predict(**predict)), runtime)


@pytest.fixture(scope="module")
def ground(card):
    """A field of random values with holes, as large as any window can ask for."""
    rng = np.random.default_rng(11)
    shape = (len(card.bands), *AREA.shape)
    image = rng.normal(0.3, 0.4, shape).astype(np.float32)
    valid = np.broadcast_to(rng.random(AREA.shape) > 0.02, shape).copy()
    valid[:, 120:260, 200:330] = False
    return np.where(valid, image, 0), valid


def reader(ground):
    image, valid = ground

    def read(box: PixelBox):
        place = (slice(None), *box.slices_in(AREA))
        return image[place], valid[place]

    return read


def whole_field(card, ground):
    """Probabilities of the whole field in one run, no window at all."""
    image, valid = ground
    scaled = card.scale(image, valid)[None]
    raw = load_runtime(card, 1).run(scaled, valid[None].astype(np.float32))
    return probabilities(raw, card)[0]


def blended_field(engine, ground):
    """Every lattice window summed into one full-size array with a count map."""
    plan, card = engine.plan, engine.card
    image, valid = ground
    scaled = card.scale(image, valid)
    weights = np.outer(*[window_weights(plan.size, plan.weights)] * 2)
    total = np.zeros((len(card.classes.classes), *AREA.shape))
    norm = np.zeros(AREA.shape)
    for window in plan.windows.cover(BOX):
        place = (slice(None), *window.extent.slices_in(AREA))
        raw = engine.runtime.run(scaled[place][None], valid[place][None].astype(np.float32))
        total[place] += probabilities(raw, card)[0] * weights
        norm[place[1:]] += weights
    return total / np.where(norm > 0, norm, 1)


def check(labels, scores, card, ground):
    """Labels and confidence against probabilities; ties may fall either way."""
    inside = BOX.slices_in(AREA)
    scores, usable = scores[(slice(None), *inside)], ground[1].all(axis=0)[inside]
    assert (labels.classes[~usable] == card.classes.nodata).all()
    assert (labels.confidence[~usable] == 255).all()
    values = np.array(card.classes.values)
    order = np.sort(scores, axis=0)
    clear = usable & (order[-1] - order[-2] > 1e-4)
    assert clear.mean() > 0.6
    np.testing.assert_array_equal(labels.classes[clear], values[scores.argmax(0)][clear])
    steps = labels.confidence[usable].astype(float)
    assert np.abs(steps - order[-1][usable] * 250).max() < 0.51


@pytest.mark.parametrize("batch", [1, 3, 7])
@pytest.mark.parametrize("stride", [32, 60])
def test_core_crop_equals_the_model_on_the_whole_field(card, ground, stride, batch):
    engine = engine_for(card, mode="core", size=64, stride=stride, batch=batch)
    labels = predict_box(engine, reader(ground), BOX)
    check(labels, whole_field(card, ground), card, ground)


@pytest.mark.parametrize("weights", ["hann", "gaussian"])
@pytest.mark.parametrize(("size", "stride"), [(64, 32), (64, 40), (50, 17), (64, 64)])
def test_blending_equals_a_full_size_sum(card, ground, size, stride, weights):
    engine = engine_for(card, mode="blend", size=size, stride=stride, weights=weights)
    labels = predict_box(engine, reader(ground), BOX)
    check(labels, blended_field(engine, ground), card, ground)


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_any_part_of_a_box_gives_the_same_pixels(card, ground, mode):
    engine = engine_for(card, mode=mode, size=64, stride=32)
    whole = predict_box(engine, reader(ground), BOX)
    for part in (
        PixelBox(row0=-133, col0=201, row1=-132, col1=202),
        PixelBox(row0=-100, col0=230, row1=3, col1=391),
        PixelBox(row0=0, col0=256, row1=64, col1=320),
    ):
        alone = predict_box(engine, reader(ground), part)
        place = part.slices_in(BOX)
        np.testing.assert_array_equal(alone.classes, whole.classes[place])
        np.testing.assert_array_equal(alone.confidence, whole.confidence[place])


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_windows_that_are_not_selected_leave_nodata(card, ground, mode):
    engine = engine_for(card, mode=mode, size=64, stride=32)
    whole = predict_box(engine, reader(ground), BOX)
    chosen = predict_box(engine, reader(ground), BOX, lambda w: w.col % 5 != 0)
    blank = np.zeros(BOX.shape, dtype=bool)
    for window in engine.plan.windows.cover(BOX):
        if window.col % 5 == 0:
            mine = window.core if mode == "core" else window.extent
            blank[mine.intersect(BOX).slices_in(BOX)] = True
    assert blank.any()
    assert not blank.all()
    assert (chosen.classes[blank] == card.classes.nodata).all()
    np.testing.assert_array_equal(chosen.classes[~blank], whole.classes[~blank])


def test_windows_without_any_data_are_never_run(card, ground):
    engine = engine_for(card, mode="core", size=64, stride=32)
    image, valid = np.zeros_like(ground[0]), np.zeros_like(ground[1])

    class Untouchable:
        version, fixed_batch, fixed_size = "none", False, None

        def run(self, image, valid):
            raise AssertionError("a window without data was run")

    bare = Engine(card, engine.plan, Untouchable())
    labels = predict_box(bare, reader((image, valid)), BOX)
    assert (labels.classes == card.classes.nodata).all()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda image: np.full((len(image), 2, *image.shape[2:]), np.nan, "f4"), "NaN"),
        (lambda image: np.zeros((len(image), 2, 3, 3), "f4"), "promises"),
    ],
)
def test_a_model_that_breaks_its_promise_stops_the_step(card, ground, answer, said):
    engine = engine_for(card, mode="core", size=64, stride=32)
    count = len(card.classes.classes)

    class Broken:
        version, fixed_batch, fixed_size = "none", False, None

        def run(self, image, valid):
            raw = answer(image)
            return np.repeat(raw, count, axis=1)[:, :count]

    with pytest.raises(ModelError, match=said):
        predict_box(Engine(card, engine.plan, Broken()), reader(ground), BOX)
