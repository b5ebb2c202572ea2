"""`mapper train`: from a recipe and labelled data to weights and their card.

```
OUT/train.json             what is trained on what; a second start with the same goes on
OUT/checkpoints/last.ckpt  of the last finished epoch
OUT/checkpoints/best.ckpt  of the best
OUT/metrics.csv            a line an epoch
OUT/tensorboard/           the same for TensorBoard
OUT/model.safetensors      the best weights, with recipe and scores: what `mapper export` takes
OUT/card.json              what was trained, on what, how long, how well
```
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapper.errors import UsageError
from mapper.events import Listener, ignore
from mapper.recipe import Recipe, Train, digest_of
from mapper.recipe.settings import train_section
from mapper.store.files import write_json
from mapper.training.checkpoints import checkpoints, last_checkpoint, over
from mapper.training.data.feed import Feed
from mapper.training.data.layouts import open_data
from mapper.training.data.split import split_blocks
from mapper.training.finetune import start_from
from mapper.training.journal import JOURNAL, Journal, read_journal
from mapper.training.module import Lesson
from mapper.training.networks import build_network
from mapper.training.networks.build import check_sizes
from mapper.training.trainer import Device, check_device, make_trainer, quiet
from mapper.training.weights import (
    WEIGHTS,
    learned_section,
    load_weights,
    save_weights,
    weights_digest,
)

_STATE = "train.json"
_CARD = "card.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What a training is asked for."""

    recipe: Recipe
    data: Path
    out: Path
    start: Path | None = None
    """Weights to begin with; classes and bands may differ."""
    workers: int = 0
    """Processes that read patches; 0 reads in this one."""
    device: Device = "auto"
    devices: int = 1
    """Accelerators; more than one train side by side (DDP)."""
    stop_after: int | None = None
    """Epochs after which this call ends early, to be resumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """What a training came to."""

    out: Path
    epochs: int
    epoch: int
    scores: dict[str, float]
    seconds: float
    resumed: bool
    finished: bool


def train_model(options: TrainOptions, listener: Listener = ignore) -> TrainReport:
    """Train, or go on training, and write weights and card.

    Raises: UsageError where the folder holds another training; RecipeError, DataError, ModelError.
    """
    import torch

    settings = train_section(options.recipe)
    check_device(options.device)
    data = open_data(options.data, settings.data, settings.table)
    labelled = [image for image in data.images if image.label is not None]
    feed = Feed(settings, data, split_blocks(labelled, settings.split), options.workers)
    about = _about(options, feed)
    claim = _claim(options, about, settings)
    if (options.out / _CARD).exists():
        return _finished(options.out)
    last = last_checkpoint(options.out / "checkpoints")
    torch.manual_seed(settings.seed)
    network = build_network(settings, pretrained=not (last or options.start))
    check_sizes(network, settings)
    if options.start:
        source = load_weights(options.start)
        about["pretrained"] = source.about.get("pretrained", about["pretrained"])
        about["lineage"] = start_from(network, settings, source)
    write_json(options.out / _STATE, claim)
    steps = feed.steps(options.devices) * settings.epochs
    lesson = Lesson(network, settings, feed.weights(), steps, about)
    began = time.monotonic()
    with quiet():
        trainer = _trainer(options, settings, listener)
        if not (last and over(read_journal(options.out / JOURNAL), last.epoch, settings)):
            path = str(last.path) if last else None
            trainer.fit(lesson, datamodule=feed, ckpt_path=path, weights_only=True)
    return _finish(options, lesson, trainer, (time.monotonic() - began, last is not None))


def _about(options: TrainOptions, feed: Feed) -> dict[str, Any]:
    """What weights say of themselves."""
    return {
        "recipe": options.recipe.name,
        "resolution": options.recipe.resolution,
        "data": feed.facts(),
        "pretrained": feed.settings.network.pretrained or "none, it started at random",
        "lineage": None,
    }


def _claim(options: TrainOptions, about: dict[str, Any], settings: Train) -> dict[str, Any]:
    """What the folder is to say of itself. Raises: UsageError where it says something else."""
    out = options.out
    asked = {
        "train": learned_section(settings),
        "data": about["data"],
        "start": weights_digest(options.start),
        "devices": options.devices,
    }
    fingerprint = digest_of(asked)
    path = out / _STATE
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("fingerprint") != fingerprint:
            raise UsageError(
                f"{out} holds another training (of {found.get('recipe')!r}); its settings or data "
                "differ: name another folder"
            )
    elif out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no training; name another folder")
    return {"fingerprint": fingerprint, "recipe": about["recipe"], **asked}


def _finished(out: Path) -> TrainReport:
    """What a training that came to its end came to."""
    card = json.loads((out / _CARD).read_text(encoding="utf-8"))
    return TrainReport(
        out=out,
        epochs=card["epochs"],
        epoch=card["epoch"],
        scores=card["scores"],
        seconds=0.0,
        resumed=True,
        finished=True,
    )


def _trainer(options: TrainOptions, settings: Train, listener: Listener) -> Any:
    from lightning.pytorch.callbacks import EarlyStopping

    columns = Journal(options.out / JOURNAL, settings.epochs, listener, options.stop_after)
    callbacks: list[Any] = [columns]
    if settings.patience:
        callbacks.append(EarlyStopping("miou", mode="max", patience=settings.patience))
    callbacks += checkpoints(options.out / "checkpoints")
    where = (options.device, options.devices)
    return make_trainer(options.out, settings, settings.epochs, callbacks, where)


def _finish(
    options: TrainOptions, lesson: Lesson, trainer: Any, took: tuple[float, bool]
) -> TrainReport:
    """Write weights and card of the best epoch, if the training came to its end.

    The first of several processes writes, and none goes on before all is there.
    """
    trainer.strategy.barrier()
    seconds, resumed = took
    last = lesson.settings.keep == "last"
    kept = options.out / "checkpoints" / ("last.ckpt" if last else "best.ckpt")
    lines = read_journal(options.out / JOURNAL)
    top = lines[-1] if last else max(lines, key=lambda line: line["miou"])
    scores = {k: v for k, v in top.items() if k not in ("epoch", "seconds", "rate")}
    finished = over(lines, int(lines[-1]["epoch"]), lesson.settings)
    report = TrainReport(
        out=options.out,
        epochs=len(lines),
        epoch=int(top["epoch"]),
        scores=scores,
        seconds=seconds,
        resumed=resumed,
        finished=finished,
    )
    if finished and trainer.is_global_zero:
        about = lesson.about | {
            "scores": scores,
            "epochs": len(lines),
            "epoch": report.epoch,
            "kept": lesson.settings.keep,
            "parameters": sum(p.numel() for p in lesson.network.parameters()),
        }
        trained = load_weights(kept)
        save_weights(options.out / WEIGHTS, trained.network.state_dict(), trained.train, about)
        spent = sum(line["seconds"] for line in lines)
        write_json(options.out / _CARD, {**about, "seconds": round(spent, 1)})
    trainer.strategy.barrier()
    return report
