"""How many looks at the ground become one, as a recipe says it."""

from typing import Literal

from pydantic import Field, model_validator

from mapper.recipe.section import Section

Method = Literal["median", "medoid", "geomedian", "mean", "percentiles", "best"]

FARTHEST = 180
"""Pixels over which the distance to a masked pixel can count."""
MADS = ("emad", "smad", "bcmad")
"""Median absolute deviations from a geometric median: Euclidean, spectral, Bray-Curtis."""


class BestScore(Section):
    """What makes a pixel of one date better than that of another; each part weighs in."""

    day: int | None = Field(
        default=None, ge=1, le=366, description="Wanted day of the year; any where empty"
    )
    spread: float = Field(default=45, gt=0, description="Days: one sigma around the wanted day")
    clouds: float = Field(default=1, ge=0, description="Weight of the scene's cloud cover")
    distance: float = Field(
        default=500,
        ge=0,
        le=2000,
        description="Metres from a masked pixel over which the score rises; 0 ignores it",
    )
    greenness: float = Field(default=0, description="Weight of NDVI")


class Compositing(Section):
    """The reducer of a source, and what is kept beside its result."""

    method: Method = Field(
        default="median",
        description="`median`, `mean` and `percentiles` go band by band; `medoid`, `geomedian` "
        "and `best` keep the bands of a pixel together",
    )
    percentiles: list[float] = Field(
        default=[10, 50, 90], description="Per cent; for `percentiles`: bands such as red_p10"
    )
    mads: bool = Field(
        default=False, description="With `geomedian`: its three median absolute deviations"
    )
    dates: bool = Field(
        default=False,
        description="The date of each pixel: of the chosen look, or of the look nearest to the "
        "composite",
    )
    score: BestScore = Field(default=BestScore(), description="For `best`")

    @model_validator(mode="after")
    def _parts_fit(self) -> "Compositing":
        if self.mads and self.method != "geomedian":
            raise ValueError("mads are those of a geomedian; set method: geomedian")
        if any(not 0 <= p <= 100 for p in self.percentiles) or not self.percentiles:
            raise ValueError(f"percentiles {self.percentiles}: give some of 0 to 100")
        if any(round(p, 4) != p for p in self.percentiles):
            raise ValueError(f"percentiles {self.percentiles}: give at most four decimals")
        if len({f"{p:g}" for p in self.percentiles}) < len(self.percentiles):
            raise ValueError(f"percentiles {self.percentiles}: one is there twice")
        if self.dates and self.method in {"mean", "percentiles"}:
            raise ValueError(f"{self.method} shows no date; set dates: false")
        return self

    def layers(self, bands: list[str]) -> list[str]:
        """Names of the bands that are stored for so many bands of a scene."""
        if self.method != "percentiles":
            return bands
        return [f"{band}_p{p:g}".replace(".", "_") for band in bands for p in self.percentiles]
