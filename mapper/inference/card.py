"""Model cards: what a model expects and yields, read from its STAC MLM item.

A model is a folder with `item.json` (STAC 1.1, machine-learning-model extension 1.5) and the
file that it names. Fields of our own are prefixed `mapper:`.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mapper.classes import ClassTable
from mapper.errors import ModelError
from mapper.inference.artifact import Artifact, Form, artifacts_of, file_of
from mapper.inference.scaling import Scaling, scaled, scaling_of
from mapper.recipe import data_directory

Activation = Literal["softmax", "sigmoid", "none"]
Head = Literal["classes", "labels", "values"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """One model folder."""

    name: str
    folder: Path
    """The model's folder."""
    artifacts: tuple[Artifact, ...]
    """Every form of the model that the folder holds."""
    artifact: Artifact
    """The one that is run."""
    sha256: str
    """Of that artifact's file, verified."""
    bands: tuple[str, ...]
    """Channels of the input in order, as `source:band`."""
    required: tuple[str, ...]
    """Bands without which a pixel gets no class."""
    classes: ClassTable
    scaling: tuple[Scaling, ...]
    """Per band, what is done to values in physical units."""
    image_input: str
    validity_input: str | None
    """Input that says which values are data, 1.0 or 0.0; None where the model has none."""
    output: str
    activation: Activation
    """What turns the output into probabilities; `sigmoid` of one channel tells two classes
    apart, the first of them where it is low."""
    head: Head
    """`classes`: one class a pixel; `labels`: each class may hold or not; `values`: numbers."""
    temperature: float
    receptive_field: int
    """Pixels across; 1 for a model that looks at single pixels."""
    global_context: bool
    """True where every output pixel depends on the whole window: no halo is exact."""
    data_type: str
    """Numpy type of the imagery that the model is made for, e.g. `uint8`; empty where any is."""
    fill: float
    """Value, after scaling, of pixels without data."""
    window: Mapping[str, Any]
    reference: Path | None
    """Arrays `image` (scaled, float32), `valid` where there is a validity input, and `output`:
    what an export must give back."""
    license: str
    item: Mapping[str, Any]
    """The whole STAC item."""

    @property
    def digest(self) -> str:
        """Hash of the artifact and of every field that has a say in the result."""
        fields = {
            "sha256": self.sha256,
            "bands": self.bands,
            "required": self.required,
            "classes": self.classes.to_stac(),
            "scaling": [asdict(s) for s in self.scaling],
            "inputs": [self.image_input, self.validity_input, self.output],
            "head": [self.head, self.activation, self.temperature],
            "fill": self.fill,
        }
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def form(self) -> Form:
        """Of the artifact that is run."""
        return self.artifact.form

    @property
    def reference_sha256(self) -> str:
        """Of the reference, empty where there is none: a new one is checked anew."""
        try:
            return hashlib.sha256(self.reference.read_bytes()).hexdigest() if self.reference else ""
        except OSError:
            return ""

    @property
    def channels(self) -> int:
        """Channels that the model's output must have."""
        return 1 if self.binary else len(self.classes.classes)

    @property
    def binary(self) -> bool:
        """True where one channel tells two classes apart."""
        single = self.head == "classes" and self.activation == "sigmoid"
        return single and len(self.classes.classes) == 2

    @property
    def channels_decided(self) -> int:
        """Channels of probabilities: a sigmoid's one channel tells two classes."""
        return len(self.classes.classes)

    @property
    def required_channels(self) -> tuple[int, ...]:
        """Places of the required bands among the bands."""
        return tuple(self.bands.index(band) for band in self.required)

    def scale(self, image: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Physical values to what the model expects; pixels without data become `fill`.

        Args:
            image: `(batch, band, y, x)` float32 in physical units.
            valid: the same shape, bool.
        """
        return np.where(valid, scaled(image, self.scaling), np.float32(self.fill))


def load_card(name: str, form: str | None = None) -> ModelCard:
    """A model by the name of a shipped one, or by the path of its folder.

    Args:
        name: of the model.
        form: asset key of the artifact to run; None takes the first.

    Raises: ModelError where the card lacks something or the file is not the one it describes.
    """
    folder = _find_model(name)
    try:
        item = json.loads((folder / "item.json").read_text(encoding="utf-8"))
        card = _card(item, folder.resolve(), form)
        _check(card, folder)
    except OSError as reason:
        raise ModelError(f"{folder}/item.json cannot be read: {reason.strerror}") from reason
    except (json.JSONDecodeError, UnicodeDecodeError) as reason:
        raise ModelError(f"{folder}/item.json is no JSON: {reason}") from reason
    except (KeyError, IndexError) as reason:
        raise ModelError(f"{folder}/item.json lacks {reason}; see docs/models.md") from reason
    except (TypeError, ValueError, AttributeError) as reason:
        raise ModelError(f"{folder}/item.json is not as it should be: {reason}") from reason
    return card


def shipped_models() -> list[Path]:
    """Folders of the models that come with mapper."""
    return sorted(p.parent for p in data_directory("models").glob("*/item.json"))


def user_models() -> list[Path]:
    """Folders of the models that this user has added."""
    return sorted(p.parent for p in user_directory().glob("*/item.json"))


def user_directory() -> Path:
    """Where added models lie: `$XDG_DATA_HOME/mapper/models`."""
    home = Path(os.environ.get("XDG_DATA_HOME", ""))
    base = home if home.is_absolute() else Path.home() / ".local" / "share"
    return base / "mapper" / "models"


def _find_model(name: str) -> Path:
    """Shipped models come before added ones, and both before folders here of that name."""
    folders = [Path(name)]
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        folders = [data_directory("models") / name, user_directory() / name, *folders]
    for folder in folders:
        if (folder / "item.json").is_file():
            return folder
    known = ", ".join(p.name for p in [*shipped_models(), *user_models()])
    raise ModelError(f"no model {name!r}; there are {known}; or give a folder with an item.json")


def _chosen(artifacts: tuple[Artifact, ...], form: str | None) -> Artifact:
    if form is None:
        return artifacts[0]
    for artifact in artifacts:
        if artifact.name == form:
            return artifact
    known = ", ".join(a.name for a in artifacts)
    raise ModelError(f"the model has no form {form!r}; its folder holds {known}")


def _reference(item: Mapping[str, Any], folder: Path) -> Path | None:
    for asset in item["assets"].values():
        if "mapper:reference" in asset.get("roles", []):
            return file_of(asset, folder)
    return None


def _card(item: Mapping[str, Any], folder: Path, form: str | None) -> ModelCard:
    properties = item["properties"]
    artifacts = artifacts_of(item, folder)
    artifact = _chosen(artifacts, form)
    image, output = properties["mlm:input"][0], properties["mlm:output"][0]
    bands = tuple(b if isinstance(b, str) else b["name"] for b in image["bands"])
    return ModelCard(
        name=str(properties["mlm:name"]),
        folder=folder,
        artifacts=artifacts,
        artifact=artifact,
        sha256=artifact.verified(),
        bands=bands,
        required=tuple(properties.get("mapper:required", bands)),
        classes=ClassTable.from_stac(output["classification:classes"]),
        scaling=_scaling(image.get("value_scaling"), len(bands)),
        image_input=image["name"],
        validity_input=properties.get("mapper:validity_input"),
        output=output["name"],
        activation=properties.get("mapper:activation", "softmax"),
        head=properties.get("mapper:head", "classes"),
        temperature=float(properties.get("mapper:temperature", 1.0)),
        receptive_field=int(properties["mapper:receptive_field"]),
        global_context=bool(properties.get("mapper:global_context", False)),
        data_type=str(properties.get("mapper:data_type", "") or _data_type(image)),
        fill=float(properties.get("mapper:fill", 0.0)),
        window=dict(properties.get("mapper:window", {})),
        reference=_reference(item, folder),
        license=str(properties.get("license", "other")),
        item=item,
    )


def _data_type(image: Mapping[str, Any]) -> str:
    """Values that are divided by 255 come from images of 8 bits."""
    steps = [step for step in image.get("value_scaling") or [] if step]
    return "uint8" if any(255 in (s.get("value"), s.get("maximum")) for s in steps) else ""


def _scaling(listed: list[Mapping[str, Any] | None] | None, bands: int) -> tuple[Scaling, ...]:
    """One scaling for all bands, or one for each."""
    if not listed:
        listed = [None]
    if len(listed) == 1:
        listed = list(listed) * bands
    if len(listed) != bands:
        raise ModelError(f"value_scaling has {len(listed)} entries for {bands} bands")
    return tuple(scaling_of(step) for step in listed)


def _check(card: ModelCard, folder: Path) -> None:
    """Refuse a card that contradicts itself, before any pixel is read."""
    unknown = set(card.required) - set(card.bands)
    if unknown:
        raise ModelError(f"{folder}: mapper:required names {sorted(unknown)}, which are no bands")
    if card.validity_input is None and set(card.required) != set(card.bands):
        raise ModelError(
            f"{folder}: without a validity input every band is required; "
            f"{sorted(set(card.bands) - set(card.required))} are not"
        )
    for band in card.bands:
        if not re.fullmatch(r"[a-z][a-z0-9_]*:[A-Za-z0-9_]+", band):
            raise ModelError(f"{folder}: band {band!r} is not of the form source:band")
    if card.receptive_field < 1:
        raise ModelError(f"{folder}: receptive field {card.receptive_field}; give 1 or more")
    if card.activation not in ("softmax", "sigmoid", "none"):
        raise ModelError(f"{folder}: activation {card.activation!r}; use softmax, sigmoid or none")
    if card.head not in ("classes", "labels", "values"):
        raise ModelError(f"{folder}: head {card.head!r}; use classes, labels or values")
    if card.head == "labels" and card.activation == "softmax":
        raise ModelError(f"{folder}: with the head `labels` the activation is sigmoid or none")
    if card.head == "values" and card.activation != "none":
        raise ModelError(f"{folder}: with the head `values` the activation is none")
    if not np.isfinite(card.fill):
        raise ModelError(f"{folder}: fill {card.fill} is no number; give what the model expects")
    if not 0 < card.temperature < np.inf:
        raise ModelError(f"{folder}: temperature {card.temperature}; give more than 0")
    if card.window.get("mode", "core") not in ("core", "blend"):
        raise ModelError(f"{folder}: window mode {card.window['mode']!r}; use core or blend")
    sizes = card.window.get("sizes", [])
    if not isinstance(sizes, list) or any(not isinstance(v, int) or v < 16 for v in sizes):
        raise ModelError(f"{folder}: window sizes {sizes!r}; give a list such as [256, 512]")
    for name in ("size", "stride", "multiple", "cell"):
        if not isinstance(card.window.get(name, 1), int) or card.window.get(name, 1) < 1:
            raise ModelError(f"{folder}: window {name} {card.window[name]!r}; give pixels")
