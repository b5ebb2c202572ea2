"""Batches of two domains side by side: labelled patches of the source, bare ones of the target."""

from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from mapper.errors import DataError
from mapper.recipe.adapting import Adapt, RareClasses
from mapper.recipe.learning import Augment
from mapper.recipe.training import Train
from mapper.training.adapt.rare import RareClassPatches
from mapper.training.adapt.statistics import (
    BandStatistics,
    band_statistics,
    bare_images,
    short,
)
from mapper.training.adapt.target import check_bands, without_labels
from mapper.training.data.augment import BandKinds, Patch, augmented
from mapper.training.data.feed import Feed, Parts, digest_of_images, labelled_channels
from mapper.training.data.labelled import LabelledSet
from mapper.training.data.patches import (
    EpochBatches,
    Images,
    TrainingPatches,
    ValidationPatches,
    anywhere,
    fitted,
    zoomed_side,
)
from mapper.training.networks.build import cell_pixels, source_channels

TARGET_CHECKED = 64
"""Patches of the target that epochs are compared by, at most."""
_TRIES = 8
"""Draws without a valid pixel after which a square is taken that is known to hold one."""
_LOOKS = 4096
"""Squares that are looked at for those, as long as one was found."""
_GOLDEN = (5**0.5 - 1) / 2

Views = tuple[np.ndarray, np.ndarray]
"""Image and validity of a patch, `(band, y, x)` float32."""


class TargetPatches:
    """Random patches of the target, mirrored, turned and zoomed: indices are `(epoch, index)`."""

    def __init__(self, images: Images, train: Train, how: Adapt, known: "CheckedPatches") -> None:
        """`how` says how many, and how they are zoomed; `known` are squares that hold data."""
        self.images, self.seed, self.side = images, train.seed, train.patch
        self.known = known
        self.kinds, self.cell = _kinds(train), cell_pixels(train)
        augment = train.augment
        self.geometry = Augment(flip=augment.flip, turn=augment.turn, scale=how.scale)
        self.count = how.patches or max(1, round(images.sizes.sum() / train.patch**2))

    def __len__(self) -> int:
        """Patches an epoch."""
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> Views:
        """Image and validity of one patch."""
        # the last number keeps it from falling where the source's patch of that index does
        rng = np.random.default_rng([self.seed, *key, 1])
        patch = self._drawn(rng)
        return self.images.scaled(augmented(patch, self.geometry, self.kinds, rng))[:2]

    def _drawn(self, rng: np.random.Generator) -> Patch:
        for _ in range(_TRIES):
            side = zoomed_side(self.side, self.geometry.scale, rng)
            cell = self.cell if side == self.side else 1
            patch = self.images.piece(*anywhere(self.images, side, rng, cell))
            patch = fitted(patch, self.side, self.kinds.directions)
            if patch.valid.any():
                return patch
        # one without data would enter the statistics of the batch as a flat grey
        return self.known.piece(int(rng.integers(len(self.known))))


