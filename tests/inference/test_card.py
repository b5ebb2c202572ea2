"""Model folders: what they promise is checked before any pixel, and said in plain words."""

import json
import re

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mapper.errors import InputError, ModelError
from mapper.inference.card import load_card, shipped_models
from mapper.inference.runtime import load_runtime
from tests.inference.tiny_models import (
    BANDS,
    CLASSES,
    model_item,
    tiny_answer,
    tiny_graph,
    write_folder,
    write_model,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "tiny"


@pytest.fixture
def load(folder):
    """Writes an item with a graph and loads the card."""

    def load_it(item=None, content=None, checksum=True):
        content = tiny_graph() if content is None else content
        write_folder(folder, model_item() if item is None else item, content, checksum=checksum)
        return load_card(str(folder))

    return load_it


def changed(change, **options):
    """An item after a change to its properties."""
    item = model_item(**options)
    change(item["properties"])
    return item


# good folders ------------------------------------------------------------------------------


def test_a_card_says_what_its_item_says(folder):
    write_model(
        folder,
        kernel=5,
        validity=True,
        mapper_required=["s2:red"],
        mapper_fill=-1,
        mapper_temperature=2,
    )
    card = load_card(str(folder))
    assert (card.name, card.form, card.license) == ("tiny", "onnx", "CC0-1.0")
    assert card.bands == BANDS
    assert card.required == ("s2:red",)
    assert [c.name for c in card.classes.classes] == [name for name, _ in CLASSES]
    assert (card.image_input, card.validity_input, card.output) == ("image", "valid", "logits")
    assert (card.receptive_field, card.fill, card.temperature) == (5, -1.0, 2.0)
    assert card.window == {"size": 32, "mode": "core"}


@pytest.mark.parametrize("name", [p.name for p in shipped_models()])
def test_shipped_models_load_by_name(name):
    card = load_card(name)
    assert card.name == name
    assert load_runtime(card, threads=1).version.startswith("onnxruntime ")


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("validity", [False, True])
def test_a_graph_runs_as_numpy_does(folder, kernel, validity):
    card = load_card(str(write_model(folder, kernel=kernel, validity=validity)))
    rng = np.random.default_rng(kernel)
    image = rng.normal(size=(3, 2, 9, 11)).astype(np.float32)
    valid = rng.integers(0, 2, image.shape).astype(np.float32)
    known = image * valid if validity else image
    result = load_runtime(card, threads=1).run(image, valid)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, tiny_answer(known, kernel=kernel), rtol=1e-4, atol=1e-4)


def test_a_runtime_is_made_once_per_model(folder, tmp_path):
    card = load_card(str(write_model(folder)))
    again = load_card(str(folder))
    other = load_card(str(write_model(tmp_path / "other", seed=7)))
    assert load_runtime(card, 1) is load_runtime(again, 1)
    assert load_runtime(card, 1) is not load_runtime(other, 1)
    assert load_runtime(card, 1) is not load_runtime(card, 2)


@pytest.mark.parametrize("size", [None, 24])
def test_the_window_that_a_graph_demands_is_known(folder, size):
    card = load_card(str(write_model(folder, size=size)))
    assert load_runtime(card, 1).fixed_size == size


# digests -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 1},
        {"bands": ("s2:nir", "s2:red")},
        {"classes": CLASSES[::-1]},
        {"classes": (("water", "000000"), *CLASSES[1:])},
        {"mapper_fill": 0.5},
        {"mapper_temperature": 1.5},
        {"mapper_activation": "none"},
        {"mapper_activation": "sigmoid"},
        {"mapper_head": "labels", "mapper_activation": "none"},
        {"mapper_head": "values", "mapper_activation": "none"},
        {"validity": True, "mapper_required": ["s2:red"]},
    ],
    ids=str,
)
def test_the_digest_changes_with_what_decides_a_label(tmp_path, options):
    one = load_card(str(write_model(tmp_path / "one")))
    other = load_card(str(write_model(tmp_path / "other", **options)))
    assert one.digest != other.digest


def test_the_digest_changes_with_the_scaling(load):
    plain = load().digest
    scaling = [{"type": "offset", "value": 1}]
    item = changed(lambda p: p["mlm:input"][0].update(value_scaling=scaling))
    assert load(item).digest != plain


def test_the_digest_does_not_change_with_place_or_prose(tmp_path):
    one = load_card(str(write_model(tmp_path / "one")))
    other = load_card(str(write_model(tmp_path / "other", description="words", license="MIT")))
    assert one.digest == other.digest


# folders that are refused ------------------------------------------------------------------


