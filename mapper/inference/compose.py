"""ONNX graphs dressed at load: bytes, and not float tensors, cross their border."""

import hashlib
from typing import Any

import numpy as np

from mapper.errors import ModelError
from mapper.inference.card import ModelCard
from mapper.inference.coding import Layer
from mapper.inference.composition import OURS, Composition
from mapper.inference.graph import Graph
from mapper.inference.head import head
from mapper.inference.scaling import column

OLDEST_OPSET = 11


def composed(plain: bytes, composition: Composition) -> bytes:
    """An ONNX graph of float tensors, dressed: stored layers in, bytes or scores out.

    Raises: ModelError where the graph's opset is too old.
    """
    import onnx

    model = onnx.load_model_from_string(plain)
    opset = opset_of(model)
    before, behind = Graph(opset, "mapper_in"), Graph(opset, "mapper_out")
    inputs = _decode(before, model, composition)
    outputs = head(behind, composition, _model_output(model, composition.card))
    nodes = list(model.graph.node)
    del model.graph.node[:], model.graph.input[:], model.graph.output[:]
    model.graph.node.extend([*before.nodes, *nodes, *behind.nodes])
    model.graph.initializer.extend([*before.constants, *behind.constants])
    model.graph.input.extend(inputs)
    model.graph.output.extend(outputs)
    return bytes(model.SerializeToString(deterministic=True))


def opset_of(model: Any) -> int:
    """The opset of an ONNX model's own operators. Raises: ModelError where it is too old."""
    found = [e.version for e in model.opset_import if e.domain in ("", "ai.onnx")]
    if not found:
        raise ValueError("it names no opset")
    opset = max(found)
    if opset < OLDEST_OPSET:
        raise ModelError(
            f"the graph is written in opset {opset}; export it with {OLDEST_OPSET} or newer"
        )
    return int(opset)


def digest_of_graph(content: bytes) -> str:
    """Hash of a composed graph."""
    return hashlib.sha256(content).hexdigest()


def stored_name(layer: Layer) -> str:
    """Name of the input that a stored layer enters by."""
    return f"{OURS}stored_{layer.name}"


def _decode(graph: Graph, model: Any, composition: Composition) -> list[Any]:
    """Stored layers to the model's own inputs; returns the new inputs."""
    from onnx import helper

    card, coding = composition.card, composition.coding
    given = {value.name: value for value in model.graph.input}
    shape = _shape_of(given[card.image_input])
    inputs: list[Any] = []
    values: list[str] = []
    valids: list[str] = []
    order: list[int] = []
    for layer in coding.layers:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(layer.dtype))
        size = [shape[0], len(layer.channels), shape[2], shape[3]]
        inputs.append(helper.make_tensor_value_info(stored_name(layer), kind, size))
        value, valid = _decode_layer(graph, card, layer)
        values.append(value)
        valids.append(valid)
        order += layer.channels
    missing = [c for c in range(coding.bands) if c not in order]
    if missing:
        value, valid = _missing(graph, card, values[0], len(missing))
        values.append(value)
        valids.append(valid)
        order += missing
    _join(graph, values, order, given[card.image_input])
    if card.validity_input:
        _join(graph, valids, order, given[card.validity_input])
    return inputs


def _decode_layer(graph: Graph, card: ModelCard, layer: Layer) -> tuple[str, str]:
    """Scaled values and validity (both float32) of one layer."""
    stored = graph.cast(stored_name(layer), "float32")
    scalings = [card.scaling[c].after(layer.scale, layer.offset) for c in layer.channels]
    value = stored
    for operator, numbers, neutral in (
        ("Mul", [s.factor for s in scalings], 1.0),
        ("Add", [s.offset for s in scalings], 0.0),
        ("Max", [s.low for s in scalings], -np.inf),
        ("Min", [s.high for s in scalings], np.inf),
    ):
        if any(number != neutral for number in numbers):
            value = graph.add(operator, value, graph.constant(column(numbers)))
    if layer.nodata is None:
        ones = ""
        if card.validity_input:
            ones = _filled_like(graph, stored, 1.0)
        return value, ones
    if np.isnan(layer.nodata):
        absent = graph.add("IsNaN", stored)
    else:
        absent = graph.add("Equal", stored, graph.constant(np.float32(layer.nodata)))
    value = graph.add("Where", absent, graph.constant(np.float32(card.fill)), value)
    return value, graph.cast(graph.add("Not", absent), "float32")


def _filled_like(graph: Graph, source: str, value: float) -> str:
    from onnx import numpy_helper

    constant = numpy_helper.from_array(np.array([value], dtype=np.float32))
    return graph.add("ConstantOfShape", graph.add("Shape", source), value=constant)


def _missing(graph: Graph, card: ModelCard, like: str, count: int) -> tuple[str, str]:
    """Channels that are stored nowhere: fill, and validity 0."""
    one = graph.add("Slice", like, *(graph.constant(np.array([v])) for v in (0, 1, 1)))
    value = _filled_like(graph, one, card.fill)
    repeats = graph.constant(np.array([1, count, 1, 1], dtype=np.int64))
    valid = graph.add("Tile", _filled_like(graph, one, 0.0), repeats)
    return graph.add("Tile", value, repeats), valid


def _join(graph: Graph, parts: list[str], order: list[int], given: Any) -> None:
    """Layers side by side in the model's order, under the name and type of its own input."""
    joined = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
    if order != sorted(order):
        places = [order.index(channel) for channel in range(len(order))]
        joined = graph.add("Gather", joined, graph.constant(np.array(places)), axis=1)
    graph.add("Cast", joined, name=given.name, to=given.type.tensor_type.elem_type)


def _shape_of(value: Any) -> list[Any]:
    """Each dimension's size, or a name where any will do."""
    names = ("batch", "band", "y", "x")
    sizes = [d.dim_value for d in value.type.tensor_type.shape.dim]
    return [size or name for size, name in zip(sizes, names, strict=True)]


def _model_output(model: Any, card: ModelCard) -> str:
    names = [value.name for value in model.graph.output]
    if card.output not in names:
        raise ModelError(f"model {card.name!r} has outputs {names}, its card says {card.output!r}")
    return card.output
