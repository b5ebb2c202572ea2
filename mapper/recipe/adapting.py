"""The `adapt` part of a train section: how a network learns a place that has no labels.

Defaults of the three published methods are the published ones. They are made for large networks
and long trainings; recipes of small ones set others.
"""

from typing import Literal

from pydantic import Field, field_validator

from mapper.recipe.learning import Optimizer, Schedule, checked_range
from mapper.recipe.section import Section

MethodName = Literal["source", "adabn", "dpa", "daspm", "adversarial", "consistent"]
"""`source` adapts nothing: what the others are held against."""
Criterion = Literal["last", "source", "entropy", "information", "density", "agreement"]
"""How the epoch is chosen, without a label of the target; see `mapper.training.adapt.choosing`."""


class Adabn(Section):
    """Batch normalisation by the statistics of the target (Li et al. 2018); nothing is learned."""

    share: float = Field(
        default=1.0, gt=0, le=1, description="Of the target's statistics; the rest the source's"
    )
    batches: int = Field(
        default=64, ge=1, description="Batches of target patches that are looked at"
    )


class Dpa(Section):
    """Dynamic pseudo-label assignment (Tong et al. 2023): source and target in one forward."""

    share: float = Field(
        default=0.5, gt=0, le=1, description="Of the target's pixels that teach in the last epoch"
    )
    normalise: bool = Field(
        default=True,
        description="Scale each domain by its own means and deviations, in prediction too",
    )
    optimizer: Optimizer = Optimizer(kind="sgd", rate=0.005, decay=1e-5, momentum=0.9)
    schedule: Schedule = Schedule(kind="poly", power=0.9)


class Mixing(Section):
    """How target patches are changed where a student learns from them; any number of bands."""

    classes: float = Field(
        default=0.5, ge=0, le=1, description="Share of the source's classes pasted in (ClassMix)"
    )
    jitter: float = Field(default=0.2, ge=0, description="Strength of the colour jitter")
    jittered: float = Field(default=0.8, ge=0, le=1, description="Share of images it is applied to")
    blurred: float = Field(default=0.5, ge=0, le=1, description="Share of images blurred")
    sigma: tuple[float, float] = Field(default=(0.15, 1.15), description="Of the blur, in pixels")


class RareClasses(Section):
    """Rare class sampling (Hoyer et al. 2022): P(c) ~ exp((1 - f_c) / temperature)."""

    temperature: float = Field(default=0.01, gt=0)
    least: float = Field(
        default=3000 / 320**2,
        ge=0,
        lt=1,
        description="Share of the patch that the class must cover in its image; half in the patch",
    )
    tries: int = Field(default=10, ge=1, description="Crops until a patch holds that much")


class Daspm(Section):
    """DASPM, which is DAFormer (Hoyer et al. 2022): teacher, rare classes, ClassMix."""

    momentum: float = Field(default=0.999, gt=0, lt=1, description="Of the teacher's moving mean")
    threshold: float = Field(
        default=0.968, gt=0, lt=1, description="Probability above which a pixel counts as sure"
    )
    rare: RareClasses | None = RareClasses()
    mixing: Mixing = Mixing()
    distance: float = Field(
        default=0.005, ge=0, description="Weight of the distance to the pretrained backbone"
    )
    optimizer: Optimizer = Optimizer(kind="adamw", rate=6e-5, decay=0.01, head_factor=10)
    schedule: Schedule = Schedule(kind="poly", power=1.0, warmup=1500)


class Adversarial(Section):
    """Output-space adversarial adaptation, UGSNet's second step.

    What UGSNet used of weights and rates was not published; these are those of the discriminator's
    own paper (Tsai et al. 2018, arXiv 1802.10349).
    """

    weight: float = Field(default=0.001, gt=0, description="Of the loss that fools it")
    rate: float = Field(default=1e-4, gt=0, description="Of the discriminator, Adam")
    width: int = Field(default=64, ge=4, description="Channels of its first layer")
    optimizer: Optimizer = Optimizer(kind="sgd", rate=2.5e-4, decay=5e-4, momentum=0.9)
    schedule: Schedule = Schedule(kind="poly", power=0.9)


class Consistent(Section):
    """Self-training by a teacher that knows the target's statistics."""

    momentum: float = Field(default=0.99, gt=0, lt=1, description="Of the teacher's moving mean")
    keep: float = Field(
        default=0.5, gt=0, le=1, description="Share of each class's surest pixels that teach"
    )
    views: int = Field(
        default=2, ge=1, le=4, description="Mirrored patches that the teacher's guess is a mean of"
    )
    restyle: float = Field(
        default=0.5, ge=0, le=1, description="How far the source's colours go to the target's"
    )
    weight: float = Field(default=1.0, ge=0, description="Of the target's loss")
    mixing: Mixing | None = Mixing()
    optimizer: Optimizer = Optimizer(kind="adamw", rate=1e-3, decay=0.01)
    schedule: Schedule = Schedule(kind="poly", power=0.9)


class Adapt(Section):
    """How a network learns a place without labels, after the source or together with it."""

    method: MethodName = Field(default="consistent", description="Default of `mapper adapt`")
    start: Literal["source", "scratch"] = Field(
        default="source", description="Weights of a training on the source alone, or random ones"
    )
    epochs: int = Field(default=20, ge=1)
    patches: int | None = Field(
        default=None, ge=1, description="Of the target, an epoch; by default its area"
    )
    batch: int | None = Field(
        default=None, ge=1, description="Patches of each domain; by default that of the training"
    )
    scale: tuple[float, float] = Field(
        default=(1.0, 1.0), description="Range of zoom factors of target patches"
    )

    @field_validator("scale")
    @classmethod
    def _scale_is_a_range(cls, scale: tuple[float, float]) -> tuple[float, float]:
        return checked_range(scale)

    choose: Criterion = Field(
        default="last", description="How the epoch is chosen, without a label of the target"
    )
    patience: int | None = Field(
        default=None, ge=1, description="Epochs without a better criterion before it stops"
    )
    adabn: Adabn = Adabn()
    dpa: Dpa = Dpa()
    daspm: Daspm = Daspm()
    adversarial: Adversarial = Adversarial()
    consistent: Consistent = Consistent()
