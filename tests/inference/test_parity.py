"""What was loaded is held against the output that was stored when the model was exported."""

import contextlib
import gc
import json
import logging
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto

from mapper.errors import ModelError
from mapper.inference.card import load_card
from mapper.inference.onnx import OnnxRuntime
from mapper.inference.parity import (
    check_parity,
    disagreement,
    read_reference,
    reference_input,
    write_reference,
)
from mapper.inference.runtime import load_runtime
from tests.inference.tiny_models import model_item, tiny_answer, tiny_graph, write_folder

SHAPE = (1, 2, 12, 12)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "tiny"


@pytest.fixture
def image():
    return np.random.default_rng(6).normal(size=SHAPE).astype(np.float32)


def with_reference(folder, image=None, output=None, *, tolerance=None, content=None, **options):
    """The card of a model folder with a reference."""
    fields = {k: v for k, v in options.items() if k.startswith("mapper")}
    dtype = options.get("dtype", TensorProto.FLOAT)
    validity = options.get("validity", False)
    item = model_item(validity=validity, **fields)
    item["assets"]["reference"] = {"href": "./reference.npz", "roles": ["mapper:reference"]}
    if tolerance is not None:
        item["assets"]["model"]["mapper:tolerance"] = tolerance
    if "precision" in options:
        item["assets"]["model"]["mapper:precision"] = options["precision"]
    write_folder(folder, item, tiny_graph(dtype=dtype, validity=validity))
    if content is not None:
        (folder / "reference.npz").write_bytes(content)
    elif image is not None:
        valid = options.get("valid", np.ones_like(image))
        output = tiny_answer(image) if output is None else output
        write_reference(folder / "reference.npz", image, valid, output)
    return load_card(str(folder))


