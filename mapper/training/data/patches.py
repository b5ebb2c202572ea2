"""Patches of labelled images: random ones to train on, a fixed lattice of them to validate.

What patch `index` of `epoch` is depends on seed, epoch and index alone, so that a run that was
stopped goes on as if it had not been.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mapper.errors import DataError
from mapper.inference.scaling import Scaling, scaled, scaling_of
from mapper.recipe.training import Train
from mapper.training.data.augment import BandKinds, Patch, augmented, coarsen, known_mean
from mapper.training.data.crosswalk import UNTAUGHT
from mapper.training.data.labelled import Box, LabelledImage, LabelledSet, Pixels

_KEPT = 1 << 30
"""Bytes of decoded images that are kept in memory; larger sets are read piece by piece."""
_TRIES = 8
"""Draws after which a patch without any label is taken all the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """How stored bands become what the network is given."""

    positions: tuple[int, ...]
    """Of the recipe's bands among those of the data set."""
    scale: float
    scaling: tuple[Scaling, ...]
    fill: float
    lookup: np.ndarray
    """Label value to channel, see `channel_lookup`."""
    classes: int
    """Channels of the model, whether or not a label can name them."""

    @classmethod
    def of(cls, train: Train, data: LabelledSet, lookup: np.ndarray) -> "Channels":
        """Of a recipe over a data set. Raises: DataError where a band is missing."""
        missing = [band for band in train.bands if band not in data.bands]
        if missing:
            raise DataError(
                f"{data.root} holds {', '.join(data.bands)}; the recipe needs "
                f"{', '.join(missing)}: name the bands under train.data.bands, or sample them"
            )
        steps = train.scaling * (len(train.bands) if len(train.scaling) == 1 else 1)
        return cls(
            positions=tuple(data.bands.index(band) for band in train.bands),
            scale=data.scale,
            scaling=tuple(scaling_of(step) for step in steps),
            fill=train.fill,
            lookup=lookup,
            classes=len(train.classes),
        )


