"""Trained weights on disk: safetensors that carry the recipe they were trained by. No pickles."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mapper.errors import ModelError
from mapper.inference.folder import write_file
from mapper.recipe.training import Train
from mapper.store.files import sha256_of
from mapper.training.networks import Supervised, build_network

WEIGHTS = "model.safetensors"
"""What a finished training leaves: the weights of its best epoch."""
_KEY = "mapper"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A network with its weights, and how it came about."""

    network: Supervised
    train: Train
    about: Mapping[str, Any]
    """`name`, `resolution`, `data`, `scores`, `lineage` and so on; plain JSON."""


def save_weights(
    path: Path, state: Mapping[str, Any], train: Train, about: Mapping[str, Any]
) -> None:
    """Write weights with their recipe, whole or not at all. Raises: StoreError."""
    from safetensors.torch import save_file

    content = {"train": learned_section(train), "about": dict(about)}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    metadata = {_KEY: json.dumps(content, sort_keys=True)}
    write_file(path, lambda attempt: save_file(tensors, attempt, metadata=metadata))


def learned_section(train: Train) -> dict[str, Any]:
    """What weights say of how they were learned.

    How they could be adapted is no part of it: what was done is in `about`.
    """
    return train.model_dump(mode="json", exclude={"adapt"})


def weights_digest(start: Path | None) -> str | None:
    """SHA-256 of the weights that something begins with; None where there are none."""
    if start is None:
        return None
    file = start / WEIGHTS if start.is_dir() else start
    return sha256_of(file) if file.is_file() else None


def load_weights(path: Path) -> Trained:
    """A trained network: a training's folder, its `model.safetensors`, or one of its `.ckpt`.

    Raises: ModelError where it is none of these, or is not whole.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise ModelError(
            f"{file} is not there; give the folder of a finished `mapper train`, its {WEIGHTS}, or "
            "a checkpoint of one that is under way"
        )
    state, content = _checkpoint(file) if file.suffix == ".ckpt" else _safetensors(file)
    try:
        train = Train.model_validate(content["train"])
    except (KeyError, TypeError, ValidationError) as reason:
        raise ModelError(
            f"{file} does not say how it was trained; `mapper models add` takes foreign weights"
        ) from reason
    network = build_network(train, pretrained=False)
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as reason:
        raise ModelError(f"{file} does not fit its own recipe: {str(reason)[:300]}") from reason
    return Trained(network=network.eval(), train=train, about=content.get("about", {}))


def _safetensors(file: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as stored:
            content = json.loads((stored.metadata() or {}).get(_KEY, "{}"))
            return {name: stored.get_tensor(name) for name in stored.keys()}, content  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as reason:
        raise ModelError(f"{file} is no safetensors file that can be read: {reason}") from reason


def _checkpoint(file: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A checkpoint of a training under way; loaded without running anything that is in it."""
    import torch

    try:
        stored = torch.load(file, map_location="cpu", weights_only=True)
        content = json.loads(stored[_KEY])
        # an adaptation may keep its teacher instead of the network that learned
        prefix = content.get("weights", "network.")
        state = {
            name.removeprefix(prefix): tensor
            for name, tensor in stored["state_dict"].items()
            if name.startswith(prefix)
        }
        return state, content
    # torch raises what zip files, pickles and keys raise
    except Exception as reason:
        raise ModelError(f"{file} is no checkpoint of `mapper train`: {reason}") from reason
