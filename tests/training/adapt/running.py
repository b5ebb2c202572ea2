"""Whole adaptations on one thread of the CPU, and what of them is compared."""

import torch
from safetensors.torch import load_file

from mapper.training.adapt.driver import AdaptOptions, adapt_model
from mapper.training.adapt.target import open_target
from tests.training.adapt.shifted import adapting, labelled

TIMES = ("seconds", "megapixels_per_second", "memory_gib")


def narrow(method):
    """The plain recipe of a method, with a discriminator that is no larger than the network."""
    return adapting(method, *(["adapt.adversarial.width=8"] if method == "adversarial" else []))


def adapted(recipe, places, out, start=None, judge=None, **options):
    """Adapt from the same random numbers as ever."""
    torch.manual_seed(7)
    near, far = places
    target = open_target(far, recipe.train)
    judged = None if judge is None else labelled(recipe, judge)
    return adapt_model(
        AdaptOptions(
            recipe=recipe,
            source=near,
            target=target,
            out=out,
            start=start,
            judge=judged,
            device="cpu",
            **options,
        )
    )


def timeless(lines):
    """What does not depend on the clock; NaN is equal to itself."""
    return [{k: str(v) for k, v in line.items() if k not in TIMES} for line in lines]


def same_bits(one, other):
    """True where two adaptations came to the same weights."""
    mine, theirs = (load_file(out / "model.safetensors") for out in (one, other))
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)
