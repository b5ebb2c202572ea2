"""The `train` section of a recipe: network, data, and how they are learned."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mapper.classes import ClassTable, MapClass
from mapper.recipe.adapting import Adapt
from mapper.recipe.learning import Augment, Loss, Optimizer, Schedule
from mapper.recipe.section import Section

NetworkName = Literal[
    "ugsnet",
    "gum",
    "unet",
    "fbp-unet",
    "deeplabv3",
    "deeplabv3plus",
    "daformer",
    "segformer",
    "subpixel",
]
LayoutName = Literal[
    "samples", "images", "ugset", "openearthmap", "fbp", "daspm", "loveda", "tree-points"
]


class Network(Section):
    """Which network, and what differs from its published form."""

    name: NetworkName
    options: dict[str, int | float | bool | str | list[int]] = Field(
        default={}, description="Keyword arguments of the network, e.g. width: 16"
    )
    pretrained: str | None = Field(
        default=None,
        description="Weights of the backbone, a name or folder that transformers can load; "
        "without it the backbone starts at random, and the card says so",
    )
    presence: bool = Field(
        default=False,
        description="Add one channel for each source that says where it has data, so that a "
        "missing modality differs from a dark one",
    )


class ClassEntry(Section):
    """One class, in channel order."""

    value: int = Field(ge=0, le=254, description="Pixel value in labels and maps")
    name: str
    title: str = ""
    color: str = Field(description="Six hexadecimal digits")


class Data(Section):
    """Where images and labels are in a data set, and what they hold."""

    layout: LayoutName = Field(default="samples", description="How the folder is laid out")
    images: str = Field(default="images", description="Folder of images (layout `images`)")
    labels: str = Field(default="labels", description="Folder of labels (layout `images`)")
    bands: list[str] = Field(
        default=[], description="Bands of the images in file order; the layout's own by default"
    )
    scale: float = Field(default=1.0, gt=0, description="Stored values times this are physical")
    classes: list[ClassEntry] = Field(
        default=[], description="Classes of the labels where they differ from `train.classes`"
    )
    ignored: list[int | str] = Field(
        default=[], description="Label values, or colours such as 9B9B9B, that teach nothing"
    )
    crosswalk: dict[str, str | None] = Field(
        default={}, description="Class of the labels to class of the model; null teaches nothing"
    )
    group: str | None = Field(
        default=None,
        description="Regular expression over names; what it captures is split as one",
    )


class Split(Section):
    """What is held out: whole spatial blocks, never single pixels."""

    validation: float = Field(default=0.2, gt=0, lt=1, description="Share of the blocks")
    block: float = Field(
        default=5000, gt=0, description="Side of a block in units of the images' CRS"
    )
    held_out: list[str] = Field(
        default=[], description="Groups to hold out by name, instead of a share"
    )
    seed: int = 0


class Card(Section):
    """What the model folder says of a model trained by this recipe."""

    title: str = ""
    license: str = Field(default="other", description="Of the weights")
    data_license: str = Field(default="", description="Of the training data")
    attribution: str = ""
    limits: list[str] = Field(default=[], description="What it must not be used for")


class Train(Section):
    """How a model for the recipe is trained."""

    network: Network
    bands: list[str] = Field(min_length=1, description="Channels, as `source:band`")
    required: list[str] | None = Field(
        default=None, description="Bands without which a pixel gets no class; all by default"
    )
    scaling: list[dict[str, Any] | None] = Field(
        default=[None], description="`value_scaling` of MLM: one for all bands, or one each"
    )
    fill: float = Field(default=0.0, description="Scaled value of pixels without data")
    data_type: str = Field(default="", description="Numpy type of images, e.g. uint8")
    classes: list[ClassEntry] = Field(min_length=2, description="In channel order")
    data: Data = Data()
    split: Split = Split()
    patch: int = Field(default=256, ge=32, description="Side of training patches")
    batch: int = Field(default=8, ge=1)
    epochs: int = Field(default=50, ge=1)
    patches: int | None = Field(
        default=None, ge=1, description="Patches an epoch; by default the area of the data"
    )
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    augment: Augment = Augment()
    patience: int | None = Field(
        default=None, ge=1, description="Epochs without a better score before it stops"
    )
    keep: Literal["best", "last"] = Field(
        default="best",
        description="Epoch whose weights are kept; `last` chooses nothing by the held-out part",
    )
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    seed: int = Field(default=0, ge=0)
    window: dict[str, Any] = Field(
        default={"size": 256, "mode": "core"}, description="`mapper:window` of the card"
    )
    adapt: Adapt = Field(default=Adapt(), description="How it learns a place without labels")
    card: Card = Card()

    @field_validator("bands")
    @classmethod
    def _bands_are_of_sources(cls, bands: list[str]) -> list[str]:
        for band in bands:
            if not re.fullmatch(r"[a-z][a-z0-9_]*:[A-Za-z0-9_]+", band):
                raise ValueError(f"band {band!r} is not of the form source:band")
        return bands

    @field_validator("scaling")
    @classmethod
    def _one_or_each(cls, scaling: list[dict[str, Any] | None]) -> list[dict[str, Any] | None]:
        if not scaling:
            raise ValueError("give one entry for all bands or one each; null for none")
        return scaling

    @model_validator(mode="after")
    def _parts_fit(self) -> "Train":
        if len(self.scaling) not in (1, len(self.bands)):
            raise ValueError(f"{len(self.scaling)} scalings for {len(self.bands)} bands")
        unknown = set(self.required or ()) - set(self.bands)
        if unknown:
            raise ValueError(f"required names {sorted(unknown)}, which are no bands")
        weights = self.loss.class_weights
        if isinstance(weights, list) and len(weights) != len(self.classes):
            raise ValueError(f"{len(weights)} class weights for {len(self.classes)} classes")
        return self

    @property
    def table(self) -> ClassTable:
        """Classes of the model."""
        return table_of(self.classes)

    @property
    def needs_validity(self) -> bool:
        """True where the network is told which values are data."""
        return self.network.presence or self.required is not None


def table_of(entries: list[ClassEntry]) -> ClassTable:
    """Classes as listed in a recipe. Raises: ModelError."""
    return ClassTable(
        classes=tuple(
            MapClass(value=e.value, name=e.name, title=e.title or e.name, color=e.color.upper())
            for e in entries
        )
    )
