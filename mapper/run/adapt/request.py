"""What `mapper adapt` is asked for, and whether it can be."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mapper.errors import DataError, MapperError, PartlyDoneError, UsageError
from mapper.recipe import Recipe
from mapper.recipe.settings import train_section
from mapper.recipe.training import Data
from mapper.run.adapt.city import CityAdapted
from mapper.training.trainer import Device

Kind = Literal["images", "run", "areas"]
_WITHIN = re.compile(r"([^/]+)(?:/([^/]+)(?:/v(\d+)(?:/(?:cube\.zarr|product))?)?)?")
"""City, product and number of a version; its cube and its map are that version."""
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
    """A folder of images, a run's folder, or a file of areas; a city's folder of a run, too."""
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
    version: int | None = None
    """Of the one city, where the target named it; the latest by default."""
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


# the target --------------------------------------------------------------------------------


def settled(request: AdaptRequest) -> AdaptRequest:
    """A request whose target is the run's folder, where it was something of one of its cities.

    Raises: UsageError where that is not a city, a product, a version, its cube or its map.
    """
    found = _inside_run(request.target)
    if found is None:
        return request
    run, within = found
    told = _WITHIN.fullmatch(within)
    if told is None:
        raise UsageError(
            f"--target {request.target} lies inside of a run; give --target {run}, and --city"
        )
    city, product, number = told.groups()
    twice = {"--city": bool(request.cities), "--product": bool(product and request.product)}
    if any(twice.values()):
        names = ", ".join(name for name, given in twice.items() if given)
        raise UsageError(f"{names}: --target {request.target} says it; give {run}, or leave it out")
    return replace(
        request,
        target=run,
        cities=(city,),
        product=product or request.product,
        version=int(number) if number else None,
    )


def _inside_run(target: Path) -> tuple[Path, str] | None:
    """The run's folder and the path below its `cities`; None for what lies in no run."""
    path = target.resolve()
    for folder in (path, *path.parents):
        within = path.relative_to(folder)
        city = within.parts[0] if within.parts else "*"
        if folder.name == "cities" and any(folder.glob(f"{city}/*/v*/version.json")):
            return folder.parent, within.as_posix() if within.parts else ""
    return None


def kind_of(target: Path) -> Kind:
    """What a target is. Raises: UsageError."""
    if target.suffix == ".zarr":
        raise UsageError(
            f"--target {target} is no cube of a run's city; give what --out of the run named, with "
            "--city"
        )
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
        "--no-predict": not request.predict,
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
    _check_folders(request, kind)
    if request.devices > 1 and kind != "images" and not request.together:
        raise UsageError("--devices is of one model; side by side goes by --cluster or --workers")
    return kind


def _check_folders(request: AdaptRequest, kind: Kind) -> None:
    """Raise DataError for one that is not there, UsageError where what is written would be read."""
    for name, path in (("--source", request.source), ("--judge", request.judge)):
        if path is not None and not path.is_dir():
            raise DataError(f"{name} {path} is no folder; name that of the labelled images")
    out = request.out.resolve()
    read = {"--source": request.source}
    if kind == "images":
        read["--target"] = request.target
    for name, path in read.items():
        if out.is_relative_to(path.resolve()):
            raise UsageError(
                f"--out {request.out} lies in {name} {path}, which would be another one as soon as "
                "anything is written; name a folder outside of it"
            )


def check_several(count: int, together: bool) -> None:
    """Raise UsageError for one model of all cities where there is one city."""
    if together and count < 2:
        raise UsageError("--together is of several cities, and there is one; leave it out")
