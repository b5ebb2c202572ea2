"""Checkpoints and graphs from elsewhere: what is taken, what is refused, what is kept."""

import hashlib
import http.server
import json
import os
import sys
import threading
import types
from contextlib import contextmanager

import numpy as np
import onnx
import pytest
import requests
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from mapper.errors import ModelError, ReadError, RecipeError, UsageError
from mapper.inference.card import load_card, user_models
from mapper.inference.folder import Opening, check_forms
from mapper.simulate import serve_files
from mapper.training import fetch
from mapper.training.adopt import AdoptOptions, adopt_model
from mapper.training.fetch import fetch_file
from mapper.training.foreign import kind_of, read_weights
from mapper.training.keymaps import key_map
from mapper.training.networks.gum import GlobalUrbanMapper
from mapper.training.networks.unet import UNet
from mapper.training.transfer import to_published

BANDS = ["sentinel2:red", "sentinel2:nir", "elevation:slope"]
CLASSES = [
    {"value": 0, "name": "other", "color": "AAAAAA"},
    {"value": 1, "name": "urban", "color": "CC0000"},
]
TINY = {"width": 4, "stages": 3, "head": 4}
TOKEN = "s3cr3t-t0k3n"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "data" / "mapper" / "models"


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def card(tmp_path):
    """Writes the YAML of a model."""

    def write(**changes):
        content = {
            "name": "urban-test",
            "title": "Urban of a test",
            "license": "MIT",
            "bands": BANDS,
            "classes": CLASSES,
            "window": {"size": 64, "mode": "core"},
            "limits": ["anything but tests"],
        }
        path = tmp_path / "model.yaml"
        kept = {k: v for k, v in (content | changes).items() if v is not None}
        path.write_text(yaml.safe_dump(kept))
        return path

    return write


@pytest.fixture
def gum():
    torch.manual_seed(4)
    return GlobalUrbanMapper(3, 2, **TINY).eval()


@pytest.fixture
def checkpoint(tmp_path, gum):
    """As mmsegmentation writes it, with a score of numpy's beside the weights."""
    published = to_published(key_map("mmseg-unet-psp"), gum)
    state = {f"module.{name}": tensor for name, tensor in published.items()}
    state["module.auxiliary_head.conv_seg.bias"] = torch.ones(2)
    path = tmp_path / "files" / "stage2.pth"
    path.parent.mkdir()
    stored = {"meta": {"epoch": 50}, "state_dict": state, "best": np.float64(0.7)}
    torch.save(stored, path)
    return path


def gum_yaml(**changes):
    return {"network": {"name": "gum", "options": TINY}, **changes}


def adopt(source, card, **options):
    return adopt_model(AdoptOptions(source=str(source), card=card, field_limit=96, **options))


def refused(source, card, match, error=ModelError, **options):
    with pytest.raises(error, match=match):
        adopt(source, card, **options)


def test_checkpoint_from_a_server(tmp_path, home, checkpoint, gum, card):
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    told = []
    with serve_files(checkpoint.parent, fail_first=1) as address:
        source = address.replace("://", "://someone:pass@") + f"/stage2.pth?token={TOKEN}"
        path = card(**gum_yaml(sha256=sha256.upper(), temperature=1.5))
        options = AdoptOptions(source=source, card=path)
        found = adopt_model(options, lambda event: told.append(event.message))
    assert (found.name, found.layout, found.kind) == ("urban-test", "mmseg-unet-psp", "checkpoint")
    assert found.folder == home / "urban-test"
    assert [p.name for p in home.iterdir()] == ["urban-test"]
    assert user_models() == [home / "urban-test"]
    model = load_card("urban-test")
    assert (model.bands, model.temperature, model.license) == (tuple(BANDS), 1.5, "MIT")
    assert model.global_context
    properties = model.item["properties"]
    assert properties["mapper:origin"] == {
        "href": f"{address}/stage2.pth",
        "sha256": sha256,
        "size": checkpoint.stat().st_size,
        "layout": "mmseg-unet-psp",
    }
    assert properties["mlm:hyperparameters"].keys() == {"network"}
    assert not properties["mapper:training"]
    texts = [
        *told,
        *(p.read_text() for p in found.folder.iterdir() if p.suffix in (".json", ".md")),
    ]
    assert not any(TOKEN in text or "someone" in text for text in texts)
    (form,) = check_forms(model, "all", Opening())
    assert form.state == "ok"
    with np.load(model.reference) as reference, torch.inference_mode():
        wanted = gum(torch.from_numpy(reference["image"])).numpy()
        np.testing.assert_allclose(reference["output"], wanted, atol=1e-5)


