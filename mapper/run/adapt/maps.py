"""Maps of an adaptation: by the source's model where there are none, and by each city's own.

A map by a city's own model is the next version of the same product, so a run's folder holds the
source's map as one version and the adapted one as the next, each with its model in its item.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shapely.geometry import shape

from mapper.area.aoi import AreaOfInterest, read_areas
from mapper.cube.reduce.indices import index_layers
from mapper.errors import AreaError, HeldError, RecipeError, StoreError, UsageError
from mapper.events import Listener, ignore
from mapper.recipe import Recipe, layers_of
from mapper.recipe.settings import train_section
from mapper.run.layout import Version, all_versions, fixed_grid, latest_version
from mapper.run.plan import DEFAULT_TILE, RunRequest
from mapper.run.publish import read_item
from mapper.run.run import RunOptions, make_request, run, with_sources
from mapper.store.files import write_json
from mapper.training.trainer import Device

AREA = "aoi.geojson"


@dataclass(frozen=True, slots=True, kw_only=True)
class MapWishes:
    """What maps are made with."""

    run: Path
    """Folder of the run."""
    recipe: Recipe
    recipe_name: str
    """Name or path of the recipe, as `run` takes it."""
    aoi: Path | None = None
    """Areas; without it those of the versions."""
    year: int | None = None
    catalog: str | None = None
    max_scenes: int | None = None
    model: str | None = None
    """That the run was made with, where it is not the recipe's."""
    device: Device = "auto"
    tile_size: int | None = None
    allow_missing: bool = False

    def options(self, aoi: Path, year: int, model: str) -> RunOptions:
        """As the command line of `run`."""
        return RunOptions(
            aoi=aoi,
            year=year,
            recipe=self.recipe_name,
            model=model,
            catalog=self.catalog,
            max_scenes=self.max_scenes,
            out=self.run,
            device=self.device,
            tile_size=self.tile_size,
            allow_missing=self.allow_missing,
        )


# before anything is learned ----------------------------------------------------------------


def check_gives(recipe: Recipe) -> None:
    """Raise RecipeError where a recipe's sources do not give what its network needs."""
    train = train_section(recipe)
    given = {
        composite.band(layer)
        for composite in recipe.composites
        for layer in [*layers_of(composite.source), *index_layers(composite.source)]
    }
    needed = train.bands if train.required is None else train.required
    lacking = [band for band in needed if band not in given]
    if lacking:
        raise RecipeError(
            f"the network of recipe {recipe.name!r} needs {', '.join(lacking)}, which none of its "
            "sources gives; add them, or `--set bands=[...]` what there is"
        )


def year_of(version: Version) -> int:
    """The year that a version maps. Raises: UsageError where it maps another period."""
    properties = _properties(version)
    start, end = (str(properties[f"{name}_datetime"])[:10] for name in ("start", "end"))
    if start[4:] != "-01-01" or end != f"{start[:4]}-12-31":
        raise UsageError(
            f"{version.key} maps {start} to {end}, which is no calendar year: --no-predict, and "
            "map it by the new model yourself"
        )
    return int(start[:4])


def check_same_recipe(wishes: MapWishes, version: Version) -> None:
    """Hold the recipe against the one that a map was made by; maps of another are no next version.

    Raises: UsageError that says what to do.
    """
    year = year_of(version)
    if wishes.year not in (None, year):
        raise UsageError(f"--year is {wishes.year}, and {version.key} maps {year}")
    product = f"{wishes.recipe.name}-{year}"
    if version.product != product:
        raise UsageError(
            f"{version.key} was mapped by another recipe, and the next version by its own model "
            f"would be of {product}; adapt by the recipe that it was mapped by, choose another "
            "with --product, or --no-predict"
        )
    versions = [v for v in _all_of(version) if v.published]
    if not any(_made_by(wishes, one) for one in versions):
        raise UsageError(
            f"{version.key} was mapped by another form of recipe {wishes.recipe.name!r}; give "
            "--catalog, --max-scenes and --model as it was mapped with, or --no-predict"
        )


