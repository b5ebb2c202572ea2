"""What every network is: logits for an image, and a loss that it may add to."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Criterion = Callable[[Tensor, Tensor], Tensor]
"""Logits `(batch, class, ...)` and class indices `(batch, ...)` to a scalar; -1 is ignored."""


class Segmenter(nn.Module):
    """A network that yields logits of its input's height and width."""

    multiple = 1
    """Sides of the input must be multiples of it."""
    cell = 1
    """Side in pixels of what is averaged before all else, counted from the first pixel."""
    least_batch = 1
    """Fewer images at once cannot be normalised: 2 where means over the window are."""
    global_context = False
    """True where every output pixel depends on the whole input."""
    stepwise = False
    """True where rounding can move an output by more than rounding: points chosen by rank."""
    head_names: tuple[str, ...] = ()
    """Modules that learn at the rate of the head; all others belong to the backbone."""
    class_layers: tuple[str, ...] = ("classify",)
    """Layers whose outputs are classes."""
    class_inputs: tuple[str, ...] = ()
    """Those of them whose first inputs are logits of classes, too."""

    def loss(self, image: Tensor, label: Tensor, criterion: Criterion) -> Tensor:
        """What is minimised in training; networks with more than one output add to it."""
        loss: Tensor = criterion(self(image), label)
        return loss


class Supervised(nn.Module):
    """A network behind the inputs of a model folder: `image`, and `valid` where it is asked for.

    Pixels without data take the fill, whatever is in `image` there. With presence channels a
    source that is missing differs from one that is dark: one plane each, 1 where all of its
    bands are data.
    """

    def __init__(
        self,
        network: Segmenter,
        sources: tuple[tuple[int, ...], ...],
        fill: float,
        validity: bool,
        presence: bool,
    ) -> None:
        """`sources` are the channels of each source in `image`."""
        super().__init__()
        self.network = network
        self.sources = sources
        self.fill = fill
        self.validity = validity
        self.presence = presence

    def forward(self, image: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logits; `valid` is 1 where `image` is data, of the same shape."""
        logits: Tensor = self.network(self.channels(image, valid))
        return logits

    def channels(self, image: Tensor, valid: Tensor | None) -> Tensor:
        """What enters the network."""
        if not self.validity or (valid is None and not self.presence):
            return image
        if valid is None:
            valid = torch.ones_like(image)
        seen = valid > 0.5
        image = torch.where(seen, image, torch.full_like(image, self.fill))
        if not self.presence:
            return image
        planes = [valid[:, list(s)].amin(dim=1, keepdim=True) for s in self.sources]
        return torch.cat([image, *planes], dim=1)

    def loss(self, image: Tensor, valid: Tensor, label: Tensor, criterion: Criterion) -> Tensor:
        """See `Segmenter.loss`."""
        return self.network.loss(self.channels(image, valid), label, criterion)
