"""Model cards: what a model expects and yields, read from its STAC MLM item.

A model is a folder with `item.json` (STAC 1.1, machine-learning-model extension 1.5) and the
file that it names. Fields of our own are prefixed `mapper:`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mapper.classes import ClassTable
from mapper.errors import ModelError
from mapper.recipe import data_directory

Form = Literal["onnx", "torchscript"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """One model folder."""

    name: str
    folder: Path
    """The model's folder."""
    artifact: Path
    """The file that is run."""
    form: Form
    sha256: str
    """Of the artifact, verified."""
    bands: tuple[str, ...]
    """Channels of the input in order, as `source:band`."""
    required: tuple[str, ...]
    """Bands without which a pixel gets no class."""
    classes: ClassTable
    scaling: tuple[tuple[Mapping[str, Any], ...], ...]
    """Per band, the value scalings of the MLM extension, applied in order."""
    image_input: str
    validity_input: str | None
    """Input that says which values are data, 1.0 or 0.0; None where the model has none."""
    output: str
    activation: Literal["softmax", "none"]
    """What turns the output into probabilities."""
    temperature: float
    receptive_field: int
    """Pixels across; 1 for a model that looks at single pixels."""
    global_context: bool
    """True where every output pixel depends on the whole window: no halo is exact."""
    fill: float
    """Value, after scaling, of pixels without data."""
    window: Mapping[str, Any]
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
            "scaling": [[dict(s) for s in steps] for steps in self.scaling],
            "inputs": [self.image_input, self.validity_input, self.output],
            "activation": [self.activation, self.temperature],
            "fill": self.fill,
        }
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def scale(self, image: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Physical values to what the model expects; pixels without data become `fill`.

        Args:
            image: `(band, y, x)` float32 in physical units.
            valid: `(band, y, x)` bool.
        """
        scaled = image
        if any(self.scaling):
            scaled = image.copy()
            for channel, steps in enumerate(self.scaling):
                for step in steps:
                    scaled[channel] = _scaled(scaled[channel], step)
        return np.where(valid, scaled, np.float32(self.fill))


def load_card(name: str) -> ModelCard:
    """A model by the name of a shipped one, or by the path of its folder.

    Raises: ModelError where the card lacks something or the file is not the one it describes.
    """
    folder = _find_model(name)
    try:
        item = json.loads((folder / "item.json").read_text(encoding="utf-8"))
        properties, asset = item["properties"], _model_asset(item)
        artifact = (folder / asset["href"]).resolve()
        if folder.resolve() not in artifact.parents:
            raise ModelError(f"{folder}: the model file {asset['href']!r} lies outside the folder")
        card = _card(item, properties, folder.resolve(), (artifact, _verified(artifact, asset)))
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


def _find_model(name: str) -> Path:
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        folder = data_directory("models") / name
        if (folder / "item.json").is_file():
            return folder
    folder = Path(name)
    if (folder / "item.json").is_file():
        return folder
    known = ", ".join(p.name for p in shipped_models())
    raise ModelError(f"no model {name!r}; shipped are {known}; or give a folder with an item.json")


def _model_asset(item: Mapping[str, Any]) -> Mapping[str, Any]:
    for asset in item["assets"].values():
        if "mlm:model" in asset.get("roles", []):
            return dict(asset)
    raise ModelError(f"model {item.get('id')!r} has no asset with the role mlm:model; add it")


def _verified(artifact: Path, asset: Mapping[str, Any]) -> str:
    """SHA-256 of the artifact; raises where it is not what the card describes."""
    try:
        content = artifact.read_bytes()
    except OSError as reason:
        raise ModelError(f"model file {artifact} cannot be read: {reason.strerror}") from reason
    size, found = asset.get("file:size"), hashlib.sha256(content).hexdigest()
    if size is not None and size != len(content):
        raise ModelError(
            f"model file {artifact} has {len(content)} bytes, its card says {size}: it is cut "
            "off or another file; fetch it again"
        )
    checksum = str(asset.get("file:checksum", ""))
    if checksum and checksum != f"1220{found}":
        raise ModelError(
            f"model file {artifact} is not the one that its card describes (checksum 1220{found})"
        )
    return found


def _card(
    item: Mapping[str, Any],
    properties: Mapping[str, Any],
    folder: Path,
    file: tuple[Path, str],
) -> ModelCard:
    artifact, sha256 = file
    image, output = properties["mlm:input"][0], properties["mlm:output"][0]
    bands = tuple(b if isinstance(b, str) else b["name"] for b in image["bands"])
    return ModelCard(
        name=str(properties["mlm:name"]),
        folder=folder,
        artifact=artifact,
        form=_form(artifact),
        sha256=sha256,
        bands=bands,
        required=tuple(properties.get("mapper:required", bands)),
        classes=ClassTable.from_stac(output["classification:classes"]),
        scaling=_scaling(image.get("value_scaling"), len(bands)),
        image_input=image["name"],
        validity_input=properties.get("mapper:validity_input"),
        output=output["name"],
        activation=properties.get("mapper:activation", "softmax"),
        temperature=float(properties.get("mapper:temperature", 1.0)),
        receptive_field=int(properties["mapper:receptive_field"]),
        global_context=bool(properties.get("mapper:global_context", False)),
        fill=float(properties.get("mapper:fill", 0.0)),
        window=dict(properties.get("mapper:window", {})),
        license=str(properties.get("license", "other")),
        item=item,
    )


def _form(artifact: Path) -> Form:
    forms: dict[str, Form] = {".onnx": "onnx", ".pt": "torchscript", ".ts": "torchscript"}
    if artifact.suffix not in forms:
        raise ModelError(f"model file {artifact.name} is neither .onnx nor TorchScript (.pt)")
    return forms[artifact.suffix]


def _scaling(
    listed: list[Mapping[str, Any] | None] | None, bands: int
) -> tuple[tuple[Mapping[str, Any], ...], ...]:
    """One scaling for all bands, or one for each."""
    if not listed:
        return ((),) * bands
    if len(listed) == 1:
        listed = list(listed) * bands
    if len(listed) != bands:
        raise ModelError(f"value_scaling has {len(listed)} entries for {bands} bands")
    return tuple(() if step is None else (step,) for step in listed)


def _scaled(values: np.ndarray, step: Mapping[str, Any]) -> np.ndarray:
    """One value scaling of the MLM extension, in float32."""
    number = {k: np.float32(v) for k, v in step.items() if isinstance(v, int | float)}
    match step["type"]:
        case "min-max":
            low, high = number["minimum"], number["maximum"]
            return np.asarray((values - low) / (high - low))
        case "z-score":
            return np.asarray((values - number["mean"]) / number["stddev"])
        case "clip":
            return np.clip(values, number["minimum"], number["maximum"])
        case "clip-min":
            return np.maximum(values, number["minimum"])
        case "clip-max":
            return np.minimum(values, number["maximum"])
        case "offset":
            return np.asarray(values - number["value"])
        case "scale":
            return np.asarray(values / number["value"])
        case other:
            raise ModelError(f"value_scaling {other!r} is not supported; use min-max or z-score")


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
    if card.activation not in ("softmax", "none"):
        raise ModelError(f"{folder}: activation {card.activation!r}; use softmax or none")
    if not card.temperature > 0:
        raise ModelError(f"{folder}: temperature {card.temperature}; give more than 0")
    if card.window.get("mode", "core") not in ("core", "blend"):
        raise ModelError(f"{folder}: window mode {card.window['mode']!r}; use core or blend")
    for name in ("size", "stride"):
        if not isinstance(card.window.get(name, 1), int) or card.window.get(name, 1) < 1:
            raise ModelError(f"{folder}: window {name} {card.window[name]!r}; give pixels")
    for steps in card.scaling:
        for step in steps:
            _check_scaling(step, folder)


def _check_scaling(step: Mapping[str, Any], folder: Path) -> None:
    """Refuse a scaling that lacks a number or divides by zero."""
    with np.errstate(all="ignore"):
        tried = _scaled(np.array([0.0, 1.0], dtype=np.float32), step)
    if not np.isfinite(tried).all():
        raise ModelError(f"{folder}: value_scaling {dict(step)} divides by zero")
