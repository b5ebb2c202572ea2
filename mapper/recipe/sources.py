"""Sources of a recipe: what a collection is, as data."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from mapper.recipe.section import Section

EARTH_SEARCH = "https://earth-search.aws.element84.com/v1"
PLANETARY_COMPUTER = "https://planetarycomputer.microsoft.com/api/stac/v1"

Resampling = Literal["nearest", "bilinear", "average"]


class Bands(Section):
    """Which bands a source must and may give, by their common names."""

    required: list[str] = Field(default=[])
    optional: list[str] = Field(default=[])

    @property
    def all(self) -> list[str]:
        """Required bands first."""
        return [*self.required, *self.optional]


class _Source(Section):
    catalog: str = Field(description="STAC API, static catalog, item collection or folder")
    collections: list[str] = Field(
        default=[], description="Collections to search; the first that has items is used"
    )
    optional: bool = Field(
        default=False, description="A city without scenes of this source is mapped without it"
    )
    on_read_error: Literal["fail", "skip"] = Field(
        default="fail",
        description="`fail` stops the tile; `skip` leaves the scene out and marks the pixels",
    )


class SclMask(Section):
    """Sentinel-2's scene classification as a mask."""

    invalid: list[int] = Field(
        default=[0, 1, 3, 8, 9, 10], description="SCL values that are not ground"
    )
    required: bool = Field(
        default=True, description="Leave out scenes without SCL; false uses them unmasked"
    )
    always_masked_share: float = Field(
        default=0.9,
        description="Pixels masked in more than this share of at least 5 scenes are kept and "
        "flagged: bright roofs are often called cloud. 1 turns it off",
        gt=0,
        le=1,
    )


class _Dated(_Source):
    months: list[int] = Field(
        default=[], description="Months of the period to use, 1 to 12; all where empty"
    )
    seasons: bool = Field(
        default=False, description="One composite for each of the recipe's seasons"
    )

    @field_validator("months")
    @classmethod
    def _months_exist(cls, months: list[int]) -> list[int]:
        if any(not 1 <= month <= 12 for month in months):
            raise ValueError(f"{months}: months go from 1 to 12")
        return months


class Sentinel2Source(_Dated):
    """Optical composite: median reflectance over the period, with an observation count."""

    kind: Literal["sentinel-2"]
    catalog: str = EARTH_SEARCH
    collections: list[str] = Field(default=["sentinel-2-l2a"])
    bands: Bands = Bands(required=["red", "green", "nir"], optional=["blue", "swir16"])
    mask: SclMask | None = SclMask()
    max_cloud_cover: float = Field(default=60, ge=0, le=100, description="Per cent, of a scene")
    scenes_per_tile: int = Field(
        default=24, ge=1, description="Least cloudy scenes kept per MGRS tile"
    )
    resampling: Resampling = "bilinear"


class Sentinel1Source(_Dated):
    """Radar backscatter: VV and VH mean in linear power, stored in dB."""

    kind: Literal["sentinel-1"]
    catalog: str = PLANETARY_COMPUTER
    collections: list[str] = Field(default=["sentinel-1-rtc"])
    bands: Bands = Bands(required=["vv", "vh"])
    orbits: Literal["together", "apart"] = Field(
        default="together",
        description="`apart` gives vv_ascending, vh_ascending, vv_descending, vh_descending",
    )
    resampling: Resampling = "bilinear"

    @property
    def layers(self) -> list[str]:
        """Names of the stored bands."""
        if self.orbits == "together":
            return self.bands.all
        return [f"{b}_{o}" for o in ("ascending", "descending") for b in self.bands.all]


class ElevationSource(_Source):
    """Elevation in metres, slope and aspect in degrees; ignores the period."""

    kind: Literal["elevation"]
    catalog: str = PLANETARY_COMPUTER
    collections: list[str] = Field(default=["nasadem", "cop-dem-glo-30"])
    bands: Bands = Bands(required=["elevation", "slope", "aspect"])
    resampling: Resampling = "bilinear"


class ImagerySource(_Source):
    """High-resolution tiles: a mosaic of RGB and, where there is one, near infrared."""

    kind: Literal["imagery"]
    bands: Bands = Bands(required=["red", "green", "blue"], optional=["nir"])
    order: Literal["newest", "least_cloudy"] = "newest"
    ignore_period: bool = Field(default=False, description="Use tiles of any date")
    resampling: Resampling = "bilinear"


Source = Annotated[
    Sentinel2Source | Sentinel1Source | ElevationSource | ImagerySource,
    Field(discriminator="kind"),
]


def layers_of(source: Source) -> list[str]:
    """Names of the bands that a source stores in the cube."""
    return source.layers if isinstance(source, Sentinel1Source) else source.bands.all
