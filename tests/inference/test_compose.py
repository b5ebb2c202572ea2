"""Composed graphs do what numpy does in float64, step by step, from the same stored bytes."""

import warnings
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from mapper.errors import ModelError
from mapper.inference.blend import window_weights
from mapper.inference.card import ModelCard, load_card
from mapper.inference.coding import Coding, Layer
from mapper.inference.compose import composed
from mapper.inference.composition import Composition, Decision
from mapper.inference.onnx import OnnxRuntime
from mapper.inference.runtime import load_program, load_runtime, programs_made
from tests.inference.tiny_models import (
    model_item,
    tiny_answer,
    tiny_graph,
    tiny_weights,
    write_folder,
    write_model,
)

SIDE = 9
STEPS = [
    None,
    {"type": "min-max", "minimum": -1, "maximum": 3},
    {"type": "z-score", "mean": 0.4, "stddev": 0.7},
    {"type": "clip", "minimum": 0.1, "maximum": 0.6},
    {"type": "clip-min", "minimum": 0.25},
    {"type": "clip-max", "maximum": 0.25},
    {"type": "offset", "value": 0.5},
    {"type": "scale", "value": 4},
]
HEADS = [
    ("classes", "softmax", 3),
    ("classes", "softmax", 2),
    ("classes", "none", 3),
    ("classes", "sigmoid", 3),
    ("classes", "sigmoid", 2),
    ("labels", "sigmoid", 2),
    ("labels", "none", 3),
    ("values", "none", 1),
    ("values", "none", 2),
]
STORED = [
    ("uint8", None, 0.01),
    ("uint8", 0, 0.01),
    ("uint8", 255, 1.0),
    ("uint16", None, 1e-4),
    ("uint16", 0, 1e-4),
    ("uint16", 65535, 3e-5),
    ("int16", None, 1e-4),
    ("int16", 0, 1e-4),
    ("int16", -32768, 3e-5),
    ("float32", None, 1.0),
    ("float32", 0, 0.5),
    ("float32", float("nan"), 2.0),
    ("float32", 65535, 1.0),
    ("float32", -9999, 1.0),
    ("float64", -9999, 1.0),
    ("int8", -128, 0.02),
    ("int32", -9999, 1e-9),
]


def by_the_book(step: dict[str, Any] | None, x: np.ndarray) -> np.ndarray:
    """A scaling as the extension describes it."""
    if step is None:
        return x
    match step["type"]:
        case "min-max":
            return (x - step["minimum"]) / (step["maximum"] - step["minimum"])
        case "z-score":
            return (x - step["mean"]) / step["stddev"]
        case "offset":
            return x - step["value"]
        case "scale":
            return x / step["value"]
    return np.clip(x, step.get("minimum", -np.inf), step.get("maximum", np.inf))


def classes_of(count: int) -> list[tuple[str, str]]:
    return [(f"c{i}", f"{i:02X}80C0") for i in range(count)]


@dataclass(frozen=True)
class Case:
    """A model, how its bands are stored, and how it is dressed."""

    bands: int
    layers: tuple[Layer, ...]
    scaling: tuple[dict[str, Any] | None, ...]
    head: tuple[str, str, int]
    kernel: int
    validity: bool
    fill: float
    temperature: float
    margin: int
    scores: str
    weights: str
    decision: Decision
    count: int
    seed: int

    @property
    def channels(self) -> int:
        """Of the network's output."""
        return 1 if self.binary else self.head[2]

    @property
    def binary(self) -> bool:
        return self.head == ("classes", "sigmoid", 2)

    @property
    def coding(self) -> Coding:
        return Coding(layers=self.layers, bands=self.bands)

    def card(self, folder, content: bytes, artifact: str = "model.onnx") -> ModelCard:
        head, activation, classes = self.head
        item = model_item(
            bands=[f"s2:b{i}" for i in range(self.bands)],
            classes=classes_of(classes),
            kernel=self.kernel,
            validity=self.validity,
            artifact=artifact,
            mapper_head=head,
            mapper_activation=activation,
            mapper_temperature=self.temperature,
            mapper_fill=self.fill,
        )
        item["properties"]["mlm:input"][0]["value_scaling"] = list(self.scaling)
        return load_card(str(write_folder(folder, item, content)))

    def graph(self, **options) -> bytes:
        return tiny_graph(
            bands=self.bands,
            classes=self.channels,
            kernel=self.kernel,
            validity=self.validity,
            **options,
        )

    def dressed(self, card: ModelCard) -> Composition:
        return Composition(
            card=card,
            coding=self.coding,
            margin=self.margin,
            scores=self.scores,
            weights=self.weights,
            side=SIDE if self.weights != "none" else 0,
            decision=self.decision,
        )

    def stored(self) -> tuple[np.ndarray, ...]:
        """Windows in which every value occurs, data or not."""
        rng = np.random.default_rng(self.seed)
        arrays = []
        for layer in self.layers:
            shape = (self.count, len(layer.channels), SIDE, SIDE)
            if layer.dtype.startswith("float"):
                values = rng.normal(0.3, 1, shape)
            else:
                limits = np.iinfo(layer.dtype)
                values = rng.integers(limits.min, limits.max, shape, endpoint=True)
            values = values.astype(layer.dtype)
            if layer.nodata is not None:
                values[rng.random(shape) < 0.2] = layer.nodata
            arrays.append(values)
        return tuple(arrays)


