"""Files of a model folder: which form each one is, which one is run, and whom to trust."""

import hashlib
import json
import shutil
import zipfile

import numpy as np
import pytest

from mapper.errors import ModelError
from mapper.inference import artifact as module
from mapper.inference.artifact import (
    PRECISIONS,
    artifacts_of,
    check_trust,
    file_of,
    remember_export,
)
from mapper.inference.card import load_card
from mapper.inference.parity import tolerance_of
from mapper.inference.runtime import load_runtime
from tests.inference.tiny_models import model_item, tiny_graph


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Where exports are remembered, empty for each test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny").mkdir()
    return tmp_path / "tiny"


def asset(href="./model.onnx", **fields):
    named = {
        f"mapper:{k}" if k[:4] != "file" else k.replace("_", ":"): v for k, v in fields.items()
    }
    return {"href": href, "roles": ["mlm:model"], **named}


def only(folder, **fields):
    """The one artifact of an item with one asset."""
    (found,) = artifacts_of({"id": "tiny", "assets": {"model": asset(**fields)}}, folder)
    return found


def write(folder, assets, contents):
    """A folder with several assets; files by name."""
    item = {**model_item(), "assets": assets}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    (folder / "item.json").write_text(json.dumps(item))
    return str(folder)


# forms -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form"),
    [("model.onnx", "onnx"), ("model.pt", "torchscript"), ("a/model.v2.ts", "torchscript")],
)
def test_the_suffix_tells_the_form(folder, name, form):
    found = only(folder, href=name)
    assert (found.name, found.form) == ("model", form)
    assert found.path == folder / name


@pytest.mark.parametrize(
    ("inside", "form"),
    [
        ("model/models/model.json", "torch-export"),
        ("model/data/aotinductor/model/code.so", "aotinductor"),
        ("model/data/weights/aotinductor.txt", "torch-export"),
    ],
)
def test_what_is_in_a_pt2_archive_tells_its_form(folder, inside, form):
    with zipfile.ZipFile(folder / "model.pt2", "w") as archive:
        archive.writestr(inside, b"")
    assert only(folder, href="model.pt2").form == form


@pytest.mark.parametrize("content", [None, b"", b"PK", b"no archive"])
def test_a_pt2_file_that_is_no_archive_is_refused_when_it_is_read(folder, content):
    if content is not None:
        (folder / "model.pt2").write_bytes(content)
    assert only(folder, href="model.pt2").form == "torch-export"


@pytest.mark.parametrize("name", ["model.pkl", "model", "model.onnx.zip", "onnx"])
def test_other_files_are_no_models(folder, name):
    with pytest.raises(ModelError, match="neither"):
        only(folder, href=name)


def test_only_assets_with_the_role_are_models(folder):
    assets = {"weights": asset(), "thumb": {"href": "a.png"}, "note": {"href": "b", "roles": []}}
    found = artifacts_of({"id": "tiny", "assets": assets}, folder)
    assert [a.name for a in found] == ["weights"]
    with pytest.raises(ModelError, match="no asset with the role mlm:model"):
        artifacts_of({"id": "tiny", "assets": {"thumb": {"href": "a.png"}}}, folder)


# shapes, precisions, tolerances ------------------------------------------------------------


@pytest.mark.parametrize("shape", [[4, 512], [None, 512], [4, None], [None, None]])
def test_a_shape_is_batch_and_side(folder, shape):
    assert only(folder, shape=shape).shape == tuple(shape)


def test_without_a_shape_any_will_do(folder):
    assert only(folder).shape == (None, None)


@pytest.mark.parametrize("shape", [[0, 512], [4, -1], [4, 0.5], ["4", 512]])
def test_shapes_that_cannot_be_are_refused(folder, shape):
    with pytest.raises(ModelError, match="give batch and side"):
        only(folder, shape=shape)


@pytest.mark.parametrize("shape", [[4], [4, 512, 512], 512, "all", {"batch": 4}])
def test_shapes_that_are_no_pair_are_refused(folder, shape):
    write(folder, {"model": asset(shape=shape)}, {"model.onnx": tiny_graph()})
    with pytest.raises(ModelError):
        load_card(str(folder))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions_are_known_by_name(folder, precision):
    write(folder, {"model": asset(precision=precision)}, {"model.onnx": tiny_graph()})
    card = load_card(str(folder))
    assert card.artifact.precision == precision
    expected = {"relative": 1e-4} if precision == "float32" else {"changed": 0.02}
    assert tolerance_of(card) == expected


