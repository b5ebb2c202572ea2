"""A TorchScript model runs through the same interface as an ONNX one, where it is trusted."""

import json
import warnings

import numpy as np
import pytest

from mapper.area.grid import PixelBox
from mapper.errors import ModelError
from mapper.inference.card import load_card
from mapper.inference.plan import plan_inference
from mapper.inference.predict import Engine, predict_box
from mapper.inference.runtime import load_runtime
from mapper.recipe import Predict

torch = pytest.importorskip("torch")
BOX = PixelBox(row0=0, col0=0, row1=100, col1=130)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A 3 x 3 convolution with two bands and three classes, as TorchScript."""
    folder = tmp_path_factory.mktemp("script")
    torch.manual_seed(5)
    network = torch.nn.Conv2d(2, 3, 3, padding=1).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.zeros(1, 2, 16, 16)).save(str(folder / "model.pt"))
    classes = [{"value": i, "name": f"c{i}", "color_hint": f"{i}08040"} for i in range(3)]
    properties = {
        "mlm:name": "script",
        "mlm:input": [{"name": "image", "bands": ["s2:red", "s2:nir"]}],
        "mlm:output": [{"name": "logits", "classification:classes": classes}],
        "mapper:receptive_field": 3,
    }
    asset = {"href": "./model.pt", "roles": ["mlm:model"]}
    item = {"id": "script", "properties": properties, "assets": {"model": asset}}
    (folder / "item.json").write_text(json.dumps(item))
    return folder, network


@pytest.fixture(scope="module")
def field():
    return np.random.default_rng(2).normal(0, 1, (2, 140, 170)).astype(np.float32)


def read_from(field):
    def read(box):
        rows = np.clip(np.arange(box.row0, box.row1) + 20, 0, 139)
        cols = np.clip(np.arange(box.col0, box.col1) + 20, 0, 169)
        image = field[:, rows[:, None], cols]
        return image, np.ones(image.shape, dtype=bool)

    return read


def test_it_needs_trust(folder):
    with pytest.raises(ModelError, match="--trust-model"):
        load_runtime(load_card(str(folder[0])), 1)


def test_a_cut_off_module_is_refused(folder, tmp_path):
    (tmp_path / "item.json").write_text((folder[0] / "item.json").read_text())
    content = (folder[0] / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cut off"):
        load_runtime(load_card(str(tmp_path)), 1, trust=True)


@pytest.mark.parametrize("batch", [4, 5])
def test_labels_are_those_of_the_network_itself(folder, field, batch):
    card = load_card(str(folder[0]))
    runtime = load_runtime(card, 1, trust=True)
    assert runtime.fixed_batch
    plan = plan_inference(card, runtime, Predict(size=34, stride=32, batch=batch))
    labels = predict_box(Engine(card, plan, runtime), read_from(field), BOX)
    with torch.inference_mode():
        whole = folder[1](torch.from_numpy(field)[None])[0, :, 20:120, 20:150].numpy()
    order = np.sort(whole, axis=0)
    clear = order[-1] - order[-2] > 1e-4
    np.testing.assert_array_equal(labels.classes[clear], whole.argmax(0)[clear])


def test_batch_and_threads_are_part_of_its_plan(folder):
    card = load_card(str(folder[0]))
    runtime = load_runtime(card, 1, trust=True)
    digests = {
        plan_inference(card, runtime, Predict(size=34, stride=32, batch=b, threads=t)).digest
        for b in (2, 3)
        for t in (1, 2)
    }
    assert len(digests) == 4
