"""Which class of a data set, and which of a model, is which class of an evaluation."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from mapper.classes import ClassTable, MapClass
from mapper.errors import DataError
from mapper.inference.card import ModelCard
from mapper.training.data.crosswalk import Names, place_of
from mapper.training.data.labelled import IGNORED, LabelledSet

NOT_SCORED = -1
"""Of a label that is left out, and of a channel that says nothing."""
NO_CLASS = -2
"""Of a label value that the set's table does not hold."""
_GREY = "808080"


@dataclass(frozen=True, slots=True, kw_only=True)
class Crosswalk:
    """What corresponds to what, by name; names that are the same need no entry."""

    labels: Names = field(default_factory=dict)
    """From classes of the data set; None: such pixels are not scored. It may serve several sets,
    so names that this one lacks are passed over."""
    model: Names = field(default_factory=dict)
    """From classes of the model; None: such pixels count as not mapped."""
    classes: tuple[str, ...] = ()
    """Classes of the evaluation; empty: what the model's classes become, in their order."""


def read_crosswalk(path: Path | None, labels: Names) -> Crosswalk:
    """A YAML file of `labels`, `model` and `classes`; `labels` here are those without a file.

    Raises: DataError where it is none.
    """
    if path is None:
        return Crosswalk(labels=labels)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        strange = set(content) - {"labels", "model", "classes"}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError) as reason:
        raise DataError(f"crosswalk {path} cannot be read: {reason}") from reason
    if strange:
        raise DataError(f"crosswalk {path}: {sorted(strange)} are not labels, model or classes")
    return Crosswalk(
        labels={**labels, **content.get("labels", {})},
        model=content.get("model", {}),
        classes=tuple(content.get("classes", ())),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Correspondence:
    """A crosswalk worked out for a model and a data set."""

    classes: ClassTable
    """Of the evaluation, with values 0, 1, 2 and so on."""
    labels: np.ndarray
    """`(256,)` int16: class of each label value, or NOT_SCORED, or NO_CLASS."""
    channels: np.ndarray
    """`(channel,)` int16: class of each of the model's, or NOT_SCORED."""

    @property
    def merged(self) -> bool:
        """True where the evaluation's classes are not one by one those of the model."""
        return sorted(self.channels.tolist()) != list(range(len(self.classes.classes)))


def correspondence(card: ModelCard, data: LabelledSet, crosswalk: Crosswalk) -> Correspondence:
    """Work out a crosswalk. Raises: DataError naming a class without a counterpart."""
    own = [c.name for c in card.classes.classes]
    names = crosswalk.classes or _targets(own, crosswalk.model)
    places = {name: k for k, name in enumerate(names)}
    channels = [place_of(name, crosswalk.model, places, f"model {card.name!r}") for name in own]
    table = np.full(256, NO_CLASS, dtype=np.int16)
    for entry in data.classes.classes:
        table[entry.value] = place_of(entry.name, crosswalk.labels, places, f"{data.root}")
    table[IGNORED] = NOT_SCORED
    unknown = sorted(set(crosswalk.model) - set(own))
    if unknown:
        raise DataError(
            f"the crosswalk names {unknown}, which model {card.name!r} does not have; it has "
            f"{', '.join(own)}"
        )
    return Correspondence(
        classes=_table(names, card.classes, data.classes, crosswalk),
        labels=table,
        channels=np.array(channels, dtype=np.int16),
    )


def _targets(names: list[str], given: Names) -> tuple[str, ...]:
    found = [given.get(name, name) for name in names]
    return tuple(dict.fromkeys(name for name in found if name is not None))


def _table(
    names: tuple[str, ...], model: ClassTable, labels: ClassTable, crosswalk: Crosswalk
) -> ClassTable:
    """Titles and colours come from a class of that name, or else from one that becomes it."""
    entries = [(c, crosswalk.model) for c in model.classes]
    entries += [(c, crosswalk.labels) for c in labels.classes]
    found = []
    for value, name in enumerate(names):
        same = [c for c, _ in entries if c.name == name]
        parts = [c for c, given in entries if given.get(c.name, c.name) == name]
        found.append(
            MapClass(
                value=value,
                name=name,
                title=same[0].title if same else name,
                color=(same or parts)[0].color if same or parts else _GREY,
            )
        )
    return ClassTable(classes=tuple(found))
