"""Optimisers and learning rates of recipes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mapper.recipe.learning import Optimizer, Schedule
from mapper.training.networks.network import Segmenter

_FLOOR = 1e-3
"""Share of the peak rate that warm-up starts from."""


def make_optimizer(network: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """Parameters in up to four groups: head or not, decayed or not.

    Normalisation layers, biases and position embeddings are not decayed.
    """
    groups = parameter_groups(network, settings)
    match settings.kind:
        case "sgd":
            return torch.optim.SGD(
                groups,
                lr=settings.rate,
                momentum=settings.momentum,
                nesterov=settings.momentum > 0,
            )
        case "adam":
            return torch.optim.Adam(groups, lr=settings.rate)
        case _:
            return torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.999))


def parameter_groups(network: nn.Module, settings: Optimizer) -> list[dict[str, Any]]:
    """`params`, `lr` and `weight_decay` of each group that has any parameter."""
    heads = next((m.head_names for m in network.modules() if isinstance(m, Segmenter)), ())
    sorted_out: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        head = any(part in heads for part in name.split("."))
        decayed = parameter.dim() > 1 and "position" not in name
        sorted_out.setdefault((head, decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": settings.rate * (settings.head_factor if head else 1.0),
            "weight_decay": settings.decay if decayed else 0.0,
        }
        for (head, decayed), parameters in sorted_out.items()
    ]


def rate_factor(schedule: Schedule, steps: int) -> Callable[[int], float]:
    """Factor of the peak learning rate at each step, from 0 to `steps`."""
    from math import cos, pi

    def factor(step: int) -> float:
        if step < schedule.warmup:
            return _FLOOR + (1 - _FLOOR) * step / schedule.warmup
        done = min(1.0, (step - schedule.warmup) / max(1, steps - schedule.warmup))
        match schedule.kind:
            case "poly":
                return float((1 - done) ** schedule.power)
            case "cosine":
                return 0.5 * (1 + cos(pi * done))
            case _:
                return 1.0

    return factor
