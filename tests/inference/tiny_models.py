"""Model folders made on the spot: small graphs whose answer numpy can work out.

```python
folder = write_model(tmp_path / "tiny", kernel=3)
card = load_card(str(folder))
```
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BANDS = ("s2:red", "s2:nir")
CLASSES = (("water", "397DFF"), ("green", "397D49"), ("built", "C0392B"))
EXTENSIONS = "https://stac-extensions.github.io"


def tiny_weights(bands: int, classes: int, kernel: int = 1, seed: int = 0) -> np.ndarray:
    """Weights of `tiny_graph`, `(class, band, y, x)` float32, none of them zero."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.5, 1.5, (classes, bands, kernel, kernel))
    return (values * rng.choice((-1, 1), values.shape)).astype(np.float32)


def tiny_graph(
    *,
    bands: int = len(BANDS),
    classes: int = len(CLASSES),
    kernel: int = 1,
    size: int | None = None,
    batch: int | None = None,
    validity: bool = False,
    names: tuple[str, str, str] = ("image", "valid", "logits"),
    dtype: int = TensorProto.FLOAT,
    opset: int = 17,
    seed: int = 0,
) -> bytes:
    """An ONNX graph that is one convolution; its receptive field is `kernel` (odd) pixels.

    `logits = conv(image * valid)`, zero-padded to the size of the input.

    Args:
        bands: channels of the input.
        classes: channels of the output.
        kernel: side of the convolution.
        size: window side that the graph demands; None takes any.
        batch: batch size that the graph demands; None takes any.
        validity: whether there is a second input that the image is multiplied by.
        names: of the image, the validity input and the output.
        dtype: of inputs and output.
        opset: version of the operators.
        seed: of the weights.
    """
    image, valid, output = names
    shape = [batch or "n", bands, size or "y", size or "x"]
    inputs = [helper.make_tensor_value_info(image, dtype, shape)]
    nodes, source = [], image
    if validity:
        inputs.append(helper.make_tensor_value_info(valid, dtype, shape))
        nodes.append(helper.make_node("Mul", [image, valid], ["known"]))
        source = "known"
    pads = [kernel // 2] * 4
    nodes.append(helper.make_node("Conv", [source, "weights"], [output], pads=pads))
    weights = tiny_weights(bands, classes, kernel, seed)
    weights = weights.astype(helper.tensor_dtype_to_np_dtype(dtype))
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        [helper.make_tensor_value_info(output, dtype, [shape[0], classes, *shape[2:]])],
        [numpy_helper.from_array(weights, "weights")],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_answer(
    image: np.ndarray, classes: int = len(CLASSES), kernel: int = 1, seed: int = 0
) -> np.ndarray:
    """What `tiny_graph` gives for `(batch, band, y, x)`, worked out by numpy in float64."""
    weights = tiny_weights(image.shape[1], classes, kernel, seed).astype(np.float64)
    margin = kernel // 2
    padded = np.pad(image.astype(np.float64), [(0, 0), (0, 0), (margin, margin), (margin, margin)])
    height, width = image.shape[2:]
    total = np.zeros((image.shape[0], classes, height, width))
    for row in range(kernel):
        for col in range(kernel):
            part = padded[:, :, row : row + height, col : col + width]
            total += np.einsum("cb,nbyx->ncyx", weights[:, :, row, col], part)
    return total


def model_item(
    *,
    bands: Sequence[str] = BANDS,
    classes: Sequence[tuple[str, str]] = CLASSES,
    kernel: int = 1,
    validity: bool = False,
    artifact: str = "model.onnx",
    **properties: Any,
) -> dict[str, Any]:
    """The STAC MLM item of a tiny model; `mapper_fill=0.5` sets `mapper:fill`, and so on."""
    listed = [
        {"value": value, "name": name, "title": name.title(), "color_hint": color}
        for value, (name, color) in enumerate(classes)
    ]
    fields = {
        "datetime": "2026-01-01T00:00:00Z",
        "license": "CC0-1.0",
        "mlm:name": "tiny",
        "mlm:input": [{"name": "image", "bands": list(bands), "value_scaling": None}],
        "mlm:output": [{"name": "logits", "classification:classes": listed}],
        "mapper:receptive_field": kernel,
        "mapper:window": {"size": 32, "mode": "core"},
    }
    if validity:
        fields["mapper:validity_input"] = "valid"
    for name, value in properties.items():
        prefix, _, rest = name.partition("_")
        fields[f"{prefix}:{rest}" if prefix in {"mapper", "mlm"} else name] = value
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [
            f"{EXTENSIONS}/mlm/v1.5.2/schema.json",
            f"{EXTENSIONS}/file/v2.1.0/schema.json",
        ],
        "id": "tiny",
        "geometry": None,
        "properties": fields,
        "assets": {"model": {"href": f"./{artifact}", "roles": ["mlm:model"]}},
        "links": [],
    }


def write_folder(
    folder: Path, item: dict[str, Any], content: bytes, *, checksum: bool = True
) -> Path:
    """Put an item and its artifact into a folder; `checksum` adds size and checksum."""
    folder.mkdir(parents=True, exist_ok=True)
    asset = item["assets"]["model"]
    if checksum:
        asset["file:size"] = len(content)
        asset["file:checksum"] = f"1220{hashlib.sha256(content).hexdigest()}"
    (folder / asset["href"]).write_bytes(content)
    (folder / "item.json").write_text(json.dumps(item, indent=2), encoding="utf-8")
    return folder


def write_model(
    folder: Path,
    *,
    bands: Sequence[str] = BANDS,
    classes: Sequence[tuple[str, str]] = CLASSES,
    kernel: int = 1,
    size: int | None = None,
    validity: bool = False,
    seed: int = 0,
    **properties: Any,
) -> Path:
    """A whole model folder that `load_card` and `load_runtime` accept; gives the folder."""
    graph = tiny_graph(
        bands=len(bands),
        classes=len(classes),
        kernel=kernel,
        size=size,
        validity=validity,
        seed=seed,
    )
    item = model_item(bands=bands, classes=classes, kernel=kernel, validity=validity, **properties)
    return write_folder(folder, item, graph)
