"""PyTorch programs run through the same interface as ONNX graphs, where they are trusted."""

import json
import threading
import warnings

import numpy as np
import pytest

from mapper.area.grid import PixelBox
from mapper.errors import MapperError, ModelError
from mapper.inference.card import load_card
from mapper.inference.coding import Coding, Layer
from mapper.inference.composition import Composition, Decision
from mapper.inference.engine import make_engine
from mapper.inference.plan import plan_inference
from mapper.inference.predict import predict_box
from mapper.inference.rows import Source
from mapper.inference.runtime import load_runtime
from mapper.recipe import Predict
from tests.inference.tiny_models import model_item, tiny_answer, tiny_weights

torch = pytest.importorskip("torch")

BOX = PixelBox(row0=0, col0=0, row1=100, col1=130)
AREA = PixelBox(row0=-60, col0=-60, row1=200, col1=230)
CODING = Coding(
    layers=(Layer(name="s2", dtype="uint16", scale=1e-4, nodata=0, channels=(0, 1)),), bands=2
)
SIDE = 34


class Network(torch.nn.Module):
    """The convolution of `tiny_graph`."""

    def __init__(self, bands=2):
        super().__init__()
        weights = torch.from_numpy(tiny_weights(bands, 3, 3))
        self.inner = torch.nn.Conv2d(bands, 3, 3, padding=1, bias=False)
        self.inner.weight = torch.nn.Parameter(weights)

    def forward(self, image):
        return self.inner(image)


class Masked(Network):
    """The same with a validity input."""

    def forward(self, image, valid):
        return self.inner(image * valid)


class Twice(Network):
    """The same, given as a pair."""

    def forward(self, image):
        found = self.inner(image)
        return found, found


def save_script(path, network, *sample):
    with warnings.catch_warnings():
        # TorchScript is deprecated in favour of torch.export; folders of it remain
        warnings.simplefilter("ignore")
        torch.jit.trace(network.eval(), sample).save(str(path))


def save_export(path, network, *sample, sizes=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network.eval(), sample, dynamic_shapes=sizes)
        torch.export.save(program, str(path))


def save_compiled(path, network, *sample):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network.eval(), sample)
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def put(folder, name, save, *given, shape=None, precision=None, **options):
    """A model folder around a file that `save` writes; gives its card."""
    folder.mkdir(exist_ok=True)
    item = model_item(kernel=3, artifact=name, **options)
    save(folder / name, *given)
    if shape is not None:
        item["assets"]["model"]["mapper:shape"] = shape
    if precision is not None:
        item["assets"]["model"]["mapper:precision"] = precision
    (folder / "item.json").write_text(json.dumps(item))
    return load_card(str(folder))


def zeros(batch, side=SIDE, bands=2):
    return torch.zeros(batch, bands, side, side)


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """Each form once, written when it is first asked for."""
    root, made = tmp_path_factory.mktemp("forms"), {}
    recipes = {
        "torchscript": ("model.pt", save_script, None),
        "torch-export": ("model.pt2", save_export, [3, SIDE]),
        "aotinductor": ("model.pt2", save_compiled, [3, SIDE]),
    }

    def card_of(form):
        if form not in made:
            name, save, shape = recipes[form]
            made[form] = put(root / form, name, save, Network(), zeros(3), shape=shape)
        return made[form]

    return card_of


