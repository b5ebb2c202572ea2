"""Segmentation networks, each built from the published facts.

Every network takes `(batch, channel, y, x)` float32 and yields logits `(batch, class, y, x)` of
the same height and width.
"""

from mapper.training.networks.build import build_network
from mapper.training.networks.network import Segmenter, Supervised

__all__ = ["Segmenter", "Supervised", "build_network"]
