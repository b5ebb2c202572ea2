"""Something that runs a model: one interface for every exported form."""

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from mapper.errors import DeviceError, DeviceMemoryError, ModelError
from mapper.inference.artifact import check_trust
from mapper.inference.card import ModelCard
from mapper.inference.composition import CHECK, Composition

Device = Literal["cpu", "cuda", "tensorrt"]


class Program(Protocol):
    """A model dressed by a composition. Safe to call from several threads."""

    digest: str
    """Hash of what is run."""
    parallel: int
    """Calls that may go on at once without waiting for each other."""

    def run(self, stored: Sequence[np.ndarray]) -> Mapping[str, np.ndarray]:
        """Arrays `(batch, ..., y, x)` by name, of stored layers `(batch, band, y, x)`.

        Raises: ModelError where a value is not finite or the output has another size;
            DeviceMemoryError where the batch does not fit; DeviceError where the device is gone.
        """
        ...


class Runtime(Protocol):
    """A loaded model."""

    version: str
    """Name and version of the library, and the device."""
    fixed_batch: bool
    """True where results depend on the batch size, so that the last batch has to be padded."""
    fixed_size: int | None
    """Window side that the graph demands; None where any will do."""

    def run(self, image: np.ndarray, valid: np.ndarray) -> np.ndarray:
        """Raw output `(batch, class, y, x)` float32, undressed.

        Args:
            image: `(batch, band, y, x)` float32, scaled.
            valid: `(batch, band, y, x)` float32, 1.0 = data; unused by models without one.
        """
        ...

    def compose(self, composition: Composition) -> Program:
        """The model dressed."""
        ...


_loaded: dict[Any, Any] = {}
_loading = threading.Lock()
_made = 0


def load_runtime(
    card: ModelCard, threads: int, trust: bool = False, device: Device = "cpu"
) -> Runtime:
    """The model's runtime, made once per process and held against its reference output.

    Raises: ModelError where the form is code and was not trusted, the graph does not fit the
        card, or its output is not the reference's.
    """
    check_trust(card.artifact, card.sha256, trust)
    key = (card.digest, card.reference_sha256, card.folder, threads, device)
    with _loading:
        if key not in _loaded:
            from mapper.inference.parity import check_parity

            runtime = make_runtime(card, threads, trust, device)
            check_parity(card, runtime)
            _loaded[key] = runtime
        found: Runtime = _loaded[key]
    return found


def load_program(runtime: Runtime, composition: Composition) -> Program:
    """A runtime dressed, made once per process."""
    global _made
    card = composition.card
    # by its words, since NaN as nodata equals nothing
    key = (id(runtime), card.digest, repr(composition.parts))
    with _loading:
        if key not in _loaded:
            _loaded[key] = runtime.compose(composition)
            _made += 1
        program: Program = _loaded[key]
    return program


def programs_made() -> int:
    """Programs that this process has loaded so far."""
    return _made


def make_runtime(card: ModelCard, threads: int, trust: bool, device: Device) -> Runtime:
    """A runtime of its own, not held against the reference. Raises: as `load_runtime`."""
    check_trust(card.artifact, card.sha256, trust)
    if card.form == "onnx":
        from mapper.inference.onnx import OnnxRuntime

        return OnnxRuntime(card, threads, device)
    from mapper.inference.pytorch import TorchRuntime

    return TorchRuntime(card, threads, device)


def checked(
    card: ModelCard, found: Mapping[str, np.ndarray], expected: tuple[int, int]
) -> dict[str, np.ndarray]:
    """A program's outputs, held against the card. Raises: ModelError.

    Args:
        card: of the model.
        found: outputs by name, the check among them.
        expected: windows, and pixels of their side.
    """
    outputs, (count, side) = dict(found), expected
    check = outputs.pop(CHECK)
    if not np.isfinite(check).all():
        raise ModelError(
            f"model {card.name!r} yields NaN or infinity; export it again and check its scaling"
        )
    if check.shape[:2] != (count, card.channels):
        raise ModelError(
            f"model {card.name!r} yields {check.shape[1]} classes for {check.shape[0]} windows, "
            f"its card promises {card.channels} for {count}"
        )
    shape = next(iter(outputs.values())).shape
    if shape[2:] != (side, side):
        raise ModelError(
            f"model {card.name!r} yields {shape[2]} x {shape[3]} pixels where its card promises "
            f"{side}; export it with an output of its input's size"
        )
    return outputs


def check_raw(card: ModelCard, raw: np.ndarray, image: np.ndarray) -> None:
    """Hold a raw output's shape against the card. Raises: ModelError."""
    expected = (len(image), card.channels, *image.shape[2:])
    if raw.shape != expected:
        raise ModelError(
            f"model {card.name!r} yields {raw.shape} for windows of {image.shape[2]} pixels, "
            f"its card promises {expected}"
        )


_NO_MEMORY = re.compile(r"out of memory|bad.?alloc|allocate|CUBLAS_STATUS_ALLOC", re.IGNORECASE)
_LOST = re.compile(r"cuda|cudnn|cublas|nvidia|tensorrt|driver", re.IGNORECASE)


def device_failure(card: ModelCard, reason: BaseException) -> Exception:
    """What a library's complaint while running means."""
    said = " ".join(str(reason).split())[:300] or type(reason).__name__
    if isinstance(reason, MemoryError) or _NO_MEMORY.search(said):
        return DeviceMemoryError(
            f"a batch of model {card.name!r} does not fit the memory ({said}); use a smaller "
            "predict.batch or window"
        )
    if _LOST.search(said):
        return DeviceError(
            f"model {card.name!r} lost its device ({said}); run again, what is finished is kept, "
            "or use --device cpu"
        )
    return ModelError(
        f"model {card.name!r} cannot be run as its card says ({said}); hold it against its card "
        "with `mapper model check`"
    )
