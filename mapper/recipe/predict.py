"""How a model is laid over the ground."""

from typing import Literal

from pydantic import Field

from mapper.recipe.section import Section


class Predict(Section):
    """How the model is laid over the ground; what is left out comes from the model card."""

    over: Literal["composite", "scene", "season"] = Field(
        default="composite",
        description="What is classified: the composite, every Sentinel-2 observation, or the "
        "composite of every season; several maps are then reduced to one",
    )
    reduce: Literal["mean", "vote", "highest"] = Field(
        default="mean",
        description="How maps of several dates become one: mean probability, most frequent "
        "class, or the class of the highest confidence",
    )
    form: str | None = Field(
        default=None, description="Asset key of the model's form; left out, it is measured"
    )
    mode: Literal["core", "blend", "whole"] | None = Field(
        default=None,
        description="`core` keeps the middle of each window, `blend` averages overlapping ones, "
        "`whole` shows the model each image at once, in one square window that is filled up "
        "(`mapper predict` alone)",
    )
    size: int | None = Field(default=None, ge=16, description="Side of a window in pixels")
    stride: int | None = Field(default=None, ge=1, description="Distance between windows")
    weights: Literal["hann", "gaussian"] = Field(
        default="hann", description="Weights of blended windows"
    )
    scores: Literal["probabilities", "logits"] = Field(
        default="probabilities", description="What overlapping windows are averaged in"
    )
    augmentation: Literal["none", "d4"] = Field(
        default="none",
        description="`d4` averages the eight mirrored and turned views of each window",
    )
    entropy: bool = Field(default=False, description="Also store the entropy of each pixel")
    probabilities: bool = Field(
        default=False, description="Also store the probability of every class"
    )
    batch: int | None = Field(
        default=None, ge=1, le=256, description="Windows run at once; left out, it is measured"
    )
    threads: int = Field(default=1, ge=1, le=64, description="Of the runtime, per worker")
