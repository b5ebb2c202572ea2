"""The measured receptive field is the one that can be worked out by hand."""

from functools import cache

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from mapper.errors import ModelError
from mapper.inference.card import load_card, shipped_models
from mapper.inference.folder import Opening, open_unchecked
from mapper.inference.receptive import measure_field
from tests.inference.tiny_models import model_item, tiny_graph, write_folder, write_model

CHANNELS = 8


class Net:
    """An ONNX graph written layer by layer."""

    def __init__(self):
        self.nodes, self.weights, self.rng = [], [], np.random.default_rng(0)

    def node(self, operator, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, values):
        self.weights.append(numpy_helper.from_array(np.asarray(values), f"w{len(self.weights)}"))
        return self.weights[-1].name

    def conv(self, source, inputs, outputs, kernel, dilation=1, pads=None):
        """Weights of the size that keeps what passes about as loud as it was."""
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        shape = (outputs, inputs, height, width)
        weights = self.rng.normal(0, (2 / (inputs * height * width)) ** 0.5, shape)
        margin = [dilation * (height // 2), dilation * (width // 2)] * 2
        options = {"pads": pads or margin, "dilations": [dilation] * 2}
        return self.node("Conv", source, self.constant(weights.astype(np.float32)), **options)

    def bytes(self, last, side=None):
        self.nodes[-1].output[0] = "logits"
        assert last == f"v{len(self.nodes) - 1}"
        ports = [
            helper.make_tensor_value_info(
                name, TensorProto.FLOAT, ["n", count, side or "y", side or "x"]
            )
            for name, count in (("image", 2), ("logits", 3))
        ]
        graph = helper.make_graph(self.nodes, "net", ports[:1], ports[1:], self.weights)
        opset = [helper.make_opsetid("", 17)]
        made = helper.make_model(graph, opset_imports=opset, ir_version=8)
        return made.SerializeToString()


def stack(layers, side=None):
    """Convolutions of (kernel, dilation) with rectifiers between them."""
    net, value, inputs = Net(), "image", 2
    for kernel, dilation in layers[:-1]:
        value = net.node("Relu", net.conv(value, inputs, CHANNELS, kernel, dilation))
        inputs = CHANNELS
    kernel, dilation = layers[-1]
    return net.bytes(net.conv(value, inputs, 3, kernel, dilation), side)


def u_net(depth):
    """A U-Net: 3 x 3 convolutions, max-pooling by 2, nearest-neighbour enlarging by 2."""
    net, value, skips = Net(), "image", []
    for level in range(depth + 1):
        inputs = CHANNELS if level else 2
        value = net.node("Relu", net.conv(value, inputs, CHANNELS, 3))
        if level < depth:
            skips.append(value)
            value = net.node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    twice = net.constant(np.array([1, 1, 2, 2], np.float32))
    for skip in reversed(skips):
        larger = net.node(
            "Resize",
            value,
            "",
            twice,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        joined = net.node("Concat", larger, skip, axis=1)
        value = net.node("Relu", net.conv(joined, 2 * CHANNELS, CHANNELS, 3))
    return net.bytes(net.conv(value, CHANNELS, 3, 1))


def seen_to_the_left(column, depth):
    """How far to its left a U-Net's output column sees, layer by layer backwards."""

    @cache
    def going_down(level, place):
        """First input column under a place of a level's own convolution."""
        return place - 1 if level == 0 else going_down(level - 1, 2 * (place - 1))

    @cache
    def going_up(level, place):
        if level == depth:
            return going_down(depth, place)
        return min(going_down(level, place - 1), going_up(level + 1, (place - 1) // 2))

    return column - going_up(0, column)


def measured(folder, content, **options):
    item = model_item(**{k: v for k, v in options.items() if k != "limit"})
    card = load_card(str(write_folder(folder, item, content)))
    limits = {"limit": options["limit"]} if "limit" in options else {}
    return measure_field(card, open_unchecked(card, Opening()), **limits)


@pytest.mark.parametrize(
    "layers",
    [((1, 1),), ((3, 1),), ((5, 1),), ((3, 1), (3, 6)), ((3, 2), (5, 3), (3, 1))],
    ids=str,
)
def test_a_stack_of_convolutions_sees_the_sum_of_its_kernels(tmp_path, layers):
    found = measured(tmp_path / "net", stack(layers))
    assert found.pixels == 1 + sum((kernel - 1) * dilation for kernel, dilation in layers)
    assert not found.global_context


def test_sides_are_told_apart(tmp_path):
    net = Net()
    content = net.bytes(net.conv("image", 2, 3, (3, 6), pads=[2, 4, 0, 1]))
    found = measured(tmp_path / "net", content)
    assert (found.left, found.right, found.up, found.down) == (4, 1, 2, 0)
    assert found.pixels == 9


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_pixel_that_sees_farthest_counts_where_pooling_makes_a_difference(tmp_path, depth):
    by_column = [seen_to_the_left(c, depth) for c in range(4096, 4096 + 32)]
    assert min(by_column) < max(by_column)
    found = measured(tmp_path / "net", u_net(depth), limit=512)
    assert found.left == max(by_column)
    assert found.reach == max(found.left, found.right, found.up, found.down)
    assert found.window < 512


def test_a_model_that_pools_over_the_whole_window_has_global_context(tmp_path):
    net = Net()
    near = net.conv("image", 2, 3, 1)
    overall = net.node("GlobalAveragePool", near)
    found = measured(tmp_path / "net", net.bytes(net.node("Add", near, overall)), limit=256)
    assert found.global_context
    assert found.window == 256


def test_a_field_beyond_the_limit_is_called_global_and_not_cut_off(tmp_path):
    content = stack(((5, 1), (3, 40), (3, 40)))
    assert measured(tmp_path / "one", content, limit=192).global_context
    assert measured(tmp_path / "other", content, limit=320).pixels == 165


def test_taps_that_small_windows_would_miss_are_found(tmp_path):
    found = measured(tmp_path / "net", stack(((3, 1), (3, 100))), limit=512)
    assert (found.pixels, found.global_context) == (203, False)


def test_a_graph_of_one_size_is_measured_at_that_size(tmp_path):
    found = measured(tmp_path / "net", stack(((5, 1), (3, 2)), side=96))
    assert (found.window, found.pixels) == (96, 9)


@pytest.mark.parametrize("name", [p.name for p in shipped_models() if p.name.endswith("-baseline")])
def test_rules_look_at_single_pixels(name):
    card = load_card(name)
    found = measure_field(card, open_unchecked(card, Opening()))
    assert (found.pixels, found.global_context) == (card.receptive_field, False) == (1, False)


def test_rings_hold_the_share_that_the_weights_have_there(tmp_path):
    """One in the middle, 0.16 around it and 0.0016 around that: 99.86 % lie within one pixel."""
    weights = np.full((3, 2, 5, 5), 0.0001, np.float32)
    weights[..., 1:4, 1:4] = 0.02
    weights[..., 2, 2] = 1
    net = Net()
    found = measured(
        tmp_path / "net",
        net.bytes(net.node("Conv", "image", net.constant(weights), pads=[2] * 4)),
    )
    assert (found.reach, found.holds) == (2, (1, 2))


def test_a_model_that_ignores_its_input_is_refused(tmp_path):
    net = Net()
    nothing = net.constant(np.zeros((3, 2, 3, 3), np.float32))
    content = net.bytes(net.node("Conv", "image", nothing, pads=[1] * 4))
    with pytest.raises(ModelError, match="the same whatever it is shown"):
        measured(tmp_path / "net", content)


class Grainy:
    """A library whose last bits depend on values far away."""

    fixed_size = None
    version = "grainy"

    def __init__(self, runtime, fixed_batch, grain):
        self.runtime, self.fixed_batch, self.grain = runtime, fixed_batch, grain

    def run(self, image, valid):
        raw = self.runtime.run(image, valid)
        return raw + np.float32(self.grain * np.ptp(raw)) * np.sign(image.sum())


def test_last_bits_do_not_count_where_a_library_is_not_bit_stable(tmp_path):
    card = load_card(str(write_model(tmp_path / "tiny", kernel=3)))
    runtime = open_unchecked(card, Opening())
    assert measure_field(card, Grainy(runtime, True, 3e-7), limit=128).pixels == 3
    assert measure_field(card, Grainy(runtime, False, 3e-7), limit=128).global_context
    assert measure_field(card, Grainy(runtime, True, 1e-3), limit=128).global_context


def test_validity_has_a_reach_of_its_own(tmp_path):
    """The image is looked at pixel by pixel; what is missing counts within 5 x 5."""
    shape = ["n", 2, "y", "x"]
    names = ("image", "valid")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    weights = [
        numpy_helper.from_array(np.ones((3, 2, size, size), np.float32), f"w{size}")
        for size in (1, 5)
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w1"], ["near"]),
        helper.make_node("Conv", ["valid", "w5"], ["around"], pads=[2] * 4),
        helper.make_node("Add", ["near", "around"], ["logits"]),
    ]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, "y", "x"])
    graph = helper.make_graph(nodes, "net", ports, [out], weights)
    opset = [helper.make_opsetid("", 17)]
    content = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    assert measured(tmp_path / "net", content, validity=True).pixels == 5
    plain = tiny_graph(kernel=1, validity=True)
    assert measured(tmp_path / "other", plain, validity=True).pixels == 1