def _made_by(wishes: MapWishes, version: Version) -> bool:
    properties = _properties(version)
    recipe = with_sources(wishes.recipe, wishes.max_scenes, wishes.catalog)
    models = {recipe.model, str(properties["mapper:model"]["name"])}
    if wishes.model:
        models.add(wishes.model)
    made = properties["mapper:recipe"]["sha256"]
    return any(recipe.model_copy(update={"model": name}).digest == made for name in models)


def area_file(wishes: MapWishes, version: Version, folder: Path) -> Path:
    """A file with the very area of a version; written into a folder where the user names none.

    Raises: UsageError where a city's area in the user's file is another, or a version's cannot be
        written down exactly.
    """
    properties = _properties(version)
    own = AreaOfInterest(
        name=str(properties["mapper:city"]),
        slug=version.slug,
        geometry=shape(_item(version)["geometry"]),
        country=str(properties["mapper:country"]),
    )
    if wishes.aoi is not None:
        if not _holds(wishes.aoi, own):
            raise UsageError(f"{wishes.aoi} has another area for {own.slug} than {version.key}")
        return wishes.aoi
    path = folder / AREA
    about = {"name": own.name, "country": own.country}
    feature = {"type": "Feature", "properties": about, "geometry": own.to_geojson()}
    write_json(path, {"type": "FeatureCollection", "features": [feature]})
    if not _holds(path, own):
        raise UsageError(
            f"the area of {version.key} cannot be taken from its item; give the file that it was "
            "mapped with as --aoi, or --no-predict"
        )
    return path


def _holds(path: Path, own: AreaOfInterest) -> bool:
    """True where a file has the same ground under the same slug."""
    try:
        found = [area for area in read_areas(path) if area.slug == own.slug]
    except AreaError:
        return False
    return [area.digest for area in found] == [own.digest]


# maps --------------------------------------------------------------------------------------


def map_areas(
    options: RunOptions, slugs: Sequence[str], listener: Listener = ignore
) -> dict[str, str]:
    """Map cities by the source's model. Returns: those that could not be, and why."""
    report = run(replace(options, cities=tuple(slugs)), listener)
    return {result.slug: result.reason for result in report.results if not result.mapped}


def map_city(options: RunOptions, slug: str, listener: Listener = ignore) -> Version:
    """Map a city by its own model, as the next version where the latest is by another.

    Raises: MapperError.
    """
    options = replace(options, cities=(slug,))
    request = make_request(options)
    refresh = _is_other(request)
    # a map that does not pass its gates is made all the same, and its city says so
    with suppress(HeldError):
        run(replace(options, refresh=refresh), listener).check()
    version = latest_version(request.out, slug, request.product)
    if version is None or not version.published:
        raise StoreError(f"{request.out} has no map of {slug} after a run; run again")
    return version


def _is_other(request: RunRequest) -> bool:
    """True where the latest version is of something else than the request."""
    (area,) = request.areas
    latest = latest_version(request.out, area.slug, request.product)
    if latest is None:
        return False
    wanted = area.grid(request.recipe.resolution, DEFAULT_TILE)
    grid = fixed_grid(request.out, area, wanted, explicit_tile=False)
    return (latest.state() or {}).get("fingerprint") != request.fingerprint(area, grid)


def is_latest(run: Path, version: Version, path: str) -> bool:
    """True where a published map is that of the latest version of a product."""
    latest = latest_version(run, version.slug, version.product)
    if latest is None or not (latest.state() or {}).get("finished"):
        return False
    return latest.published and path == str(latest.product_folder.relative_to(latest.root))


def _all_of(version: Version) -> list[Version]:
    same = (version.slug, version.product)
    return [v for v in all_versions(version.root) if (v.slug, v.product) == same]


def _item(version: Version) -> dict[str, Any]:
    try:
        return read_item(version)
    except (OSError, json.JSONDecodeError) as reason:
        raise StoreError(f"the item of {version.key} cannot be read ({reason})") from reason


def _properties(version: Version) -> dict[str, Any]:
    return dict(_item(version)["properties"])
