"""The two sides of a data set as Lightning wants them: batches to train on, batches to judge by."""

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import lightning
from torch.utils.data import DataLoader

from mapper.errors import DataError
from mapper.recipe.training import Train, table_of
from mapper.training.data.augment import BandKinds
from mapper.training.data.crosswalk import channel_lookup
from mapper.training.data.labelled import LabelledImage, LabelledSet
from mapper.training.data.patches import (
    Channels,
    EpochBatches,
    Images,
    TrainingPatches,
    ValidationPatches,
)
from mapper.training.losses import class_weights
from mapper.training.networks.build import cell_pixels, source_channels

logger = logging.getLogger(__name__)

Parts = tuple[Sequence[LabelledImage], Sequence[LabelledImage]]
"""Images to train on, and images to judge by."""


def digest_of_images(images: Iterable[LabelledImage]) -> str:
    """Of names and sizes of files; a sample of a Zarr group, which is no file, by its pixels."""
    listed = sorted(
        [i.name, i.image.stat().st_size if i.image.is_file() else i.shape[0] * i.shape[1]]
        for i in images
    )
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def labelled_channels(train: Train, data: LabelledSet) -> Channels:
    """How a labelled set meets a recipe. Raises: DataError where bands or classes do not."""
    names = [c.name for c in table_of(train.classes).classes]
    try:
        lookup = channel_lookup(data.classes, names, train.data.crosswalk)
    except DataError as reason:
        raise DataError(f"{data.root}: {reason}") from reason
    return Channels.of(train, data, lookup)


class Feed(lightning.LightningDataModule):
    """Patches of the training images anew each epoch, all pixels of the validation images."""

    def __init__(self, train: Train, data: LabelledSet, parts: Parts, workers: int = 0) -> None:
        """Reads what fits into memory. Raises: DataError."""
        super().__init__()
        channels = labelled_channels(train, data)
        labelled = [[i for i in side if i.label is not None] for side in parts]
        if not labelled[0] or not labelled[1]:
            raise DataError(f"{data.root} has no labelled image to train on, or none to judge by")
        self.settings, self.data, self.workers = train, data, workers
        self.learned, self.judged = (Images(data, side, channels) for side in labelled)
        if not self.judged.counts.any():
            raise DataError(
                f"{data.root}: the held-out images have no labelled pixel to judge by; hold out "
                "others with train.split"
            )
        self._check_labels()
        required = train.bands if train.required is None else train.required
        kinds = BandKinds.of(train.bands, source_channels(train.bands), required)
        self.patches = TrainingPatches(self.learned, train, kinds, train.seed, cell_pixels(train))
        # judged is the sensor that is learned for
        self.held = ValidationPatches(self.judged, train.patch, train.augment.coarsen)

    def _check_labels(self) -> None:
        taught = self._taught(self.learned)
        lost = [name for name, count in taught.items() if not count]
        self.untaught = lost
        if lost:
            logger.warning("no pixel to train on is %s: not taught", ", ".join(lost))
        if len(lost) > len(taught) - 2:
            raise DataError(
                f"{self.data.root}: the images to train on hold no pixel of {', '.join(lost)}; "
                "check train.data.crosswalk and the classes"
            )

    def _taught(self, images: Images) -> dict[str, int]:
        """Pixels of every class of the model."""
        counts = images.counts.sum(axis=0).tolist()
        return dict(zip((c.name for c in self.settings.classes), counts, strict=True))

    def steps(self, processes: int) -> int:
        """Batches an epoch, of each of several processes."""
        return len(EpochBatches(0, len(self.patches), self.settings.batch, 0, processes))

    def weights(self) -> list[float] | None:
        """Of the classes, as the recipe asks."""
        wanted = self.settings.loss.class_weights
        if wanted == "none":
            return None
        if isinstance(wanted, list):
            return list(wanted)
        return class_weights(
            list(self._taught(self.learned).values()), int(self.learned.sizes.sum())
        )

    def facts(self) -> dict[str, Any]:
        """What is in the two sides, for the card: names of images by a hash, pixels by class."""

        def side(images: Images) -> dict[str, Any]:
            return {
                "images": len(images.images),
                "digest": digest_of_images(images.images),
                "groups": sorted({i.group for i in images.images if i.group}),
                "pixels": self._taught(images),
            }

        return {
            "set": self.data.root.name,
            "layout": self.data.layout,
            "license": self.data.license,
            "train": side(self.learned),
            "untaught": self.untaught,
            "validation": side(self.judged) | {"names": sorted(i.name for i in self.judged.images)},
            **dict(self.data.facts or {}),
        }

    def train_dataloader(self) -> DataLoader[Any]:
        """Of the epoch that Lightning is in."""
        trainer = self.trainer
        epoch, rank, world = 0, 0, 1
        if trainer:
            epoch, rank, world = trainer.current_epoch, trainer.global_rank, trainer.world_size
        batches = EpochBatches(epoch, len(self.patches), self.settings.batch, rank, world)
        return DataLoader(self.patches, batch_sampler=batches, num_workers=self.workers)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        """The same patches in every epoch."""
        return DataLoader(self.held, batch_size=self.settings.batch, num_workers=self.workers)  # type: ignore[arg-type]
