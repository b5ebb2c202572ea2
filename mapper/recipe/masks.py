"""Masks of a recipe: by which rule a pixel of a scene is ground."""

import math
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from mapper.recipe.section import Section

_LARGEST_CLASS = 11
"""Of Sentinel-2's scene classification."""


class _MaskSection(Section):
    always_masked_share: float = Field(
        default=0.9,
        description="Pixels masked in more than this share of at least 5 scenes are kept and "
        "flagged: bright roofs are often called cloud. 1 turns it off",
        gt=0,
        le=1,
    )


class SclMask(_MaskSection):
    """Sentinel-2's scene classification as a mask."""

    kind: Literal["scl"] = "scl"
    invalid: list[int] = Field(
        default=[0, 1, 3, 8, 9, 10], description="SCL values that are not ground"
    )
    dilate: float = Field(
        default=0,
        ge=0,
        le=500,
        description="Metres by which invalid cloud, shadow and cirrus (3, 8, 9, 10) grow; "
        "nodata and saturated pixels do not",
    )
    required: bool = Field(
        default=True, description="Leave out scenes without SCL; false uses them unmasked"
    )

    @field_validator("invalid")
    @classmethod
    def _classes_exist(cls, invalid: list[int]) -> list[int]:
        if any(not 0 <= value <= _LARGEST_CLASS for value in invalid):
            raise ValueError(f"{invalid}: SCL's classes go from 0 to {_LARGEST_CLASS}")
        return invalid

    @property
    def bands(self) -> list[str]:
        """What it reads."""
        return ["scl"]

    def reach(self, resolution: float) -> int:
        """Pixels of the target grid beyond a tile that its result can depend on."""
        return _whole(self.dilate / resolution)


class CloudMask(_MaskSection):
    """Cloud probability, and dark pixels that lie where clouds throw their shadows.

    The rule with which GlobalUrbanMapper's composites were made; see `mapper.cube.masks.clouds`.
    """

    kind: Literal["clouds"]
    probability: float = Field(
        default=50, ge=0, le=100, description="Per cent above which a pixel is cloud"
    )
    shadow_nir: float = Field(
        default=0.15, ge=0, le=1, description="Near-infrared reflectance below which land is dark"
    )
    shadow_distance: float = Field(
        default=1000, ge=0, le=10_000, description="Metres from a cloud to the end of its shadow"
    )
    erode: int = Field(
        default=2, ge=0, le=20, description="Pixels of `resolution` by which specks are worn away"
    )
    dilate: float = Field(
        default=50,
        ge=0,
        le=500,
        description="The buffer of the published rule, which grows cloud and shadow by twice as "
        "many metres: 50 is a disc of 5 pixels of 20 m",
    )
    resolution: float = Field(default=20, ge=1, le=100, description="Metres the rule works at")
    required: bool = Field(
        default=True,
        description="Leave out scenes without cloud probability; false uses them unmasked",
    )

    @property
    def bands(self) -> list[str]:
        """What it reads; `scl` names the water, and green does so where there is no scl."""
        return ["clp", "nir", "green", "scl"]

    @property
    def growth(self) -> float:
        """Radius in metres by which cloud and shadow grow in the end."""
        return 2 * self.dilate

    def block(self, resolution: float) -> int:
        """Side in target pixels of the square that the rule sees as one; 1 on coarser grids."""
        return max(1, math.floor(self.resolution / resolution + 0.5))

    def reach(self, resolution: float) -> int:
        """Pixels of the target grid beyond a tile that its result can depend on."""
        block = self.block(resolution)
        seen = block * resolution
        radii = (self.growth, self.erode * self.resolution, self.shadow_distance)
        return block * sum(_whole(radius / seen) for radius in radii) + block - 1


class ModelMask(_MaskSection):
    """Classes of a model that are not ground."""

    kind: Literal["model"]
    model: str = Field(min_length=1, description="Model folder")
    invalid: list[str] = Field(min_length=1, description="Its classes that are not ground")
    dilate: float = Field(
        default=0, ge=0, le=500, description="Metres by which pixels of these classes grow"
    )

    @property
    def bands(self) -> list[str]:
        """None of its own: the model's card names them."""
        return []

    def reach(self, resolution: float) -> int:
        """0: the masker that runs the model knows, `dilate` included."""
        return 0


def _kind_of(value: Any) -> Any:
    """A mapping without a kind is a mask by SCL, as recipes have always written it."""
    if isinstance(value, dict):
        return value.get("kind", "scl")
    return getattr(value, "kind", None)


Mask = Annotated[
    Annotated[SclMask, Tag("scl")]
    | Annotated[CloudMask, Tag("clouds")]
    | Annotated[ModelMask, Tag("model")],
    Discriminator(
        _kind_of,
        custom_error_type="mask_kind",
        custom_error_message="unknown kind of mask; write kind: scl, clouds or model",
    ),
]


def _whole(pixels: float) -> int:
    """Rounded up, but for what arithmetic leaves over."""
    return math.ceil(pixels - 1e-9)
