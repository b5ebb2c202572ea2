"""The STAC item and README of a model that was trained here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from mapper.training.networks.build import NETWORKS
from mapper.training.weights import Trained

_MLM = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
_FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
IMAGE, VALID, OUTPUT = "image", "valid", "logits"
"""Names of inputs and output in every exported graph."""

Format = Literal["onnx", "torchscript", "pt2"]
MODEL_FILES: dict[Format, str] = {
    "onnx": "model.onnx",
    "torchscript": "model.pt",
    "pt2": "model.pt2",
}
_MEDIA: dict[Format, tuple[str, str]] = {
    "onnx": ("application/octet-stream; framework=onnx; profile=onnx", "onnx.save"),
    "torchscript": ("application/octet-stream; framework=pytorch", "torch.jit.save"),
    "pt2": ("application/octet-stream; framework=pytorch", "torch.export.save"),
}
"""Media type, and how MLM calls what wrote it."""
_UNLEARNED = ("source", "adabn")
"""Methods of adaptation that move no weight: they have no epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was measured when a model was exported."""

    name: str
    receptive_field: int
    global_context: bool
    temperature: float = 1.0
    multiple: int | None = None
    """Of which window sides must be; None where that is not known."""


def model_item(trained: Trained, facts: Facts) -> dict[str, Any]:
    """A STAC 1.1 item with the machine-learning-model extension, without its assets."""
    train, about = trained.train, trained.about
    window = _window(trained, facts)
    properties: dict[str, Any] = {
        "datetime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "title": train.card.title or facts.name,
        "license": train.card.license,
        "bands": [{"name": band} for band in train.bands],
        "mlm:name": facts.name,
        "mlm:architecture": NETWORKS[train.network.name].__name__,
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:framework": "PyTorch",
        "mlm:total_parameters": sum(p.numel() for p in trained.network.parameters()),
        "mlm:pretrained": True,
        "mlm:pretrained_source": train.network.pretrained,
        "mlm:accelerator": "amd64",
        "mlm:accelerator_constrained": False,
        "mlm:batch_size_suggestion": 1,
        "mlm:hyperparameters": train.model_dump(
            mode="json", exclude={"card", "classes", "bands", "adapt"}
        ),
        "mlm:input": _inputs(trained),
        "mlm:output": [_output(trained)],
        "mapper:required": list(train.bands if train.required is None else train.required),
        "mapper:activation": "softmax",
        "mapper:temperature": facts.temperature,
        "mapper:receptive_field": facts.receptive_field,
        "mapper:global_context": facts.global_context,
        "mapper:fill": train.fill,
        "mapper:window": window,
        "mapper:training": dict(about),
        "mapper:limits": list(train.card.limits),
    }
    if train.needs_validity:
        properties["mapper:validity_input"] = VALID
    if train.data_type:
        properties["mapper:data_type"] = train.data_type
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [_MLM, _FILE],
        "id": facts.name,
        "geometry": None,
        "properties": properties,
        "links": [],
        "assets": {},
    }


def _window(trained: Trained, facts: Facts) -> dict[str, Any]:
    """What the recipe says of windows, behind what the network demands of them."""
    demands = {"multiple": facts.multiple} if facts.multiple else {}
    # a graph of others has no network
    cell = int(getattr(getattr(trained.network, "network", None), "cell", 1))
    if cell > 1:
        demands["cell"] = cell
    return {**demands, **trained.train.window}


def model_asset(form: Format, title: str, bands: Sequence[str]) -> dict[str, Any]:
    """What an item says of a file that can be run, without its size and checksum."""
    media, written = _MEDIA[form]
    return {
        "type": media,
        "title": title,
        "roles": ["mlm:model"],
        "mlm:artifact_type": written,
        "bands": [{"name": band} for band in bands],
    }


def limit_lines(limits: Sequence[str]) -> list[str]:
    """What a model must not be used for, as a README lists it."""
    return [f"- {limit.rstrip('.')}." for limit in limits] or ["- Nothing was stated."]


def _inputs(trained: Trained) -> list[dict[str, Any]]:
    """The image, and where it is asked for the plane that says what of it is data."""
    train = trained.train
    shape = {
        "shape": [-1, len(train.bands), -1, -1],
        "dim_order": ["batch", "bands", "height", "width"],
        "data_type": "float32",
    }
    scaling = None if train.scaling == [None] else train.scaling
    names = [(IMAGE, "Scaled values of each band", scaling)]
    if train.needs_validity:
        names.append((VALID, "1.0 where the band is data, else 0.0", None))
    return [
        {
            "name": name,
            "description": text,
            "bands": list(train.bands),
            "input": shape,
            "value_scaling": steps,
            "resize_type": None,
        }
        for name, text, steps in names
    ]


def _output(trained: Trained) -> dict[str, Any]:
    classes = trained.train.table.to_stac()[:-1]
    return {
        "name": OUTPUT,
        "description": "Logit of each class; softmax over the class axis gives the scores.",
        "tasks": ["semantic-segmentation"],
        "result": {
            "shape": [-1, len(classes), -1, -1],
            "dim_order": ["batch", "class", "height", "width"],
            "data_type": "float32",
        },
        "classification:classes": classes,
    }


def model_readme(trained: Trained, facts: Facts) -> str:
    """What a person wants to know before using the model; every figure is from the training."""
    train, about = trained.train, trained.about
    data: Mapping[str, Any] = about.get("data", {})
    parameters = sum(p.numel() for p in trained.network.parameters())
    lines = [
        f"# {facts.name}",
        "",
        f"{(train.card.title or facts.name).rstrip('.')}.",
        "",
        f"- Network: {train.network.name} {dict(train.network.options) or ''}, "
        f"{parameters:,} parameters. Pretrained weights: {about.get('pretrained', 'unknown')}.",
        f"- Bands: {', '.join(train.bands)}.",
        f"- Classes: {', '.join(c.title or c.name for c in train.classes)}.",
        f"- Licence of the weights: {train.card.license}.",
        f"- Trained on: {_data_line(data)} Licence of the data: "
        f"{train.card.data_license or 'not stated'}.",
    ]
    if train.card.attribution:
        lines.append(f"- {train.card.attribution.rstrip('.')}.")
    if lineage := about.get("lineage"):
        lines.append(f"- Started from: {lineage.get('from')}.")
    if adapted := about.get("adapted"):
        lines.append(_adapted_line(adapted))
    lines += ["", "## Must not be used for", ""]
    limits = list(train.card.limits)
    if lost := data.get("untaught"):
        limits.append(f"Never taught, for want of labels: {', '.join(lost)}")
    lines += limit_lines(limits)
    part = "the held-out part of the source" if adapted else "the held-out part"
    lines += ["", f"## Scores on {part}", "", *_score_lines(about.get("scores", {}))]
    if held := data.get("validation"):
        where = ", ".join(held.get("groups", [])) or f"{held.get('images')} images"
        lines += ["", f"Held out as a whole: {where}. The scores are {_choice(about)}."]
    if adapted:
        lines += ["", _target_line(adapted, about.get("scores", {}))]
    return "\n".join(lines) + "\n"


def _choice(about: Mapping[str, Any]) -> str:
    """Whose the scores are, and what they are worth."""
    adapted = about.get("adapted")
    if adapted and adapted["method"] in _UNLEARNED:
        return "those of weights that learned nothing but the source"
    if about.get("kept") == "last":
        return "the last epoch's, nothing was chosen by them"
    if adapted and about.get("kept") != "source":
        return f"those of the epoch that {about.get('kept')} on the target chose"
    return "those of the epoch that was best on this very part, so they are flattering"


def _target_line(adapted: Mapping[str, Any], scores: Mapping[str, float]) -> str:
    name = adapted["target"]["set"]
    if "target_miou" not in scores:
        return f"On the target, {name}, nothing was scored."
    return (
        f"On the target, {name}, the mIoU is {scores['target_miou']:.4f}, by labels that nothing "
        "was learned from or chosen by."
    )


def _adapted_line(adapted: Mapping[str, Any]) -> str:
    """What it was adapted to without labels, and by which method."""
    method, target, by = adapted["method"], adapted["target"], adapted["chosen_by"]
    if method == "source":
        return f"- Not adapted: {adapted.get('start', 'weights of the source')} as they are."
    scaled = ", each scaled by its own statistics" if adapted["normalised"] else ""
    kept = "The last epoch was kept" if by == "last" else f"The epoch was chosen by {by}"
    if method in _UNLEARNED:
        kept = "Statistics of its layers were replaced, no weight was moved"
    return (
        f"- Adapted without labels by {method}: from {adapted['source']} to "
        f"{target['set']}, {target['images']} images{scaled}. {kept}."
    )


def _data_line(data: Mapping[str, Any]) -> str:
    side = data.get("train", {})
    pixels = sum(side.get("pixels", {}).values())
    return f"{data.get('set', 'unknown')}, {side.get('images', 0)} images, {pixels:,} pixels."


def _score_lines(scores: Mapping[str, float]) -> list[str]:
    names = {"miou": "mIoU", "accuracy": "overall accuracy", "validation_loss": "loss"}
    rows = [f"| {names[k]} | {scores[k]:.4f} |" for k in names if k in scores]
    return ["| score | value |", "|---|---|", *rows] if rows else ["None were kept."]
