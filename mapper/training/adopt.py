"""`mapper models add`: a checkpoint or graph from elsewhere and a small YAML to a model folder.

Nothing that comes in a file is run, but TorchScript where it is trusted. What was fetched is
hashed before it is read, and its item keeps hash and origin under `mapper:origin`.
"""

import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mapper.errors import ModelError, StoreError, UsageError
from mapper.events import Event, Listener, ignore
from mapper.inference.card import load_card, shipped_models, user_directory, user_models
from mapper.inference.folder import add_asset, set_fields
from mapper.inference.receptive import LIMIT
from mapper.store.files import write_text
from mapper.training.card import limit_lines
from mapper.training.export import ExportOptions, export_model
from mapper.training.fetch import Fetched, fetch_file
from mapper.training.foreign import FileKind, kind_of, read_weights
from mapper.training.graphs import GraphSource, graph_folder
from mapper.training.keymaps import guess_layout, key_map
from mapper.training.modelfile import Graph, ModelFile, is_slug, read_model_file
from mapper.training.networks import build_network
from mapper.training.transfer import to_ours
from mapper.training.weights import Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptOptions:
    """What is to become a model folder."""

    source: str
    """Path or address of a checkpoint or graph."""
    card: Path
    """YAML that says what it takes and yields."""
    name: str | None = None
    """Of the model; the YAML's where None."""
    out: Path | None = None
    """Folder to write; one of the user's own models where None."""
    trust_model: bool = False
    """True runs TorchScript, which is code."""
    field_limit: int = LIMIT
    """Side of the largest window in which the receptive field is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A model folder that was written."""

    name: str
    folder: Path
    kind: FileKind
    """What it came as."""
    layout: str
    """Layout of the weights; empty for graphs."""
    href: str
    """Address without query and user, or the bare name of a local file."""
    sha256: str
    """Of the file as it came."""
    size: int
    """Bytes of that file."""
    receptive_field: int
    global_context: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrival:
    """A file that is here, what it is, and what the YAML says of it."""

    name: str
    card: ModelFile
    kind: FileKind
    file: Fetched


def adopt_model(options: AdoptOptions, listener: Listener = ignore) -> Adopted:
    """Write a model folder, whole or not at all.

    Raises: UsageError where the name or folder is taken; ModelError where the YAML, the file or
        its hash is not as it should be, or reading it would run code; RecipeError for options that
        the network has not; ReadError where a server does not give it.
    """
    card = read_model_file(options.card)
    name, out = _target(options, card)
    attempt = out.resolve().with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        attempt.mkdir(parents=True)
        file = fetch_file(options.source, attempt / "source", card.bytes)
        listener(Event(kind="run", message=f"{file.href}: {file.size:,} bytes, {file.sha256}"))
        _check_hash(card, file)
        arrival = _Arrival(name=name, card=card, kind=kind_of(file.path, file.href), file=file)
        found = _write(arrival, attempt / "model", options)
        (attempt / "model").rename(out)
    except OSError as reason:
        raise StoreError(f"{out} could not be written ({reason}); free space") from reason
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
    listener(Event(kind="run", message=f"model {name} is in {out}"))
    return replace(found, folder=out)


def _target(options: AdoptOptions, card: ModelFile) -> tuple[str, Path]:
    """Name and folder. Raises: UsageError where either is taken or the name is none."""
    name = options.name or card.name
    if not is_slug(name):
        raise UsageError(
            f"{name!r} is no name of a model; use three or more lower case letters, digits and "
            "dashes, a letter first"
        )
    if options.out is None:
        taken = {folder.name for folder in (*shipped_models(), *user_models())}
        if name in taken:
            raise UsageError(f"there is a model {name!r} already; give another --name, or --out")
    out = options.out or user_directory() / name
    if out.exists():
        raise UsageError(f"{out} is there already; name a folder that is not")
    return name, out


def _check_hash(card: ModelFile, file: Fetched) -> None:
    if card.sha256 and card.sha256.lower() != file.sha256:
        raise ModelError(
            f"{file.href} has the SHA-256 {file.sha256}, the YAML says {card.sha256}: it is "
            "another file or was changed on its way; it was not read"
        )


