"""How weights are learned: optimiser, schedule, loss, and changes of training patches."""

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from mapper.recipe.section import Section


def checked_range(scale: tuple[float, float]) -> tuple[float, float]:
    """A range of zoom factors. Raises: ValueError."""
    if not 0 < scale[0] <= scale[1] < float("inf"):
        raise ValueError(f"scale {scale}: give the least and the largest factor, above 0")
    return scale


class Optimizer(Section):
    """How weights are moved."""

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    rate: float = Field(default=1e-3, gt=0, description="Peak learning rate")
    decay: float = Field(default=0.01, ge=0, description="Weight decay")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of SGD, Nesterov's")
    head_factor: float = Field(default=1.0, gt=0, description="Rate of the head over that")


class Schedule(Section):
    """How the learning rate falls, by step."""

    kind: Literal["poly", "cosine", "constant"] = "poly"
    power: float = Field(default=0.9, gt=0, description="Of poly")
    warmup: int = Field(default=0, ge=0, description="Steps of linear warm-up")


class Loss(Section):
    """What is minimised: a weighted sum, class weights inside cross entropy and focal."""

    cross_entropy: float = Field(default=1.0, ge=0)
    dice: float = Field(default=0.0, ge=0)
    focal: float = Field(default=0.0, ge=0)
    gamma: float = Field(default=2.0, ge=0, description="Of focal")
    class_weights: Literal["none", "log"] | list[float] = Field(
        default="none", description="`log` is 1/ln(1.02 + share of all pixels); or one each"
    )

    @field_validator("class_weights")
    @classmethod
    def _classes_weigh(cls, weights: str | list[float]) -> str | list[float]:
        if isinstance(weights, list) and not all(0 < weight < math.inf for weight in weights):
            raise ValueError(
                f"class weights {weights}; give more than 0, and null in the crosswalk for what is "
                "not to be taught"
            )
        return weights

    @model_validator(mode="after")
    def _something_is_minimised(self) -> "Loss":
        if not self.cross_entropy + self.dice + self.focal:
            raise ValueError("every weight is 0; give one of cross_entropy, dice and focal")
        return self


class Augment(Section):
    """Changes of training patches; each works on any number of bands."""

    flip: bool = Field(default=True, description="Mirror along both axes, half of the time")
    turn: bool = Field(default=True, description="Turn by multiples of 90 degrees")
    scale: tuple[float, float] = Field(default=(1.0, 1.0), description="Range of zoom factors")
    coarsen: int = Field(
        default=1,
        ge=1,
        description="Averaged over squares of so many pixels and brought back by bilinear "
        "interpolation: what a coarser sensor sees",
    )
    gain: float = Field(
        default=0.0, ge=0, description="All bands times exp(uniform(-gain, gain)), alike"
    )
    band_gain: float = Field(default=0.0, ge=0, description="The same, for each band apart")
    offset: float = Field(default=0.0, ge=0, description="Plus uniform(-offset, offset), a band")
    gamma: float = Field(default=0.0, ge=0, description="Values to exp(uniform(-gamma, gamma))")
    noise: float = Field(default=0.0, ge=0, description="Standard deviation of added noise")
    blur: float = Field(default=0.0, ge=0, le=1, description="Share of patches blurred, sigma 0-1")

    @field_validator("scale")
    @classmethod
    def _scale_is_a_range(cls, scale: tuple[float, float]) -> tuple[float, float]:
        return checked_range(scale)

    drop_sources: float = Field(
        default=0.0, ge=0, lt=1, description="Share of patches in which an optional source is gone"
    )
    clouds: float = Field(
        default=0.0, ge=0, lt=1, description="Share of patches with holes grown into a source"
    )
    rare_classes: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of patches drawn, in up to eight tries, until they hold a class that is "
        "drawn alike for all",
    )
