"""Turns published rules into an ONNX graph, its STAC card and its reference output.

No weight is trained.

A rule is a ratio of two weighted band sums, clipped to a range: `clip(top / bottom, low, high)`.
An index and its threshold fit in one: `(index - threshold) / width` is such a ratio. A rule
counts only where all its bands are valid; the logit of a class is a weighted sum of rules.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
REFERENCE_SIDE = 32
MLM = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One membership: `clip((top + offset) / (bottom + scale), low, high)`."""

    name: str
    """Short name, as in the README's table."""
    top: Mapping[str, float]
    """Band coefficients of the numerator."""
    offset: float = 0.0
    """Constant of the numerator."""
    bottom: Mapping[str, float]
    """Band coefficients of the denominator; empty for a plain ramp."""
    scale: float = 0.0
    """Constant of the denominator."""
    low: float = -1.0
    """Least value: how strongly the rule may speak against."""
    high: float = 1.0
    """Greatest value: how strongly it may speak for."""
    weights: Mapping[str, float]
    """What one unit of this rule adds to the logit of each class."""

    @property
    def bands(self) -> set[str]:
        """Every band the rule reads."""
        return set(self.top) | set(self.bottom)


@dataclass(frozen=True, slots=True, kw_only=True)
class Formulas:
    """A model: bands, rules, and what each class starts from."""

    name: str
    """Folder name and `mlm:name`."""
    bands: tuple[str, ...]
    """Channels of the input, in order."""
    rules: tuple[Rule, ...]
    """All rules."""
    start: Mapping[str, float]
    """Class name to the logit it starts from, in channel order of the output."""
    tiny: float
    """Least denominator; keeps black pixels finite."""


def index_rule(
    name: str,
    plus: Sequence[str],
    minus: Sequence[str],
    *,
    threshold: float,
    width: float,
    weights: Mapping[str, float],
    low: float = -1.0,
    high: float = 1.0,
) -> Rule:
    """`((p - m) / (p + m) - threshold) / width` of the band sums p and m."""
    top = dict.fromkeys(plus, (1 - threshold) / width)
    top |= dict.fromkeys(minus, (-1 - threshold) / width)
    bottom = dict.fromkeys([*plus, *minus], 1.0)
    return Rule(name=name, top=top, bottom=bottom, low=low, high=high, weights=weights)


def ramp_rule(
    name: str,
    band: str,
    *,
    threshold: float,
    width: float,
    weights: Mapping[str, float],
    low: float = -1.0,
    high: float = 1.0,
) -> Rule:
    """`(band - threshold) / width`; a negative width speaks for low values."""
    return Rule(
        name=name,
        top={band: 1 / width},
        offset=-threshold / width,
        bottom={},
        scale=1.0,
        low=low,
        high=high,
        weights=weights,
    )


def _table(rows: Sequence[Mapping[str, float]], columns: Sequence[str]) -> np.ndarray:
    """Coefficients as a 1 x 1 convolution kernel, float32 [row, column, 1, 1]."""
    table = np.array([[row.get(c, 0.0) for c in columns] for row in rows], np.float32)
    return table[:, :, None, None]


def _column(values: Sequence[float]) -> np.ndarray:
    """Values per channel, float32 [1, channel, 1, 1]."""
    return np.array(values, np.float32)[None, :, None, None]


def _constants(model: Formulas) -> dict[str, np.ndarray]:
    """Every constant of the graph by name."""
    rules, classes = model.rules, list(model.start)
    by_class = [{r.name: r.weights.get(c, 0.0) for r in rules} for c in classes]
    return {
        "half": np.float32(0.5),
        "zero": np.float32(0.0),
        "tiny": np.float32(model.tiny),
        "top": _table([r.top for r in rules], model.bands),
        "offset": np.array([r.offset for r in rules], np.float32),
        "bottom": _table([r.bottom for r in rules], model.bands),
        "scale": np.array([r.scale for r in rules], np.float32),
        "needs": _table([dict.fromkeys(r.bands, 1.0) for r in rules], model.bands),
        "spare": np.array([1.0 - len(r.bands) for r in rules], np.float32),
        "low": _column([r.low for r in rules]),
        "high": _column([r.high for r in rules]),
        "weights": _table(by_class, [r.name for r in rules]),
        "start": np.array(list(model.start.values()), np.float32),
    }


