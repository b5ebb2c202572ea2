"""A line an epoch of an adaptation, and when it is over."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mapper.events import Listener
from mapper.recipe.adapting import Adapt
from mapper.training.adapt.choosing import stopped
from mapper.training.journal import Journal, read_journal

COLUMNS = (
    "epoch",
    "loss",
    "source_loss",
    "target_loss",
    "miou",
    "accuracy",
    "entropy",
    "information",
    "density",
    "agreement",
    "dominance",
    "choice",
    "target_miou",
    "rate",
    "megapixels_per_second",
    "memory_gib",
    "seconds",
)


class AdaptJournal(Journal):
    """Writes `metrics.csv`, tells the listener, and ends what no longer gets better."""

    columns = COLUMNS
    stage = "adapt"

    def __init__(
        self, path: Path, how: Adapt, listener: Listener, stop_after: int | None = None
    ) -> None:
        """`stop_after` ends the adaptation after so many epochs of this call."""
        super().__init__(path, how.epochs, listener, stop_after)
        self.how = how

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """An epoch is over: losses and measures are known."""
        super().on_train_epoch_end(trainer, module)
        # others would read a file that the first is still writing, and some would stop alone
        over = trainer.is_global_zero and is_over(
            read_journal(self.path), trainer.current_epoch, self.how
        )
        if trainer.strategy.broadcast(over):
            trainer.should_stop = True

    def said(self, line: Mapping[str, float]) -> str:
        """What the listener is told of an epoch."""
        text = (
            f"loss {line['loss']:.4f}, source mIoU {line['miou']:.4f}, target agreement "
            f"{line['agreement']:.4f}, entropy {line['entropy']:.4f}, "
            f"{line['megapixels_per_second']:.2f} Mpx/s, {line['memory_gib']:.1f} GiB"
        )
        known = line["target_miou"]
        return f"{text}, target mIoU {known:.4f} (not used)" if known == known else text


def is_over(lines: Sequence[Mapping[str, float]], epoch: int, how: Adapt) -> bool:
    """True where an adaptation came to its end, though what follows may not have been done."""
    known = [line for line in lines if line["epoch"] <= epoch]
    if len(known) >= how.epochs:
        return True
    return bool(how.patience and known and stopped(known, how.choose, how.patience))
