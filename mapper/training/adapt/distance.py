"""How far features have gone from those of the pretrained backbone (Hoyer et al. 2022)."""

import copy
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mapper.errors import ModelError
from mapper.recipe.training import Train
from mapper.training.networks import Supervised, build_network
from mapper.training.networks.backbone import MixTransformer, ResNet
from mapper.training.networks.network import Segmenter
from mapper.training.networks.subpixel import SubPixel

logger = logging.getLogger(__name__)


class FeatureDistance(nn.Module):
    """Distance of the student's last features to those of a frozen backbone, over all cells."""

    def __init__(self, backbone: MixTransformer | ResNet, cell: int = 1) -> None:
        """Copies the backbone as it is: it must hold its pretrained weights.

        `cell` is the side in pixels of the squares whose means it looks at (`Segmenter.cell`).
        """
        super().__init__()
        self.cell = cell
        self.backbone = copy.deepcopy(backbone)
        for parameter in self.backbone.parameters():
            parameter.requires_grad_(False)
        self.backbone.eval()

    def train(self, mode: bool = True) -> "FeatureDistance":
        """Whatever the mode of the module around it, the backbone stays as it is."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Mean over cells of the length of the difference over channels, a scalar.

        `features` are the student's (`last_features`), `image` what entered its network for them:
        `Supervised.channels` of image and validity.
        """
        with torch.no_grad():
            known = self.backbone(_means(image, self.cell))[-1]
        return torch.linalg.vector_norm(features.float() - known.float(), dim=1).mean()


def feature_distance(network: Supervised, train: Train) -> FeatureDistance | None:
    """To the recipe's pretrained weights, whatever the network has learned since.

    None, and the reason in the log, where there are none to be held against.

    Raises: ModelError where the pretrained weights cannot be had.
    """
    name = train.network.name
    if not train.network.pretrained:
        logger.warning(
            "feature distance is off: the backbone of %s started at random "
            "(train.network.pretrained is not set)",
            name,
        )
        return None
    if _backbone(network.network) is None:
        logger.warning("feature distance is off: %s has no backbone", name)
        return None
    # a head is built beside it: what that draws must not change the training
    with torch.random.fork_rng(devices=[]):
        known = build_network(train).network
    return FeatureDistance(_backbone(known), known.cell)


def last_features(network: Supervised, image: Tensor, valid: Tensor | None) -> Tensor:
    """Of the backbone's last level, `(batch, channel, y, x)`, with a gradient.

    Raises: ModelError where the network has no backbone.
    """
    backbone = _backbone(network.network)
    if backbone is None:
        raise ModelError(
            f"{type(network.network).__name__} has no backbone whose features could be compared; "
            "set train.adapt.daspm.distance to 0"
        )
    entered = _means(network.channels(image, valid), network.network.cell)
    features: Tensor = backbone(entered)[-1]
    return features


def _backbone(network: Segmenter) -> Any:
    """Of a network, or of the one on its cells; None where there is none."""
    return getattr(network.cells if isinstance(network, SubPixel) else network, "backbone", None)


def _means(image: Tensor, cell: int) -> Tensor:
    return functional.avg_pool2d(image, cell) if cell > 1 else image
