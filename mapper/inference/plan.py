"""The inference plan: everything but the ground and the model folder that decides a label.

It is frozen before the first tile, is in every predict hash and in the product's item.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from mapper.area.window import Mode, WindowPlan
from mapper.errors import RecipeError
from mapper.inference.artifact import Form, Precision
from mapper.inference.card import ModelCard
from mapper.inference.coding import Coding
from mapper.inference.composition import Composition, Decision, Weights
from mapper.inference.runtime import Device, Runtime, load_program
from mapper.recipe import Predict, digest_of

PREDICT_VERSION = 2
"""Raised whenever the engine gives another label or confidence for the same input and plan."""

DEFAULT_BATCH = 4
_NEAR = 4
"""Pixels of a halo up to which a network is taken not to pool."""
_CORES = (4096, 2048, 1024, 512, 256, 128, 64, 32, 16)
_SIZE = 512
"""Of windows where neither recipe nor card has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InferencePlan:
    """How a model is run over the lattice."""

    model: str
    """Name of the model."""
    model_digest: str
    artifact: str
    """Which of the model folder's forms is run."""
    form: Form
    runtime: str
    """Library, version and device."""
    device: Device
    precision: Precision
    composition: str
    """Hash of what is run: the model with its input and output steps."""
    size: int
    stride: int
    mode: Mode
    weights: Weights
    scores: Literal["probabilities", "logits"]
    """What blended windows and augmented views are averaged in."""
    augmentation: Literal["none", "d4"]
    """`d4` averages the eight mirrored and turned views of each window."""
    batch: int
    threads: int
    batch_matters: bool
    """True where the runtime is not known to be bit-stable over batch and threads."""
    fill: float
    context: int
    """How far beyond a pixel, in pixels, the cube can have a say in its label: half the receptive
    field, or all that its windows read where the model looks at the whole window."""
    entropy: bool
    probabilities: bool
    version: int = PREDICT_VERSION

    @property
    def decision(self) -> Decision:
        """What is stored beside class and confidence."""
        return Decision(entropy=self.entropy, probabilities=self.probabilities)

    @property
    def windows(self) -> WindowPlan:
        """Where the windows lie."""
        return WindowPlan(size=self.size, stride=self.stride, mode=self.mode)

    @property
    def digest(self) -> str:
        """Hash of what decides a label."""
        return digest_of(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """What decides a label, as JSON: batch and threads only where the runtime needs them."""
        fields = asdict(self)
        if not self.batch_matters:
            del fields["batch"], fields["threads"]
        return fields


def plan_inference(
    card: ModelCard,
    runtime: Runtime,
    wanted: Predict,
    coding: Coding,
    device: Device = "cpu",
) -> InferencePlan:
    """Freeze how a model is laid over the ground.

    The recipe wins over the card. Core crop takes its halo from the receptive field and the
    largest core that divides every usual tile.

    Raises: RecipeError where window, stride and receptive field cannot be reconciled.
    """
    layout = window_layout(card, runtime, wanted)
    halo = -(-(card.receptive_field - 1) // 2)
    plan = InferencePlan(
        model=card.name,
        model_digest=card.digest,
        artifact=card.artifact.name,
        form=card.form,
        runtime=runtime.version,
        device=device,
        precision=card.artifact.precision,
        composition="",
        size=layout.size,
        stride=layout.stride,
        mode=layout.mode,
        weights=wanted.weights if layout.mode == "blend" else "none",
        scores=wanted.scores,
        augmentation=wanted.augmentation,
        batch=wanted.batch or DEFAULT_BATCH,
        threads=wanted.threads,
        batch_matters=runtime.fixed_batch,
        fill=card.fill,
        context=layout.overhang if card.global_context else min(halo, layout.overhang),
        entropy=wanted.entropy,
        probabilities=wanted.probabilities,
    )
    program = load_program(runtime, composition_of(card, plan, coding))
    return replace(plan, composition=program.digest)


def composition_of(card: ModelCard, plan: InferencePlan, coding: Coding) -> Composition:
    """How a model is dressed for a plan."""
    in_place = plan.mode == "core" and plan.augmentation == "none"
    return Composition(
        card=card,
        coding=coding,
        margin=plan.windows.halo,
        scores="" if in_place else plan.scores,
        weights=plan.weights,
        side=plan.size if plan.weights != "none" else 0,
        decision=plan.decision,
    )


def window_layout(card: ModelCard, runtime: Runtime, wanted: Predict) -> WindowPlan:
    """Where the windows lie; the recipe wins over the card.

    A card's `cell` is the side, in pixels, of what its network averages before all else, counted
    from the first pixel of a window: windows begin at multiples of it, so that a cell is the same
    ground in every one.

    Raises: RecipeError.
    """
    if wanted.mode == "whole":
        raise RecipeError(
            "predict.mode whole is for single images (`mapper predict`); a city is mapped in "
            "windows: use core or blend"
        )
    mode: Mode = wanted.mode or card.window.get("mode", "core")
    cell = cell_of(card)
    usual = max(cell, _SIZE // cell * cell)
    size = wanted.size or runtime.fixed_size or int(card.window.get("size", usual))
    if runtime.fixed_size and size != runtime.fixed_size:
        raise RecipeError(
            f"predict.size is {size}, but model {card.name!r} takes {runtime.fixed_size} only"
        )
    stride = wanted.stride or card.window.get("stride")
    if stride is None:
        stride = max(cell, size // 2 // cell * cell) if mode == "blend" else _core(card, size)
    halo = halo_of(card)
    if mode == "core" and not card.global_context and (size - stride) // 2 < halo:
        raise RecipeError(
            f"window {size} and stride {stride} leave a halo of {(size - stride) // 2} pixels, "
            f"model {card.name!r} sees {halo} around each; use a larger window or smaller stride"
        )
    if not (runtime.fixed_size or wanted.size or card.global_context):
        size = _tight(card, (size, stride), halo, mode)
    layout = WindowPlan(size=size, stride=stride, mode=mode)
    _check_cells(card, layout)
    return layout


def _check_cells(card: ModelCard, layout: WindowPlan) -> None:
    cell = cell_of(card)
    if layout.size % cell or layout.stride % cell or layout.halo % cell:
        differ = f" that differ by multiples of {2 * cell}" if layout.mode == "core" else ""
        raise RecipeError(
            f"window {layout.size} and stride {layout.stride} cut through the cells of model "
            f"{card.name!r}, which are of {cell} pixels; set predict.size and predict.stride to "
            f"multiples of {cell}{differ}"
        )


def cell_of(card: ModelCard) -> int:
    """Side in pixels of the cells that windows must not cut through; 1 where any will do."""
    return int(card.window.get("cell", 1))


def halo_of(card: ModelCard) -> int:
    """Pixels that a model sees around each, in whole cells."""
    cell = cell_of(card)
    return -(-(card.receptive_field - 1) // (2 * cell)) * cell


def _core(card: ModelCard, size: int) -> int:
    """The largest usual core that leaves the receptive field its halo.

    With cells, usual are those that divide tiles of 256 times the odd part of the cell: 640 for
    cells of 5 pixels, in tiles of 1280 or 2560.
    """
    cell, halo = cell_of(card), halo_of(card)
    if card.global_context:
        halo = -(-size // (4 * cell)) * cell if cell > 1 else size // 4
    odd = cell // (cell & -cell)
    for core in (odd * usual for usual in _CORES):
        whole = cell == 1 or not (core % cell or (size - core) % (2 * cell))
        if whole and core + 2 * halo <= size:
            return core
    if cell > 1 and size >= cell + 2 * halo:
        return size - 2 * halo
    raise RecipeError(
        f"model {card.name!r} sees {halo} pixels around each, too much for a window of {size}; "
        "set predict.size in the recipe"
    )


def _tight(card: ModelCard, window: tuple[int, int], halo: int, mode: Mode) -> int:
    """The smallest window for a core: what lies beyond the halo would be computed for nothing.

    Networks that see far mostly pool, and take sides that can be halved five times.
    """
    size, stride = window
    if mode != "core" or not halo:
        return size
    multiple = int(card.window.get("multiple", 1 if halo <= _NEAR else 32))
    least = stride + 2 * halo
    rounded = -(-least // multiple) * multiple
    fits = rounded <= size and (rounded - stride) % (2 * cell_of(card)) == 0
    return rounded if fits else min(size, least)