@pytest.mark.parametrize("precision", ["float64", "FP16", "", None, 16])
def test_other_precisions_are_refused_with_those_there_are(folder, precision):
    with pytest.raises(ModelError, match="use one of float32, float16, bfloat16, int8"):
        only(folder, precision=precision)


def test_tolerance_and_what_was_measured_come_from_the_asset(folder):
    found = only(folder, precision="int8", tolerance={"changed": 0.1}, disagreement={"changed": 0})
    assert (found.tolerance, found.disagreement) == ({"changed": 0.1}, {"changed": 0})


@pytest.mark.parametrize("limit", ["small", None, [1]])
def test_a_tolerance_that_is_no_number_is_refused(folder, limit):
    from mapper.inference.parity import write_reference

    image = np.ones((1, 2, 4, 4), np.float32)
    write_reference(folder / "reference.npz", image, image, np.ones((1, 3, 4, 4), np.float32))
    assets = {
        "model": asset(tolerance={"relative": limit}),
        "reference": {"href": "reference.npz", "roles": ["mapper:reference"]},
    }
    write(folder, assets, {"model.onnx": tiny_graph()})
    with pytest.raises(ModelError):
        load_runtime(load_card(str(folder)), 1)


# one folder, several forms -----------------------------------------------------------------


@pytest.fixture
def several(folder):
    graphs = {"model.onnx": tiny_graph(seed=1), "small.onnx": tiny_graph(seed=2)}
    assets = {
        "model": asset(),
        "model-int8": asset("small.onnx", precision="int8"),
        "model-torch": asset("model.pt"),
    }
    return write(folder, assets, {**graphs, "model.pt": b"code"})


def test_the_first_form_is_run_unless_another_is_named(several):
    card = load_card(several)
    assert [a.name for a in card.artifacts] == ["model", "model-int8", "model-torch"]
    assert (card.artifact.name, card.form) == ("model", "onnx")
    for name, form, precision in [
        ("model-int8", "onnx", "int8"),
        ("model-torch", "torchscript", "float32"),
    ]:
        other = load_card(several, name)
        assert (other.artifact.name, other.form) == (name, form)
        assert other.artifact.precision == precision
        assert other.sha256 == hashlib.sha256(other.artifact.path.read_bytes()).hexdigest()


def test_each_form_is_a_model_of_its_own(several):
    card, small = load_card(several), load_card(several, "model-int8")
    assert card.digest != small.digest
    assert load_runtime(card, 1) is not load_runtime(small, 1)
    image = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)
    one, other = (load_runtime(c, 1).run(image, image) for c in (card, small))
    assert np.abs(one - other).max() > 0.1


@pytest.mark.parametrize("form", ["onnx", "", "model-int4"])
def test_a_form_that_is_not_there_is_refused_with_those_that_are(several, form):
    with pytest.raises(ModelError, match="holds model, model-int8, model-torch"):
        load_card(several, form)


def test_only_the_form_that_is_run_has_to_be_there(several, folder):
    (folder / "small.onnx").unlink()
    assert load_card(several).artifact.name == "model"
    with pytest.raises(ModelError, match=r"small\.onnx cannot be read"):
        load_card(several, "model-int8")


def test_size_and_checksum_are_those_of_each_form(folder):
    first, second = tiny_graph(seed=1), tiny_graph(seed=2)
    checksum = f"1220{hashlib.sha256(second).hexdigest()}"
    assets = {
        "model": asset(file_size=len(first)),
        "other": asset("other.onnx", file_size=len(second), file_checksum=checksum),
    }
    write(folder, assets, {"model.onnx": first, "other.onnx": second})
    assert load_card(str(folder), "other").artifact.verified() == checksum[4:]
    (folder / "other.onnx").write_bytes(first)
    assert load_card(str(folder)).artifact.name == "model"
    with pytest.raises(ModelError, match="not the one that its card describes"):
        load_card(str(folder), "other")


@pytest.mark.parametrize("href", ["../tiny.onnx", "/tmp/model.onnx", "a/../../model.onnx", "."])
def test_every_file_lies_in_the_folder(folder, href):
    with pytest.raises(ModelError, match="outside the folder"):
        file_of({"href": href}, folder)
    assets = {"model": asset(), "other": asset(href)}
    write(folder, assets, {"model.onnx": tiny_graph()})
    with pytest.raises(ModelError, match="outside the folder"):
        load_card(str(folder))