FORMS = ["torchscript", "torch-export", pytest.param("aotinductor", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def ground():
    stored = np.random.default_rng(2).integers(1, 9000, (2, *AREA.shape)).astype(np.uint16)
    stored[:, 80:90, 100:120] = 0
    return stored


@pytest.fixture(scope="module")
def raw(ground):
    """Logits of the whole ground in one piece, float64."""
    return tiny_answer(ground[None] * 1e-4, 3, 3)[0]


def source(ground):
    return Source(read=lambda box: (ground[(slice(None), *box.slices_in(AREA))],), block=32)


def engine_of(card, **predict):
    runtime = load_runtime(card, 1, trust=True)
    plan = plan_inference(card, runtime, Predict(**predict), CODING)
    return make_engine(card, plan, CODING, runtime)


# trust and loading -------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_every_form_needs_trust(cards, form, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    card = cards(form)
    assert card.form == form
    with pytest.raises(ModelError, match=f"is {form}, which is code.*--trust-model"):
        load_runtime(card, 1)


@pytest.mark.parametrize(
    ("name", "share"), [("model.pt", 0.5), ("model.pt", 0), ("model.pt2", 0.5)]
)
def test_a_cut_off_file_is_refused(tmp_path, cards, name, share):
    whole = cards("torchscript" if name == "model.pt" else "torch-export").artifact.path
    content = whole.read_bytes()

    def save(path):
        path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(ModelError, match="cut off"):
        load_runtime(put(tmp_path / "cut", name, save), 1, trust=True)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_output_of_the_network(cards, form):
    runtime = load_runtime(cards(form), 1, trust=True)
    image = np.random.default_rng(0).normal(size=(7, 2, SIDE, SIDE)).astype(np.float32)
    found = runtime.run(image, np.ones_like(image))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, tiny_answer(image, 3, 3), rtol=1e-4, atol=1e-4)
    assert runtime.version == f"torch {torch.__version__} cpu"


@pytest.mark.parametrize("form", FORMS)
def test_the_shape_of_an_export_is_that_of_its_windows(cards, form):
    runtime = load_runtime(cards(form), 1, trust=True)
    fixed = None if form == "torchscript" else SIDE
    assert runtime.fixed_size == fixed
    assert runtime.fixed_batch
    plan = plan_inference(cards(form), runtime, Predict(stride=16), CODING)
    assert plan.size == (SIDE if fixed else 18)
    assert (plan.form, plan.batch_matters) == (form, True)


# maps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [3, 5])
def test_labels_are_those_of_the_network_itself(cards, ground, raw, form, batch):
    engine = engine_of(cards(form), size=SIDE, stride=32, batch=batch)
    strip = predict_box(engine, source(ground), BOX)
    inner = (slice(None), *BOX.slices_in(AREA))
    usable = (ground[inner] != 0).all(axis=0)
    order = np.sort(raw[inner], axis=0)
    clear = usable & (order[-1] - order[-2] > 1e-4)
    assert clear.mean() > 0.9
    labels = strip.arrays["classes"]
    np.testing.assert_array_equal(labels[clear], raw[inner].argmax(axis=0)[clear])
    assert not usable.all()
    assert (labels[~usable] == 255).all()


def test_exports_and_scripts_make_the_same_map(cards, ground):
    maps = [
        predict_box(engine_of(cards(form), size=SIDE, stride=32), source(ground), BOX).arrays
        for form in ("torchscript", "torch-export")
    ]
    np.testing.assert_array_equal(maps[0]["classes"], maps[1]["classes"])
    difference = maps[0]["confidence"].astype(int) - maps[1]["confidence"]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("form", FORMS)
def test_an_export_with_one_batch_size_takes_any_number_of_windows(cards, form):
    program = engine_of(cards(form), size=SIDE, stride=32).program
    stored = np.random.default_rng(1).integers(0, 9000, (7, 2, SIDE, SIDE)).astype(np.uint16)
    whole = program.run((stored,))
    assert len(whole["classes"]) == 7
    for count in (1, 3, 4):
        part = program.run((stored[:count],))
        assert (part["classes"] == whole["classes"][:count]).mean() > 0.999
        assert len(part["classes"]) == count


def test_an_export_with_free_sizes_takes_windows_of_any(tmp_path):
    dim = torch.export.Dim
    sizes = ({0: dim("n", max=64), 2: dim("y", min=4, max=512), 3: dim("x", min=4, max=512)},)

    def save(path):
        save_export(path, Network(), zeros(2), sizes=sizes)

    runtime = load_runtime(put(tmp_path / "free", "model.pt2", save), 1, trust=True)
    assert runtime.fixed_size is None
    for count, side in ((1, 16), (5, 41)):
        image = np.random.default_rng(0).normal(size=(count, 2, side, side)).astype(np.float32)
        found = runtime.run(image, image)
        np.testing.assert_allclose(found, tiny_answer(image, 3, 3), rtol=1e-4, atol=1e-4)


def test_a_validity_input_gets_which_pixels_are_data(tmp_path, ground):
    card = put(
        tmp_path / "masked",
        "model.pt",
        save_script,
        Masked(),
        zeros(1),
        zeros(1),
        validity=True,
        mapper_fill=5.0,
    )
    runtime = load_runtime(card, 1, trust=True)
    stored = ground[None, :, :SIDE, :SIDE].copy()
    stored[:, :, 5:9, 7:20] = 0
    program = runtime.compose(Composition(card=card, coding=CODING, scores="logits"))
    wanted = tiny_answer(stored * 1e-4, 3, 3)
    np.testing.assert_allclose(program.run((stored,))["scores"], wanted, rtol=1e-4, atol=1e-4)


def test_half_precision_goes_in_and_float_comes_out(tmp_path):
    card = put(
        tmp_path / "half",
        "model.pt",
        save_script,
        Network().bfloat16(),
        zeros(1).bfloat16(),
        precision="bfloat16",
    )
    image = np.random.default_rng(0).normal(size=(2, 2, 9, 9)).astype(np.float32)
    found = load_runtime(card, 1, trust=True).run(image, image)
    assert found.dtype == np.float32
    wanted = tiny_answer(image, 3, 3)
    assert 0 < np.abs(found - wanted).max() < 0.03 * np.ptp(wanted)


def test_calls_from_several_threads_do_not_disturb_each_other(cards):
    program = engine_of(cards("torchscript"), size=SIDE, stride=32).program
    rng = np.random.default_rng(8)
    given = [rng.integers(1, 9000, (3, 2, SIDE, SIDE)).astype(np.uint16) for _ in range(6)]
    alone = [program.run((stored,)) for stored in given]
    together = [None] * len(given)

    def act(number):
        together[number] = program.run((given[number],))

    threads = [threading.Thread(target=act, args=(n,)) for n in range(len(given))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one["confidence"], other["confidence"])


def test_batch_and_threads_are_part_of_its_plan(cards):
    card = cards("torchscript")
    runtime = load_runtime(card, 1, trust=True)
    digests = {
        plan_inference(
            card, runtime, Predict(size=34, stride=32, batch=b, threads=t), CODING
        ).digest
        for b in (2, 3)
        for t in (1, 2)
    }
    assert len(digests) == 4


# what goes wrong ---------------------------------------------------------------------------


@pytest.fixture
def every_warning():
    """Torch warns of some things once in a process; here each time."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


@pytest.mark.usefixtures("every_warning")
@pytest.mark.parametrize("weights", ["hann", "gaussian"])
def test_weighting_warns_of_nothing(cards, weights):
    card = cards("torchscript")
    dressed = Composition(
        card=card, coding=CODING, scores="probabilities", weights=weights, side=SIDE
    )
    stored = np.ones((1, 2, SIDE, SIDE), np.uint16)
    load_runtime(card, 1, trust=True).compose(dressed).run((stored,))


@pytest.mark.usefixtures("every_warning")
def test_deciding_warns_of_nothing(cards):
    card = cards("torchscript")
    dressed = Composition(
        card=card, coding=CODING, margin=1, decision=Decision(entropy=True, probabilities=True)
    )
    stored = np.ones((1, 2, SIDE, SIDE), np.uint16)
    load_runtime(card, 1, trust=True).compose(dressed).run((stored,))


class Strided(Network):
    def forward(self, image):
        return self.inner(image)[..., ::2, ::2]


class More(Network):
    def forward(self, image):
        return torch.cat([self.inner(image)] * 2, dim=1)


@pytest.mark.parametrize("network", [Strided, More])
def test_an_output_of_another_shape_is_refused(tmp_path, network):
    card = put(tmp_path / "other", "model.pt", save_script, network(), zeros(1))
    runtime = load_runtime(card, 1, trust=True)
    image = np.zeros((2, 2, 16, 16), np.float32)
    with pytest.raises(ModelError, match="its card promises"):
        runtime.run(image, image)
    program = runtime.compose(Composition(card=card, coding=CODING))
    with pytest.raises(ModelError, match="its card promises"):
        program.run((image.astype(np.uint16),))


@pytest.mark.parametrize("case", ["pair", "bands"])
@pytest.mark.parametrize("dressed", [False, True])
def test_a_module_that_does_not_fit_its_card_is_refused(tmp_path, case, dressed):
    network = Twice() if case == "pair" else Network(bands=5)
    sample = zeros(1, bands=5 if case == "bands" else 2)
    card = put(tmp_path / "odd", "model.pt", save_script, network, sample)
    runtime = load_runtime(card, 1, trust=True)
    image = np.zeros((2, 2, 16, 16), np.float32)
    program = runtime.compose(Composition(card=card, coding=CODING))
    act, given = (
        (program.run, [(image.astype(np.uint16),)]) if dressed else (runtime.run, [image] * 2)
    )
    with pytest.raises(ModelError):
        act(*given)


@pytest.mark.parametrize("shape", [(3, 2, 20, 20), (2, 2, SIDE, SIDE)], ids=str)
def test_an_export_of_fixed_shape_that_the_card_is_silent_about_is_refused(tmp_path, cards, shape):
    content = cards("torch-export").artifact.path.read_bytes()
    card = put(tmp_path / "silent", "model.pt2", lambda path: path.write_bytes(content))
    program = load_runtime(card, 1, trust=True).compose(Composition(card=card, coding=CODING))
    with pytest.raises(MapperError):
        program.run((np.ones(shape, np.uint16),))