def test_safetensors_of_our_own_names_and_a_measured_field(tmp_path, card):
    torch.manual_seed(1)
    network = UNet(3, 2, width=4, depth=2)
    save_file(network.state_dict(), tmp_path / "unet.safetensors")
    unet = {"name": "unet", "options": {"width": 4, "depth": 2}}
    cited = {"href": f"https://me:pw@example.org/unet?key={TOKEN}#x", "citation": "doi 10.1/x"}
    path = card(network=unet, layout="mapper", source=cited)
    found = adopt(tmp_path / "unet.safetensors", path, out=tmp_path / "out", name="other-name")
    assert (found.name, found.kind, found.folder) == ("other-name", "safetensors", tmp_path / "out")
    assert 10 < found.receptive_field < 64
    assert not found.global_context
    origin = load_card(str(found.folder)).item["properties"]["mapper:origin"]
    assert (origin["href"], origin["citation"]) == ("https://example.org/unet", "doi 10.1/x")


def test_wrappers_and_teachers_are_seen_through(tmp_path, gum):
    published = to_published(key_map("mmseg-unet-psp"), gum)
    state = {f"model.{n}": t for n, t in published.items()}
    state |= {f"{teacher}.x": torch.ones(1) for teacher in ("ema_model", "imnet_model")}
    torch.save({"model": state}, tmp_path / "uda.ckpt", _use_new_zipfile_serialization=False)
    assert kind_of(tmp_path / "uda.ckpt", "it") == "checkpoint"
    assert read_weights(tmp_path / "uda.ckpt", "checkpoint", "it").keys() == published.keys()


