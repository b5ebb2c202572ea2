"""A form of another precision is added to a copy, measured, and held to what was measured."""

import json
import logging
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from mapper.errors import ModelError, UsageError
from mapper.inference.card import load_card
from mapper.inference.convert import convert_model
from mapper.inference.folder import (
    Opening,
    add_asset,
    check_forms,
    open_unchecked,
    set_fields,
    store_reference,
)
from mapper.inference.parity import read_reference
from mapper.inference.runtime import load_runtime
from tests.inference.tiny_models import (
    model_item,
    tiny_answer,
    tiny_graph,
    write_folder,
    write_model,
)

HOW = Opening()


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    """What tests export is trusted nowhere else."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def card(tmp_path):
    return load_card(str(write_model(tmp_path / "tiny", kernel=3)))


def windows(count=8, loud=1.0, side=32):
    rng = np.random.default_rng(1)
    shape = (1, 2, side, side)
    images = [(loud * rng.normal(size=shape)).astype(np.float32) for _ in range(count)]
    return [(image, np.ones_like(image)) for image in images]


def item_of(folder):
    return json.loads((folder / "item.json").read_text())


def initialisers(path):
    return {i.data_type for i in onnx.load(path).graph.initializer}


# what is written ---------------------------------------------------------------------------


def test_float16_halves_the_weights_and_keeps_float32_outside(card, tmp_path):
    convert_model(card, "float16", tmp_path / "out", windows(), HOW)
    made = load_card(str(tmp_path / "out"), "model-float16")
    graph = onnx.load(made.artifact.path).graph
    assert {i.data_type for i in graph.initializer} == {TensorProto.FLOAT16}
    ports = [*graph.input, *graph.output]
    assert {p.type.tensor_type.elem_type for p in ports} == {TensorProto.FLOAT}
    ((image, valid),) = windows(1)
    found = load_runtime(made, 1).run(image, valid)
    expected = tiny_answer(image, kernel=3)
    assert 0 < np.abs(found - expected).max() < 2e-3 * np.ptp(expected)


def test_int8_stores_weights_in_bytes_with_a_scale_for_each_channel(card, tmp_path):
    convert_model(card, "int8", tmp_path / "out", windows(), HOW)
    made = load_card(str(tmp_path / "out"), "model-int8")
    tensors = {i.name: i for i in onnx.load(made.artifact.path).graph.initializer}
    weights = [t for t in tensors.values() if t.data_type == TensorProto.INT8]
    assert [3, 2, 3, 3] in [list(t.dims) for t in weights]
    floats = [list(t.dims) for t in tensors.values() if t.data_type == TensorProto.FLOAT]
    # one scale for each of three channels of the weights; the image and the logits have one each
    assert sorted(floats) == [[], [], [3]]
    ((image, valid),) = windows(1)
    expected = tiny_answer(image, kernel=3)
    found = load_runtime(made, 1).run(image, valid)
    assert np.abs(found - expected).max() < 0.05 * np.ptp(expected)


@pytest.mark.parametrize("target", ["float16", "int8"])
def test_the_card_says_what_was_measured_and_the_first_form_stays_the_default(
    card, tmp_path, target
):
    found = convert_model(card, target, tmp_path / "out", windows(), HOW)
    item = item_of(tmp_path / "out")
    assert list(item["assets"]) == ["model", "reference", f"model-{target}"]
    asset = item["assets"][f"model-{target}"]
    assert asset["roles"] == ["mlm:model"]
    assert asset["mapper:precision"] == target
    assert asset["file:size"] == (tmp_path / "out" / asset["href"]).stat().st_size
    assert found.windows == 2
    held = np.concatenate([windows()[i][0] for i in (3, 7)])
    made = load_card(str(tmp_path / "out"), f"model-{target}")
    raw, expected = load_runtime(made, 1).run(held, held), tiny_answer(held, kernel=3)
    changed = (raw.argmax(1) != expected.argmax(1)).mean()
    relative = np.abs(raw - expected).max() / np.ptp(expected)
    assert asset["mapper:disagreement"]["changed"] == pytest.approx(changed, abs=1e-3)
    assert asset["mapper:disagreement"]["relative"] == pytest.approx(relative, rel=1e-2)
    worst = max(found.disagreement["changed"], found.reference["changed"])
    assert asset["mapper:tolerance"] == {"changed": round(max(0.005, 2 * worst), 6)}
    assert load_card(str(tmp_path / "out")).artifact.name == "model"


def test_the_original_is_left_alone_and_the_copy_loads_without_a_word(card, tmp_path, caplog):
    before = {p.name: p.read_bytes() for p in card.folder.iterdir()}
    convert_model(card, "float16", tmp_path / "out", (), HOW)
    assert {p.name: p.read_bytes() for p in card.folder.iterdir()} == before
    with caplog.at_level(logging.WARNING):
        load_runtime(load_card(str(tmp_path / "out"), "model-float16"), 1)
    assert not caplog.records


def test_without_images_it_is_measured_on_the_reference(card, tmp_path):
    found = convert_model(card, "float16", tmp_path / "out", (), HOW)
    assert found.windows == 0
    assert found.disagreement == found.reference
    assert 0 < found.disagreement["relative"] < 0.01


def test_it_is_measured_on_windows_that_it_was_not_calibrated_with(card, tmp_path):
    """The fourth is louder than any other: calibrated with, it would not be cut off."""
    quiet = convert_model(card, "int8", tmp_path / "quiet", windows(4), HOW)
    images = [*windows(3), *windows(1, loud=20)]
    loud = convert_model(card, "int8", tmp_path / "loud", images, HOW)
    assert quiet.disagreement["relative"] < 0.1 < 0.5 < loud.disagreement["relative"]


def test_numbers_are_held_to_their_difference_since_they_have_no_labels(tmp_path):
    folder = write_model(tmp_path / "tiny", mapper_head="values", mapper_activation="none")
    found = convert_model(load_card(str(folder)), "float16", tmp_path / "out", (), HOW)
    assert found.tolerance == {"relative": 0.005}
    assert check_forms(load_card(str(tmp_path / "out")), "all", HOW)[-1].state == "ok"


# what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("bfloat16", "no bfloat16 convolution on CPUs"),
        ("torch-export", "torch.export.save from the network's own code"),
        ("aotinductor", r"compiled from a \.pt2"),
    ],
)
def test_what_an_onnx_graph_cannot_become_is_refused_with_the_reason(card, tmp_path, target, why):
    with pytest.raises(ModelError, match=why):
        convert_model(card, target, tmp_path / "out", windows(), HOW)
    assert not (tmp_path / "out").exists()


def test_int8_without_real_pixels_is_refused(card, tmp_path):
    with pytest.raises(UsageError, match="--calibrate"):
        convert_model(card, "int8", tmp_path / "out", (), HOW)


def test_a_folder_that_is_there_is_not_written_to(card, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="there already"):
        convert_model(card, "float16", tmp_path / "out", (), HOW)


def test_a_conversion_that_fails_leaves_nothing(card, tmp_path):
    wrong = [(np.ones((1, 5, 8, 8), np.float32),) * 2] * 4
    with pytest.raises(ModelError, match="cannot be converted to int8"):
        convert_model(card, "int8", tmp_path / "out", wrong, HOW)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["tiny"]


# torch -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A 3 x 3 convolution as a torch.export program for windows of 32 pixels."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(5)
    network = torch.nn.Conv2d(2, 3, 3, padding=1).eval()
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(network, (torch.zeros(1, 2, 32, 32),)), path)
    item = model_item(kernel=3, artifact="model.pt2")
    item["assets"]["model"]["mapper:shape"] = [1, 32]
    item["properties"]["mapper:window"] = {"size": 32, "mode": "core"}
    return write_folder(path.parent / "tiny", item, path.read_bytes()), network


def expected_of(network, image):
    import torch

    with torch.inference_mode():
        return network(torch.from_numpy(image)).numpy()


def test_a_program_is_code_and_needs_trust_to_be_converted(exported, tmp_path):
    with pytest.raises(ModelError, match="--trust-model"):
        convert_model(load_card(str(exported[0])), "bfloat16", tmp_path / "out", (), HOW)


def test_bfloat16_of_a_program_runs_here_without_being_trusted_again(exported, tmp_path):
    card = load_card(str(exported[0]))
    convert_model(card, "bfloat16", tmp_path / "out", windows(4), Opening(trust=True))
    made = load_card(str(tmp_path / "out"), "model-bfloat16")
    ((image, valid),) = windows(1)
    found, expected = load_runtime(made, 1).run(image, valid), expected_of(exported[1], image)
    off = np.abs(found - expected).max() / np.ptp(expected)
    assert 1e-5 < off < 0.02


@pytest.mark.slow
def test_a_compiled_program_gives_the_same_numbers(exported, tmp_path):
    card = load_card(str(exported[0]))
    convert_model(card, "aotinductor", tmp_path / "out", windows(4), Opening(trust=True))
    made = load_card(str(tmp_path / "out"), "model-aotinductor")
    assert (made.form, made.artifact.tolerance) == ("aotinductor", {"relative": 1e-4})
    ((image, valid),) = windows(1)
    found = load_runtime(made, 1).run(image, valid)
    np.testing.assert_allclose(found, expected_of(exported[1], image), atol=1e-5)


# the folder --------------------------------------------------------------------------------


def test_a_reference_is_what_the_first_float32_form_gives(card):
    stored = store_reference(card, HOW)
    image, valid, output = read_reference(stored)
    assert image.shape == (1, 2, 32, 32)
    assert valid.min() == 0
    np.testing.assert_allclose(output, tiny_answer(image, kernel=3), rtol=1e-4, atol=1e-4)
    asset = item_of(card.folder)["assets"]["reference"]
    assert asset["roles"] == ["mapper:reference"]
    assert asset["file:size"] == (card.folder / "reference.npz").stat().st_size


def test_every_form_is_told_apart_and_a_wrong_one_is_refused_alone(card):
    store_reference(card, HOW)
    other = card.folder / "other.onnx"
    other.write_bytes(tiny_graph(kernel=3, seed=1))
    add_asset(card.folder, "a-first-by-name", other, {"roles": ["mlm:model"]})
    forms = check_forms(load_card(str(card.folder)), "all", HOW)
    assert [(f.name, f.state) for f in forms] == [("model", "ok"), ("a-first-by-name", "refused")]
    assert forms[1].measured["relative"] > 0.1
    assert "relative" in forms[1].reason
    with pytest.raises(ModelError, match="has no form 'b'; its folder holds model, a-first"):
        check_forms(load_card(str(card.folder)), "b", HOW)


def test_setting_fields_keeps_all_others(card):
    before = item_of(card.folder)
    set_fields(card.folder, {"mapper:receptive_field": 7})
    after = item_of(card.folder)
    assert after["properties"].pop("mapper:receptive_field") == 7
    before["properties"].pop("mapper:receptive_field")
    assert json.dumps(after) == json.dumps(before)


def test_shipped_models_are_not_written_to():
    card = load_card("rgb-baseline")
    before = (card.folder / "item.json").read_bytes()
    for write in (lambda: store_reference(card, HOW), lambda: set_fields(card.folder, {"a": 1})):
        with pytest.raises(UsageError, match="comes with mapper and is not written to"):
            write()
    assert (card.folder / "item.json").read_bytes() == before


def test_opening_unchecked_passes_a_model_that_loading_refuses(card):
    store_reference(card, HOW)
    image, valid, output = read_reference(load_card(str(card.folder)))
    (card.folder / "model.onnx").write_bytes(tiny_graph(kernel=3, seed=9))
    item = item_of(card.folder)
    for name in ("file:size", "file:checksum"):
        del item["assets"]["model"][name]
    (card.folder / "item.json").write_text(json.dumps(item))
    other = load_card(str(card.folder))
    assert np.abs(open_unchecked(other, HOW).run(image, valid) - output).max() > 0.1
    with pytest.raises(ModelError, match="off its reference output"):
        load_runtime(other, 1)