def logits_of(case: Case, stored) -> np.ndarray:
    """Raw output of the network, cropped, `(batch, channel, y, x)` float64."""
    shape = (case.count, case.bands, SIDE, SIDE)
    image, known = np.full(shape, float(case.fill)), np.zeros(shape)
    for layer, values in zip(case.layers, stored, strict=True):
        for place, channel in enumerate(layer.channels):
            given = values[:, place].astype(np.float64)
            missing = np.zeros(given.shape, bool)
            if layer.nodata is not None:
                missing = np.isnan(given) if np.isnan(layer.nodata) else given == layer.nodata
            step = case.scaling[channel % len(case.scaling)]
            scaled = by_the_book(step, given * layer.scale + layer.offset)
            image[:, channel] = np.where(missing, case.fill, scaled)
            known[:, channel] = ~missing
    if case.validity:
        image = image * known
    raw = tiny_answer(image, case.channels, case.kernel)
    inner = slice(case.margin, SIDE - case.margin)
    return raw[..., inner, inner]


def shares_of(case: Case, raw: np.ndarray) -> np.ndarray:
    """Probabilities, or the values of a model that gives no probabilities."""
    activation = case.head[1]
    if activation == "none":
        return raw
    raw = raw / case.temperature
    if activation == "softmax":
        powers = np.exp(raw - raw.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    sigmoid = (1 + np.tanh(raw / 2)) / 2
    return np.concatenate([1 - sigmoid, sigmoid], axis=1) if case.binary else sigmoid


def tempered(case: Case, raw: np.ndarray) -> np.ndarray:
    """Logits of each class."""
    if case.head[1] == "none":
        return raw
    raw = raw / case.temperature
    return np.concatenate([np.zeros_like(raw), raw], axis=1) if case.binary else raw


def near_steps(found: np.ndarray, share: np.ndarray) -> None:
    """Shares as 0 to 250, to the nearest step."""
    assert found.dtype == np.uint8
    wanted = np.clip(share, 0, 1) * 250
    assert np.abs(found - wanted).max() < 0.51


def check(case: Case, found, stored) -> None:
    """Hold a program's outputs against the reference."""
    raw = logits_of(case, stored)
    if case.scores:
        wanted = tempered(case, raw) if case.scores == "logits" else shares_of(case, raw)
        if case.weights != "none":
            side = window_weights(SIDE, case.weights)
            wanted = wanted * np.outer(side, side)
        assert set(found) == {"scores"}
        np.testing.assert_allclose(found["scores"], wanted, rtol=1e-4, atol=1e-4)
        return
    shares = shares_of(case, raw)
    match case.head[0]:
        case "values":
            assert set(found) == {"values"}
            np.testing.assert_allclose(found["values"], shares, rtol=1e-4, atol=1e-4)
        case "labels":
            assert set(found) == {"probabilities"}
            near_steps(found["probabilities"], shares)
        case _:
            check_classes(case, found, shares)


def check_classes(case: Case, found, shares: np.ndarray) -> None:
    order = np.sort(shares, axis=1)
    # where the first two are this near, either may win
    clear = order[:, -1] - order[:, -2] > 1e-4
    labels = found["classes"][:, 0]
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[clear], shares.argmax(axis=1)[clear])
    near_steps(found["confidence"], shares.max(axis=1, keepdims=True))
    assert ("probabilities" in found) == case.decision.probabilities
    assert ("entropy" in found) == case.decision.entropy
    if case.decision.probabilities:
        near_steps(found["probabilities"], shares)
    if case.decision.entropy:
        logs = np.log(np.maximum(shares, 1e-12))
        entropy = -(shares * logs).sum(axis=1, keepdims=True) / np.log(case.head[2])
        near_steps(found["entropy"], entropy)