def test_an_unknown_model_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(ModelError, match=r"'no-such'.*spectral-baseline"):
        load_card("no-such")
    with pytest.raises(ModelError, match=r"item\.json"):
        load_card(str(tmp_path))


def test_a_missing_model_file_is_refused(folder, load):
    load()
    (folder / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx cannot be read: No such file"):
        load_card(str(folder))


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00", b"[]", b"null", b'"item"'])
def test_an_item_that_is_no_stac_item_is_refused(folder, load, content):
    load()
    (folder / "item.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"item\.json"):
        load_card(str(folder))


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_noticed_by_its_size(folder, load, share):
    load()
    content = tiny_graph()
    (folder / "model.onnx").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match=rf"its card says {len(content)}: it is cut off"):
        load_card(str(folder))


@pytest.mark.parametrize("missing", range(1, 60, 2))
def test_a_truncated_file_without_size_is_noticed_by_the_loader(load, missing):
    card = load(content=tiny_graph()[:-missing], checksum=False)
    with pytest.raises(ModelError, match=r"model\.onnx|'tiny'"):
        load_runtime(card, threads=1)


NOTHING = b""


@pytest.mark.parametrize("content", [NOTHING, b"garbage", b"\x00" * 4096])
def test_a_file_that_is_no_graph_is_refused(load, content):
    with pytest.raises(ModelError, match="no ONNX graph that can be loaded"):
        load_runtime(load(content=content, checksum=False), threads=1)


def test_another_file_of_the_same_size_is_refused(folder, load):
    load()
    content = bytearray(tiny_graph())
    content[-1] ^= 1
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"not the one that its card describes \(checksum 1220"):
        load_card(str(folder))


@pytest.mark.parametrize("href", ["../model.onnx", "{absolute}", "a/../../model.onnx"])
def test_a_path_outside_the_folder_is_refused(folder, load, tmp_path, href):
    load()
    outside = tmp_path / "model.onnx"
    outside.write_bytes(tiny_graph())
    item = model_item()
    item["assets"]["model"]["href"] = href.format(absolute=outside)
    (folder / "item.json").write_text(json.dumps(item))
    with pytest.raises(ModelError, match="outside the folder"):
        load_card(str(folder))


def test_a_link_to_a_file_outside_is_refused(folder, load, tmp_path):
    load()
    (folder / "model.onnx").rename(tmp_path / "model.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(ModelError, match="outside the folder"):
        load_card(str(folder))


@pytest.mark.parametrize("suffix", [".pkl", ".h5", ""])
def test_files_of_other_forms_are_refused(load, suffix):
    with pytest.raises(ModelError, match=r"neither \.onnx, nor TorchScript"):
        load(model_item(artifact=f"model{suffix}"))


@pytest.mark.parametrize("field", ["mlm:name", "mlm:input", "mlm:output", "mapper:receptive_field"])
def test_a_missing_field_is_named(load, field):
    with pytest.raises(ModelError, match=field):
        load(changed(lambda p: p.pop(field)))


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update({"mlm:input": []}),
        lambda p: p.update({"mlm:output": {}}),
        lambda p: p["mlm:input"][0].pop("name"),
        lambda p: p["mlm:input"][0].pop("bands"),
        lambda p: p["mlm:input"][0].update(bands=[{}]),
        lambda p: p["mlm:output"][0].pop("name"),
        lambda p: p["mlm:output"][0].pop("classification:classes"),
        lambda p: p["mlm:output"][0].update({"classification:classes": []}),
        lambda p: p["mlm:output"][0]["classification:classes"][0].pop("color_hint"),
        lambda p: p["mlm:output"][0]["classification:classes"][0].update(value=1),
        lambda p: p["mlm:output"][0]["classification:classes"][0].update(value="one"),
        lambda p: p["mlm:output"][0]["classification:classes"][0].update(value=255),
        lambda p: p["mlm:output"][0].update({"classification:classes": ["water"]}),
        lambda p: p.update({"mapper:receptive_field": 0}),
        lambda p: p.update({"mapper:receptive_field": "wide"}),
        lambda p: p.update({"mapper:fill": "none"}),
        lambda p: p.update({"mapper:temperature": 0}),
        lambda p: p.update({"mapper:activation": "tanh"}),
        lambda p: p.update({"mapper:head": "boxes"}),
        lambda p: p.update({"mapper:head": "labels"}),
        lambda p: p.update({"mapper:head": "values"}),
        lambda p: p.update({"mapper:head": "values", "mapper:activation": "sigmoid"}),
        lambda p: p.update({"mapper:window": {"size": 32, "mode": "mosaic"}}),
        lambda p: p.update({"mapper:window": {"size": "large"}}),
    ],
    ids=[
        "no input",
        "output is a map",
        "input without name",
        "input without bands",
        "band without name",
        "output without name",
        "output without classes",
        "empty class table",
        "class without colour",
        "two classes of one value",
        "class value is a word",
        "class value is nodata",
        "classes are words",
        "receptive field 0",
        "receptive field is a word",
        "fill is a word",
        "temperature 0",
        "unknown activation",
        "unknown head",
        "labels of a softmax",
        "values of a softmax",
        "values of a sigmoid",
        "unknown window mode",
        "window size is a word",
    ],
)
def test_a_card_that_makes_no_sense_is_refused(load, change):
    with pytest.raises(ModelError):
        load(changed(change))