class Images:
    """The images of one side of a split, kept in memory where they fit."""

    def __init__(
        self, data: LabelledSet, images: Sequence[LabelledImage], channels: Channels
    ) -> None:
        """Reads all of them where they fit. Raises: DataError naming a file."""
        self.data, self.images, self.channels = data, tuple(images), channels
        self.sizes = np.array([i.shape[0] * i.shape[1] for i in images], dtype=np.float64)
        self._kept: list[Pixels] = []
        self.counts = np.zeros((len(images), channels.classes), np.int64)
        total = 0
        for number, image in enumerate(self.images):
            pixels = data.read(image, None)
            total += pixels.values.nbytes
            if total <= _KEPT:
                self._kept.append(pixels)
            if pixels.label is not None:
                taught = channels.lookup[pixels.label.ravel()]
                self.counts[number] = np.bincount(taught[taught >= 0], minlength=channels.classes)

    @property
    def light(self) -> np.ndarray:
        """Bool per band that the network is given: it holds light."""
        names = [self.data.bands[position] for position in self.channels.positions]
        return BandKinds.of(names, (), names).light

    def piece(self, number: int, box: Box) -> Patch:
        """A box of an image, beyond its edge without data and untaught."""
        image = self.images[number]
        row, col, height, width = box
        r0, c0 = max(row, 0), max(col, 0)
        r1, c1 = min(row + height, image.shape[0]), min(col + width, image.shape[1])
        channels = self.channels
        patch = Patch(
            image=np.zeros((len(channels.positions), height, width), np.float32),
            valid=np.zeros((len(channels.positions), height, width), bool),
            label=np.full((height, width), UNTAUGHT, np.int64),
        )
        if r1 <= r0 or c1 <= c0:
            return patch
        pixels = self._read(number, (r0, c0, r1 - r0, c1 - c0))
        place = np.s_[..., r0 - row : r1 - row, c0 - col : c1 - col]
        values = pixels.values[list(channels.positions)].astype(np.float32)
        patch.image[place] = values * np.float32(channels.scale)
        patch.valid[place] = (
            True if pixels.valid is None else pixels.valid[list(channels.positions)]
        )
        patch.valid &= np.isfinite(patch.image)
        # whatever stands for no data in a file must have no say in what is beside it
        patch.image[~patch.valid] = 0
        if pixels.label is not None:
            patch.label[place] = channels.lookup[pixels.label]
        return patch

    def _read(self, number: int, box: Box) -> Pixels:
        if number >= len(self._kept):
            return self.data.read(self.images[number], box)
        whole, (row, col, height, width) = self._kept[number], box
        place = np.s_[..., row : row + height, col : col + width]
        return Pixels(
            values=whole.values[place],
            valid=None if whole.valid is None else whole.valid[place],
            label=None if whole.label is None else whole.label[place],
        )

    def scaled(self, patch: Patch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, validity (both float32) and label as the network is given them."""
        image = scaled(patch.image[None], self.channels.scaling)[0]
        image = np.where(patch.valid, image, np.float32(self.channels.fill))
        # pixels of which nothing is known teach nothing
        label = np.where(patch.valid.any(axis=0), patch.label, UNTAUGHT)
        return image.astype(np.float32), patch.valid.astype(np.float32), label


class TrainingPatches:
    """Random patches: indices are `(epoch, index)`."""

    def __init__(
        self, images: Images, train: Train, kinds: BandKinds, seed: int, cell: int = 1
    ) -> None:
        """`train` says their size and how they are changed; they begin at multiples of `cell`."""
        self.images, self.kinds, self.seed, self.cell = images, kinds, seed, cell
        self.side, self.how = train.patch, train.augment
        self.count = train.patches or max(1, round(images.sizes.sum() / train.patch**2))

    def __len__(self) -> int:
        """Patches an epoch."""
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, validity and label of one patch."""
        rng = np.random.default_rng([self.seed, *key])
        for _ in range(_TRIES):
            patch = self._drawn(rng)
            if (patch.label >= 0).any():
                break
        return self.images.scaled(augmented(patch, self.how, self.kinds, rng))

    def _drawn(self, rng: np.random.Generator) -> Patch:
        side = zoomed_side(self.side, self.how.scale, rng)
        centred = self.how.rare_classes and rng.random() < self.how.rare_classes
        cell = self.cell if side == self.side else 1
        number, box = (
            self._of_class(rng, side, cell) if centred else anywhere(self.images, side, rng, cell)
        )
        return fitted(self.images.piece(number, box), self.side, self.kinds.directions)

    def _of_class(self, rng: np.random.Generator, side: int, cell: int) -> tuple[int, Box]:
        """Around a pixel of a class, every class as often."""
        counts = self.images.counts
        present = np.flatnonzero(counts.sum(axis=0))
        if not len(present):
            return anywhere(self.images, side, rng, cell)
        channel = int(rng.choice(present))
        weights = counts[:, channel] / counts[:, channel].sum()
        number = int(rng.choice(len(weights), p=weights))
        shape = self.images.images[number].shape
        for _ in range(_TRIES):
            box = square(shape, side, rng, cell)
            if (self.images.piece(number, box).label == channel).any():
                break
        return number, box


def zoomed_side(side: int, scale: tuple[float, float], rng: np.random.Generator) -> int:
    """Pixels that become `side` of them, by a zoom drawn from a range of factors."""
    low, high = scale
    factor = float(np.exp(rng.uniform(np.log(low), np.log(high)))) if low < high else low
    return max(8, round(side / factor))


def anywhere(images: Images, side: int, rng: np.random.Generator, cell: int = 1) -> tuple[int, Box]:
    """A square of an image that is drawn by its size."""
    sizes = images.sizes
    number = int(rng.choice(len(sizes), p=sizes / sizes.sum()))
    return number, square(images.images[number].shape, side, rng, cell)


def square(shape: tuple[int, int], side: int, rng: np.random.Generator, cell: int = 1) -> Box:
    """A square anywhere in an image; smaller images lie in its middle.

    It begins at a multiple of `cell` pixels, counted from the first of the image.
    """

    def start(size: int) -> int:
        if size <= side:
            return (size - side) // 2 // cell * cell
        return cell * int(rng.integers(0, (size - side) // cell + 1))

    return start(shape[0]), start(shape[1]), side, side


def _bilinear(values: np.ndarray, side: int) -> np.ndarray:
    import torch
    from torch.nn import functional

    wide = torch.from_numpy(values)[None]
    found = functional.interpolate(wide, size=(side, side), mode="bilinear", antialias=True)
    return np.asarray(found[0].numpy())


def fitted(patch: Patch, side: int, directions: np.ndarray) -> Patch:
    """To a size: values bilinear; validity, labels and directions by the nearest pixel."""
    old = patch.label.shape[0]
    if old == side:
        return patch
    nearest = np.minimum(((np.arange(side) + 0.5) * old / side).astype(int), old - 1)
    image = known_mean(patch.image, patch.valid, lambda values: _bilinear(values, side))
    image[directions] = patch.image[directions][:, nearest][:, :, nearest]
    return Patch(
        image=image,
        valid=np.ascontiguousarray(patch.valid[:, nearest][:, :, nearest]),
        label=np.ascontiguousarray(patch.label[nearest][:, nearest]),
    )


class ValidationPatches:
    """Every pixel of the held-out images once, side by side."""

    def __init__(self, images: Images, side: int, coarser: int = 1) -> None:
        """Squares of `side`, seen as `coarsen` of a recipe says; the last of a row overhangs."""
        self.images, self.coarser, self.light = images, coarser, images.light
        self.boxes = [
            (number, (row, col, side, side))
            for number, image in enumerate(images.images)
            for row in range(0, image.shape[0], side)
            for col in range(0, image.shape[1], side)
        ]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.boxes)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, validity and label of one patch."""
        patch = self.images.piece(*self.boxes[index])
        coarsen(patch, self.coarser, self.light)
        return self.images.scaled(patch)


@dataclass(frozen=True, slots=True)
class EpochBatches:
    """Batches of `(epoch, index)`: the sampler of one epoch, or one process's share of it."""

    epoch: int
    count: int
    batch: int
    rank: int = 0
    processes: int = 1

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Full batches, in order: the patches are random already."""
        for number in range(len(self)):
            start = (number * self.processes + self.rank) * self.batch
            yield [(self.epoch, start + k) for k in range(self.batch)]

    def __len__(self) -> int:
        """How many batches; the last is filled up with further patches."""
        return -(-self.count // (self.batch * self.processes))
