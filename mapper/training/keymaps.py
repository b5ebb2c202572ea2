"""Where the weights of published networks lie in ours: one table for each published layout.

A table pairs modules, and is written for the depth of the network at hand: it is read from the
published names to ours and back alike.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from mapper.errors import ModelError
from mapper.training.networks.backbone import MixTransformer
from mapper.training.networks.daformer import DAFormer
from mapper.training.networks.deeplab import DeepLabV3
from mapper.training.networks.fbp import FbpUNet
from mapper.training.networks.gum import GlobalUrbanMapper

WeightLayout = Literal[
    "mmseg-unet-psp", "torchvision-deeplabv3", "milesial-unet", "daformer", "mit", "mapper"
]
WEIGHT_LAYOUTS: tuple[WeightLayout, ...] = get_args(WeightLayout)

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A published module, and the module of ours that holds its parameters."""

    published: str
    ours: tuple[str, ...]
    """Several where the published tensors hold theirs one behind the other."""
    linear: bool = False
    """Published as a linear layer over pixels, which is a 1x1 convolution here."""


def _unchanged(given: State, wanted: Mapping[str, Tensor]) -> State:
    return given


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMap:
    """A published layout."""

    name: WeightLayout
    kind: type[nn.Module]
    """Our network that it fits."""
    network: str
    """Its name in recipes; empty where it is a part of one."""
    places: Callable[[Any], Iterator[Place]]
    """For a network of that kind."""
    marks: tuple[str, ...]
    """Names by which the layout is known: all of them are there in no other."""
    dropped: tuple[str, ...] = ()
    """Beginnings of names that served training alone."""
    prepared: Callable[[State, Mapping[str, Tensor]], State] = _unchanged
    """Published weights, brought to the form that ours have; the second is our state."""


def key_map(name: WeightLayout) -> KeyMap:
    """A layout by name. Raises: ModelError."""
    for found in KEY_MAPS:
        if found.name == name:
            return found
    raise ModelError(f"no layout {name!r}; use one of {', '.join(WEIGHT_LAYOUTS)}")


def guess_layout(names: Iterable[str]) -> KeyMap:
    """The layout that weights of these names are in. Raises: ModelError where none fits."""
    seen = set(names)
    for found in KEY_MAPS:
        if found.marks and seen.issuperset(found.marks):
            return found
    few = ", ".join(sorted(seen)[:4])
    raise ModelError(
        f"the weights ({few} and so on) are in no layout that is known; name one of "
        f"{', '.join(WEIGHT_LAYOUTS)} as `layout`, or export the network as ONNX"
    )


def _at(published: str, *ours: str, linear: bool = False) -> Place:
    return Place(published=published, ours=ours, linear=linear)


def _named(published: str, ours: str) -> Iterator[Place]:
    """Convolution and normalisation as mmcv calls them."""
    yield _at(f"{published}.conv", f"{ours}.0")
    yield _at(f"{published}.bn", f"{ours}.1")


def _listed(published: str, first: int, ours: str) -> Iterator[Place]:
    """Convolution and normalisation one behind the other in a sequence."""
    yield _at(f"{published}.{first}", f"{ours}.0")
    yield _at(f"{published}.{first + 1}", f"{ours}.1")


def _mmseg_unet_psp(network: Any) -> Iterator[Place]:
    stages = len(network.ladder.down)
    for stage in range(stages):
        # a pooling layer comes first in all stages but the finest
        block = f"backbone.encoder.{stage}.{min(stage, 1)}"
        for number in range(2):
            yield from _named(f"{block}.convs.{number}", f"ladder.down.{stage}.{number}")
    for stage in range(stages - 1):
        # the published decoder counts from the finest level, ours from the deepest
        rise, block = f"ladder.up.{stages - 2 - stage}", f"backbone.decoder.{stage}"
        yield from _named(f"{block}.upsample.interp_upsample.1", f"{rise}.lift")
        for number in range(2):
            yield from _named(f"{block}.conv_block.convs.{number}", f"{rise}.merge.{number}")
    for number in range(len(network.pyramid.branches)):
        branch = f"pyramid.branches.{number}"
        yield from _named(f"decode_head.psp_modules.{number}.1", branch)
    yield from _named("decode_head.bottleneck", "pyramid.bottleneck")
    yield _at("decode_head.conv_seg", "classify")