class CheckedPatches:
    """The same few patches of the target in every epoch, spread evenly over its ground."""

    def __init__(self, images: Images, side: int, most: int = TARGET_CHECKED) -> None:
        """Squares of a lattice over the images, of those that hold any valid pixel."""
        self.images, self.side = images, side
        shapes = np.array([image.shape for image in images.images])
        self._cols = -(-shapes[:, 1] // side)
        self._first = np.concatenate([[0], np.cumsum(-(-shapes[:, 0] // side) * self._cols)])
        self.places: list[int] = []
        """Numbers of the squares, image after image."""
        for looked, place in enumerate(spread(int(self._first[-1])).tolist()):
            if len(self.places) == most or (self.places and looked >= _LOOKS):
                break
            if self._square(place).valid.any():
                self.places.append(place)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.places)

    def __getitem__(self, index: int) -> Views:
        """Image and validity of one patch."""
        return self.images.scaled(self.piece(index))[:2]

    def piece(self, index: int) -> Patch:
        """What one of them holds, in physical units."""
        return self._square(self.places[index])

    def _square(self, place: int) -> Patch:
        number = int(np.searchsorted(self._first, place, side="right")) - 1
        row, col = divmod(place - int(self._first[number]), int(self._cols[number]))
        return self.images.piece(number, (row * self.side, col * self.side, self.side, self.side))


def spread(count: int) -> np.ndarray:
    """`0 .. count - 1` in an order of which every beginning is spread evenly (golden ratio)."""
    points = (np.arange(count) * _GOLDEN) % 1.0
    return np.argsort(np.argsort(points))


class _Both:
    """A patch of the source and one of the target by one index."""

    def __init__(self, source: TrainingPatches | RareClassPatches, target: TargetPatches) -> None:
        self.source, self.target = source, target

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, Views]:
        return self.source[key], self.target[key]


class DomainFeed(lightning.LightningDataModule):
    """Patches of both domains anew each epoch; the held-out source and some of the target.

    Training batches are `((image, valid, label), (image, valid))`, as many of the source as of
    the target, and an epoch has those of the target. Which patches a step gets depends on seed,
    epoch and its number alone. Loaders of the validation: the source's held-out pixels; the
    target's `CheckedPatches`; a labelled target where there is one to judge by.
    """

    def __init__(
        self,
        source: Train,
        target: Train,
        sets: tuple[LabelledSet, LabelledSet],
        parts: Parts,
        how: Adapt,
        workers: int = 0,
        rare: RareClasses | None = None,
    ) -> None:
        """Reads what fits into memory.

        Args:
            source: recipe with the scaling of the source.
            target: the same with that of the target.
            sets: source, and target, of which no label is read.
            parts: images of the source to train on, and to judge by.
            how: patches and batches.
            workers: processes that read patches.
            rare: draws patches of the source by their classes.

        Raises: DataError for bands, classes or labels that do not fit, and for a target that is
            all nodata or constant.
        """
        super().__init__()
        self.sets = sets[0], without_labels(sets[1])
        check_bands(source, *self.sets)
        self.target_settings, self.how, self.workers = target, how, workers
        self.batch = how.batch or source.batch
        self.source = Feed(source, self.sets[0], parts, workers)
        self.rare = rare
        self.drawn: TrainingPatches | RareClassPatches = self.source.patches
        if rare is not None:
            self.drawn = RareClassPatches(
                self.source.learned, source, _kinds(source), source.seed, rare
            )
        self.images = bare_images(target, self.sets[1])
        self.statistics = band_statistics(self.images, target.required)
        self.checked = CheckedPatches(self.images, target.patch)
        self.patches = TargetPatches(self.images, target, how, self.checked)
        self.judge: ValidationPatches | None = None

    def judge_by(self, data: LabelledSet) -> None:
        """Add a third loader: all pixels of a labelled target. Raises: DataError."""
        train = self.target_settings
        labelled = [image for image in data.images if image.label is not None]
        images = Images(data, labelled, labelled_channels(train, data))
        if not images.counts.any():
            raise DataError(f"{data.root} has no labelled pixel to judge by")
        self.judge = ValidationPatches(images, train.patch)

    def steps(self, processes: int) -> int:
        """Batches an epoch, of each of several processes."""
        return len(EpochBatches(0, len(self.patches), self.batch, 0, processes))

    def weights(self) -> list[float] | None:
        """Of the classes, by the source."""
        return self.source.weights()

    def target_batches(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Image and validity of so many batches of the target, the same ones every time."""
        for batch in range(count):
            keys = [(0, batch * self.batch + k) for k in range(self.batch)]
            images, valid = zip(*(self.patches[key] for key in keys), strict=True)
            yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(valid))

    def facts(self) -> dict[str, Any]:
        """What is in the two domains, for the card, as `source` and `target`."""
        data = self.sets[1]
        found = self.source.facts()
        if isinstance(self.drawn, RareClassPatches):
            found["sampled"] = _by_name(self.drawn.index.names, self.drawn.shares.tolist())
        target = {
            **dict(data.facts or {}),
            "set": data.root.name,
            "layout": data.layout,
            "license": data.license,
            "images": len(data.images),
            "digest": digest_of_images(data.images),
            "patches": len(self.patches),
            **_stated(self.target_settings.bands, self.statistics),
        }
        return {"source": found, "target": target}

    def train_dataloader(self) -> DataLoader[Any]:
        """Of the epoch that Lightning is in."""
        trainer = self.trainer
        epoch, rank, world = 0, 0, 1
        if trainer:
            epoch, rank, world = trainer.current_epoch, trainer.global_rank, trainer.world_size
        batches = EpochBatches(epoch, len(self.patches), self.batch, rank, world)
        return DataLoader(
            _Both(self.drawn, self.patches),  # type: ignore[arg-type]
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=self.workers,
            collate_fn=_collated,
        )

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """The same patches in every epoch."""
        shown: list[Any] = [self.source.held, self.checked]
        if self.judge is not None:
            shown.append(self.judge)
        return [
            DataLoader(patches, batch_size=self.batch, num_workers=self.workers)
            for patches in shown
        ]


def _kinds(train: Train) -> BandKinds:
    required = train.bands if train.required is None else train.required
    return BandKinds.of(train.bands, source_channels(train.bands), required)


def _collated(pairs: list[tuple[Any, Views]]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    source, target = zip(*pairs, strict=True)
    return tuple(default_collate(list(source))), tuple(default_collate(list(target)))


def _by_name(names: tuple[str, ...], values: list[float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in zip(names, values, strict=True)}


def _stated(bands: list[str], found: BandStatistics) -> dict[str, Any]:
    """Statistics by band, with the digits that a card has."""

    def named(values: tuple[float, ...]) -> dict[str, float]:
        return {b: short(v) for b, v in zip(bands, values, strict=True)}

    return {
        "pixels": dict(zip(bands, found.pixels, strict=True)),
        "statistics": {"mean": named(found.mean), "deviation": named(found.deviation)},
    }
