"""A run: plan every city, carry out what the ledger lacks, publish, report."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapper.area.aoi import pick_areas, read_areas
from mapper.area.grid import check_tile
from mapper.catalog.source import Catalog, Period, open_catalog
from mapper.cluster.factory import open_cluster
from mapper.cluster.members import Members
from mapper.cluster.options import DASHBOARD, GPU, NET, PATIENCE, ClusterOptions
from mapper.errors import (
    CatalogError,
    MapperError,
    ModelError,
    NothingFoundError,
    RecipeError,
)
from mapper.events import Event, Listener, ignore
from mapper.inference.card import load_card
from mapper.inference.devices import DeviceChoice
from mapper.inference.memory import check_memory
from mapper.inference.probe import Wishes, choose
from mapper.recipe import Recipe, load_recipe
from mapper.run.city import CityJob
from mapper.run.estimate import estimate_city
from mapper.run.execute import Execution
from mapper.run.layout import PROBES
from mapper.run.ledger import Ledger
from mapper.run.lock import hold_folder
from mapper.run.maps import coding_of
from mapper.run.masker import masks_of
from mapper.run.performance import PERFORMANCE, performance_kept
from mapper.run.plan import CityPlan, RunRequest, all_finished, check_bands, plan_city
from mapper.run.publish import read_item
from mapper.run.release import settle
from mapper.run.report import CityResult, RunReport, write_overview
from mapper.run.stopping import drained
from mapper.run.terms import check_known_terms
from mapper.run.watch import watched

DEFAULT_RECIPE = "spectral-10m"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """The command line of `mapper run` and `mapper plan`."""

    aoi: Path
    year: int
    cities: tuple[str, ...] = ()
    recipe: str = DEFAULT_RECIPE
    model: str | None = None
    """Another model than the recipe names."""
    max_scenes: int | None = None
    """Scenes kept per MGRS tile, instead of the recipe's."""
    catalog: str | None = None
    out: Path = Path("out")
    cluster: str = "local"
    """A kind of cluster, or the address of a scheduler; see `mapper.cluster`."""
    workers: int | None = None
    dashboard: str = DASHBOARD
    patience: float = PATIENCE
    metrics: str | None = None
    """Address at which Prometheus may ask for what is going on."""
    performance: bool = False
    """Keep Dask's own report of the run as `performance.html`."""
    """Seconds to wait for a worker that can do what is left."""
    tile_size: int | None = None
    refresh: bool = False
    trust_model: bool = False
    allow_missing: bool = False
    """Publish although scenes could not be read; the holes are marked."""
    net_workers: bool = False
    """Read archives on workers that offer the Dask resource NET alone."""
    device: DeviceChoice = "auto"


def make_request(options: RunOptions, writing: bool = True) -> RunRequest:
    """Read and check everything that the user named, before any scene is searched.

    Args:
        options: the command line.
        writing: whether the folder may be created, to keep there what was measured.

    Raises: AreaError, RecipeError, ModelError, UsageError.
    """
    recipe = _recipe(options)
    if options.tile_size is not None:
        check_tile(options.tile_size)
    areas = pick_areas(read_areas(options.aoi), options.cities)
    card = load_card(recipe.model)
    check_bands(recipe, card)
    check_known_terms(recipe, card)
    if card.head != "classes":
        raise ModelError(
            f"model {card.name!r} yields {card.head}, and a recipe's product has one class a "
            "pixel; use `mapper predict` for it"
        )
    coding = coding_of(card, recipe)
    predict = recipe.predict
    if predict.over != "composite" and predict.reduce == "mean":
        predict = predict.model_copy(update={"probabilities": True})
    wishes = Wishes(predict=predict, device=options.device, trust=options.trust_model)
    kept = options.out / PROBES if writing or options.out.is_dir() else None
    choice = choose(card, wishes, coding, kept)
    return RunRequest(
        areas=tuple(areas),
        period=Period.year(options.year),
        recipe=recipe,
        card=choice.card,
        inference=choice.plan,
        coding=coding,
        out=options.out.resolve(),
        tile_size=options.tile_size,
        refresh=options.refresh,
        trust_model=options.trust_model,
        allow_missing=options.allow_missing,
        masks=masks_of(recipe, options.trust_model, kept),
    )


