"""Networks against the facts that were published of them, and against plain loops."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from mapper.errors import ModelError, RecipeError
from mapper.recipe.training import ClassEntry, Network, Train
from mapper.training.networks import Supervised, build_network
from mapper.training.networks.backbone import MixTransformer, ResNet, widened
from mapper.training.networks.build import NETWORKS, source_channels
from mapper.training.networks.daformer import DAFormer, SegFormer
from mapper.training.networks.deeplab import DeepLabV3, DeepLabV3Plus
from mapper.training.networks.fbp import FbpUNet
from mapper.training.networks.gum import GlobalUrbanMapper
from mapper.training.networks.layers import pooled
from mapper.training.networks.network import Segmenter
from mapper.training.networks.points import PointHead, point_values, training_points, uncertainty
from mapper.training.networks.ugsnet import CoordinateAttention, UGSNet
from mapper.training.networks.unet import UNet
from tests.training.lessons import TINY

pytestmark = pytest.mark.usefixtures("one_thread")

RESNET50 = 25_557_032 - (2048 * 1000 + 1000)
"""As torchvision counts it, without its classifier."""


def tiny(name, channels=3, classes=4):
    return NETWORKS[name](channels, classes, **TINY[name]).eval()


def on_meta(make, *args, **options):
    """A network of full width that takes no memory."""
    with torch.device("meta"):
        return make(*args, **options).eval()


def count(module):
    return sum(p.numel() for p in module.parameters())


def kernels(module):
    """Numbers in kernels of convolutions and linear layers, without biases and norms."""
    return sum(p.numel() for p in module.parameters() if p.dim() > 1)


# shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("channels", [1, 5])
def test_logits_have_the_size_of_the_image(name, channels):
    network = tiny(name, channels)
    image = torch.rand(2, channels, 64, 96)
    with torch.inference_mode():
        logits = network(image)
    assert logits.shape == (2, 4, 64, 96)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_sides_that_are_multiples_will_do(name):
    network = tiny(name)
    multiple = network.multiple
    height, width = (-(-side // multiple) * multiple for side in (65, 90))
    with torch.inference_mode():
        assert network(torch.rand(1, 3, height, width)).shape == (1, 4, height, width)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_parameters_learn(name):
    network = tiny(name).train()
    label = torch.randint(0, 4, (2, 64, 64))
    network.loss(torch.rand(2, 3, 64, 64), label, functional.cross_entropy).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias before batch normalisation moves nothing; dead rectifiers are luck
    assert not [n for n in still if not n.endswith("bias")], still
    heads = {n.split(".")[0] for n, _ in network.named_parameters()} & set(network.head_names)
    assert heads == set(network.head_names)
    assert set(network.class_layers) <= {n for n, _ in network.named_modules()}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_said_of_context_is_so(name):
    """A change in one corner reaches the other where a network says that it has all in view."""
    network = tiny(name).double()
    image = torch.rand(1, 3, 128, 128, dtype=torch.float64)
    other = image.clone()
    other[..., :16, :16] += 5
    with torch.inference_mode():
        change = (network(image) - network(other)).abs()[..., -16:, -16:].max()
    if network.global_context:
        assert change > 0
    elif name == "unet":
        assert change == 0


# numbers of parameters ----------------------------------------------------------------------


def test_deeplabv3_is_torchvisions_without_its_second_head():
    assert count(on_meta(DeepLabV3, 3, 21)) == 39_638_869
    # 42,004,074 is what torchvision states; its second head is a 3x3 convolution, norm and 1x1
    assert 42_004_074 - (1024 * 256 * 9 + 2 * 256 + 256 * 21 + 21) == 39_638_869


def test_deeplabv3plus_is_the_sum_of_its_layers():
    pyramid = 2048 * 256 + 3 * 2048 * 256 * 9 + 2048 * 256 + 5 * 256 * 256 + 6 * 2 * 256
    skip = 256 * 48 + 2 * 48
    decoder = (256 + 48) * 256 * 9 + 256 * 256 * 9 + 2 * 2 * 256
    total = RESNET50 + pyramid + skip + decoder + 256 * 21 + 21
    assert count(on_meta(DeepLabV3Plus, 3, 21)) == total


def mix_transformer(depths, dims):
    """Parameters of a Mix Transformer by its layer list: 7x7 and 3x3 patches, 4x wide."""
    total, given = 0, 3
    for level, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
        side, ratio = (7 if level == 0 else 3), (8, 4, 2, 1)[level]
        total += given * dim * side * side + dim + 2 * dim
        reduction = dim * dim * ratio**2 + dim + 2 * dim if ratio > 1 else 0
        attention = 4 * (dim * dim + dim) + reduction
        wide = 4 * dim
        mixing = dim * wide + wide + 9 * wide + wide + wide * dim + dim
        total += depth * (2 * 2 * dim + attention + mixing) + 2 * dim
        given = dim
    return total


MIT = {
    "mit-b0": ((2, 2, 2, 2), (32, 64, 160, 256)),
    "mit-b1": ((2, 2, 2, 2), (64, 128, 320, 512)),
    "mit-b2": ((3, 4, 6, 3), (64, 128, 320, 512)),
    "mit-b3": ((3, 4, 18, 3), (64, 128, 320, 512)),
    "mit-b4": ((3, 8, 27, 3), (64, 128, 320, 512)),
    "mit-b5": ((3, 6, 40, 3), (64, 128, 320, 512)),
}


def test_mix_transformer_is_the_sum_of_its_layers():
    assert count(on_meta(MixTransformer, 3, "mit-b0")) == mix_transformer(*MIT["mit-b0"])
    assert mix_transformer(*MIT["mit-b0"]) == 3_319_392


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("mit-b0", 3.8),
        ("mit-b1", 13.7),
        ("mit-b2", 27.5),
        ("mit-b3", 47.3),
        ("mit-b4", 64.1),
        ("mit-b5", 84.7),
    ],
)
def test_segformer_has_the_published_number(name, millions):
    network = on_meta(SegFormer, 3, 150, name)
    assert round(count(network) / 1e6, 1) == millions
    wide = 256 if name in ("mit-b0", "mit-b1") else 768
    head = sum(d * wide + wide for d in MIT[name][1])
    head += 4 * wide * wide + 2 * wide + wide * 150 + 150
    assert count(network) == mix_transformer(*MIT[name]) + head


def test_daformer_is_the_sum_of_its_layers():
    separable = 1024 * 9 + 2 * 1024 + 1024 * 256 + 2 * 256
    head = sum(d * 256 + 256 for d in MIT["mit-b5"][1])
    head += 1024 * 256 + 2 * 256 + 3 * separable + 1024 * 256 * 9 + 2 * 256 + 256 * 19 + 19
    network = on_meta(DAFormer, 3, 19)
    assert count(network) == mix_transformer(*MIT["mit-b5"]) + head
    assert round(count(network) / 1e6, 1) == 85.2


def test_gum_is_the_sum_of_its_layers():
    widths = (64, 128, 256, 512, 1024)

    def pair(given, wanted):
        return 9 * given * wanted + 9 * wanted * wanted + 2 * 2 * wanted

    encoder = sum(pair(a, b) for a, b in zip((10, *widths), widths, strict=False))
    # up: bilinear and 1x1 to the skip's width, then two convolutions beside the skip
    decoder = sum(b * a + 2 * a + pair(2 * a, a) for a, b in pairwise(widths))
    head = 4 * (64 * 16 + 2 * 16) + (64 + 4 * 16) * 16 * 9 + 2 * 16 + 16 * 2 + 2
    assert count(on_meta(GlobalUrbanMapper)) == encoder + decoder + head
    with_products = on_meta(GlobalUrbanMapper, 13)
    assert count(with_products) == encoder + decoder + head + 3 * 64 * 9


def test_ugsnet_is_the_sum_of_its_layers():
    network = on_meta(UGSNet)
    widths = (256, 512, 1024, 2048)
    attention = 0
    for wide in widths:
        inner = max(8, wide // 16)
        # shared 1x1, two 3x3; then 1x1 to the inner width and back
        attention += wide * inner + 2 * 9 * inner * wide + 2 * wide * inner
    decoder = sum(w * 96 for w in widths) + 384 * 256 * 9 + 256 * 2
    points = 514 * 2
    resnet = RESNET50 - 2 * (64 + 3 * (64 + 64 + 256) + 256 + 4 * (128 + 128 + 512) + 512)
    resnet -= 2 * (6 * (256 + 256 + 1024) + 1024 + 3 * (512 + 512 + 2048) + 2048)
    assert kernels(network) == resnet + attention + decoder + points
    assert count(network) == pytest.approx(kernels(network), rel=0.005)


def test_fbp_unet_is_the_sum_of_its_layers():
    def pair(given, middle, wanted):
        return 9 * given * middle + 9 * middle * wanted

    down = pair(4, 64, 64) + pair(64, 128, 128) + pair(128, 256, 256)
    down += pair(256, 512, 512) + pair(512, 512, 512)
    up = pair(1024, 512, 256) + pair(512, 256, 128) + pair(256, 128, 64) + pair(128, 64, 64)
    network = on_meta(FbpUNet)
    assert kernels(network) == down + up + 64 * 25
    assert count(network) == pytest.approx(kernels(network), rel=0.001)
    assert network(torch.zeros(1, 4, 64, 64, device="meta")).shape == (1, 24, 64, 64)


@pytest.mark.parametrize("depth", [2, 4, 5])
def test_unet_doubles_its_width(depth):
    network = on_meta(UNet, 3, 2, width=8, depth=depth)
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert max(c.out_channels for c in convs) == 8 * 2 ** (depth - 1)
    assert network.multiple == 2 ** (depth - 1)


# strides and dilations ----------------------------------------------------------------------


def dilations(module, width):
    """Of the 3x3 convolutions within a stage of bottlenecks."""
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    return [c.dilation[0] for c in convs if c.in_channels == c.out_channels == width]


@pytest.mark.parametrize(
    ("stride", "sides", "third", "fourth"),
    [
        (32, (32, 16, 8, 4), [1] * 6, [1] * 3),
        (16, (32, 16, 8, 8), [1] * 6, [1, 2, 2]),
        (8, (32, 16, 16, 16), [1, 2, 2, 2, 2, 2], [2, 4, 4]),
    ],
)
def test_output_stride_becomes_dilation(stride, sides, third, fourth):
    backbone = on_meta(ResNet, 3, "resnet50", stride)
    features = backbone(torch.zeros(1, 3, 128, 128, device="meta"))
    assert [f.shape[2] for f in features] == list(sides)
    assert [f.shape[1] for f in features] == [256, 512, 1024, 2048]
    assert dilations(backbone, 64) == [1] * 3
    assert dilations(backbone, 128) == [1] * 4
    assert dilations(backbone, 256) == third
    assert dilations(backbone, 512) == fourth
    for conv in backbone.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            assert conv.padding == conv.dilation


@pytest.mark.parametrize(
    ("make", "rates"),
    [
        (lambda: DeepLabV3(3, 2), {12, 24, 36}),
        (lambda: DeepLabV3Plus(3, 2), {6, 12, 18}),
        (lambda: DeepLabV3Plus(3, 2, output_stride=8), {12, 24, 36}),
        (lambda: DAFormer(3, 2, backbone="mit-b0"), {6, 12, 18}),
    ],
)
def test_rates_of_the_pyramid(make, rates):
    convs = [m for m in on_meta(make).modules() if isinstance(m, nn.Conv2d)]
    assert {c.dilation[0] for c in convs if c.dilation[0] > 4} == rates


def test_ugsnet_sees_at_a_half_to_a_sixteenth():
    network, seen = on_meta(UGSNet), []
    for module in network.modules():
        if isinstance(module, CoordinateAttention):
            module.register_forward_hook(lambda m, given, out: seen.append((given[0], out)))
    network(torch.zeros(1, 3, 128, 128, device="meta"))
    assert [given.shape[1:] for given, _ in seen] == [
        (256, 64, 64),
        (512, 32, 32),
        (1024, 16, 16),
        (2048, 8, 8),
    ]
    assert all(given.shape == out.shape for given, out in seen)
    assert dilations(network, 512) == [1, 2, 4]
    assert dilations(network, 256) == [1] * 6


def test_ugsnet_decides_at_a_quarter():
    network = on_meta(UGSNet)
    logits, features = network.coarse(torch.zeros(1, 3, 128, 160, device="meta"))
    assert logits.shape == (1, 2, 32, 40)
    assert features.shape == (1, 512, 32, 40)
    given = {m.in_channels for m in network.modules() if isinstance(m, nn.Conv1d)}
    assert given == {514}


def test_mix_transformer_yields_four_levels():
    levels = on_meta(MixTransformer, 10, "mit-b2")(torch.zeros(1, 10, 128, 64, device="meta"))
    sizes = [(64, 32, 16), (128, 16, 8), (320, 8, 4), (512, 4, 2)]
    assert [tuple(level.shape[1:]) for level in levels] == sizes


def test_fbp_unet_never_yields_the_unlabelled_class():
    network = FbpUNet(4, 3, width=2).eval()
    image = torch.rand(1, 4, 32, 32)
    with torch.inference_mode():
        before = network(image)
        network.classify.weight[0] += 9
        network.classify.bias[0] += 99
        assert network.classify.out_channels == 4
        torch.testing.assert_close(network(image), before, rtol=0, atol=0)


# parts --------------------------------------------------------------------------------------


@given(
    height=st.integers(1, 70), width=st.integers(1, 70), cells=st.integers(1, 9), seed=st.integers()
)
def test_pooled_is_adaptive_average_pooling(height, width, cells, seed):
    values = np.random.default_rng(abs(seed)).normal(size=(2, 3, height, width))
    image = torch.from_numpy(values)
    expected = functional.adaptive_avg_pool2d(image, cells)
    torch.testing.assert_close(pooled(image, cells), expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 24), st.integers(1, 24))
def test_attention_only_damps(channels, height, width):
    block = CoordinateAttention(channels).eval()
    features = torch.randn(2, channels, height, width) + 0.01
    with torch.inference_mode():
        out = block(features)
    assert out.shape == features.shape
    share = out / features
    assert ((share > 0) & (share < 1)).all()


def test_attention_is_a_product_of_rows_columns_and_channels():
    block = CoordinateAttention(6).eval().double()
    features = torch.rand(1, 6, 9, 11, dtype=torch.float64) + 0.5
    with torch.inference_mode():
        share = (block(features) / features)[0]
    # of rank one along y and x, whatever the channel
    for plane in share:
        scale = torch.linalg.svdvals(plane)
        assert scale[1] < 1e-12 * scale[0]


# points -------------------------------------------------------------------------------------


def bilinear_at(image, x, y):
    """Value `(channel,)` at a place in pixels, pixel centres at .5, edges repeated."""
    height, width = image.shape[1:]
    x, y = np.clip(x - 0.5, 0, width - 1), np.clip(y - 0.5, 0, height - 1)
    c, r = int(np.floor(x)), int(np.floor(y))
    c1, r1 = min(c + 1, width - 1), min(r + 1, height - 1)
    fx, fy = x - c, y - r
    top = (1 - fx) * image[:, r, c] + fx * image[:, r, c1]
    low = (1 - fx) * image[:, r1, c] + fx * image[:, r1, c1]
    return (1 - fy) * top + fy * low


def doubled(logits):
    return functional.interpolate(logits, scale_factor=2, mode="bilinear", align_corners=True)


def refined_by_loops(head, logits, features, steps):
    """What PointRend's inference says, a pixel at a time."""
    (layer,) = [m for m in head.modules() if isinstance(m, nn.Conv1d)]
    weight, bias = layer.weight[:, :, 0].numpy(), layer.bias.numpy()
    for _ in range(steps):
        logits = doubled(logits)
        now = logits[0].numpy().copy()
        height, width = now.shape[1:]
        order = np.sort(now, axis=0)
        doubt = (order[-1] - order[-2]).ravel()
        for place in np.argsort(doubt, kind="stable")[:1024]:
            row, col = divmod(int(place), width)
            fine = features[0].numpy()
            beside = bilinear_at(
                fine,
                (col + 0.5) / width * fine.shape[2],
                (row + 0.5) / height * fine.shape[1],
            )
            seen = np.concatenate([logits[0, :, row, col].numpy(), beside])
            now[:, row, col] = weight @ seen + bias
        logits = torch.from_numpy(now)[None]
    return logits


