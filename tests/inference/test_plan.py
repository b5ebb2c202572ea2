"""The inference plan: sizes that fit the receptive field, and a digest of what matters."""

import hashlib
from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mapper.errors import RecipeError
from mapper.inference.card import load_card
from mapper.inference.coding import Coding, Layer
from mapper.inference.plan import composition_of, plan_inference
from mapper.recipe import Predict
from tests.inference.tiny_models import write_model

CARD = load_card("spectral-baseline")
CODING = Coding(
    layers=(Layer(name="s2", dtype="uint16", nodata=0, channels=tuple(range(7))),), bands=7
)


@dataclass(frozen=True)
class FakeProgram:
    """A program that is never run."""

    digest: str
    parallel: int = 1

    def run(self, stored):
        raise AssertionError("planning runs nothing")


@dataclass(frozen=True)
class FakeRuntime:
    """A runtime that is never run."""

    version: str = "library 1.0 cpu"
    fixed_batch: bool = False
    fixed_size: int | None = None

    def run(self, image, valid):
        raise AssertionError("planning runs nothing")

    def compose(self, composition):
        return FakeProgram(hashlib.sha256(repr(composition.parts).encode()).hexdigest())


def plan(
    card=CARD,
    coding=CODING,
    device="cpu",
    version="library 1.0 cpu",
    window=None,
    fixed_size=None,
    fixed_batch=False,
    **wanted,
):
    if window is not None:
        card = replace(card, window=window)
    runtime = FakeRuntime(version, fixed_batch, fixed_size)
    return plan_inference(card, runtime, Predict(**wanted), coding, device)


def seeing(pixels, **changes):
    return replace(CARD, receptive_field=pixels, window={}, **changes)


def needed(pixels):
    """Pixels that a model with this receptive field looks at beyond the one that it decides."""
    return pixels // 2


# arithmetic --------------------------------------------------------------------------------


@given(st.integers(1, 300), st.integers(16, 1024))
def test_core_crop_leaves_the_receptive_field_its_halo_and_wastes_nothing(field, size):
    halo = needed(field)
    assume(size >= 16 + 2 * halo)
    assume(halo or not size % 2)
    made = plan(seeing(field), size=None, window={"size": size})
    assert made.mode == "core"
    assert made.windows.halo >= halo
    assert made.size <= size
    if 0 < halo <= 4:
        assert made.windows.halo == halo
    if halo > 4:
        # networks that see far mostly pool: their windows can be halved five times
        assert made.size % 32 == 0 or made.size > size - 32
        assert made.windows.halo - halo < 16
    powers = [2**n for n in range(4, 13)]
    assert made.stride == max(p for p in powers if p + 2 * halo <= size)


@given(st.integers(1, 300))
def test_cores_divide_every_usual_tile(field):
    made = plan(seeing(field), size=512)
    assert all(tile % made.stride == 0 for tile in (512, 1024, 2048))


@pytest.mark.parametrize(
    ("field", "size", "stride", "halo"),
    [
        (1, 512, 512, 0),
        (3, 258, 256, 1),
        (2, 258, 256, 1),
        (65, 320, 256, 32),
        (256, 512, 256, 128),
    ],
)
def test_known_plans(field, size, stride, halo):
    made = plan(seeing(field))
    assert (made.size, made.stride, made.windows.halo) == (size, stride, halo)


def test_blended_windows_overlap_by_half_unless_told():
    made = plan(mode="blend", size=128)
    assert (made.size, made.stride, made.weights, made.windows.mode) == (128, 64, "hann", "blend")
    assert plan(mode="blend", size=128, stride=32, weights="gaussian").stride == 32


def test_core_crop_has_no_weights():
    assert plan(weights="gaussian").weights == "none"


def test_the_recipe_wins_over_the_card():
    card = {"size": 256, "stride": 64, "mode": "blend"}
    assert (made := plan(window=card)).mode == "blend"
    assert (made.size, made.stride) == (256, 64)
    made = plan(window=card, mode="core", size=128, stride=128)
    assert (made.mode, made.size, made.stride) == ("core", 128, 128)


def test_a_size_that_was_asked_for_is_kept():
    made = plan(seeing(9), size=400)
    assert (made.size, made.stride) == (400, 256)
    assert made.windows.halo >= needed(9)