def _recipe(options: RunOptions) -> Recipe:
    recipe = load_recipe(options.recipe)
    if options.model:
        recipe = recipe.model_copy(update={"model": options.model})
    return with_sources(recipe, options.max_scenes, options.catalog)


def with_sources(recipe: Recipe, max_scenes: int | None, catalog: str | None) -> Recipe:
    """A recipe with the scene limit and the catalog of a command line, where it names them."""
    if max_scenes is not None:
        recipe = recipe.with_scenes(max_scenes)
    if catalog is None:
        return recipe
    return recipe.with_catalog(catalog if "://" in catalog else str(Path(catalog).resolve()))


def plan_run(
    request: RunRequest,
    listener: Listener = ignore,
    opener: Callable[[str], Catalog] = open_catalog,
) -> tuple[list[CityPlan], list[CityResult]]:
    """Plan every city; those that cannot be are told apart, the others go on.

    Raises: RecipeError where the terms of what was found conflict with the recipe.
    """
    plans, lost = [], []
    catalogs: dict[str, Catalog] = {}

    def open_once(address: str) -> Catalog:
        if address not in catalogs:
            catalogs[address] = opener(address)
        return catalogs[address]

    for area in request.areas:
        try:
            plan = plan_city(area, request, open_once)
            if not plan.finished:
                # a conflict is found before a pixel is read
                _ = plan.terms
        except RecipeError:
            # the recipe is wrong for every city, and nothing has been read
            raise
        except MapperError as reason:
            state = "nothing found" if isinstance(reason, NothingFoundError) else "failed"
            lost.append(CityResult(slug=area.slug, name=area.name, state=state, reason=str(reason)))
            listener(Event(kind="city", state="failed", city=area.slug, message=str(reason)))
            continue
        plans.append(plan)
        scenes = ", ".join(f"{n}: {a}" for n, a in plan.accounts.items())
        listener(Event(kind="search", city=area.slug, state="done", message=scenes))
    return plans, lost


def run(
    options: RunOptions,
    listener: Listener = ignore,
    opener: Callable[[str], Catalog] = open_catalog,
) -> RunReport:
    """Take polygons to published maps.

    Raises: InputError and UsageError before anything is searched; RecipeError before anything is
        read, where the terms of what was found conflict with the recipe; LockedError where
        another run holds the folder; StoreError where the disk refuses.
    """
    began = time.monotonic()
    request = make_request(options)
    with hold_folder(request.out), ExitStack() as stack:
        client = None
        if not all_finished(request):
            client = stack.enter_context(open_cluster(cluster_of(options)))
            listener(Event(kind="run", message=f"dashboard {client.dashboard_link}"))
        plans, lost = plan_run(request, listener, opener)
        todo = [plan for plan in plans if not plan.finished]
        results = [_finished_before(plan) for plan in plans if plan.finished]
        if todo and client is not None:
            members = Members(client, patience=options.patience)
            resources = _resources(options, request)
            kept = request.out / PERFORMANCE if options.performance else None
            with (
                watched(listener, options.metrics, request.out.name) as watching,
                performance_kept(client, kept),
            ):
                results += _carry_out(todo, members, watching, resources)
        order = {area.slug: number for number, area in enumerate(request.areas)}
        results = sorted(results + lost, key=lambda r: order[r.slug])
        seconds = round(time.monotonic() - began, 3)
        report = RunReport(results=tuple(results), seconds=seconds, out=request.out)
        if todo or lost:
            write_overview(request, report)
    return report


def cluster_of(options: RunOptions) -> ClusterOptions:
    """The cluster that is asked for. Raises: UsageError."""
    return ClusterOptions(
        where=options.cluster,
        workers=options.workers,
        dashboard=options.dashboard,
        # workers of this machine may reach what it can
        offers=NET if options.net_workers else {},
        patience=options.patience,
    )


