"""`mapper adapt`: from a labelled source and an unlabelled target to weights and their card.

```
OUT/source/            the training on the source alone, where no weights were given
OUT/adapt.json         what is adapted to what; a second start with the same goes on
OUT/checkpoints/       last.ckpt of the last finished epoch, best.ckpt of the chosen one
OUT/metrics.csv        a line an epoch: losses, the held-out source, measures of the target
OUT/model.safetensors  the chosen weights: what `mapper export` takes
OUT/card.json          source, target, method, lineage, how it was chosen
```
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapper.errors import UsageError
from mapper.events import Listener, ignore
from mapper.recipe import Recipe, Train, digest_of
from mapper.recipe.settings import train_section
from mapper.store.files import write_json
from mapper.training.adapt.checks import check_recipe, check_start, warn_of_warmup
from mapper.training.adapt.choosing import choose_epoch
from mapper.training.adapt.domains import Domains, open_domains
from mapper.training.adapt.journal import AdaptJournal, is_over
from mapper.training.adapt.lesson import AdaptLesson
from mapper.training.adapt.statistics import adapted_statistics
from mapper.training.checkpoints import checkpoints, last_checkpoint
from mapper.training.data.labelled import LabelledSet
from mapper.training.finetune import start_from
from mapper.training.journal import JOURNAL, read_journal
from mapper.training.networks import Supervised, build_network
from mapper.training.train import TrainOptions, train_model
from mapper.training.trainer import (
    Device,
    check_device,
    first_process,
    make_trainer,
    network_device,
    quiet,
)
from mapper.training.weights import WEIGHTS, load_weights, save_weights, weights_digest

logger = logging.getLogger(__name__)

_STATE = "adapt.json"
_CARD = "card.json"
SOURCE = "source"
"""Folder of the training on the source alone."""
_OWN = (SOURCE, ".lock")
"""What may be there before an adaptation is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptOptions:
    """What an adaptation is asked for."""

    recipe: Recipe
    """Its `train.adapt` says the method."""
    source: Path
    """Labelled images."""
    target: LabelledSet
    """Images whose labels are not read."""
    out: Path
    start: Path | None = None
    """Weights of the source; without them the source is trained on first."""
    judge: LabelledSet | None = None
    """Labelled images of the target, for the journal alone: nothing is chosen by them."""
    workers: int = 0
    device: Device = "auto"
    devices: int = 1
    stop_after: int | None = None
    """Epochs after which this call ends early, to be resumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptReport:
    """What an adaptation came to."""

    out: Path
    method: str
    epochs: int
    epoch: int
    """The chosen one, from 0."""
    chosen_by: str
    scores: dict[str, float]
    """Of the chosen epoch: the held-out source, measures of the target."""
    seconds: float
    megapixels_per_second: float
    memory_gib: float
    resumed: bool
    finished: bool


def train_source(options: AdaptOptions, listener: Listener = ignore) -> Path:
    """Train on the source alone, or go on; does nothing where it is done. Returns: the folder."""
    out = options.out / SOURCE
    train_model(
        TrainOptions(
            recipe=options.recipe,
            data=options.source,
            out=out,
            workers=options.workers,
            device=options.device,
            devices=options.devices,
        ),
        listener,
    )
    return out


def adapt_model(options: AdaptOptions, listener: Listener = ignore) -> AdaptReport:
    """Adapt, or go on adapting, and write weights and card.

    Raises: UsageError where the folder holds another adaptation, or weights are of another scale;
        DataError where the two domains do not fit; RecipeError; ModelError where the learning
        diverges.
    """
    import torch

    settings = train_section(options.recipe)
    check_device(options.device)
    check_recipe(settings)
    source = None if options.start is None else load_weights(options.start)
    if options.start is not None and source is not None:
        check_start(settings, options.start, source)
    domains = open_domains(
        settings, (options.source, options.target), options.judge, options.workers
    )
    about = _about(options, domains)
    claim = _claim(options, about, settings)
    if (options.out / _CARD).exists():
        return _finished(options.out)
    start = _start(options, settings, listener)
    began = time.monotonic()
    torch.manual_seed(settings.seed)
    network = build_network(domains.target, pretrained=start is None)
    if start is not None:
        source = source or load_weights(start)
        about["lineage"] = start_from(network, settings, source)
        about["pretrained"] = source.about.get("pretrained", about["pretrained"])
    if first_process():
        write_json(options.out / _STATE, claim)
    lesson = AdaptLesson(
        network, domains.target, domains.feed.weights(), domains.feed.steps(options.devices), about
    )
    if not lesson.method.learns:
        return _unlearned(options, domains, lesson, time.monotonic() - began)
    warn_of_warmup(settings, lesson.method, lesson.steps)
    return _learned(options, domains, lesson, listener)


def _start(options: AdaptOptions, settings: Train, listener: Listener) -> Path | None:
    """Weights of the source, trained where there are none; None where it begins at random."""
    if options.start is not None:
        return options.start
    if settings.adapt.start == "scratch":
        return None
    return train_source(options, listener)


def _about(options: AdaptOptions, domains: Domains) -> dict[str, Any]:
    """What the weights say of themselves."""
    how = domains.target.adapt
    facts = domains.feed.facts()
    return {
        "recipe": options.recipe.name,
        "resolution": options.recipe.resolution,
        "data": facts["source"],
        "pretrained": domains.target.network.pretrained or "none, it started at random",
        "lineage": None,
        "adapted": {
            "method": how.method,
            "settings": getattr(how, how.method).model_dump(mode="json")
            if hasattr(how, how.method)
            else {},
            "source": facts["source"]["set"],
            "target": facts["target"],
            "start": "random weights" if how.start == "scratch" else "weights of the source",
            "normalised": domains.target.scaling != domains.source.scaling,
            "chosen_by": how.choose,
        },
    }


def _claim(options: AdaptOptions, about: Mapping[str, Any], settings: Train) -> dict[str, Any]:
    """What the folder is to say of itself. Raises: UsageError where it says something else."""
    out = options.out
    asked = {
        "train": settings.model_dump(mode="json"),
        "data": about["data"],
        "target": about["adapted"]["target"],
        "start": weights_digest(options.start),
        "devices": options.devices,
    }
    fingerprint = digest_of(asked)
    path = out / _STATE
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("fingerprint") != fingerprint:
            raise UsageError(
                f"{out} holds another adaptation (of {found.get('recipe')!r} by "
                f"{found.get('method')}); its settings or data differ: name another folder"
            )
    # a further process may come upon what the first is just writing
    elif first_process() and out.exists() and any(e.name not in _OWN for e in out.iterdir()):
        raise UsageError(f"{out} is not empty and holds no adaptation; name another folder")
    named = {"recipe": about["recipe"], "method": settings.adapt.method}
    return {"fingerprint": fingerprint, **named, **asked}


def _finished(out: Path) -> AdaptReport:
    """What an adaptation that came to its end came to."""
    card = json.loads((out / _CARD).read_text(encoding="utf-8"))
    return AdaptReport(
        out=out,
        method=card["adapted"]["method"],
        epochs=card["epochs"],
        epoch=card["epoch"],
        chosen_by=card["adapted"]["chosen_by"],
        scores=card["scores"],
        seconds=0.0,
        megapixels_per_second=card["megapixels_per_second"],
        memory_gib=card["memory_gib"],
        resumed=True,
        finished=True,
    )


def _unlearned(
    options: AdaptOptions, domains: Domains, lesson: AdaptLesson, seconds: float
) -> AdaptReport:
    """Source only and AdaBN: at most statistics are replaced."""
    if domains.target.adapt.method == "adabn":
        lesson.about["adapted"]["layers"] = _with_statistics(options, domains, lesson)
    with quiet():
        trainer = _trainer(options, domains, [])
        found = trainer.validate(lesson, datamodule=domains.feed, verbose=False)
    line = {key.split("/")[0]: value for one in found for key, value in one.items()}
    line |= {"epoch": 0.0, "seconds": seconds}
    report = _report(options, lesson, ([line], 0), (seconds, False, True))
    if trainer.is_global_zero:
        _write(options, lesson, lesson.network, (report, seconds))
    trainer.strategy.barrier()
    return report


def _with_statistics(options: AdaptOptions, domains: Domains, lesson: AdaptLesson) -> int:
    """Adapt batch normalisation where the networks of the call run. Returns: layers changed."""
    how = domains.target.adapt.adabn
    try:
        lesson.network.to(network_device(options.device))
        batches = domains.feed.target_batches(how.batches)
        return adapted_statistics(lesson.network, batches, how.share)
    finally:
        lesson.network.to("cpu")


def _learned(
    options: AdaptOptions, domains: Domains, lesson: AdaptLesson, listener: Listener
) -> AdaptReport:
    how = domains.target.adapt
    began = time.monotonic()
    last = last_checkpoint(options.out / "checkpoints")
    path = options.out / JOURNAL
    callbacks: list[Any] = [AdaptJournal(path, how, listener, options.stop_after)]
    callbacks += checkpoints(options.out / "checkpoints", monitor="choice")
    with quiet():
        trainer = _trainer(options, domains, callbacks)
        if not (last and is_over(read_journal(path), last.epoch, how)):
            resumed = str(last.path) if last else None
            trainer.fit(lesson, datamodule=domains.feed, ckpt_path=resumed, weights_only=True)
    took = (time.monotonic() - began, last is not None)
    # journal and checkpoints are the first process's to write, and all read them
    trainer.strategy.barrier()
    lines = read_journal(path)
    chosen = choose_epoch(lines, how.choose)
    whole = is_over(lines, int(lines[-1]["epoch"]), how)
    report = _report(options, lesson, (lines, chosen), (*took, whole))
    if whole and trainer.is_global_zero:
        name = "last.ckpt" if chosen == len(lines) - 1 else "best.ckpt"
        kept = load_weights(options.out / "checkpoints" / name).network
        _write(options, lesson, kept, (report, sum(line["seconds"] for line in lines)))
    trainer.strategy.barrier()
    return report


def _trainer(options: AdaptOptions, domains: Domains, callbacks: list[Any]) -> Any:
    return make_trainer(
        options.out,
        domains.target,
        domains.target.adapt.epochs,
        callbacks,
        (options.device, options.devices),
        # what only some steps use (points, the discriminator) must not be waited for
        "ddp_find_unused_parameters_true",
    )


def _write(
    options: AdaptOptions, lesson: AdaptLesson, network: Supervised, told: tuple[AdaptReport, float]
) -> None:
    """Weights and card of the chosen epoch, of a report and the seconds of all epochs."""
    report, spent = told
    about = lesson.about | {
        "scores": report.scores,
        "epochs": report.epochs,
        "epoch": report.epoch,
        "kept": lesson.settings.adapt.choose,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    save_weights(options.out / WEIGHTS, network.state_dict(), lesson.settings, about)
    measured = {
        "seconds": round(spent, 1),
        "megapixels_per_second": report.megapixels_per_second,
        "memory_gib": report.memory_gib,
    }
    write_json(options.out / _CARD, about | measured)


def _report(
    options: AdaptOptions,
    lesson: AdaptLesson,
    told: tuple[list[dict[str, float]], int],
    how: tuple[float, bool, bool],
) -> AdaptReport:
    lines, place = told
    seconds, resumed, finished = how
    top = lines[place]
    rates = [line.get("megapixels_per_second", 0.0) for line in lines]
    return AdaptReport(
        out=options.out,
        method=lesson.settings.adapt.method,
        epochs=len(lines),
        epoch=int(top["epoch"]),
        chosen_by=lesson.settings.adapt.choose,
        scores=_scores(top, options.judge is not None),
        seconds=seconds,
        megapixels_per_second=round(sum(rates) / len(rates), 4),
        memory_gib=round(max(line.get("memory_gib", 0.0) for line in lines), 3),
        resumed=resumed,
        finished=finished,
    )


def _scores(line: Mapping[str, float], judged: bool) -> dict[str, float]:
    """What an epoch came to, without what has no number, which is told where one is expected."""
    apart = ("epoch", "seconds", "rate", "choice", "megapixels_per_second", "memory_gib")
    found = {name: value for name, value in line.items() if name not in apart}
    # a method without a loss on the target has none to be known
    absent = ("target_loss",) if judged else ("target_loss", "target_miou")
    lost = [name for name, value in found.items() if value != value and name not in absent]
    if lost:
        logger.warning(
            "epoch %d has no number for %s, so the card has none", line["epoch"] + 1, lost
        )
    return {name: value for name, value in found.items() if value == value}
