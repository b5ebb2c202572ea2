"""What an adaptation opens and refuses at once, before a folder is claimed or a pixel mapped."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mapper.area.aoi import pick_areas, read_areas
from mapper.errors import AreaError, DataError
from mapper.recipe.settings import train_section
from mapper.run.adapt.maps import check_gives
from mapper.run.adapt.request import AdaptRequest, check_several

if TYPE_CHECKING:
    from mapper.training.data.labelled import LabelledSet


@contextmanager
def _named(option: str) -> Iterator[None]:
    """Errors of what an option names begin with it."""
    try:
        yield
    except (AreaError, DataError) as reason:
        raise type(reason)(f"{option}: {reason}") from reason


def open_images(request: AdaptRequest) -> "LabelledSet":
    """The target's images. Raises: DataError."""
    from mapper.training.adapt.target import open_target

    with _named("--target"):
        return open_target(request.target, train_section(request.recipe), request.given)


def open_judge(request: AdaptRequest) -> "LabelledSet | None":
    """Labelled images of the target, where there are some. Raises: DataError."""
    from mapper.training.data.layouts import open_data

    if request.judge is None:
        return None
    train = train_section(request.recipe)
    with _named("--judge"):
        return open_data(request.judge, request.judged or train.data, train.table)


def check_source(request: AdaptRequest) -> None:
    """Hold recipe, source and weights against each other, by the headers of the source's files.

    Raises: DataError, RecipeError, UsageError.
    """
    from mapper.training.adapt.checks import check_recipe, check_start
    from mapper.training.data.feed import labelled_channels
    from mapper.training.data.layouts import open_data
    from mapper.training.data.split import split_blocks
    from mapper.training.weights import load_weights

    train = train_section(request.recipe)
    check_recipe(train)
    if request.start is not None:
        check_start(train, request.start, load_weights(request.start))
    with _named("--source"):
        source = open_data(request.source, train.data, train.table)
        labelled_channels(train, source)
        split_blocks([image for image in source.images if image.label], train.split)


def chosen_areas(request: AdaptRequest) -> dict[str, str]:
    """Slugs and digests of areas; raises before anything is learned what `run` would after it."""
    check_gives(request.recipe)
    with _named("--target"):
        areas = read_areas(request.target)
    chosen = pick_areas(areas, request.cities)
    check_several(len(chosen), request.together)
    return {area.slug: area.digest for area in chosen}