def off(image, share):
    """The right output with one value off by a share of its range."""
    output = tiny_answer(image)
    # neither the least nor the largest, so that the range stays
    place = np.unravel_index(np.argsort(output, axis=None)[output.size // 2], output.shape)
    output[place] += share * np.ptp(output)
    return output


# figures -----------------------------------------------------------------------------------


def test_a_model_that_gives_its_reference_is_loaded(folder, image, caplog):
    card = with_reference(folder, image)
    assert load_runtime(card, 1).run(image, image).shape == (1, 3, 12, 12)
    assert not caplog.records


@pytest.mark.parametrize("share", [0.001, 0.25])
def test_a_model_that_is_off_its_reference_is_refused_with_the_figure(folder, image, share):
    card = with_reference(folder, image, off(image, share))
    said = rf"model\.onnx \(float32\) is off its reference output by {share} \(relative; "
    with pytest.raises(ModelError, match=said + r"its card allows 0\.0001\)"):
        load_runtime(card, 1)


def test_a_refused_model_is_refused_again(folder, image):
    card = with_reference(folder, image, off(image, 0.5))
    for _ in range(2):
        with pytest.raises(ModelError, match="off its reference"):
            load_runtime(card, 1)


@pytest.mark.parametrize(
    ("share", "limit", "refused"), [(0.01, 0.009, True), (0.01, 0.011, False), (0.5, 1, False)]
)
def test_each_card_says_how_far_off_is_too_far(folder, image, share, limit, refused):
    card = with_reference(folder, image, off(image, share), tolerance={"relative": limit})
    runtime = OnnxRuntime(card, 1)
    if refused:
        with pytest.raises(ModelError, match=f"relative; its card allows {limit}"):
            check_parity(card, runtime)
    else:
        check_parity(card, runtime)


@pytest.mark.parametrize(("limit", "refused"), [(0.04, True), (0.06, False)])
def test_a_tolerance_may_be_a_share_of_changed_labels(folder, image, limit, refused):
    output = tiny_answer(image)
    labels = output.argmax(axis=1)[0]
    # 7 of 144 pixels get another label
    for row in range(7):
        output[0, (labels[row, 3] + 1) % 3, row, 3] = output.max() + 1
    card = with_reference(folder, image, output, tolerance={"changed": limit})
    runtime = OnnxRuntime(card, 1)
    found = disagreement(card, runtime.run(image, image), output.astype(np.float32))
    assert found["changed"] == 7 / 144
    if refused:
        with pytest.raises(ModelError, match=r"by 0\.0486 \(changed; its card allows 0\.04\)"):
            check_parity(card, runtime)
    else:
        check_parity(card, runtime)


def test_every_tolerance_of_a_card_holds(folder, image):
    output = off(image, 0.5)
    both = {"changed": 1.0, "relative": 0.01}
    for tolerance in (both, dict(reversed(both.items()))):
        card = with_reference(folder, image, output, tolerance=tolerance)
        with pytest.raises(ModelError, match="relative"):
            check_parity(card, OnnxRuntime(card, 1))


def test_an_unknown_tolerance_is_refused_with_those_there_are(folder, image):
    card = with_reference(folder, image, tolerance={"absolute": 1})
    said = "'absolute' is not known for classes; use relative, changed"
    with pytest.raises(ModelError, match=said):
        load_runtime(card, 1)


def test_a_tolerance_that_is_nan_allows_nothing(folder, image):
    card = with_reference(folder, image, tolerance={"relative": float("nan")})
    with pytest.raises(ModelError, match="off its reference"):
        load_runtime(card, 1)


def test_half_precision_is_held_to_labels_and_not_to_values(folder, image):
    options = {"dtype": TensorProto.FLOAT16, "precision": "float16"}
    card = with_reference(folder, image, **options)
    check_parity(card, OnnxRuntime(card, 1))
    card = with_reference(folder, image, -tiny_answer(image), **options)
    with pytest.raises(ModelError, match=r"\(float16\) is off.*changed; its card allows 0\.02"):
        check_parity(card, OnnxRuntime(card, 1))


def test_values_of_less_precision_are_held_to_something(folder, image):
    options = {"mapper_head": "values", "mapper_activation": "none", "precision": "float16"}
    card = with_reference(folder, image, tiny_answer(image) * 3 + 1, **options)
    with pytest.raises(ModelError, match="off its reference"):
        load_runtime(card, 1)


@pytest.mark.parametrize(
    ("head", "activation", "raw", "reference", "changed"),
    [
        ("classes", "softmax", [1, 2, 3], [3, 2, 1], 1),
        ("classes", "softmax", [1, 2, 3], [-1, 0, 9], 0),
        ("labels", "sigmoid", [1, -2, 3], [1, 2, 3], 1 / 3),
        ("labels", "none", [0.4, 0.6, 0.9], [0.6, 0.6, 0.9], 1 / 3),
        ("labels", "none", [0.4, 0.6, 0.9], [0.1, 0.9, 0.9], 0),
    ],
)
def test_labels_change_by_what_the_head_says(folder, head, activation, raw, reference, changed):
    card = with_reference(folder, mapper_head=head, mapper_activation=activation)
    one, other = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (raw, reference))
    assert disagreement(card, one, other)["changed"] == pytest.approx(changed)


def test_disagreement_is_relative_to_the_range_of_the_reference(folder):
    card = with_reference(folder)
    reference = np.array([-10, 0, 30], np.float32).reshape(1, 3, 1, 1)
    assert disagreement(card, reference + 4, reference)["relative"] == pytest.approx(0.1)
    flat = np.full((1, 3, 1, 1), 7, np.float32)
    assert disagreement(card, flat + 0.25, flat)["relative"] == pytest.approx(0.25)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_output_that_is_no_number_is_refused(folder, image, value):
    broken = image.copy()
    broken[0, 0, 3, 3] = value
    card = with_reference(folder, broken, tiny_answer(image), tolerance={"changed": 1})
    with pytest.raises(ModelError, match="yields NaN"):
        load_runtime(card, 1)


def test_a_reference_that_is_no_number_is_refused(folder, image):
    output = tiny_answer(image)
    output[0, 0, 0, 0] = np.nan
    with pytest.raises(ModelError, match="off its reference"):
        load_runtime(with_reference(folder, image, output), 1)


def test_validity_is_part_of_the_reference(folder, image):
    valid = np.random.default_rng(0).integers(0, 2, SHAPE).astype(np.float32)
    output = tiny_answer(image * valid)
    card = with_reference(folder, image, output, validity=True, valid=valid)
    check_parity(card, OnnxRuntime(card, 1))
    card = with_reference(folder, image, output, validity=True)
    with pytest.raises(ModelError, match="off its reference"):
        check_parity(card, OnnxRuntime(card, 1))


# what is not there, or damaged -------------------------------------------------------------


def test_without_a_reference_there_is_a_warning_and_no_more(folder, caplog):
    card = load_card(str(write_folder(folder, model_item(), tiny_graph())))
    with caplog.at_level(logging.WARNING):
        load_runtime(card, 1)
        load_runtime(card, 1)
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "no reference output" in caplog.text
    assert "mapper model check --write" in caplog.text


def test_a_reference_that_is_promised_and_missing_is_refused(folder):
    with pytest.raises(ModelError, match=r"reference\.npz cannot be read"):
        load_runtime(with_reference(folder), 1)


def good_bytes(folder, image) -> bytes:
    path = folder.parent / "good.npz"
    write_reference(path, image, np.ones_like(image), tiny_answer(image))
    return path.read_bytes()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_cut_off_reference_is_refused(folder, image, share):
    content = good_bytes(folder, image)
    card = with_reference(folder, content=content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="cannot be read"):
        load_runtime(card, 1)


def test_a_reference_that_was_refused_is_closed(folder, image):
    card = with_reference(folder, content=good_bytes(folder, image)[:1000])
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with contextlib.suppress(ModelError):
            read_reference(card)
        gc.collect()
    assert not [w.message for w in seen if issubclass(w.category, ResourceWarning)]


def test_an_empty_reference_is_refused(folder):
    with pytest.raises(ModelError, match="cannot be read"):
        load_runtime(with_reference(folder, content=b""), 1)


@pytest.mark.parametrize("place", range(200, 3200, 400))
def test_a_reference_with_a_damaged_byte_is_refused(folder, image, place):
    content = bytearray(good_bytes(folder, image))
    content[place] ^= 0x5A
    with pytest.raises(ModelError, match="cannot be read"):
        load_runtime(with_reference(folder, content=bytes(content)), 1)


@pytest.mark.parametrize(
    ("record", "place"),
    [(b"PK\x03\x04", 29), (b"PK\x01\x02", 6), (b"PK\x01\x02", 10)],
    ids=["where an array begins", "version", "compression"],
)
def test_a_reference_with_a_damaged_header_is_refused(folder, image, record, place):
    content = bytearray(good_bytes(folder, image))
    content[content.index(record) + place] ^= 0xFF
    with pytest.raises(ModelError, match="cannot be read"):
        load_runtime(with_reference(folder, content=bytes(content)), 1)


def test_a_damaged_reference_that_was_compressed_is_refused(folder, image, tmp_path):
    path = tmp_path / "packed.npz"
    np.savez_compressed(path, image=image, output=tiny_answer(image))
    content = bytearray(path.read_bytes())
    # the first byte of the packed array: a kind of block that there is none of
    content[content.index(b"image.npy") + len("image.npy") + 20] |= 0b110
    with pytest.raises(ModelError, match="cannot be read"):
        load_runtime(with_reference(folder, content=bytes(content)), 1)


def test_a_reference_of_one_lone_array_is_refused(folder, image, tmp_path):
    np.save(tmp_path / "lone.npy", image)
    card = with_reference(folder, content=(tmp_path / "lone.npy").read_bytes())
    with pytest.raises(ModelError, match="cannot be read"):
        load_runtime(card, 1)


class Trap:
    """Does something when it is unpickled."""

    sprung = False

    def __reduce__(self):
        return _spring, ()


def _spring():
    Trap.sprung = True
    return 0


def test_a_pickled_reference_is_refused_and_not_run(folder, image, tmp_path):
    trap = np.array([Trap()], dtype=object)
    np.savez(tmp_path / "trap.npz", image=trap, output=trap)
    card = with_reference(folder, content=(tmp_path / "trap.npz").read_bytes())
    with pytest.raises(ModelError, match="cannot be read"):
        load_runtime(card, 1)
    assert not Trap.sprung


def test_a_bare_pickle_is_refused_and_not_run(folder):
    import pickle

    card = with_reference(folder, content=pickle.dumps(Trap()))
    with pytest.raises(ModelError, match="cannot be read"):
        load_runtime(card, 1)
    assert not Trap.sprung


@pytest.mark.parametrize("missing", ["image", "output"])
def test_a_reference_without_an_array_is_refused(folder, image, tmp_path, missing):
    arrays = {"image": image, "output": tiny_answer(image)}
    del arrays[missing]
    np.savez(tmp_path / "part.npz", **arrays)
    card = with_reference(folder, content=(tmp_path / "part.npz").read_bytes())
    with pytest.raises(ModelError, match=missing):
        load_runtime(card, 1)


def test_a_reference_may_lack_validity(folder, image, tmp_path):
    np.savez(tmp_path / "plain.npz", image=image, output=tiny_answer(image))
    card = with_reference(folder, content=(tmp_path / "plain.npz").read_bytes(), validity=True)
    load_runtime(card, 1)
    assert (read_reference(card)[1] == 1).all()


@pytest.mark.parametrize("shape", [(1, 3, 12, 12), (2, 12, 12), (1, 1, 2, 12, 12)])
def test_a_reference_of_other_bands_is_refused(folder, shape):
    image = np.zeros(shape, np.float32)
    with pytest.raises(ModelError, match="it needs 2 bands"):
        load_runtime(with_reference(folder, image, np.zeros((1, 3, 12, 12))), 1)


@pytest.mark.parametrize("shape", [(1, 2, 12, 12), (1, 3, 11, 12), (2, 3, 12, 12)])
def test_a_reference_output_of_another_shape_is_refused(folder, image, shape):
    with pytest.raises(ModelError, match="for its reference input"):
        load_runtime(with_reference(folder, image, np.zeros(shape)), 1)


def test_a_reference_without_a_window_is_refused(folder):
    image = np.zeros((0, 2, 12, 12), np.float32)
    with pytest.raises(ModelError):
        load_runtime(with_reference(folder, image, np.zeros((0, 3, 12, 12))), 1)


def test_a_card_without_a_reference_has_none_to_read(folder):
    card = replace(with_reference(folder), reference=None)
    with pytest.raises(ModelError, match="no reference"):
        read_reference(card)


# writing -----------------------------------------------------------------------------------


def test_the_same_arrays_give_the_same_bytes(tmp_path, image, monkeypatch):
    one, other = tmp_path / "one.npz", tmp_path / "other.npz"
    write_reference(one, image, np.ones_like(image), tiny_answer(image))
    later = time.time() + 10**7
    monkeypatch.setattr(time, "time", lambda: later)
    write_reference(other, image, np.ones_like(image), tiny_answer(image))
    assert one.read_bytes() == other.read_bytes()
    write_reference(other, image + 1, np.ones_like(image), tiny_answer(image))
    assert one.read_bytes() != other.read_bytes()


def test_what_was_written_is_read(folder, image):
    valid = (image > 0).astype(np.float32)
    card = with_reference(folder, image, image.astype(float)[:, [0, 1, 1]], valid=valid)
    for found, wanted in zip(
        read_reference(card), (image, valid, image[:, [0, 1, 1]]), strict=True
    ):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("side", [8, 33, 64])
def test_the_input_of_a_reference_is_the_same_every_time_and_has_a_hole(folder, side):
    card = with_reference(folder, mapper_fill=-3)
    image, valid = reference_input(len(card.bands), card.fill, side)
    again = reference_input(len(card.bands), card.fill, side)
    np.testing.assert_array_equal(image, again[0])
    np.testing.assert_array_equal(valid, again[1])
    assert image.shape == valid.shape == (1, 2, side, side)
    assert image.dtype == valid.dtype == np.float32
    assert 0 < (valid == 0).mean() < 0.1
    assert (image[valid == 0] == -3).all()
    assert 0.5 < image[valid == 1].std() < 2
    assert np.abs(image[0, 0] - image[0, 1]).max() > 0.1


def test_a_reference_that_is_written_by_a_model_holds_it(folder):
    card = with_reference(folder)
    image, valid = reference_input(len(card.bands), card.fill, 24)
    write_reference(card.reference, image, valid, OnnxRuntime(card, 1).run(image, valid))
    check_parity(card, OnnxRuntime(card, 1))
    item = json.loads((folder / "item.json").read_text())
    item["assets"]["model"]["mapper:tolerance"] = {"relative": 0, "changed": 0}
    (folder / "item.json").write_text(json.dumps(item))
    load_runtime(load_card(str(folder)), 1)