def _resources(options: RunOptions, request: RunRequest) -> dict[str, Mapping[str, float]]:
    """What steps take of their workers, by stage."""
    found: dict[str, Mapping[str, float]] = {}
    if options.net_workers:
        found |= {"inspect": NET, "ingest": NET}
    if request.inference.device != "cpu":
        found["predict"] = GPU
    return found


def _settled(plan: CityPlan) -> tuple[str, str]:
    """State and reason of a map that is finished now: released, or held by its gates."""
    failed = settle(plan.version, plan.request.recipe.gates)
    return ("candidate", "; ".join(failed)) if failed else ("published", "")


def _finished_before(plan: CityPlan) -> CityResult:
    state, reason = "finished", ""
    if "gates" not in (plan.version.state() or {}):
        # a driver was killed before it could ask
        settled, reason = _settled(plan)
        state = settled if reason else state
    return CityResult(
        slug=plan.area.slug,
        name=plan.area.name,
        state=state,
        reason=reason,
        product=str(plan.version.product_folder.relative_to(plan.version.root)),
        facts={"terms": _published_terms(plan)},
    )


def _published_terms(plan: CityPlan) -> dict[str, Any]:
    """Terms as the item of a finished version has them; what an earlier mapper made has less."""
    item: dict[str, Any] = read_item(plan.version)
    properties = item["properties"]
    fields = ("attributions", "notes", "obligations", "use")
    stated = {k: properties[f"mapper:{k}"] for k in fields if f"mapper:{k}" in properties}
    return {"license": properties["license"], **stated}


def _carry_out(
    plans: Sequence[CityPlan],
    members: Members,
    listener: Listener,
    resources: Mapping[str, Mapping[str, float]],
) -> list[CityResult]:
    """Freeze, execute and finish the versions of some cities."""
    # before anything is frozen, for nothing may come of it
    members.wait({}, *resources.values())
    for plan in plans:
        needed = estimate_city(plan).memory_bytes
        check_memory(needed, members.memory, f"{plan.area.name}: the largest step")
    ledger = Ledger(plans[0].version.root / "ledger")
    if ledger.dropped:
        message = f"the ledger's tail was damaged: {ledger.dropped} entries will be done again"
        listener(Event(kind="warning", message=message))
    jobs, lost = _begin(plans, ledger)
    try:
        with drained() as stop:
            Execution(jobs, members, ledger, listener, resources, stop).run()
    finally:
        ledger.close()
    return [_result(job, listener) for job in jobs] + lost


def _begin(plans: Sequence[CityPlan], ledger: Ledger) -> tuple[list[CityJob], list[CityResult]]:
    """Freeze each city's items; one whose items cannot be written down stops no other."""
    jobs, lost = [], []
    for plan in plans:
        try:
            jobs.append(CityJob(plan.freeze(), ledger))
        except CatalogError as reason:
            area = plan.area
            lost.append(
                CityResult(slug=area.slug, name=area.name, state="failed", reason=str(reason))
            )
    return jobs, lost


def _result(job: CityJob, listener: Listener) -> CityResult:
    plan = job.plan
    result = CityResult(slug=job.slug, name=plan.area.name, state="failed")
    if job.unchanged:
        plan.version.drop()
        before = plan.version.numbered(plan.version.number - 1)
        result.state, product = "unchanged", before.product_folder
        result.product = str(product.relative_to(plan.version.root))
    elif job.published:
        result.state, result.reason = _settled(plan)
        result.product = str(plan.version.product_folder.relative_to(plan.version.root))
    else:
        short = [f"{s} {p.done + p.skipped} of {p.total}" for s, p in job.progress.items()]
        result.reason = "; ".join(job.failures[:3]) or f"steps are missing: {', '.join(short)}"
    result.facts = {
        "steps": {
            stage: {"done": p.done, "skipped": p.skipped, "total": p.total}
            for stage, p in job.progress.items()
        },
        "missing": job.missing(),
        "warnings": job.read_failures(),
        "reads": job.reads(),
        "terms": plan.terms.to_dict(),
    }
    state = "done" if result.good else "failed"
    message = f"{result.state} {result.product}{result.reason}"
    listener(Event(kind="city", state=state, city=job.slug, message=message))
    return result
