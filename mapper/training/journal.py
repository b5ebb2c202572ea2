"""A line an epoch: in a CSV file that a resumed training goes on with, and as events."""

import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning

from mapper.errors import ModelError
from mapper.events import Event, Listener
from mapper.store.files import write_text

JOURNAL = "metrics.csv"
COLUMNS = ("epoch", "loss", "validation_loss", "miou", "accuracy", "rate", "seconds")


class Journal(lightning.Callback):
    """Writes `metrics.csv` and tells the listener."""

    columns: tuple[str, ...] = COLUMNS
    stage = "train"

    def __init__(
        self, path: Path, epochs: int, listener: Listener, stop_after: int | None = None
    ) -> None:
        """`stop_after` ends the training after so many epochs of this call."""
        self.path, self.epochs, self.listener, self.stop_after = path, epochs, listener, stop_after
        self._began = time.monotonic()
        self._seen = 0

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """The clock starts."""
        self._began = time.monotonic()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """An epoch is over: the metrics of both its sides are known."""
        self._seen += 1
        if self.stop_after and self._seen >= self.stop_after:
            trainer.should_stop = True
        loss = float(trainer.callback_metrics.get("loss", 0.0))
        if not math.isfinite(loss):
            raise ModelError(
                f"the loss of epoch {trainer.current_epoch + 1} is not finite: the training went "
                "astray; lower optimizer.rate, or look for huge values in the data"
            )
        if trainer.is_global_zero:
            self._note(trainer)

    def _note(self, trainer: Any) -> None:
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        line = {k: metrics.get(k, float("nan")) for k in self.columns} | {
            "epoch": trainer.current_epoch,
            "rate": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": time.monotonic() - self._began,
        }
        keep = [old for old in read_journal(self.path) if old["epoch"] < line["epoch"]]
        _write(self.path, self.columns, [*keep, line])
        self.listener(
            Event(
                kind="step",
                stage=self.stage,
                state="done",
                message=f"epoch {line['epoch'] + 1} of {self.epochs}: {self.said(line)}, "
                f"{line['seconds']:.1f} s",
                done=trainer.current_epoch + 1,
                total=self.epochs,
                data=line,
            )
        )

    def said(self, line: Mapping[str, float]) -> str:
        """What the listener is told of an epoch."""
        return (
            f"loss {line['loss']:.4f}, held out mIoU {line['miou']:.4f}, "
            f"accuracy {line['accuracy']:.4f}"
        )


def _write(path: Path, columns: Sequence[str], lines: list[dict[str, Any]]) -> None:
    content = io.StringIO(newline="")
    writer = csv.DictWriter(content, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, content.getvalue())


def read_journal(path: Path) -> list[dict[str, float]]:
    """Every line as numbers; empty where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in line.items()} for line in csv.DictReader(file)]
