"""A mirror: what cities need of the archives, as a local STAC catalog with its files.

A run with `--catalog MIRROR/catalog.json` finds the scenes that this search found and reads the
same bytes, so its rasters, shards and tables are the same. The last step searches the mirror for
every city and says where that is not so.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mapper.catalog.archives import terms_of
from mapper.catalog.bands import Item
from mapper.catalog.footprint import CELLS
from mapper.catalog.query import Bbox, Period
from mapper.catalog.search import search_city
from mapper.catalog.source import Catalog, ItemList, open_catalog
from mapper.errors import MapperError, NothingFoundError, PartlyDoneError, StoreError, UsageError
from mapper.events import Event, Listener, ignore
from mapper.recipe import Recipe, digest_of
from mapper.run.lock import hold_folder
from mapper.run.mirror.catalog import CATALOG
from mapper.run.mirror.plan import check_sources, wanted_items
from mapper.run.mirror.work import MirrorWork
from mapper.run.plan import CityPlan
from mapper.run.report import CityResult
from mapper.run.run import RunOptions, make_request, plan_run
from mapper.store.files import write_json
from mapper.terms import Terms

State = Literal["mirrored", "planned", "incomplete", "differs", "nothing found", "failed"]
_FACTS = "mirror.json"
"""Of which recipe's sources the mirror is: scene limits of two would mix."""
_WORLD: Bbox = (-180.0, -90.0, 180.0, 90.0)
_TOLD = 3
"""Reasons of a city that are told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorOptions:
    """The command line of `mapper mirror`."""

    run: RunOptions
    """As of `mapper run`; where its `out` holds begun versions, their frozen items are taken."""
    to: Path
    jobs: int = 8
    """Files copied at a time."""
    dry_run: bool = False


@dataclass(slots=True, kw_only=True)
class CityMirror:
    """How a city ended."""

    slug: str
    name: str
    state: State
    scenes: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorReport:
    """How a mirror ended."""

    catalog: Path
    cities: tuple[CityMirror, ...]
    files: int
    """That the cities need, each counted once."""
    held: int
    """Of them, those that were there."""
    copied: int
    copy_bytes: int
    """Copied, or to copy in a dry run, as far as hosts tell sizes."""
    unsized: int
    """Files to copy whose hosts do not tell a size."""
    free_bytes: int
    """Of the disk, before."""
    failures: tuple[str, ...]
    seconds: float

    def check(self) -> None:
        """Raise what the exit code says.

        Raises: NothingFoundError where no city has a scene; PartlyDoneError where files are
            missing or some cities are not mirrored; MapperError where none could be searched.
        """
        bad = [c for c in self.cities if c.state not in {"mirrored", "planned"}]
        if not bad:
            return
        told = bad[0].reason if len(bad) == 1 else ", ".join(c.name for c in bad)
        if all(c.state == "nothing found" for c in self.cities):
            raise NothingFoundError(f"nothing found for any city: {told}")
        if all(c.state in {"nothing found", "failed"} for c in self.cities):
            raise MapperError(f"no city was mirrored: {told}")
        missing = f"; {len(self.failures)} files are missing" if self.failures else ""
        raise PartlyDoneError(
            f"{len(bad)} of {len(self.cities)} cities not mirrored: {told}{missing}"
        )


def mirror(
    options: MirrorOptions,
    listener: Listener = ignore,
    opener: Callable[[str], Catalog] = open_catalog,
) -> MirrorReport:
    """Copy what the cities need of their archives, and list it as a static STAC catalog.

    Goes on where it was stopped: files that are there with the right size and checksum are not
    asked for again. A dry run writes nothing.

    Raises: InputError and UsageError before anything is searched; LockedError where another
        process fills the mirror; StoreError where the disk refuses or is too small.
    """
    began = time.monotonic()
    to = options.to.resolve()
    if to.exists() and not to.is_dir():
        raise UsageError(f"--to {options.to} is a file; name a folder")
    request = make_request(options.run, writing=False)
    check_sources(request.recipe)
    _check_same(to, request.recipe)
    plans, lost = plan_run(request, listener, opener)
    work = MirrorWork(to=to, jobs=options.jobs, wanted=wanted_items(plans), listener=listener)
    cities = [_planned(plan) for plan in plans]
    if options.dry_run:
        work.look(thorough=False)
        work.measure()
        for plan, city in zip(plans, cities, strict=True):
            _tell_lacking(city, work.lacking(plan))
    elif plans:
        with hold_folder(to):
            write_json(to / _FACTS, _facts(request.recipe))
            work.fill(_terms(request.recipe))
            _judge(plans, cities, work, listener)
    report = (*cities, *map(_lost, lost))
    return _report(work, report, round(time.monotonic() - began, 3))


def _report(work: MirrorWork, cities: tuple[CityMirror, ...], seconds: float) -> MirrorReport:
    return MirrorReport(
        catalog=work.to / CATALOG,
        cities=cities,
        files=len(work.promised),
        held=work.held,
        copied=len(work.copied),
        copy_bytes=work.copy_bytes,
        unsized=sum(size < 0 for size in work.sizes.values()),
        free_bytes=work.free,
        failures=tuple(work.failures[href] for href in sorted(work.failures)),
        seconds=seconds,
    )


def _planned(plan: CityPlan) -> CityMirror:
    scenes = {name: len(items) for name, items in plan.items.by_source.items()}
    return CityMirror(slug=plan.area.slug, name=plan.area.name, state="planned", scenes=scenes)


def _lost(result: CityResult) -> CityMirror:
    state: State = "nothing found" if result.state == "nothing found" else "failed"
    return CityMirror(slug=result.slug, name=result.name, state=state, reason=result.reason)


def _facts(recipe: Recipe) -> dict[str, str]:
    sources = {name: s.model_dump(mode="json") for name, s in recipe.sources.items()}
    return {"recipe": recipe.name, "sources": digest_of([sources, recipe.seasons])}


def _check_same(to: Path, recipe: Recipe) -> None:
    """Raises: UsageError where the folder is another recipe's mirror, or is something else."""
    try:
        kept = json.loads((to / _FACTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        if to.is_dir() and any(path.name != ".lock" for path in to.iterdir()):
            raise UsageError(f"--to {to} holds something else; name a new folder") from None
        return
    except (OSError, ValueError) as reason:
        raise StoreError(f"{to / _FACTS} is damaged ({reason}); delete it and run again") from None
    if kept != _facts(recipe):
        raise UsageError(
            f"--to {to} is the mirror of other sources (recipe {kept.get('recipe')!r}): scenes "
            "chosen for one would mix with those of the other; name another folder"
        )


def _terms(recipe: Recipe) -> dict[str, Terms]:
    """Terms of every collection, by the recipe where it states them, else as mapper knows them."""
    found = {}
    for source in recipe.sources.values():
        for collection in source.collections:
            known = terms_of(source.catalog, collection) or Terms("other")
            found[collection] = Terms(
                source.license or known.license,
                source.attribution or known.attribution,
                source.terms_url or known.url,
            )
    return found


def _judge(
    plans: Sequence[CityPlan], cities: Sequence[CityMirror], work: MirrorWork, listener: Listener
) -> None:
    """Say how each city ended: files are missing, or a search of the mirror chooses otherwise."""
    catalog: Catalog | None = None
    for plan, city in zip(plans, cities, strict=True):
        city.state = "mirrored"
        _tell_lacking(city, work.lacking(plan))
        if city.state == "mirrored":
            catalog = catalog or _Remembered(open_catalog(str(work.to / CATALOG)))
            city.reason = difference(plan, catalog)
            city.state = "differs" if city.reason else "mirrored"
        message = f"{city.state} {city.reason}".rstrip()
        state = "done" if city.state == "mirrored" else "failed"
        listener(Event(kind="city", city=city.slug, state=state, message=message))


def _tell_lacking(city: CityMirror, reasons: Sequence[str]) -> None:
    if reasons:
        more = f"; and {len(reasons) - _TOLD} more" if len(reasons) > _TOLD else ""
        city.state, city.reason = "incomplete", "; ".join(reasons[:_TOLD]) + more


def difference(plan: CityPlan, catalog: Catalog) -> str:
    """What a search of another catalog chooses otherwise than a plan; empty where nothing."""
    request = plan.request
    try:
        found = search_city(
            request.recipe, plan.ingest_tiles, request.period, lambda _: catalog, request.reach
        )
    except MapperError as reason:
        return f"a search of the mirror fails: {reason}"
    for composite in request.recipe.composites:
        name = composite.name
        wanted = _choice(plan.items.by_source.get(name, ()))
        chosen = _choice(found[name].items)
        if chosen != wanted:
            changed = sorted({i for i, _ in {*wanted} ^ {*chosen}})
            return (
                f"a search of the mirror chooses other scenes for {name} ("
                f"{', '.join(changed[:3])}): the archive has changed since "
                "the mirror was begun; mirror into a new folder"
            )
    return ""


def _choice(items: Sequence[Item]) -> list[tuple[str, tuple[str, ...]]]:
    """Ids, each with the cells for which a scene limit chose it.

    Not their order: a static catalog's times are written anew, and whoever lays scenes over each
    other sorts them by the times of the frozen items.
    """
    return sorted((i["id"], tuple(sorted(i["properties"].get(CELLS) or ()))) for i in items)


class _Remembered:
    """A catalog whose collections are walked once, for many cities."""

    def __init__(self, catalog: Catalog) -> None:
        """Nothing is read before the first search."""
        self._catalog = catalog
        self._lists: dict[str, ItemList] = {}

    def search(
        self, collection: str, boxes: Sequence[Bbox], period: Period | None
    ) -> Iterator[Item]:
        """As the catalog's own."""
        if collection not in self._lists:
            every = list(self._catalog.search(collection, [_WORLD], None))
            self._lists[collection] = ItemList(every)
        return self._lists[collection].search(collection, boxes, period)
