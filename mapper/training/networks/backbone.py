"""Backbones from transformers: ResNet and Mix Transformer, for any number of channels."""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mapper.errors import ModelError

logger = logging.getLogger(__name__)

ResNetName = Literal["resnet18", "resnet34", "resnet50", "resnet101"]
MitName = Literal["mit-b0", "mit-b1", "mit-b2", "mit-b3", "mit-b4", "mit-b5"]

_RESNETS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "resnet18": ("basic", (2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet34": ("basic", (3, 4, 6, 3), (64, 128, 256, 512)),
    "resnet50": ("bottleneck", (3, 4, 6, 3), (256, 512, 1024, 2048)),
    "resnet101": ("bottleneck", (3, 4, 23, 3), (256, 512, 1024, 2048)),
}
_MIT_DEPTHS: dict[str, tuple[int, ...]] = {
    "mit-b0": (2, 2, 2, 2),
    "mit-b1": (2, 2, 2, 2),
    "mit-b2": (3, 4, 6, 3),
    "mit-b3": (3, 4, 18, 3),
    "mit-b4": (3, 8, 27, 3),
    "mit-b5": (3, 6, 40, 3),
}


class ResNet(nn.Module):
    """ResNet (He et al. 2016, v1.5) that yields the features of its four stages.

    Strides of 4, 8, 16, 32; `output_stride` 16 or 8 turns the last strides into dilation.
    """

    def __init__(
        self,
        channels: int,
        name: ResNetName = "resnet50",
        output_stride: int = 32,
        width: float = 1.0,
        pretrained: str | None = None,
    ) -> None:
        """`width` scales all channels, for tests and small machines."""
        super().__init__()
        if name not in _RESNETS:
            raise ModelError(f"no backbone {name!r}; use one of {', '.join(_RESNETS)}")
        if output_stride not in (8, 16, 32):
            raise ModelError(f"output stride {output_stride}; use 8, 16 or 32")
        kind, depths, widths = _RESNETS[name]
        settings = {
            "layer_type": kind,
            "depths": list(depths),
            "hidden_sizes": [max(8, int(w * width)) for w in widths],
            "embedding_size": max(8, int(64 * width)),
        }
        self.body, self.widths = _resnet(settings, channels, pretrained)
        if output_stride <= 16:
            dilate(self.body.encoder.stages[3], 2 if output_stride == 16 else 4)
        if output_stride == 8:
            dilate(self.body.encoder.stages[2], 2)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of the stages, finest first."""
        return self.stages(self.body.embedder(image))

    def stages(self, stem: Tensor) -> list[Tensor]:
        """Features of the stages for what the stem yields."""
        found = []
        for stage in self.body.encoder.stages:
            stem = stage(stem)
            found.append(stem)
        return found


def _resnet(
    settings: dict[str, Any], channels: int, pretrained: str | None
) -> tuple[Any, tuple[int, ...]]:
    config, model = _transformers("ResNetConfig", "ResNetModel")
    if pretrained is None:
        body = model(config(num_channels=channels, **settings))
    else:
        body = load_pretrained(model, pretrained)
        _check_alike(pretrained, body.config, settings)
        stem = body.embedder.embedder
        stem.convolution = widened(stem.convolution, channels)
        body.embedder.num_channels = channels
    body.pooler = nn.Identity()
    return body, tuple(body.config.hidden_sizes)


def _check_alike(pretrained: str, config: Any, wanted: dict[str, Any]) -> None:
    """Refuse weights of another backbone. Raises: ModelError."""
    for key in ("depths", "hidden_sizes"):
        if key in wanted and list(getattr(config, key)) != list(wanted[key]):
            raise ModelError(
                f"pretrained weights {pretrained!r} have {key} {list(getattr(config, key))}, the "
                f"backbone of network.options has {list(wanted[key])}; name weights of that one"
            )


def _transformers(*names: str) -> tuple[Any, ...]:
    """Classes of transformers, which otherwise warns of settings that no backbone has."""
    import transformers

    transformers.logging.set_verbosity_error()
    return tuple(getattr(transformers, name) for name in names)


def dilate(stage: nn.Module, rate: int, first: int | None = None) -> None:
    """Turn a stage's stride into dilation: its first block keeps half of the rate."""
    for number, block in enumerate(stage.layers):  # type: ignore[arg-type]
        for conv in block.modules():
            if not isinstance(conv, nn.Conv2d):
                continue
            conv.stride = (1, 1)
            if conv.kernel_size == (3, 3):
                step = (first or rate // 2) if number == 0 else rate
                conv.dilation = conv.padding = (step, step)


def multi_grid(stage: nn.Module, rates: Sequence[int]) -> None:
    """Give the blocks of a stage dilations of their own; strides stay."""
    for rate, block in zip(rates, stage.layers, strict=True):  # type: ignore[call-overload]
        for conv in block.modules():
            if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (rate, rate)


def _mit_widths(name: str) -> list[int]:
    return [32, 64, 160, 256] if name == "mit-b0" else [64, 128, 320, 512]


class MixTransformer(nn.Module):
    """Mix Transformer B0 to B5 (Xie et al. 2021): four levels at 1/4, 1/8, 1/16, 1/32."""

    def __init__(
        self, channels: int, name: MitName = "mit-b0", pretrained: str | None = None
    ) -> None:
        """Any number of channels; pretrained weights are those of three."""
        super().__init__()
        if name not in _MIT_DEPTHS:
            raise ModelError(f"no backbone {name!r}; use one of {', '.join(_MIT_DEPTHS)}")
        config, model = _transformers("SegformerConfig", "SegformerModel")
        if pretrained is None:
            settings = config(
                num_channels=channels,
                depths=list(_MIT_DEPTHS[name]),
                hidden_sizes=_mit_widths(name),
            )
            self.body = model(settings)
        else:
            self.body = load_pretrained(model, pretrained)
            _check_alike(
                pretrained,
                self.body.config,
                {"depths": list(_MIT_DEPTHS[name]), "hidden_sizes": _mit_widths(name)},
            )
            first = _first_embedding(self.body)
            first.proj = widened(first.proj, channels)
        self.widths = tuple(self.body.config.hidden_sizes)
        _publish_eps(self.body)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of the four levels, finest first."""
        found = self.body(pixel_values=image, output_hidden_states=True)
        return list(found.hidden_states)


def _publish_eps(body: Any) -> None:
    """Layers of blocks and levels are normalised with 1e-6, as published; the others with 1e-5."""
    for name, module in body.named_modules():
        inner = "patch_embed" in name or "attention" in name
        if isinstance(module, nn.LayerNorm) and not inner:
            module.eps = 1e-6


def _first_embedding(body: Any) -> Any:
    """The module that holds the first convolution."""
    for module in body.modules():
        if isinstance(getattr(module, "proj", None), nn.Conv2d):
            return module
    raise ModelError("the Mix Transformer has no first convolution; use transformers 5")


def load_pretrained(kind: Any, name: str) -> Any:
    """Published weights, by the name or folder that transformers knows; never random ones.

    Raises: ModelError where they cannot be had.
    """
    try:
        body, loaded = kind.from_pretrained(
            name, use_safetensors=True, weights_only=True, output_loading_info=True
        )
    except Exception as reason:  # the hub raises its own, requests', and plain OSErrors
        first = str(reason).strip().splitlines() or [type(reason).__name__]
        raise ModelError(
            f"pretrained weights {name!r} cannot be loaded ({first[0][:200]}); give a folder of "
            "safetensors, reach the network, or take `pretrained` out of the recipe"
        ) from reason
    lost = [*loaded["missing_keys"], *loaded.get("mismatched_keys", [])]
    if lost:
        raise ModelError(
            f"pretrained weights {name!r} lack {len(lost)} tensors of the backbone, {lost[0]} for "
            "instance, which would stay random; name weights of that backbone"
        )
    logger.info("backbone starts from the weights of %s", name)
    return body


def widened(conv: nn.Conv2d, channels: int) -> nn.Conv2d:
    """A first convolution for another number of channels.

    Weights are repeated over the channels and scaled by 3 / channels, so that its output keeps
    its range.
    """
    if conv.in_channels == channels:
        return conv
    known = conv.in_channels
    new = nn.Conv2d(
        channels,
        conv.out_channels,
        conv.kernel_size,  # type: ignore[arg-type]
        stride=conv.stride,  # type: ignore[arg-type]
        padding=conv.padding,  # type: ignore[arg-type]
        bias=conv.bias is not None,
    )
    with torch.no_grad():
        index = torch.arange(channels) % known
        new.weight.copy_(conv.weight[:, index] * (known / channels))
        if conv.bias is not None and new.bias is not None:
            new.bias.copy_(conv.bias)
    return new
