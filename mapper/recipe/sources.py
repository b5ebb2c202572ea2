"""Sources of a recipe: what a collection is, as data."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mapper.recipe.compositing import Compositing
from mapper.recipe.masks import Mask, SclMask
from mapper.recipe.section import Section
from mapper.recipe.tiles import TileService

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
    failure_budget: float = Field(
        default=0,
        ge=0,
        le=1,
        description="Share of a tile's scenes that may be left out because they cannot be read; "
        "more stop the tile. Of a source that is not optional, a pixel that only they could have "
        "given stops the product, unless --allow-missing",
    )
    license: str | None = Field(
        default=None, description="SPDX, where mapper does not know the collection"
    )
    attribution: str | None = Field(default=None, description="Likewise")
    terms_url: str | None = Field(default=None, description="Likewise")


class _Dated(_Source):
    months: list[int] = Field(
        default=[], description="Months of the period to use, 1 to 12; all where empty"
    )
    orbit_state: Literal["ascending", "descending"] | None = Field(
        default=None, description="Scenes of this direction alone"
    )
    platforms: list[str] = Field(
        default=[], description="Scenes of these satellites alone, e.g. sentinel-2a"
    )
    every: Literal["period", "season", "quarter", "month"] = Field(
        default="period",
        description="One composite of the whole period, or one for each of the recipe's seasons, "
        "each quarter (q1 to q4) or month (m01 to m12)",
    )

    @field_validator("months")
    @classmethod
    def _months_exist(cls, months: list[int]) -> list[int]:
        if any(not 1 <= month <= 12 for month in months):
            raise ValueError(f"{months}: months go from 1 to 12")
        return months


class Sentinel2Source(_Dated):
    """Optical composite: reflectance over the period by one reducer, with a count."""

    kind: Literal["sentinel-2"]
    catalog: str = EARTH_SEARCH
    collections: list[str] = Field(default=["sentinel-2-l2a"])
    bands: Bands = Bands(required=["red", "green", "nir"], optional=["blue", "swir16"])
    mask: Mask | None = SclMask()
    composite: Compositing = Compositing()
    indices: list[str] = Field(
        default=[], description="Indices of the composite, e.g. ndvi; a model reads them as bands"
    )
    max_cloud_cover: float = Field(default=60, ge=0, le=100, description="Per cent, of a scene")
    scenes_per_tile: int = Field(
        default=24,
        ge=1,
        description="Scenes kept per MGRS tile: those that add most clear coverage, month by month",
    )
    resampling: Resampling = "bilinear"

    @model_validator(mode="after")
    def _reducer_has_what_it_needs(self) -> "Sentinel2Source":
        method = self.composite.method
        if method == "geomedian" and self.bands.optional:
            raise ValueError(
                f"a geomedian needs every band of a look; make {self.bands.optional} required, or "
                "leave them out"
            )
        if method == "percentiles" and self.indices:
            raise ValueError("indices are those of one composite; leave them or percentiles out")
        lacking = {"nir", "red"} - set(self.bands.required)
        if method == "best" and self.composite.score.greenness and lacking:
            needed = ", ".join(sorted(lacking))
            raise ValueError(f"score.greenness needs {needed} as required bands")
        if len(set(self.indices)) < len(self.indices):
            raise ValueError(f"indices {self.indices}: one is there twice")
        return self


class Sentinel1Source(_Dated):
    """Radar backscatter: VV and VH mean in linear power, stored in dB."""

    kind: Literal["sentinel-1"]
    catalog: str = PLANETARY_COMPUTER
    collections: list[str] = Field(default=["sentinel-1-rtc"])
    bands: Bands = Bands(required=["vv", "vh"])
    speckle: int = Field(
        default=0,
        ge=0,
        le=15,
        description="Side of the window of a multitemporal speckle filter, odd pixels; 0 is off",
    )
    orbits: Literal["together", "apart"] = Field(
        default="together",
        description="`apart` gives vv_ascending, vh_ascending, vv_descending, vh_descending",
    )
    resampling: Resampling = "bilinear"

    @field_validator("speckle")
    @classmethod
    def _window_is_odd(cls, speckle: int) -> int:
        if speckle and speckle % 2 == 0:
            raise ValueError(f"{speckle}: a window has an odd side, e.g. 7")
        return speckle

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
    """High-resolution images: a mosaic of RGB and, where there is one, near infrared."""

    kind: Literal["imagery"]
    catalog: str = Field(
        default="",
        description="STAC API, static catalog, item collection or folder; empty with `tiles`",
    )
    tiles: TileService | None = Field(
        default=None, description="An XYZ or WMTS service instead of a catalog"
    )
    bands: Bands = Bands(required=["red", "green", "blue"], optional=["nir"])
    order: Literal["newest", "least_cloudy"] = "newest"
    ignore_period: bool = Field(default=False, description="Use images of any date")
    resampling: Resampling = Field(
        default="bilinear",
        description="`average` where images are finer than the grid, as a zoom of `tiles` can be: "
        "a level has no overviews, and bilinear would leave pixels out",
    )

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> "ImagerySource":
        if bool(self.catalog) == (self.tiles is not None):
            raise ValueError(
                "give one of catalog and tiles: where images are listed, or the service they "
                "are served by"
            )
        if self.tiles is None:
            return self
        for name in ("collections", "license", "attribution", "terms_url"):
            if getattr(self, name):
                raise ValueError(f"{name} is for a catalog; take it out, `tiles` has its own terms")
        lacking = [band for band in self.bands.required if band not in self.tiles.bands]
        if lacking:
            raise ValueError(
                f"bands.required has {lacking}, tiles.bands is {self.tiles.bands}; a tile "
                "service has no others"
            )
        return self


class LayerSource(_Source):
    """A map that others made, as class values: IO-LULC, WorldCover; nearest, never mixed."""

    kind: Literal["layer"]
    catalog: str = PLANETARY_COMPUTER
    collections: list[str] = Field(min_length=1)
    bands: Bands = Bands(required=["classes"])
    ignore_period: bool = Field(default=True, description="Use the newest map of any date")
    resampling: Literal["nearest"] = "nearest"


Source = Annotated[
    Sentinel2Source | Sentinel1Source | ElevationSource | ImagerySource | LayerSource,
    Field(discriminator="kind"),
]


def layers_of(source: Source) -> list[str]:
    """Names of the bands that a source stores in the cube."""
    if isinstance(source, Sentinel1Source):
        return source.layers
    if isinstance(source, Sentinel2Source):
        return source.composite.layers(source.bands.all)
    return source.bands.all


def sure_layers(source: Source) -> list[str]:
    """Those of them that every city of the source has."""
    if isinstance(source, Sentinel1Source) and source.orbits == "apart":
        return []
    if isinstance(source, Sentinel2Source):
        return source.composite.layers(source.bands.required)
    return source.bands.required