def _write(arrival: _Arrival, folder: Path, options: AdoptOptions) -> Adopted:
    """The folder, with the origin in its item."""
    card, kind, file = arrival.card, arrival.kind, arrival.file
    _check_section(card, kind, file.href)
    layout = ""
    if kind in ("checkpoint", "safetensors"):
        layout = _write_weights(arrival, folder, options.field_limit)
    else:
        _check_trust(kind, options.trust_model, file.href)
        folder.mkdir()
        source = GraphSource(path=file.path, kind=kind, shown=file.href)
        graph_folder(folder, arrival.name, card, source, options.field_limit)
    origin: dict[str, Any] = {
        "href": card.origin(file.href),
        "sha256": file.sha256,
        "size": file.size,
        "layout": layout or kind,
    }
    _add_origin(arrival, folder, origin)
    made = load_card(str(folder))
    return Adopted(
        name=arrival.name,
        folder=folder,
        kind=kind,
        layout=layout,
        href=origin["href"],
        sha256=file.sha256,
        size=file.size,
        receptive_field=made.receptive_field,
        global_context=made.global_context,
    )


def _check_section(card: ModelFile, kind: FileKind, shown: str) -> None:
    """Refuse what the YAML says of another kind of file."""
    weights = kind in ("checkpoint", "safetensors")
    if weights and card.network is None:
        raise ModelError(
            f"{shown} holds weights without a network; say in the YAML which takes them, e.g. "
            "`network: {name: gum}`"
        )
    strange = "graph" if weights and card.graph else ""
    if not weights and (card.network or card.layout):
        strange = "network" if card.network else "layout"
    if strange:
        raise ModelError(f"{shown} is {kind}, and the YAML has `{strange}`; take it out")


def _check_trust(kind: FileKind, trust: bool, shown: str) -> None:
    if kind == "torchscript" and not trust:
        raise ModelError(
            f"{shown} is TorchScript, which is code: it is taken with --trust-model alone; an "
            "ONNX export or a state dict needs no trust"
        )


def _write_weights(arrival: _Arrival, folder: Path, limit: int) -> str:
    """Weights into a network of ours, exported as ONNX; returns their layout."""
    card, file = arrival.card, arrival.file
    state = read_weights(file.path, arrival.kind, file.href)
    layout = key_map(card.layout) if card.layout else guess_layout(state)
    if layout.name == "mit":
        raise ModelError(
            f"{file.href} is the backbone of a network, without classes; train one that starts "
            "from it (`train.network.pretrained`)"
        )
    train = card.train
    network = build_network(train, pretrained=False)
    network.network.load_state_dict(to_ours(layout, state, network.network))
    trained = Trained(network=network.eval(), train=train, about={})
    export_model(trained, ExportOptions(out=folder, name=arrival.name, field_limit=limit))
    return layout.name


def _add_origin(arrival: _Arrival, folder: Path, origin: dict[str, Any]) -> None:
    """What its item and its README say of where a model comes from."""
    card = arrival.card
    cited = {"citation": card.source.citation} if card.source.citation else {}
    fields = {
        "mapper:origin": origin | cited,
        "mapper:temperature": card.temperature,
        "mlm:pretrained_source": origin["href"],
    }
    if card.network:
        # how it was trained is not known: defaults of recipes are not told as if they were it
        network = card.network.model_dump(mode="json")
        fields["mlm:hyperparameters"] = {"network": network}
    set_fields(folder, fields)
    write_text(folder / "README.md", _readme(arrival, origin))
    about = {"type": "text/markdown", "title": "What it is, where it comes from, its limits"}
    add_asset(folder, "readme", folder / "README.md", {**about, "roles": ["metadata"]})


def _readme(arrival: _Arrival, origin: dict[str, Any]) -> str:
    card = arrival.card
    network = card.network.name if card.network else (card.graph or Graph()).architecture
    lines = [
        f"# {arrival.name}",
        "",
        f"{card.title or arrival.name}. Not trained by mapper.",
        "",
        f"- Network: {network}, from {arrival.kind} of layout {origin['layout']}.",
        f"- Bands: {', '.join(card.bands)}.",
        f"- Classes: {', '.join(c.title or c.name for c in card.classes)}.",
        f"- Licence of the weights: {card.license}.",
        f"- Licence of the data: {card.data_license or 'not stated'}.",
        f"- Origin: {origin['href']}, {origin['size']:,} bytes, SHA-256 {origin['sha256']}.",
        *([f"- Cite: {card.source.citation}."] if card.source.citation else []),
        *([f"- {card.attribution}."] if card.attribution else []),
        "",
        "## Must not be used for",
        "",
        *limit_lines(card.limits),
        "",
        "## Scores",
        "",
        "None were measured; `mapper evaluate` does.",
    ]
    return "\n".join(lines) + "\n"