def _nodes() -> list[onnx.NodeProto]:
    """The graph: the same for every model, only the constants differ."""
    steps = [
        ("Greater", ["valid", "half"], "seen"),
        # Where, not Mul: a huge or NaN fill times zero would still reach the output.
        ("Where", ["seen", "image", "zero"], "clean"),
        ("Conv", ["clean", "top", "offset"], "above"),
        ("Conv", ["clean", "bottom", "scale"], "below"),
        ("Max", ["below", "tiny"], "divisor"),
        ("Div", ["above", "divisor"], "ratio"),
        ("Max", ["ratio", "low"], "floored"),
        ("Min", ["floored", "high"], "membership"),
        ("Conv", ["ones", "needs", "spare"], "margin"),
        ("Relu", ["margin"], "applies"),
        ("Mul", ["membership", "applies"], "evidence"),
        ("Conv", ["evidence", "weights", "start"], "logits"),
    ]
    nodes = [helper.make_node(op, inputs, [out], name=out) for op, inputs, out in steps]
    nodes.insert(1, helper.make_node("Cast", ["seen"], ["ones"], name="ones", to=1))
    return nodes


def build_graph(model: Formulas) -> bytes:
    """Serialised ONNX model: `image`, `valid` [N, C, H, W] to `logits` [N, K, H, W]."""
    channels, classes = len(model.bands), len(model.start)

    def port(name: str, depth: int) -> onnx.ValueInfoProto:
        shape = ["batch", depth, "height", "width"]
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        _nodes(),
        model.name,
        [port("image", channels), port("valid", channels)],
        [port("logits", classes)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in _constants(model).items()],
    )
    proto = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="mapper",
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)


def describe_inputs(model: Formulas, image: str, valid: str) -> list[dict[str, Any]]:
    """`mlm:input` of the two ports."""
    shape = {
        "shape": [-1, len(model.bands), -1, -1],
        "dim_order": ["batch", "bands", "height", "width"],
        "data_type": "float32",
    }
    return [
        {
            "name": name,
            "description": text,
            "bands": list(model.bands),
            "input": shape,
            "value_scaling": None,
            "resize_type": None,
        }
        for name, text in (("image", image), ("valid", valid))
    ]


