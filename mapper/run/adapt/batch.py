"""`mapper adapt`: a network learns a place without labels: a folder of images, or whole cities.

```
OUT/                    a folder of images: the adaptation itself, see `training.adapt.driver`
OUT/model/              and its model folder

OUT/adapt.json          cities: what is adapted to what, and how each city ended
OUT/source/             the training on the source, where no weights were given
OUT/source-model/       of areas that are not mapped yet: the model of their first maps
OUT/maps/               and these maps, a run's folder
OUT/cities/<slug>/      each city's own model, see `adaptcity`
OUT/together/           or one model of all of them
```
"""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapper.cluster.factory import open_cluster
from mapper.cluster.options import ClusterOptions
from mapper.errors import DataError, StoreError, UsageError
from mapper.events import Event, Listener, ignore
from mapper.recipe.settings import train_section
from mapper.run.adapt.checks import check_source, chosen_areas, open_images, open_judge
from mapper.run.adapt.city import (
    CityAdapted,
    CityWork,
    adapt_in_turn,
    adapt_side_by_side,
    changed_share,
    export_once,
    is_pinned,
    keep_adapted,
    pinned,
    read_adapted,
    told_reason,
)
from mapper.run.adapt.claim import SUMMARY, check_free, claim_of
from mapper.run.adapt.maps import (
    MapWishes,
    area_file,
    check_same_recipe,
    is_latest,
    map_areas,
    map_city,
    year_of,
)
from mapper.run.adapt.request import (
    AdaptRequest,
    CitiesReport,
    Kind,
    check_options,
    check_several,
    settled,
)
from mapper.run.adapt.target import check_cube
from mapper.run.adapt.together import TOGETHER, check_learned, keep_learned, wait_for_learned
from mapper.run.chosen import latest_versions
from mapper.run.layout import Version
from mapper.run.lock import hold_folder
from mapper.run.samples.cut import open_cube
from mapper.store.files import write_json
from mapper.training.trainer import first_process

if TYPE_CHECKING:
    from mapper.training.adapt.driver import AdaptReport

_SOURCE = "source"
_SOURCE_MODEL = "source-model"
_MAPS = "maps"


# a folder of images ------------------------------------------------------------------------


def adapt_images(request: AdaptRequest, listener: Listener = ignore) -> "AdaptReport":
    """Adapt to a folder of images and write the model folder.

    Raises: MapperError; LockedError where another process works in the folder.
    """
    from mapper.training.adapt.driver import SOURCE, AdaptOptions, adapt_model

    check_options(request)
    options = AdaptOptions(
        recipe=request.recipe,
        source=request.source,
        target=open_images(request),
        out=request.out,
        start=request.start,
        judge=open_judge(request),
        workers=request.workers or 0,
        device=request.device,
        devices=request.devices,
    )
    if not first_process():
        return adapt_model(options)
    if not (request.out / SUMMARY).exists():
        check_free(request.out, (".lock", SOURCE))
    check_source(request)
    with hold_folder(request.out):
        report = adapt_model(options, listener)
        if report.finished:
            export_once(request.out, request.out / "model", f"{request.recipe.name}-adapted")
        return report


# cities ------------------------------------------------------------------------------------


def adapt_cities(request: AdaptRequest, listener: Listener = ignore) -> CitiesReport:
    """Adapt to mapped cities, each alone or all together, and map them by what was learned.

    Goes on where it was stopped; a finished city is not looked at again. A further process of one
    model learns it along and does nothing else.

    Raises: UsageError, DataError and RecipeError before a pixel is read; LockedError where
        another process works in the folder.
    """
    began = time.monotonic()
    request = settled(request)
    kind, out = check_options(request), request.out.resolve()
    with ExitStack() as stack:
        batch = Batch(request=request, out=out, listener=listener, stack=stack, kind=kind)
        cities = batch.cities() if first_process() else batch.along()
    seconds = round(time.monotonic() - began, 1)
    return CitiesReport(out=out, run=batch.run, cities=cities, seconds=seconds)


