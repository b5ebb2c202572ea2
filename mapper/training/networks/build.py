"""Networks by the names of recipes."""

import inspect
import logging
from collections.abc import Mapping
from typing import Any

from mapper.errors import RecipeError
from mapper.recipe import Train
from mapper.training.networks.daformer import DAFormer, SegFormer
from mapper.training.networks.deeplab import DeepLabV3, DeepLabV3Plus
from mapper.training.networks.fbp import FbpUNet
from mapper.training.networks.gum import GlobalUrbanMapper
from mapper.training.networks.network import Segmenter, Supervised
from mapper.training.networks.subpixel import SubPixel
from mapper.training.networks.ugsnet import UGSNet
from mapper.training.networks.unet import UNet

logger = logging.getLogger(__name__)

NETWORKS: dict[str, type[Segmenter]] = {
    "ugsnet": UGSNet,
    "gum": GlobalUrbanMapper,
    "unet": UNet,
    "fbp-unet": FbpUNet,
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "daformer": DAFormer,
    "segformer": SegFormer,
    "subpixel": SubPixel,
}


def build_network(train: Train, pretrained: bool = True) -> Supervised:
    """The network of a recipe, its weights random but for a pretrained backbone.

    Args:
        train: section of the recipe.
        pretrained: False where weights are loaded into it anyway.

    Raises: RecipeError for options that the network has not; ModelError where pretrained
        weights cannot be had.
    """
    sources = source_channels(train.bands)
    channels = len(train.bands) + (len(sources) if train.network.presence else 0)
    kind = NETWORKS[train.network.name]
    options: dict[str, Any] = dict(train.network.options)
    if train.network.pretrained and pretrained:
        options["pretrained"] = train.network.pretrained
    elif pretrained and "pretrained" in inspect.signature(_with_backbone(kind, options)).parameters:
        logger.warning("the backbone of %s starts at random", train.network.name)
    try:
        network = kind(channels, len(train.classes), **options)
    except TypeError as reason:
        known = ", ".join(list(inspect.signature(kind).parameters)[2:])
        raise RecipeError(
            f"train.network.options {options}: {reason}; {train.network.name} has {known}"
        ) from reason
    return Supervised(
        network,
        sources=sources,
        fill=train.fill,
        validity=train.needs_validity,
        presence=train.network.presence,
    )


def _with_backbone(kind: type[Segmenter], options: Mapping[str, Any]) -> type[Segmenter]:
    """What a backbone would be part of: a network itself, or the one on its cells."""
    inner = inspect.signature(kind).parameters.get("of")
    return NETWORKS.get(str(options.get("of", inner.default)), kind) if inner else kind


def check_sizes(network: Supervised, train: Train) -> None:
    """Refuse batches and squares that a network cannot take. Raises: RecipeError."""
    inner = network.network
    if train.batch < inner.least_batch:
        raise RecipeError(
            f"train.batch is {train.batch}; {train.network.name} normalises means over the window, "
            f"which takes {inner.least_batch} images at once"
        )
    for what, side in (("patch", train.patch), ("window size", train.window.get("size"))):
        if side and side % inner.multiple:
            raise RecipeError(
                f"train.{what} is {side}; {train.network.name} takes multiples of {inner.multiple}"
            )
    stride, cell = train.window.get("stride"), inner.cell
    if stride and stride % cell:
        raise RecipeError(
            f"train.window stride is {stride}; {train.network.name} takes multiples of {cell}"
        )


def cell_pixels(train: Train) -> int:
    """Side of the cells of a recipe's network, see `Segmenter.cell`."""
    kind = NETWORKS[train.network.name]
    ratio = inspect.signature(kind).parameters.get("ratio")
    return int(train.network.options.get("ratio", ratio.default)) if ratio else 1  # type: ignore[arg-type]


def source_channels(bands: list[str]) -> tuple[tuple[int, ...], ...]:
    """Channels of each source; the two orbits of Sentinel-1 are missing apart, so they count as
    two.
    """
    return tuple(tuple(channels) for channels in _sources(bands).values())


def source_names(bands: list[str]) -> tuple[str, ...]:
    """Names of what `source_channels` lists, in its order."""
    return tuple(_sources(bands))


def _sources(bands: list[str]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for channel, band in enumerate(bands):
        source, name = band.split(":", 1)
        orbit = next((o for o in ("ascending", "descending") if name.endswith(o)), "")
        groups.setdefault(f"{source} {orbit}".strip(), []).append(channel)
    return groups