def test_histories_of_mmengine_are_passed_over(tmp_path, gum, monkeypatch):
    name = "mmengine.logging.history_buffer"
    for part in ("mmengine", "mmengine.logging", name):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))

    class HistoryBuffer:
        def __init__(self):
            self.values = np.arange(3.0)

        def __setstate__(self, state):
            raise AssertionError("the class of the file was made")

    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = name, "HistoryBuffer"
    sys.modules[name].HistoryBuffer = HistoryBuffer
    state = to_published(key_map("mmseg-unet-psp"), gum)
    history = {"log_scalars": {"loss": HistoryBuffer()}}
    torch.save({"state_dict": state, "message_hub": history}, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth", "checkpoint", "it").keys() == state.keys()


class Evil:
    """Makes a file where its pickle is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_runs_code_is_refused(tmp_path, home, card, gum, new):
    stored = {"state_dict": gum.state_dict(), "extra": Evil(tmp_path / "made")}
    torch.save(stored, tmp_path / "evil.pth", _use_new_zipfile_serialization=new)
    refused(tmp_path / "evil.pth", card(**gum_yaml()), r"would run \w+\.mkdir.*safetensors")
    assert not (tmp_path / "made").exists()
    assert not list(home.iterdir())
    # the file does what it says where it is read without care
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "made").is_dir()


def test_whole_networks_are_refused(tmp_path, card):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    refused(tmp_path / "whole.pth", card(**gum_yaml()), "would run torch.nn.modules.linear.Linear")


def test_a_hash_that_is_another_stops_before_anything_is_read(tmp_path, home, card):
    torch.save(Evil(tmp_path / "made"), tmp_path / "evil.pth")
    refused(tmp_path / "evil.pth", card(**gum_yaml(sha256="0" * 64)), "it was not read")
    assert not list(home.iterdir())


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"<!DOCTYPE html><title>log in</title>", "web page"),
        (b"PK\x03\x04 and no more", "cut off: fetch it again"),
        (b"\x80\x02garbage", r"no checkpoint of weights that can be read \(Unsupported operand"),
        (b"plain words", "export the network as ONNX"),
        (b"\x08\x07" + b"nonsense" * 3, "is onnx, and the YAML has `network`; take it out"),
    ],
)
def test_files_that_are_nothing(tmp_path, card, content, match):
    (tmp_path / "file").write_bytes(content)
    refused(tmp_path / "file", card(**gum_yaml()), match)


def test_weights_that_do_not_fit(tmp_path, card, checkpoint):
    refused(checkpoint, card(), "say in the YAML which takes them")
    refused(checkpoint, card(**gum_yaml(graph={})), "has `graph`; take it out")
    refused(checkpoint, card(**gum_yaml(layout="daformer")), "of the network daformer, not of")
    wide = {"name": "gum", "options": TINY | {"width": 8}}
    refused(checkpoint, card(network=wide), "have another shape")
    strange = {"name": "gum", "options": {"depth": 8}}
    refused(checkpoint, card(network=strange), "gum has width, stages", error=RecipeError)
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    refused(tmp_path / "none.pth", card(**gum_yaml()), r"holds no state dict \(it has epoch\)")
    mit = {"patch_embed1.proj.weight": torch.ones(1), "block1.0.attn.kv.weight": torch.ones(1)}
    torch.save(mit, tmp_path / "mit.pth")
    refused(tmp_path / "mit.pth", card(**gum_yaml()), "backbone of a network, without classes")


def test_names_are_slugs_and_are_there_once(tmp_path, home, card, checkpoint):
    path = card(**gum_yaml())
    for name in ("../up", "a/b", "Big", ".", "-ab", "1ab", "ab"):
        refused(checkpoint, path, "no name of a model", error=UsageError, name=name)
    refused(checkpoint, path, "is a model 'rgb-baseline'", error=UsageError, name="rgb-baseline")
    (home / "mine").mkdir(parents=True)
    (home / "mine" / "item.json").write_text("{}")
    refused(checkpoint, path, "is a model 'mine' already", error=UsageError, name="mine")
    refused(checkpoint, path, "there already; name a folder", error=UsageError, out=home)
    refused(checkpoint, card(**gum_yaml(name="../up")), "name: String should match")


def test_yaml_that_is_wrong(tmp_path, card, checkpoint):
    problems = r"model.yaml: .*extra: unknown key; remove it"
    refused(checkpoint, card(**gum_yaml(extra=1)), problems)
    refused(checkpoint, card(**gum_yaml(scaling=[None, None])), "2 scalings for 3 bands")
    refused(checkpoint, card(**gum_yaml(window={"size": "big"})), r"window: .*give pixels")
    twice = [CLASSES[0], CLASSES[0]]
    refused(checkpoint, card(**gum_yaml(classes=twice)), "two classes share")
    refused(checkpoint, tmp_path / "none.yaml", "cannot be read")
    (tmp_path / "text.yaml").write_text("just words")
    refused(checkpoint, tmp_path / "text.yaml", "model: Input should be")
    (tmp_path / "bad.yaml").write_text("{")
    refused(checkpoint, tmp_path / "bad.yaml", "is no YAML")


def graph(path, names=("x", "y"), kernel=5, classes=2, valid=None):
    """A convolution as an ONNX graph."""
    weights = np.random.default_rng(1).normal(0, 1, (classes, 3, kernel, kernel))
    constant = numpy_helper.from_array(weights.astype(np.float32), "w")
    shape = ["n", 3, "h", "w"]
    inputs = [helper.make_tensor_value_info(names[0], TensorProto.FLOAT, shape)]
    nodes, source = [], names[0]
    if valid:
        inputs.append(helper.make_tensor_value_info(valid, TensorProto.FLOAT, shape))
        nodes, source = [helper.make_node("Mul", [names[0], valid], ["seen"])], "seen"
    pads = [kernel // 2] * 4
    nodes.append(helper.make_node("Conv", [source, "w"], [names[1]], pads=pads))
    output = helper.make_tensor_value_info(names[1], TensorProto.FLOAT, ["n", classes, "h", "w"])
    made = helper.make_graph(nodes, "g", inputs, [output], [constant])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return model


def test_onnx_by_its_own_names_and_a_measured_field(tmp_path, card):
    graph(tmp_path / "conv.onnx")
    found = adopt(tmp_path / "conv.onnx", card())
    model = load_card("urban-test")
    assert (found.kind, found.receptive_field, found.global_context) == ("onnx", 5, False)
    assert (model.image_input, model.output) == ("x", "y")
    assert model.artifact.path.read_bytes() == (tmp_path / "conv.onnx").read_bytes()
    assert [f.state for f in check_forms(model, "all", Opening())] == ["ok"]
    properties = model.item["properties"]
    assert properties["mlm:total_parameters"] == 2 * 3 * 25
    assert properties["mapper:origin"]["layout"] == "onnx"


def test_onnx_with_validity_and_what_the_yaml_may_say(tmp_path, card):
    path = tmp_path / "conv.onnx"
    graph(path, valid="seen_by")
    refused(path, card(), r"has 2 to choose from \(graph.image_input\); name one of x, seen_by")
    refused(path, card(graph={"validity_input": "v"}), "has no input 'v'")
    known = {"validity_input": "seen_by"}
    less = card(graph=known | {"receptive_field": 3}, required=BANDS[:1])
    refused(path, less, "sees 5 pixels across and graph.receptive_field is 3")
    more = known | {"receptive_field": 9, "activation": "sigmoid", "head": "labels"}
    assert adopt(path, card(graph=more, required=BANDS[:1])).receptive_field == 9
    model = load_card("urban-test")
    assert (model.validity_input, model.required) == ("seen_by", (BANDS[0],))
    assert (model.activation, model.head) == ("sigmoid", "labels")


def test_onnx_that_is_not_what_the_yaml_says(tmp_path, home, card):
    path = tmp_path / "conv.onnx"
    graph(path, classes=4)
    refused(path, card(), "yields 4 classes, its card lists 2")
    refused(path, card(bands=BANDS[:2]), "takes 3 bands, its card lists 2")
    refused(path, card(graph={"output": "z"}), r"has no 'z' \(graph.output\); name one of y")
    refused(path, card(layout="daformer"), "has `layout`; take it out")
    path.write_bytes(path.read_bytes()[:-40])
    refused(path, card(), "no valid ONNX graph")
    assert not list(home.iterdir())


def test_onnx_with_weights_in_another_file_is_refused(tmp_path, card):
    model = graph(tmp_path / "whole.onnx")
    options = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx.save(model, tmp_path / "conv.onnx", **options)
    refused(tmp_path / "conv.onnx", card(), "keeps 1 of its weights in another file")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_needs_trust(tmp_path, card):
    layer = torch.nn.Conv2d(3, 2, 3, padding=1).eval()
    with torch.inference_mode():
        traced = torch.jit.trace(layer, torch.zeros(1, 3, 64, 64))
    torch.jit.save(traced, str(tmp_path / "conv.pt"))
    refused(tmp_path / "conv.pt", card(), "TorchScript, which is code")
    found = adopt(tmp_path / "conv.pt", card(), trust_model=True)
    assert (found.kind, found.receptive_field) == ("torchscript", 3)
    model = load_card("urban-test")
    (form,) = check_forms(model, "all", Opening())
    assert form.state == "refused"
    assert "--trust-model" in form.reason
    assert [f.state for f in check_forms(model, "all", Opening(trust=True))] == ["ok"]


class Leading(http.server.BaseHTTPRequestHandler):
    """Answers `/to/ADDRESS` with that address."""

    def do_GET(self):
        self.send_response(302)
        self.send_header("Location", self.path.removeprefix("/to/"))
        self.end_headers()

    def log_message(self, *given):
        pass


@contextmanager
def leading():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Leading)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_where_an_answer_may_lead(tmp_path):
    (tmp_path / "secret").write_text("s")
    to = tmp_path / "to"
    with leading() as address:
        for where in (f"file://{tmp_path}/secret", "http://example.org/x", "ftp://127.0.0.1/x"):
            with pytest.raises(ModelError, match=r"leads to .* which is not fetched"):
                fetch_file(f"{address}/to/{where}", to, 100)
        with pytest.raises(ReadError, match="more than 5 times"):
            fetch_file(f"{address}/to//to//to//to//to//to//to//x", to, 100)
    assert not to.exists()


def test_what_is_fetched_and_what_is_not(tmp_path, monkeypatch):
    (tmp_path / "file.bin").write_bytes(b"x" * 1000)
    with serve_files(tmp_path) as address:
        with pytest.raises(ModelError, match="larger than 999 bytes"):
            fetch_file(f"{address}/file.bin", tmp_path / "a", 999)
        with pytest.raises(ReadError, match="none answers 404"):
            fetch_file(f"{address}/none?token={TOKEN}", tmp_path / "b", 999)
        found = fetch_file(f"{address}/file.bin?t={TOKEN}", tmp_path / "c", 1000)
    assert (found.size, found.href) == (1000, f"{address}/file.bin")
    local = fetch_file(f"file://{tmp_path}/file.bin", tmp_path / "d", 1000)
    assert (local.sha256, local.href) == (found.sha256, "file.bin")
    for source in ("http://example.org/x", "ftp://example.org/x", "file://elsewhere/x", "http://["):
        with pytest.raises(ModelError, match="https"):
            fetch_file(source, tmp_path / "e", 10)
    with pytest.raises(ModelError, match="is no file"):
        fetch_file(str(tmp_path), tmp_path / "e", 10)
    # without retries, which wait
    monkeypatch.setattr(fetch, "session", requests.Session)
    with pytest.raises(ReadError, match="cannot be reached") as caught:
        fetch_file(f"{address}/file.bin?token={TOKEN}", tmp_path / "f", 1000)
    assert TOKEN not in str(caught.value)


def test_item_is_plain_json(tmp_path, card):
    graph(tmp_path / "conv.onnx")
    found = adopt(tmp_path / "conv.onnx", card(graph={"global_context": True}))
    item = json.loads((found.folder / "item.json").read_text())
    assert item["properties"]["mapper:global_context"] is True
    assert item["properties"]["mapper:receptive_field"] == 64
    assert item["properties"]["bands"] == [{"name": band} for band in BANDS]
    assert item["properties"]["mlm:pretrained_source"] == "conv.onnx"
    assert set(item["assets"]) == {"model", "reference", "readme"}