@pytest.mark.parametrize("assets", [{}, [], {"model": {"href": "./model.onnx"}}])
def test_an_item_without_a_model_asset_is_refused(folder, load, assets):
    load()
    (folder / "item.json").write_text(json.dumps({**model_item(), "assets": assets}))
    with pytest.raises(ModelError):
        load_card(str(folder))


@pytest.mark.parametrize("band", ["red", "s2:", ":red", "S2:red", "s2:red:x", "../x:red", "s2:r d"])
def test_bands_name_source_and_band(load, band):
    with pytest.raises(ModelError, match=re.escape(repr(band))):
        load(model_item(bands=(band, "s2:nir")))


def test_a_required_band_must_be_a_band(load):
    with pytest.raises(ModelError, match=r"mapper:required names \['s2:blue'\]"):
        load(model_item(validity=True, mapper_required=["s2:red", "s2:blue"]))


def test_without_validity_input_no_band_is_optional(load):
    with pytest.raises(ModelError, match=r"validity input.*\['s2:nir'\]"):
        load(model_item(mapper_required=["s2:red"]))


# graphs that do not fit their card ---------------------------------------------------------


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ({"classes": 2}, "yields 2 classes, its card lists 3"),
        ({"classes": 4}, "yields 4 classes, its card lists 3"),
        ({"bands": 3}, "takes 3 bands, its card lists 2"),
        ({"names": ("x", "valid", "logits")}, r"has inputs \['x'\], its card says \['image'\]"),
        ({"names": ("image", "valid", "y")}, r"has outputs \['y'\], its card says 'logits'"),
        ({"validity": True}, r"has inputs \['image', 'valid'\], its card says \['image'\]"),
    ],
    ids=["few classes", "many classes", "bands", "input name", "output name", "second input"],
)
def test_a_graph_that_does_not_fit_is_refused(load, graph, said):
    card = load(content=tiny_graph(**graph))
    with pytest.raises(ModelError, match=said):
        load_runtime(card, threads=1)


def test_a_graph_without_the_promised_validity_input_is_refused(load):
    card = load(model_item(validity=True))
    with pytest.raises(ModelError, match=r"has inputs \['image'\].*'valid'"):
        load_runtime(card, threads=1)


@pytest.mark.parametrize("dtype", [TensorProto.DOUBLE, TensorProto.INT32])
def test_a_graph_of_another_number_type_is_refused_when_it_is_loaded(load, dtype):
    card = load(content=tiny_graph(dtype=dtype))
    with pytest.raises(ModelError):
        load_runtime(card, threads=1)


def test_a_graph_of_half_precision_runs(load):
    card = load(content=tiny_graph(dtype=TensorProto.FLOAT16))
    image = np.random.default_rng(0).normal(size=(2, 2, 5, 6)).astype(np.float32)
    result = load_runtime(card, threads=1).run(image, np.ones_like(image))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, tiny_answer(image), atol=2e-2)


@pytest.mark.parametrize(
    ("head", "activation", "classes", "channels"),
    [
        ("classes", "softmax", 2, 2),
        ("classes", "sigmoid", 2, 1),
        ("classes", "sigmoid", 3, 3),
        ("classes", "none", 2, 2),
        ("labels", "sigmoid", 2, 2),
        ("values", "none", 1, 1),
    ],
)
def test_a_graph_has_one_channel_for_each_class_but_for_two_of_a_sigmoid(
    load, head, activation, classes, channels
):
    item = model_item(classes=CLASSES[:classes], mapper_head=head, mapper_activation=activation)
    card = load(item, tiny_graph(classes=channels))
    assert (card.channels, card.channels_decided) == (channels, classes)
    image = np.zeros((1, 2, 4, 4), np.float32)
    assert load_runtime(card, 1).run(image, image).shape == (1, channels, 4, 4)
    with pytest.raises(ModelError, match=f"yields {channels + 1} classes"):
        load_runtime(load(item, tiny_graph(classes=channels + 1)), 1)


