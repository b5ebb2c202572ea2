"""Recipes: which sources, bands, composites and model make a product. Data only.

A recipe is a YAML file under `pipelines/` or any path. Unknown keys are refused.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mapper.errors import RecipeError

EARTH_SEARCH = "https://earth-search.aws.element84.com/v1"
PLANETARY_COMPUTER = "https://planetarycomputer.microsoft.com/api/stac/v1"

Resampling = Literal["nearest", "bilinear", "average"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bands(_Section):
    """Which bands a source must and may give, by their common names."""

    required: list[str] = []
    optional: list[str] = []

    @property
    def all(self) -> list[str]:
        """Required bands first."""
        return [*self.required, *self.optional]


class _Source(_Section):
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


class SclMask(_Section):
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
    collections: list[str] = ["sentinel-2-l2a"]
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
    collections: list[str] = ["sentinel-1-rtc"]
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
    collections: list[str] = ["nasadem", "cop-dem-glo-30"]
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


class Predict(_Section):
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
    mode: Literal["core", "blend"] | None = None
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    """A source as it is ingested."""

    name: str
    """Of its arrays in the cube."""
    source: "Source"
    slot: str
    """Which of the model's layers it fills; seasons that are mapped apart share one."""
    season: str = ""
    known_as: str = ""
    """The source's name in the recipe, where it is another."""
    suffix: str = ""

    def band(self, name: str) -> str:
        """How a model knows a band: `sentinel2:red`, or stacked `sentinel2:red_spring`."""
        return f"{self.known_as or self.name}:{name}{self.suffix}"


class Recipe(_Section):
    """A product: sources, model and how they meet."""

    name: str
    title: str
    description: str = ""
    license: str = Field(default="other", description="Licence of the product (SPDX or `other`)")
    resolution: float = Field(gt=0, lt=100_000, description="Metres per pixel")
    sources: dict[str, Source] = Field(min_length=1)
    seasons: dict[str, list[int]] = Field(
        default={"winter": [12, 1, 2], "spring": [3, 4, 5], "summer": [6, 7, 8]}
        | {"autumn": [9, 10, 11]},
        description="Months of each season, for sources with `seasons: true`",
    )
    model: str = Field(description="Name of a model folder, or a path to one")
    predict: Predict = Predict()

    @field_validator("name")
    @classmethod
    def _name_is_a_slug(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            raise ValueError(f"{name!r}: use lower-case letters, digits and single hyphens")
        return name

    @field_validator("sources")
    @classmethod
    def _sources_are_names(cls, sources: dict[str, Source]) -> dict[str, Source]:
        for name in sources:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"source {name!r}: use lower-case letters, digits and _")
        return sources

    def with_catalog(self, catalog: str) -> "Recipe":
        """The recipe with every source read from one catalog."""
        sources = {n: s.model_copy(update={"catalog": catalog}) for n, s in self.sources.items()}
        return self.model_copy(update={"sources": sources})

    @field_validator("seasons")
    @classmethod
    def _seasons_are_months(cls, seasons: dict[str, list[int]]) -> dict[str, list[int]]:
        for name, months in seasons.items():
            if not re.fullmatch(r"[a-z][a-z0-9]*", name):
                raise ValueError(f"season {name!r}: use lower-case letters and digits")
            if not months or any(not 1 <= month <= 12 for month in months):
                raise ValueError(f"season {name!r} has months {months}; give some of 1 to 12")
        return seasons

    @model_validator(mode="after")
    def _over_has_what_it_needs(self) -> "Recipe":
        seasonal = any(getattr(s, "seasons", False) for s in self.sources.values())
        if self.predict.over == "season" and not seasonal:
            raise ValueError("predict.over is season, but no source has `seasons: true`")
        apart = self.predict.over != "composite"
        if apart and (self.predict.entropy or self.predict.probabilities):
            raise ValueError("predict.entropy and probabilities are for predict.over: composite")
        for name, source in self.sources.items():
            if getattr(source, "seasons", False) and getattr(source, "months", []):
                raise ValueError(f"source {name!r}: give months or seasons, not both")
        names = [c.name for c in self.composites]
        if len(set(names)) < len(names):
            raise ValueError(f"two sources would both be called one of {sorted(names)}")
        if self.predict.over == "scene":
            if not any(s.kind == "sentinel-2" for s in self.sources.values()):
                raise ValueError("predict.over is scene, but no source is sentinel-2")
            if seasonal:
                raise ValueError("predict.over is scene; take `seasons: true` out of the sources")
        return self

    @property
    def composites(self) -> tuple[Composite, ...]:
        """What is ingested: the sources, those with seasons once for each of them."""
        found: list[Composite] = []
        for name, source in self.sources.items():
            if not getattr(source, "seasons", False):
                found.append(Composite(name=name, source=source, slot=name))
                continue
            for season, months in self.seasons.items():
                one = source.model_copy(update={"months": months})
                stacked = self.predict.over != "season"
                found.append(
                    Composite(
                        name=f"{name}_{season}",
                        source=one,
                        slot=f"{name}_{season}" if stacked else name,
                        season=season,
                        known_as=name,
                        suffix=f"_{season}" if stacked else "",
                    )
                )
        return tuple(found)

    @property
    def digest(self) -> str:
        """Hash of everything in the recipe."""
        return digest_of(self.model_dump(mode="json"))


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, keys sorted."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def layers_of(source: Source) -> list[str]:
    """Names of the bands that a source stores in the cube."""
    return source.layers if isinstance(source, Sentinel1Source) else source.bands.all


def load_recipe(name: str) -> Recipe:
    """A recipe by the name of a shipped one, or by path.

    Raises: RecipeError with every problem of the file.
    """
    path = _find_recipe(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Recipe.model_validate(content)
    except OSError as reason:
        raise RecipeError(f"{path} cannot be read: {reason.strerror}") from reason
    except (yaml.YAMLError, UnicodeDecodeError) as reason:
        raise RecipeError(f"{path} is no YAML: {reason}") from reason
    except ValidationError as reason:
        problems = "; ".join(_problem(e) for e in reason.errors(include_url=False))
        raise RecipeError(f"{path}: {problems}") from reason


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "recipe"
    what = "unknown key; remove it" if error["type"] == "extra_forbidden" else error["msg"]
    return f"{where}: {what}"


def data_directory(kind: Literal["pipelines", "models"]) -> Path:
    """The folder of shipped recipes or models, in a checkout or an installed wheel."""
    package = Path(str(files("mapper")))
    installed = package / "_data" / kind
    return installed if installed.is_dir() else package.parent / kind


def shipped_recipes() -> list[Path]:
    """Recipes that come with mapper."""
    return sorted(data_directory("pipelines").glob("*.yaml"))


def _find_recipe(name: str) -> Path:
    if re.fullmatch(r"[A-Za-z0-9-]+", name):
        path = data_directory("pipelines") / f"{name}.yaml"
        if path.is_file():
            return path
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    known = ", ".join(p.stem for p in shipped_recipes())
    raise RecipeError(f"no recipe {name!r}; shipped are {known}; or give a path to a .yaml file")