def describe_output(classes: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """`mlm:output` of the logits; classes are (name, title, colour) in channel order."""
    return [
        {
            "name": "logits",
            "description": "Logit of each class; softmax over the class axis gives the scores.",
            "tasks": ["semantic-segmentation"],
            "result": {
                "shape": [-1, len(classes), -1, -1],
                "dim_order": ["batch", "class", "height", "width"],
                "data_type": "float32",
            },
            "classification:classes": [
                {"value": value, "name": name, "title": title, "color_hint": color}
                for value, (name, title, color) in enumerate(classes)
            ],
        }
    ]


def reference_output(model: Formulas, image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The rules by numpy in float64, which says what every library must give.

    It takes no matrix product, so that it gives the same bytes on every machine.

    Args:
        model: bands, rules and classes.
        image: `(1, band, y, x)`.
        valid: the same shape, 1 or 0.

    Returns: logits `(1, class, y, x)` float32.
    """
    band = dict(
        zip(model.bands, np.where(valid > 0.5, image, 0)[0].astype(np.float64), strict=True)
    )
    seen = dict(zip(model.bands, valid[0] > 0.5, strict=True))
    logits = {name: np.full(image.shape[2:], start) for name, start in model.start.items()}
    for rule in model.rules:
        top = sum((np.float32(c) * band[b] for b, c in rule.top.items()), np.float32(rule.offset))
        below = sum(
            (np.float32(c) * band[b] for b, c in rule.bottom.items()), np.float32(rule.scale)
        )
        value = np.clip(top / np.maximum(below, model.tiny), rule.low, rule.high)
        applies = np.all([seen[b] for b in rule.bands], axis=0)
        for name, weight in rule.weights.items():
            logits[name] = logits[name] + np.where(applies, weight * value, 0)
    return np.stack(list(logits.values()))[None].astype(np.float32)


def reference_arrays(
    model: Formulas, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, np.ndarray]:
    """Random values of each band within its usual range, one in ten missing, and the output."""
    rng = np.random.default_rng(20)
    shape = (1, len(model.bands), REFERENCE_SIDE, REFERENCE_SIDE)
    low, high = (_column([ranges[b][end] for b in model.bands]) for end in (0, 1))
    image = (low + (high - low) * rng.random(shape)).astype(np.float32)
    valid = (rng.integers(0, 10, shape) > 0).astype(np.float32)
    image = np.where(valid > 0, image, np.float32(0))
    output = reference_output(model, image, valid)
    return {"image": image, "valid": valid, "output": output}


def _pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An .npz that is stored, not packed: the same bytes whatever the zip library."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
    return content.getvalue()


def _checksum(content: bytes) -> str:
    """Multihash of SHA-256, hexadecimal."""
    return "1220" + hashlib.sha256(content).hexdigest()


def _assets(model: Formulas, graph: bytes, readme: bytes, reference: bytes) -> dict[str, Any]:
    """The graph, and the text and the reference beside it.

    STAC 1.1 lets an item's properties list `bands`, which MLM asks for, only where an asset does.
    """
    return {
        "model": {
            "href": "./model.onnx",
            "type": "application/octet-stream; framework=onnx; profile=onnx",
            "title": "ONNX graph",
            "roles": ["mlm:model"],
            "mlm:artifact_type": "onnx.save",
            "bands": [{"name": band} for band in model.bands],
            "file:size": len(graph),
            "file:checksum": _checksum(graph),
        },
        "readme": {
            "href": "./README.md",
            "type": "text/markdown",
            "title": "Rules, thresholds, sources and limits",
            "roles": ["metadata"],
            "file:size": len(readme),
            "file:checksum": _checksum(readme),
        },
        "reference": {
            "href": "./reference.npz",
            "type": "application/x-npz",
            "title": "Input and output that every form must give",
            "roles": ["mapper:reference"],
            "file:size": len(reference),
            "file:checksum": _checksum(reference),
        },
    }


def write_model(
    folder: Path,
    model: Formulas,
    properties: Mapping[str, Any],
    sources: Sequence[tuple[str, str]],
    ranges: Mapping[str, tuple[float, float]],
) -> None:
    """Write `model.onnx`, `reference.npz` and `item.json`.

    Args:
        folder: of the model; holds its README.
        model: bands, rules and classes.
        properties: of the item, beside those that are the same for every model.
        sources: address and title of what is cited.
        ranges: of each band, for the reference input.
    """
    graph, readme = build_graph(model), (folder / "README.md").read_bytes()
    reference = _pack(reference_arrays(model, ranges))
    (folder / "model.onnx").write_bytes(graph)
    (folder / "reference.npz").write_bytes(reference)
    item = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [MLM, FILE],
        "id": model.name,
        "geometry": None,
        "properties": {
            "datetime": "2026-11-20T00:00:00Z",
            "license": "Apache-2.0",
            "mlm:name": model.name,
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:framework": "ONNX",
            "mlm:total_parameters": 0,
            "mlm:pretrained": False,
            "mlm:pretrained_source": None,
            "mlm:accelerator": "amd64",
            "mlm:accelerator_constrained": False,
            "mlm:batch_size_suggestion": 4,
            "mapper:validity_input": "valid",
            "mapper:activation": "softmax",
            "mapper:temperature": 1.0,
            "mapper:receptive_field": 1,
            "mapper:global_context": False,
            "mapper:fill": 0.0,
            "mapper:window": {"size": 512, "mode": "core"},
            **properties,
        },
        "links": [
            {"rel": "cite-as", "href": href, "title": title, "type": "text/html"}
            for href, title in sources
        ],
        "assets": _assets(model, graph, readme, reference),
    }
    text = json.dumps(item, indent=2, ensure_ascii=False) + "\n"
    (folder / "item.json").write_text(text, encoding="utf-8", newline="\n")