@dataclass(slots=True, kw_only=True)
class Batch:
    """The steps of an adaptation to several cities."""

    request: AdaptRequest
    out: Path
    listener: Listener
    stack: ExitStack
    """Of the folder's holder: what is opened here is closed with it."""
    kind: Kind
    lost: list[CityAdapted] = field(default_factory=list)
    """Cities that cannot be adapted to."""
    versions: dict[str, Version] = field(default_factory=dict)
    """Whose imagery is learned of each city."""
    areas: dict[str, Path] = field(default_factory=dict)
    """File with the area of each city."""
    _client: Any = None

    @property
    def run(self) -> Path:
        """Folder of the maps."""
        return self.out / _MAPS if self.kind == "areas" else self.request.target.resolve()

    @property
    def wishes(self) -> MapWishes:
        """What maps are made with."""
        request = self.request
        return MapWishes(
            run=self.run,
            recipe=request.recipe,
            recipe_name=request.recipe_name,
            aoi=request.target if self.kind == "areas" else request.aoi,
            year=request.year,
            catalog=request.catalog,
            max_scenes=request.max_scenes,
            model=request.model,
            device=request.device,
            tile_size=request.tile_size,
            allow_missing=request.allow_missing,
        )

    def folder(self, slug: str) -> Path:
        """Of a city."""
        return self.out / "cities" / slug

    def client(self) -> Any:
        """The one cluster of it all, opened when it is first needed."""
        if self._client is None:
            wanted = ClusterOptions(where=self.request.cluster, workers=self.request.workers)
            opened = open_cluster(wanted)
            self._client = self.stack.enter_context(opened)
            message = f"dashboard {self._client.dashboard_link}"
            self.listener(Event(kind="run", message=message))
        return self._client

    def give_up(self, slug: str, state: str, reason: str) -> None:
        """A city that stops no other."""
        self.lost.append(CityAdapted(slug=slug, state=state, reason=reason))
        event = Event(kind="city", stage="adapt", state="failed", city=slug, message=reason)
        self.listener(event)

    def cities(self) -> tuple[CityAdapted, ...]:
        """How every city ended, by slug; those of earlier starts stay noted in the folder."""
        areas = chosen_areas(self.request) if self.kind == "areas" else {}
        versions = self.usable(self.latest()) if self.kind == "run" else []
        check_source(self.request)
        claim, before = claim_of(self.request, self.out, self.kind, areas)
        self.stack.enter_context(hold_folder(self.out))
        write_json(self.out / SUMMARY, claim | {"cities": before})
        cities = self.adapted(self.mapped(list(areas)) if self.kind == "areas" else versions)
        if self.request.predict:
            cities = [self.predicted(city) for city in cities]
        found = tuple(sorted([*cities, *self.lost], key=lambda city: city.slug))
        told = {city["slug"]: city for city in [*before, *map(asdict, found)]}
        write_json(self.out / SUMMARY, claim | {"cities": [told[slug] for slug in sorted(told)]})
        return found

    def along(self) -> tuple[CityAdapted, ...]:
        """A further process of one model: it learns by the versions that the first writes down."""
        if not self.request.together:
            return ()
        if self.kind == "areas" and self.request.start is None:
            self.source()
        start = self._start()
        versions = wait_for_learned(self.out / TOGETHER, self.run)
        self.versions = {version.slug: version for version in versions}
        works = [replace(work, start=start) for work in self._works()]
        return tuple(adapt_in_turn(works, ignore))

    # what is adapted to

    def latest(self) -> list[Version]:
        """Of the cities that were asked for, or the one that was named. Raises: UsageError."""
        found = latest_versions(self.run, self.request.cities, self.request.product)
        if self.request.version is None:
            return found
        named = [latest.numbered(self.request.version) for latest in found]
        if not all(version.published for version in named):
            raise UsageError(f"{named[0].key} is not finished; run it again, or name another")
        return named

    def usable(self, versions: Sequence[Version]) -> list[Version]:
        """Versions that are pinned, whose cubes have the bands. Raises: UsageError, DataError."""
        train = train_section(self.request.recipe)
        needed = train.bands if train.required is None else train.required
        found, refused = [], []
        for latest in versions:
            version = pinned_before(self.folder(latest.slug), latest)
            if self.request.version not in (None, version.number):
                raise UsageError(
                    f"{self.folder(latest.slug)} was begun with {version.key}, and not with "
                    f"{latest.key}; name another --out"
                )
            try:
                check_cube(open_cube(version), needed)
            except (DataError, StoreError) as reason:
                refused.append((version.slug, reason))
                continue
            found.append(version)
        if refused and (self.request.together or not found):
            raise refused[0][1]
        check_several(len(found), self.request.together)
        if self.request.together:
            check_learned(self.out / TOGETHER, found)
        if self.request.predict and self.kind == "run":
            for version in found:
                check_same_recipe(self.wishes, version)
        for slug, refusal in refused:
            self.give_up(slug, "failed", str(refusal))
        return found

    def mapped(self, slugs: Sequence[str]) -> list[Version]:
        """Areas mapped by the source's model, where they were not before."""
        todo = [slug for slug in slugs if not is_pinned(self.folder(slug))]
        if todo:
            start = self.request.start or self.source()
            model = self.out / _SOURCE_MODEL
            export_once(start, model, f"{self.request.recipe.name}-source")
            year = self.request.mapped_year
            options = self.wishes.options(self.request.target, year, str(model))
            options = replace(options, cluster=self.address())
            for slug, reason in map_areas(options, todo, self.listener).items():
                self.give_up(slug, "not mapped", reason)
        gone = {city.slug for city in self.lost}
        left = [slug for slug in slugs if slug not in gone]
        return self.usable(latest_versions(self.run, left, None)) if left else []

    def address(self) -> str:
        """Of the scheduler, for runs."""
        return str(self.client().scheduler.address)

    def source(self) -> Path:
        """The training on the source alone; does nothing where it is done."""
        from mapper.training.train import TrainOptions, train_model

        folder = self.out / _SOURCE
        train_model(
            TrainOptions(
                recipe=self.request.recipe,
                data=self.request.source,
                out=folder,
                device=self.request.device,
                devices=self.request.devices,
            ),
            self.listener,
        )
        return folder

    # learning

    def adapted(self, versions: Sequence[Version]) -> list[CityAdapted]:
        """Each city's model, or the one of all of them; failures are told apart."""
        for version in versions:
            self.versions[version.slug] = pinned(self.folder(version.slug), version)
            if self.request.predict:
                folder = self.folder(version.slug)
                self.areas[version.slug] = area_file(self.wishes, version, folder)
        if self.request.together and versions:
            keep_learned(self.out / TOGETHER, list(self.versions.values()))
        works = self._works()
        before = list(adapt_in_turn([w for w in works if w.finished], self.listener))
        todo = [work for work in works if not work.finished]
        if todo:
            start = self._start()
            todo = [replace(work, start=start) for work in todo]
        cities = [*before, *self._learned(todo)]
        if self.request.together:
            cities = [replace(done, slug=slug) for done in cities for slug in self.versions]
        self.lost += [city for city in cities if not city.good]
        return [city for city in cities if city.good]

    def _learned(self, works: Sequence[CityWork]) -> list[CityAdapted]:
        alone = self.request.workers is None and self.request.cluster == "local"
        if alone or self.request.together or not works:
            return list(adapt_in_turn(works, self.listener))
        return list(adapt_side_by_side(works, self.client(), self.listener))

    def _works(self) -> list[CityWork]:
        request = self.request
        common: dict[str, Any] = {
            "recipe": request.recipe,
            "source": request.source.resolve(),
            "start": None,
            "out": self.out,
            "device": request.device,
        }
        versions = tuple(self.versions.values())
        if request.together and versions:
            common |= {"devices": request.devices, "workers": request.workers or 0}
            folder = self.out / TOGETHER
            return [CityWork(slug=TOGETHER, folder=folder, versions=versions, **common)]
        if request.workers and request.cluster == "local":
            # Dask gives its processes a thread each, whatever is left over
            common["threads"] = max(1, (os.cpu_count() or 1) // request.workers)
        return [
            CityWork(slug=v.slug, folder=self.folder(v.slug), versions=(v,), **common)
            for v in versions
        ]

    def _start(self) -> Path | None:
        """Weights of the source, learned once for all cities."""
        if self.request.start is not None:
            return self.request.start.resolve()
        if train_section(self.request.recipe).adapt.start == "scratch":
            return None
        return self.source()

    # maps

    def predicted(self, city: CityAdapted) -> CityAdapted:
        """A city with its map by its own model; what is there is not made again."""
        version, folder = self.versions[city.slug], self.folder(city.slug)
        known = read_adapted(folder)
        if known and known.map and is_latest(self.run, version, known.map):
            return replace(city, map=known.map, changed=known.changed)
        options = self.wishes.options(
            self.areas[city.slug], year_of(version), str(self.out / city.model)
        )
        try:
            made = map_city(replace(options, cluster=self.address()), city.slug, self.listener)
            path = str(made.product_folder.relative_to(made.root))
            done = replace(city, map=path, changed=changed_share(version, made))
        # the model is there; its map can be made by running again, whatever GDAL calls its failure
        except Exception as error:
            reason = told_reason(city.slug, error)
            return replace(city, state="failed", reason=f"its map failed: {reason}")
        keep_adapted(folder, replace(done, state="adapted"))
        return done


def pinned_before(folder: Path, latest: Version) -> Version:
    """The version that a city was begun with, or the latest; pins nothing."""
    return pinned(folder, latest) if is_pinned(folder) else latest
