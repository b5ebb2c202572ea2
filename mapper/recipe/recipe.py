"""A whole recipe: sources, model, training and how they meet."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator, model_validator

from mapper.recipe.compositing import FARTHEST
from mapper.recipe.gates import Gates
from mapper.recipe.predict import Predict
from mapper.recipe.section import Section
from mapper.recipe.sources import ImagerySource, Sentinel2Source, Source
from mapper.recipe.training import Train
from mapper.terms import Use


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


class Recipe(Section):
    """A product: sources, model and how they meet."""

    name: str
    title: str
    description: str = ""
    license: str = Field(
        default="other",
        description="Licence of the product (SPDX or `proprietary`); `other` leaves it to the "
        "sources, and one that their terms forbid is refused",
    )
    use: Use = Field(
        default="any",
        description="What the maps are for: `any` is commercial use too; non-commercial sources "
        "need `non-commercial`; maps for `internal` use may not be published",
    )
    resolution: float = Field(gt=0, lt=100_000, description="Metres per pixel")
    sources: dict[str, Source] = Field(min_length=1)
    seasons: dict[str, list[int]] = Field(
        default={"winter": [12, 1, 2], "spring": [3, 4, 5], "summer": [6, 7, 8]}
        | {"autumn": [9, 10, 11]},
        description="Months of each season, for sources with `every: season`",
    )
    model: str = Field(description="Name of a model folder, or a path to one")
    predict: Predict = Predict()
    gates: Gates = Field(
        default=Gates(), description="What a finished map has to pass before it is the latest"
    )
    train: Train | None = Field(default=None, description="How a model for it is trained")

    @field_validator("name")
    @classmethod
    def _name_is_a_slug(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
            raise ValueError(f"{name!r}: use lower-case letters, digits and single hyphens")
        return name

    @field_validator("license")
    @classmethod
    def _license_can_be_written(cls, license: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9.+-]*", license):
            raise ValueError(f"{license!r}: write it as SPDX does, such as CC-BY-4.0, or `other`")
        return license

    @field_validator("sources")
    @classmethod
    def _sources_are_names(cls, sources: dict[str, Source]) -> dict[str, Source]:
        for name in sources:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"source {name!r}: use lower-case letters, digits and _")
        return sources

    def with_catalog(self, catalog: str) -> "Recipe":
        """The recipe with every source read from one catalog."""
        sources = {n: _read_from(s, catalog) for n, s in self.sources.items()}
        return self.model_copy(update={"sources": sources})

    def with_scenes(self, most: int) -> "Recipe":
        """The recipe with another limit of scenes per MGRS tile."""
        limit = {"scenes_per_tile": most}
        sources = {
            n: s.model_copy(update=limit) if isinstance(s, Sentinel2Source) else s
            for n, s in self.sources.items()
        }
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
        parted = [n for n, s in self.sources.items() if parts_of(s, self.seasons)]
        if self.predict.over == "season" and not parted:
            raise ValueError("predict.over is season, but no source has `every: season`")
        apart = self.predict.over != "composite"
        if apart and (self.predict.entropy or self.predict.probabilities):
            raise ValueError("predict.entropy and probabilities are for predict.over: composite")
        for name in parted:
            if getattr(self.sources[name], "months", []):
                raise ValueError(f"source {name!r}: give `months` or `every`, not both")
        names = [c.name for c in self.composites]
        if len(set(names)) < len(names):
            raise ValueError(f"two sources would both be called one of {sorted(names)}")
        for name, source in self.sources.items():
            if not isinstance(source, Sentinel2Source) or source.composite.method != "best":
                continue
            if source.composite.score.distance > FARTHEST * self.resolution:
                raise ValueError(
                    f"source {name!r}: score.distance is {source.composite.score.distance:g} m, "
                    f"and at {self.resolution:g} m at most {FARTHEST * self.resolution:g} can count"
                )
        if self.predict.over == "scene":
            if not any(s.kind == "sentinel-2" for s in self.sources.values()):
                raise ValueError("predict.over is scene, but no source is sentinel-2")
            if parted:
                raise ValueError("predict.over is scene; take `every` out of the sources")
        return self

    @property
    def composites(self) -> tuple[Composite, ...]:
        """What is ingested: the sources, those with seasons once for each of them."""
        found: list[Composite] = []
        for name, source in self.sources.items():
            parts = parts_of(source, self.seasons)
            if not parts:
                found.append(Composite(name=name, source=source, slot=name))
            for season, months in parts.items():
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
        """Hash of everything in the recipe that a product depends on, its terms included.

        It begins a new version where it changes; pixels have digests of their own, in which
        neither licence nor use have a part.
        """
        return digest_of(self.model_dump(mode="json", exclude={"train", "gates"}))


def _read_from(source: Source, catalog: str) -> Source:
    """A source with another catalog, which a service of tiles does not have."""
    no_tiles = {"tiles": None} if isinstance(source, ImagerySource) else {}
    return source.model_copy(update={"catalog": catalog} | no_tiles)


def parts_of(source: Source, seasons: Mapping[str, list[int]]) -> Mapping[str, list[int]]:
    """Months of each part of the period that a source is composed for; none where it is whole."""
    every = getattr(source, "every", "period")
    if every == "season":
        return seasons
    if every == "quarter":
        return {f"q{q}": [3 * q - 2, 3 * q - 1, 3 * q] for q in range(1, 5)}
    return {f"m{m:02d}": [m] for m in range(1, 13)} if every == "month" else {}


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value, keys sorted."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
