"""Source and target of an adaptation: opened, checked, and in one scale."""

from dataclasses import dataclass
from pathlib import Path

from mapper.recipe import Train
from mapper.recipe.adapting import RareClasses
from mapper.training.adapt.feed import DomainFeed
from mapper.training.adapt.methods import METHODS
from mapper.training.adapt.normalise import matched
from mapper.training.adapt.statistics import BandStatistics, own_scaling, rescaled, statistics_of
from mapper.training.adapt.target import check_bands
from mapper.training.data.labelled import LabelledSet
from mapper.training.data.layouts import open_data
from mapper.training.data.split import split_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Domains:
    """The two sides, and the recipe as it scales each."""

    source: Train
    target: Train
    feed: DomainFeed


def open_domains(
    train: Train, sets: tuple[Path, LabelledSet], judge: LabelledSet | None, workers: int
) -> Domains:
    """Read headers, measure both domains where the method wants it, and make ready to feed.

    Args:
        train: section of the recipe; its `adapt` says the method.
        sets: folder of the labelled source, and the target.
        judge: labelled images of the target, for the journal alone.
        workers: processes that read patches.

    Raises: DataError where bands or classes do not fit, or a side has no data.
    """
    source = open_data(sets[0], train.data, train.table)
    target = sets[1]
    check_bands(train, source, target)
    labelled = [image for image in source.images if image.label is not None]
    parts = split_blocks(labelled, train.split)
    own, other = train, train
    if METHODS[train.adapt.method].scales(train):
        far = statistics_of(train, target)
        # as its patches are: what is finer than they show must not widen the target's contrast
        near = statistics_of(train, source, parts[0], train.augment.coarsen)
        own, other = _scaled(train, near, far)
    feed = DomainFeed(own, other, (source, target), parts, train.adapt, workers, _rare(train))
    if judge is not None:
        feed.judge_by(judge)
    return Domains(source=own, target=other, feed=feed)


def _scaled(train: Train, near: BandStatistics, far: BandStatistics) -> tuple[Train, Train]:
    """The recipe for each domain: weights of the source keep their meaning, if there are any."""
    if train.adapt.start == "source":
        return train, matched(train, near, far)
    steps = train.scaling
    return rescaled(train, own_scaling(near, steps)), rescaled(train, own_scaling(far, steps))


def _rare(train: Train) -> RareClasses | None:
    how = train.adapt
    return getattr(getattr(how, how.method, None), "rare", None)
