"""One training step, one validation step: what Lightning runs."""

import json
from collections.abc import Mapping
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from mapper.recipe.training import Train
from mapper.training.losses import IGNORED, make_criterion
from mapper.training.networks import Supervised
from mapper.training.schedule import make_optimizer, rate_factor
from mapper.training.weights import learned_section

Batch = tuple[Tensor, Tensor, Tensor]
"""Image and validity `(batch, band, y, x)` float32, label `(batch, y, x)` int64."""


class Lesson(lightning.LightningModule):
    """A network, its loss and its learning rates.

    Randomness inside the network (dropout, points) is seeded anew for every batch from seed,
    epoch and number, so that a resumed training goes on bit for bit.
    """

    def __init__(
        self,
        network: Supervised,
        train: Train,
        weights: list[float] | None,
        steps: int,
        about: Mapping[str, Any],
    ) -> None:
        """`steps` of the whole training; `about` is kept in every checkpoint."""
        super().__init__()
        # twice as fast on CPUs, and what tensor cores want
        self.network = network.to(memory_format=torch.channels_last)
        self.settings = train
        self.criterion = make_criterion(train.loss, weights)
        self.steps = steps
        self.about = dict(about)
        self.matrix = MulticlassConfusionMatrix(len(train.classes), ignore_index=IGNORED)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed what the network draws."""
        place = [self.settings.seed, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        image, valid, label = batch
        image = image.contiguous(memory_format=torch.channels_last)
        loss = self.network.loss(image, valid, label, self.criterion)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(image), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Counts confusions, and logs the loss where anything is labelled."""
        image, valid, label = batch
        image = image.contiguous(memory_format=torch.channels_last)
        logits = self.network(image, valid)
        self.matrix.update(logits.argmax(dim=1), label)
        taught = int((label != IGNORED).sum())
        if taught:
            loss = self.criterion(logits, label)
            self.log("validation_loss", loss, batch_size=taught, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log what the confusions come to."""
        miou, accuracy = mean_iou(self.matrix.compute())
        self.matrix.reset()
        self.log("miou", miou)
        self.log("accuracy", accuracy)

    def configure_optimizers(self) -> Any:
        """By the recipe; the rate moves with every step."""
        optimizer = make_optimizer(self.network, self.settings.optimizer)
        factor = rate_factor(self.settings.schedule, self.steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Every checkpoint says what it is of."""
        checkpoint["mapper"] = json.dumps(
            {"train": learned_section(self.settings), "about": self.about}, sort_keys=True
        )


def mean_iou(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Mean IoU over the classes that occur in the labels (rows), and overall accuracy."""
    matrix = matrix.double()
    hits, truth, drawn = matrix.diag(), matrix.sum(1), matrix.sum(0)
    present = truth > 0
    iou = (hits / (truth + drawn - hits).clamp(min=1))[present]
    mean = iou.mean().float() if present.any() else torch.tensor(0.0)
    return mean, (hits.sum() / matrix.sum().clamp(min=1)).float()
