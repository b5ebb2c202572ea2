"""What `mapper adapt` is asked for, whether it can be, and what its folder is then for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mapper
from mapper.errors import DataError, MapperError, PartlyDoneError, UsageError
from mapper.recipe import Recipe, digest_of
from mapper.recipe.settings import train_section
from mapper.recipe.training import Data
from mapper.run.adaptcity import CityAdapted
from mapper.store.files import sha256_of
from mapper.training.trainer import Device

Kind = Literal["images", "run", "areas"]
SUMMARY = "adapt.json"
_AREAS = {".geojson", ".json", ".gpkg", ".shp", ".parquet", ".geoparquet"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptRequest:
    """The command line of `mapper adapt`."""

    recipe: Recipe
    """With a train section as the command line changed it."""
    recipe_name: str
    """Name or path, as `run` takes it."""
    source: Path
    """Labelled images."""
    target: Path
    """A folder of images, a run's folder, or a file of areas."""
    out: Path
    start: Path | None = None
    """Weights of the source."""
    given: Data | None = None
    """How a folder of target images is laid out."""
    judge: Path | None = None
    """Labelled images of the target, for the report alone."""
    judged: Data | None = None
    """How they are laid out."""
    cities: tuple[str, ...] = ()
    product: str | None = None
    together: bool = False
    """One model for all cities."""
    predict: bool = True
    """Map each city by its own model."""
    aoi: Path | None = None
    year: int | None = None
    catalog: str | None = None
    max_scenes: int | None = None
    model: str | None = None
    """That the run was made with, where it is not the recipe's."""
    cluster: str = "local"
    workers: int | None = None
    """Cities side by side; of one model, processes that read patches."""
    device: Device = "auto"
    devices: int = 1
    tile_size: int | None = None
    allow_missing: bool = False

    @property
    def mapped_year(self) -> int:
        """Of areas that are not mapped yet. Raises: UsageError."""
        if self.year is None:
            raise UsageError("areas are mapped first: say which year with --year")
        return self.year


@dataclass(frozen=True, slots=True, kw_only=True)
class CitiesReport:
    """How the adaptation to cities ended."""

    out: Path
    run: Path
    cities: tuple[CityAdapted, ...]
    """By slug."""
    seconds: float

    def check(self) -> None:
        """Raise what the exit code says.

        Raises: PartlyDoneError where some cities are done; MapperError where none is.
        """
        bad = [city for city in self.cities if not city.good]
        if not bad:
            return
        told = "; ".join(f"{city.slug}: {city.reason}" for city in bad[:3])
        if len(bad) > 3:
            told = ", ".join(city.slug for city in bad)
        if len(bad) < len(self.cities):
            raise PartlyDoneError(f"{len(bad)} of {len(self.cities)} cities not adapted: {told}")
        raise MapperError(f"no city was adapted: {told}")


def kind_of(target: Path) -> Kind:
    """What a target is. Raises: UsageError."""
    if target.is_dir():
        return "run" if (target / "cities").is_dir() else "images"
    if target.is_file() and target.suffix.lower() in _AREAS:
        return "areas"
    raise UsageError(
        f"--target {target} is neither a folder of images, what --out of a run named, nor a file "
        f"of areas ({', '.join(sorted(_AREAS))})"
    )


def check_options(request: AdaptRequest) -> Kind:
    """Refuse options that cannot be, or would do nothing here. Raises: UsageError."""
    kind = kind_of(request.target)
    train_section(request.recipe)
    given = {
        "--city": request.cities,
        "--product": request.product,
        "--together": request.together,
        "--aoi": request.aoi,
        "--year": request.year,
        "--catalog": request.catalog,
        "--max-scenes": request.max_scenes,
        "--model": request.model,
        "--tile-size": request.tile_size,
        "--allow-missing": request.allow_missing,
        "--judge": request.judge,
        "--cluster": None if request.cluster == "local" else request.cluster,
    }
    of_no_use: dict[Kind, tuple[tuple[str, ...], str]] = {
        "images": (tuple(n for n in given if n != "--judge"), "a folder of images"),
        "areas": (("--product", "--aoi", "--model", "--judge"), "a file of areas"),
        "run": (("--judge",), "a run's folder"),
    }
    names, what = of_no_use[kind]
    wrong = [name for name in names if given[name]]
    if wrong:
        raise UsageError(f"{', '.join(wrong)}: not of a target that is {what}; leave it out")
    if kind == "areas":
        _ = request.mapped_year
    if request.devices > 1 and kind != "images" and not request.together:
        raise UsageError("--devices is of one model; side by side goes by --cluster or --workers")
    return kind


# what the folder is for --------------------------------------------------------------------


def claim_of(request: AdaptRequest, out: Path, kind: Kind) -> dict[str, Any]:
    """What the folder says of itself. Raises: UsageError where it says something else."""
    train = train_section(request.recipe)
    asked: dict[str, Any] = {
        "train": train.model_dump(mode="json"),
        "source": _source_facts(request.source),
        "start": _start_digest(request.start),
        "kind": kind,
        "target": request.target.name,
        "together": request.together,
    }
    if kind == "areas":
        # as a hash: addresses of catalogs may hold keys
        asked["maps"] = digest_of([request.year, request.catalog, request.max_scenes])
    fingerprint = digest_of(asked)
    path = out / SUMMARY
    if path.is_file():
        if read_summary(path).get("fingerprint") != fingerprint:
            raise UsageError(
                f"{out} holds another adaptation; its method, settings or data differ: name "
                "another folder"
            )
    elif out.exists() and (not out.is_dir() or any(e.name != ".lock" for e in out.iterdir())):
        raise UsageError(f"{out} is not empty and holds no adaptation; name another folder")
    return {
        "fingerprint": fingerprint,
        "recipe": {"name": request.recipe.name, "sha256": request.recipe.digest},
        "method": train.adapt.method,
        "software": {"mapper": mapper.__version__},
        **asked,
    }


def read_summary(path: Path) -> Mapping[str, Any]:
    """What a folder says of itself; nothing where it says nothing that can be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def _source_facts(source: Path) -> dict[str, str]:
    """Name of the folder, and a hash of the names and sizes of its files."""
    if not source.is_dir():
        raise DataError(f"--source {source} is no folder; name that of the labelled images")
    files = sorted(p for p in source.rglob("*") if p.is_file() and not p.name.startswith("."))
    listed = [[str(p.relative_to(source)), p.stat().st_size] for p in files]
    return {"set": source.name, "digest": hashlib.sha256(json.dumps(listed).encode()).hexdigest()}


def _start_digest(start: Path | None) -> str | None:
    from mapper.training.weights import WEIGHTS

    if start is None:
        return None
    file = start / WEIGHTS if start.is_dir() else start
    if not file.is_file():
        raise UsageError(f"--from {start} holds no weights; give a training's folder or {WEIGHTS}")
    return sha256_of(file)
