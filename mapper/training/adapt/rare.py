"""Rare class sampling (Hoyer et al. 2022): patches of the source, rare classes more often."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mapper.errors import DataError
from mapper.recipe.adapting import RareClasses
from mapper.recipe.training import Train
from mapper.training.data.augment import BandKinds, Patch, augmented
from mapper.training.data.patches import Images, fitted, square, zoomed_side
from mapper.training.networks.build import cell_pixels

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassIndex:
    """Which image holds how much of which class; counted while images are opened."""

    counts: np.ndarray
    """`(image, class)` int64 pixels, in the order of the images and of the model's classes."""
    names: tuple[str, ...]

    @classmethod
    def of(cls, images: Images, train: Train) -> "ClassIndex":
        """Of the source. Raises: DataError where it holds fewer than two of the classes."""
        index = cls(counts=images.counts, names=tuple(c.name for c in train.classes))
        if len(index.names) - len(index.absent) < 2:
            raise DataError(
                f"{images.data.root}: of the classes that are to be sampled no pixel is "
                f"{', '.join(index.absent)}, which leaves fewer than two; check "
                "train.data.crosswalk and the classes"
            )
        return index

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without a pixel: they are never drawn."""
        total = self.counts.sum(axis=0).tolist()
        return tuple(n for n, count in zip(self.names, total, strict=True) if not count)

    @property
    def frequencies(self) -> np.ndarray:
        """`(class,)` shares of all labelled pixels."""
        total = self.counts.sum(axis=0)
        return np.asarray(total / max(int(total.sum()), 1), dtype=np.float64)

    def probabilities(self, temperature: float) -> np.ndarray:
        """`(class,)`: P(c) ~ exp((1 - f_c) / temperature) over the classes that occur."""
        frequencies = self.frequencies
        present = self.counts.any(axis=0)
        power = -frequencies / temperature
        # the largest is 0, so that nothing overflows whatever the temperature
        weight = np.where(present, np.exp(power - power[present].max()), 0.0)
        return np.asarray(weight / weight.sum())

    def images_with(self, channel: int, least: float) -> np.ndarray:
        """Numbers of the images with more than `least` pixels of a class, else of all with any."""
        counts = self.counts[:, channel]
        enough = np.flatnonzero(counts > least)
        return enough if len(enough) else np.flatnonzero(counts)

    def scarce(self, least: float) -> tuple[str, ...]:
        """Classes that occur, but in no image with more than `least` pixels."""
        most = self.counts.max(axis=0).tolist()
        return tuple(n for n, m in zip(self.names, most, strict=True) if 0 < m <= least)


class RareClassPatches:
    """Random patches, each drawn for a class: indices are `(epoch, index)`.

    A class is drawn by its probability, then one of the images with more of it than `least` asks
    for, all alike, then squares of that image until one holds half as much. The last one drawn is
    taken in any case. Images are looked at in their own pixels, patches as the network gets them.
    """

    def __init__(
        self, images: Images, train: Train, kinds: BandKinds, seed: int, rare: RareClasses
    ) -> None:
        """`train` says their size and how they are changed. Raises: DataError."""
        self.images, self.kinds, self.seed = images, kinds, seed
        self.cell = cell_pixels(train)
        self.side, self.how, self.tries = train.patch, train.augment, rare.tries
        self.count = train.patches or max(1, round(images.sizes.sum() / train.patch**2))
        self.least = rare.least * train.patch**2
        self.index = ClassIndex.of(images, train)
        self.shares = self.index.probabilities(rare.temperature)
        self._holders = [
            self.index.images_with(channel, self.least) for channel in range(len(self.shares))
        ]
        _tell("never sampled, no pixel is", self.index.absent)
        _tell(
            f"in no image with more than {self.least:.0f} pixels, sampled from those with any:",
            self.index.scarce(self.least),
        )

    def __len__(self) -> int:
        """Patches an epoch."""
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, validity and label of one patch."""
        rng = np.random.default_rng([self.seed, *key])
        channel = int(rng.choice(len(self.shares), p=self.shares))
        number = int(rng.choice(self._holders[channel]))
        for _ in range(self.tries):
            patch = self._drawn(number, rng)
            if (patch.label == channel).sum() > self.least / 2:
                break
        return self.images.scaled(augmented(patch, self.how, self.kinds, rng))

    def _drawn(self, number: int, rng: np.random.Generator) -> Patch:
        side = zoomed_side(self.side, self.how.scale, rng)
        cell = self.cell if side == self.side else 1
        box = square(self.images.images[number].shape, side, rng, cell)
        return fitted(self.images.piece(number, box), self.side, self.kinds.directions)


def _tell(what: str, names: Sequence[str]) -> None:
    if names:
        logger.warning("rare classes: %s %s", what, ", ".join(names))