def test_a_graph_of_another_rank_is_refused_when_it_is_loaded(load):
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image"], ["logits"])],
        "flat",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    card = load(content=model.SerializeToString())
    with pytest.raises(ModelError):
        load_runtime(card, threads=1)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_graph_of_a_fixed_batch_runs_with_any_number_of_windows(load, batch):
    card = load(content=tiny_graph(batch=batch))
    image = np.random.default_rng(0).normal(size=(4, 2, 16, 16)).astype(np.float32)
    result = load_runtime(card, threads=1).run(image, np.ones_like(image))
    np.testing.assert_allclose(result, tiny_answer(image), rtol=1e-4, atol=1e-4)


# trust -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pt", ".ts"])
def test_torchscript_without_trust_is_refused_as_bad_input(load, suffix):
    card = load(model_item(artifact=f"model{suffix}"), content=b"code")
    with pytest.raises(ModelError, match="--trust-model") as caught:
        load_runtime(card, threads=1)
    assert isinstance(caught.value, InputError)
    assert caught.value.exit_code == 3


# scaling -----------------------------------------------------------------------------------

SCALINGS = [
    ({"type": "min-max", "minimum": -2, "maximum": 6}, lambda x: (x + 2) / 8),
    ({"type": "z-score", "mean": 1.5, "stddev": 0.5}, lambda x: (x - 1.5) / 0.5),
    ({"type": "clip", "minimum": 0, "maximum": 1}, lambda x: np.clip(x, 0, 1)),
    ({"type": "clip-min", "minimum": 0.25}, lambda x: np.maximum(x, 0.25)),
    ({"type": "clip-max", "maximum": 0.25}, lambda x: np.minimum(x, 0.25)),
    ({"type": "offset", "value": 0.5}, lambda x: x - 0.5),
    ({"type": "scale", "value": 4}, lambda x: x / 4),
    (None, lambda x: x),
]


def scaled(load, scaling, image, valid=None):
    card = load(changed(lambda p: p["mlm:input"][0].update(value_scaling=scaling), mapper_fill=-9))
    valid = np.ones(image.shape, bool) if valid is None else valid
    return card.scale(image, valid)


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(1, 2, (3, 2, 5, 7)).astype(np.float32)


@pytest.mark.parametrize(("step", "expected"), SCALINGS, ids=[str(s) for s, _ in SCALINGS])
def test_one_scaling_is_for_all_bands(load, image, step, expected):
    before = image.copy()
    result = scaled(load, [step], image)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected(image.astype(float)), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("step", "expected"), SCALINGS, ids=[str(s) for s, _ in SCALINGS])
def test_each_band_may_have_a_scaling_of_its_own(load, image, step, expected):
    result = scaled(load, [None, step], image)
    np.testing.assert_array_equal(result[:, 0], image[:, 0])
    wanted = expected(image[:, 1].astype(float))
    np.testing.assert_allclose(result[:, 1], wanted, rtol=1e-5, atol=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_pixels_without_data_become_fill_after_scaling(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(2, 3, 3, 4)).astype(np.float32)
    valid = rng.integers(0, 2, values.shape).astype(bool)
    card = load_card("rgb-baseline")
    result = card.scale(np.where(valid, values, np.nan).astype(np.float32), valid)
    np.testing.assert_array_equal(result[valid], values[valid])
    assert (result[~valid] == card.fill).all()


def test_fill_is_not_scaled(load, image):
    valid = np.zeros(image.shape, bool)
    assert (scaled(load, [{"type": "offset", "value": 5}], image, valid) == -9).all()


@pytest.mark.parametrize(
    "scaling",
    [
        [{"type": "log"}],
        [{"type": "processing", "format": "gdal-calc", "expression": "A*2"}],
        [None, None, None],
        [{"type": "min-max", "minimum": 0}],
        [{"type": "z-score", "mean": 0}],
        [{"type": "min-max", "minimum": "0", "maximum": "1"}],
        [{}],
        [{"type": "min-max", "minimum": 1, "maximum": 1}],
        [{"type": "z-score", "mean": 0, "stddev": 0}],
        [{"type": "scale", "value": 0}],
    ],
    ids=str,
)
def test_scalings_that_cannot_be_done_are_refused(load, scaling):
    with pytest.raises(ModelError):
        load(changed(lambda p: p["mlm:input"][0].update(value_scaling=scaling)))


# the graphs of these tests -----------------------------------------------------------------


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_tiny_graphs_are_what_their_builder_promises(opset):
    model = onnx.load_from_string(tiny_graph(kernel=3, validity=True, opset=opset))
    onnx.checker.check_model(model, full_check=True)
    assert model.ir_version <= 10
    assert model.opset_import[0].version == opset
