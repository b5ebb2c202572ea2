"""One step of an adaptation, and how it is judged without labels: what Lightning runs."""

import json
import math
import resource
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from mapper.errors import ModelError
from mapper.recipe.training import Train
from mapper.training.adapt.choosing import TargetMeasures, score
from mapper.training.adapt.method import Labelled, Moment
from mapper.training.adapt.methods import build_method
from mapper.training.losses import IGNORED
from mapper.training.module import Batch, Lesson, mean_iou
from mapper.training.networks import Supervised
from mapper.training.schedule import make_optimizer, rate_factor

SOURCE, TARGET, JUDGE = range(3)
"""Numbers of the validation loaders; the last is there where a labelled target judges."""
Views = tuple[Tensor, Tensor]
"""Image and validity of the target."""
Both = tuple[Batch, Views]


class AdaptLesson(Lesson):
    """A student, a method and what they are measured by.

    What judges the target here are measures without labels; `target_miou` is noted where the
    caller has labels, and nothing is chosen by it.

    Of several processes the first alone is shown what is validated on: the batch statistics of
    the others drift from those of the network that is kept, and a pixel shown to two would count
    twice among the neighbours of `density`.
    """

    def __init__(
        self,
        network: Supervised,
        train: Train,
        weights: list[float] | None,
        steps: int,
        about: Mapping[str, Any],
    ) -> None:
        """`steps` of an epoch."""
        super().__init__(network, train, weights, steps * train.adapt.epochs, about)
        self.automatic_optimization = False
        self.method = build_method(self.network, train, self.criterion)
        self.per_epoch = steps
        self.measures = TargetMeasures(len(train.classes))
        self.judged = MulticlassConfusionMatrix(len(train.classes), ignore_index=IGNORED)
        self._began = self._seconds = 0.0
        self._pixels = 0

    def on_train_epoch_start(self) -> None:
        """Count pixels and seconds anew, from before the first patch is read."""
        self._began, self._pixels = time.monotonic(), 0

    def on_validation_start(self) -> None:
        """The learning of the epoch is over, once the accelerator is done with it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._seconds = time.monotonic() - self._began

    def on_train_batch_start(self, batch: Both, batch_idx: int) -> None:  # type: ignore[override]
        """Seed what is drawn."""
        super().on_train_batch_start(batch[0], batch_idx)

    def training_step(self, batch: Both, batch_idx: int) -> None:  # type: ignore[override]
        """One backward for all losses, one step of every optimiser."""
        source, target = _source(batch[0]), _target(batch[1])
        moment = Moment(
            epoch=self.current_epoch,
            epochs=self.settings.adapt.epochs,
            step=self.current_epoch * self.per_epoch + batch_idx,
        )
        losses = self.method.losses(source, target, moment)
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        self._check(total, losses, moment)
        optimizers = self._listed(self.optimizers())
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(total)
        for optimizer in optimizers:
            optimizer.step()
        for schedule in self._listed(self.lr_schedulers()):
            schedule.step()
        self._log_losses(losses, total, len(source.image))
        self._pixels += source.label.numel() + target.label.numel()

    def _log_losses(self, losses: Mapping[str, Tensor], total: Tensor, count: int) -> None:
        how: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": count}
        self.log("loss", total.detach(), sync_dist=True, **how)
        for name, loss in losses.items():
            self.log(name, loss.detach(), sync_dist=True, **how)

    @staticmethod
    def _listed(found: Any) -> list[Any]:
        """Lightning hands over one, several or none."""
        return list(found) if isinstance(found, list | tuple) else [found]

    def _check(self, total: Tensor, losses: Mapping[str, Tensor], moment: Moment) -> None:
        """Raises: ModelError where the learning diverges, before a weight is spoiled."""
        if torch.isfinite(total):
            return
        lost = [name for name, loss in losses.items() if not torch.isfinite(loss)]
        what = f"{', '.join(lost) or 'the sum'} is not finite"
        raise ModelError(self._diverged(f"step {moment.step + 1}, epoch {moment.epoch + 1}", what))

    def _check_result(self, found: Mapping[str, float]) -> None:
        """Raises: ModelError where what would be kept was spoiled, if by the very last step."""
        state = self.method.result.state_dict()
        lost = [name for name, values in state.items() if not torch.isfinite(values).all()]
        if lost:
            what = f"{len(lost)} of {len(state)} tensors of the network are not finite ({lost[0]})"
        elif self.measures.seen and math.isnan(found["entropy"]):
            what = "what the network says of the target is not finite"
        else:
            return
        if self.method.learns:
            raise ModelError(self._diverged(f"epoch {self.current_epoch + 1}", what))
        raise ModelError(
            f"{self.settings.adapt.method}: {what}; give other weights of the source, or look for "
            "huge values in the target and at train.scaling"
        )

    def _diverged(self, when: str, what: str) -> str:
        method = self.settings.adapt.method
        return (
            f"{method} diverged in {when}: {what}; start again in another folder with a lower "
            f"adapt.{method}.optimizer.rate"
        )

    def validation_step(  # type: ignore[override]
        self, batch: Any, batch_idx: int, dataloader_idx: int = SOURCE
    ) -> None:
        """Confusions of the source, measures of the target; by the first process alone."""
        if not self.trainer.is_global_zero:
            return
        image, valid = batch[0].contiguous(memory_format=torch.channels_last), batch[1]
        result = self.method.result.eval()
        logits = result(image, valid)
        if dataloader_idx == TARGET:
            turned = result(image.flip(3), valid.flip(3)).flip(3)
            shares = (logits.float().softmax(dim=1), turned.float().softmax(dim=1))
            self.measures.add(*shares, (valid > 0.5).any(dim=1))
            return
        matrix = self.judged if dataloader_idx == JUDGE else self.matrix
        matrix.update(logits.argmax(dim=1), batch[2])

    def on_validation_epoch_end(self) -> None:
        """Log what was counted, and what the epoch is chosen by."""
        self.measures = self.trainer.strategy.broadcast(self.measures)
        found = self.measures.result()
        self._check_result(found)
        super().on_validation_epoch_end()
        self.measures = TargetMeasures(len(self.settings.classes))
        for name, value in found.items():
            self.log(name, float(value))
        if len(self.trainer.num_val_batches) > JUDGE:
            self.log("target_miou", mean_iou(self.judged.compute())[0])
            self.judged.reset()
        known = {**found, "miou": float(self.trainer.callback_metrics["miou"])}
        known["epoch"] = float(self.current_epoch)
        self.log("choice", score(known, self.settings.adapt.choose))
        if self._pixels:
            world = self.trainer.world_size
            self.log("megapixels_per_second", world * self._pixels / self._seconds / 1e6)
        self.log("memory_gib", peak_memory(self.device) / (1 << 30))

    def configure_optimizers(self) -> Any:
        """The student's, by the method, and those of what learns beside it, with one schedule."""
        chosen = [make_optimizer(self.network, self.method.optimizer), *self.method.others()]
        factor = rate_factor(self.method.schedule, self.steps)
        schedules = [torch.optim.lr_scheduler.LambdaLR(one, factor) for one in chosen]
        return chosen, schedules

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Every checkpoint says what it is of, and which of its weights are the result."""
        super().on_save_checkpoint(checkpoint)
        content = json.loads(checkpoint["mapper"]) | {"weights": self.method.kept}
        checkpoint["mapper"] = json.dumps(content, sort_keys=True)


def peak_memory(device: torch.device) -> int:
    """Bytes that were needed at most, of the accelerator where there is one."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def _source(batch: Batch) -> Labelled:
    image, valid, label = batch
    return _labelled(image, valid, label)


def _target(batch: Views) -> Labelled:
    image, valid = batch
    shape = (len(image), *image.shape[2:])
    unknown = torch.full(shape, IGNORED, dtype=torch.int64, device=image.device)
    return _labelled(image, valid, unknown)


def _labelled(image: Tensor, valid: Tensor, label: Tensor) -> Labelled:
    weight = torch.ones(label.shape, dtype=torch.float32, device=image.device)
    image = image.contiguous(memory_format=torch.channels_last)
    return Labelled(image=image, valid=valid, label=label, weight=weight)
