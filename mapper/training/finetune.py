"""Weights of one training as the start of another, with other bands or classes."""

import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mapper.errors import ModelError
from mapper.recipe.training import Train
from mapper.training.networks import Supervised
from mapper.training.networks.build import source_names
from mapper.training.weights import Trained

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Where a network meets the outer world, and what its channels and classes are called."""

    first: str
    """Prefix of the first convolution's parameters."""
    last: tuple[str, ...]
    """Prefixes of the layers that yield classes."""
    fed: tuple[str, ...]
    """Prefixes of those that take logits of classes before anything else."""
    channels: tuple[str, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, network: Supervised, settings: Train) -> "Ends":
        """Of a network and the recipe that it was made by."""
        convolutions = (n for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
        channels = list(settings.bands)
        if settings.network.presence:
            channels += [f"presence of {name}" for name in source_names(settings.bands)]
        return cls(
            first=f"{next(convolutions)}.",
            last=tuple(f"network.{name}." for name in network.network.class_layers),
            fed=tuple(f"network.{name}." for name in network.network.class_inputs),
            channels=tuple(channels),
            classes=tuple(c.name for c in settings.classes),
        )


def start_from(network: Supervised, settings: Train, source: Trained) -> dict[str, Any]:
    """Copy what fits; bands and classes are matched by name, the rest stays random.

    A channel or class that the source does not know begins as the mean of those that it does:
    a new band then enters at the strength of the others, and is learned from there.

    Returns: how many tensors were copied, and which were adapted or left random, for the card.

    Raises: ModelError where the source is another network.
    """
    if source.train.network.name != settings.network.name:
        raise ModelError(
            f"the weights to begin with are of {source.train.network.name}, the recipe trains "
            f"{settings.network.name}; name weights of that network"
        )
    mine, theirs = Ends.of(network, settings), Ends.of(source.network, source.train)
    state, old = network.state_dict(), source.network.state_dict()
    copied, adapted, random = 0, [], []
    for name, tensor in state.items():
        found = None if name not in old else _fitted(name, old[name], mine, theirs)
        if found is None or found.shape != tensor.shape:
            random.append(name)
            continue
        tensor.copy_(found)
        if found is old[name]:
            copied += 1
        else:
            adapted.append(name)
    logger.info("copied %d tensors, adapted %s, random %s", copied, adapted, random)
    return {
        "from": source.about.get("recipe"),
        "copied": copied,
        "adapted": adapted,
        "random": random,
        "before": source.about.get("lineage"),
    }


def _fitted(name: str, old: Tensor, mine: Ends, theirs: Ends) -> Tensor:
    """A tensor of the source with its channels and classes in the order of the new network."""
    if name.startswith(theirs.first) and old.dim() == 4:
        return _ordered(old, theirs.channels, mine.channels, 1)
    if name.startswith(theirs.last) and old.dim() >= 1:
        if name.startswith(theirs.fed) and theirs.fed and old.dim() > 1:
            count = len(theirs.classes)
            logits, rest = old.narrow(1, 0, count), old.narrow(1, count, old.shape[1] - count)
            logits = _ordered(logits, theirs.classes, mine.classes, 1)
            if theirs.classes != mine.classes:
                old = torch.cat([logits, rest], dim=1)
        return _ordered(old, theirs.classes, mine.classes, 0)
    return old


def _ordered(tensor: Tensor, known: tuple[str, ...], wanted: tuple[str, ...], dim: int) -> Tensor:
    """By name along one axis; what lies before the known names (unlabelled) stays in front."""
    if known == wanted:
        return tensor
    before = tensor.shape[dim] - len(known)
    mean = tensor.narrow(dim, before, len(known)).mean(dim=dim, keepdim=True)
    parts = [tensor.narrow(dim, 0, before)] if before else []
    for name in wanted:
        place = known.index(name) if name in known else None
        parts.append(mean if place is None else tensor.narrow(dim, before + place, 1))
    return torch.cat(parts, dim=dim)
