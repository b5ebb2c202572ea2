"""Published layouts against ours: networks written here by their published names and structure.

Each is run beside our network with the same weights, in float64, so that even the epsilon of a
normalisation shows.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional

from mapper.errors import ModelError
from mapper.training.keymaps import KEY_MAPS, guess_layout, key_map
from mapper.training.networks.backbone import MixTransformer
from mapper.training.networks.daformer import DAFormer
from mapper.training.networks.deeplab import DeepLabV3
from mapper.training.networks.fbp import FbpUNet
from mapper.training.networks.gum import GlobalUrbanMapper
from mapper.training.transfer import to_ours, to_published


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Named(nn.Module):
    """mmcv's convolution, normalisation and activation."""

    def __init__(self, given, wanted, kernel, dilation=1, groups=1):
        super().__init__()
        pad = dilation * (kernel // 2)
        self.conv = nn.Conv2d(
            given, wanted, kernel, padding=pad, dilation=dilation, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(wanted)

    def forward(self, x):
        return functional.relu(self.bn(self.conv(x)))


class Convs(nn.Module):
    def __init__(self, given, wanted):
        super().__init__()
        self.convs = nn.Sequential(Named(given, wanted, 3), Named(wanted, wanted, 3))

    def forward(self, x):
        return self.convs(x)


class Interpolated(nn.Module):
    def __init__(self, given, wanted):
        super().__init__()
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.interp_upsample = nn.Sequential(up, Named(given, wanted, 1))

    def forward(self, x):
        return self.interp_upsample(x)


class UpBlock(nn.Module):
    def __init__(self, given, skip):
        super().__init__()
        self.conv_block = Convs(2 * skip, skip)
        self.upsample = Interpolated(given, skip)

    def forward(self, skip, x):
        return self.conv_block(torch.cat([skip, self.upsample(x)], dim=1))


class MmsegUNet(nn.Module):
    def __init__(self, channels, base, stages):
        super().__init__()
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for i in range(stages):
            block = [] if i == 0 else [nn.MaxPool2d(2)]
            if i:
                self.decoder.append(UpBlock(base * 2**i, base * 2 ** (i - 1)))
            block.append(Convs(channels, base * 2**i))
            self.encoder.append(nn.Sequential(*block))
            channels = base * 2**i

    def forward(self, x):
        outs = []
        for stage in self.encoder:
            x = stage(x)
            outs.append(x)
        for i in reversed(range(len(self.decoder))):
            x = self.decoder[i](outs[i], x)
        return x


class PspHead(nn.Module):
    def __init__(self, given, channels, classes):
        super().__init__()
        self.conv_seg = nn.Conv2d(channels, classes, 1)
        self.psp_modules = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), Named(given, channels, 1))
            for scale in (1, 2, 3, 6)
        )
        self.bottleneck = Named(given + 4 * channels, channels, 3)

    def forward(self, x):
        outs = [x]
        for pool in self.psp_modules:
            outs.append(functional.interpolate(pool(x), x.shape[2:], mode="bilinear"))
        return self.conv_seg(self.bottleneck(torch.cat(outs, dim=1)))


class MmsegGum(nn.Module):
    def __init__(self, channels, base, stages, head, classes):
        super().__init__()
        self.backbone = MmsegUNet(channels, base, stages)
        self.decode_head = PspHead(base, head, classes)

    def forward(self, x):
        return self.decode_head(self.backbone(x))