def test_a_graph_of_a_fixed_size_gets_it():
    made = plan(seeing(9), fixed_size=400)
    assert (made.size, made.stride) == (400, 256)


def test_a_model_with_global_context_keeps_its_window_and_a_quarter_of_margin():
    made = plan(seeing(33, global_context=True), window={"size": 512})
    assert (made.size, made.stride) == (512, 256)


def test_fill_model_and_runtime_are_in_the_plan(tmp_path):
    card = load_card(str(write_model(tmp_path / "tiny", mapper_fill=0.5)))
    made = plan(card, version="library 2")
    assert (made.fill, made.model, made.model_digest) == (0.5, "tiny", card.digest)
    assert (made.runtime, made.form) == ("library 2", "onnx")
    assert made.to_dict()["size"] == made.size


# cells ------------------------------------------------------------------------------------


def celled(cell, pixels, **window):
    return replace(CARD, receptive_field=pixels, window={"cell": cell, **window})


@given(
    st.sampled_from([2, 3, 4, 5, 6, 10, 20]),
    st.integers(1, 200),
    st.integers(1, 60),
    st.booleans(),
    st.sampled_from(["core", "blend"]),
    st.sampled_from([{}, {"multiple": 1}, {"multiple": 6}, {"multiple": 40}]),
)
def test_windows_begin_where_cells_do(cell, field, cells, everything, mode, multiple):
    size = cell * cells
    card = replace(celled(cell, field, size=size, **multiple), global_context=everything)
    halo = -(-needed(field) // cell) * cell
    assume(size >= 2 * cell + 2 * (0 if everything else halo))
    if everything:
        assume(size >= 4 * cell)
    made = plan(card, mode=mode)
    assert made.size <= size
    for window in (made.windows.window(-3, 7), made.windows.window(0, 0)):
        assert all(v % cell == 0 for v in (window.extent.row0, window.extent.col0))
        assert all(v % cell == 0 for v in (window.extent.row1, window.extent.col1))
    if mode == "core" and not everything:
        assert made.windows.halo >= needed(field)


@pytest.mark.parametrize(
    ("cell", "field", "size", "expected"),
    [
        # 640 divides tiles of 1280 and 2560
        (5, 101, 800, (760, 640, 60)),
        (5, 101, 1000, (760, 640, 60)),
        (5, 101, 480, (440, 320, 60)),
        (5, 42, 240, (240, 160, 40)),
        (2, 65, 512, (320, 256, 32)),
        (3, 31, 300, (240, 192, 24)),
        # odd numbers of cells have no usual core
        (5, 11, 85, (85, 75, 5)),
    ],
)
def test_known_plans_of_cells(cell, field, size, expected):
    made = plan(celled(cell, field, size=size, multiple=8 * cell))
    assert (made.size, made.stride, made.windows.halo) == expected


def test_cells_and_no_size():
    made = plan(celled(5, 11), mode="blend")
    assert (made.size, made.stride) == (510, 255)


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_cells_beyond_the_usual_window(mode):
    made = plan(celled(600, 1), mode=mode)
    assert (made.size, made.stride) == (600, 600)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"size": 256}, "differ by multiples of 10"),
        ({"size": 200, "stride": 128}, "multiples of 5 that differ by multiples of 10"),
        ({"size": 190, "stride": 162}, "window 190 and stride 162 cut through the cells"),
        ({"size": 200, "stride": 64, "mode": "blend"}, "multiples of 5$"),
        ({"size": 128, "stride": 50, "mode": "blend"}, "cells of model .* are of 5 pixels"),
    ],
)
def test_windows_that_cut_through_cells_are_refused(wanted, said):
    with pytest.raises(RecipeError, match=said):
        plan(celled(5, 11), **wanted)
    assert plan(celled(1, 11), **wanted).size == wanted["size"]


def test_a_margin_that_is_no_whole_cell_is_refused():
    with pytest.raises(RecipeError, match="multiples of 4 that differ by multiples of 8"):
        plan(celled(4, 9), size=64, stride=52)
    assert plan(celled(4, 9), size=64, stride=56).windows.halo == 4


def test_a_fixed_size_that_cuts_through_cells_is_refused():
    with pytest.raises(RecipeError, match="cut through the cells"):
        plan(celled(5, 11), fixed_size=256)
    assert plan(celled(5, 11), fixed_size=250).stride == 160