@pytest.mark.parametrize("classes", [2, 4])
def test_refinement_is_what_a_loop_does(classes):
    head = PointHead(5, classes).double()
    logits = torch.randn(1, classes, 20, 28, dtype=torch.float64)
    features = torch.randn(1, 5, 20, 28, dtype=torch.float64)
    with torch.inference_mode():
        found = head.refine(logits, features, 2)
        expected = refined_by_loops(head, logits, features, 2)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_step_decides_so_many_pixels_again():
    head = PointHead(5, 3)
    logits, features = torch.randn(2, 3, 40, 48), torch.randn(2, 5, 40, 48)
    with torch.inference_mode():
        once = head.refine(logits, features, 1)
        changed = (once != doubled(logits)).any(dim=1)
        assert changed.flatten(1).sum(dim=1).tolist() == [1024, 1024]
        doubt = uncertainty(doubled(logits))
        for one in range(2):
            assert doubt[one][changed[one]].min() >= doubt[one][~changed[one]].max()
        twice = head.refine(logits, features, 2)
        assert (twice != doubled(once)).any(dim=1).flatten(1).sum(dim=1).tolist() == [1024, 1024]


@pytest.mark.parametrize("autocast", [False, True])
def test_sixteen_bits_find_the_same_places(autocast):
    """Columns in turn 0 and 1 tell apart where a point was looked up; all points take them."""
    head = PointHead(1, 2)
    with torch.no_grad():
        head.layer.weight.zero_()[:, 2] = 1
        head.layer.bias.zero_()
    logits = torch.randn(1, 2, 16, 256)
    columns = (torch.arange(256) % 2).float().expand(1, 1, 16, 256)
    with torch.inference_mode():
        expected = head.refine(logits, columns, 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            if not autocast:
                head.bfloat16()
            found = head.refine(logits.bfloat16(), columns.bfloat16(), 1).float()
    decided = (expected[:, 0] == expected[:, 1]) & (found[:, 0] == found[:, 1])
    assert decided.sum() > 900
    off = (found - expected).abs()[:, 0][decided]
    assert off.max() < 0.01


def test_small_images_decide_all_their_pixels():
    head = PointHead(5, 3)
    logits, features = torch.randn(1, 3, 8, 12), torch.randn(1, 5, 8, 12)
    with torch.inference_mode():
        found = head.refine(logits, features, 1)
        expected = refined_by_loops(head, logits, features, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_ugsnet_of_a_small_patch():
    with torch.inference_mode():
        assert tiny("ugsnet")(torch.rand(1, 3, 32, 32)).shape == (1, 4, 32, 32)


def test_training_points_are_mostly_the_doubtful_ones():
    """Doubt grows to the right, so three quarters of the points lie right of chance."""
    row = torch.linspace(3, 0, 64)
    logits = torch.stack([row, -row])[None, :, None].expand(4, 2, 64, 64)
    points = training_points(logits, 400)
    assert points.shape == (4, 400, 2)
    assert ((points >= 0) & (points <= 1)).all()
    important, rest = points[:, :300], points[:, 300:]
    # 300 most doubtful of 1,200 lie in the right quarter or so
    assert important[..., 0].min() > 0.65
    assert rest[..., 0].mean() == pytest.approx(0.5, abs=0.08)
    assert rest[..., 1].mean() == pytest.approx(0.5, abs=0.08)


def test_points_a_row_in_training():
    """Both losses of the point head: all pixels, and four points for each column."""
    network, seen = tiny("ugsnet"), []

    def criterion(logits, label):
        seen.append((tuple(logits.shape), tuple(label.shape)))
        return functional.cross_entropy(logits, label, ignore_index=-1)

    label = torch.full((2, 64, 96), -1)
    label[:, 10:50, 20:60] = 1
    loss = network.loss(torch.rand(2, 3, 64, 96), label, criterion)
    assert torch.isfinite(loss)
    assert seen == [((2, 4, 64, 96), (2, 64, 96)), ((2, 4, 4 * 96), (2, 4 * 96))]


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 99))
def test_values_at_points(height, width, seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(1, 2, height, width))
    points = rng.random((1, 5, 2))
    found = point_values(torch.from_numpy(image), torch.from_numpy(points))[0].numpy()
    expected = [bilinear_at(image[0], x * width, y * height) for x, y in points[0]]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), rtol=1e-9, atol=1e-9)


