"""Holding what was loaded against the reference output that came with the model.

The reference is made once, in float32, when a model is exported; every form and precision of the
folder is held against it, each with the tolerance that its card states.
"""

import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mapper.errors import ModelError
from mapper.inference.card import ModelCard

if TYPE_CHECKING:
    from mapper.inference.runtime import Runtime

logger = logging.getLogger(__name__)


def check_parity(card: ModelCard, runtime: "Runtime") -> None:
    """Run the reference input and compare. Raises: ModelError outside the tolerance."""
    if card.reference is None:
        logger.warning(
            "model %s has no reference output, so nothing holds what was loaded against what was "
            "exported; `mapper model check --write` makes one",
            card.name,
        )
        return
    image, valid, output = read_reference(card)
    found = disagreement(card, runtime.run(image, valid), output)
    for measure, limit in tolerance_of(card).items():
        if measure not in found:
            raise ModelError(
                f"{card.folder}: tolerance {measure!r} is not known for {card.head}; use "
                f"{', '.join(found)}"
            )
        if not found[measure] <= limit:
            raise ModelError(
                f"model {card.name!r}: {card.artifact.path.name} ({card.artifact.precision}) is "
                f"off its reference output by {found[measure]:.3g} ({measure}; its card allows "
                f"{limit:g}); export it again, or run it where it was made"
            )


def tolerance_of(card: ModelCard) -> Mapping[str, float]:
    """What the card allows; by precision where it does not say."""
    if card.artifact.tolerance:
        return card.artifact.tolerance
    if card.artifact.precision == "float32":
        return {"relative": 1e-4}
    # numbers have no labels that could change
    return {"relative": 0.02} if card.head == "values" else {"changed": 0.02}


def disagreement(card: ModelCard, raw: np.ndarray, reference: np.ndarray) -> Mapping[str, float]:
    """How far an output is from another: `relative` to the range, and share of `changed` labels.

    Args:
        card: says whether channels compete.
        raw: `(batch, class, y, x)` float32.
        reference: the same shape.
    """
    if raw.shape != reference.shape:
        raise ModelError(
            f"model {card.name!r} yields {raw.shape} for its reference input, not {reference.shape}"
        )
    if not np.isfinite(raw).all():
        raise ModelError(f"model {card.name!r} yields NaN for its reference input; export it again")
    span = float(reference.max() - reference.min()) or 1.0
    found = {"relative": float(np.abs(raw - reference).max()) / span}
    if card.head != "values":
        changed = _labels(card, raw) != _labels(card, reference)
        found["changed"] = float(changed.mean())
    return found


def _labels(card: ModelCard, raw: np.ndarray) -> np.ndarray:
    if card.head == "labels" or card.binary:
        return raw > (0.5 if card.activation == "none" else 0.0)
    return np.asarray(raw.argmax(axis=1))


def read_reference(card: ModelCard) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, validity and output of a model's reference. Raises: ModelError."""
    path = card.reference
    if path is None:
        raise ModelError(f"model {card.name!r} has no reference")
    try:
        # no pickles: what is in the file is numbers, or it is refused
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            image, output = content["image"], content["output"]
            valid = content["valid"] if "valid" in content else np.ones_like(image)
    # a damaged archive fails in as many ways as there are places to damage it
    except Exception as reason:
        raise ModelError(f"reference {path} cannot be read ({reason}); write it again") from reason
    if image.ndim != 4 or image.shape[1] != len(card.bands) or not image.size:
        raise ModelError(f"reference {path} holds {image.shape}; it needs {len(card.bands)} bands")
    return (
        image.astype(np.float32),
        valid.astype(np.float32),
        output.astype(np.float32),
    )


def write_reference(path: Path, image: np.ndarray, valid: np.ndarray, output: np.ndarray) -> None:
    """Store a reference; the same arrays give the same bytes."""
    arrays = {"image": image, "valid": valid, "output": output}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, values.astype(np.float32), allow_pickle=False)


def reference_input(bands: int, fill: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Scaled noise with a hole in it, the same for every export of a model.

    Returns: image and validity `(1, band, y, x)` float32.
    """
    rng = np.random.default_rng(20)
    shape = (1, bands, side, side)
    smooth = np.cumsum(np.cumsum(rng.normal(0, 1, shape), axis=2), axis=3)
    smooth = (smooth - smooth.mean()) / (smooth.std() or 1.0) + 0.3 * rng.normal(0, 1, shape)
    image, valid = smooth.astype(np.float32), np.ones(shape, dtype=np.float32)
    hole = (slice(None), slice(None), slice(side // 8, side // 4), slice(side // 8, side // 4))
    image[hole], valid[hole] = np.float32(fill), 0
    return image, valid
