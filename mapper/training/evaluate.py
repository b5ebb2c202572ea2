"""A model against labelled images: scores, by group too, calibration and temperature."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from mapper.area.grid import PixelBox
from mapper.area.window import WindowPlan
from mapper.classes import ClassTable
from mapper.errors import DataError, ModelError, UsageError
from mapper.events import Event, Listener, ignore
from mapper.inference.card import ModelCard
from mapper.inference.plan import window_layout
from mapper.inference.runtime import Runtime
from mapper.recipe import Predict
from mapper.training.counterparts import (
    NO_CLASS,
    NOT_SCORED,
    Correspondence,
    Crosswalk,
    correspondence,
)
from mapper.training.data.labelled import LabelledImage, LabelledSet, Pixels
from mapper.training.logits import Piece, logits_within
from mapper.training.scores import Calibration, Scores, confusion
from mapper.training.temperature import Fit, Kind, PixelSample, fit_temperature

HELD = 1 << 26
"""Numbers of a block, bands or channels times pixels: an image is worked through block by block."""
COUNTED = 1 << 18
"""Pixels that are counted at once, since their probabilities are held several times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How a model did on labelled images."""

    model: str
    model_digest: str
    data: Mapping[str, Any]
    """Name, layout, license and facts of the data set."""
    classes: ClassTable
    """That were compared, with values 0, 1, 2 and so on."""
    scores: Scores
    groups: Mapping[str, Scores]
    """By group of the images; empty where no image has one."""
    before: Calibration
    """With the temperature that the card has, of all scored pixels."""
    after: Calibration | None
    """With the fitted one, of the sample that it was fitted to; None where none was."""
    fit: Fit | None
    """None where classes of the model are merged or it yields no logits."""
    images: int
    pixels: int
    """Scored."""
    ignored: int
    """Not labelled, or of a class that is left out."""
    unmapped: int
    """Labelled, but given no class: a required band is missing, or the class is left out."""
    missing: tuple[str, ...]
    """Optional bands of the model that the data set does not have."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "model": {"name": self.model, "digest": self.model_digest},
            "data": dict(self.data),
            "images": self.images,
            "pixels": {
                "scored": self.pixels,
                "ignored": self.ignored,
                "unmapped": self.unmapped,
            },
            "missing_bands": list(self.missing),
            "scores": self.scores.to_dict(),
            "groups": {name: scores.to_dict() for name, scores in self.groups.items()},
            "calibration": {
                "before": self.before.to_dict(),
                "after": self.after.to_dict() if self.after else None,
            },
            "temperature": self.fit.to_dict() if self.fit else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What stays the same from image to image."""

    card: ModelCard
    runtime: Runtime
    data: LabelledSet
    match: Correspondence
    windows: WindowPlan
    bands: tuple[int | None, ...]
    """Place of each of the card's bands in the set; None where the set lacks it."""

    @property
    def side(self) -> int:
        """Of blocks: whole strides, so that in core crop no window runs twice."""
        deep = max(self.card.channels_decided, len(self.bands), len(self.data.bands))
        stride = self.windows.stride
        return max(1, int((HELD / deep) ** 0.5) // stride) * stride


@dataclass(slots=True, kw_only=True)
class _Tally:
    """What has been counted so far."""

    matrices: dict[str, np.ndarray] = field(default_factory=dict)
    before: Calibration = field(default_factory=Calibration)
    sample: PixelSample
    ignored: int = 0
    unmapped: int = 0


def evaluate(
    card: ModelCard,
    runtime: Runtime,
    data: LabelledSet,
    images: Sequence[LabelledImage],
    crosswalk: Crosswalk | None = None,
    listener: Listener = ignore,
) -> Evaluation:
    """Hold a model against labelled images, in memory that is set by a block of pixels.

    Each pixel is given the class of the model's largest channel, as in a map, and only then are
    classes merged. The confidence of a merged class is the sum of its channels' probabilities.

    Args:
        card: of the model.
        runtime: that runs it.
        data: that the images are of.
        images: those to be scored.
        crosswalk: which classes correspond; None where all names are the same.
        listener: is told of each image.

    Raises: DataError where bands, classes or labels do not fit; ModelError where the model does
        not yield one class a pixel.
    """
    if card.head != "classes":
        raise ModelError(
            f"model {card.name!r} has the head {card.head!r}; only models of one class a pixel "
            "can be held against labels"
        )
    if not images:
        raise DataError(f"{data.root} has no image to evaluate on; choose another subset")
    task = _Task(
        card=card,
        runtime=runtime,
        data=data,
        match=correspondence(card, data, crosswalk or Crosswalk()),
        windows=window_layout(card, runtime, Predict()),
        bands=_band_places(card, data),
    )
    tally = _Tally(sample=PixelSample(card.channels_decided))
    for number, image in enumerate(images, start=1):
        for block in _blocks(image.shape, task.side):
            _score_block(task, tally, image, block)
        message = f"{image.name} scored"
        listener(Event(kind="image", message=message, done=number, total=len(images)))
    return _result(task, tally, len(images))


def _band_places(card: ModelCard, data: LabelledSet) -> tuple[int | None, ...]:
    """Where the card's bands are in the set. Raises: DataError where a required one is not."""
    lacking = [b for b in card.required if b not in data.bands]
    if lacking:
        raise DataError(
            f"{data.root} has no band {', '.join(lacking)}, which model {card.name!r} needs; it "
            f"has {', '.join(data.bands)}; name its bands with `data.bands`"
        )
    return tuple(data.bands.index(b) if b in data.bands else None for b in card.bands)


def _blocks(shape: tuple[int, int], side: int) -> Iterator[PixelBox]:
    height, width = shape
    for row in range(0, height, side):
        for col in range(0, width, side):
            yield PixelBox(
                row0=row, col0=col, row1=min(row + side, height), col1=min(col + side, width)
            )


def _score_block(task: _Task, tally: _Tally, image: LabelledImage, block: PixelBox) -> None:
    """Count the pixels of one block of an image."""
    piece, classes = _read(task, image, block)
    inside = block.slices_in(piece.box)
    truth = classes[inside]
    needed = list(task.card.required_channels)
    known = truth != NOT_SCORED
    usable = known & piece.valid[:, *inside][needed].all(axis=0)
    tally.ignored += int((~known).sum())
    tally.unmapped += int((known & ~usable).sum())
    if not usable.any():
        return
    raw = logits_within(task.card, task.runtime, task.windows, piece, block)
    step = max(1, COUNTED // block.shape[1])
    for row in range(0, len(truth), step):
        some = usable[row : row + step]
        logits = _decided(task.card, raw[:, row : row + step][:, some])
        corner = (block.row0 + row, block.col0)
        _count(task, tally, image, logits, truth[row : row + step][some], corner)


def _read(task: _Task, image: LabelledImage, block: PixelBox) -> tuple[Piece, np.ndarray]:
    """What the windows of a block read, and classes `(y, x)` int16 of the same pixels."""
    data, whole = task.data, PixelBox(row0=0, col0=0, row1=image.shape[0], col1=image.shape[1])
    box = task.windows.reach(block).intersect(whole)
    pixels = data.read(image, None if box == whole else (box.row0, box.col0, *box.shape))
    if pixels.label is None:
        raise DataError(f"{image.image} has no label; only labelled images can be scored")
    if pixels.label.shape != box.shape:
        raise DataError(f"{image.label} holds {pixels.label.shape} pixels, its image {box.shape}")
    classes = task.match.labels[pixels.label]
    if (classes == NO_CLASS).any():
        value = int(pixels.label[classes == NO_CLASS][0])
        raise DataError(
            f"{image.label or image.image} holds label {value}, which is no class of the data "
            "set; list it in `data.classes` or `data.ignored`"
        )
    values, valid = _physical(task, pixels)
    return Piece(box=box, values=values, valid=valid), classes


def _physical(task: _Task, pixels: Pixels) -> tuple[np.ndarray, np.ndarray]:
    """The card's bands in physical units, and where they are data."""
    shape = (len(task.bands), *pixels.values.shape[1:])
    values, valid = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
    for channel, place in enumerate(task.bands):
        if place is None:
            continue
        # nodata of doubles may lie beyond what float32 holds
        with np.errstate(over="ignore", invalid="ignore"):
            values[channel] = pixels.values[place] * np.float32(task.data.scale)
        valid[channel] = np.isfinite(values[channel])
        if pixels.valid is not None:
            valid[channel] &= pixels.valid[place]
    return values, valid


def _count(
    task: _Task,
    tally: _Tally,
    image: LabelledImage,
    logits: np.ndarray,
    truth: np.ndarray,
    corner: tuple[int, int],
) -> None:
    """Count pixels: `(class, pixel)` logits and their classes in the evaluation."""
    channels, count = task.match.channels, len(task.match.classes.classes)
    predicted = channels[logits.argmax(axis=0)]
    mapped = predicted != NOT_SCORED
    if not mapped.all():
        tally.unmapped += int((~mapped).sum())
        logits, truth, predicted = logits[:, mapped], truth[mapped], predicted[mapped]
    matrix = confusion(truth, predicted, count)
    tally.matrices[image.group] = tally.matrices.get(image.group, 0) + matrix
    shares = _probabilities(task.card, logits, task.card.temperature)
    mine = channels[:, None] == predicted
    # sigmoids of merged classes can sum to more than one
    sure = np.minimum(np.where(mine, shares, np.float32(0)).sum(axis=0), 1)
    tally.before.add(sure, truth == predicted)
    if _is_fitted(task):
        # the model's own channels, which the evaluation may list in another order
        own = np.argsort(channels)[truth]
        tally.sample.add(logits, own, (crc32(image.name.encode()), *corner))


def _is_fitted(task: _Task) -> bool:
    return task.card.activation != "none" and not task.match.merged


def _kind(card: ModelCard) -> Kind:
    return "sigmoid" if card.activation == "sigmoid" and not card.binary else "softmax"


def _decided(card: ModelCard, raw: np.ndarray) -> np.ndarray:
    """One channel a class: the sigmoid of one logit is the softmax of (0, logit)."""
    return np.concatenate([np.zeros_like(raw), raw]) if card.binary else raw


def _probabilities(card: ModelCard, logits: np.ndarray, temperature: float) -> np.ndarray:
    """`(class, pixel)` logits to probabilities; what a model without activation yields is one."""
    if card.activation == "none":
        return np.clip(logits, 0, 1)
    values = logits / np.float32(temperature)
    if _kind(card) == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0, -values)))
    shares = np.exp(values - values.max(axis=0))
    return np.asarray(shares / shares.sum(axis=0))