# first convolutions and published weights ---------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 9, 10, 13])
def test_a_first_convolution_for_more_channels_keeps_its_range(channels):
    conv = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
    wide = widened(conv, channels)
    assert wide.weight.shape == (8, channels, 7, 7)
    assert (wide.stride, wide.padding, wide.bias) == (conv.stride, conv.padding, None)
    grey = torch.rand(1, 1, 20, 20)
    with torch.inference_mode():
        conv.weight.copy_(conv.weight.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1))
        wide = widened(conv, channels)
        expected = conv(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(wide(grey.expand(-1, channels, -1, -1)), expected)


@pytest.mark.parametrize("channels", [6, 9, 12])
def test_channels_that_repeat_the_colours_give_the_same(channels):
    conv = nn.Conv2d(3, 8, 3)
    image = torch.rand(1, 3, 9, 9)
    with torch.inference_mode():
        found = widened(conv, channels)(image.repeat(1, channels // 3, 1, 1))
        torch.testing.assert_close(found, conv(image))
    assert widened(conv, 3) is conv


def resnet(channels=3, pretrained=None):
    return ResNet(channels, "resnet18", 32, width=0.125, pretrained=pretrained)


def transformer(channels=3, pretrained=None):
    return MixTransformer(channels, "mit-b0", pretrained=pretrained)


@pytest.mark.parametrize("make", [resnet, transformer])
def test_published_weights_are_taken_as_they_are(make, tmp_path):
    known = make()
    known.body.save_pretrained(tmp_path)
    same, wide = (make(c, str(tmp_path)).state_dict() for c in (3, 5))
    expected = known.state_dict()
    assert same.keys() == wide.keys() == expected.keys()
    other = [n for n, t in expected.items() if not torch.equal(t, same[n])]
    assert other == []
    changed = [n for n, t in expected.items() if t.shape != wide[n].shape]
    assert len(changed) == 1
    first, adapted = expected[changed[0]], wide[changed[0]]
    torch.testing.assert_close(adapted, first[:, [0, 1, 2, 0, 1]] * 3 / 5)
    assert all(torch.equal(expected[n], wide[n]) for n in expected if n != changed[0])


@pytest.mark.parametrize("make", [resnet, transformer])
def test_published_weights_of_another_network_are_refused(make, tmp_path):
    """What is stored could not be loaded again: the recipe would build another network."""
    if make is resnet:
        ResNet(3, "resnet18", 32, width=0.25).body.save_pretrained(tmp_path)
    else:
        from transformers import SegformerConfig, SegformerModel

        # as deep as B0, as B1 is
        config = SegformerConfig(hidden_sizes=[8, 16, 40, 64], depths=[2, 2, 2, 2])
        SegformerModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="pretrained"):
        make(3, str(tmp_path))


@pytest.mark.parametrize("kind", ["of another network", "not whole"])
def test_published_weights_that_leave_some_random_are_refused(kind, tmp_path):
    body = transformer().body if kind == "of another network" else resnet().body
    body.save_pretrained(tmp_path)
    if kind == "not whole":
        tensors = load_file(tmp_path / "model.safetensors")
        kept = {n: t for n, t in tensors.items() if "stages.2" not in n}
        save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="pretrained"):
        resnet(3, str(tmp_path))


@pytest.mark.parametrize("make", [resnet, transformer])
@pytest.mark.parametrize("name", ["/nowhere/weights", "nobody/no-such-weights"])
@pytest.mark.usefixtures("offline")
def test_weights_that_cannot_be_had_are_an_error(make, name):
    with pytest.raises(ModelError, match="cannot be loaded"):
        make(3, name)


@pytest.mark.usefixtures("offline")
def test_pickled_weights_are_not_taken(tmp_path):
    body = resnet().body
    body.config.save_pretrained(tmp_path)
    torch.save(body.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        resnet(3, str(tmp_path))


@pytest.mark.parametrize("make", [ResNet, MixTransformer])
def test_a_backbone_that_there_is_not(make):
    with pytest.raises(ModelError, match="no backbone"):
        make(3, "vgg16")


# behind the inputs of a model folder --------------------------------------------------------


class Echo(Segmenter):
    """Yields what it is given."""

    def forward(self, image):
        return image


def echo(**changed):
    settings = {"sources": ((0, 1), (2,)), "fill": -7.0, "validity": True, "presence": True}
    return Supervised(Echo(), **(settings | changed))


@pytest.mark.parametrize("value", [0.0, -9999.0, 3e38, torch.inf, torch.nan])
def test_missing_values_have_no_influence(value):
    image, valid = torch.rand(2, 3, 5, 6), (torch.rand(2, 3, 5, 6) > 0.4).float()
    hidden = torch.where(valid > 0, image, torch.tensor(value))
    network = echo()
    found, expected = network(hidden, valid), network(image, valid)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert (found[:, :3][valid == 0] == -7.0).all()
    torch.testing.assert_close(found[:, :3][valid > 0], image[valid > 0], rtol=0, atol=0)


def test_presence_is_one_plane_a_source():
    image, valid = torch.rand(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    valid[0, 1, 0, 0] = valid[0, 2, 3, 3] = 0
    planes = echo()(image, valid)[0, 3:]
    assert planes.shape == (2, 4, 4)
    expected = torch.ones(2, 4, 4)
    expected[0, 0, 0] = expected[1, 3, 3] = 0
    torch.testing.assert_close(planes, expected, rtol=0, atol=0)


@pytest.mark.parametrize("presence", [False, True])
def test_without_a_validity_plane_all_of_it_is_data(presence):
    image = torch.rand(1, 3, 4, 4)
    network = echo(presence=presence)
    whole = network(image, torch.ones_like(image))
    torch.testing.assert_close(network(image), whole, rtol=0, atol=0)


RADAR = [
    "sentinel2:red",
    "sentinel1:vv_ascending",
    "sentinel1:vh_ascending",
    "sentinel1:vv_descending",
    "sentinel1:vh_descending",
]


def radar(**network):
    return Train(
        network=Network(name="unet", options={"width": 4, "depth": 2}, **network),
        bands=RADAR,
        required=["sentinel2:red"],
        classes=[
            ClassEntry(value=0, name="land", color="8429F6"),
            ClassEntry(value=1, name="road", color="6EC1E4"),
        ],
    )


def test_orbits_are_sources_of_their_own():
    assert source_channels(RADAR) == ((0,), (1, 2), (3, 4))
    assert source_channels(["a:vv", "b:red", "a:vh"]) == ((0, 2), (1,))


@pytest.mark.parametrize("presence", [False, True])
def test_a_missing_orbit_differs_from_a_dark_one(presence):
    network = build_network(radar(presence=presence)).eval()
    image = torch.rand(1, 5, 16, 16)
    image[:, 3:] = 0.0
    dark, gone = torch.ones(1, 5, 16, 16), torch.ones(1, 5, 16, 16)
    gone[:, 3:] = 0
    with torch.inference_mode():
        change = (network(image, dark) - network(image, gone)).abs().max()
    assert (change > 0) == presence


def test_options_that_a_network_has_not():
    train = Train.model_validate(
        radar().model_dump() | {"network": {"name": "unet", "options": {"widht": 4}}}
    )
    with pytest.raises(RecipeError, match=r"widht.*width, depth"):
        build_network(train)
