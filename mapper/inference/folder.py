"""A model folder looked at and written back: its forms against its reference, fields, assets."""

import json
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mapper.errors import MapperError, ModelError, StoreError, UsageError
from mapper.inference.artifact import Form, Precision
from mapper.inference.card import ModelCard, load_card
from mapper.inference.devices import DeviceChoice, open_model
from mapper.inference.parity import (
    disagreement,
    read_reference,
    reference_input,
    tolerance_of,
    write_reference,
)
from mapper.inference.runtime import Runtime, make_runtime
from mapper.recipe import data_directory
from mapper.store.files import sha256_of, write_text

REFERENCE = "reference.npz"
_LARGEST_REFERENCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """How models are opened to be looked at."""

    threads: int = 1
    trust: bool = False
    device: DeviceChoice = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class FormCheck:
    """One form of a model, held against the reference."""

    name: str
    """Asset key."""
    form: Form
    precision: Precision
    library: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)
    """`relative` and `changed`; empty where there is no reference or nothing was run."""
    tolerance: Mapping[str, float] = field(default_factory=dict)
    state: Literal["ok", "refused", "no reference"]
    reason: str = ""


def check_forms(card: ModelCard, key: str, how: Opening) -> list[FormCheck]:
    """Load forms and hold each against the stored reference.

    Args:
        card: of the model, any form.
        key: asset key of a form, or `all`.
        how: threads, trust and device.

    Raises: ModelError where there is no such form; a form that cannot be run is `refused`.
    """
    chosen = [a for a in card.artifacts if key in ("all", a.name)]
    if not chosen:
        known = ", ".join(a.name for a in card.artifacts)
        raise ModelError(f"the model has no form {key!r}; its folder holds {known}, or say all")
    return [_check_form(card, artifact.name, how) for artifact in chosen]


def _check_form(card: ModelCard, key: str, how: Opening) -> FormCheck:
    artifact = next(a for a in card.artifacts if a.name == key)
    found: dict[str, Any] = {
        "name": key,
        "form": artifact.form,
        "precision": artifact.precision,
    }
    try:
        mine = load_card(str(card.folder), key)
        found["tolerance"] = tolerance_of(mine)
        runtime = open_unchecked(mine, how)
        found["library"] = runtime.version
        if mine.reference is None:
            return FormCheck(state="no reference", reason="--write makes one", **found)
        image, valid, output = read_reference(mine)
        found["measured"] = disagreement(mine, runtime.run(image, valid), output)
    except MapperError as reason:
        return FormCheck(state="refused", reason=str(reason), **found)
    measured, allowed = found["measured"], found["tolerance"]
    # a tolerance of a measure that there is not allows nothing
    over = [name for name, limit in allowed.items() if not measured.get(name, np.inf) <= limit]
    why = f"{over[0]} is {measured.get(over[0], np.inf):.3g}, over its tolerance" if over else ""
    return FormCheck(state="refused" if over else "ok", reason=why, **found)


def open_unchecked(card: ModelCard, how: Opening) -> Runtime:
    """A model's runtime without holding it against its reference, to measure how far it is off.

    Raises: ModelError where it is code and not trusted, or no model; DeviceError.
    """
    runtime, _ = open_model(card, how.threads, how.trust, how.device, make_runtime)
    return runtime


def store_reference(card: ModelCard, how: Opening) -> ModelCard:
    """Run the first float32 form and keep its input and output; returns the card as it is then.

    Raises: UsageError where the folder is not to be written; ModelError without a float32 form.
    """
    check_writable(card.folder)
    first = next((a for a in card.artifacts if a.precision == "float32"), None)
    if first is None:
        raise ModelError(f"model {card.name!r} has no float32 form to make a reference with")
    whole = load_card(str(card.folder), first.name)
    runtime = open_unchecked(whole, how)
    side = runtime.fixed_size or min(int(card.window.get("size", 512)), _LARGEST_REFERENCE)
    image, valid = reference_input(len(whole.bands), whole.fill, side)
    output = runtime.run(image, valid)
    if not np.isfinite(output).all():
        raise ModelError(f"model {card.name!r} yields NaN for its reference input; export it again")
    path = card.folder / REFERENCE
    write_file(path, lambda attempt: write_reference(attempt, image, valid, output))
    about = {"type": "application/x-npz", "title": "Input and output that every form must give"}
    add_asset(card.folder, "reference", path, {**about, "roles": ["mapper:reference"]})
    return load_card(str(card.folder), card.artifact.name)


def check_writable(folder: Path) -> None:
    """Refuse folders that are not the user's to change. Raises: UsageError."""
    shipped = data_directory("models").resolve()
    if shipped in folder.resolve().parents:
        raise UsageError(
            f"{folder} comes with mapper and is not written to; copy the folder and name the copy"
        )
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder} is read-only; copy the folder and name the copy")


def set_fields(folder: Path, fields: Mapping[str, Any]) -> None:
    """Set properties of a folder's item. Raises: UsageError, StoreError."""
    check_writable(folder)
    item = _item(folder)
    item["properties"].update(fields)
    _write_item(folder, item)


def add_asset(folder: Path, key: str, path: Path, fields: Mapping[str, Any]) -> None:
    """Add a file of the folder to its item, with size and checksum, behind the others.

    Raises: UsageError, StoreError.
    """
    check_writable(folder)
    item = _item(folder)
    item["assets"][key] = {
        "href": f"./{path.relative_to(folder)}",
        **fields,
        "file:size": path.stat().st_size,
        "file:checksum": f"1220{sha256_of(path)}",
    }
    _write_item(folder, item)


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let something write a file, which then appears whole. Raises: StoreError."""
    attempt = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
    try:
        write(attempt)
        os.replace(attempt, path)
    except OSError as reason:
        raise StoreError(f"{path} could not be written ({reason}); free space") from reason
    finally:
        attempt.unlink(missing_ok=True)


def _item(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "item.json").read_text(encoding="utf-8"))
    return content


def _write_item(folder: Path, item: Mapping[str, Any]) -> None:
    """Keys stay in their order: the first model asset is the one that is run by default."""
    text = json.dumps(item, indent=2, ensure_ascii=False) + "\n"
    write_text(folder / "item.json", text)