@st.composite
def cases(draw) -> Case:
    bands = draw(st.integers(1, 4))
    # 0 and 1 are layers, 2 is stored nowhere
    homes = draw(st.lists(st.sampled_from([0, 0, 1, 1, 2]), min_size=bands, max_size=bands))
    homes[draw(st.integers(0, bands - 1))] = 0
    layers = []
    for number in (0, 1):
        places = [channel for channel, home in enumerate(homes) if home == number]
        if places:
            dtype, nodata, scale = draw(st.sampled_from(STORED))
            layers.append(
                Layer(
                    name=f"l{number}",
                    dtype=dtype,
                    nodata=nodata,
                    scale=scale * draw(st.sampled_from([1.0, 1.5])),
                    offset=draw(st.sampled_from([0.0, 0.0, -0.1, 0.5])),
                    channels=tuple(draw(st.permutations(places))),
                )
            )
    each = draw(st.sampled_from([1, bands]))
    scaling = tuple(draw(st.sampled_from(STEPS)) for _ in range(each))
    weights = draw(st.sampled_from(["none", "hann", "gaussian"]))
    scores = draw(st.sampled_from(["", "", "probabilities", "logits"]))
    margin = draw(st.sampled_from([0, 1, 4]))
    return Case(
        bands=bands,
        layers=tuple(layers),
        scaling=scaling,
        head=draw(st.sampled_from(HEADS)),
        kernel=draw(st.sampled_from([1, 3])),
        validity=draw(st.booleans()),
        fill=draw(st.sampled_from([0.0, -1.5, 0.25])),
        temperature=draw(st.sampled_from([1.0, 0.5, 2.5])),
        margin=0 if scores and weights != "none" else margin,
        scores=scores,
        weights=weights if scores else "none",
        decision=Decision(entropy=draw(st.booleans()), probabilities=draw(st.booleans())),
        count=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 2**16)),
    )