class Bottleneck(nn.Module):
    def __init__(self, given, planes, stride, dilation, downsample):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(given, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(
            planes, planes, 3, stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = downsample

    def forward(self, x):
        out = functional.relu(self.bn1(self.conv1(x)))
        out = functional.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return functional.relu(out + (x if self.downsample is None else self.downsample(x)))


class VisionResNet(nn.Module):
    """replace_stride_with_dilation = False, True, True."""

    def __init__(self, channels, stem, planes, depths):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, stem, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.dilation, self.inplanes = 1, stem
        for i, depth in enumerate(depths):
            layer = self.layer(planes * 2**i, depth, 1 if i == 0 else 2, i >= 2)
            setattr(self, f"layer{i + 1}", layer)

    def layer(self, planes, depth, stride, dilate):
        before = self.dilation
        if dilate:
            self.dilation, stride = self.dilation * stride, 1
        blocks = []
        for number in range(depth):
            down = None
            if number == 0 and (stride != 1 or self.inplanes != 4 * planes):
                down = nn.Sequential(
                    nn.Conv2d(self.inplanes, 4 * planes, 1, stride, bias=False),
                    nn.BatchNorm2d(4 * planes),
                )
            rate, step = (before, stride) if number == 0 else (self.dilation, 1)
            blocks.append(Bottleneck(self.inplanes, planes, step, rate, down))
            self.inplanes = 4 * planes
        return nn.Sequential(*blocks)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def listed(given, wanted, kernel, rate=1):
    conv = nn.Conv2d(given, wanted, kernel, padding=rate * (kernel // 2), dilation=rate, bias=False)
    return [conv, nn.BatchNorm2d(wanted), nn.ReLU()]


class VisionAspp(nn.Module):
    def __init__(self, given):
        super().__init__()
        self.convs = nn.ModuleList([nn.Sequential(*listed(given, 256, 1))])
        self.convs.extend(nn.Sequential(*listed(given, 256, 3, rate)) for rate in (12, 24, 36))
        self.convs.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), *listed(given, 256, 1)))
        self.project = nn.Sequential(*listed(5 * 256, 256, 1), nn.Dropout(0.5))

    def forward(self, x):
        outs = [functional.interpolate(c(x), x.shape[2:], mode="bilinear") for c in self.convs]
        return self.project(torch.cat(outs, dim=1))


class VisionDeepLab(nn.Module):
    def __init__(self, channels, stem, planes, depths, classes):
        super().__init__()
        self.backbone = VisionResNet(channels, stem, planes, depths)
        given = planes * 8 * 4
        head = listed(256, 256, 3)
        self.classifier = nn.Sequential(VisionAspp(given), *head, nn.Conv2d(256, classes, 1))
        aux = listed(given // 2, 8, 3)
        self.aux_classifier = nn.Sequential(*aux, nn.Dropout(0.1), nn.Conv2d(8, classes, 1))

    def forward(self, x):
        out = self.classifier(self.backbone(x))
        return functional.interpolate(out, x.shape[2:], mode="bilinear", align_corners=False)


class DoubleConv(nn.Module):
    def __init__(self, given, wanted, middle, bias):
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(given, middle, 3, padding=1, bias=bias),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, wanted, 3, padding=1, bias=bias),
            nn.BatchNorm2d(wanted),
            nn.ReLU(),
        )

    def forward(self, x):
        return self.double_conv(x)


class Down(nn.Module):
    def __init__(self, given, wanted, bias):
        super().__init__()
        conv = DoubleConv(given, wanted, wanted, bias)
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), conv)

    def forward(self, x):
        return self.maxpool_conv(x)


