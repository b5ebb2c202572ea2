"""A graph from elsewhere, ONNX or TorchScript, as a model folder."""

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from mapper.errors import ModelError
from mapper.inference.card import ModelCard, load_card
from mapper.inference.folder import Opening, add_asset, open_unchecked, set_fields, store_reference
from mapper.inference.receptive import measure_field
from mapper.store.files import write_json
from mapper.training.card import (
    IMAGE,
    MODEL_FILES,
    OUTPUT,
    VALID,
    Facts,
    Format,
    model_asset,
    model_item,
)
from mapper.training.foreign import FileKind
from mapper.training.modelfile import Graph, ModelFile
from mapper.training.networks import Supervised
from mapper.training.weights import Trained

_FRAMEWORKS: dict[Format, str] = {"onnx": "ONNX", "torchscript": "PyTorch"}
_EXTERNAL = 1
"""`TensorProto.EXTERNAL`: the numbers are in another file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSource:
    """A graph that was fetched."""

    path: Path
    kind: FileKind
    shown: str
    """What to call it in messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ends:
    """What a graph calls its image and its output, and how many weights it has."""

    image: str
    output: str
    parameters: int | None


def graph_folder(
    folder: Path, name: str, file: ModelFile, source: GraphSource, limit: int
) -> ModelCard:
    """Fill a folder with a graph, its item and what it yields for the reference input.

    Runs TorchScript: ask for trust before.

    Raises: ModelError where the graph is not what the YAML says.
    """
    graph = file.graph or Graph()
    ends = _onnx_ends(source, graph) if source.kind == "onnx" else _script_ends(graph)
    form: Format = "onnx" if source.kind == "onnx" else "torchscript"
    target = MODEL_FILES[form]
    write_json(folder / "item.json", _item(name, file, ends, _FRAMEWORKS[form]))
    shutil.copyfile(source.path, folder / target)
    fields = model_asset(form, f"{source.kind} as it came", file.bands)
    if graph.shape != (None, None):
        fields["mapper:shape"] = list(graph.shape)
    add_asset(folder, "model", folder / target, fields)
    how = Opening(trust=True)
    card = store_reference(load_card(str(folder)), how)
    pixels, everything = _field(card, graph, how, limit)
    set_fields(folder, {"mapper:receptive_field": pixels, "mapper:global_context": everything})
    return load_card(str(folder))


def _item(name: str, file: ModelFile, ends: _Ends, framework: str) -> dict[str, Any]:
    """As of a model that was trained here, with what a graph of others has otherwise."""
    graph, window = file.graph or Graph(), int(file.window.get("size", 512))
    nothing = Trained(network=cast(Supervised, nn.Module()), train=file.train, about={})
    facts = Facts(name=name, receptive_field=window, global_context=graph.global_context)
    item = model_item(nothing, facts)
    properties = item["properties"]
    image, output = properties["mlm:input"][0], properties["mlm:output"][0]
    image["name"], output["name"] = ends.image, ends.output
    output["description"] = "As `mapper:head` and `mapper:activation` say"
    if graph.head == "classes" and graph.activation == "sigmoid" and len(file.classes) == 2:
        output["result"]["shape"][1] = 1
    properties |= {
        "mlm:architecture": graph.architecture,
        "mlm:framework": framework,
        "mlm:total_parameters": ends.parameters,
        "mlm:input": [image],
        "mapper:activation": graph.activation,
        "mapper:head": graph.head,
    }
    for name in ("mapper:validity_input", "mlm:hyperparameters"):
        properties.pop(name, None)
    if graph.validity_input:
        valid = {"name": graph.validity_input, "value_scaling": None}
        valid["description"] = "1.0 where the band is data, else 0.0"
        properties["mlm:input"].append({**image, **valid})
        properties["mapper:validity_input"] = graph.validity_input
    if ends.parameters is None:
        del properties["mlm:total_parameters"]
    return item


def _script_ends(graph: Graph) -> _Ends:
    """Arguments of TorchScript go by their order; the names are for the card alone."""
    return _Ends(image=graph.image_input or IMAGE, output=graph.output or OUTPUT, parameters=None)


def _onnx_ends(source: GraphSource, graph: Graph) -> _Ends:
    """Read and check an ONNX graph. Raises: ModelError."""
    import onnx

    try:
        model = onnx.load_model_from_string(source.path.read_bytes())
        outside = [t.name for t in _tensors(model) if t.data_location == _EXTERNAL]
        if not outside:
            onnx.checker.check_model(model)
    # protobuf and the checker have no common root of what they raise
    except Exception as reason:
        raise ModelError(
            f"{source.shown} is no valid ONNX graph ({' '.join(str(reason).split())[:200]}); fetch "
            "or export it again"
        ) from reason
    if outside:
        raise ModelError(
            f"{source.shown} keeps {len(outside)} of its weights in another file; save it as one "
            "(onnx.save with save_as_external_data=False)"
        )
    weights = {t.name: math.prod(t.dims) for t in model.graph.initializer}
    inputs = [i.name for i in model.graph.input if i.name not in weights]
    if graph.validity_input and graph.validity_input not in inputs:
        raise ModelError(
            f"{source.shown} has no input {graph.validity_input!r} (graph.validity_input); it has "
            f"{', '.join(inputs)}"
        )
    images = [name for name in inputs if name != graph.validity_input]
    outputs = [o.name for o in model.graph.output]
    return _Ends(
        image=_chosen(images, graph.image_input, "image_input", source),
        output=_chosen(outputs, graph.output, "output", source),
        parameters=sum(weights.values()),
    )


def _chosen(names: list[str], wanted: str | None, field: str, source: GraphSource) -> str:
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return str(wanted)
    said = f"has no {wanted!r}" if wanted else f"has {len(names)} to choose from"
    raise ModelError(
        f"{source.shown} {said} (graph.{field}); name one of {', '.join(names)}, and the plane "
        f"of validity, if it takes one, as graph.validity_input, e.g. {VALID}"
    )


def _tensors(model: Any) -> Iterator[Any]:
    """Every constant of a graph, of the graphs inside it and of its functions."""
    waiting = [model.graph, *model.functions]
    while waiting:
        part = waiting.pop()
        yield from getattr(part, "initializer", ())
        for sparse in getattr(part, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for node in part.node:
            for attribute in node.attribute:
                yield from (attribute.t, *attribute.tensors)
                sparse = (attribute.sparse_tensor, *attribute.sparse_tensors)
                yield from (t for s in sparse for t in (s.values, s.indices))
                waiting += [g for g in (attribute.g, *attribute.graphs) if g.node]


def _field(card: ModelCard, graph: Graph, how: Opening, limit: int) -> tuple[int, bool]:
    """Receptive field and global context: measured, and never less than was stated.

    Raises: ModelError where the YAML promises less than was measured.
    """
    window = int(card.window.get("size", limit))
    if graph.global_context:
        return graph.receptive_field or window, True
    found = measure_field(card, open_unchecked(card, how), limit)
    stated = graph.receptive_field
    if stated is None:
        return (window, True) if found.global_context else (found.pixels, False)
    beyond = found.window + 1 if found.global_context else found.pixels
    if stated < beyond:
        said = f"more than {found.window}" if found.global_context else f"{found.pixels}"
        raise ModelError(
            f"the graph sees {said} pixels across and graph.receptive_field is {stated}; leave it "
            "out to have it measured, or say `global_context: true`"
        )
    return stated, False
