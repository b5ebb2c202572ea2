"""What is refused, or told, before an adaptation reads a pixel or trains anything."""

import logging
from pathlib import Path

from mapper.errors import RecipeError, UsageError
from mapper.inference.scaling import scaling_of
from mapper.recipe import Train
from mapper.training.adapt.method import Method
from mapper.training.adapt.methods import METHODS
from mapper.training.networks import build_network
from mapper.training.networks.build import check_sizes
from mapper.training.weights import Trained

logger = logging.getLogger(__name__)


def check_recipe(train: Train) -> None:
    """Refuse sizes and a precision that the method or the network cannot take.

    Raises: RecipeError.
    """
    how = train.adapt
    network = build_network(train, pretrained=False)
    check_sizes(network, train.model_copy(update={"batch": how.batch or train.batch}))
    # float16 scales each loss by one factor, which a second optimiser would update again
    if train.precision == "16-mixed" and METHODS[how.method].others is not Method.others:
        raise RecipeError(
            f"train.precision is 16-mixed, which {how.method} with its two optimisers cannot learn "
            "in; take bf16-mixed or 32-true"
        )


def check_start(train: Train, path: Path, source: Trained) -> None:
    """Refuse weights that were taught images in another scale: to them these would mean nothing.

    Bands are compared by name, those that both have; the order and other bands do not count.

    Raises: UsageError naming both sides.
    """
    if train.adapt.start == "scratch":
        raise UsageError(
            f"weights to begin with ({path}), and train.adapt.start is scratch, which begins at "
            "random; leave out --from, or set train.adapt.start to source"
        )
    found = _differences(train, source.train)
    if not found:
        return
    told = f"{path} holds weights of another scale than the recipe's: {'; '.join(found)}; "
    if source.about.get("adapted"):
        raise UsageError(
            f"{told}they were adapted before and carry the scaling of that target; give the "
            "weights of the source that they came from"
        )
    raise UsageError(
        f"{told}set train.scaling, fill, required and network.presence to theirs, or give weights "
        "of the source that were trained by this recipe"
    )


def _differences(mine: Train, theirs: Train) -> list[str]:
    """What is not alike, in words."""
    common = [band for band in mine.bands if band in theirs.bands]
    steps, old = _steps(mine), _steps(theirs)
    other = [band for band in common if scaling_of(steps[band]) != scaling_of(old[band])]
    sides: dict[str, tuple[object, object]] = {
        "fill": (mine.fill, theirs.fill),
        "network.presence": (mine.network.presence, theirs.network.presence),
        "required": (_required(mine, common), _required(theirs, common)),
    }
    if other:
        sides = {f"scaling of {', '.join(other)}": (steps[other[0]], old[other[0]])} | sides
    return [
        f"{what} is {one} in the recipe and {two} in the weights"
        for what, (one, two) in sides.items()
        if what.startswith("scaling") or one != two
    ]


def _steps(train: Train) -> dict[str, dict[str, object] | None]:
    steps = train.scaling * (len(train.bands) if len(train.scaling) == 1 else 1)
    return dict(zip(train.bands, steps, strict=True))


def _required(train: Train, common: list[str]) -> list[str]:
    required = train.bands if train.required is None else train.required
    return sorted(set(required) & set(common))


def warn_of_warmup(train: Train, method: Method, steps: int) -> None:
    """Say so where the rate would rise until the end and never reach what was asked for."""
    warmup = method.schedule.warmup
    if method.learns and warmup and warmup >= steps:
        logger.warning(
            "adapt.%s.schedule.warmup is %d and the whole adaptation has %d steps: the rate never "
            "reaches adapt.%s.optimizer.rate; lower the warm-up, or give more epochs or patches",
            *(train.adapt.method, warmup, steps, train.adapt.method),
        )