class Up(nn.Module):
    def __init__(self, given, wanted, bias):
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv = DoubleConv(given, wanted, given // 2, bias)

    def forward(self, x1, x2):
        x1 = self.up(x1)
        y, x = x2.shape[2] - x1.shape[2], x2.shape[3] - x1.shape[3]
        x1 = functional.pad(x1, [x // 2, x - x // 2, y // 2, y - y // 2])
        return self.conv(torch.cat([x2, x1], dim=1))


class Out(nn.Module):
    def __init__(self, given, classes):
        super().__init__()
        self.conv = nn.Conv2d(given, classes, 1)

    def forward(self, x):
        return self.conv(x)


class MilesialUNet(nn.Module):
    def __init__(self, channels, w, classes, bias):
        super().__init__()
        self.inc = DoubleConv(channels, w, w, bias)
        for i, (a, b) in enumerate(((1, 2), (2, 4), (4, 8), (8, 8))):
            setattr(self, f"down{i + 1}", Down(a * w, b * w, bias))
        for i, (a, b) in enumerate(((16, 4), (8, 2), (4, 1), (2, 1))):
            setattr(self, f"up{i + 1}", Up(a * w, b * w, bias))
        self.outc = Out(w, classes)

    def forward(self, x):
        x1 = self.inc(x)
        x2 = self.down1(x1)
        x3 = self.down2(x2)
        x4 = self.down3(x3)
        x = self.up1(self.down4(x4), x4)
        return self.outc(self.up4(self.up3(self.up2(x, x3), x2), x1))


class Embed(nn.Module):
    def __init__(self, given, wanted, patch, stride):
        super().__init__()
        self.proj = nn.Conv2d(given, wanted, patch, stride, patch // 2)
        self.norm = nn.LayerNorm(wanted)

    def forward(self, x):
        x = self.proj(x)
        return self.norm(x.flatten(2).transpose(1, 2)), x.shape[2], x.shape[3]


class Attention(nn.Module):
    def __init__(self, dim, heads, ratio):
        super().__init__()
        self.heads, self.ratio = heads, ratio
        self.q, self.kv = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        if ratio > 1:
            self.sr, self.norm = nn.Conv2d(dim, dim, ratio, ratio), nn.LayerNorm(dim)

    def forward(self, x, h, w):
        b, n, c = x.shape
        q = self.q(x).reshape(b, n, self.heads, c // self.heads).permute(0, 2, 1, 3)
        if self.ratio > 1:
            x = self.sr(x.permute(0, 2, 1).reshape(b, c, h, w))
            x = self.norm(x.reshape(b, c, -1).permute(0, 2, 1))
        kv = self.kv(x).reshape(b, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ kv[0].transpose(-2, -1) * (c // self.heads) ** -0.5
        x = (scores.softmax(dim=-1) @ kv[1]).transpose(1, 2).reshape(b, n, c)
        return self.proj(x)


class Depthwise(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)

    def forward(self, x, h, w):
        b, _, c = x.shape
        return self.dwconv(x.transpose(1, 2).reshape(b, c, h, w)).flatten(2).transpose(1, 2)


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.dwconv = nn.Linear(dim, 4 * dim), Depthwise(4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x, h, w):
        return self.fc2(functional.gelu(self.dwconv(self.fc1(x), h, w)))


class Block(nn.Module):
    def __init__(self, dim, heads, ratio):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn, self.mlp = Attention(dim, heads, ratio), Mlp(dim)

    def forward(self, x, h, w):
        x = x + self.attn(self.norm1(x), h, w)
        return x + self.mlp(self.norm2(x), h, w)


class Mit(nn.Module):
    def __init__(self, channels, dims=(32, 64, 160, 256), depths=(2, 2, 2, 2)):
        super().__init__()
        for i, dim in enumerate(dims):
            patch, stride = (7, 4) if i == 0 else (3, 2)
            embed = Embed(channels if i == 0 else dims[i - 1], dim, patch, stride)
            heads, ratio = (1, 2, 5, 8)[i], (8, 4, 2, 1)[i]
            blocks = nn.ModuleList(Block(dim, heads, ratio) for _ in range(depths[i]))
            setattr(self, f"patch_embed{i + 1}", embed)
            setattr(self, f"block{i + 1}", blocks)
            setattr(self, f"norm{i + 1}", nn.LayerNorm(dim, 1e-6))

    def forward(self, x):
        outs = []
        for i in range(1, 5):
            x, h, w = getattr(self, f"patch_embed{i}")(x)
            for block in getattr(self, f"block{i}"):
                x = block(x, h, w)
            x = getattr(self, f"norm{i}")(x)
            x = x.reshape(len(x), h, w, -1).permute(0, 3, 1, 2)
            outs.append(x)
        return outs


class Projection(nn.Module):
    def __init__(self, given, wanted):
        super().__init__()
        self.proj = nn.Linear(given, wanted)

    def forward(self, x):
        return self.proj(x.flatten(2).transpose(1, 2))


class Separable(nn.Module):
    def __init__(self, given, wanted, rate):
        super().__init__()
        self.depthwise_conv = Named(given, given, 3, rate, given)
        self.pointwise_conv = Named(given, wanted, 1)

    def forward(self, x):
        return self.pointwise_conv(self.depthwise_conv(x))


class Aspp(nn.Module):
    def __init__(self, given, wanted):
        super().__init__()
        self.aspp_modules = nn.ModuleList([Named(given, wanted, 1)])
        self.aspp_modules.extend(Separable(given, wanted, rate) for rate in (6, 12, 18))
        self.bottleneck = Named(4 * wanted, wanted, 3)

    def forward(self, x):
        return self.bottleneck(torch.cat([module(x) for module in self.aspp_modules], dim=1))


class DaformerHead(nn.Module):
    def __init__(self, dims, wanted, classes):
        super().__init__()
        self.conv_seg = nn.Conv2d(wanted, classes, 1)
        self.embed_layers = nn.ModuleDict({str(i): Projection(d, wanted) for i, d in dims})
        self.fuse_layer = Aspp(4 * wanted, wanted)

    def forward(self, features):
        outs = []
        for i, x in enumerate(features):
            out = self.embed_layers[str(i)](x).permute(0, 2, 1)
            out = out.reshape(len(x), -1, *x.shape[2:])
            outs.append(functional.interpolate(out, features[0].shape[2:], mode="bilinear"))
        return self.conv_seg(self.fuse_layer(torch.cat(outs, dim=1)))


class PublishedDaformer(nn.Module):
    def __init__(self, channels, wanted, classes, dims=(32, 64, 160, 256), depths=(2, 2, 2, 2)):
        super().__init__()
        self.backbone = Mit(channels, dims, depths)
        self.decode_head = DaformerHead(enumerate(dims), wanted, classes)

    def forward(self, x):
        out = self.decode_head(self.backbone(x))
        return functional.interpolate(out, x.shape[2:], mode="bilinear", align_corners=False)


def stirred(module, seed=3):
    """Every number random, that of normalisations too; none so small that it hides."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            fan = tensor[0].numel() if tensor.dim() > 1 else 1
            tensor.normal_(0, (1.5 / fan) ** 0.5, generator=generator)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            part.weight.data.uniform_(0.5, 1.5, generator=generator)
    return module.double().eval()


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


PAIRS = {
    "mmseg-unet-psp": (
        lambda: MmsegGum(5, 4, 4, 6, 3),
        lambda: GlobalUrbanMapper(5, 3, width=4, stages=4, head=6),
        (2, 5, 48, 40),
    ),
    "torchvision-deeplabv3": (
        lambda: VisionDeepLab(4, 8, 2, (3, 4, 6, 3), 5),
        lambda: DeepLabV3(4, 5, width=1 / 32),
        # wide enough for the farthest of the dilated convolutions
        (1, 4, 9, 328),
    ),
    "milesial-unet": (
        lambda: MilesialUNet(4, 4, 7, bias=False),
        lambda: FbpUNet(4, 6, width=4),
        (1, 4, 37, 50),
    ),
    "daformer": (
        lambda: PublishedDaformer(3, 8, 6),
        lambda: DAFormer(3, 6, "mit-b0", width=8),
        (1, 3, 72, 104),
    ),
}


def loaded(name, published):
    ours = PAIRS[name][1]().double().eval()
    ours.load_state_dict(to_ours(key_map(name), published, ours))
    return ours


@pytest.mark.parametrize("name", PAIRS)
def test_published_weights_give_published_logits(name):
    theirs = stirred(PAIRS[name][0]())
    ours = loaded(name, theirs.state_dict())
    image = noise(*PAIRS[name][2])
    with torch.inference_mode():
        wanted, found = theirs(image), ours(image)
    if name == "milesial-unet":
        wanted = wanted[:, 1:]
    assert wanted.std() > 0.01
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_layout_is_guessed_and_there_and_back_is_the_same(name):
    published = stirred(PAIRS[name][0]()).state_dict()
    layout = guess_layout(published)
    assert layout.name == name
    back = to_published(layout, loaded(name, published))
    kept = {n: t for n, t in published.items() if not n.startswith(layout.dropped)}
    assert back.keys() == kept.keys()
    for key, tensor in kept.items():
        torch.testing.assert_close(back[key], tensor, rtol=0, atol=0)


def test_backbone_of_imagenet():
    theirs = stirred(Mit(4))
    ours = MixTransformer(4).double().eval()
    published = theirs.state_dict() | {"head.weight": noise(10, 256), "head.bias": noise(10)}
    layout = guess_layout(published)
    assert layout.name == "mit"
    ours.load_state_dict(to_ours(layout, published, ours))
    with torch.inference_mode():
        pairs = zip(ours(noise(1, 4, 64, 96)), theirs(noise(1, 4, 64, 96)), strict=True)
        for found, wanted in pairs:
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    assert "head.weight" not in to_published(layout, ours)


def test_biases_before_normalisation_are_folded():
    theirs = stirred(MilesialUNet(4, 4, 7, bias=True))
    assert "inc.double_conv.0.bias" in theirs.state_dict()
    ours = loaded("milesial-unet", theirs.state_dict())
    image = noise(1, 4, 32, 48)
    with torch.inference_mode():
        torch.testing.assert_close(ours(image), theirs(image)[:, 1:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("outputs", "classes"), [(3, 3), (1, 2)])
def test_milesial_without_unlabelled(outputs, classes):
    theirs = stirred(MilesialUNet(4, 4, outputs, bias=False))
    ours = FbpUNet(4, classes, width=4).double().eval()
    ours.load_state_dict(to_ours(key_map("milesial-unet"), theirs.state_dict(), ours))
    image = noise(1, 4, 32, 32)
    with torch.inference_mode():
        wanted, found = theirs(image), ours(image)
    if outputs == 1:
        torch.testing.assert_close(found.softmax(1)[:, 1:], wanted.sigmoid())
    else:
        torch.testing.assert_close(found, wanted)


def test_transposed_convolutions_are_refused():
    published = MilesialUNet(4, 4, 7, bias=False).state_dict() | {"up1.up.weight": noise(8, 4)}
    with pytest.raises(ModelError, match="transposed convolutions"):
        loaded("milesial-unet", published)


def test_counters_may_be_absent():
    published = stirred(PAIRS["mmseg-unet-psp"][0]()).state_dict()
    without = {n: t for n, t in published.items() if "num_batches" not in n}
    assert len(without) < len(published)
    loaded("mmseg-unet-psp", without)


def test_what_is_missing_strange_or_of_another_shape_is_named():
    published = PAIRS["mmseg-unet-psp"][0]().state_dict()
    lost = published.pop("backbone.encoder.1.1.convs.0.conv.weight")
    with pytest.raises(ModelError, match=r"lacks 1 of .*backbone\.encoder\.1\.1\.convs\.0\.conv"):
        loaded("mmseg-unet-psp", published)
    strange = published | {"backbone.encoder.1.1.convs.0.conv.weight": lost, "neck.w": lost}
    with pytest.raises(ModelError, match=r"holds 1 that have no place \(neck\.w\)"):
        loaded("mmseg-unet-psp", strange)
    strange.pop("neck.w")
    strange["decode_head.conv_seg.bias"] = noise(9)
    with pytest.raises(ModelError, match=r"classify\.bias is \(9,\) and should be \(3,\)"):
        loaded("mmseg-unet-psp", strange)


def test_layout_of_another_network_and_unknown_layouts():
    with pytest.raises(ModelError, match="is of the network daformer, not of FbpUNet"):
        to_ours(key_map("daformer"), {}, FbpUNet(width=4))
    with pytest.raises(ModelError, match="no layout that is known"):
        guess_layout(["encoder.weight"])
    with pytest.raises(ModelError, match="no layout 'tf'"):
        key_map("tf")


def test_names_of_our_own():
    ours = stirred(FbpUNet(4, 6, width=4))
    state = ours.state_dict()
    assert to_ours(key_map("mapper"), state, ours).keys() == state.keys()


FULL = {
    "mmseg-unet-psp": (GlobalUrbanMapper, lambda: MmsegGum(10, 64, 5, 16, 2)),
    "torchvision-deeplabv3": (
        lambda: DeepLabV3(3, 21),
        lambda: VisionDeepLab(3, 64, 64, (3, 4, 6, 3), 21),
    ),
    "milesial-unet": (FbpUNet, lambda: MilesialUNet(4, 64, 25, bias=False)),
    "daformer": (
        lambda: DAFormer(3, 19),
        lambda: PublishedDaformer(3, 256, 19, (64, 128, 320, 512), (3, 6, 40, 3)),
    ),
}
FULL_KEYS = {
    "mmseg-unet-psp": {
        "backbone.encoder.0.0.convs.0.conv.weight": (64, 10, 3, 3),
        "backbone.encoder.4.1.convs.1.bn.running_var": (1024,),
        "backbone.decoder.3.upsample.interp_upsample.1.conv.weight": (512, 1024, 1, 1),
        "backbone.decoder.0.conv_block.convs.0.conv.weight": (64, 128, 3, 3),
        "decode_head.psp_modules.3.1.bn.bias": (16,),
        "decode_head.conv_seg.weight": (2, 16, 1, 1),
    },
    "torchvision-deeplabv3": {
        "backbone.conv1.weight": (64, 3, 7, 7),
        "backbone.layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "backbone.layer4.2.conv2.weight": (512, 512, 3, 3),
        "classifier.0.convs.4.1.weight": (256, 2048, 1, 1),
        "classifier.0.project.0.weight": (256, 1280, 1, 1),
        "classifier.4.bias": (21,),
    },
    "milesial-unet": {
        "down4.maxpool_conv.1.double_conv.3.weight": (512, 512, 3, 3),
        "up1.conv.double_conv.0.weight": (512, 1024, 3, 3),
        "up4.conv.double_conv.3.weight": (64, 64, 3, 3),
        "outc.conv.weight": (25, 64, 1, 1),
    },
    "daformer": {
        "backbone.block3.39.attn.kv.weight": (640, 320),
        "backbone.block1.2.attn.sr.weight": (64, 64, 8, 8),
        "backbone.norm4.weight": (512,),
        "decode_head.embed_layers.3.proj.weight": (256, 512),
        "decode_head.fuse_layer.aspp_modules.3.depthwise_conv.conv.weight": (1024, 1, 3, 3),
        "decode_head.fuse_layer.bottleneck.conv.weight": (256, 1024, 3, 3),
    },
}


@pytest.mark.parametrize("name", FULL)
def test_full_size_by_name_and_shape(name):
    with torch.device("meta"):
        ours, theirs = (build() for build in FULL[name])
    layout = key_map(name)
    published = to_published(layout, ours)
    wanted = {n: t for n, t in theirs.state_dict().items() if not n.startswith(layout.dropped)}
    assert {n: t.shape for n, t in published.items()} == {n: t.shape for n, t in wanted.items()}
    for key, shape in FULL_KEYS[name].items():
        assert tuple(published[key].shape) == shape
    assert to_ours(layout, published, ours).keys() == ours.state_dict().keys()


def test_parameters_as_torchvision_states_them():
    with torch.device("meta"):
        ours = DeepLabV3(3, 21)
    auxiliary = 1024 * 256 * 9 + 2 * 256 + 256 * 21 + 21
    assert sum(p.numel() for p in ours.parameters()) == 42_004_074 - auxiliary


def test_marks_are_of_one_layout_each():
    seen = [mark for layout in KEY_MAPS for mark in layout.marks]
    assert len(set(seen)) == len(seen)