def test_a_reference_lies_in_the_folder_too(folder):
    assets = {"model": asset(), "r": {"href": "../r.npz", "roles": ["mapper:reference"]}}
    write(folder, assets, {"model.onnx": tiny_graph()})
    with pytest.raises(ModelError, match="outside the folder"):
        load_card(str(folder))


# trust -------------------------------------------------------------------------------------

CODE = ["model.pt", "model.ts", "model.pt2"]


def card_of(folder, name):
    write(folder, {"model": asset(name)}, {name: tiny_graph() if name == "model.onnx" else b"code"})
    return load_card(str(folder))


def test_a_graph_needs_no_trust(folder):
    card = card_of(folder, "model.onnx")
    check_trust(card.artifact, card.sha256, trust=False)


@pytest.mark.parametrize("name", CODE)
def test_code_needs_trust(folder, name):
    card = card_of(folder, name)
    with pytest.raises(ModelError, match=r"which is code.*--trust-model"):
        check_trust(card.artifact, card.sha256, trust=False)
    check_trust(card.artifact, card.sha256, trust=True)


@pytest.mark.parametrize("name", CODE)
def test_code_that_was_exported_here_runs(folder, state, name):
    card = card_of(folder, name)
    remember_export("0" * 64)
    remember_export(card.sha256)
    remember_export("1" * 64)
    check_trust(card.artifact, card.sha256, trust=False)
    assert (state / "mapper" / "exported-models").read_text().count("\n") == 3


def test_what_was_exported_here_and_changed_since_needs_trust(folder):
    card = card_of(folder, "model.pt")
    remember_export(card.sha256)
    (folder / "model.pt").write_bytes(b"other code")
    changed = load_card(str(folder))
    with pytest.raises(ModelError, match="--trust-model"):
        check_trust(changed.artifact, changed.sha256, trust=False)


def test_a_copy_of_what_was_exported_here_runs(folder, tmp_path):
    remember_export(card_of(folder, "model.pt").sha256)
    shutil.copytree(folder, tmp_path / "copy")
    copy = load_card(str(tmp_path / "copy"))
    check_trust(copy.artifact, copy.sha256, trust=False)


def test_what_another_user_exported_needs_trust(folder, tmp_path, monkeypatch):
    card = card_of(folder, "model.pt")
    remember_export(card.sha256)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    with pytest.raises(ModelError, match="--trust-model"):
        check_trust(card.artifact, card.sha256, trust=False)


def test_without_a_state_folder_the_home_folder_is_used(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    card = card_of(folder, "model.pt")
    remember_export(card.sha256)
    check_trust(card.artifact, card.sha256, trust=False)
    assert (tmp_path / "home/.local/state/mapper/exported-models").is_file()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"not a checksum\n"])
def test_a_damaged_list_of_exports_trusts_nothing(folder, state, content):
    card = card_of(folder, "model.pt")
    (state / "mapper").mkdir(parents=True)
    (state / "mapper" / "exported-models").write_bytes(content)
    with pytest.raises(ModelError, match="--trust-model"):
        check_trust(card.artifact, card.sha256, trust=False)


@pytest.mark.parametrize("name", CODE)
def test_code_that_was_shipped_runs(folder, monkeypatch, name):
    card = card_of(folder, name)
    monkeypatch.setattr(module, "data_directory", lambda kind: folder.parent / kind)
    with pytest.raises(ModelError, match="--trust-model"):
        check_trust(card.artifact, card.sha256, trust=False)
    monkeypatch.setattr(module, "data_directory", lambda kind: folder.parent)
    check_trust(card.artifact, card.sha256, trust=False)


def test_a_folder_beside_the_shipped_ones_is_not_shipped(folder, monkeypatch):
    card = card_of(folder, "model.pt")
    shipped = folder.parent / "tin"
    monkeypatch.setattr(module, "data_directory", lambda kind: shipped)
    with pytest.raises(ModelError, match="--trust-model"):
        check_trust(card.artifact, card.sha256, trust=False)


def test_code_without_trust_is_not_even_loaded(folder):
    card = card_of(folder, "model.pt")
    for _ in range(2):
        with pytest.raises(ModelError, match="--trust-model"):
            load_runtime(card, 1)
    # with trust the file is read, and it is no module
    with pytest.raises(ModelError, match="no torchscript that can be loaded"):
        load_runtime(card, 1, trust=True)