def _torchvision_deeplabv3(network: Any) -> Iterator[Place]:
    stem = "backbone.body.embedder.embedder"
    yield _at("backbone.conv1", f"{stem}.convolution")
    yield _at("backbone.bn1", f"{stem}.normalization")
    for level, stage in enumerate(network.backbone.body.encoder.stages):
        for number, block in enumerate(stage.layers):
            theirs = f"backbone.layer{level + 1}.{number}"
            ours = f"backbone.body.encoder.stages.{level}.layers.{number}"
            for layer in range(len(block.layer)):
                yield _at(f"{theirs}.conv{layer + 1}", f"{ours}.layer.{layer}.convolution")
                yield _at(f"{theirs}.bn{layer + 1}", f"{ours}.layer.{layer}.normalization")
            yield _at(f"{theirs}.downsample.0", f"{ours}.shortcut.convolution")
            yield _at(f"{theirs}.downsample.1", f"{ours}.shortcut.normalization")
    branches = len(network.pyramid.branches)
    for number in range(branches):
        yield from _listed(f"classifier.0.convs.{number}", 0, f"pyramid.branches.{number}")
    # the mean over the image comes first in the last of them
    yield from _listed(f"classifier.0.convs.{branches}", 1, "pyramid.pooling")
    yield from _listed("classifier.0.project", 0, "pyramid.project.0")
    yield from _listed("classifier", 1, "refine")
    yield _at("classifier.4", "classify")


def _milesial_unet(network: Any) -> Iterator[Place]:
    blocks = [("inc", "inlet")]
    blocks += [(f"down{n + 1}.maxpool_conv.1", f"down.{n}") for n in range(len(network.down))]
    blocks += [(f"up{n + 1}.conv", f"up.{n}.merge") for n in range(len(network.up))]
    for theirs, ours in blocks:
        yield from _listed(f"{theirs}.double_conv", 0, f"{ours}.0")
        yield from _listed(f"{theirs}.double_conv", 3, f"{ours}.1")
    yield _at("outc.conv", "classify")


def _bilinear_only(given: State, wanted: Mapping[str, Tensor]) -> State:
    """Milesial's U-Net as ours: without biases that a normalisation undoes, with "unlabelled".

    Raises: ModelError for the form with transposed convolutions.
    """
    if "up1.up.weight" in given:
        raise ModelError(
            "the U-Net rises by transposed convolutions (bilinear=False), and fbp-unet has none; "
            "export it as ONNX"
        )
    return _with_unlabelled(_without_biases(given), wanted)


def _without_biases(given: State) -> State:
    """Older releases have a bias before each normalisation: its mean takes it up, exactly."""
    made = dict(given)
    for name in given:
        found = re.fullmatch(r"(.*\.double_conv)\.([03])\.bias", name)
        if found is None:
            continue
        mean = f"{found[1]}.{int(found[2]) + 1}.running_mean"
        if mean in made:
            made[mean] = made[mean] - made.pop(name).to(made[mean].dtype)
    return made


def _with_unlabelled(given: State, wanted: Mapping[str, Tensor]) -> State:
    """Channels of 0 before those of networks that were not taught an "unlabelled" class.

    One channel alone tells two classes by its sign, which the same channel beside 0 does.
    """
    made = dict(given)
    outputs = wanted["classify.weight"].shape[0]
    for name in ("outc.conv.weight", "outc.conv.bias"):
        tensor = made.get(name)
        if tensor is not None and (tensor.shape[0], outputs) in {(outputs - 1, outputs), (1, 3)}:
            before = tensor.new_zeros((outputs - tensor.shape[0], *tensor.shape[1:]))
            made[name] = torch.cat([before, tensor])
    return made


