"""Models with fixed weights whose context is known: one convolutional, one that sees it all."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BANDS = ("sentinel2:red", "sentinel2:nir", "sentinel1:vv", "elevation:elevation")
SCALES = (0.3, 0.5, 20.0, 1.0)
CLASSES = 4
HALO = 32


def _weights(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def _node_list(context: str) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """A 3 x 3 convolution of dilation 32 sees 65 pixels, its corners as strongly as its middle.

    The sine makes millimetres of elevation visible in the confidence.
    """
    values = {
        "far": _weights(1, 8, len(BANDS), 3, 3),
        "mix": _weights(2, CLASSES, 8, 1, 1) * 2,
    }
    nodes = [
        helper.make_node("Conv", ["image", "far"], ["wide"], dilations=[HALO] * 2, pads=[HALO] * 4),
        helper.make_node("Sin", ["wide"], ["bent"]),
    ]
    if context == "global":
        # the mean over the whole window shifts every logit of it
        values["whole"] = _weights(3, 8, 8, 1, 1) * 0.7
        nodes += [
            helper.make_node("GlobalAveragePool", ["bent"], ["mean"]),
            helper.make_node("Conv", ["mean", "whole"], ["shift"]),
            helper.make_node("Add", ["bent", "shift"], ["seen"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["bent"], ["seen"]))
    nodes.append(helper.make_node("Conv", ["seen", "mix"], ["logits"]))
    return nodes, values


def write_model(folder: Path, context: str, window: dict[str, object]) -> Path:
    """Write a model folder; `context` is `local` or `global`."""
    nodes, values = _node_list(context)
    shape = ["n", len(BANDS), "h", "w"]
    graph = helper.make_graph(
        nodes,
        "fixed",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CLASSES, "h", "w"])],
        [numpy_helper.from_array(v, k) for k, v in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    classes = [
        {"value": i, "name": f"c{i}", "title": f"C {i}", "color_hint": f"{40 * i:02X}80C0"}
        for i in range(CLASSES)
    ]
    properties = {
        "mlm:name": folder.name,
        "mlm:input": [
            {
                "name": "image",
                "bands": list(BANDS),
                "value_scaling": [{"type": "scale", "value": s} for s in SCALES],
            }
        ],
        "mlm:output": [{"name": "logits", "classification:classes": classes}],
        "mapper:receptive_field": 2 * HALO + 1,
        "mapper:global_context": context == "global",
        "mapper:window": window,
    }
    asset = {"href": "./model.onnx", "roles": ["mlm:model"]}
    item = {"id": folder.name, "properties": properties, "assets": {"model": asset}}
    (folder / "item.json").write_text(json.dumps(item))
    return folder


def write_recipe(path: Path, model: Path) -> Path:
    """A recipe that feeds optics, radar and elevation to a model."""
    path.write_text(
        f"""
name: {path.stem}
title: Fixed weights
resolution: 10
sources:
  sentinel2: {{kind: sentinel-2, bands: {{required: [red, green, nir]}}}}
  sentinel1: {{kind: sentinel-1}}
  elevation: {{kind: elevation}}
model: {model}
"""
    )
    return path
