"""Something that runs a model: one interface for every exported form."""

import threading
from typing import Protocol

import numpy as np

from mapper.errors import ModelError
from mapper.inference.card import ModelCard


class Runtime(Protocol):
    """A loaded model."""

    version: str
    """Name and version of the library, and the device."""
    fixed_batch: bool
    """True where results depend on the batch size, so that the last batch has to be padded."""
    fixed_size: int | None
    """Window side that the graph demands; None where any will do."""

    def run(self, image: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Raw output for a batch.

        Args:
            image: `(batch, band, y, x)` float32, scaled.
            valid: `(batch, band, y, x)` float32, 1.0 = data; unused by models without one.

        Returns: `(batch, class, y, x)` float32.
        """
        ...


_loaded: dict[tuple[str, int], Runtime] = {}
_loading = threading.Lock()


def load_runtime(card: ModelCard, threads: int, trust: bool = False) -> Runtime:
    """The model's runtime, made once per process and model.

    Raises: ModelError where the form is code and was not trusted, or the graph does not fit
        the card.
    """
    check_trust(card, trust)
    with _loading:
        key = (card.digest, threads)
        if key not in _loaded:
            _loaded[key] = _make(card, threads)
        return _loaded[key]


def _make(card: ModelCard, threads: int) -> Runtime:
    if card.form == "onnx":
        from mapper.inference.onnx import OnnxRuntime

        return OnnxRuntime(card, threads)
    from mapper.inference.torchscript import TorchScriptRuntime

    return TorchScriptRuntime(card, threads)


def check_trust(card: ModelCard, trust: bool) -> None:
    """Refuse to run code from a model folder unless told to. Raises: ModelError."""
    if card.form != "onnx" and not trust:
        raise ModelError(
            f"model {card.name!r} is {card.form}, which is code: it runs with --trust-model "
            "alone; an ONNX export needs no trust"
        )


def probabilities(raw: np.ndarray, card: ModelCard) -> np.ndarray:
    """Raw output to probabilities over axis 1, float32. Raises: ModelError for NaN."""
    if not np.isfinite(raw).all():
        raise ModelError(
            f"model {card.name!r} yields NaN or infinity; export it again and check its scaling"
        )
    if card.activation == "none":
        return raw
    logits = raw / np.float32(card.temperature)
    logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(logits / logits.sum(axis=1, keepdims=True))