BASE = Case(
    bands=2,
    layers=(Layer(name="s2", dtype="uint16", scale=1e-4, nodata=0, channels=(0, 1)),),
    scaling=(None,),
    head=("classes", "softmax", 3),
    kernel=3,
    validity=False,
    fill=0.0,
    temperature=1.0,
    margin=0,
    scores="",
    weights="none",
    decision=Decision(entropy=True, probabilities=True),
    count=3,
    seed=5,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder that is written again by every example."""
    return tmp_path_factory.mktemp("composed") / "tiny"


def program_of(case: Case, place, threads: int = 1, **options):
    card = case.card(place, case.graph(**options))
    return OnnxRuntime(card, threads).compose(case.dressed(card))


# against numpy -----------------------------------------------------------------------------


@settings(max_examples=150)
@given(
    case=cases(),
    opset=st.sampled_from([11, 13, 17, 18, 20]),
    batch=st.sampled_from([None, None, 1, 3]),
    size=st.sampled_from([None, None, SIDE]),
)
def test_a_composed_graph_is_what_numpy_works_out(place, case, opset, batch, size):
    stored = case.stored()
    found = program_of(case, place, opset=opset, batch=batch, size=size).run(stored)
    assert all(len(values) == case.count for values in found.values())
    check(case, found, stored)


@pytest.mark.parametrize("step", STEPS, ids=str)
@pytest.mark.parametrize("coded", STORED, ids=str)
def test_every_scaling_meets_every_coding(place, step, coded):
    dtype, nodata, scale = coded
    layer = Layer(name="s2", dtype=dtype, scale=scale, nodata=nodata, channels=(1, 0))
    case = replace(BASE, layers=(layer,), scaling=(None, step), fill=-0.5)
    stored = case.stored()
    check(case, program_of(case, place).run(stored), stored)


@pytest.mark.parametrize("opset", [11, 12, 13, 16, 17, 18, 19, 20, 21])
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_every_head_can_be_written_in_every_opset(place, head, opset):
    case = replace(BASE, head=head, temperature=1.7)
    stored = case.stored()
    check(case, program_of(case, place, opset=opset).run(stored), stored)


@pytest.mark.parametrize("validity", [False, True])
@pytest.mark.parametrize("nodata", [None, 0])
def test_a_band_that_is_stored_nowhere_is_fill_and_not_valid(place, validity, nodata):
    layer = Layer(name="s2", dtype="uint16", scale=1e-4, nodata=nodata, channels=(2, 0))
    case = replace(BASE, bands=4, layers=(layer,), validity=validity, fill=2.0)
    stored = case.stored()
    check(case, program_of(case, place).run(stored), stored)


def test_channels_of_two_layers_may_interleave(place):
    layers = (
        Layer(name="a", dtype="uint8", scale=0.01, nodata=0, channels=(3, 0)),
        Layer(name="b", dtype="float32", nodata=float("nan"), channels=(2, 4, 1)),
    )
    case = replace(BASE, bands=5, layers=layers, scaling=tuple(STEPS[:5]), validity=True)
    stored = case.stored()
    check(case, program_of(case, place).run(stored), stored)


def test_a_graph_of_half_precision_takes_the_same_bytes(place):
    case = replace(BASE, kernel=1, decision=Decision())
    stored = case.stored()
    found = program_of(case, place, dtype=TensorProto.FLOAT16).run(stored)
    shares = shares_of(case, logits_of(case, stored))
    assert np.abs(found["confidence"] - shares.max(axis=1, keepdims=True) * 250).max() < 2


def test_a_graph_in_too_old_an_opset_is_refused(place):
    card = BASE.card(place, BASE.graph(opset=10))
    with pytest.raises(ModelError, match="opset 10; export it with 11 or newer"):
        OnnxRuntime(card, 1)


def test_composed_graphs_pass_the_checker(place):
    for opset in (11, 13, 17, 18, 20):
        content = BASE.graph(opset=opset)
        model = onnx.load_from_string(composed(content, BASE.dressed(BASE.card(place, content))))
        onnx.checker.check_model(model, full_check=True)
        assert [i.name for i in model.graph.input] == ["mapper_stored_s2"]


# probabilities and what is no number -------------------------------------------------------


def constant_logits(place, *logits: float, head=BASE.head, **changes):
    """A program whose logits are these, wherever and whatever is stored."""
    case = replace(BASE, head=head, **changes)
    values = np.array(logits, np.float32).reshape(1, -1, 1, 1)
    shape = ["n", 2, "y", "x"]
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["image"], ["one"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["one", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "fixed"], ["logits"]),
        ],
        "constant",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(logits), "y", "x"])],
        [
            onnx.numpy_helper.from_array(values, "fixed"),
            onnx.numpy_helper.from_array(np.float32(0), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    card = case.card(place, model.SerializeToString())
    return OnnxRuntime(card, 1).compose(case.dressed(card)), case


def test_softmax_survives_large_logits(place):
    program, case = constant_logits(place, 1e30, 0, -1e30)
    found = program.run(case.stored())
    assert set(found["classes"].ravel().tolist()) == {0}
    assert set(found["confidence"].ravel().tolist()) == {250}
    assert set(found["entropy"].ravel().tolist()) == {0}
    assert found["probabilities"][0, :, 0, 0].tolist() == [250, 0, 0]


def test_temperature_divides_the_logits(place):
    program, case = constant_logits(place, 0, 2, 4, temperature=4.0)
    powers = np.exp([0, 0.5, 1])
    near_steps(program.run(case.stored())["probabilities"][0, :, 0, 0], powers / powers.sum())


def test_probabilities_are_left_alone(place):
    program, case = constant_logits(
        place, 0.5, 0.25, 0.125, head=("classes", "none", 3), temperature=3.0
    )
    found = program.run(case.stored())
    assert found["probabilities"][0, :, 0, 0].tolist() == [125, 63, 31]
    assert found["confidence"][0, 0, 0, 0] == 125


@pytest.mark.parametrize(("logit", "label"), [(-3.0, 0), (3.0, 1)])
def test_one_channel_tells_two_classes_apart(place, logit, label):
    program, case = constant_logits(place, logit, head=("classes", "sigmoid", 2))
    found = program.run(case.stored())
    assert found["classes"][0, 0, 0, 0] == label
    assert found["confidence"][0, 0, 0, 0] == round(250 / (1 + np.exp(-3)))


def test_the_largest_logit_wins_where_sigmoids_are_all_but_1(place):
    program, case = constant_logits(place, 20, 30, 25, head=("classes", "sigmoid", 3))
    assert program.run(case.stored())["classes"][0, 0, 0, 0] == 1


def test_classes_that_are_equally_likely_have_the_entropy_1(place):
    program, case = constant_logits(place, 7, 7, 7)
    assert (program.run(case.stored())["entropy"] == 250).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scores", ["", "probabilities", "logits"])
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_output_that_is_no_number_is_refused(place, value, scores, head):
    channels = [0.0] * (1 if head == ("classes", "sigmoid", 2) else head[2])
    channels[-1] = value
    program, case = constant_logits(place, *channels, head=head, scores=scores)
    with pytest.raises(ModelError, match="NaN or infinity"):
        program.run(case.stored())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [(0, 0, 1, 1), (2, 1, SIDE - 1, 0)])
def test_one_stored_value_that_is_no_number_is_refused(place, value, where):
    layer = Layer(name="s2", dtype="float32", nodata=0, channels=(0, 1))
    case = replace(BASE, layers=(layer,), kernel=1)
    (stored,) = case.stored()
    program = program_of(case, place)
    program.run((stored,))
    stored[where] = value
    with pytest.raises(ModelError, match="NaN or infinity"):
        program.run((stored,))


def test_an_output_of_another_size_is_refused(place):
    model = onnx.load_from_string(BASE.graph())
    del model.graph.node[0].attribute[:]
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "h"
    model.graph.output[0].type.tensor_type.shape.dim[3].dim_param = "w"
    card = BASE.card(place, model.SerializeToString())
    program = OnnxRuntime(card, 1).compose(BASE.dressed(card))
    with pytest.raises(ModelError, match=f"yields 7 x 7 pixels where its card promises {SIDE}"):
        program.run(BASE.stored())


def reshaped(place, shape):
    """A model that gives its logits another shape, which its graph does not tell beforehand."""
    model = onnx.load_from_string(tiny_graph(classes=4, names=("image", "valid", "inner")))
    graph = model.graph
    # the shape comes from the input's values, so nothing can be inferred from it
    nothing = [
        helper.make_node("ReduceMax", ["image"], ["top"], keepdims=0),
        helper.make_node("Mul", ["top", "zero"], ["none"]),
        helper.make_node("Cast", ["none"], ["none64"], to=TensorProto.INT64),
        helper.make_node("Add", ["shape", "none64"], ["wanted"]),
        helper.make_node("Reshape", ["inner", "wanted"], ["logits"]),
    ]
    graph.node.extend(nothing)
    graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.float32(0), "zero"),
            onnx.numpy_helper.from_array(np.array(shape, dtype=np.int64), "shape"),
        ]
    )
    del graph.output[:]
    described = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["a", "b", "c", "d"])
    graph.output.append(described)
    case = replace(BASE, kernel=1, count=3)
    card = case.card(place, model.SerializeToString())
    return OnnxRuntime(card, 1).compose(case.dressed(card)), case


@pytest.mark.parametrize(
    "shape", [(3, 4, SIDE, SIDE), (6, 2, SIDE, SIDE), (2, 6, SIDE, SIDE)], ids=str
)
def test_an_output_of_other_classes_or_windows_is_refused(place, shape):
    program, case = reshaped(place, shape)
    with pytest.raises(ModelError, match="its card"):
        program.run(case.stored())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("classes", {}),
        ("confidence", {}),
        ("entropy", {}),
        ("probabilities", {}),
        ("scores", {"scores": "probabilities"}),
        ("values", {"head": ("values", "none", 3)}),
    ],
)
def test_the_models_own_names_are_no_matter(place, name, changes):
    case = replace(BASE, **changes)
    content = case.graph(names=("image", "valid", name))
    card = replace(case.card(place, content), output=name)
    stored = case.stored()
    check(case, OnnxRuntime(card, 1).compose(case.dressed(card)).run(stored), stored)


# bit for bit -------------------------------------------------------------------------------


@pytest.mark.parametrize("scores", ["", "probabilities", "logits"])
@pytest.mark.parametrize("bands", [2, 5])
def test_batches_and_threads_change_no_bit(place, scores, bands):
    layer = Layer(name="s2", dtype="uint16", scale=1e-4, nodata=0, channels=tuple(range(bands)))
    case = replace(BASE, bands=bands, layers=(layer,), kernel=5, count=7, scores=scores)
    (stored,) = case.stored()
    first = program_of(case, place).run((stored,))
    for threads in (1, 2):
        program = program_of(case, place, threads=threads)
        for batch in (1, 2, 3, 7):
            parts = [program.run((stored[start : start + batch],)) for start in range(0, 7, batch)]
            for name, values in first.items():
                whole = np.concatenate([part[name] for part in parts])
                assert whole.tobytes() == values.tobytes()


@given(st.integers(1, 5), st.integers(1, 9))
@settings(max_examples=15)
def test_a_graph_for_one_batch_size_gives_the_same_bytes(place, batch, count):
    case = replace(BASE, count=count)
    stored = case.stored()
    any_size = program_of(case, place).run(stored)
    one_size = program_of(case, place, batch=batch).run(stored)
    for name, values in any_size.items():
        assert one_size[name].tobytes() == values.tobytes()


# digests and the cache ---------------------------------------------------------------------


def digest_of(case: Case, place) -> str:
    return program_of(case, place).digest


def test_equal_compositions_have_equal_digests(tmp_path):
    assert digest_of(BASE, tmp_path / "one") == digest_of(BASE, tmp_path / "other")
    assert len(digest_of(BASE, tmp_path / "one")) == 64


LAYER = BASE.layers[0]
CHANGES = [
    {"margin": 1},
    {"scores": "probabilities"},
    {"scores": "logits"},
    {"scores": "probabilities", "weights": "hann"},
    {"scores": "probabilities", "weights": "gaussian"},
    {"decision": Decision()},
    {"decision": Decision(entropy=True)},
    {"decision": Decision(probabilities=True)},
    {"fill": 0.5},
    {"temperature": 2.0},
    {"scaling": ({"type": "offset", "value": 1},)},
    {"scaling": (None, {"type": "offset", "value": 1})},
    {"head": ("classes", "none", 3)},
    {"head": ("classes", "sigmoid", 3)},
    {"head": ("labels", "sigmoid", 3)},
    {"validity": True},
    {"kernel": 1},
    {"layers": (replace(LAYER, dtype="int16"),)},
    {"layers": (replace(LAYER, scale=2e-4),)},
    {"layers": (replace(LAYER, offset=-0.1),)},
    {"layers": (replace(LAYER, nodata=None),)},
    {"layers": (replace(LAYER, nodata=1),)},
    {"layers": (replace(LAYER, channels=(1, 0)),)},
    {"layers": (replace(LAYER, channels=(0,)),)},
    {"layers": (replace(LAYER, channels=(0,)), replace(LAYER, name="b", channels=(1,)))},
]


def test_every_changed_part_changes_the_digest(place):
    digests = [digest_of(replace(BASE, **change), place) for change in ({}, *CHANGES)]
    assert len(set(digests)) == len(digests)


def test_weights_of_another_window_change_the_digest(place):
    case = replace(BASE, scores="probabilities", weights="hann")
    card = case.card(place, case.graph())
    runtime = OnnxRuntime(card, 1)
    digests = {runtime.compose(replace(case.dressed(card), side=side)).digest for side in (9, 11)}
    assert len(digests) == 2


def test_two_cards_in_one_process_do_not_mix(tmp_path):
    cases = {
        "one": BASE,
        "warm": replace(BASE, temperature=3.0),
        "filled": replace(BASE, fill=4.0),
        "flipped": replace(BASE, scaling=({"type": "scale", "value": -1},)),
    }
    stored = BASE.stored()
    for _ in range(2):
        for name, case in cases.items():
            card = case.card(tmp_path / name, case.graph())
            check(case, load_program(load_runtime(card, 1), case.dressed(card)).run(stored), stored)


def test_another_card_over_the_same_runtime_is_another_program(tmp_path):
    card = load_card(str(write_model(tmp_path / "tiny", kernel=3)))
    runtime = load_runtime(card, 1)
    stored = BASE.stored()
    for temperature in (1.0, 4.0, 1.0):
        case = replace(BASE, temperature=temperature)
        dressed = case.dressed(replace(card, temperature=temperature))
        check(case, load_program(runtime, dressed).run(stored), stored)


@pytest.mark.parametrize("nodata", [None, 0.0])
def test_a_program_is_made_once_however_often_it_is_loaded(tmp_path, nodata):
    folder = write_model(tmp_path / "tiny", kernel=3)
    before = programs_made()

    def load(**changes):
        card = load_card(str(folder))
        layer = Layer(name="s2", dtype="float32", nodata=nodata, channels=(0, 1))
        dressed = replace(BASE, layers=(layer,), **changes).dressed(card)
        return load_program(load_runtime(card, 1), dressed)

    programs = [load() for _ in range(4)]
    assert len({id(p) for p in programs}) == 1
    assert programs_made() == before + 1
    other = [load(margin=2) for _ in range(3)]
    assert other[0] is not programs[0]
    assert programs_made() == before + 2


def test_a_program_for_nodata_that_is_nan_is_made_once(tmp_path):
    card = load_card(str(write_model(tmp_path / "tiny", kernel=3)))
    before = programs_made()
    for _ in range(3):
        layer = Layer(name="s2", dtype="float32", nodata=float("nan"), channels=(0, 1))
        load_program(load_runtime(card, 1), replace(BASE, layers=(layer,)).dressed(card))
    assert programs_made() == before + 1


# the same in torch -------------------------------------------------------------------------


@cache
def scripted(bands: int, classes: int, kernel: int, validity: bool) -> bytes:
    """The convolution of `tiny_graph` as a TorchScript module."""
    import io

    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            weights = tiny_weights(bands, classes, kernel)
            self.inner = torch.nn.Conv2d(bands, classes, kernel, padding=kernel // 2, bias=False)
            self.inner.weight = torch.nn.Parameter(torch.from_numpy(weights))

        def forward(self, *given):
            return self.inner(given[0] * given[1] if len(given) == 2 else given[0])

    buffer = io.BytesIO()
    sample = (torch.zeros(1, bands, 4, 4),) * (2 if validity else 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(Network().eval(), sample), buffer)
    return buffer.getvalue()


def torch_program(case: Case, place):
    from mapper.inference.pytorch import TorchRuntime

    content = scripted(case.bands, case.channels, case.kernel, case.validity)
    card = case.card(place, content, artifact="model.pt")
    return TorchRuntime(card, 1).compose(case.dressed(card))


@settings(max_examples=80)
@given(case=cases())
# torch says once that it does not like the weights' flag; test_pytorch.py is about that
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_torch_between_the_same_two_steps_agrees(place, case):
    pytest.importorskip("torch")
    stored = case.stored()
    found = torch_program(case, place).run(stored)
    check(case, found, stored)
    for name, values in program_of(case, place).run(stored).items():
        assert values.dtype == found[name].dtype
        assert values.shape == found[name].shape


def test_the_digest_of_a_torch_program_changes_with_every_part(place):
    pytest.importorskip("torch")
    digests = [torch_program(replace(BASE, **c), place).digest for c in ({}, {}, *CHANGES)]
    assert digests[0] == digests[1]
    assert len(set(digests[1:])) == len(digests) - 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_torch_refuses_what_is_no_number(place, value):
    pytest.importorskip("torch")
    layer = Layer(name="s2", dtype="float32", nodata=0, channels=(0, 1))
    case = replace(BASE, layers=(layer,))
    (stored,) = case.stored()
    stored[1, 0, 4, 4] = value
    with pytest.raises(ModelError, match="NaN or infinity"):
        torch_program(case, place).run((stored,))