def _result(task: _Task, tally: _Tally, images: int) -> Evaluation:
    card, data = task.card, task.data
    names = [c.name for c in task.match.classes.classes]
    total = sum(tally.matrices.values(), np.zeros((len(names), len(names)), dtype=np.int64))
    if not total.any():
        raise DataError(
            f"no pixel of {data.root} could be scored: {tally.ignored} are not labelled, "
            f"{tally.unmapped} are given no class; look at its labels and nodata"
        )
    scores = Scores.of(total, names)
    groups = tally.matrices if set(tally.matrices) != {""} else {}
    fit, after = _tempered(card, tally.sample) if _is_fitted(task) else (None, None)
    return Evaluation(
        model=card.name,
        model_digest=card.digest,
        data={
            "name": data.root.resolve().name,
            "layout": data.layout,
            "license": data.license,
            "facts": dict(data.facts or {}),
        },
        classes=task.match.classes,
        scores=scores,
        groups={name: Scores.of(groups[name], names) for name in sorted(groups)},
        before=tally.before,
        after=after,
        fit=fit,
        images=images,
        pixels=scores.pixels,
        ignored=tally.ignored,
        unmapped=tally.unmapped,
        missing=tuple(b for b in card.bands if b not in data.bands),
    )


def _tempered(card: ModelCard, sample: PixelSample) -> tuple[Fit, Calibration]:
    """The temperature of a sample of pixels, and how well they are calibrated with it."""
    logits, truth = sample.pixels()
    fit = fit_temperature(logits, truth, _kind(card), card.temperature)
    shares, chosen = _probabilities(card, logits.T, fit.temperature), logits.argmax(axis=1)
    calibration = Calibration()
    sure = np.take_along_axis(shares, chosen[None], axis=0)[0]
    calibration.add(sure, chosen == truth)
    return fit, calibration


def store_temperature(folder: Path, evaluation: Evaluation) -> None:
    """Put temperature and a summary into a model folder's card.

    The temperature divides the model's raw logits and replaces the one that was there.

    Raises: UsageError where none was fitted or the folder is not to be written; StoreError.
    """
    from mapper.inference.folder import set_fields

    if evaluation.fit is None or evaluation.after is None:
        raise UsageError(
            "the evaluation has no temperature to store: one is fitted only where the model "
            "yields logits and each of its classes is a class of the evaluation of its own"
        )
    scores = evaluation.scores
    summary = {
        "data": evaluation.data["name"],
        "images": evaluation.images,
        "pixels": evaluation.pixels,
        "overall_accuracy": scores.accuracy,
        "mean_iou": scores.mean_iou,
        "kappa": scores.kappa,
        "ece_before": evaluation.before.error,
        "ece_after": evaluation.after.error,
    }
    fields = {"mapper:temperature": evaluation.fit.temperature, "mapper:evaluation": summary}
    set_fields(folder, fields)