def test_too_large_a_field_for_cells_is_refused():
    with pytest.raises(RecipeError, match=r"sees 55 pixels .* window of 110"):
        plan(celled(5, 111, size=110))


def test_a_cell_of_one_pixel_changes_no_plan():
    windows = [{}, {"size": 480, "multiple": 32}, {"size": 256, "mode": "blend"}]
    for field in (1, 9, 65, 120):
        for window in windows:
            card = replace(CARD, receptive_field=field, window=window)
            other = replace(card, window={**window, "cell": 1})
            assert plan(other).digest == plan(card).digest


# refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "size", "stride"), [(65, 256, 256), (65, 256, 194), (3, 64, 64), (513, 512, 256)]
)
def test_a_stride_that_leaves_too_small_a_halo_is_refused(field, size, stride):
    with pytest.raises(RecipeError, match=rf"sees {needed(field)} around"):
        plan(seeing(field), size=size, stride=stride)


def test_the_largest_stride_that_fits_is_accepted():
    made = plan(seeing(65), size=256, stride=192)
    assert made.windows.halo == 32


def test_a_window_smaller_than_the_receptive_field_is_refused():
    with pytest.raises(RecipeError, match=r"predict\.size"):
        plan(seeing(600))


def test_a_size_that_the_graph_does_not_take_is_refused():
    with pytest.raises(RecipeError, match="takes 256 only"):
        plan(fixed_size=256, size=512)


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_strides_beyond_the_window_are_refused(mode):
    with pytest.raises(RecipeError):
        plan(mode=mode, size=64, stride=65)


def test_an_odd_margin_is_refused():
    with pytest.raises(RecipeError, match="even margin"):
        plan(size=65, stride=64)


# digest ------------------------------------------------------------------------------------


def test_batch_and_threads_decide_no_label_of_a_graph():
    digests = {plan(batch=b, threads=t).digest for b in (1, 4, 64) for t in (1, 8)}
    assert len(digests) == 1


def test_batch_and_threads_are_part_of_a_plan_where_the_runtime_needs_them():
    digests = {plan(fixed_batch=True, batch=b, threads=t).digest for b in (1, 4) for t in (1, 8)}
    assert len(digests) == 4


LAYER = CODING.layers[0]
CHANGES = [
    {"size": 256},
    {"stride": 128},
    {"mode": "blend"},
    {"mode": "blend", "weights": "gaussian"},
    {"mode": "blend", "scores": "logits"},
    {"augmentation": "d4"},
    {"entropy": True},
    {"probabilities": True},
    {"device": "cuda"},
    {"version": "library 1.1 cpu"},
    {"card": replace(CARD, fill=1.0)},
    {"card": replace(CARD, temperature=3.0)},
    {"card": replace(CARD, artifact=replace(CARD.artifact, name="model-int8", precision="int8"))},
    {"coding": replace(CODING, layers=(replace(LAYER, scale=0.5),))},
    {"coding": replace(CODING, layers=(replace(LAYER, nodata=None),))},
    {"coding": replace(CODING, layers=(replace(LAYER, dtype="int16"),))},
]


def test_whatever_decides_a_label_is_in_the_digest():
    digests = [plan(**changes).digest for changes in ({}, *CHANGES)]
    assert len(set(digests)) == len(digests)


def test_the_composition_is_in_the_plan():
    assert len({plan(**changes).composition for changes in ({}, {"mode": "blend"})}) == 2
    assert len(plan().composition) == 64


@pytest.mark.parametrize("mode", ["core", "blend"])
def test_scores_leave_where_more_than_one_window_decides(mode):
    alone = composition_of(CARD, plan(mode=mode), CODING)
    turned = composition_of(CARD, plan(mode=mode, augmentation="d4", scores="logits"), CODING)
    assert alone.scores == ("" if mode == "core" else "probabilities")
    assert turned.scores == "logits"
    assert (alone.weights, alone.side) == (("none", 0) if mode == "core" else ("hann", 512))


def test_core_crop_cuts_its_halo_off():
    card = seeing(65)
    made = plan(card)
    assert composition_of(card, made, CODING).margin == made.windows.halo == 32
    assert composition_of(card, plan(card, mode="blend"), CODING).margin == 0


def test_the_digest_is_the_same_in_every_process():
    made = plan()
    assert made.digest == plan().digest
    assert len(made.digest) == 64
