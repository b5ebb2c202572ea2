"""The inference plan: everything but the ground and the model folder that decides a label.

It is frozen before the first tile, is in every predict hash and in the product's item.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from mapper.area.window import Mode, WindowPlan
from mapper.errors import RecipeError
from mapper.inference.card import ModelCard
from mapper.inference.runtime import Runtime
from mapper.recipe import Predict, digest_of

PREDICT_VERSION = 1
"""Raised whenever the engine gives another label or confidence for the same input and plan."""

_CORES = (4096, 2048, 1024, 512, 256, 128, 64, 32, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferencePlan:
    """How a model is run over the lattice."""

    model: str
    """Name of the model."""
    model_digest: str
    form: str
    runtime: str
    """Library, version and device."""
    precision: Literal["float32"] = "float32"
    size: int
    stride: int
    mode: Mode
    weights: Literal["none", "hann", "gaussian"]
    batch: int
    threads: int
    augmentation: Literal["none"] = "none"
    fill: float
    context: int
    """How far beyond a pixel, in pixels, the cube can have a say in its label: half the receptive
    field, or all that its windows read where the model looks at the whole window."""
    version: int = PREDICT_VERSION

    @property
    def windows(self) -> WindowPlan:
        """Where the windows lie."""
        return WindowPlan(size=self.size, stride=self.stride, mode=self.mode)

    @property
    def digest(self) -> str:
        """Hash of what decides a label: batch and threads only where the runtime needs them."""
        fields = asdict(self)
        if self.form == "onnx":
            del fields["batch"], fields["threads"]
        return digest_of(fields)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def plan_inference(card: ModelCard, runtime: Runtime, wanted: Predict) -> InferencePlan:
    """Freeze how a model is laid over the ground.

    The recipe wins over the card. Core crop takes its halo from the receptive field and the
    largest core that divides every usual tile.

    Raises: RecipeError where window, stride and receptive field cannot be reconciled.
    """
    mode: Mode = wanted.mode or card.window.get("mode", "core")
    size = wanted.size or runtime.fixed_size or int(card.window.get("size", 512))
    if runtime.fixed_size and size != runtime.fixed_size:
        raise RecipeError(
            f"predict.size is {size}, but model {card.name!r} takes {runtime.fixed_size} only"
        )
    stride = wanted.stride or card.window.get("stride")
    if stride is None:
        stride = size // 2 if mode == "blend" else _core(card, size)
    halo = -(-(card.receptive_field - 1) // 2)
    if mode == "core" and not card.global_context and (size - stride) // 2 < halo:
        raise RecipeError(
            f"window {size} and stride {stride} leave a halo of {(size - stride) // 2} pixels, "
            f"model {card.name!r} sees {halo} around each; use a larger window or smaller stride"
        )
    if not (runtime.fixed_size or wanted.size or card.global_context):
        size = _tight(size, stride, halo, mode)
    windows = WindowPlan(size=size, stride=stride, mode=mode)
    return InferencePlan(
        model=card.name,
        model_digest=card.digest,
        form=card.form,
        runtime=runtime.version,
        size=size,
        stride=stride,
        mode=mode,
        weights=wanted.weights if mode == "blend" else "none",
        batch=wanted.batch,
        threads=wanted.threads,
        fill=card.fill,
        context=windows.overhang if card.global_context else min(halo, windows.overhang),
    )


def _core(card: ModelCard, size: int) -> int:
    """The largest usual core that leaves the receptive field its halo."""
    halo = size // 4 if card.global_context else -(-(card.receptive_field - 1) // 2)
    for core in _CORES:
        if core + 2 * halo <= size:
            return core
    raise RecipeError(
        f"model {card.name!r} sees {halo} pixels around each, too much for a window of {size}; "
        "set predict.size in the recipe"
    )


def _tight(size: int, stride: int, halo: int, mode: Mode) -> int:
    """The smallest window for a core: what lies beyond the halo would be computed for nothing."""
    return min(size, stride + 2 * halo) if mode == "core" and halo else size
