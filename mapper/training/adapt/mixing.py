"""ClassMix: classes of the source pasted onto the target."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mapper.training.adapt.method import Labelled
from mapper.training.adapt.pseudo import share_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed(Labelled):
    """Images of the target with parts of the source in them."""


def class_mix(source: Labelled, target: Labelled, share: float) -> Mixed:
    """Image `k % len(source)` of the source pasted onto image k of the target (Olsson et al. 2021).

    Of the classes that the source's label holds a random `share` is pasted, rounded half up and
    one at least, none for a share of 0. Their pixels take image, validity and label of the source
    and a weight of 1; all others stay the target's. Drawn on the CPU, alike for every device.
    """
    turn = torch.arange(len(target.image), device=source.image.device) % len(source.image)
    label = source.label[turn]
    pasted = _chosen(label, share)
    over = pasted.unsqueeze(1)
    return Mixed(
        image=torch.where(over, source.image[turn], target.image),
        valid=torch.where(over, source.valid[turn], target.valid),
        label=torch.where(pasted, label, target.label),
        weight=target.weight.masked_fill(pasted, 1.0),
    )


def _chosen(label: Tensor, share: float) -> Tensor:
    """`(batch, y, x)` bool: pixels of the classes that are drawn for each image."""
    classes = max(int(label.max()) + 1, 1)
    # what teaches nothing counts as class 0 here and is dropped at the end
    present = torch.zeros(len(label), classes + 1, dtype=torch.bool, device=label.device)
    present.scatter_(1, label.flatten(1) + 1, True)
    held = present[:, 1:].cpu()
    draw = torch.rand(held.shape).masked_fill(~held, -1.0)
    place = draw.argsort(dim=1, descending=True).argsort(dim=1)
    counts = [_rounded(share, n) for n in held.sum(dim=1).tolist()]
    drawn = ((place < torch.tensor(counts).unsqueeze(1)) & held).to(label.device)
    of_pixel = drawn.gather(1, label.flatten(1).clamp(min=0)).view_as(label)
    return of_pixel & (label >= 0)


def _rounded(share: float, count: int) -> int:
    return max(1, share_of(share, count)) if share else 0