def _daformer(network: Any) -> Iterator[Place]:
    yield from _transformer(network.backbone, "backbone.", "backbone.")
    for level in range(len(network.levels)):
        yield _at(f"decode_head.embed_layers.{level}.proj", f"levels.{level}", linear=True)
    fuse = "decode_head.fuse_layer"
    yield from _named(f"{fuse}.aspp_modules.0", "branches.0")
    for number in range(1, len(network.branches)):
        branch = f"{fuse}.aspp_modules.{number}"
        yield from _named(f"{branch}.depthwise_conv", f"branches.{number}.0")
        yield from _named(f"{branch}.pointwise_conv", f"branches.{number}.1")
    yield from _named(f"{fuse}.bottleneck", "bottleneck")
    yield _at("decode_head.conv_seg", "classify")


_BLOCK = {
    "norm1": ("layernorm_before",),
    "attn.q": ("attention.q_proj",),
    "attn.kv": ("attention.k_proj", "attention.v_proj"),
    "attn.proj": ("attention.o_proj",),
    "attn.sr": ("attention.sequence_reduction.sequence_reduction",),
    "attn.norm": ("attention.sequence_reduction.layer_norm",),
    "norm2": ("layernorm_after",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.dwconv.dwconv": ("mlp.dwconv.dwconv",),
    "mlp.fc2": ("mlp.fc2",),
}
"""A block of the Mix Transformer as published, and as transformers has it."""


def _transformer(network: Any, before: str = "", ours: str = "") -> Iterator[Place]:
    for number, depth in enumerate(network.body.config.depths):
        stage, level = f"{ours}body.stages.{number}", number + 1
        embed = f"{stage}.patch_embeddings"
        yield _at(f"{before}patch_embed{level}.proj", f"{embed}.proj")
        yield _at(f"{before}patch_embed{level}.norm", f"{embed}.layer_norm")
        for block in range(depth):
            for theirs, mine in _BLOCK.items():
                places = [f"{stage}.blocks.{block}.{name}" for name in mine]
                yield _at(f"{before}block{level}.{block}.{theirs}", *places)
        yield _at(f"{before}norm{level}", f"{stage}.layer_norm")


def _same(network: Any) -> Iterator[Place]:
    for name in dict.fromkeys(key.rpartition(".")[0] for key in network.state_dict()):
        yield _at(name, name)


_MMSEG_TRAINING = ("auxiliary_head.", "data_preprocessor.")

KEY_MAPS: tuple[KeyMap, ...] = (
    KeyMap(
        name="mmseg-unet-psp",
        kind=GlobalUrbanMapper,
        network="gum",
        places=_mmseg_unet_psp,
        marks=(
            "backbone.encoder.0.0.convs.0.conv.weight",
            "decode_head.psp_modules.0.1.conv.weight",
        ),
        dropped=_MMSEG_TRAINING,
    ),
    KeyMap(
        name="torchvision-deeplabv3",
        kind=DeepLabV3,
        network="deeplabv3",
        places=_torchvision_deeplabv3,
        marks=("backbone.layer1.0.conv1.weight", "classifier.0.convs.0.0.weight"),
        dropped=("aux_classifier.",),
    ),
    KeyMap(
        name="milesial-unet",
        kind=FbpUNet,
        network="fbp-unet",
        places=_milesial_unet,
        marks=("inc.double_conv.0.weight", "outc.conv.weight"),
        prepared=_bilinear_only,
    ),
    KeyMap(
        name="daformer",
        kind=DAFormer,
        network="daformer",
        places=_daformer,
        marks=(
            "backbone.patch_embed1.proj.weight",
            "decode_head.fuse_layer.bottleneck.conv.weight",
        ),
        dropped=_MMSEG_TRAINING,
    ),
    KeyMap(
        name="mit",
        kind=MixTransformer,
        network="",
        places=_transformer,
        marks=("patch_embed1.proj.weight", "block1.0.attn.kv.weight"),
        dropped=("head.",),
    ),
    KeyMap(name="mapper", kind=nn.Module, network="", places=_same, marks=()),
)
